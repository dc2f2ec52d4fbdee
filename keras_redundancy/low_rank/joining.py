"""Fuse rows or columns of a factorized layer, and its optimizer's slots.

All of it runs on the host, between training steps.
"""

import numpy as np
from keras import ops

from keras_redundancy import _keras
from keras_redundancy._shared.arguments import check_option
from keras_redundancy.low_rank.fusion import Fusion, parallel_columns
from keras_redundancy.low_rank.sides import SIDES, as_columns, float64_of


def fuse(layer, side: str, kept: int, gone: int) -> Fusion:
    """Fuse two columns, or two rows, of W into one, in place.

    If they are parallel or opposite, P W Q does not change. If not, the one
    that is left is the least-squares fit to both, at the ratio of their norms.

    Args:
        side: "unit" for columns, "input" for rows.
        kept: the number of the column or row of W that stays.
        gone: the number of the one that becomes 0.

    Returns:
        The `Fusion`, to fuse an optimizer's slots in the same way.

    Raises:
        ValueError: `side` is unknown or not factorized, `kept` and `gone` are
            the same, one of them is not in use, or `kept` is 0.
    """
    check_option("side", side, layer.sides)
    index, _ = layer.factor(side)
    for number in (kept, gone):
        if number not in index:
            raise ValueError(
                f"No {side} of the layer {layer.name!r} uses number {number} "
                f"of W: it was fused before, or W has no such number. Those "
                f"in use are in layer.{side}_index."
            )
    columns = as_columns(float64_of(layer.kernel), side)
    fusion = Fusion.of(kept, gone, columns[:, kept], columns[:, gone])
    _apply(layer, side, [fusion])
    return fusion


def fuse_parallel(
    layer,
    tau_cos: float = 1e-4,
    tau_euc: float = 0.1,
    to_square: bool = True,
) -> list[tuple[str, Fusion]]:
    """Fuse all rows and columns of W that are parallel or opposite, in place.

    The closest pairs are fused first.

    Args:
        tau_cos: vectors with 1 - |cos| below this are parallel, if `tau_euc`
            holds too.
        tau_euc: the limit of their distance, after the shorter one is scaled
            to the norm of the longer one, in units of the root mean square
            norm of the vectors in use.
        to_square: whether to fuse only the more numerous of rows and columns
            at any time, so that W tends to a square. If only one side is
            factorized, that side is fused in any case.

    Returns:
        [(side, `Fusion`), ...] in the order in which they were made.

    Source: Lee et al., On the Redundancy in the Rank of Neural Network
    Parameters and Its Controllability (2021), algorithm 1.
    """
    kernel = ops.convert_to_numpy(layer.kernel)
    waiting, sizes = {}, {}
    for side in layer.sides:
        used = np.unique(layer.factor(side)[0])
        sizes[side] = len(used)
        waiting[side] = parallel_columns(
            as_columns(kernel, side), used, tau_cos, tau_euc
        )
    done = []
    while any(waiting.values()):
        side = max(sizes, key=sizes.get)
        if not waiting[side]:
            if to_square:
                break
            side = next(x for x in sizes if waiting[x])
        done.append((side, waiting[side].pop(0)))
        sizes[side] -= 1
    for side in layer.sides:
        _apply(layer, side, [fusion for s, fusion in done if s == side])
    return done


def _apply(layer, side, fusions):
    """Fuse vectors of W, and scale what uses them by the fusions' shares."""
    if not fusions:
        return
    index, scale = layer.factor(side)
    kernel = float64_of(layer.kernel)
    for fusion in fusions:
        fusion.join(kernel, SIDES[side])
        of_gone, of_kept = fusion.shares
        scale[index == fusion.gone] *= of_gone
        scale[index == fusion.kept] *= of_kept
        index[index == fusion.gone] = fusion.kept
    layer.kernel.assign(kernel)
    for variable, value in zip(
        layer.factor_variables(side), (index, scale), strict=True
    ):
        variable.assign(value)
    _hold_constraint(layer, kernel)


def _hold_constraint(layer, kernel):
    """Let P or Q scale vectors by what the kernel's constraint takes away.

    The constraint would do so after the next step: a `UnitNorm` scales the
    vector that stands for two. What it does else to a kernel is left to it.
    """
    if layer.kernel_constraint is None:
        return
    tensor = ops.convert_to_tensor(kernel, layer.kernel.dtype)
    held = float64_of(layer.kernel_constraint(tensor))
    for side in layer.sides:
        norms = [
            np.linalg.norm(as_columns(x, side), axis=0) for x in (kernel, held)
        ]
        ratio = np.divide(
            *norms, where=norms[1] > 0, out=np.ones_like(norms[0])
        )
        shape = np.ones(kernel.ndim, int)
        shape[SIDES[side]] = -1
        if np.allclose(held * ratio.reshape(shape), kernel, atol=0):
            index, scale = layer.factor(side)
            layer.kernel.assign(held)
            layer.factor_variables(side)[1].assign(scale * ratio[index])
            return


def join_slots(optimizer, variable, fusions: list[tuple[str, Fusion]]) -> None:
    """Fuse an optimizer's slots for a kernel as the kernel was fused.

    A slot of another shape than the kernel's is set to zeros.

    Args:
        optimizer: the optimizer that trains `variable`, or None.
        variable: the kernel W.
        fusions: what `fuse_parallel` returned.
    """
    for slot, kind in _keras.slots(optimizer, variable):
        if tuple(slot.shape) != tuple(variable.shape):
            slot.assign(np.zeros(slot.shape))
            continue
        array = float64_of(slot)
        if kind == "size":
            array = array**2
        for side, fusion in fusions:
            squares = kind in ("square", "size")
            fusion.join(array, SIDES[side], squares=squares)
        slot.assign(np.sqrt(array) if kind == "size" else array)
