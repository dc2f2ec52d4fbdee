"""Calibrate once, plan often."""

from __future__ import annotations  # help() shows the names of types.

import keras

from keras_redundancy._shared.arguments import check_count
from keras_redundancy._shared.progress import showing
from keras_redundancy.building.stripping import stock
from keras_redundancy.calibration import Calibration
from keras_redundancy.calibration.data import Samples, shapes_to_open_on
from keras_redundancy.channels import trace


def calibrate(
    model: keras.Model,
    data,
    *,
    batch_size: int = 128,
    steps: int | None = None,
    allow_inexact: bool = False,
    verbose: bool = False,
) -> Calibration:
    """Run a model over `data` once, to make many plans with the result.

    Args:
        model: a built `keras.Model`, as for `plan`. It is never
            changed.
        data: some hundred or thousand samples: what `Model.predict` takes,
            such as arrays, sparse matrices, text, dictionaries (with more
            columns than the model reads, too), a `tf.data.Dataset`, a
            `PyDataset` or a generator; targets are ignored. An iterator can be
            used once: its first 32 batches are remembered for mending.
        batch_size: for arrays in `data`.
        steps: how many batches of `data` to use at most, as for `plan`.
        allow_inexact: as for `plan`.
        verbose: whether to draw a progress bar of the batches.

    Returns:
        A `Calibration` to pass on as `data=` in place of the samples. It is
        valid for the present weights of the model: after further training it
        is refused, and you have to calibrate again.

    Raises:
        TypeError: the model has no graph to follow.
        ValueError: the model is not built, or `data` is empty, has no end, or
            does not fit the model's inputs.

    Warns:
        UserWarning: not all of `data` is used, since its length is unknown.

    Example:

        known = keras_redundancy.calibrate(model, images)
        for share in (0.7, 0.5, 0.3):
            small = keras_redundancy.prune(
                model, target={"flops": share}, data=known
            )
    """
    check_count("batch_size", batch_size)
    samples = Samples(data, steps)
    traced = stock(model)
    shapes = shapes_to_open_on(traced, data, steps, batch_size)
    graph = trace(traced, allow_inexact=allow_inexact, shapes=shapes)
    with showing(verbose):
        return Calibration.of(
            model, graph, graph.prunable, samples, batch_size, allow_inexact
        ).to_be_kept()
