"""Why a layer cannot be made anew, and who is at fault: errors in words.

A layer that cannot be made from its own config, or not be called as before,
is at fault itself. One that fails only with other settings, or on other
shapes, was changed by what the rule for its class says.
"""

import keras

from keras_redundancy import _keras
from keras_redundancy.building.stock import function_name
from keras_redundancy.channels.rules.registry import rule


def cause_of(error) -> str:
    """The message of an error, on one line, without the config before it.

    Keras puts the whole config first, and the exception behind it.
    """
    text = str(error).split("Exception encountered:")[-1]
    return " ".join(text.strip().split("\n\n")[0].split())


def named(operation) -> str:
    """The name and the class of a layer or operation."""
    kind = "layer" if isinstance(operation, keras.Layer) else "operation"
    return f"The {kind} {operation.name!r} ({type(operation).__name__})"


def words_of(settings) -> str:
    """Settings in words: "units=7, target_shape.0=3"."""
    return ", ".join(
        f"{'.'.join(map(str, path))}={value!r}"
        for path, value in settings.items()
    )


def rule_for(operation) -> str:
    """The rule for the class of a layer or operation, in words."""
    function = rule.dispatch(type(operation))
    return (
        f"the rule for {type(operation).__name__} ({function_name(function)})"
    )


def bias_elsewhere(layer, shape) -> str:
    """For a layer whose bias Keras would add along another axis."""
    return (
        f"{named(layer)} would return an axis of {shape[-1]} positions, as "
        "many as it has units. On TensorFlow, Keras then adds the bias along "
        "the positions, not along the units. Remove one unit more or less of "
        "it (by layers=, skip= or another target), or have the units on the "
        "last axis (data_format='channels_last')."
    )


def not_from_config(layer, error) -> str:
    """For a layer that its own config does not make."""
    return (
        f"{named(layer)} cannot be rebuilt from its get_config(): "
        f"{cause_of(error)} Its constructor has to take what get_config() "
        "returns, and **kwargs (name, dtype, trainable) that it passes on to "
        "super().__init__()."
    )


def not_with_settings(recipe, error) -> str:
    """For a layer that its own config makes, but not with other settings."""
    return (
        f"{named(recipe.layer)} can be rebuilt from its get_config(), but not "
        f"with {words_of(recipe.settings)}: {cause_of(error)} These settings "
        f"follow from {rule_for(recipe.layer)}. Correct the rule, or leave "
        "the layer out with skip=."
    )


def not_called(recipe, call, given, error) -> str:
    """For a layer or operation that was made anew, but cannot be called.

    Args:
        recipe: its `LayerRecipe`.
        call: the call in the old model.
        given: the tensors that the new layer was called with, in order.
        error: what was raised.
    """
    before, after = _shapes(call.inputs), _shapes(given)
    what = f"{named(recipe.layer)} was rebuilt from its config"
    if before == after and not recipe.settings:
        return (
            f"{what} and then could not be called: {error}\nIf it has "
            "attributes that its constructor does not set, make them "
            "arguments of the constructor and of get_config()."
        )
    if recipe.settings:
        what += f" with {words_of(recipe.settings)}"
    reads = ""
    if before != after:
        reads = f" It reads {after} where it read {before}."
    sources = map(source_of, given)
    wrong = next(filter(_has_own_rule, sources), recipe.layer)
    return (
        f"{what} and then could not be called.{reads} {error}\n"
        f"{_blamed(recipe.layer, wrong)}. If that is a rule of your own, have "
        "it name the arguments that count channels with call.counted_in(), and "
        "freeze channels whose number is fixed in another way. Or leave the "
        f"layer {wrong.name!r} out with skip=."
    )


def other_shape(recipe, variable, shape, made, source) -> str:
    """For a variable of a new layer that is not of the shape it should be.

    Args:
        recipe: the `LayerRecipe` of the layer.
        variable: that of the old layer.
        shape: what it should be in the new one.
        made: what the new layer made it.
        source: what returns too many or too few channels to the layer, or
            None if that is not known.
    """
    wrong = recipe.layer if source is None else source
    return (
        f"The variable {variable.path!r} should have the shape {shape} in the "
        f"smaller model, but {named(recipe.layer).replace('The', 'the')} made "
        f"it {made}. {_blamed(recipe.layer, wrong)}. Correct the rule, or "
        f"leave the layer {wrong.name!r} out with skip=."
    )


def _blamed(layer, wrong):
    """Whose rule is wrong: that of a layer, or of another one before it."""
    if wrong is layer:
        return (
            f"Its width is fixed in a way that {rule_for(layer)} does not know"
        )
    return (
        f"It reads what {wrong.name!r} ({type(wrong).__name__}) returns, and "
        f"{rule_for(wrong)} is wrong about how many channels these are"
    )


def _has_own_rule(operation):
    """Whether the rule for an operation is one of the user's."""
    function = rule.dispatch(type(operation))
    return function.__module__.split(".")[0] != "keras_redundancy"


def other_count(layer, before, after) -> str:
    """For a new layer that has more or fewer variables than the old one."""
    return (
        f"{named(layer)} has {before} variables, but {after} after it was "
        "made anew from its config: its get_config() does not have all "
        "arguments that build() depends on."
    )


def hands_on_nothing(call) -> str:
    """For a call that reads what is gone with a layer for training."""
    return (
        f"{named(call.operation)} reads an output of a layer that is there "
        "for training only, and nothing is left of that output after "
        "training. Pass the model without it, such as keras.Model("
        "model.input, model.get_layer(...).output)."
    )


def output_left_out(graph, layer) -> str:
    """For an output of a model that is gone with a layer for training."""
    return (
        f"{named(layer)} is there for training only, and an output of the "
        f"model {graph.name!r} is one of its outputs of which nothing is left "
        "after training. Pass the model without it: keras.Model(model.input, "
        "its other outputs)."
    )


def another_shape_without(call) -> str:
    """For a layer that is left out, but does not return what it reads."""
    return (
        f"{named(call.operation)} is left out of the stock model, as the "
        "function says that is registered for its class with "
        "register_stock_form, so that the layers behind it read what it read. "
        f"But it makes {_shapes(call.outputs[:1])} of "
        f"{_shapes(call.inputs[:1])}. Return a LayerForm of a layer that does "
        "that."
    )


def source_of(x):
    """The operation that gave a tensor as many channels as it has.

    From the tensor upwards, past all that return as many as they read.
    """
    while True:
        operation, node = _keras.origin(x), _keras.node_of(x)
        if _keras.is_model(operation):
            number = [id(y) for y in node.outputs].index(id(x))
            x = _keras.graph_of(operation).outputs[number]
            continue
        inputs = node.input_tensors
        if len(inputs) != 1 or inputs[0].shape[-1:] != x.shape[-1:]:
            return operation
        x = inputs[0]


def source_for(layer, count: int):
    """The operation that gave a new layer so many channels, or None.

    None if they were not given to it: another axis has this size. Nor is it
    known for a layer that is called by the layer around it.
    """
    try:
        x = layer.input
    except (AttributeError, ValueError):
        return None
    is_given = isinstance(x, keras.KerasTensor) and x.shape[-1:] == (count,)
    return source_of(x) if is_given else None


def _shapes(tensors):
    shapes = [tuple(x.shape) for x in tensors]
    return ", ".join(map(str, shapes))
