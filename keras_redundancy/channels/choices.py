"""Which of several axes the channels are on: the one that lets most go.

Where a reshape makes two axes of one, as attention makes heads of channels,
the units are either heads, or channels that all heads lose together. Queries
and keys are multiplied and summed over the channels of a head, so that only
heads can go from them without changing what is computed. That shows only
behind the reshape, so the model is traced again with other choices where
channels have to stay.
"""

import dataclasses
from collections.abc import Callable

import numpy as np
from scipy.cluster.hierarchy import DisjointSet

from keras_redundancy.channels.labels import Role

# Three do for most: as it is, with heads of queries and keys, and of values.
PASSES = 5


@dataclasses.dataclass(frozen=True, eq=False)
class Pass:
    """One run of all rules: what they said, and the graph made of that.

    Attributes:
        recorder: the `Recorder`, with what follows from all calls together.
        graph: the `ChannelGraph`, without what is inexact.
        said: the `Recorder`, with what the rules said of single calls.
    """

    recorder: object
    graph: object
    said: object

    @property
    def chosen(self) -> dict[int, int]:
        return self.recorder.chosen

    def groups_of(self, ids) -> np.ndarray:
        return np.unique(self.graph.group[ids])

    def alternatives(self) -> dict[int, int]:
        """{id(operation): the next axis to take}, where channels stay."""
        stays, written = np.zeros((2, self.graph.group_count), bool)
        for ids, _ in self.recorder.store.frozen:
            stays[self.graph.group[ids]] = True
        for axis in self.graph.axes:
            if axis.role is Role.PRODUCER:
                written[axis.group] = True
        found = {
            x: self.chosen.get(id(x.operation), 0) + 1
            for x in self.recorder.choices
        }
        others = {
            id(x.operation): number
            for x, number in found.items()
            if number < x.count
            and (stays & written)[self.groups_of(x.ids)].any()
        }
        for rivals in self.recorder.rivals:
            if self._makers(rivals.stay) & self.chosen.keys():
                others |= self._against(rivals)
        return others

    def _against(self, rivals):
        """What could take another axis, so that both channels line up."""
        makers = self._makers(rivals.followed)
        free = makers - self.chosen.keys() or {id(rivals.operation)}
        return dict.fromkeys(free - self.chosen.keys(), 1)

    def _makers(self, ids) -> set[int]:
        """Ids of the operations whose choices made these channels."""
        groups = self.groups_of(ids)
        return {
            id(x.operation)
            for x in self.recorder.choices
            if np.isin(self.graph.group[x.ids], groups).any()
        }

    def links(self) -> list[set[int]]:
        """Sets of ids of operations whose choices depend on each other."""
        by_group = {}
        for x in self.recorder.choices:
            for group in self.groups_of(x.ids):
                by_group.setdefault(group, set()).add(id(x.operation))
        rivals = (
            {id(x.operation)} | self._makers(x.stay) | self._makers(x.followed)
            for x in self.recorder.rivals
        )
        return [*by_group.values(), *rivals]

    def prunable(self, keys) -> int:
        """How many parameters could go by the channels of some choices.

        Args:
            keys: ids of the operations that choose.
        """
        ids = [x.ids for x in self.recorder.choices if id(x.operation) in keys]
        groups = self.groups_of(np.concatenate(ids or [np.empty(0, int)]))
        spaces = self.graph.prunable
        found = (x for x in spaces if np.isin(x.groups, groups).any())
        return self.graph.parameters_of(*found)


def best_pass(run: Callable[[dict], Pass]) -> Pass:
    """The pass with the choices that let most parameters go.

    Args:
        run: a function of {id(operation): number of the axis to take}, where
            operations that are not in there take the first.
    """
    passes = [run({})]
    while len(passes) < PASSES and (others := passes[-1].alternatives()):
        passes.append(run(passes[-1].chosen | others))
    first, last = passes[0], passes[-1]
    kept = {}
    for keys in _components(passes):
        if last.prunable(keys) > first.prunable(keys):
            kept |= {k: x for k, x in last.chosen.items() if k in keys}
    return next((x for x in passes if x.chosen == kept), None) or run(kept)


def _components(passes):
    """Sets of ids of operations: choices in two of them are independent."""
    links = [link for x in passes for link in x.links()]
    found = DisjointSet(key for link in links for key in link)
    for first, *others in links:
        for other in others:
            found.merge(first, other)
    return found.subsets()
