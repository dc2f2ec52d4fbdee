"""The Frobenius norm of a kernel: held by a constraint, or trained apart."""

import keras
from keras import ops

from keras_redundancy._shared.arguments import check_positive
from keras_redundancy._shared.precision import wide, widened


@keras.saving.register_keras_serializable(package="keras_redundancy")
class FrobeniusNorm(keras.constraints.Constraint):
    """Scales a weight to a given Frobenius norm after each training step.

    The optimizer then trains its direction alone. To train the norm as well,
    use `FrobeniusNormalization`.

    Args:
        norm: sqrt(sum of all squared weights), greater than 0.

    Raises:
        TypeError, ValueError: `norm` is not a finite number greater than 0.

    Example:

        keras.layers.Dense(500, kernel_constraint=kr.FrobeniusNorm(10.0))
    """

    def __init__(self, norm: float = 1.0):
        self.norm = check_positive("norm", norm)

    def __call__(self, w):
        return scaled(w, self.norm * inverse_norm(w))

    def get_config(self):
        return {"norm": self.norm}


def inverse_norm(w):
    """1 / ||w||, with the Frobenius norm ||w||; 1 for a tensor of zeros.

    A scalar, computed in float32 at least: float16 cannot hold the squares of
    small weights.
    """
    squares = ops.sum(ops.square(widened(w)))
    # Never a division by 0, even where `where` discards the result: its
    # gradient would be NaN.
    return ops.rsqrt(ops.where(squares > 0, squares, 1))


def scaled(w, factor):
    """w times a scalar, multiplied in the dtype of the scalar.

    In float16 a large factor, or a small norm, would be lost.
    """
    return ops.cast(ops.cast(w, factor.dtype) * factor, w.dtype)


@keras.saving.register_keras_serializable(package="keras_redundancy")
class FrobeniusNormalization(keras.layers.Wrapper):
    """Divides the kernel of a layer by its norm, times a trained factor.

    In place of its kernel W the layer computes with

        k * g * W / ||W||

    where ||W|| is the Frobenius norm, k the norm of W when it was built, and
    g a trained scalar that starts at 1. So at first the layer computes what it
    did without the wrapper. W is trained too and is never overwritten. `strip`
    and `prune` return the layer without the wrapper, with k g W / ||W|| as its
    kernel.

    Args:
        layer: a layer with a `kernel`: `Dense`, `EinsumDense` or a
            convolution.
        **kwargs: those of `keras.layers.Wrapper`, such as `name`.

    Attributes:
        size: k, a scalar that is not trained.
        gain: g, a trained scalar.

    Raises:
        ValueError: when it is built, if `layer` has no kernel.

    Example:

        kr.FrobeniusNormalization(keras.layers.Dense(500, activation="relu"))

    Source: Lee et al., On the Redundancy in the Rank of Neural Network
    Parameters and Its Controllability (2021), Frobenius normalisation.
    """

    def __init__(self, layer, **kwargs):
        super().__init__(layer, **kwargs)
        self.supports_masking = layer.supports_masking

    def build(self, input_shape=None):
        super().build(input_shape)
        if not isinstance(getattr(self.layer, "kernel", None), keras.Variable):
            raise ValueError(
                "FrobeniusNormalization scales the kernel of a layer, but "
                f"{self.layer.name!r} ({type(self.layer).__name__}) has none. "
                "Wrap a Dense layer or a convolution."
            )
        # Not in bfloat16: its rounding would change all weights by up to 0.4 %.
        dtype = wide(self.variable_dtype)
        self.size = self.add_weight(
            name="size",
            shape=(),
            dtype=dtype,
            initializer=self._initial_norm,
            trainable=False,
            autocast=False,
        )
        self.gain = self.add_weight(
            name="gain",
            shape=(),
            dtype=dtype,
            initializer="ones",
            autocast=False,
        )

    def _initial_norm(self, shape, dtype=None):
        return ops.cast(1 / inverse_norm(self.layer.kernel.value), dtype)

    def effective_kernel(self):
        """k g W / ||W||: the kernel that the layer computes with."""
        kernel = ops.convert_to_tensor(self.layer.kernel.value)
        return scaled(kernel, self.factor())

    def factor(self):
        """k g / ||W||, a scalar."""
        scale = inverse_norm(self.layer.kernel.value)
        return ops.cast(self.size * self.gain, scale.dtype) * scale

    def call(self, inputs, *args, **kwargs):
        """Call the layer in a scope where its kernel has another value."""
        kernel = self.layer.kernel
        values = [
            (v, self.effective_kernel() if v is kernel else v.value)
            for v in self.layer.variables
        ]
        scope = keras.StatelessScope(
            values, collect_losses=True, initialize_variables=False
        )
        state = self.layer.non_trainable_variables
        before = [scope.get_current_value(variable) for variable in state]
        with scope:
            outputs = self.layer(inputs, *args, **kwargs)
        for loss in scope.losses:
            self.add_loss(loss)
        # Outside the scope, assign what the layer assigned to its state in it.
        for variable, value in zip(state, before, strict=True):
            now = scope.get_current_value(variable)
            if now is not value:
                variable.assign(now)
        return outputs

    def compute_output_shape(self, input_shape):
        return self.layer.compute_output_shape(input_shape)
