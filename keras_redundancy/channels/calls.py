"""One call of an operation, as its rule sees it."""

import dataclasses
import math

import keras
import numpy as np

from keras_redundancy import _keras
from keras_redundancy.channels import labels
from keras_redundancy.channels.inside import Inside, call_inside, checked_sets
from keras_redundancy.channels.labelled import LabelledCall
from keras_redundancy.channels.labels import Channels, Role
from keras_redundancy.channels.reads import read_inside, read_of_inputs
from keras_redundancy.channels.reasons import Reason, of_call
from keras_redundancy.channels.recorder import Traced
from keras_redundancy.channels.samples import sample_inside

CONSTANT_INSIDE = Reason(
    "constant_in_part",
    "{name} ({kind}), a part of another layer, has a constant array operand",
)
NO_CONFIG = of_call(
    "cannot_be_saved",
    "was given something that Keras cannot save, such as a NumPy number: give "
    "it Python numbers",
)


class CallTrace(LabelledCall):
    """One call of a layer or an operation, as a rule sees it.

    A rule is a function of the layer and of this object. It does three
    things:

    1. It looks at what goes in: `inputs` holds one `Channels` for each input
       tensor, with an integer label for each channel.
    2. It says which of the layer's variables and settings belong to the
       channels: `carried_by`, `read_by`, `written_by`, `counted_in` and so on.
    3. It returns what comes out: one `Channels`, or a list of them. The labels
       say how each channel that comes out depends on those that went in:

    | what comes out                           | its labels                |
    |------------------------------------------|---------------------------|
    | f(x) of each channel x, f(s x) = s f(x)  | those of x                |
    | any other function of each channel alone | `tied(ids)`               |
    | a function of channel i of each input    | `tied(ids, others)`       |
    | the sum or the maximum of the inputs     | `summed(ids, others)`     |
    | the product of the inputs                | `multiplied(ids, others)` |
    | the same channels, at several places     | `copied(ids, places)`     |
    | each channel, batch-normalised           | `normalized(ids, ...)`    |
    | each channel, times filters of its own   | `filtered_by(...)`        |
    | units of a kernel                        | `written_by(...)`         |
    | what a layer inside this one returns     | `through(layer, x)`       |
    | anything else                            | `opaque(reason)`          |

    (s stands for any number above 0.)

    A reason says why channels have to stay. It is a string in which {name}
    and {kind} stand for the name and the class of the operation, or a
    `channels.Reason`, which has a code as well.

    Attributes:
        operation: the layer or operation that is called.
        owner: the layer of the graph that `operation` belongs to: itself, or
            the layer around it whose constructor makes it.
        inputs: list of `Channels`, one for each input tensor.
        tensors: `KerasTensor`s with the shapes of the inputs.
        arguments: (args, kwargs) of the call as Keras recorded them.
    """

    # --- variables ----------------------------------------------------------

    def written_by(self, kernel, axis: int) -> np.ndarray:
        """Labels of new units: those on the output axis `axis` of `kernel`."""
        axis %= len(kernel.shape)
        ids = self.new(kernel.shape[axis])
        self.recorder.steps.append(labels.Filtered(ids, kernel, axis))
        self._access(kernel, axis, ids, Role.PRODUCER)
        return ids

    def read_by(
        self,
        kernel,
        axis: int,
        ids: np.ndarray,
        compute=None,
        numbers: int | None = None,
    ) -> None:
        """The input axis `axis` of `kernel` reads the channels `ids`.

        Args:
            kernel: a variable, or a `constant`.
            axis: its axis with an entry for each of the channels.
            ids: labels of the channels.
            compute: for channels that exist only inside the operation: a
                function of the operation and of the (args, kwargs) of a call,
                which returns these channels as a tensor of shape (samples,
                positions..., channels). Without it, calibration data do not
                show them.
            numbers: where each channel is a vector, such as a head of an
                attention layer, the length of the vector. The kernel's axis
                after `axis` has an entry for each of these numbers, and the
                last axis of what `compute` returns holds the numbers of all
                channels, one channel after the other.
        """
        axis %= len(kernel.shape)
        source = self._copied.get(ids.tobytes(), ids)
        read = read_of_inputs(self, source)
        if read is None and compute is not None:
            read = read_inside(self, kernel, ids, compute, numbers)
        self._access(kernel, axis, ids, Role.CONSUMER, read)

    def carried_by(
        self, variable, axis: int, ids: np.ndarray, acts: str = "tells"
    ) -> None:
        """`axis` of `variable` holds one entry for each of the channels `ids`.

        The entry is removed with its channel. Two units count as equal only if
        their entries are equal too, up to the scales of the units if `acts`
        allows that.

        Args:
            variable: a variable, a `constant`, or None, which is ignored.
            axis: its axis with an entry for each channel.
            ids: labels of the channels that come out.
            acts: what an entry v does with a channel x: "adds" (x + v),
                "multiplies" (x v), "divides" (x / v), "bends" (some f with
                f(s x) = s f(x) for s > 0, such as a slope), or "tells"
                (anything else).
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
        """A bias is added to the units that `kernel` writes.

        Args:
            bias: a variable with the axes `spans` of the kernel, or None.
            kernel, axis, ids: the arguments of `written_by`, and the labels
                that it returned.
            linear: whether the operation returns the sum itself.
            setting: (entry, value) of the operation's config that make a
                bias where there is none, such as ("use_bias", True).
            taps: which outputs of a unit read the whole filter: "all" of
                them, all "inside" of a border that is padded with zeros, or
                "some".
            spans: the axes of the kernel that the bias has; by default
                `axis`.
        """
        axis %= len(kernel.shape)
        spans = (axis,) if spans is None else tuple(spans)
        if bias is not None:
            self._access(bias, spans.index(axis), ids, Role.CARRIER)
        layer = self.operation
        # A layer inside of a block has what the arguments of the block set.
        if self.part or hasattr(layer, "blocks"):
            setting = None
        step = labels.Shifted(
            ids, kernel, axis, bias, layer, setting, linear, taps, spans
        )
        self.recorder.steps.append(step)

    def gated_by(self, bias, kernel, ids, taps="all") -> None:
        """A recurrent cell adds a bias to the gates that `kernel` writes.

        Args:
            bias: a variable of shape (gates,) or (2, gates), as in
                `labels.Gated`; None is ignored.
            kernel: the kernel that reads the input, gates on its last axis.
            ids: labels of the gates.
            taps: as for `shifted_by`.
        """
        if bias is not None:
            self.carried_by(bias, -1, ids)
            spans = (len(kernel.shape) - 1,)
            step = labels.Gated(ids, kernel, bias, taps, spans)
            self.recorder.steps.append(step)

    def filtered_by(self, kernel, axis: int, source, multiplier: int = 1):
        """Labels of channels that have filters of their own (depthwise).

        Args:
            kernel: the variable with the filters.
            axis: the axis of `kernel` with an entry for each channel that goes
                in, or for each one that comes out.
            source: labels of what goes in, shape (channels,).
            multiplier: the number of filters of each channel.

        Returns:
            Shape (channels * multiplier,): filter m of channel c is at
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

    def normalized(
        self, source, gamma, variance, epsilon, beta=None, mean=None
    ) -> np.ndarray:
        """Labels of the channels `source` after a batch normalisation.

        It computes gamma (source - mean) / sqrt(variance + epsilon) + beta
        with variables of shape (channels,). gamma, beta and mean may be None.
        """
        ids = self.new(len(source))
        self.recorder.store.tie(ids, source)
        place = self.inputs[0].place
        made_by, alone = None, False
        if place is not None:
            made_by, alone = _keras.origin(place.tensor), place.readers == 1
        step = labels.Normalized(
            ids, source, gamma, variance, epsilon, beta, mean, made_by, alone
        )
        self.recorder.steps.append(step)
        return ids

    def keeps(self, *variables) -> None:
        """These variables have no axis with an entry for each channel.

        A rule has to name each variable of a layer. Where it does not, the
        channels of the layer are frozen.
        """
        self.recorder.kept.update(map(id, variables))

    def reads_whole(self, *variables) -> None:
        """This call reads these variables, but not channel by channel.

        They do the same to each channel, as a kernel over positions does. If
        another call of the layer reads or writes channels with them, these
        stay: without them the variables would not fit this call.
        """
        self.keeps(*variables)
        self.recorder.whole.update(map(id, variables))

    # --- settings and costs -------------------------------------------------

    def counted_in(self, *path, ids, whole=None) -> None:
        """An entry of the operation's config is the number of channels `ids`.

        Args:
            *path: the keys that lead to the entry: "units", or
                "target_shape", 2.
            ids: labels; or a list of arrays of labels, where the entry is the
                tuple of their numbers.
            whole: labels of the whole axis, where the entry depends on the
                other channels of the axis too, such as a negative index.
        """
        self._count(self.setting(path), path, ids, whole)

    def counted_in_argument(self, *path, ids, whole=None) -> None:
        """An argument of the call is the number of the channels `ids`.

        Args:
            *path: the keys that lead to the argument: "args", 1 or "kwargs",
                "size"; "start" and "stop" lead into a slice.
            ids, whole: as for `counted_in`.
        """
        known = self.node is not None and not self.part
        place = (self.node, path) if known else None
        self._count(place, path, ids, whole)

    def setting(self, path: tuple) -> tuple | None:
        """The (operation, path) that sets an entry of this layer's config.

        For a layer inside another one, it can be an argument of the outer
        layer. None if no argument sets the entry.
        """
        if not self.part:
            return self.operation, path
        return self.inside.setting(self.operation, path)

    def _count(self, place, path, ids, whole):
        width = labels.Width(*(place or (None, path)), ids, whole)
        reason = None
        if self.part or place is None:
            counts = tuple(map(len, width.parts))
            reason = self.inside.obstacle(self.operation, path, place, counts)
        elif path[0] not in labels.ARGUMENTS:
            known = _keras.has_config(place[0])
            reason = None if known else self.say(NO_CONFIG)
        if reason is None:
            self.recorder.widths.append(width)
            return
        for part in width.everything:
            self.recorder.store.freeze(part, reason)

    def constant(self, value, *path) -> labels.Constant:
        """An array in the config or the arguments, to be used as a variable.

        Args:
            value: the array.
            *path: the keys that lead to it, in the config, or in the
                arguments as for `counted_in_argument`.

        Returns:
            What `carried_by` and `read_by` take in place of a variable.
        """
        owner = self.operation
        if path[0] in labels.ARGUMENTS:
            owner = self.node
        made = labels.Constant(owner, path, _keras.as_array(value))
        return self.recorder.constants.setdefault((id(owner), path), made)

    def multiplies(self, kernel, positions: int | None, per=None) -> None:
        """The call multiplies by all of `kernel`, at so many positions.

        Multiply-adds are counted from this.

        Args:
            kernel: the variable.
            positions: the number of positions for each entry of axis 0; None
                if it is not known. That axis 0 holds more than the samples,
                such as their windows, is found out here.
            per: labels of channels, if the call does so once for each of them.
        """
        sizes = self.input_sizes[self._first_open]
        factors = positions, *(sizes[:1] or [self.recorder.batch])
        count = None if None in factors else math.prod(factors)
        self.multiplies_in_all(kernel, count, per)

    def multiplies_in_all(self, kernel, positions, per=None) -> None:
        """`multiplies`, with all positions that `output_sizes` shows."""
        times = 1 if self.inside is None else self.inside.times_in_all
        known = positions is not None and times is not None
        count = -(-positions * times // self.recorder.batch) if known else None
        for x in self.inputs:
            if x.batch and known:
                per, count = x.ids, count // len(x.ids)
                break
        made = labels.Product(self.owner, kernel, count, per)
        self.recorder.products.append(made)

    # --- layers inside ------------------------------------------------------

    def through(self, layer, *inputs: Channels, sets=None, times=1, given=None):
        """What a layer inside this one returns for `inputs`.

        Args:
            layer: a built layer that this operation calls.
            *inputs: `Channels` with shapes: from `inputs`, or returned by
                another call of `through`.
            sets: {entry of the inner layer's config: argument of this
                layer's constructor}, such as {"units": "ff_dim"}: the
                arguments that set the widths of the inner layer. Widths that
                no argument sets have to stay. Not needed for the layer inside
                a `keras.layers.Wrapper`.
            times: how often this operation calls the layer; None if that is
                not known.
            given: a function of this operation and of the (args, kwargs) of a
                call, which returns the (args, kwargs) of the inner call.
                Without it, calibration data do not show what the inner layer
                reads.

        Returns:
            `Channels` with a shape; a list of them if the layer returns
            several tensors.

        Raises:
            ValueError: the layer is not built, or cannot be called on these
                shapes; or it is a model, and `sets` does not say which of its
                layers is meant.
        """
        sets = checked_sets(self.operation, layer, sets)
        tensors = [
            keras.KerasTensor(x.shape, dtype=layer.compute_dtype)
            for x in inputs
        ]
        call = call_inside(self.operation, layer, tensors)
        walk = self._walk.into(Inside(self, sets, times, given))
        first = self._given[self._first_open]
        samples = [sample_inside(first, x) for x in tensors]
        traced = map(Traced, inputs, tensors, samples)
        values = dict(zip(map(id, tensors), traced, strict=True))
        results = [
            dataclasses.replace(x.channels, shape=tuple(x.tensor.shape))
            for x in walk.visit(call, values)
        ]
        return results[0] if len(results) == 1 else results

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
