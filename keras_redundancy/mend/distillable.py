"""What `distill` refuses: options without effect, models that differ."""

from collections.abc import Iterator

from keras_redundancy import _keras
from keras_redundancy._shared.arguments import check_fraction
from keras_redundancy._shared.warn import warn
from keras_redundancy.building.stock import layers_for_training


def weight_of_labels(value, labels) -> float:
    """The share of the labels' loss: 0 where there are none.

    Raises:
        TypeError, ValueError: `value` is out of range, or there are no labels.
    """
    if labels is None and value is not None:
        raise ValueError(
            f"label_weight={value!r} would have no effect: there are no "
            "labels. Pass labels=, or leave label_weight= out."
        )
    if labels is None:
        return 0.0
    value = 0.5 if value is None else value
    return check_fraction("label_weight", value, "what the labels count")


def require_alike(small, model) -> None:
    """Raise unless both models have the same inputs and outputs.

    Warns:
        UserWarning: `small` is the larger one.
    """
    for what in ("inputs", "outputs"):
        shapes = [
            [tuple(x.shape) for x in getattr(_keras.graph_of(m), what)]
            for m in (small, model)
        ]
        if shapes[0] != shapes[1]:
            raise ValueError(
                f"small has {what} of shapes {shapes[0]}, but model of shapes "
                f"{shapes[1]}. Both models need the same inputs and outputs. "
                "Pass as model= the one that small was pruned from."
            )
    counts = [m.count_params() for m in (small, model)]
    # Layers for training have parameters that the stock model has not.
    if counts[0] > counts[1] and not layers_for_training(small):
        warn(
            f"The first model, which is trained, has {counts[0]:,} parameters, "
            f"and the second one, its teacher, only {counts[1]:,}. The smaller "
            "model comes first: kr.distill(small, model, data).",
        )


def require_judged(patience, held_out: float, validation_data) -> None:
    """Raise for `patience` where nothing says which epoch was the best."""
    if patience is not None and not held_out and validation_data is None:
        raise ValueError(
            f"patience={patience!r} would have no effect: no samples are held "
            "out to say which epoch was the best. Leave patience= out, or pass "
            "held_out=0.1, or with a dataset validation_data=."
        )


def require_of_stream(data, labels, augment, batch_size, held_out) -> None:
    """Raise for an option that has no effect on a dataset."""
    kind = type(data).__name__
    if batch_size is not None:
        raise ValueError(
            f"batch_size={batch_size} would have no effect: data is {kind}, "
            "which makes its batches itself. Leave batch_size= out, and let "
            "the dataset make batches of that size."
        )
    if held_out:
        raise ValueError(
            f"held_out={held_out} would have no effect: it is a share of "
            f"arrays, but data is {kind}. Leave held_out= out, and pass "
            "another dataset as validation_data=."
        )
    if augment is not None:
        raise ValueError(
            f"augment= changes arrays, but data is {kind}. Let the dataset "
            "change its samples itself, as with data.map(...)."
        )
    if labels is not None and labels is not True:
        raise ValueError(
            f"data is {kind}, whose batches come with their labels: pass "
            "labels=True to use them."
        )


def require_of_arrays(data, labels, steps, validation_data) -> None:
    """Raise for an option that has no effect on arrays or on a generator."""
    if labels is True:
        raise ValueError(
            "labels=True takes the labels that come with a dataset, but data "
            f"is {type(data).__name__}. Pass the labels themselves."
        )
    if validation_data is not None:
        raise ValueError(
            "validation_data= goes with a dataset. Of arrays the share "
            "held_out= is held out."
        )
    if steps is not None and not isinstance(data, Iterator):
        raise ValueError(
            f"steps={steps!r} would have no effect: all arrays are used in "
            "each epoch. Leave steps= out, or pass fewer samples."
        )
