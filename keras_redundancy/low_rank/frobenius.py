"""A wrapper that trains the direction and the size of a kernel apart."""

import keras
from keras import ops

from keras_redundancy.low_rank.norms import inverse_norm


@keras.saving.register_keras_serializable(package="keras_redundancy")
class FrobeniusNormalization(keras.layers.Wrapper):
    """The kernel of a layer over its Frobenius norm, times a trained size.

    In place of its kernel W the layer computes with

        k * g * W / ||W||

    where k is the norm that W had when it was built, and g, 1 at first, is
    trained. So the function does not change until it is trained, and W keeps
    its own size: it is never overwritten. `strip` and `prune` make the layer
    alone of it, with the kernel that it computes with.

    Args:
        layer: one with a `kernel`: `Dense`, `EinsumDense` or a convolution.
        **kwargs: those of `keras.layers.Wrapper`, such as `name`.

    Raises:
        ValueError: when it is built, `layer` has no kernel.

    Example:

        kr.FrobeniusNormalization(keras.layers.Dense(500, activation="relu"))

    Source: Lee et al., On the Redundancy in the Rank of Neural Network
    Parameters and Its Controllability (2021), Frobenius normalisation.
    """

    def build(self, input_shape=None):
        super().build(input_shape)
        if not isinstance(getattr(self.layer, "kernel", None), keras.Variable):
            raise ValueError(
                "FrobeniusNormalization scales the kernel of a layer, but "
                f"{self.layer.name!r} ({type(self.layer).__name__}) has none. "
                "Wrap a Dense layer or a convolution."
            )
        # Rounded to bfloat16, they would change all weights by 0.4 %.
        wide = keras.backend.result_type(self.variable_dtype, "float32")
        self.size = self.add_weight(
            name="size",
            shape=(),
            dtype=wide,
            initializer=self._norm_at_first,
            trainable=False,
            autocast=False,
        )
        self.gain = self.add_weight(
            name="gain",
            shape=(),
            dtype=wide,
            initializer="ones",
            autocast=False,
        )

    def _norm_at_first(self, shape, dtype=None):
        kernel = ops.convert_to_tensor(self.layer.kernel.value)
        return ops.cast(1 / inverse_norm(kernel), dtype)

    def effective_kernel(self):
        """What the layer computes with in place of its kernel."""
        kernel = ops.convert_to_tensor(self.layer.kernel.value)
        factor = self.factor()
        return ops.cast(ops.cast(kernel, factor.dtype) * factor, kernel.dtype)

    def factor(self):
        """What the kernel is multiplied by: k g / ||W||."""
        kernel = ops.convert_to_tensor(self.layer.kernel.value)
        scale = inverse_norm(kernel)
        return ops.cast(self.size * self.gain, scale.dtype) * scale

    def call(self, inputs, *args, **kwargs):
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
        for variable, value in zip(state, before, strict=True):
            now = scope.get_current_value(variable)
            if now is not value:
                variable.assign(now)
        return outputs

    def compute_output_shape(self, input_shape):
        return self.layer.compute_output_shape(input_shape)
