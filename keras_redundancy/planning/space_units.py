"""What a selection method gets to know of the units of a space."""

import dataclasses
import functools
from collections.abc import Callable

import numpy as np

from keras_redundancy._shared.tables import on_one_line
from keras_redundancy.calibration import Sensitivity
from keras_redundancy.channels.filters import norms_along, read
from keras_redundancy.numbers.clustering import cluster_filters
from keras_redundancy.numbers.ranking import reading_factor

# Above this tau units have to be the same, up to rounding, to be redundant.
ALMOST_ONE = 1 - 1e-9
# Of numbers beside the filters that are compared.
ROUNDING = 1e-4


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Reader:
    """What one consumer reads of n units, over the calibration data.

    The heads of an attention layer are vectors. In what the output projection
    reads, each of n heads has `each` numbers, one head after the other: then
    read n * each for n in the shapes below.

    Attributes:
        layer: the consumer.
        mean: of each unit's activation, shape (n,).
        covariance: of the units' activations, shape (n, n).
        weights: W, the kernel that reads the units as W^T x, shape
            (n, outputs); where there are more outputs than units, a matrix
            (n, n) with the same W W^T.
        takes_constants: whether a bias of the consumer can take over a
            constant input.
        each: how many numbers each unit has: 1, or more for heads.
        sensitivity: how the model's answers depend on the units, a
            `Sensitivity`; None where that is not asked for.
    """

    layer: object
    mean: np.ndarray
    covariance: np.ndarray
    weights: np.ndarray
    takes_constants: bool
    each: int = 1
    sensitivity: Sensitivity | None = None

    @classmethod
    def of(cls, view, own, takes_constants: bool, sensitivity=None) -> "Reader":
        """Args:
        view: a `View` of a consumer's axis.
        own: the numbers of the units in it, shape (n,).
        takes_constants: as the attribute.
        sensitivity: that of all units in the view, or None.
        """
        moments = view.moments.part(view.entries(own))
        return cls(
            view.on.layer,
            moments.mean,
            moments.covariance,
            weights_of(view, own),
            takes_constants,
            view.each,
            sensitivity and sensitivity.part(own),
        )

    @property
    def to_predict(self) -> np.ndarray:
        """What kept units have to predict of the others, shape (n, n).

        The covariance; where no bias can take what is constant, the means
        have to be predicted like the rest: E[x x^T].
        """
        if self.takes_constants:
            return self.covariance
        return self.covariance + np.outer(self.mean, self.mean)

    def __repr__(self):
        units = len(self.mean) // self.each
        return f"<Reader {self.layer.name!r} of {units} units>"


def weights_of(view, own) -> np.ndarray:
    """W of the kernel that reads n units as W^T x, as `reading_factor` says.

    Shape (n, outputs), or (n, n) where these are fewer. Of vectors there are
    n * `view.each` numbers in place of n.
    """
    return reading_factor(view.rows_of(read(view.on.variable), own))


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class SpaceUnits:
    """The n units of a space that a method chooses among; read-only.

    Constant units are removed first, whatever the method: they are not among
    these n.

    Attributes:
        layers: the layers that write the units; several for a residual
            stream.
        numbers: the number of each unit in its space, shape (n,).
        filters: what units are compared by, shape (z, n), one per column:
            their weights as they are, folded, or roots of the covariance of
            their activations, as `criterion` says. Those of several layers
            are joined, each layer's divided by the norm of its kernel.
        norms: Euclidean norms of the filters before any such division,
            shape (n,).
        carried: a function of some of the n units, shape (k,), that returns
            all else that belongs to them, such as biases, (k, anything).
        seen: for each consumer that calibration data show, the arguments of
            `Reader.of`.
        beside_filters: numbers that describe all else about the units, such
            as their biases: units with parallel filters compute multiples of
            one another only where these rows agree. Shape (n, anything); None
            if units are compared by their filters alone.
        read_scales: a function that returns the `scales`.
        folded: whether `beside_filters` is compared at a tau below 1 too, as
            for criterion="folded".
    """

    layers: tuple
    numbers: np.ndarray
    filters: np.ndarray
    norms: np.ndarray
    carried: Callable
    seen: tuple = ()
    beside_filters: np.ndarray | None = None
    read_scales: Callable = tuple
    folded: bool = False

    @property
    def readers(self) -> tuple[Reader, ...]:
        """A `Reader` for each consumer; none without calibration data.

        They are made anew each time: kept for all spaces of a model, their
        covariances would take more memory than all else.
        """
        return tuple(Reader.of(*each) for each in self.seen)

    @functools.cached_property
    def scales(self) -> np.ndarray | tuple:
        """The gammas of each `BatchNormalization` that carries the units.

        Shape (layers, n).
        """
        return self.read_scales()

    @property
    def name(self) -> str:
        return " + ".join(layer.name for layer in self.layers)

    def __len__(self):
        return len(self.numbers)

    def __repr__(self):
        name = on_one_line(self.name)
        return f"<{len(self)} units of {name}, filters {self.filters.shape}>"

    def clusters_at(self, tau: float, linkage: str) -> np.ndarray:
        """The number of each unit's cluster, shape (n,).

        A zero filter has no direction. Units with one are redundant to one
        another only where all else about them is equal too. The same is asked
        of others at tau = 1. With `folded`, the rows of `beside_filters` of
        two units of a cluster differ by at most sqrt(2 - 2 tau), as two
        filters of norm 1 with a cosine of tau do.
        """
        labels = cluster_filters(self.filters, tau, linkage)
        zero = np.flatnonzero(norms_along(self.filters, -1) == 0)
        if len(zero) > 1:
            carried = self.carried(zero)
            _, alike = np.unique(carried, axis=0, return_inverse=True)
            labels[zero] = labels.max() + 1 + alike.reshape(-1)
        is_exact = tau > ALMOST_ONE
        if self.beside_filters is not None and (self.folded or is_exact):
            most = max(np.sqrt(2 * (1 - tau)), ROUNDING)
            labels = _split(labels, self.beside_filters, most)
        return np.unique(labels, return_inverse=True)[1]


def _split(labels, rows, most):
    """The clusters, split where rows of their units are too far apart.

    Each unit stays with the first one of its cluster whose row is at most
    `most` away.

    Args:
        labels: the number of each unit's cluster, shape (n,).
        rows: what is compared, shape (n, anything).
    """
    result = labels.copy()
    for cluster in np.flatnonzero(np.bincount(labels) > 1):
        left = np.flatnonzero(labels == cluster)
        left = left[_distances(rows, left) > most]
        while len(left):
            near = _distances(rows, left) <= most
            near[0] = True  # Of itself, even if a number overflows.
            result[left[near]] = result.max() + 1
            left = left[~near]
    return result


def _distances(rows, units):
    """Of the rows of some units from that of the first of them."""
    return np.linalg.norm(rows[units] - rows[units[0]], axis=1)
