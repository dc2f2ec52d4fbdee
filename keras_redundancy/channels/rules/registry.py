"""Rules are looked up by class: `rule`, `apply_rule`, `register_rule`.

A rule takes the operation and its `CallTrace`, and returns the labels of what
comes out. Subclasses inherit rules, unless they override what the class
computes: the rule was written for that.
"""

import functools
import inspect
import math

from keras import layers

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

NO_RULE = (
    "there is no rule for {name} ({kind}); keras_redundancy.register_rule can "
    "teach it"
)
OVERRIDES = (
    "{name} ({kind}) overrides {what} of {known}, for which the rule was "
    "written"
)
OPEN_CHANNELS = "{name} ({kind}) reads a tensor with an open channel size"
READS_NO_CHANNELS = (layers.Embedding,)


@functools.singledispatch
def rule(operation, call):
    """What `operation` does with channels: the default says it is unknown."""
    return call.opaque(NO_RULE)


def apply_rule(operation, call):
    """Labels of what a call returns, by the rule for the operation's class."""
    kind = type(operation)
    known = next(cls for cls in kind.__mro__ if cls in rule.registry)
    what = _overridden(kind, known)
    if what and known is not object:
        return call.opaque(OVERRIDES, what=what, known=known.__name__)
    for x in call.inputs:
        open_size = len(x.shape) < 2 or x.shape[x.axis] is None
        if open_size and not isinstance(operation, READS_NO_CHANNELS):
            return call.opaque(OPEN_CHANNELS)
    return rule.dispatch(kind)(operation, call)


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
