"""Map and absorb: what the variables of a smaller model hold.

Producers and carriers lose the removed units (or take the mean of a cluster);
each consumer axis becomes `M @ consumer`, where row k of M has a 1 for the
kept unit k and, when merging, the scale of every unit that k stands for. What
a unit that is constant added goes into the consumer's bias. What calibration
data adds is in `refit`.
"""

import copy
import dataclasses
import functools
import math
from collections.abc import Mapping

import numpy as np
from scipy import sparse

from keras_redundancy.channels import Role, VariableAxis
from keras_redundancy.channels.filters import columns_of, norms_along, read
from keras_redundancy.channels.gains import Gains, Size
from keras_redundancy.channels.labels import Normalized, Shifted
from keras_redundancy.channels.shifts import Shifts, homes_of_shifts, shift_of


@dataclasses.dataclass(eq=False)
class AxisChange:
    """What happens to one axis of a variable.

    Attributes:
        on: the axis.
        kept: positions that stay, shape (kept,).
        source, target: positions that go, and the positions that stand for
            them, both of shape (removed,).
        idle: which of them hold units that are constant: nothing stands for
            these. Shape (removed,).
    """

    on: VariableAxis
    kept: np.ndarray
    source: np.ndarray
    target: np.ndarray
    idle: np.ndarray

    def only(self, chosen: np.ndarray) -> "AxisChange":
        """The same, of some of the positions that go."""
        return dataclasses.replace(
            self,
            source=self.source[chosen],
            target=self.target[chosen],
            idle=self.idle[chosen],
        )


def is_consumer(change: AxisChange) -> bool:
    return change.on.role is Role.CONSUMER


def axis_changes(decisions) -> list[AxisChange]:
    """What the decisions about spaces mean for every axis they touch."""
    touched = {}
    for decision in decisions:
        selection = decision.selection
        removed, is_idle = selection.removed, selection.is_idle
        if not len(removed):
            continue
        for place in decision.space.axes:
            source = place.positions[removed]
            parts = (
                source,
                place.positions[selection.stands_for[removed]],
                np.broadcast_to(is_idle[removed, None], source.shape),
            )
            touched.setdefault(id(place.on), (place.on, []))[1].append(parts)
    changes = []
    for on, parts in touched.values():
        source, target, idle = (
            np.concatenate([part[side].reshape(-1) for part in parts])
            for side in range(3)
        )
        stays = np.ones(len(on.group), bool)
        stays[source] = False
        kept = np.flatnonzero(stays)
        changes.append(AxisChange(on, kept, source, target, idle))
    return changes


class NewValues:
    """The arrays of all variables that change.

    Each is made when it is asked for and not kept, so that the whole smaller
    model is never held twice.
    """

    def __init__(self, changes, function, start=read, others=()):
        """`function(change, value)` for each change, from start(variable).

        Of the variables `others` it is start(variable) even without a change.
        """
        self._function, self._start = function, start
        self._changes = {}
        self._variables = set(map(id, others))
        # What is cut first need not be merged.
        for change in sorted(changes, key=is_consumer):
            key = id(change.on.variable)
            self._changes.setdefault(key, []).append(change)
            self._variables.add(key)

    def __contains__(self, variable):
        return id(variable) in self._variables

    def __getitem__(self, variable):
        value = self._start(variable)
        for change in self._changes.get(id(variable), ()):
            value = self._function(change, value)
        return value


def new_values(graph, changes, keep: str, absorber) -> tuple:
    """The arrays of all variables that change.

    Args:
        graph: the traced model.
        changes: every `AxisChange`.
        keep: "mean" for units that are the means of their clusters.
        absorber: what the consumers' axes become: a `Drop`, `Merge` or
            `Refit`. It is not changed.

    Returns:
        `NewValues`, and the absorber as it was prepared for these changes.
    """
    start = read
    if keep == "mean":
        start = _start_at_means(graph, changes, absorber.folded)
    absorber = absorber.prepared(graph, changes, start)

    def smaller(change, value):
        if is_consumer(change):
            return absorber.absorb(change, value)
        return np.take(value, change.kept, change.on.axis)

    def shifted(variable):
        return absorber.start(variable, start(variable))

    return NewValues(changes, smaller, shifted, absorber.added_to), absorber


class Drop:
    """What reads a removed unit loses that input.

    Attributes:
        shifts: the `Shifts` of the prepared absorber.
        added_to: variables that get something without being cut.
        merges: whether a unit that stays does what others did besides.
        folded: whether units were compared with what a BatchNormalization
            behind makes of them.
    """

    merges = False
    folded = False
    shifts = Shifts()

    def biases_for(self, graph, changes) -> list:
        """The `Shifted` of the layers that will get a bias."""
        return []

    def prepared(self, graph, changes, start) -> "Drop":
        """One that knows all that changes; `start` reads an old value."""
        return self

    @property
    def added_to(self) -> list:
        return self.shifts.variables

    def start(self, variable, value):
        """What a variable holds before it is cut."""
        return self.shifts.added(variable, value)

    def absorb(self, change, value):
        """What the axis of a consumer becomes."""
        return np.take(value, change.kept, change.on.axis)


class Merge(Drop):
    """What reads a removed unit reads its stand-in, scaled where it may be.

    What reads a unit that is constant gets a shift.
    """

    merges = True

    def __init__(self, constants: Mapping | None = None, folded: bool = False):
        """Args:
        constants: {id(axis): array}: what is on each position of a consumer's
            axis where that is constant.
        folded: as for `Gains`.
        """
        self._constants, self.folded = constants or {}, folded

    def prepared(self, graph, changes, start):
        absorber = copy.copy(self)
        absorber._prepare(graph, changes, start)
        return absorber

    def _prepare(self, graph, changes, start):
        touched = _touched_groups(graph, changes)
        gains = functools.partial(
            Gains, graph, touched=touched, folded=self.folded
        )
        before = after = gains(read).of_label
        if start is not read:
            after = gains(start).of_label
        consumers = list(filter(is_consumer, changes))
        self._scales = {id(c): _scale(c, before, after) for c in consumers}
        self._own = {}
        if after is not before:
            self._own = {id(c): _own_scale(c, before, after) for c in consumers}
        self.shifts = Shifts.of(homes_of_shifts(graph), consumers, self._shift)

    def biases_for(self, graph, changes):
        homes = homes_of_shifts(graph)
        found = {}
        for change in filter(is_consumer, changes):
            home = homes.get(id(change.on.variable))
            if home and home.variable is None and self._shifts(change):
                found[id(home.step.layer)] = home.step
        return list(found.values())

    def _shifts(self, change) -> bool:
        """Whether what reads the units of a change gets a shift."""
        _, constants = self._idle(change)
        return bool(constants.any())

    def _idle(self, change):
        """Positions that go and are known to be constant, and what they are."""
        constants = self._constants.get(id(change.on))
        if constants is None:
            return np.empty(0, int), np.empty(0)
        gone = change.source[change.idle]
        gone = gone[np.isfinite(constants[gone])]
        return gone, constants[gone]

    def _shift(self, change, home):
        """What a consumer's units get more, or None."""
        gone, constants = self._idle(change)
        if not constants.any():
            return None
        return shift_of(change.on, constants, gone, home)

    def absorb(self, change, value):
        own = self._own.get(id(change), 1.0)
        return merge(change, value, self._scales[id(change)], own)


def _touched_groups(graph, changes):
    """Whether each group goes or stands for one that goes, a bool array."""
    touched = np.zeros(graph.group.max(initial=-1) + 1, bool)
    for change in changes:
        touched[change.on.group[change.source]] = True
        touched[change.on.group[change.target]] = True
    return touched


# --- means of clusters ------------------------------------------------------


def _start_at_means(graph, changes, folded):
    """A function that reads variables, with means where units stand for more.

    The members of a cluster are made as large as their representative first:
    of w and 3 w, and of all that goes with their sizes, the mean is w.
    """
    others = [change for change in changes if not is_consumer(change)]
    touched = _touched_groups(graph, others)
    sizes = Gains(graph, read, touched, folded=folded).sizes

    def size_of(change):
        return sizes.get((id(change.on.variable), change.on.axis))

    means = NewValues(others, lambda c, v: mean_in_place(c, v, size_of(c)))
    variances = _variances_of_means(graph, others, size_of)

    def start(variable):
        if id(variable) in variances:
            return variances[id(variable)]
        return means[variable] if variable in means else read(variable)

    return start


def mean_in_place(change, value, size: Size | None = None):
    """Full-size array with each cluster's mean at its representative."""
    members, counts = clusters_of(change, value.dtype)
    shape = [1] * value.ndim
    shape[change.on.axis] = len(counts)
    scaled = value
    if size is not None:
        ratio = _relative(change, size).astype(value.dtype).reshape(shape)
        scaled = (value + size.added) / ratio
    sums = along(scaled, change.on.axis, members)
    means = sums / counts.clip(1).reshape(shape)
    if size is not None:
        means = means - size.added
    several = (counts > 1).reshape(shape)
    return np.where(several, means, value).astype(value.dtype)


def _relative(change, size):
    """How large each unit is beside the one that stands for it, (n,)."""
    of = np.where(size.of > 0, size.of, 1)
    return of / of[_owners(change)]


def _owners(change):
    """The unit that stands for each, shape (n,): itself, if none does."""
    owner = np.arange(len(change.on.group))
    owner[change.source] = np.where(change.idle, change.source, change.target)
    return owner


def clusters_of(change, dtype):
    """Which unit stands for which, (n, n), and for how many, shape (n,)."""
    size, owner = len(change.on.group), _owners(change)
    members = sparse.csr_array(
        (np.ones(size, dtype), (owner, np.arange(size))), shape=(size, size)
    )
    return members, np.bincount(owner, minlength=size)


def _variances_of_means(graph, changes, size_of):
    """{id(moving variance): array} where the means of clusters are normalised.

    The mean of k numbers varies less than they do: by 1/k^2 of the sum of
    their covariances, which are sigma_i sigma_j times the cosine of the
    filters i and j, if what these read were white.

    Source: Wang et al., Forget the Data and Fine-Tuning! Just Fold the
    Network to Compress (2025): the repair without data, here from all
    cosines within a cluster in place of their mean.
    """
    producers = {
        id(step.layer): step
        for step in graph.steps
        if isinstance(step, Shifted)
    }
    by_variable = {id(change.on.variable): change for change in changes}
    found = {}
    for step in graph.steps:
        if not isinstance(step, Normalized):
            continue
        change = by_variable.get(id(step.variance))
        producer = producers.get(id(step.made_by))
        if change is not None and producer is not None and producer.linear:
            found[id(step.variance)] = _variance_of_means(
                step, producer, change, size_of(change)
            )
    return found


def _variance_of_means(step, producer, change, size):
    variance = read(step.variance)
    filters = columns_of(read(producer.kernel), producer.axis)
    norms = norms_along(filters, -1)
    deviations = np.sqrt(variance + step.epsilon)
    if size is not None:
        deviations = deviations / np.sqrt(_relative(change, size))
    deviations = deviations / np.where(norms > 0, norms, 1)
    members, counts = clusters_of(change, variance.dtype)
    sums = members @ (filters * deviations).T
    of_means = np.einsum("nz,nz->n", sums, sums) / counts.clip(1) ** 2
    of_means = (of_means - step.epsilon).clip(0)
    return np.where(counts > 1, of_means, variance).astype(variance.dtype)


# --- products ---------------------------------------------------------------


def merge(change, value, scale, own=1.0):
    """M @ value along the axis of the change.

    Args:
        change: an `AxisChange`.
        value: an array.
        scale: how many times its stand-in each removed position is.
        own: how many times what it was each kept position is.
    """
    size, kept = len(change.on.group), change.kept
    row = np.empty(size, int)
    row[kept] = np.arange(len(kept))
    own = np.broadcast_to(own, len(kept))
    matrix = sparse.csr_array(
        (
            np.concatenate([own, scale]).astype(value.dtype),
            (
                np.concatenate([np.arange(len(kept)), row[change.target]]),
                np.concatenate([kept, change.source]),
            ),
        ),
        shape=(len(kept), size),
    )
    return along(value, change.on.axis, matrix)


def along(value, axis, matrix):
    """`matrix` of shape (k, n) times `value` along its axis of size n."""
    before, n, after = (
        value.shape[:axis],
        matrix.shape[0],
        value.shape[axis + 1 :],
    )
    if math.prod(after) == 1:
        rows = value.reshape(-1, value.shape[axis])
        return (matrix @ rows.T).T.reshape(*before, n, *after)
    blocks = value.reshape(-1, value.shape[axis], math.prod(after))
    result = np.empty((len(blocks), n, math.prod(after)), value.dtype)
    for block, product in zip(blocks, result, strict=True):
        product[:] = matrix @ block
    return result.reshape(*before, n, *after)


def _scale(change, before, after):
    """How many times its stand-in each removed position's channel is.

    The ratio of the two channels' gains, the mean over the calls of a shared
    layer. A channel that answers with the opposite sign is not a positive
    multiple of its stand-in: its scale is 0. So is that of an idle unit.
    """
    ids = change.on.ids
    ratio = _ratio(before[ids[:, change.source]], after[ids[:, change.target]])
    return np.where(change.idle, 0, np.maximum(ratio, 0).mean(axis=0))


def _own_scale(change, before, after):
    """How many times what it is now each kept position's channel was."""
    ids = change.on.ids[:, change.kept]
    return np.maximum(_ratio(before[ids], after[ids]), 0).mean(axis=0)


def _ratio(a, b):
    """a / b; where b is 0, 1 if a is as well, else 0."""
    return np.divide(a, b, out=(a == 0).astype(float), where=b != 0)
