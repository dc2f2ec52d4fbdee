"""Idle units: what they return is constant, so nothing has to stand for them.

Weight decay, a gamma of zero or a ReLU that never fires leaves units whose
channels do not vary. What a consumer reads of such a unit belongs in its
bias, and then the unit can go at any threshold. Without data it is known from
the weights alone that a unit does not vary; its constant is read off a run of
the model on made-up inputs, whatever lies between it and its consumers.
"""

import dataclasses
import math

import keras
import numpy as np
from keras import ops
from keras.layers import Embedding

from keras_redundancy import _keras
from keras_redundancy._shared.random_inputs import random_input
from keras_redundancy.calibration.observer import (
    PlaceObserver,
    restoring_states,
)
from keras_redundancy.calibration.vocabulary import embeddings_of_inputs
from keras_redundancy.channels import Role
from keras_redundancy.channels.gains import Gains
from keras_redundancy.channels.labels import Mixed
from keras_redundancy.channels.shifts import homes_of_shifts
from keras_redundancy.numbers.regression import CONSTANT

# What varies by less than this, beside other units, does not.
NOTHING = 1e-7
# A channel that varies by less than this is constant, up to rounding.
ROUNDING = 1e-5
# Positions along an open axis of an input of a made-up batch.
OPEN_SIZE = 32
# The least and the most samples of it, and how many numbers are not too many:
# a gate that is shut for all samples makes what it multiplies look constant.
SAMPLES, NUMBERS = (2, 64), 2**16


@dataclasses.dataclass(frozen=True, eq=False)
class Idle:
    """The units of some spaces that do not vary.

    Attributes:
        units: {space: whether each of its units is idle, a bool array of
            shape (units,)}; spaces without idle units are left out.
        constants: {axis: array of shape (size,)}: what is read on each
            position of a consumer's axis, where that is constant.
        inexact: as `units`, of units that do not vary, but whose constants
            biases do not take exactly at all positions. At a threshold none
            goes but exact copies; if they go, biases take what they can.
        fits: whether consumers are fitted to data, so that they predict
            `inexact` units like all others.
    """

    units: dict = dataclasses.field(default_factory=dict)
    constants: dict = dataclasses.field(default_factory=dict)
    inexact: dict = dataclasses.field(default_factory=dict)
    fits: bool = False

    def of(self, space) -> np.ndarray:
        """Which units of a space are idle."""
        return self.units.get(space, np.zeros(space.size, bool))

    def inexact_of(self, space) -> np.ndarray:
        """Which units of a space are constant, but not idle."""
        return self.inexact.get(space, np.zeros(space.size, bool))

    def first_of(self, space) -> np.ndarray:
        """Which units go first where a number of them has to go."""
        idle = self.of(space)
        return idle if self.fits else idle | self.inexact_of(space)

    def seen_by(self, data: "Idle") -> "Idle":
        """With the units that did not vary over the data as well."""
        units = dict(self.units)
        for space, idle in data.units.items():
            units[space] = idle | units.get(space, False)
        both = Idle(units, self.constants, fits=True)
        for space, found in self.inexact.items():
            both.inexact[space] = found & ~both.of(space)
        return both


def idle_by_weights(graph, spaces) -> Idle:
    """Units that do not vary whatever the model is given.

    Only those whose constants consumers can take exactly: in a bias, where
    all outputs read the whole of a filter, or not at all, where it is 0.
    """
    reach, free = Gains(graph).reach, _free(graph)
    still = {}
    for space in spaces:
        units = _still(space, reach) & free[space.groups]
        if units.any():
            still[space] = units
    if not still:
        return Idle()
    places = (p for space in still for p in space.axes_of(Role.CONSUMER))
    constants = _constants(graph.model, dict.fromkeys(p.on for p in places))
    homes = homes_of_shifts(graph)
    found, inexact = {}, {}
    for space, units in still.items():
        can_go = units
        for place in space.axes_of(Role.CONSUMER):
            exact = _is_exact(homes.get(id(place.on.variable)))
            constant = constants[place.on][place.positions]
            is_known = np.isfinite(constant)
            units = units & is_known.all(axis=1)
            can_go = can_go & (is_known if exact else constant == 0).all(axis=1)
        if can_go.any():
            found[space] = can_go
        if (units & ~can_go).any():
            inexact[space] = units & ~can_go
    return Idle(found, constants, inexact)


def _free(graph):
    """Whether nothing but kernels reads each group, a bool array."""
    free = np.ones(graph.group_count, bool)
    for step in graph.steps:
        if isinstance(step, Mixed):
            free[graph.group[step.ids]] = False
    return free


def _is_exact(home):
    """Whether a kernel's bias can take what is constant, at all positions."""
    return home is not None and home.step.taps == "all"


def _still(space, reach):
    """Which units do not vary, on any axis that reads them."""
    places = space.axes_of(Role.CONSUMER)
    still = np.full(space.size, bool(places))
    for place in places:
        own = reach[place.on.ids]
        units = own[:, place.positions].max(axis=(0, 2))
        still &= units <= NOTHING * own.max()
    return still


def idle_by_data(graph, spaces, statistics, whole: bool = False) -> Idle:
    """Units that did not vary over the calibration data.

    Only where all that reads them was seen, and can take their constants
    exactly, as for `idle_by_weights`. If `whole`, only where no unit of the
    space varied.
    """
    homes, free = homes_of_shifts(graph), _free(graph)
    found = {}
    for space in spaces:
        views = statistics.of_space(space)
        places = space.axes_of(Role.CONSUMER)
        idle = free[space.groups] & bool(places)
        idle &= {p.on for p in places} == {view.on for view, _ in views}
        for view, own in views:
            moments = view.moments
            variance = moments.variance
            still = variance <= CONSTANT * variance.max(initial=0)
            if not _is_exact(homes.get(id(view.on.variable))):
                still &= moments.mean == 0
            idle &= still.reshape(-1, view.each).all(axis=1)[own]
        if idle.all() if whole else idle.any():
            found[space] = idle
    return Idle(found)


class Extremes(PlaceObserver):
    """Returns the least and the largest number of each channel of tensors."""

    def __init__(self, model, places):
        super().__init__(model, places)
        self.places = places

    def look(self, run):
        return [self._of(run.seen[p.key], p.axis) for p in self.places]

    def _of(self, x, axis):
        axis %= len(x.shape)
        others = [i for i in range(len(x.shape)) if i != axis]
        x = ops.cast(x, self.compute_dtype)
        return ops.min(x, axis=others), ops.max(x, axis=others)


def _constants(model, axes):
    """{axis: array}: what is constant of what each axis reads, else NaN."""
    unknown = {on: np.full(len(on.group), np.nan) for on in axes}
    seen = [
        on
        for on in axes
        if on.reads
        and None not in on.reads
        and all(read.columns.ndim == 1 for read in on.reads)
    ]
    places = {r.place.key: r.place for on in seen for r in on.reads}
    batches = _made_up(model)
    if batches is None or not places:
        return unknown
    extremes = Extremes(model, list(places.values()))
    extremes.run_eagerly = extremes.can_run_eagerly
    with restoring_states(extremes):
        batches = [[*x, np.zeros(len(x[0]), "int32")] for x in batches]
        found = [_keras.predict_on_replicas(extremes, [x])[0] for x in batches]
    known = {}
    for key, *of_batches in zip(places, *found, strict=True):
        least, most = zip(*of_batches, strict=True)
        known[key] = np.min(least, axis=0), np.max(most, axis=0)
    for on in seen:
        unknown[on] = _constant_on(on, known)
    return unknown


def _constant_on(on, extremes):
    """What each position of an axis reads, if that is one number, else NaN."""
    least, most = (
        np.stack(
            [np.asarray(extremes[r.place.key][i])[r.columns] for r in on.reads]
        ).astype(float)
        for i in (0, 1)
    )
    least, most = least.min(axis=0), most.max(axis=0)
    usual = np.abs([least, most]).max(initial=0)
    same = most - least <= ROUNDING * np.maximum(np.abs(most), NOTHING * usual)
    return np.where(same, (least + most) / 2, np.nan)


def _made_up(model):
    """Batches, each a list of a tensor for each input; None for text.

    Where the model fixes the size of a batch, there are several of that size.
    """
    rng = np.random.default_rng(0)
    embeds, words = _embedded(model)
    found, inputs = _keras.graph_of(model).inputs, []
    shapes = [[size or OPEN_SIZE for size in x.shape[1:]] for x in found]
    count = NUMBERS // max(1, *map(math.prod, shapes))
    count = min(max(count, SAMPLES[0]), SAMPLES[1])
    size = _keras.fixed_batch(model) or count
    batches = -(-count // size)
    for x, sizes in zip(found, shapes, strict=True):
        dtype = keras.backend.standardize_dtype(x.dtype)
        if dtype == "string":
            return None
        shape = (size * batches, *sizes)
        values = random_input(rng, shape, dtype)
        if id(x) in embeds or not keras.backend.is_float_dtype(dtype):
            values = _words(rng, shape, words)
        inputs.append(np.split(values, batches))
    return [
        [
            ops.convert_to_tensor(values, x.dtype)
            for values, x in zip(batch, found, strict=True)
        ]
        for batch in zip(*inputs, strict=True)
    ]


def _embedded(model):
    """Ids of the inputs that are embedded, and how many words are known."""
    calls = _keras.flat_graph(model).calls
    found = [x.operation for x in calls if isinstance(x.operation, Embedding)]
    words = min((layer.input_dim for layer in found), default=2)
    return set(embeddings_of_inputs(model)), words


def _words(rng, shape, count):
    """Whole numbers, each 0 in every other sample, and in the next one not.

    With the same numbers in all samples, all that depends on words would look
    constant; and 0 often stands for padding, which is masked.
    """
    numbers = rng.integers(min(1, count - 1), count, shape)
    sample = np.arange(shape[0]).reshape(-1, *[1] * (len(shape) - 1))
    is_word = (rng.integers(0, 2, shape[1:]) + sample) % 2
    return numbers * is_word
