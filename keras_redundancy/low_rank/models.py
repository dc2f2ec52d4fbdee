"""Train for low rank: factorized copies of models, and small ones of them."""

import collections

import keras
import numpy as np

from keras_redundancy import _keras
from keras_redundancy._shared.arguments import (
    Layers,
    check_finite,
    selected_layers,
)
from keras_redundancy.build.rebuild import rebuild, require_rebuildable
from keras_redundancy.low_rank.factorized import (
    SIZES,
    STOCK_CLASSES,
    Factorized,
    can_be_factorized,
    share_out,
)
from keras_redundancy.low_rank.frobenius import FrobeniusNormalization
from keras_redundancy.low_rank.rare import SIDES, RaReRegularizer
from keras_redundancy.noise_out.outputs import NoiseOutputs
from keras_redundancy.planning.plans import plan

FACTORIZED_CLASSES = {stock: cls for cls, stock in STOCK_CLASSES.items()}
CONVOLUTIONS = (
    keras.layers.Conv1D,
    keras.layers.Conv2D,
    keras.layers.Conv3D,
)
TRANSPOSED = (
    keras.layers.Conv1DTranspose,
    keras.layers.Conv2DTranspose,
    keras.layers.Conv3DTranspose,
)
SEPARABLE = (keras.layers.SeparableConv1D, keras.layers.SeparableConv2D)

# Their variables may have several axes, but make no units of others: they
# scale and shift what goes through, or are gone after training.
PASSED_THROUGH = (
    keras.layers.BatchNormalization,
    keras.layers.GroupNormalization,
    keras.layers.LayerNormalization,
    keras.layers.Normalization,
    keras.layers.PReLU,
    keras.layers.RMSNormalization,
    NoiseOutputs,
)

# Columns with 1 - |cos| below it differ by the rounding of float32.
ROUNDING = 1e-11


def apply_rare(model, strength: float = 1.0, layers: Layers = None, **options):
    """A copy of a model whose kernels are regularized to be redundant.

    Each kernel of m x n numbers has a `RaReRegularizer` of its own, of

        strength * m n / c

    where c is the sum of m n over all of them. Of the layers that read the
    model's inputs, inputs are not drawn together, and of those that make its
    outputs units are not. A regularizer that a layer has is kept beside it.
    It may be called before or after `factorize`; of factorized layers only
    what they can join is drawn together.

    Not regularized are depthwise kernels, grouped convolutions and an
    `EinsumDense` that is not like a `Dense` layer: two of their filters read
    different channels, or write different axes, so that no unit can go where
    they are parallel. Nor are layers inside of others that are no wrappers,
    such as those of a `MultiHeadAttention`.

    Args:
        model: a built functional or Sequential `keras.Model`. It is never
            changed.
        strength: of the penalty of the whole model; lambda_1 of the paper.
        layers: the layers to regularize, of `Dense`, `EinsumDense`,
            convolutions, transposed and separable ones: a name, a regular
            expression, a list of them, or a callable that takes a layer and
            returns a bool. By default all.
        **options: further arguments of `RaReRegularizer`: `measure`,
            `tau_cos` or `exact`.

    Returns:
        A new `keras.Model`, compiled with the same arguments if `model` was.

    Raises:
        TypeError, ValueError: the model cannot be rebuilt or has no such
            layer, or an argument is refused by `RaReRegularizer`.

    Example:

        model = kr.factorize(kr.apply_rare(model, 1.0))

    Source: Lee et al., On the Redundancy in the Rank of Neural Network
    Parameters and Its Controllability (2021), L_RaRe.
    """
    strength = check_finite("strength", strength)
    vectors = _free_vectors(
        model,
        lambda layer: _rare_kernel(layer) is not None,
        layers,
        "Dense layer or convolution whose vectors could be drawn together",
    )
    sizes = [_outer_size(layer) for layer, _ in vectors]
    settings = {}
    for (layer, free), size in zip(vectors, sizes, strict=True):
        _, argument, units_axis = _rare_kernel(layer)
        also = getattr(layer, argument)
        if isinstance(also, RaReRegularizer):
            also = also.also
        rare = RaReRegularizer(
            float(strength * size / sum(sizes)),
            vectors=layer.vectors if isinstance(layer, Factorized) else free,
            also=also,
            units_axis=units_axis,
            **options,
        )
        serialized = keras.regularizers.serialize(rare)
        settings[id(layer)] = {(argument,): serialized}
    regularized = rebuild(model, settings, {}, classes={})
    layers = _keras.flat_layers(regularized)
    share_out([x for x in layers if isinstance(x, Factorized)])
    return regularized


def _rare_kernel(layer):
    """What RaRe can regularize of a layer, or None.

    Returns:
        The name of the kernel, that of the argument for its regularizer, and
        the axis of its units.
    """
    kernel = "kernel", "kernel_regularizer"
    if isinstance(layer, keras.layers.Dense):
        return *kernel, -1
    if isinstance(layer, CONVOLUTIONS):
        return (*kernel, -1) if layer.groups == 1 else None
    if isinstance(layer, TRANSPOSED):
        return *kernel, -2
    if isinstance(layer, SEPARABLE):
        return "pointwise_kernel", "pointwise_regularizer", -1
    if isinstance(layer, keras.layers.EinsumDense):
        axis = _units_axis_of_einsum(layer.equation)
        return None if axis is None else (*kernel, axis)
    return None


def _units_axis_of_einsum(equation):
    """The kernel's axis that is new and last; None if it is no `Dense` layer.

    So it is one where the channels, and whatever else the kernel reads, are
    summed over, and the kernel makes the channels of the output alone.
    """
    given, out = equation.replace(" ", "").split("->")
    given, kernel = given.split(",")
    made = [axis for axis in kernel if axis in out]
    summed = [axis for axis in kernel if axis in given and axis not in out]
    is_dense = made == [out[-1]] and made[0] not in given
    if not is_dense or given[-1] not in summed:
        return None
    return kernel.index(out[-1])


def _outer_size(layer):
    if isinstance(layer, Factorized):
        return layer.weights_of(layer.outer_sizes)
    name, _, _ = _rare_kernel(layer)
    return int(np.prod(getattr(layer, name).shape))


def factorize(model, layers: Layers = None):
    """A copy of a model with factorized layers in place of stock ones.

    `Dense` becomes `FactorizedDense`, and `Conv2D` `FactorizedConv2D`. It
    computes the same, and is compiled with the same arguments if `model` was.
    Of layers that read the model's inputs only units can be fused, of those
    that make its outputs only inputs. `to_dense` and `strip` make stock layers
    of them again.

    Args:
        model: a built functional or Sequential `keras.Model`. It is never
            changed.
        layers: those to replace: a name, a regular expression, a list of
            them, or a callable that takes a layer and returns a bool. By
            default all.

    Returns:
        A new `keras.Model`.

    Raises:
        TypeError: the model has no graph to follow.
        ValueError: it is not built, has no layer to factorize, or a layer
            cannot be rebuilt.
    """
    vectors = _free_vectors(
        model,
        lambda layer: (
            type(layer) in FACTORIZED_CLASSES and can_be_factorized(layer)
        ),
        layers,
        "Dense layer or Conv2D to factorize",
    )
    return _factorized(model, vectors)


def _factorized(model, vectors):
    """With factorized layers in place of those of [(layer, vectors), ...]."""
    classes = {id(x): FACTORIZED_CLASSES[type(x)] for x, _ in vectors}
    settings = {id(x): {("vectors",): free} for x, free in vectors}
    return rebuild(model, settings, {}, classes=classes)


def _free_vectors(model, is_one, choice, kind):
    """The layers to change, and what may be joined: [(layer, vectors), ...].

    Raises:
        ValueError: there is none.
    """
    require_rebuildable(model)
    graph = _keras.flat_graph(model, steps=True)
    first, last = _nearest_to_inputs(graph), _nearest_to_outputs(graph)
    found = [x for x in _keras.layers_made_alone(model) if is_one(x)]
    ends = first & last
    found = [layer for layer in found if id(layer) not in ends]
    if not found:
        raise ValueError(
            f"The model {model.name!r} has no {kind}. What reads the inputs "
            "of the model and makes its outputs, both at once, does not count."
        )
    if choice is not None:
        chosen = selected_layers(choice, found, "layers")
        found = [layer for layer in found if id(layer) in chosen]
    return [
        (
            layer,
            "units"
            if id(layer) in first
            else "inputs"
            if id(layer) in last
            else "both",
        )
        for layer in found
    ]


def _nearest_to_inputs(graph):
    """The ids of the layers whose kernels read a model's inputs.

    Layers without kernels, and models of such layers, lie between them.
    """
    reached, found = set(graph.inputs), set()
    for call in graph.calls:
        if reached & set(call.reads):
            layers = _with_kernels(call.operation)
            found |= layers
            reached |= set() if layers else set(call.makes)
    return found


def _nearest_to_outputs(graph):
    """The ids of the layers whose kernels make a model's outputs."""
    reached, found = set(graph.outputs), set()
    for call in reversed(graph.calls):
        if reached & set(call.makes):
            layers = _with_kernels(call.operation)
            found |= layers
            reached |= set() if layers else set(call.reads)
    return found


def _with_kernels(operation):
    """The ids of a layer with a kernel and of all inside of it, else none."""
    if not isinstance(operation, keras.Layer):
        return set()
    parts = _keras.flat_layers(operation)
    passed = {
        id(variable)
        for part in parts
        if isinstance(part, PASSED_THROUGH)
        for variable in part.variables
    }
    has_kernel = any(
        len(variable.shape) > 1 and id(variable) not in passed
        for variable in operation.variables
    )
    return set(map(id, parts)) if has_kernel else set()


def to_dense(model):
    """A copy of a model with stock layers in place of factorized ones.

    All else that is for training stays; `strip` takes that away too.

    Args:
        model: a built functional or Sequential `keras.Model`. It is never
            changed.

    Returns:
        A new `keras.Model` that computes the same, compiled with the same
        arguments if `model` was.

    Raises:
        TypeError: the model has no graph to follow.
        ValueError: it is not built, or a layer cannot be rebuilt.
    """
    require_rebuildable(model)
    classes = {
        id(layer): STOCK_CLASSES[type(layer)]
        for layer in _keras.flat_layers(model)
        if type(layer) in STOCK_CLASSES
    }
    return rebuild(model, {}, {}, classes=classes)


def compact(model):
    """A copy of a factorized model without what is not used, for inference.

    First the feature space: units whose columns and biases are multiples of
    one another, by a number greater than 0 where a ReLU follows, are one unit
    with other sizes, so one of them stays (see `prune`). Then each layer that
    was factorized keeps the rows and columns that differ: it becomes a
    `FactorizedDense` or `FactorizedConv2D` with a smaller W, or a stock layer
    where that takes no more numbers.

    Args:
        model: a built functional or Sequential `keras.Model`. It is never
            changed.

    Returns:
        A new `keras.Model` that computes the same, to float rounding, compiled
        with the same arguments if `model` was. What else was for training is
        stripped.

    Raises:
        TypeError: the model has no graph to follow.
        ValueError: it is not built, or a layer cannot be rebuilt.
    """
    small = plan(model, tau=1 - ROUNDING, criterion="folded").apply()
    counterparts = _by_name_and_turn(small)
    loose = _factorized(
        small,
        [
            (counterparts[key], layer.vectors)
            for key, layer in _by_name_and_turn(model).items()
            if isinstance(layer, Factorized)
        ],
    )
    settings, values, classes = {}, {}, {}
    for layer in _keras.flat_layers(loose):
        if not isinstance(layer, Factorized):
            continue
        limit = _rounding(layer.kernel.dtype)
        layer.fuse_parallel(limit, np.inf, to_square=False)
        (kernel,), indices = layer.in_use([layer.kernel])
        if kernel.size < np.prod(layer.kernel.shape):
            settings[id(layer)] = {
                (SIZES[side],): kernel.shape[SIDES[side]] for side in indices
            }
            values[id(layer.kernel)] = kernel
            for side, index in indices.items():
                values[id(getattr(layer, f"{side}_index"))] = index
        else:
            classes[id(layer)] = STOCK_CLASSES[type(layer)]
    return rebuild(loose, settings, values, classes=classes)


def _by_name_and_turn(model):
    """The layers of a model: {(name, how many before have it): layer}.

    Layers of models inside may have the same names. What `strip` takes away
    does not count, so that layers of the stripped model have the same keys.
    """
    turns, found = collections.Counter(), {}
    for layer in _keras.layers_made_alone(model):
        if isinstance(layer, (FrobeniusNormalization, NoiseOutputs)):
            continue
        found[layer.name, turns[layer.name]] = layer
        turns[layer.name] += 1
    return found


def _rounding(dtype):
    """Columns with 1 - |cos| below it differ by the rounding of a dtype."""
    unit = {"bfloat16": 2.0**-7, "float16": 2.0**-10}
    sine = unit.get(keras.backend.standardize_dtype(dtype), 0)
    return max(ROUNDING, sine**2 / 2)
