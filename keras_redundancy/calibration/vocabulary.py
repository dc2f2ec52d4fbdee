"""Numbers of words in calibration data that an `Embedding` does not know."""

import keras
import numpy as np

from keras_redundancy import _keras


def embeddings_of_inputs(model) -> dict:
    """{id(input): the `Embedding` of the fewest words that reads it}."""
    graph, found = _keras.flat_graph(model), {}
    for call in graph.calls:
        if not isinstance(call.operation, keras.layers.Embedding):
            continue
        for key in set(call.reads).intersection(graph.inputs):
            known = found.setdefault(key[-1], call.operation)
            if call.operation.input_dim < known.input_dim:
                found[key[-1]] = call.operation
    return found


def require_known(array, x, embedding, number: int) -> None:
    """Raise if an array holds numbers that an embedding has no vector for.

    Some backends fail at these, and some take another vector.

    Args:
        array: what an input of the model is given.
        x: that input.
        embedding: the layer that reads it, or None.
        number: how many batches came before.
    """
    if embedding is None or not array.size:
        return
    for found in (np.min(array), np.max(array)):
        if not 0 <= found < embedding.input_dim:
            raise ValueError(
                f"data holds the number {int(found)} in batch {number} "
                f"(counted from 0) of the input {x.name!r}, but the layer "
                f"{embedding.name!r} (Embedding) that reads it has vectors "
                f"for 0 to {embedding.input_dim - 1} alone. Number the words "
                "as for training."
            )
