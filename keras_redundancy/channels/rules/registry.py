"""Rules are looked up by class: `rule`, `apply_rule`, `register_rule`.

A rule takes the operation and its `CallTrace`, and returns the labels of what
comes out. Subclasses inherit the rule of their base class, unless they
override a method that changes what the layer computes.
"""

import functools
import inspect
import math
import re

from keras import Operation, layers, tree

from keras_redundancy import _keras
from keras_redundancy._keras import numpy_operations, variables_in
from keras_redundancy.channels.reasons import Reason, of_call

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
NOT_OPENED = Reason(
    "not_opened",
    "there is no rule for {name} ({kind}), which register_rule can teach, and "
    "what it computes cannot be followed: {why}",
)
NO_CONFIG = Reason(
    "no_config",
    "{name} ({kind}) cannot be made anew with other sizes, its get_config() "
    "fails: {why} Add a get_config() that returns the constructor's arguments "
    "together with super().get_config()",
)
NO_OPERATION_RULE = Reason(
    "no_operation_rule",
    "there is no rule for the operation {name} ({kind}); in a layer of your "
    "own, keras_redundancy.register_rule can teach it",
)
PYTHON_CODE = of_call(
    "python_code",
    "runs a Python function that cannot be looked into: write it with "
    "keras.ops in the model's graph",
)
OVERRIDES = of_call(
    "overridden_layer",
    "overrides {what} of {known}, for which the rule was written; "
    "keras_redundancy.register_rule can teach it",
)
NO_WEIGHT = of_call(
    "no_weight_of_a_layer",
    "reads a variable that is no weight of a layer: make it one in a layer of "
    "your own, with add_weight()",
)
WEIGHT_OF_OTHERS = of_call(
    "weight_of_another_layer",
    "reads the variable {variable}, a weight of another layer",
)
BIAS_ELSEWHERE = of_call(
    "bias_along_another_axis",
    "has as many units as positions, along which Keras then adds the bias on "
    "TensorFlow: use data_format='channels_last'",
)
OPEN_CHANNELS = of_call(
    "open_channel_size", "reads a tensor with an open channel size"
)
BATCH_AXIS = of_call(
    "channels_on_batch_axis",
    "reads a tensor whose channels are merged with the batch axis",
)
NO_CHANNEL_AXIS = of_call(
    "no_channel_axis", "reads a tensor without a channel axis"
)
MASK = Reason("mask", "it is a mask of {name} ({kind})")
FOLLOWS_KERNELS = (numpy_operations.Matmul,)
READS_NO_CHANNELS = (
    layers.Embedding,
    *(_keras.Constant, _keras.EachSample, _keras.Weight),
)
MASK_NAME = re.compile("(^|_)mask$")


@functools.singledispatch
def rule(operation, call):
    """What `operation` does with channels: the default says it is unknown."""
    if isinstance(operation, layers.Lambda):
        return call.opaque(PYTHON_CODE)
    if isinstance(operation, layers.Layer):
        return call.opaque(NO_RULE)
    return call.opaque(NO_OPERATION_RULE)


def has_rule(operation) -> bool:
    """Whether a rule is known for the operation's class, as it is."""
    known, what = _known_class(type(operation))
    return known is not object and not what


def _known_class(kind):
    """The class whose rule `kind` inherits, and what it overrides of that."""
    known = next(cls for cls in kind.__mro__ if cls in rule.registry)
    return known, _overridden(kind, known)


def apply_rule(operation, call):
    """Labels of what a call returns, by the rule for the operation's class."""
    kind = type(operation)
    known, what = _known_class(kind)
    if what and known is not object:
        return call.opaque(OVERRIDES, what=what, known=known.__name__)
    if hasattr(operation, "not_opened"):
        return call.opaque(NOT_OPENED, why=operation.not_opened)
    if (why := _config_fault(call)) is not None:
        return call.opaque(NO_CONFIG, why=why)
    variables = variables_in(call.arguments)
    if variables and not isinstance(operation, FOLLOWS_KERNELS):
        return variables_stay(call, variables)
    function = rule.dispatch(kind)
    masks = _masks(operation, call)
    for number, x in enumerate(call.inputs):
        if number in masks:
            call.freeze(MASK, x.ids)
        elif isinstance(operation, READS_NO_CHANNELS) or (
            not x.shape and hasattr(function, "follows_numbers")
        ):
            continue
        elif len(x.shape) < 2 and not len(x.ids):
            return call.opaque(NO_CHANNEL_AXIS)
        elif x.batch and not hasattr(function, "follows_batch_axis"):
            return call.opaque(BATCH_AXIS)
        elif x.shape[x.axis] is None and not x.batch:
            return call.opaque(OPEN_CHANNELS)
    if len({x.batch for x in call.inputs} - {None}) > 1:
        return call.opaque(BATCH_AXIS)
    outputs = function(operation, call)
    if _keras.adds_bias_elsewhere(operation, call.outputs):
        both = tree.flatten([call.inputs, outputs])
        call.freeze(BIAS_ELSEWHERE, *(x.ids for x in both))
    return outputs


def with_batch_axis(function):
    """Mark a rule that also holds for channels merged with the batch axis.

    The size of such an axis is open, so the rule may not take it for the
    number of channels. Where a marked rule returns channels on an open axis,
    they are merged with the batch in the same order as those that went in.
    """
    function.follows_batch_axis = True
    return function


def with_numbers(function):
    """Mark a rule that also holds where an input is a number, without axes."""
    function.follows_numbers = True
    return function


def _config_fault(call):
    """Why a layer with weights cannot be made anew, or None if it can."""
    layer = call.operation
    is_own = not _keras.is_stock_class(type(layer)) and call.inside is None
    has_weights = isinstance(layer, layers.Layer) and layer.weights
    return _keras.config_fault(layer) if is_own and has_weights else None


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
    """Teach `trace` what a layer class of your own does with channels.

    Most need no rule: what the code of a layer without one calls is followed.
    A rule takes the layer and one call of it. It says which variables of the
    layer hold an entry for each channel, and returns the channels of what
    comes out. `help(CallTrace)` lists everything that a rule can say.

    Args:
        layer_class: a subclass of `keras.Layer`. Its subclasses inherit the
            rule, unless they override `call` or another method that changes
            what the layer computes.
        function: the rule. It takes the layer and a `CallTrace`, and returns
            the `Channels` of the layer's output, or a list of them for
            several outputs. Without `function`, `register_rule(layer_class)`
            returns a decorator.

    Returns:
        `function`, or the decorator.

    Raises:
        TypeError: `layer_class` is no class of layers, or `function` cannot be
            called.

    Example: a layer that averages over time. It needs a rule, since there is
    none for the loop.

        @keras.saving.register_keras_serializable()
        class RunningMean(keras.layers.Layer):
            def build(self, shape):
                self.keep = self.add_weight(
                    shape=shape[-1:], initializer="ones"
                )

            def call(self, x):
                def step(mean, x_now):
                    mean = self.keep * mean + (1 - self.keep) * x_now
                    return mean, mean

                times = keras.ops.moveaxis(x, 1, 0)
                first = keras.ops.zeros_like(times[0])
                _, means = keras.ops.scan(step, first, times)
                return keras.ops.moveaxis(means, 0, 1)

        @kr.register_rule(RunningMean)
        def running_mean(layer, call):
            x = call.inputs[0]
            call.carried_by(layer.keep, 0, x.ids)
            return kr.Channels(call.tied(x.ids), x.axis)

    Example: a layer made of layers; two arguments of its constructor set how
    many channels it has inside and how many come out.

        @kr.register_rule(ResidualBlock)
        def residual_block(layer, call):
            x = call.inputs[0]
            y = call.through(layer.narrow, x, sets={"filters": "hidden"})
            y = call.through(layer.normalize, y)
            y = kr.Channels(call.tied(y.ids), y.axis, y.shape)  # gelu
            y = call.through(layer.widen, y, sets={"filters": "filters"})
            z = call.through(layer.skip, x, sets={"filters": "filters"})
            return kr.Channels(call.tied(y.ids, z.ids), y.axis)

    Example: a block with a wide part inside, whose width is an argument of its
    constructor, and whose attributes `expand` and `project` hold the layers
    that write and read it. Such a rule is ready-made, see `hidden_widths`:

        kr.register_rule(
            Block,
            kr.hidden_widths(ff_dim=("expand", "project")),
        )
    """
    return register_for_class(
        rule,
        register_rule,
        layer_class,
        function,
        base=Operation,
        expects="a layer class",
        what="A rule is a function of a layer and a CallTrace",
        write="def my_rule(layer, call), which returns the Channels of the "
        "layer's output",
    )


def register_for_class(
    generic, door, kind, function, *, base=object, expects, what, write
):
    """Register a function of the user's for a class; or return a decorator.

    Args:
        generic: the `functools.singledispatch` function to extend.
        door: the public function that was called with `kind` and `function`.
        base: the class that `kind` has to be a subclass of.
        expects, what, write: what kind of class is wanted, what the function
            is, and what to write, for errors.
    """
    if not inspect.isclass(kind) or not issubclass(kind, base):
        raise TypeError(
            f"{door.__name__} expects {expects}, but received {kind!r}. Write "
            f"{door.__name__}(MyLayer), not the layer's name or a layer."
        )
    if function is None:
        return functools.partial(door, kind)
    if not callable(function):
        raise TypeError(f"{what}, but received {function!r}. Write {write}.")
    generic.register(kind)(function)
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


def axes_of(axis, x) -> list[int]:
    """The axes of `x` that an operation's `axis` names: one, several or all."""
    if axis is None:
        return list(range(len(x.shape)))
    axes = [axis] if isinstance(axis, int) else axis
    return [a % len(x.shape) for a in axes]


def positions(shape) -> int | None:
    """How many positions a tensor of these open-or-known sizes has."""
    return None if None in shape else math.prod(shape)
