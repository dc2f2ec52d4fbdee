"""Whether less or more of a monitored value is better."""

import re

from keras_redundancy import _keras

# How names end that no metric of the model explains: those that a callback or
# a train step of the user's adds to the logs.
LESS = ("loss", "error", "perplexity", "mae", "mse", "rmse")
MORE = ("accuracy", "acc", "auc", "score", "precision", "recall")


def less_is_better(monitor: str, mode: str, model) -> bool:
    """Whether less of a monitored value is better.

    Args:
        monitor: a name in the logs.
        mode: "min", "max" or "auto": what the metric of that name says, or
            else the end of the name.
        model: the model whose metrics are looked at.

    Raises:
        ValueError: neither says it.
    """
    if mode != "auto":
        return mode == "min"
    name = monitor.removeprefix("val_")
    # Keras numbers metrics of one name: auc, auc_1.
    names = (name, re.sub(r"_\d+$", "", name))
    for one in names:
        direction = _keras.direction_of_metric(model, one)
        if direction is not None:
            return direction == "down"
    if names[1].lower().endswith(LESS):
        return True
    if names[1].lower().endswith(MORE):
        return False
    raise ValueError(
        f"Neither its metric nor its name says whether more or less of "
        f"monitor={monitor!r} is better. Pass mode='max' if more is better, "
        "or mode='min' if less is."
    )
