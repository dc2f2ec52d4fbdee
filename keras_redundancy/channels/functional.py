"""Functional models of subclassed ones: `functional(model, inputs)`."""

from __future__ import annotations  # help() shows the names of types.

import keras

from keras_redundancy import _keras
from keras_redundancy._shared.tables import shown
from keras_redundancy._shared.warn import warn
from keras_redundancy.channels.opening import recorded


def functional(layer: keras.Layer, *args, **kwargs) -> keras.Model:
    """The functional model that computes what a layer or model does.

    The `call` of a subclassed model, or of a layer, is run once on symbolic
    tensors, as Keras runs layers on `keras.Input`s. The layers and operations
    that it calls become the graph of a functional model, which is compared
    with the original on random numbers.

    Args:
        layer: a built `keras.Layer` or `keras.Model`, which does not change.
        *args, **kwargs: what `call` takes: a `keras.Input` in place of each
            tensor, and all other arguments as they are. A model may be given
            none: then it takes inputs of the shapes that it was called on.

    Returns:
        A `keras.Model`. Its layers share their variables with those of
        `layer`: training one trains the other. What `call` does only with
        `training=True`, and losses that it adds, are not in there.

    Raises:
        TypeError: no `keras.Input` is given for a layer; or `call` cannot be
            recorded: it fails on symbolic tensors, changes variables, or
            depends on the values or the number of the samples. The message
            says where.
        ValueError: `layer` is not built.

    Example:

        model = kr.functional(unet, keras.Input((128, 128, 3)))
        small = kr.prune(model, ratio=0.3)
    """
    if not isinstance(layer, keras.Layer):
        raise TypeError(
            "Expected a keras.Layer or a keras.Model, but received "
            f"{type(layer).__name__}: {shown(layer)}."
        )
    _require_built(layer)
    if isinstance(layer, keras.Model) and not (args or kwargs):
        args = (_inputs(layer, None),)
    given = keras.tree.flatten((args, kwargs))
    if not any(map(keras.utils.is_keras_tensor, given)):
        raise TypeError(
            f"No symbolic tensor was received for {layer.name!r} "
            f"({type(layer).__name__}). Pass a keras.Input in place of each "
            "tensor: kr.functional(layer, keras.Input(shape))."
        )
    found = _recorded(layer, args, kwargs)
    structures = _keras.input_structure(found), _keras.output_structure(found)
    return keras.Model(*structures, name=layer.name)


def with_graph(model, input_shape=None):
    """The model itself if it has a graph, else what `functional` makes of it.

    Args:
        model: any `keras.Model`.
        input_shape: that of a sample, or a structure of such shapes; None for
            the shapes that the model was called on.

    Raises:
        TypeError: no graph can be made.
        ValueError: the model is not built.
    """
    is_subclassed = isinstance(model, keras.Model) and not _keras.is_model(
        model
    )
    if not is_subclassed:
        _keras.graph_of(model)  # Raises where there is none.
        return model
    _require_built(model)
    inputs = _inputs(model, input_shape)
    found = _recorded(model, (inputs,), {})
    if found.branches:
        warn(
            f"The call of {model.name!r} ({type(model).__name__}) does "
            "something else with training=True, which no copy of it will do. "
            "Pass `training` on to layers such as Dropout instead of an `if`.",
        )
    return _keras.with_compile_state_of(model, found)


def _require_built(layer):
    if not layer.built:
        raise ValueError(
            f"{layer.name!r} ({type(layer).__name__}) has not been built, so "
            "it has no weights yet. Call it once on data."
        )


def _recorded(layer, args, kwargs):
    try:
        found = recorded(layer, args, kwargs)
        if found.returns_more:
            raise _keras.RecordingError(_keras.NO_TENSORS)
        return found
    except _keras.RecordingError as error:
        why = str(error).rstrip(".")
        raise TypeError(
            f"{layer.name!r} ({type(layer).__name__}) has no graph to follow: "
            f"{why}. Its call() has to be made of layers and keras.ops, "
            "whatever the values that it reads. Otherwise write it as a "
            "functional model: keras.Model(inputs, outputs)."
        ) from error


def _inputs(model, input_shape):
    """A `keras.Input` for each tensor that a subclassed model reads."""
    built = (model.get_build_config() or {}).get("input_shape")
    if input_shape is not None:
        shapes = input_shape
    elif (graph := _keras.graph_beside_call(model)) is not None:
        return keras.tree.map_structure(
            lambda x: keras.Input(x.shape[1:], dtype=x.dtype, name=x.name),
            _keras.input_structure(graph),
        )
    elif built is not None:
        shapes = keras.tree.map_shape_structure(lambda x: x[1:], built)
    else:
        raise TypeError(
            f"The model {model.name!r} is a subclassed model "
            f"({type(model).__name__}), and the shapes of its inputs are not "
            "known. Pass input_shape=, the shape of one sample, or pass "
            "keras_redundancy.functional(model, keras.Input(shape))."
        )
    if isinstance(shapes, dict):
        return {key: keras.Input(x, name=key) for key, x in shapes.items()}
    return keras.tree.map_shape_structure(keras.Input, shapes)
