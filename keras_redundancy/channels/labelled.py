"""One call of an operation: what goes in, and labels of what comes out."""

import dataclasses
import functools
import inspect

import keras
import numpy as np

from keras_redundancy import _keras
from keras_redundancy.channels import labels
from keras_redundancy.channels.labels import Channels
from keras_redundancy.channels.reasons import of_call
from keras_redundancy.channels.recorder import Rivals, frozen_channels
from keras_redundancy.channels.samples import samples_returned, sizes_of

OTHER_AXIS = of_call("other_axis", "works on another axis than the channels")


class LabelledCall:
    """One call, the labels of its inputs, and new labels made of these.

    See `CallTrace` for the attributes, and for which labels to return.
    """

    def __init__(self, call, given, walk):
        """Args:
        call: a `Call` or an `ImaginedCall`.
        given: a `Traced` for each of its inputs.
        walk: the walk through the graph that came to this call.
        """
        self.operation, self.arguments = call.operation, call.arguments
        self.inputs = [
            dataclasses.replace(x.channels, shape=tuple(x.tensor.shape))
            for x in given
        ]
        self.tensors = [x.tensor for x in given]
        self._given = given
        self.recorder, self.inside = walk.recorder, walk.inside
        self.node, self.path = call.node, call.path
        self._call, self._walk = call, walk
        self._copied, self.options = {}, 1
        self.owner = self.inside.call.owner if self.part else call.operation

    @functools.cached_property
    def outputs(self) -> list:
        """`KerasTensor`s with the shapes of what comes out."""
        given = map(id, self._call.inputs)
        tensors = dict(zip(given, self.tensors, strict=True))
        return _keras.output_tensors(self._call, tensors)

    @functools.cached_property
    def samples(self) -> list:
        """The `Traced.sample` of each of `outputs`."""
        return samples_returned(
            self._call, self._given, self.outputs, self.recorder.batch
        )

    @property
    def input_sizes(self) -> list[tuple]:
        """The shape of each input for the batch that is counted."""
        batch = self.recorder.batch
        return [sizes_of(x.tensor, x.sample, batch) for x in self._given]

    @property
    def output_sizes(self) -> list[tuple]:
        """The shape of each output for the batch that is counted.

        That is one sample, unless the model's inputs fix the batch. An
        operation may have merged other axes with the batch, as where windows
        of an image become samples, or moved it: sizes are known here all the
        same. None stands for those that differ from input to input.
        """
        batch = self.recorder.batch
        found = zip(self.outputs, self.samples, strict=True)
        return [sizes_of(x, sample, batch) for x, sample in found]

    @property
    def _first_open(self):
        """The number of the first input with an open axis 0, or 0."""
        sizes = [x.shape[0] if x.shape else 1 for x in self.tensors]
        return sizes.index(None) if None in sizes else 0

    @property
    def kind(self) -> str:
        """The name of the operation's class."""
        return type(self.operation).__name__

    @property
    def part(self) -> bool:
        """Whether the constructor of another layer makes this layer."""
        return self.inside is not None and self.inside.part

    def say(self, reason: str, **words) -> str:
        """`reason` with the operation's name and kind, and `words`, put in."""
        return reason.format(name=self.operation.name, kind=self.kind, **words)

    # --- what goes in -------------------------------------------------------

    def labels_on(self, axis: int, index: int = 0) -> np.ndarray:
        """The labels of input `index` on `axis`, which may be negative.

        If the channels of this input are on another axis, they are frozen,
        and new, frozen labels are returned for `axis`.
        """
        x = self.inputs[index]
        axis %= len(x.shape)
        if x.axis == axis:
            return x.ids
        self.freeze(OTHER_AXIS, x.ids)
        return self.new_frozen(x.shape[axis] or 0, OTHER_AXIS)

    def argument(self, name: str, default=None):
        """What the call gave for the argument `name` of the layer's `call`."""
        call = inspect.signature(type(self.operation).call)
        args, kwargs = self.arguments
        bound = call.bind_partial(self.operation, *args, **kwargs).arguments
        return {**bound, **bound.get("kwargs", {})}.get(name, default)

    def index_of(self, tensor) -> int | None:
        """The place in `inputs` of a tensor among the arguments, or None."""
        given = enumerate(self._call.inputs)
        return next((i for i, x in given if x is tensor), None)

    def choose(self, options: list):
        """One of several axes, or of what stands for them.

        It is the first, unless more channels can go where another one is
        taken: `choices` finds that out. A rule calls this once at most.
        """
        self.options = len(options)
        number = self.recorder.chosen.get(id(self.operation), 0)
        return options[number % len(options)]

    # --- labels -------------------------------------------------------------

    def new(self, size: int) -> np.ndarray:
        """Labels of `size` new channels that depend on no others."""
        return self.recorder.store.new(size)

    def new_frozen(self, size: int, reason: str) -> np.ndarray:
        """Labels of `size` new channels that have to stay."""
        ids = self.new(size)
        self.freeze(reason, ids)
        return ids

    def frozen(self, tensor, reason: str, **words) -> Channels:
        """New `Channels` that have to stay, for one of `outputs`."""
        reason = self.say(reason, **words)
        return frozen_channels(tensor, reason, self.recorder.store)

    def tied(self, *values: np.ndarray) -> np.ndarray:
        """Labels of a function of channel i of each of `values`, for each i.

        All these channels can only be removed together.
        """
        return self._joined(values, "function")

    def summed(self, *values: np.ndarray) -> np.ndarray:
        """As `tied`, for f with f(s x, s y, ...) = s f(x, y, ...), s > 0."""
        return self._joined(values, "sum")

    def multiplied(self, *values: np.ndarray) -> np.ndarray:
        """As `tied`, for f with f(s x, t y, ...) = s t f(x, y, ...)."""
        return self._joined(values, "product")

    def _joined(self, values, how):
        ids = self.new(len(values[0]))
        for value in values:
            self.recorder.store.tie(ids, value)
        if len(ids):
            self.recorder.steps.append(labels.Joined(ids, values, how))
        return ids

    def tie(self, *values: np.ndarray) -> None:
        """Channel i of all `values` can only be removed together, each i."""
        for value in values[1:]:
            self.recorder.store.tie(values[0], value)

    def copied(self, source: np.ndarray, places: int = 1) -> np.ndarray:
        """Labels of the same channels at `places` other positions.

        Returns:
            Shape (places * channels,): all channels at the first place, then
            all at the second, and so on.
        """
        ids = self.recorder.store.new(len(source), places)
        source = np.tile(source, places)
        self.recorder.store.tie(ids, source)
        self.recorder.steps.append(labels.Copied(ids, source))
        self._copied[ids.tobytes()] = source
        return ids

    # --- limits -------------------------------------------------------------

    def mixes(self, *values: np.ndarray) -> None:
        """The operation computes something over all channels of `values`.

        Its result is the same where a copy of another channel goes, as that
        of a maximum is. If it is not, call `inexact`.
        """
        for ids in values:
            self.recorder.steps.append(labels.Mixed(ids))

    def freeze(self, reason: str, *values: np.ndarray, **words) -> None:
        """The channels `values` have to stay; by default those of all inputs.

        Args:
            reason: why, with {name}, {kind} and the names of `words` in it.
            *values: labels.
            **words: what is put into the reason.
        """
        reason = self.say(reason, **words)
        for ids in values or [x.ids for x in self.inputs]:
            self.recorder.store.freeze(ids, reason)

    def rivals(self, stay: np.ndarray, followed: np.ndarray) -> None:
        """The channels `stay` are frozen because others are `followed`."""
        self.recorder.rivals.append(Rivals(self.operation, stay, followed))

    def inexact(self, reason: str, *values: np.ndarray, **words) -> None:
        """The operation's result changes where any channel of `values` goes.

        The channels are frozen, unless the caller passes `allow_inexact=True`.
        The arguments are those of `freeze`.
        """
        reason = self.say(reason, **words)
        self.mixes(*values)
        for ids in values:
            self.recorder.store.inexact.append((ids, reason))

    def opaque(self, reason: str, **words) -> list[Channels]:
        """Everything that goes in and comes out has to stay.

        So does what the layer's other calls read and return: they use the
        same weights. The arguments are those of `freeze`.
        """
        self.freeze(reason, **words)
        for layer in _with_sublayers(self.operation):
            self.recorder.opaque[id(layer)] = layer, self.say(reason, **words)
        return [self.frozen(x, reason, **words) for x in self.outputs]


def _with_sublayers(operation):
    if isinstance(operation, keras.Layer):
        return _keras.flat_layers(operation)
    return [operation]
