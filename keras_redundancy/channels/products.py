"""Multiply-adds of a traced model."""

import math


def multiply_adds(graph, size_of=None, count_of=len, layer=None) -> int | None:
    """Multiply-adds of a traced model, or of one of its layers.

    Args:
        graph: a `ChannelGraph`.
        size_of: the size of a kernel; that of its shape by default.
        count_of: how many channels an array of labels has.
        layer: count this layer alone.

    Returns:
        The number, or None where a spatial size is open.
    """
    size_of = size_of or (lambda kernel: math.prod(kernel.shape))
    total = 0
    for product in graph.products:
        if layer is None or product.layer is layer:
            if product.positions is None:
                return None
            count = 1 if product.per is None else count_of(product.per)
            total += product.positions * count * size_of(product.kernel)
    return total
