"""RaRe of a factorized layer, whose closest pairs are kept between steps."""

import keras
import numpy as np
from keras import ops

from keras_redundancy.low_rank.pairs import CANDIDATES
from keras_redundancy.low_rank.sides import SIDES, as_columns


class KeptPairs:
    """The closest pairs of rows and columns, looked for in some steps only.

    To find the closest pairs takes longer than to compute their penalty. So a
    factorized layer looks for `CANDIDATES` of them every `refresh` steps and
    pulls the first one together; once that pair is parallel, the next one
    takes its turn.

    Args:
        layer: a `Factorized` layer with a kernel. It gets the variables.
        rare: its `RaReRegularizer`.
        sides: the names in `SIDES` whose vectors are pulled together.

    Attributes:
        pairs: int32, shape (sides, pairs, 2): vector numbers, of each side the
            pair in turn first.
        age: int32 scalar: the steps since the pairs were looked for, modulo
            `refresh`.
        share: a scalar factor of the penalty, see `share_out`.
    """

    def __init__(self, layer, rare, sides: list[str]):
        self.rare, self.sides, self.refresh = rare, sides, layer.refresh
        # All replicas find the same pairs.
        options = {"trainable": False, "aggregation": "only_first_replica"}
        self.pairs = layer.add_weight(
            name="pairs",
            shape=self._shape(layer.kernel),
            dtype="int32",
            initializer="zeros",
            **options,
        )
        self.age = layer.add_weight(
            name="age", shape=(), dtype="int32", initializer="zeros", **options
        )
        self.share = layer.add_weight(
            name="share",
            shape=(),
            dtype=keras.backend.result_type(layer.variable_dtype, "float32"),
            initializer="ones",
            autocast=False,
            **options,
        )

    def _shape(self, kernel):
        counts = [kernel.shape[SIDES[side]] for side in self.sides]
        return len(counts), min(CANDIDATES, *counts), 2

    @property
    def variables(self) -> list:
        """What a layer with another `RaReRegularizer` does not take over."""
        return [self.pairs, self.age, self.share]

    def empty(self, kernel) -> np.ndarray:
        """What `pairs` is at first, for a kernel that may have shrunk."""
        return np.zeros(self._shape(kernel), "int32")

    def penalty(self, kernel, training=None):
        """strength / 2 * share * the distances of the pairs in turn, summed.

        In training, the variables are updated for the next step.

        Args:
            kernel: W, shape (..., rows, columns), in the dtype of the variable.

        Returns:
            A scalar, float32 or float64.
        """
        pairs = ops.convert_to_tensor(self.pairs.value)
        distances = ops.stack(
            [
                self.rare.distance(matrix, pairs[i, 0], axis)
                for i, (matrix, axis) in enumerate(self._matrices(kernel))
            ]
        )
        if training:
            self._update(kernel, pairs, distances)
        return self.rare.strength / 2 * self.share.value * ops.sum(distances)

    def _update(self, kernel, pairs, distances):
        are_done = self.rare.is_parallel(ops.stop_gradient(distances))
        are_done = ops.reshape(are_done, (-1, 1, 1))
        turned = ops.where(are_done, ops.roll(pairs, -1, axis=1), pairs)
        age = ops.convert_to_tensor(self.age.value)
        pairs = ops.cond(
            age == 0, lambda: self._closest(kernel), lambda: turned
        )
        self.pairs.assign(pairs)
        self.age.assign((age + 1) % self.refresh)

    def _closest(self, kernel):
        count = self.pairs.shape[1]
        found = (self.rare.closest(*x)[:count] for x in self._matrices(kernel))
        return ops.stack(list(found))

    def _matrices(self, kernel):
        """For each side, a matrix and the axis that counts its vectors."""
        if len(kernel.shape) == 2:
            return [(kernel, SIDES[side]) for side in self.sides]
        return [(as_columns(kernel, side), -1) for side in self.sides]


def share_out(layers: list) -> None:
    """Weigh RaRe of each factorized layer by its present size.

    The strength of each was m n / c of the whole, of the sizes (m, n) before
    any were fused, with c their sum over all layers. With the sizes (m', n')
    in use now it has to be m' n' / c'; `share` is the ratio of the two.
    """
    layers = [layer for layer in layers if layer.kept_pairs is not None]
    before = np.array([x.weights_of(x.outer_sizes) for x in layers])
    now = np.array([x.weights_of(x.sizes) for x in layers])
    shares = (now / now.sum()) / (before / before.sum())
    for layer, share in zip(layers, shares, strict=True):
        layer.kept_pairs.share.assign(share)
