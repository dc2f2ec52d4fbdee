"""To tf_keras (Keras 2) and back: `to_tf_keras`, `from_tf_keras`."""

from __future__ import annotations  # help() shows the names of types.

import importlib

import keras

from keras_redundancy._shared.extras import needing
from keras_redundancy.building.rebuild import rebuild, require_rebuildable
from keras_redundancy.building.recipe import Recipe
from keras_redundancy.channels.functional import with_graph
from keras_redundancy.deploy.pairs import (
    WRAPPERS,
    layer_pairs,
    wrapper_of_tfmot,
)
from keras_redundancy.deploy.samples import Subject, difference


def to_tf_keras(model: keras.Model, data=None, tolerance: float = 1e-4):
    """The same model in tf_keras (Keras 2), for tools that need tf_keras.

    tensorflow-model-optimization (tfmot) is the best known of these tools:

        old = kr.deploy.to_tf_keras(small)
        old = tfmot.quantization.keras.quantize_model(old)
        old.compile(...)
        old.fit(...)
        small = kr.deploy.from_tf_keras(old, like=small)

    The layers keep their names, weights and `trainable` flags. Layers of nested
    models become layers of the one new model, as tfmot takes no nested models.
    The new model is not compiled. Both models are run on the same inputs, and
    their outputs are compared.

    What to know about tfmot:

    - `cluster_weights` returns None for a Keras 3 model, without an error.
    - Its functions may change the model that they are given: call
      `to_tf_keras` again for each.
    - It refuses to quantize recurrent layers, and operations that are no
      layers, such as `x * 2`.
    - A quantized model cannot be saved as .keras. Call `old.export(folder)`
      and convert with `tf.lite.TFLiteConverter.from_saved_model(folder)`;
      `kr.deploy.litert(old, path)` does both.

    Args:
        model: a built `keras.Model` of stock layers. It is never changed.
        data: some inputs to compare the two models on, as `Model.predict`
            takes them. Default: four random ones.
        tolerance: the largest accepted difference of outputs, as a share of
            the largest output.

    Returns:
        A `tf_keras.Model`.

    Raises:
        ImportError: tf_keras is not installed.
        TypeError: the model has no graph to follow.
        ValueError: it is not built; or a layer, an operation, an activation
            or an argument has no counterpart in tf_keras; or the new model
            returns something else.
    """
    model = with_graph(model)
    _require_tf_keras()
    from keras_redundancy.deploy.translator import Translator

    result = Translator(model).translated()
    for old, new in layer_pairs(model, result):
        _copy_weights(old, new)
    _compare(model, result, data, tolerance)
    return result


def from_tf_keras(old, like: keras.Model) -> keras.Model:
    """A copy of a Keras 3 model, with the weights of a tf_keras model.

    Args:
        old: what `to_tf_keras(like)` returned, or what tfmot made of that
            model. Of a quantized model, the float weights that were trained
            are copied. A clustered or pruned model has to be stripped before,
            by tfmot's `strip_clustering` or `strip_pruning`.
        like: the Keras 3 model that was translated. It is never changed.

    Returns:
        A new model like `like`, compiled with the same arguments if `like`
        was.

    Raises:
        ImportError: tf_keras is not installed.
        TypeError: `old` is no tf_keras model, or `like` no Keras 3 model.
        ValueError: a layer of `like` is not in `old`, has other weights
            there, or is wrapped by tfmot in a way that has to be stripped.
    """
    _require_tf_keras()
    _require_model_of_tf_keras(old)
    like = with_graph(like)
    require_rebuildable(like)
    result = rebuild(Recipe.of(like))
    for new, source in layer_pairs(result, old):
        _copy_weights_back(source, new)
    return result


def _require_tf_keras():
    with needing("tfmot", "The bridge to tf_keras needs tf_keras"):
        importlib.import_module("tf_keras")


def _require_model_of_tf_keras(old):
    import tf_keras

    if isinstance(old, tf_keras.Model):
        return
    advice = ""
    if old is None:
        advice = (
            " tfmot's cluster_weights returns None for a Keras 3 model: pass "
            "it what kr.deploy.to_tf_keras(model) returns."
        )
    raise TypeError(
        f"old has to be a tf_keras.Model, but is {type(old).__name__}.{advice}"
    )


# --- weights ----------------------------------------------------------------


def _copy_weights(layer, new):
    """Set the weights of a layer of tf_keras to those of a Keras layer."""
    _require_shapes(layer, layer.get_weights(), new.weights, "in tf_keras")
    new.set_weights(layer.get_weights())
    new.trainable = layer.trainable


def _copy_weights_back(source, layer):
    part = wrapper_of_tfmot(source)
    if part in WRAPPERS:
        raise ValueError(
            f"The layer {source.name!r} is still wrapped by tfmot. Pass "
            f"{WRAPPERS[part]}."
        )
    if part is None:
        values = source.get_weights()
    else:
        # The wrapper has weights of its own among those of the layer.
        own = {w.name.split("/")[-1].split(":")[0]: w for w in source.weights}
        names = [w.name for w in layer.weights]
        named = [(x, f"depthwise_{x}") for x in names]
        found = [next((y for y in x if y in own), None) for x in named]
        values = [own[name].numpy() for name in found if name is not None]
    where = "in like=, which has to be the model that was translated,"
    _require_shapes(layer, values, layer.weights, where)
    layer.set_weights(values)


def _require_shapes(layer, values, weights, where):
    given = [tuple(x.shape) for x in values]
    wanted = [tuple(x.shape) for x in weights]
    if given != wanted:
        raise ValueError(
            f"The weights of {layer.name!r} ({type(layer).__name__}) have the "
            f"shapes {given}, but {where} {wanted}."
        )


# --- the comparison ----------------------------------------------------------


def _compare(model, result, data, tolerance):
    """Raise unless both models return the same for the same inputs."""
    subject = Subject.of(model)
    inputs = subject.samples(data, 4)
    wanted, given = (x.predict(inputs) for x in (subject, Subject.of(result)))
    error = difference(wanted, given)
    if not error <= tolerance:
        raise ValueError(
            f"{model.name!r} returns something else in tf_keras: the largest "
            f"difference is {error:.2g} of the largest output, more than "
            f"tolerance={tolerance:g}. A model that computes in half precision "
            "needs a greater one."
        )
