"""Copies of models to train at low rank, and smaller ones after that."""

from __future__ import annotations  # help() shows the names of types.

import math

import keras
import numpy as np

from keras_redundancy import _keras
from keras_redundancy._shared.arguments import Layers, check_finite
from keras_redundancy._shared.tables import listed
from keras_redundancy.building.rebuild import rebuild, require_rebuildable
from keras_redundancy.building.recipe import LayerRecipe, Recipe, operations
from keras_redundancy.building.stock import LayerForm, stock_form
from keras_redundancy.channels.units import distinct
from keras_redundancy.low_rank.ends import free_vectors
from keras_redundancy.low_rank.factorized import (
    Factorized,
    can_be_factorized,
    factorized_layers,
)
from keras_redundancy.low_rank.frobenius import FrobeniusNormalization
from keras_redundancy.low_rank.kept_pairs import share_out
from keras_redundancy.low_rank.rare import RaReRegularizer
from keras_redundancy.low_rank.shrinking import in_use
from keras_redundancy.low_rank.sides import SIDES, SIZES
from keras_redundancy.low_rank.stock import FACTORIZED_CLASSES, factorized_form
from keras_redundancy.low_rank.units_axes import rare_kernel
from keras_redundancy.planning.plans import plan

# Columns with 1 - |cos| below this differ by the rounding of float32 only.
ROUNDING = 1e-11


def apply_rare(
    model: keras.Model, strength: float = 1.0, layers: Layers = None, **options
) -> keras.Model:
    """A copy of a model with a `RaReRegularizer` for each kernel.

    A kernel of m x n numbers gets the strength

        strength * m n / c

    where c is the sum of m n over all kernels that get one. In layers that
    read the model's inputs, only units are pulled together; in layers that
    make the model's outputs, only inputs. A layer's other regularizer is kept,
    as `also` of the new one. Call it before or after `factorize`: in factorized
    layers only vectors that they can fuse are pulled together.

    These kernels get none:

    - depthwise kernels, kernels of grouped convolutions, and those of an
      `EinsumDense` that does not compute what a `Dense` layer does: two of
      their filters read different channels or write different axes, so that
      parallel filters could not be fused;
    - kernels with a single unit or a single input, which have no two vectors
      whose angle could change;
    - kernels of layers inside other layers that are no wrappers, such as the
      projections of a `MultiHeadAttention`.

    Args:
        model: a built functional or Sequential `keras.Model`. It is never
            changed.
        strength: of the penalty of the whole model; lambda_1 of the paper.
        layers: the layers to regularize, among `Dense`, `EinsumDense` and
            convolutions, transposed and separable ones included: a name, a
            regular expression, a list of them, or a callable that takes a
            layer and returns a bool. By default all.
        **options: further arguments of `RaReRegularizer`: `measure`,
            `tau_cos` or `exact`.

    Returns:
        A new `keras.Model`, compiled with the same arguments if `model` was.

    Raises:
        TypeError, ValueError: the model cannot be rebuilt or has no layer to
            regularize, or `RaReRegularizer` refuses an argument.

    Example:

        model = kr.factorize(kr.apply_rare(model, 1.0))

    Source: Lee et al., On the Redundancy in the Rank of Neural Network
    Parameters and Its Controllability (2021), L_RaRe.
    """
    strength = check_finite("strength", strength)
    vectors = free_vectors(
        model,
        _can_be_regularized,
        layers,
        "Dense layer or convolution whose vectors could be pulled together",
    )
    sizes = [_outer_size(layer) for layer, _ in vectors]
    changes = []
    for (layer, free), size in zip(vectors, sizes, strict=True):
        _, argument, units_axis = rare_kernel(layer)
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
        # The new layer's RaRe looks for its own pairs.
        form = LayerForm(layer, values={"state": None})
        changes.append(LayerRecipe(layer, form, {(argument,): serialized}))
    regularized = rebuild(Recipe.of(model, changes))
    share_out(factorized_layers(regularized))
    return regularized


def _can_be_regularized(layer):
    """Whether RaRe can pull vectors of its kernel together."""
    found = rare_kernel(layer)
    if found is None:
        return False
    if isinstance(layer, Factorized):
        return layer.has_pairs(layer.sides)
    name, _, axis = found
    shape = getattr(layer, name).shape
    units = shape[axis]
    return units > 1 and math.prod(shape) > units


def _outer_size(layer):
    if isinstance(layer, Factorized):
        return layer.weights_of(layer.outer_sizes)
    name, _, _ = rare_kernel(layer)
    return int(np.prod(getattr(layer, name).shape))


def factorize(model: keras.Model, layers: Layers = None) -> keras.Model:
    """A copy of a model with factorized layers in place of stock ones.

    `Dense` becomes `FactorizedDense`, and `Conv2D` `FactorizedConv2D`; the
    copy computes the same. In layers that read the model's inputs, only units
    can be fused; in layers that make the model's outputs, only inputs.
    `to_dense` and `strip` turn factorized layers into stock ones again.

    Args:
        model: a built functional or Sequential `keras.Model`. It is never
            changed.
        layers: the layers to replace: a name, a regular expression, a list of
            them, or a callable that takes a layer and returns a bool. By
            default all.

    Returns:
        A new `keras.Model`, compiled with the same arguments if `model` was.

    Raises:
        TypeError: the model has no graph to follow.
        ValueError: it is not built, has no layer to factorize, or a layer
            cannot be rebuilt.

    Example:

        model = kr.factorize(model, layers="dense.*")
    """

    def is_one(layer):
        return type(layer) in FACTORIZED_CLASSES and can_be_factorized(layer)

    if _keras.is_model(model) and not any(map(is_one, operations(model))):
        done = [layer.name for layer in factorized_layers(model)]
        if done:
            raise ValueError(
                f"The layers of {model.name!r} are factorized already: "
                f"{listed(done)}. No other Dense layer or Conv2D is left."
            )
    vectors = free_vectors(
        model,
        is_one,
        layers,
        "Dense layer or Conv2D to factorize",
    )
    return _factorized(model, vectors)


def _factorized(model, vectors):
    """A copy in which the layers of [(layer, vectors), ...] are factorized."""
    changes = [
        LayerRecipe(x, factorized_form(x), {("vectors",): free})
        for x, free in vectors
    ]
    return rebuild(Recipe.of(model, changes))


def to_dense(model: keras.Model) -> keras.Model:
    """A copy of a model with stock layers in place of factorized ones.

    Unlike `strip`, it keeps all else that is there for training, such as
    regularizers.

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
    changes = []
    for layer in operations(model):
        if isinstance(layer, Factorized):
            changes.append(LayerRecipe(layer, stock_form(layer)))
        elif isinstance(layer, FrobeniusNormalization) and isinstance(
            layer.layer, Factorized
        ):
            size = _size_around_stock(layer)
            changes.append(LayerRecipe(layer, values=((layer.size, size),)))
    return rebuild(Recipe.of(model, changes))


def _size_around_stock(layer):
    """The k of k g W / ||W|| that gives P W Q the factor that W had."""
    inner = layer.layer
    kernel = keras.ops.convert_to_numpy(inner.kernel).astype(float)
    before, after = map(np.linalg.norm, (kernel, inner.effective_kernel()))
    return layer.size * (after / before if before else 1)


def compact(model: keras.Model) -> keras.Model:
    """A small copy of a factorized model, for inference.

    Two steps, neither of which changes what the model computes:

    1. `prune` removes each unit whose column of P W Q and bias are a multiple
       of another unit's, by a positive factor if a ReLU follows.
    2. Each layer that was factorized keeps the rows and columns of W in use,
       after those that are parallel up to rounding are fused. It becomes a
       `FactorizedDense` or `FactorizedConv2D` with a smaller W, or a stock
       layer where W would be no smaller than the stock layer's kernel.

    Args:
        model: a built functional or Sequential `keras.Model`. It is never
            changed.

    Returns:
        A new `keras.Model` that computes the same up to float rounding,
        compiled with the same arguments if `model` was. All else that is there
        for training is stripped.

    Raises:
        TypeError: the model has no graph to follow.
        ValueError: it is not built, or a layer cannot be rebuilt.
    """
    small = plan(model, tau=1 - ROUNDING, criterion="folded").apply()
    counterparts = _by_name(small)
    loose = _factorized(
        small,
        [
            (counterparts[key], layer.vectors)
            for key, layer in _by_name(model).items()
            if isinstance(layer, Factorized)
        ],
    )
    changes = []
    for layer in factorized_layers(loose):
        limit = _rounding(layer.kernel.dtype)
        layer.fuse_parallel(limit, np.inf, to_square=False)
        (kernel,), indices = in_use(layer, [layer.kernel])
        if kernel.size < np.prod(layer.kernel.shape):
            settings = {
                (SIZES[side],): kernel.shape[SIDES[side]] for side in indices
            }
            values = [(layer.kernel, kernel)] + [
                (layer.factor_variables(side)[0], index)
                for side, index in indices.items()
            ]
            change = LayerRecipe(layer, settings=settings, values=tuple(values))
            changes.append(change)
        else:
            changes.append(LayerRecipe(layer, stock_form(layer)))
    return rebuild(Recipe.of(loose, changes))


def _by_name(model):
    """Dense layers and convolutions: {a name that is its own: layer}.

    Layers in different nested models may have the same name. `prune` keeps
    their order, so a layer's key is the same in the smaller model.
    """
    found = [
        layer
        for layer in operations(model)
        if isinstance(layer, tuple(FACTORIZED_CLASSES))
    ]
    names = distinct(layer.name for layer in found)
    return dict(zip(names, found, strict=True))


def _rounding(dtype):
    """Columns with 1 - |cos| below this differ by a dtype's rounding only."""
    unit = {"bfloat16": 2.0**-7, "float16": 2.0**-10}
    sine = unit.get(keras.backend.standardize_dtype(dtype), 0)
    return max(ROUNDING, sine**2 / 2)
