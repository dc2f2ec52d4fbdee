"""One call of an operation, as its rule sees it."""

import dataclasses
import functools
import inspect

import keras
import numpy as np

from keras_redundancy import _keras
from keras_redundancy.channels import labels
from keras_redundancy.channels.inside import (
    Inside,
    checked_sets,
    imagined_call,
)
from keras_redundancy.channels.labels import Channels, Role
from keras_redundancy.channels.reasons import Reason
from keras_redundancy.channels.recorder import frozen_channels

OTHER_AXIS = Reason(
    "other_axis",
    "{name} ({kind}) works on another axis than the channels",
)
CONSTANT_INSIDE = Reason(
    "constant_in_part",
    "{name} ({kind}), a part of another layer, has a constant array operand",
)
NO_CONFIG = Reason(
    "cannot_be_saved",
    "{name} ({kind}) was given something that Keras cannot save, such as a "
    "NumPy number: give it Python numbers",
)


class CallTrace:
    """One call of an operation, seen by its rule.

    A rule reads the labels of what goes in (`inputs`), says what they mean to
    the operation's variables and config, and returns the labels of what comes
    out: one `Channels` or a list of them. Which labels to return:

    | what comes out of channel x     | labels                             |
    |---------------------------------|------------------------------------|
    | f(x) with f(s x) = s f(x), s > 0 | those that went in                 |
    | any other function of x alone   | `tied(ids)`                        |
    | of the x of several inputs      | `tied(ids, other_ids)`             |
    | their sum, or their maximum     | `summed(ids, other_ids)`           |
    | their product                   | `multiplied(ids, other_ids)`       |
    | x, at one of several places     | `copied(ids)` for each place       |
    | x, normalised by the layer      | `normalized(ids, ...)`             |
    | x times a kernel of its own     | `filtered_by(kernel, axis, ids)`   |
    | a product with a kernel         | `written_by(kernel, axis)`         |
    | what an inner layer makes of it | `through(inner, channels)`         |
    | anything else                   | `opaque(reason)`                   |

    A reason is a text in which {name} and {kind} stand for the operation's
    name and class.

    Attributes:
        operation: the layer or operation that is called.
        owner: the layer of the graph that it belongs to: itself, or the
            wrapper or composite layer around it.
        inputs: list of `Channels`, one per input tensor.
        tensors, outputs: `KerasTensor`s of the shapes that go in and out.
        arguments: (args, kwargs) as they were recorded.
    """

    def __init__(
        self, call, inputs, tensors, outputs, recorder, inside=None, path=None
    ):
        self.operation = call.operation
        self.inputs = [
            dataclasses.replace(x, shape=tuple(tensor.shape))
            for x, tensor in zip(inputs, tensors, strict=True)
        ]
        self.tensors = tensors
        self.outputs = outputs
        self.arguments = call.arguments
        self.recorder = recorder
        self.inside = inside
        self.path = path
        self.node = call.node
        self._copied = {}
        self._given = [id(x) for x in call.inputs]
        self.owner = inside.call.owner if self.part else call.operation

    @property
    def kind(self) -> str:
        return type(self.operation).__name__

    @property
    def part(self) -> bool:
        """Whether the constructor of the layer around it makes it."""
        return self.inside is not None and self.inside.part

    def say(self, reason: str, **words) -> str:
        """`reason` with the operation's name and kind, and `words`."""
        return reason.format(name=self.operation.name, kind=self.kind, **words)

    # --- what goes in -------------------------------------------------------

    def labels_on(self, axis: int, index: int = 0) -> np.ndarray:
        """Labels of input `index` on `axis`, which may be negative.

        Where the channels of that tensor are on another axis, they are frozen
        and the axis gets new, frozen labels.
        """
        x, tensor = self.inputs[index], self.tensors[index]
        axis %= len(tensor.shape)
        if x.axis == axis:
            return x.ids
        self.freeze(OTHER_AXIS, x.ids)
        return self.new_frozen(tensor.shape[axis] or 0, OTHER_AXIS)

    def argument(self, name: str, default=None):
        """What the operation's `call` was given for its argument `name`."""
        call = inspect.signature(type(self.operation).call)
        args, kwargs = self.arguments
        bound = call.bind_partial(self.operation, *args, **kwargs).arguments
        return {**bound, **bound.get("kwargs", {})}.get(name, default)

    def index_of(self, tensor) -> int | None:
        """Which of `inputs` a tensor among the arguments is."""
        same = [i for i, given in enumerate(self._given) if given == id(tensor)]
        return same[0] if same else None

    # --- labels -------------------------------------------------------------

    def new(self, size: int) -> np.ndarray:
        """Labels of a new value of `size` channels."""
        return self.recorder.store.new(size)

    def new_frozen(self, size: int, reason: str) -> np.ndarray:
        ids = self.new(size)
        self.freeze(reason, ids)
        return ids

    def tied(self, *values: np.ndarray) -> np.ndarray:
        """Labels of a new value whose channels are tied to all `values`."""
        return self._joined(values, "function")

    def summed(self, *values: np.ndarray) -> np.ndarray:
        """As `tied`, of f with f(s x, s y, ...) = s f(x, y, ...) for s > 0."""
        return self._joined(values, "sum")

    def multiplied(self, *values: np.ndarray) -> np.ndarray:
        """As `tied`, of f with f(s x, t y, ...) = s t f(x, y, ...)."""
        return self._joined(values, "product")

    def _joined(self, values, how):
        ids = self.new(len(values[0]))
        for value in values:
            self.recorder.store.tie(ids, value)
        self.recorder.steps.append(labels.Joined(ids, values, how))
        return ids

    def tie(self, *values: np.ndarray) -> None:
        """The channels values[0][i], values[1][i], ... only go together."""
        for value in values[1:]:
            self.recorder.store.tie(values[0], value)

    def copied(self, source: np.ndarray, places: int = 1) -> np.ndarray:
        """Labels of the same channels, seen at other positions.

        Shape (places * channels,): all channels at the first place, then all
        at the second.
        """
        ids = self.recorder.store.new(len(source), places)
        source = np.tile(source, places)
        self.recorder.store.tie(ids, source)
        self.recorder.steps.append(labels.Copied(ids, source))
        self._copied[ids.tobytes()] = source
        return ids

    def normalized(
        self, source, gamma, variance, epsilon, beta=None, mean=None
    ) -> np.ndarray:
        """Labels of a value scaled per channel by a batch normalisation.

        It is gamma * (source - mean) / sqrt(variance + epsilon) + beta, of
        variables of the shape (channels,); gamma and beta may be None.
        """
        ids = self.new(len(source))
        self.recorder.store.tie(ids, source)
        place = self.inputs[0].place
        made_by, alone = None, False
        if place is not None:
            made_by, alone = _keras.origin(place.tensor), place.readers == 1
        self.recorder.steps.append(
            labels.Normalized(
                ids,
                source,
                gamma,
                variance,
                epsilon,
                beta,
                mean,
                made_by,
                alone,
            )
        )
        return ids

    def filtered_by(self, kernel, axis: int, source, multiplier: int = 1):
        """New labels: each channel times filters of its own (depthwise).

        Args:
            kernel: the kernel. `axis` has an entry for each channel, or, like
                what comes out, for each channel and each of its filters.
            source: labels of what goes in, shape (channels,).
            multiplier: how many filters each channel has.

        Returns:
            Labels of shape (channels * multiplier,): channel c's filter m is
            c * multiplier + m.
        """
        axis %= len(kernel.shape)
        values = self.recorder.store.new(len(source), multiplier)
        self.recorder.store.tie(values, np.tile(source, multiplier))
        values = values.reshape(multiplier, len(source))
        ids = values.T.reshape(-1)
        if kernel.shape[axis] == len(source):
            filtered = [(value, source) for value in values]
            self._access(kernel, axis, source, Role.CARRIER)
        else:
            filtered = [(ids, np.repeat(source, multiplier))]
            self._access(kernel, axis, ids, Role.CARRIER)
        self.recorder.steps.extend(
            labels.Filtered(value, kernel, axis, before)
            for value, before in filtered
        )
        return ids

    def written_by(self, kernel, axis: int) -> np.ndarray:
        """New labels: the units on output axis `axis` of `kernel`."""
        axis %= len(kernel.shape)
        ids = self.new(kernel.shape[axis])
        self.recorder.steps.append(labels.Filtered(ids, kernel, axis))
        self._access(kernel, axis, ids, Role.PRODUCER)
        return ids

    # --- variables, settings, costs -----------------------------------------

    def read_by(self, kernel, axis: int, ids: np.ndarray, compute=None) -> None:
        """Input axis `axis` of `kernel` reads the channels `ids`.

        Where these are inside of the operation, calibration data shows them
        only if `compute` says how: a function of the operation and of a
        call's args and kwargs that returns the tensor, channels last, with a
        channel for each of `ids`. Its other axes are samples and positions.
        """
        axis %= len(kernel.shape)
        read = self._read(ids)
        if read is None and compute is not None:
            read = self._read_inside(kernel, ids, compute)
        self._access(kernel, axis, ids, Role.CONSUMER, read)

    def carried_by(
        self, variable, axis: int, ids: np.ndarray, acts: str = "tells"
    ) -> None:
        """`axis` of `variable` holds one entry for each channel of `ids`.

        Two units are the same only where their entries agree, up to the
        units' strengths where it is known what the entry does.

        Args:
            variable: a variable, a `constant`, or None, which does nothing.
            axis: its axis with an entry for each channel.
            ids: labels of what comes out.
            acts: what an entry v does with a channel x: it "adds" (x + v),
                "multiplies" (x v), "divides" (x / v), "bends" (a function
                with f(s x) = s f(x) for s > 0, such as a slope), or does
                something else and only "tells" units apart.
        """
        if variable is not None:
            axis %= len(variable.shape)
            self._access(variable, axis, ids, Role.CARRIER)
            step = labels.Carried(ids, variable, axis, acts)
            self.recorder.steps.append(step)

    def shifted_by(
        self,
        bias,
        kernel,
        axis,
        ids,
        *,
        linear=True,
        setting=None,
        taps="all",
        spans=None,
    ) -> None:
        """What `kernel` wrote on `axis` gets an entry of `bias` each.

        Args:
            bias: a variable with the axes `spans` of the kernel, or None.
            kernel, axis, ids: as in `written_by`, and what it returned.
            linear: whether the operation returns the sum as it is.
            setting: (entry, value) of the operation's config that make a
                bias where there is none, such as ("use_bias", True).
            taps: which outputs of a unit read its whole filter: "all"; all
                "inside" of a border of zeros; or "some".
            spans: axes of the kernel that the bias has; default: `axis`.
        """
        axis %= len(kernel.shape)
        spans = (axis,) if spans is None else tuple(spans)
        if bias is not None:
            self._access(bias, spans.index(axis), ids, Role.CARRIER)
        setting = None if self.part else setting
        self.recorder.steps.append(
            labels.Shifted(
                ids,
                kernel,
                axis,
                bias,
                self.operation,
                setting,
                linear,
                taps,
                spans,
            )
        )

    def keeps(self, *variables) -> None:
        """These variables have no axis with an entry for each channel.

        What a rule says nothing of is taken for a gap in the rule, and the
        layer's channels are frozen.
        """
        self.recorder.kept.update(map(id, variables))

    def counted_in(self, *path, ids, whole=None) -> None:
        """Config entry `path` of the operation is the number of `ids`.

        Where `ids` is a list of arrays, it is the tuple of their numbers.
        Pass the labels of the `whole` axis where the entry that stands there
        now says something about the others too, such as a negative index.
        """
        self._count(self.setting(path), path, ids, whole)

    def counted_in_argument(self, *path, ids, whole=None) -> None:
        """Entry `path` of the call's arguments is the number of `ids`.

        A path is ("args", 1, ...) or ("kwargs", name, ...); "start" and
        "stop" lead into a slice. `whole` is that of `counted_in`.
        """
        known = self.node is not None and not self.part
        place = (self.node, path) if known else None
        self._count(place, path, ids, whole)

    def setting(self, path: tuple) -> tuple | None:
        """(operation, path) of what sets config entry `path`; None if nothing.

        For an inner layer it can be an argument of the layer around it.
        """
        if not self.part:
            return self.operation, path
        return self.inside.setting(self.operation, path)

    def _count(self, place, path, ids, whole):
        parts = ids if isinstance(ids, list) else [ids]
        reason = None
        if self.part or place is None:
            counts = tuple(map(len, parts))
            reason = self.inside.obstacle(self.operation, path, place, counts)
        elif path[0] not in labels.ARGUMENTS:
            known = _keras.has_config(place[0])
            reason = None if known else self.say(NO_CONFIG)
        if reason is None:
            width = labels.Width(*place, ids, whole)
            self.recorder.widths.append(width)
            return
        for part in parts if whole is None else [*parts, whole]:
            self.recorder.store.freeze(part, reason)

    def constant(self, value, *path) -> labels.Constant:
        """The array `value` at `path` of the config or the arguments.

        `carried_by` and `read_by` take it as they take a variable.
        """
        owner = self.operation
        if path[0] in labels.ARGUMENTS:
            owner = self.node
        made = labels.Constant(owner, path, np.asarray(value))
        return self.recorder.constants.setdefault((id(owner), path), made)

    def multiplies(self, kernel, positions: int | None, per=None) -> None:
        """The call reads the whole of `kernel` at `positions` positions.

        This is what FLOPs are counted from; None where a spatial size of the
        model is open. With labels `per`, it does so for each such channel.
        """
        outer = self.inside
        while outer is not None:
            known = positions is not None and outer.times is not None
            positions = positions * outer.times if known else None
            outer = outer.call.inside
        made = labels.Product(self.owner, kernel, positions, per)
        self.recorder.products.append(made)

    # --- layers inside ------------------------------------------------------

    def through(self, layer, *inputs: Channels, sets=None, times=1, given=None):
        """Labels of what an inner layer makes of `inputs`.

        Args:
            layer: a built layer that this operation calls.
            *inputs: `Channels` with shapes: of `self.inputs`, or what another
                call of `through` returned.
            sets: {entry of the inner layer's config: argument of this one},
                such as {"units": "ff_dim"}: which arguments of this operation
                set the widths of the inner layer. What no argument sets has
                to stay. For the layer inside a `keras.layers.Wrapper` it is
                not needed: wrappers are made anew around a new layer.
            times: how often the operation calls it; None if that is open.
            given: a function of the operation and of a call's args and kwargs
                that returns the (args, kwargs) which it calls the layer on,
                for the layer inside a wrapper: what is read inside that layer
                is computed from them.

        Returns:
            `Channels` with a shape, or a list of them where the layer
            returns several tensors.

        Raises:
            ValueError: the layer is not built or cannot be called on these
                shapes; or it is a model, and `sets` does not say which of its
                layers it is about.
        """
        sets = checked_sets(self.operation, layer, sets)
        tensors = [
            keras.KerasTensor(x.shape, dtype=layer.compute_dtype)
            for x in inputs
        ]
        call = imagined_call(self.operation, layer, tensors)
        inside = Inside(self, sets, times, given)
        seen = CallTrace(
            call, inputs, tensors, call.outputs, self.recorder, inside
        )
        results, shapes = self.recorder.follow(seen)
        results = [
            dataclasses.replace(x, shape=tuple(tensor.shape))
            for x, tensor in zip(results, shapes, strict=True)
        ]
        return results[0] if len(results) == 1 else results

    # --- limits -------------------------------------------------------------

    def mixes(self, *values: np.ndarray) -> None:
        """The operation computes something over all channels of a value.

        Without a copy of another one it stays the same, such as a maximum;
        see `inexact` for what does not.
        """
        for ids in values:
            self.recorder.steps.append(labels.Mixed(ids))

    def freeze(self, reason: str, *values: np.ndarray, **words) -> None:
        """The channels `values` (default: all inputs) have to stay."""
        reason = self.say(reason, **words)
        for ids in values or [x.ids for x in self.inputs]:
            self.recorder.store.freeze(ids, reason)

    def inexact(self, reason: str, *values: np.ndarray, **words) -> None:
        """Without a channel of `values`, others come out changed.

        Such channels are frozen unless the caller allows it.
        """
        reason = self.say(reason, **words)
        self.mixes(*values)
        for ids in values:
            self.recorder.store.inexact.append((ids, reason))

    def opaque(self, reason: str, **words) -> list[Channels]:
        """Freeze what goes in and what comes out: the rule for no rule.

        The layer's other calls are frozen with it: they share its weights.
        """
        self.freeze(reason, **words)
        reason = self.say(reason, **words)
        for layer in _with_sublayers(self.operation):
            self.recorder.opaque[id(layer)] = layer, reason
        return [
            frozen_channels(tensor, reason, self.recorder.store)
            for tensor in self.outputs
        ]

    def _read(self, ids):
        """Where `ids`, or what they are copies of, went in; None if nowhere."""
        source = self._copied.get(ids.tobytes(), ids)
        for x in self.inputs:
            if x.place is None or not np.isin(source, x.ids).all():
                continue
            columns = np.arange(len(x.ids))
            if not np.array_equal(source, x.ids):
                order = np.argsort(x.ids, kind="stable")
                columns = order[np.searchsorted(x.ids, source, sorter=order)]
            return labels.Read(x.place, columns)
        return None

    def _read_inside(self, kernel, ids, compute):
        """`Read` of what a call computes; None where its inputs are unknown.

        The inputs of a layer inside another one are known from layer to
        layer, up to the one that stands in the model's graph.
        """
        call, function = self, functools.partial(compute, self.operation)
        while call.inside is not None:
            given = call.inside.given
            if given is None or call.node is not None:
                return None
            call = call.inside.call
            given = functools.partial(given, call.operation)
            function = functools.partial(_composed, function, given)
        place = labels.InnerPlace(call.path, call.node, kernel, function)
        return labels.Read(place, np.arange(len(ids)))

    def _access(self, variable, axis, ids, role, read=None):
        if len(ids) != variable.shape[axis]:
            raise RuntimeError(
                f"The rule for {type(self.owner).__name__} puts {len(ids)} "
                f"channels on axis {axis} of the variable {variable.name!r} "
                f"of {self.operation.name!r}, which has the shape "
                f"{tuple(variable.shape)}. Leave the layer's class out of the "
                "model, or correct the rule."
            )
        if self.part and isinstance(variable, labels.Constant):
            self.freeze(CONSTANT_INSIDE, ids)
        owner = self.owner
        if not isinstance(owner, keras.Layer):  # An operation has none.
            owner = self.recorder.owners.get(id(variable), owner)
        self.recorder.accesses.append(
            labels.Access(owner, variable, axis, ids, role, read)
        )


def _composed(function, given, args, kwargs):
    return function(*given(args, kwargs))


def _with_sublayers(operation):
    if isinstance(operation, keras.Layer):
        return _keras.flat_layers(operation)
    return [operation]
