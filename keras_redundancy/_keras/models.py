"""Models as objects: their classes, attributes and compile arguments."""

import functools

import keras
from keras.src.models.functional import Functional, functional_like_constructor

from keras_redundancy._keras.layers import attributes_of


def rebuildable_class(model) -> type:
    """The class to rebuild a model with.

    That is the class of the model, if it takes the arguments of `keras.Model`
    or `keras.Sequential`: so a custom `train_step` is kept. Otherwise it is
    the class of Keras that it extends.
    """
    cls = type(model)
    if isinstance(model, keras.Sequential):
        alike = cls.__init__ is keras.Sequential.__init__
    else:
        alike = functional_like_constructor(cls)
    return cls if alike else plain_class(model)


def plain_class(model) -> type:
    """`keras.Sequential` or `keras.Model`, whichever a model is."""
    is_sequential = isinstance(model, keras.Sequential)
    return keras.Sequential if is_sequential else keras.Model


def has_own_config(cls) -> bool:
    """Whether a class of models overrides `get_config`."""
    own = (keras.Model.get_config, Functional.get_config)
    return cls.get_config not in (*own, keras.Sequential.get_config)


# Attributes that Keras sets on a model after its constructor.
SET_LATER = {
    "_compile_config",
    "_compiled_trainable_state",
    "_eval_epoch_iterator",
    "_functional",
    "_jax_state",
    "_jax_state_synced",
    "_opened_from",
    "history",
    "optimizer",
    "stop_evaluating",
    "stop_predicting",
    "stop_training",
}


def own_attributes(model) -> dict:
    """{name: value} of the attributes that a user set on a model."""
    known = _attributes_of_all_models() | SET_LATER
    held = attributes_of(model)
    return {key: x for key, x in held.items() if key not in known}


@functools.cache
def _attributes_of_all_models():
    x = keras.Input((1,), name="plain_input")
    return set(vars(keras.Model(x, x, name="plain")))


def compile_arguments(model) -> dict | None:
    """What to call `compile` with, for the same again; None if never called."""
    if not model.compiled or not hasattr(model, "_compile_config"):
        return None
    scales = isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    return model._compile_config.config | {"auto_scale_loss": scales}


def with_compile_state_of(model, new):
    """`new`, as if it had been compiled as `model` was, optimizer and all."""
    for key in ("_compile_config", "compiled", "optimizer"):
        if key in vars(model):
            vars(new)[key] = vars(model)[key]
    return new


def loss_function(loss) -> tuple[str | None, bool]:
    """(name of the function that a loss computes, whether it takes logits).

    The name is None for what is no loss function of Keras.
    """
    loss = keras.losses.get(loss) if isinstance(loss, str) else loss
    function = getattr(loss, "fn", loss)
    settings = getattr(loss, "_fn_kwargs", {})
    return getattr(function, "__name__", None), settings.get(
        "from_logits", False
    )


def compile_is_overridden(model) -> bool:
    """Whether the class of a model overrides `compile`."""
    return type(model).compile is not keras.Model.compile


def direction_of_metric(model, name: str) -> str | None:
    """ "up" if more of a metric is better, "down" if less is.

    Args:
        name: of a metric as in the logs. With several outputs the name of
            the output comes before it.

    Returns:
        None if no metric of the model has that name, or it does not say.
    """
    metrics = []
    for metric in model.metrics:  # Those of `compile` are in one metric.
        metrics += getattr(metric, "metrics", None) or [metric]
    named = [x for x in metrics if f"_{name}".endswith(f"_{x.name}")]
    if not named:
        return None
    return getattr(max(named, key=lambda x: len(x.name)), "_direction", None)
