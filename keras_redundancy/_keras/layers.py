"""Layers and operations as objects: what is in them, and copies of them."""

import keras
from keras.src.backend.common import global_state
from keras.src.ops.operation import Operation
from keras.src.saving.serialization_lib import SafeModeScope

from keras_redundancy._keras.graph import mask_of, run_for_inference, with_mask

# Where a `torch.nn.Module` keeps what is set as an attribute. A copy that had
# the same dictionaries would change the original.
OF_A_MODULE = {"_buffers", "_modules", "_parameters"}
# Between the names of a layer or model and of one inside of it. PyTorch takes
# no dot, and TensorFlow few other signs.
BORDER = "-"
ABSTRACT = (keras.Layer, keras.Model, keras.Sequential, keras.layers.Wrapper)


def flat_layers(layer, recursive: bool = True) -> list:
    """A layer or model and all layers in it, outer before inner ones.

    Args:
        layer: the layer or model.
        recursive: False leaves out what is inside of the layers in it.
    """
    return layer._flatten_layers(recursive=recursive)


def models_around(model) -> dict[int, list[str]]:
    """{id(layer): names of the nested models of `model` that it is in}."""
    found = {}
    for part in flat_layers(model)[1:]:
        if isinstance(part, keras.Model):
            for layer in flat_layers(part)[1:]:
                found.setdefault(id(layer), []).append(part.name)
    return found


def states_of(model) -> list:
    """The variables that change when a model is called.

    The states of stateful recurrent layers are not among the variables of
    their layers.
    """
    states = [getattr(x, "states", None) for x in flat_layers(model)]
    found = [*model.non_trainable_variables, *keras.tree.flatten(states)]
    found = [x for x in found if isinstance(x, keras.Variable)]
    return list({id(x): x for x in found}.values())


def wraps_one_layer(operation) -> bool:
    """Whether its class is made as `Class(layer, **config)`.

    `TimeDistributed` is an example. `Bidirectional`, with two layers, is not.
    """
    wrapper = keras.layers.Wrapper
    return (
        isinstance(operation, wrapper)
        and type(operation).from_config.__func__ is wrapper.from_config.__func__
    )


def attributes_of(layer) -> dict:
    """{name: value} of what a layer or model holds, layers in it included.

    On PyTorch a layer is a `torch.nn.Module`, where `vars` leaves out the
    layers in it.
    """
    inner = vars(layer).get("_modules", {})
    inner = {key: x for key, x in inner.items() if key != "_torch_params"}
    return inner | vars(layer)


def attention_projections(layer) -> dict:
    """The `EinsumDense` layers inside an attention layer with heads.

    Returns:
        {"query": ..., "key": ..., "value": ..., "output": ...}, and "gate"
        where the layer has one.
    """
    projections = {
        "query": layer._query_dense,
        "key": layer._key_dense,
        "value": layer._value_dense,
    }
    if hasattr(layer, "_gate_dense"):
        projections["gate"] = layer._gate_dense
    return projections | {"output": layer._output_dense}


def attention_values(layer, args, kwargs):
    """What the output projection of an attention layer with heads reads.

    Args:
        layer: a layer that `attention_projections` takes.
        args, kwargs: those of a call of it.

    Returns:
        The values that each head attends to, times the gate where there is
        one: shape (samples, queries, heads, size of a head).
    """
    copy = copy_operation(layer)
    vars(copy)["_output_dense"] = lambda values: values
    given = [x for x in keras.tree.flatten((args, kwargs)) if x is not None]
    masks = [mask_of(x) for x in given]
    found = run_for_inference(copy, args, kwargs)
    # The call takes the masks away from the tensors that it is given.
    for x, mask in zip(given, masks, strict=True):
        with_mask(x, mask)
    return found[0] if isinstance(found, (list, tuple)) else found


def lambda_output_shape(layer):
    """The `output_shape` that a `Lambda` layer was made with."""
    return layer._output_shape


# --- made anew --------------------------------------------------------------


def is_stock_class(cls) -> bool:
    """Whether a class comes with Keras or with this package."""
    return cls.__module__.split(".")[0] in ("keras", "keras_redundancy")


def has_stock_bases(layer) -> bool:
    """Whether the class of a layer inside extends one of Keras's layers."""
    return any(stock_base(type(x)) for x in flat_layers(layer)[1:])


def stock_base(cls):
    """The class of Keras that a class of layers extends, or None."""
    first = next(base for base in cls.__mro__ if is_stock_class(base))
    return None if first is cls or first in ABSTRACT else first


def has_config(operation) -> bool:
    """Whether an operation can be made anew with other settings.

    True for all layers: those that cannot be made anew are refused earlier,
    with the cause.
    """
    own = type(operation).get_config is not Operation.get_config
    return own or operation._auto_config is not None


def trusting_own_objects():
    """A context in which configs of live objects may hold Python functions."""
    return SafeModeScope(False)


def copy_operation(operation):
    """A copy of an operation without weights, connected to no graph.

    `copy.copy` saves and loads the operation, which not all of them allow.
    """
    clone = object.__new__(type(operation))
    vars(clone).update(vars(operation))
    for key in OF_A_MODULE & vars(clone).keys():
        vars(clone)[key] = vars(clone)[key].copy()
    clone._inbound_nodes = []
    clone._outbound_nodes = []
    return clone


def returning_sequences(layer):
    """A copy of a recurrent layer that returns the output of every step.

    It runs the same cell, and returns no states. For a masked step it returns
    the output of the step before.
    """
    copy = copy_operation(layer)
    vars(copy).update(
        return_sequences=True, return_state=False, zero_output_for_mask=False
    )
    return copy


def present_pass():
    """What Keras knows of the present call of the outermost layer.

    Another object for each such call, and the same one for all calls of layers
    inside of it; None where no layer is called.
    """
    return global_state.get_global_attribute("current_call_ctx")
