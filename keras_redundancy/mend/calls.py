"""The calls of a model and of the smaller one, in the order of the walk."""

import collections
import dataclasses
import itertools
import math

import keras

from keras_redundancy import _keras


@dataclasses.dataclass(frozen=True, eq=False)
class PairedCall:
    """A call in the graph of a model, and its counterpart in the smaller one.

    Attributes:
        old, new: the calls.
        reads, new_reads: numbers of the tensors that they read, the same ones
            in both graphs. The operands of `x + y` may have changed places.
        makes: numbers of the tensors that they make. Each call of a nested
            model makes tensors with numbers of their own.
        models: the two nested models, where the call enters them: it makes
            what their inputs get. Else None.
        sizes: bytes that each tensor it makes takes for one sample, in the
            model and in the smaller one.
    """

    old: _keras.Call
    new: _keras.Call
    reads: tuple[int, ...]
    new_reads: tuple[int, ...]
    makes: tuple[int, ...]
    models: tuple | None
    sizes: tuple[tuple[int, int], ...]

    @property
    def layer(self):
        """The original model's layer or operation."""
        return self.old.operation

    def reads_of(self, side: int) -> tuple[int, ...]:
        """What is read in the original model (0) or the smaller one (1)."""
        return (self.reads, self.new_reads)[side]


@dataclasses.dataclass(frozen=True, eq=False)
class Step:
    """Calls that the walk takes together: several only of a shared layer.

    Attributes:
        calls: the calls.
        is_whole: whether these are all calls of the layer.
        last_read: numbers of the tensors that nothing reads later.
    """

    calls: tuple[PairedCall, ...]
    is_whole: bool
    last_read: frozenset[int]

    @property
    def layers(self) -> tuple:
        """The original model's layer or operation, and its counterpart."""
        return self.calls[0].old.operation, self.calls[0].new.operation


@dataclasses.dataclass(frozen=True, eq=False)
class _Tensor:
    number: int
    spec: keras.KerasTensor


@dataclasses.dataclass(frozen=True, eq=False)
class _Recorded:
    name: tuple[str, ...]
    call: _keras.Call
    reads: tuple[int, ...]
    made: list[_Tensor]
    model: object


class _Recorder(_keras.Interpreter):
    """Numbers the tensors of a model and lists its calls, nested ones too.

    Args:
        counterpart: the `_Recorder` of the smaller model, or None for itself.

    Attributes:
        calls: every `_Recorded`.
        single: names of those that are single layers.
        opened: names of layers that were opened, so that their graphs were
            recorded: in these, operations have names that they had not before.
    """

    def __init__(self, counterpart=None):
        self.calls, self._numbers = [], itertools.count()
        self.single, self.opened = set(), set()
        self._counterpart, self._inside = counterpart, ()

    def record(self, model, shapes):
        """Go through a model, called on inputs of `shapes`."""
        inputs = [
            x if shape is None else _with_shape(x, shape)
            for x, shape in zip(
                _keras.graph_of(model).inputs, shapes, strict=True
            )
        ]
        self.run(model, self.numbered(inputs))
        return self.calls

    def model_in(self, operation):
        other = self._counterpart
        is_one = other is not None and self._name(operation) in other.single
        if is_one or _keras.stands_for_weight(operation):
            return None  # Its counterpart is one layer.
        return super().model_in(operation)

    def numbered(self, specs):
        return [_Tensor(next(self._numbers), spec) for spec in specs]

    def enter(self, call, model, values):
        graph = _keras.graph_of(model)
        given = [
            _with_shape(x, values[id(y)].spec.shape[1:])
            if isinstance(y, keras.KerasTensor)
            else x
            for x, y in zip(
                graph.inputs, _keras.handed_to(model, call), strict=True
            )
        ]
        made = self._add(call, values, given, model)
        outside, self._inside = self._inside, self._name(model)
        if isinstance(model, _keras.Opened):
            self.opened.add(self._inside)
        found = self.run(model, made, call.key)
        self._inside = outside
        return found

    def call(self, call, values):
        specs = {id(x): values[id(x)].spec for x in call.inputs}
        outputs = _keras.output_tensors(call, specs)
        return self._add(call, values, outputs, None)

    def _add(self, call, values, outputs, model):
        reads = tuple(values[id(x)].number for x in call.inputs)
        made = self.numbered(outputs)
        name = self._name(call.operation)
        if model is None:
            self.single.add(name)
        self.calls.append(_Recorded(name, call, reads, made, model))
        return made

    def _name(self, operation):
        """Its name, after those of the models that it is in.

        In what was opened it is that of the class.
        """
        opened = (self._counterpart or self).opened
        name = operation.name
        if any(self._inside[: len(x)] == x for x in opened):
            is_opened = isinstance(operation, _keras.Opened)
            layer = operation.layer if is_opened else operation
            name = type(layer).__name__
        return *self._inside, name


def _with_shape(x, shape):
    return keras.KerasTensor((x.shape[0], *shape), x.dtype, sparse=x.sparse)


def bytes_of(dtype: str) -> int:
    """Bytes of a number; numbers that are no floats are counted alike."""
    return 8 if "64" in dtype else 2 if "16" in dtype else 4


def _bytes(tensor):
    """Bytes of one sample."""
    dtype = keras.backend.standardize_dtype(tensor.spec.dtype)
    sizes = (size or 1 for size in tensor.spec.shape[1:])
    return bytes_of(dtype) * math.prod(sizes)


def paired_calls(old, new, shapes) -> list[PairedCall]:
    """The calls of both models, in an order that can be run.

    Operations have the names that they had, but where the operands of `x + y`
    have changed places, others come first.

    Args:
        old, new: the model and the smaller one.
        shapes: that of a sample of each input, or None.

    The first tensors are the models' inputs: they have the numbers 0, 1, ...
    """
    later = _Recorder()
    of_name = collections.defaultdict(list)
    for call in later.record(new, shapes):
        of_name[call.name].append(call)
    numbers = {n: n for n in range(len(new.inputs))}
    found = []
    for before in _Recorder(later).record(old, shapes):
        after = _counterpart(before, of_name[before.name], numbers)
        pairs = list(zip(before.made, after.made, strict=True))
        numbers.update((b.number, a.number) for a, b in pairs)
        models = None if before.model is None else (before.model, after.model)
        found.append(
            PairedCall(
                before.call,
                after.call,
                before.reads,
                tuple(numbers[n] for n in after.reads),
                tuple(x.number for x in before.made),
                models,
                tuple(tuple(map(_bytes, both)) for both in pairs),
            )
        )
    return found


def _counterpart(before, candidates, numbers):
    """Take the one of several calls that reads what `before` does, if any.

    Args:
        before: the `_Recorded` of a call in the original model.
        candidates: those with its name in the smaller one that are left.
        numbers: {number of a tensor in the smaller model: in the original}.
    """
    reads = [{numbers.get(n) for n in x.reads} for x in candidates]
    wanted = set(before.reads)
    return candidates.pop(reads.index(wanted) if wanted in reads else 0)


def steps_of(calls: list[PairedCall], inputs: int, shared: set) -> list[Step]:
    """The calls in the order in which the walk takes them.

    All calls of a shared layer are taken together, as soon as what they all
    read is known: so the layer can be fitted to all that it reads. Where a
    call reads what another one of the same layer makes, that cannot be: then
    the calls are taken one by one.

    Args:
        calls: in an order that can be run.
        inputs: how many inputs the models have.
        shared: ids of the layers that can be mended.
    """
    of_layer = collections.defaultdict(list)
    for call in calls:
        of_layer[id(call.layer)].append(call)
    together = {key for key in shared if len(of_layer[key]) > 1}
    known, order, waiting = set(range(inputs)), [], calls
    while waiting:
        left, taken = [], set()
        for call in waiting:
            key = id(call.layer)
            group = of_layer[key] if key in together else [call]
            if call in taken:
                continue
            if all(known.issuperset(each.reads) for each in group):
                is_whole = len(group) == len(of_layer[key])
                order.append((group, is_whole))
                taken.update(group)
                known.update(*(each.makes for each in group))
            else:
                left.append(call)
        if len(left) == len(waiting):
            together -= {
                id(call.layer) for call in left if known.issuperset(call.reads)
            }
        waiting = left
    return _with_last_reads(order)


def _with_last_reads(order):
    steps, later = [], set()
    for group, is_whole in reversed(order):
        reads = {n for call in group for n in call.reads}
        steps.append(Step(tuple(group), is_whole, frozenset(reads - later)))
        later |= reads
    return steps[::-1]


def most_bytes(steps: list[Step], inputs: list[int]) -> int:
    """Bytes of all tensors that are held at a time, for each sample.

    Args:
        steps: as `steps_of` returns them.
        inputs: bytes of a sample of each input, which both models share.
    """
    held = dict(enumerate(inputs))
    most = 0
    read = {n for step in steps for call in step.calls for n in call.reads}
    for step in steps:
        for call in step.calls:
            held |= {
                number: sum(sizes)
                for number, sizes in zip(call.makes, call.sizes, strict=True)
                if number in read
            }
        # What is read for the last time goes batch by batch.
        most = max(most, sum(held.values()) - _given_up(step, held))
        for number in step.last_read:
            held.pop(number, None)
    return most


def _given_up(step, held):
    made = sum(
        held.get(number, 0) for call in step.calls for number in call.makes
    )
    freed = sum(held.get(number, 0) for number in step.last_read)
    return min(made, freed) if len(step.calls) == 1 else 0
