"""What the units of a space are compared and ranked by."""

import functools

import numpy as np
from scipy import linalg

from keras_redundancy.channels.filters import (
    carried,
    joined_filters,
    read,
    scales_of,
)
from keras_redundancy.channels.gains import Gains, numbers_of
from keras_redundancy.channels.shifts import homes_of_shifts
from keras_redundancy.numbers.regression import varies
from keras_redundancy.planning.space_units import SpaceUnits


class Compared:
    """What the units of a model's spaces are compared by.

    Attributes:
        method: the selection method that compares them.
    """

    def __init__(
        self,
        graph,
        spaces,
        method,
        statistics,
        exact: bool = False,
        sensitivities: dict | None = None,
    ):
        """Args:
        graph: the traced model.
        spaces: the spaces that are cut.
        method: a `Method`.
        statistics: those of the calibration data, or None.
        exact: whether units that are the same are asked for, at tau = 1.
        sensitivities: what `sensitivities_of` returns, where the method
            asks for it.
        """
        self.method = method
        self._statistics, self._homes = statistics, homes_of_shifts(graph)
        self._sensitivities = sensitivities or {}
        self._factors, self._beside_filters = {}, {}
        folded = method.criterion == "folded"
        filters = exact and method.criterion == "filters"
        describe = method.is_clustering and (folded or filters)
        if not describe and not folded:
            return
        touched = np.zeros(graph.group_count, bool)
        for space in spaces:
            touched[space.groups] = True
        gains = Gains(graph, read, touched, folded=folded, describe=describe)
        self._factors = gains.factors
        if describe:
            self._beside_filters = numbers_of(gains, graph, spaces)

    def units_of(self, space, chosen: np.ndarray) -> SpaceUnits:
        """Some units of a space.

        Args:
            space: the space.
            chosen: numbers of its units, shape (n,).

        Raises:
            ValueError: a kernel holds NaN or infinity.
        """
        seen = self._seen(space, chosen)
        beside = self._beside_filters.get(space)
        if self.method.criterion == "activations" and seen:
            filters = np.concatenate(
                [_roots(view, own) for view, own, *_ in seen]
            )
            norms = np.linalg.norm(filters, axis=0)
            known = functools.partial(_constants, seen)
        else:
            filters, norms = joined_filters(space, self._fold)
            if len(chosen) < space.size:
                filters, norms = filters[:, chosen], norms[chosen]

            def known(units):
                return carried(space, chosen[units])

        return SpaceUnits(
            tuple(space.producers),
            _read_only(chosen),
            _read_only(filters),
            _read_only(norms),
            known,
            seen,
            None if beside is None else beside[chosen],
            functools.partial(scales_of, space, chosen),
            self.method.criterion == "folded",
        )

    def _seen(self, space, chosen):
        if self._statistics is None:
            return ()
        return tuple(
            (
                view,
                own[chosen],
                id(view.on.variable) in self._homes,
                self._sensitivities.get(id(view)),
            )
            for view, own in self._statistics.of_space(space)
            if view.each == 1 or self.method.criterion != "activations"
        )

    def _fold(self, on, kernel):
        factor = self._factors.get((id(on.variable), on.axis))
        return kernel if factor is None else kernel * factor


def _read_only(array):
    """The array: it may be the memory of the caller's own variable."""
    view = array.view()
    view.flags.writeable = False
    return view


def _roots(view, own):
    """Columns whose cosines are the correlations of the units: (n, n)."""
    covariance = view.moments.part(own).covariance
    values, vectors = linalg.eigh(covariance)
    roots = np.sqrt(values.clip(0))[:, None] * vectors.T
    roots[:, ~varies(np.diag(covariance))] = 0
    return roots / (np.sqrt(np.trace(covariance)) or 1)


def _constants(seen, units):
    """What units that do not vary always are, shape (units, consumers)."""
    means = [view.moments.mean[own[units]] for view, own, *_ in seen]
    return np.float32(means).T
