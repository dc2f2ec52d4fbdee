"""Rules are looked up by class: `rule`, `apply_rule`, `register_rule`.

A rule takes the operation and its `CallTrace`, and returns the labels of what
comes out. Subclasses inherit rules, unless they override what the class
computes: the rule was written for that.
"""

import functools
import inspect
import math
import re

from keras import layers, tree

from keras_redundancy._keras import numpy_operations, variables_in
from keras_redundancy.channels.reasons import Reason

# What a subclass may redefine and still compute the same.
HARMLESS = {
    "build",
    "build_from_config",
    "compute_output_shape",
    "compute_output_spec",
    "from_config",
    "get_build_config",
    "get_config",
}

NO_RULE = Reason(
    "no_rule",
    "there is no rule for {name} ({kind}); keras_redundancy.register_rule can "
    "teach it",
)
NO_OPERATION_RULE = Reason(
    "no_operation_rule",
    "there is no rule for the operation {name} ({kind}); in a layer of your "
    "own, keras_redundancy.register_rule can teach it",
)
PYTHON_CODE = Reason(
    "python_code",
    "{name} ({kind}) runs a Python function that cannot be looked into: write "
    "it with keras.ops in the model's graph",
)
OVERRIDES = Reason(
    "overridden_layer",
    "{name} ({kind}) overrides {what} of {known}, for which the rule was "
    "written; keras_redundancy.register_rule can teach it",
)
NO_WEIGHT = Reason(
    "no_weight_of_a_layer",
    "{name} ({kind}) reads a variable that is no weight of a layer: make it "
    "one in a layer of your own, with add_weight()",
)
WEIGHT_OF_OTHERS = Reason(
    "weight_of_another_layer",
    "{name} ({kind}) reads the variable {variable}, a weight of another layer",
)
OPEN_CHANNELS = Reason(
    "open_channel_size",
    "{name} ({kind}) reads a tensor with an open channel size",
)
NO_CHANNEL_AXIS = Reason(
    "no_channel_axis",
    "{name} ({kind}) reads a tensor without a channel axis",
)
MASK = Reason(
    "mask",
    "it is a mask of {name} ({kind})",
)
FOLLOWS_KERNELS = (numpy_operations.Matmul,)
READS_NO_CHANNELS = (layers.Embedding,)
MASK_NAME = re.compile("(^|_)mask$")


@functools.singledispatch
def rule(operation, call):
    """What `operation` does with channels: the default says it is unknown."""
    if isinstance(operation, layers.Lambda):
        return call.opaque(PYTHON_CODE)
    if isinstance(operation, layers.Layer):
        return call.opaque(NO_RULE)
    return call.opaque(NO_OPERATION_RULE)


def apply_rule(operation, call):
    """Labels of what a call returns, by the rule for the operation's class."""
    kind = type(operation)
    known = next(cls for cls in kind.__mro__ if cls in rule.registry)
    what = _overridden(kind, known)
    if what and known is not object:
        return call.opaque(OVERRIDES, what=what, known=known.__name__)
    variables = variables_in(call.arguments)
    if variables and not isinstance(operation, FOLLOWS_KERNELS):
        return variables_stay(call, variables)
    masks = _masks(operation, call)
    for number, x in enumerate(call.inputs):
        if number in masks:
            call.freeze(MASK, x.ids)
        elif isinstance(operation, READS_NO_CHANNELS):
            continue
        elif len(x.shape) < 2:
            return call.opaque(NO_CHANNEL_AXIS)
        elif x.shape[x.axis] is None:
            return call.opaque(OPEN_CHANNELS)
    return rule.dispatch(kind)(operation, call)


def variables_stay(call, variables):
    """Freeze what goes in and out, where variables are read besides."""
    owned = [id(x) in call.recorder.owners for x in variables]
    if not all(owned):
        return call.opaque(NO_WEIGHT)
    return call.opaque(WEIGHT_OF_OTHERS, variable=variables[0].path)


def _masks(operation, call):
    """Numbers of the inputs that are masks: they hold positions alone."""
    if not isinstance(operation, layers.Layer):
        return set()
    names = inspect.signature(type(operation).call).parameters
    masks = [call.argument(name) for name in names if MASK_NAME.search(name)]
    return {call.index_of(x) for x in tree.flatten(masks)} - {None}


def _overridden(kind, known):
    """Names that a subclass redefines and that can change what is computed."""
    between = kind.__mro__[: kind.__mro__.index(known)]
    names = {name for cls in between for name in vars(cls)}
    return ", ".join(
        sorted(
            name
            for name in names - HARMLESS
            if hasattr(known, name) and not name.startswith(("__", "_api"))
        )
    )


def register_rule(layer_class, function=None):
    """Teach the trace what a layer class of your own does with channels.

    Args:
        layer_class: a subclass of `keras.Layer`. Its subclasses inherit the
            rule, as long as they do not redefine what it computes.
        function: the rule: it takes the layer and a `CallTrace`, and returns
            the `Channels` of what the layer returns, or a list of them.
            Without it, `register_rule(layer_class)` is a decorator.

    Returns:
        `function`, or the decorator.

    Raises:
        TypeError: `layer_class` is no class, or `function` cannot be called.

    Example: a layer that scales every channel.

        @keras_redundancy.register_rule(ChannelScale)
        def channel_scale(layer, call):
            x = call.inputs[0]
            call.carried_by(layer.scale, 0, x.ids)
            return Channels(call.tied(x.ids), x.axis)

    Example: a layer made of layers; two arguments of its constructor set how
    many channels it has inside and how many come out.

        @keras_redundancy.register_rule(ResidualBlock)
        def residual_block(layer, call):
            x = call.inputs[0]
            y = call.through(layer.narrow, x, sets={"filters": "hidden"})
            y = call.through(layer.normalize, y)
            y = Channels(call.tied(y.ids), y.axis, y.shape)  # gelu
            y = call.through(layer.widen, y, sets={"filters": "filters"})
            z = call.through(layer.skip, x, sets={"filters": "filters"})
            return Channels(call.tied(y.ids, z.ids), y.axis)

    Where only what is hidden inside may go, `hidden_widths` makes the rule.
    """
    if not inspect.isclass(layer_class):
        raise TypeError(
            "register_rule expects a layer class, but received "
            f"{layer_class!r}. Write register_rule(MyLayer), not the layer's "
            "name or a layer."
        )
    if function is None:
        return functools.partial(register_rule, layer_class)
    if not callable(function):
        raise TypeError(
            "A rule is a function of a layer and a CallTrace, but received "
            f"{function!r}."
        )
    rule.register(layer_class)(function)
    return function


def for_classes(*classes):
    """Register one rule for several classes."""

    def register(function):
        for cls in classes:
            rule.register(cls)(function)
        return function

    return register


def channel_axis(layer, call) -> int:
    """The channel axis that the layer's `data_format` says it has."""
    first = getattr(layer, "data_format", None) == "channels_first"
    return 1 if first else len(call.inputs[0].shape) - 1


def positions(shape) -> int | None:
    """How many positions a tensor of these open-or-known sizes has."""
    return None if None in shape else math.prod(shape)
