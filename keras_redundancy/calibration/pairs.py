"""A model and the smaller one that was made from it, call by call."""

from keras_redundancy import _keras_internals as internals


def paired_calls(old, new, paths=((), ())):
    """The calls of both models' graphs, in the order in which they run.

    Yields:
        (call, its counterpart, paths): the paths are those of the `Place`s of
        the tensors in each model. Calls of nested models are followed.
    """
    graphs = internals.graph_of(old), internals.graph_of(new)
    for calls in zip(*map(internals.calls, graphs), strict=True):
        names = {call.operation.name for call in calls}
        if len(names) > 1 and not _are_unnamed(calls):
            raise RuntimeError(
                f"The layers {' and '.join(sorted(names))} stand in the same "
                "place of a model and of its smaller copy."
            )
        if internals.is_model(calls[0].operation):
            inner = tuple(
                (*path, id(call.node))
                for path, call in zip(paths, calls, strict=True)
            )
            models = (call.operation for call in calls)
            yield from paired_calls(*models, inner)
        else:
            yield *calls, paths


def _are_unnamed(calls):
    """Operations that are made anew get names of their own."""
    kinds = {type(call.operation) for call in calls}
    return len(kinds) == 1 and not hasattr(calls[0].operation, "weights")
