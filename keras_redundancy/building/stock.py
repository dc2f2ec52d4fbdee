"""What takes the place of a layer for training in a stock model.

A layer that is there for training only says here what it becomes in the model
that `strip` and `prune` return: another layer, with weights that compute the
same, or nothing. The layers of this package do so in `low_rank/stock.py` and
`noise_out/outputs.py`, through the same door as those of users.
"""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np

from keras_redundancy import _keras
from keras_redundancy._shared.warn import warn
from keras_redundancy.channels.rules.registry import register_for_class


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class LayerForm:
    """What a layer becomes in a new model.

    Attributes:
        like: the layer that the new one gets its name, config and weights
            from: the layer itself, or the one that it wraps. None if the layer
            is left out: the layers behind it then read its input.
        cls: the class of the new layer; None for that of `like`.
        without: entries of the config of `like` that `cls` does not take.
        values: {attribute: value} of variables that are not copied from those
            of `like`. A value is an array, a variable, or a function that
            returns one of them; None leaves what the new layer initializes.
            With another `cls`, nothing but these is set.
        unused: how many parameters of the new layer are at present multiples
            of others.
        advice: what to do where training cannot go on with the new layer, as
            a sentence for an error.
    """

    like: Any
    cls: type | None = None
    without: tuple[str, ...] = ()
    values: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    unused: int = 0
    advice: str = ""

    def __repr__(self):
        if self.is_left_out:
            return "<LayerForm: nothing>"
        name = getattr(self.like, "name", self.like)
        return f"<LayerForm: {self.kind.__name__} like {name!r}>"

    @property
    def is_left_out(self) -> bool:
        return self.like is None

    @property
    def kind(self) -> type:
        """The class of the new layer."""
        return self.cls or type(self.like)

    @property
    def is_other_class(self) -> bool:
        return self.kind is not type(self.like)

    def takes_place_of(self, layer) -> bool:
        """Whether another layer, or none, takes the place of `layer`."""
        return self.like is not layer or self.is_other_class

    def changes(self, layer) -> bool:
        """Whether it is more than a copy of `layer`."""
        return self.takes_place_of(layer) or bool(self.values)

    def value(self, name: str):
        """The array or variable that the new layer has as attribute `name`."""
        return value_of(self.values.get(name, getattr(self.like, name, None)))


NOTHING = LayerForm(None)


def value_of(value):
    """An array or variable, also where a function returns it."""
    return value() if callable(value) else value


@functools.singledispatch
def _stock_form(thing):
    """The default for all classes that did not register: it is stock."""
    return thing


def register_stock_form(kind: type, function: Callable | None = None):
    """Say what a layer for training becomes in a stock model.

    `strip` and `prune` replace each layer of the class, and of its subclasses,
    by this form. With `optimizer=True`, after which training goes on, a model
    can be pruned only if the form of these layers is None: they then stay in
    the smaller model, and need a rule (see `register_rule`).

    Args:
        kind: a subclass of `keras.Layer`; or of a regularizer, a constraint
            or another object that stands in the configs of layers.
        function: takes an object of the class. For a layer, it returns a
            `LayerForm`, or None to leave the layer out, so that the layers
            behind it read its input. For another object, it returns the object
            that takes its place, or None. Without `function`,
            `register_stock_form(kind)` is a decorator.

    Returns:
        `function`, or the decorator.

    Raises:
        TypeError: `kind` is no class, or `function` cannot be called.

    Example: a `Dense` layer with its weights divided by their norm.

        @kr.register_stock_form(NormalizedDense)
        def normalized_dense(layer):
            return kr.LayerForm(
                layer,
                keras.layers.Dense,
                without=("epsilon",),
                values={"kernel": layer.normalized, "bias": layer.bias},
            )
    """
    return register_for_class(
        _stock_form,
        register_stock_form,
        kind,
        function,
        expects="a class",
        what="A stock form is given by a function of a layer",
        write="def my_form(layer), which returns a LayerForm, or None if "
        "nothing takes the place of the layer",
    )


def stock_form(layer) -> LayerForm:
    """What takes the place of a layer in a stock model.

    Raises:
        TypeError: the function that was registered for its class returned no
            `LayerForm`.
    """
    form = _stock_form(layer)
    if form is layer:
        return LayerForm(layer)
    if form is None:
        return NOTHING
    if not isinstance(form, LayerForm):
        raise TypeError(
            f"The function {function_name(_stock_form.dispatch(type(layer)))} "
            f"that is registered for {type(layer).__name__} returned {form!r}, "
            "but it has to return a LayerForm, or None if nothing takes the "
            "place of the layer."
        )
    return form


# Functions that look at each layer of a model that is made smaller.
_checks = []


def register_check(function: Callable) -> Callable:
    """A decorator of a function that finds mistakes in the use of a layer.

    Args:
        function: takes a layer, and returns what to warn of, or None.
    """
    _checks.append(function)
    return function


def warn_of_layers(model) -> None:
    """Warn of what the registered checks find in a model, at any depth."""
    for layer in _keras.flat_layers(model):
        for check in _checks:
            found = check(layer) if layer.built else None
            if found:
                warn(found)


def layers_for_training(model) -> list:
    """The layers of a model, at any depth, that are no stock layers."""
    return [x for x in _keras.flat_layers(model) if stock_form(x).changes(x)]


def stock_settings(config, path: tuple = ()) -> dict:
    """{path: config} of the objects in a layer's config that are not stock.

    Layers inside do not count: they are made anew by the layer around them.
    """
    if isinstance(config, (list, tuple)):
        entries = enumerate(config)
    elif isinstance(config, dict):
        kind = keras.saving.get_registered_object(config.get("registered_name"))
        if _is_object_for_training(kind):
            return {path: _stock_config(config)}
        entries = config.items()
    else:
        return {}
    found = {}
    for key, value in entries:
        found |= stock_settings(value, (*path, key))
    return found


def _is_object_for_training(kind):
    if not inspect.isclass(kind) or issubclass(kind, keras.Layer):
        return False
    return _stock_form.dispatch(kind) is not _stock_form.registry[object]


def _stock_config(config):
    own = _stock_form(keras.saving.deserialize_keras_object(config))
    return keras.saving.serialize_keras_object(own)


def parameters_after_training(model) -> int:
    """How many parameters a model has without the layers that are left out."""
    weights = {
        id(variable): variable
        for layer in layers_for_training(model)
        if stock_form(layer).is_left_out
        for variable in layer.weights
    }
    gone = sum(int(np.prod(v.shape)) for v in weights.values())
    return model.count_params() - gone


def unused_parameters(model) -> int:
    """How many parameters of the stock model are multiples of others."""
    return sum(stock_form(x).unused for x in layers_for_training(model))


def function_name(function) -> str:
    """Module and name of a function, which are the same in every process."""
    return f"{function.__module__}.{function.__qualname__}"
