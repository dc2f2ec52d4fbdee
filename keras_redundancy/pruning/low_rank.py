"""Train for low rank: factorized copies of models, and small ones of them."""

import keras
import numpy as np

from keras_redundancy import _keras_internals as internals
from keras_redundancy.layers.factorized import (
    SIZES,
    STOCK_CLASSES,
    Factorized,
    can_be_factorized,
)
from keras_redundancy.options import Layers, check_finite, selected_layers
from keras_redundancy.pruning.planning import plan
from keras_redundancy.pruning.rebuild import rebuild, require_rebuildable
from keras_redundancy.regularizers import SIDES, RaReRegularizer

FACTORIZED_CLASSES = {stock: cls for cls, stock in STOCK_CLASSES.items()}
REGULARIZED = (
    keras.layers.Dense,
    keras.layers.Conv1D,
    keras.layers.Conv2D,
    keras.layers.Conv3D,
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

    Args:
        model: a built functional or Sequential `keras.Model`. It is never
            changed.
        strength: of the penalty of the whole model; lambda_1 of the paper.
        layers: the `Dense` layers and convolutions to regularize: a name, a
            regular expression, a list of them, or a callable that takes a
            layer and returns a bool. By default all.
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
        lambda layer: isinstance(layer, REGULARIZED),
        layers,
        "Dense layer or convolution whose vectors could be drawn together",
    )
    sizes = [np.prod(layer.kernel.shape) for layer, _ in vectors]
    settings = {}
    for (layer, free), size in zip(vectors, sizes, strict=True):
        also = layer.kernel_regularizer
        if isinstance(also, RaReRegularizer):
            also = also.also
        rare = RaReRegularizer(
            float(strength * size / sum(sizes)),
            vectors=free,
            also=also,
            **options,
        )
        serialized = keras.regularizers.serialize(rare)
        settings[id(layer)] = {("kernel_regularizer",): serialized}
    return rebuild(model, settings, {}, classes={})


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
    first = _nearest(model, from_inputs=True)
    last = _nearest(model, from_inputs=False)
    found = [x for x in internals.flat_layers(model) if is_one(x)]
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


def _nearest(model, from_inputs):
    """The layers with kernels next to a model's inputs, or to its outputs.

    Returns:
        Their ids, and those of all layers inside of them.
    """
    graph = internals.graph_of(model)
    calls = internals.calls(graph)
    ends = graph.inputs if from_inputs else graph.outputs
    reached = {id(x) for x in ends}
    found = set()
    for call in calls if from_inputs else reversed(calls):
        sides = call.inputs, call.outputs
        here, beyond = sides if from_inputs else reversed(sides)
        if not reached & {id(x) for x in here}:
            continue
        operation = call.operation
        if internals.is_model(operation):
            found |= _nearest(operation, from_inputs)
        elif _has_kernel(operation):
            found |= set(map(id, internals.flat_layers(operation)))
        else:
            reached |= {id(x) for x in beyond}
    return found


def _has_kernel(operation):
    return isinstance(operation, keras.Layer) and any(
        len(variable.shape) > 1 for variable in operation.variables
    )


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
        for layer in internals.flat_layers(model)
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
    vectors = {
        layer.name: layer.vectors
        for layer in internals.flat_layers(model)
        if isinstance(layer, Factorized)
    }
    small = plan(model, tau=1 - ROUNDING, criterion="folded").apply()
    loose = _factorized(
        small,
        [
            (layer, vectors[layer.name])
            for layer in internals.flat_layers(small)
            if layer.name in vectors and type(layer) in FACTORIZED_CLASSES
        ],
    )
    settings, values, classes = {}, {}, {}
    for layer in internals.flat_layers(loose):
        if not isinstance(layer, Factorized):
            continue
        layer.fuse_parallel(ROUNDING, np.inf, to_square=False)
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
