"""Layers of other classes than Keras's: whether what is saved opens again."""

import copy
import functools
import inspect
import json
import warnings
import weakref

import keras

from keras_redundancy import _keras
from keras_redundancy._shared.warn import warn
from keras_redundancy.building import configs

OTHER_SHAPES = "it has other weights then."
FORGOTTEN = "it leaves out {names}."
# {class: {config and shapes: fault}}: models have many layers that are alike.
FAULTS = weakref.WeakKeyDictionary()


def make_saveable(layer, args, kwargs) -> str | None:
    """Give a layer a config to save, where its own one does not make it.

    That is the part of its `get_config` that its constructor takes, or the
    attributes that have the names of the constructor's arguments. Nothing is
    done where these do not make it, either.

    Args:
        layer: a built layer.
        args, kwargs: what it is called with; `KerasTensor`s for tensors.

    Returns:
        Why Keras does not make the layer again that it saves; None if it does.
    """
    fault = _loading_fault(layer, args, kwargs)
    if fault is None:
        return None
    for config_of in (_taken_config, _saved_attributes):
        try:
            config = config_of(layer)
        except Exception:  # Whatever the layer's own code raises.
            continue
        if config is None:
            continue
        vars(layer)["get_config"] = functools.partial(copy.deepcopy, config)
        if _loading_fault(layer, args, kwargs) is None:
            return None
        del vars(layer)["get_config"]
    return fault


def build_by_calls(layer) -> None:
    """Have a layer of a class of others built by its first call once loaded.

    Keras builds a layer that it loads by `build`, on lists for shapes. That
    fails where `build` takes tuples only, and without a `build` of its own
    the layer counts as built, although the layers inside are not.
    """
    own = type(layer)
    is_plain = own.get_build_config is keras.Layer.get_build_config
    if is_plain and not _keras.is_stock_class(own):
        vars(layer)["get_build_config"] = _no_build_config


def warn_of_faults(faults: list[tuple]) -> None:
    """Warn of layers that Keras does not make again: (layer, why), ..."""
    if faults:
        layer, why = faults[0]
        others = len(faults) - 1
        more = f", and {others} more layers are like that" if others else ""
        warn(
            "Keras does not open the new model again once it is saved: it does "
            f"not make {layer.name!r} ({type(layer).__name__}) from what its "
            f"get_config() returns{more}: {why} Correct that, or save the "
            "weights alone, with save_weights().",
        )


def _no_build_config():
    return None


def _loading_fault(layer, args, kwargs):
    """What goes wrong where Keras makes a layer again that it has saved."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            saved = json.dumps(keras.saving.serialize_keras_object(layer))
    except Exception as error:  # Whatever the layer's own code raises.
        return _words_of(error)
    shapes = [tuple(x.shape) for x in layer.variables]
    args, kwargs = keras.tree.map_structure(_like_tensor, (args, kwargs))
    own = configs.without_names([vars(layer).get(x) for x in _taken_by(layer)])
    words = configs.without_names(json.loads(saved)), own, args, kwargs, shapes
    known = FAULTS.setdefault(type(layer), {})
    if (key := repr(words)) not in known:
        known[key] = _fault_of(layer, json.loads(saved), args, kwargs, shapes)
    return known[key]


def _fault_of(layer, saved, args, kwargs, shapes):
    try:
        with (
            warnings.catch_warnings(),
            _keras.trusting_own_objects(),
            keras.saving.custom_object_scope(configs.objects_of(layer)),
            _keras.shapes_alone(),
        ):
            warnings.simplefilter("ignore")
            new = keras.saving.deserialize_keras_object(saved)
            new(*args, **kwargs)
            found = [tuple(x.shape) for x in new.variables]
    except Exception as error:  # Whatever the layer's own code raises.
        return _words_of(error)
    if names := configs.forgotten(layer, new, {}):
        return FORGOTTEN.format(names=", ".join(names))
    return None if found == shapes else OTHER_SHAPES


def _like_tensor(x):
    """A `KerasTensor` that is in no graph, in place of one that is."""
    if isinstance(x, keras.KerasTensor):
        return keras.KerasTensor(x.shape, x.dtype, sparse=x.sparse)
    return x


def _words_of(error):
    """The cause in what Keras says of layers that cannot be made."""
    text = str(error).rpartition("Exception encountered: ")[2]
    return " ".join(text.split("\n\n")[0].split())[:300].rstrip(".") + "."


def _taken_by(layer):
    """Names of the entries of a config that the constructor takes, in order."""
    parameters = inspect.signature(type(layer).__init__).parameters
    takes_all = any(x.kind is x.VAR_KEYWORD for x in parameters.values())
    others = configs.OF_EVERY_OBJECT if takes_all else ()
    return dict.fromkeys((*parameters, *sorted(others)))


def _taken_config(layer):
    taken, config = _taken_by(layer), _keras.get_config(layer)
    return {k: x for k, x in config.items() if k in taken}


def _saved_attributes(layer):
    taken, config = _taken_by(layer), configs.attributes_config(layer)
    return config and {
        k: keras.saving.serialize_keras_object(x)
        for k, x in config.items()
        if k in taken
    }
