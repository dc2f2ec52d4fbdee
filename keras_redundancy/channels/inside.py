"""Layers inside other layers: which setting of the outer sets their width."""

import dataclasses
from collections.abc import Callable

from keras_redundancy import _keras
from keras_redundancy.channels.reasons import Reason

UNSET_WIDTH = Reason(
    "width_not_set",
    "no argument of {name} ({kind}) is known to set the {setting} of its "
    "layer {inner}",
)
OTHER_VALUE = Reason(
    "width_differs",
    "the argument {argument} of {name} ({kind}) is {value}, not the {setting} "
    "of its layer {inner}",
)


@dataclasses.dataclass(frozen=True)
class Inside:
    """How a call is part of the call of an outer layer.

    Attributes:
        call: the `CallTrace` of the outer operation.
        sets: {entry of the inner layer's config: argument of the outer one};
            None for the layer inside a wrapper, which is made anew itself.
        times: how often the outer call makes the inner one; None if that is
            not known.
        given: a function of the outer operation and its (args, kwargs) that
            returns those of the inner call; None if they are not known.
    """

    call: object
    sets: dict | None
    times: int | None
    given: Callable | None = None

    @property
    def part(self) -> bool:
        """Whether the inner layer is made by the constructor of another."""
        outer = self.call.inside
        return self.sets is not None or (outer is not None and outer.part)

    @property
    def times_in_all(self) -> int | None:
        """How often the outermost call makes the inner one; None if open."""
        outer = self.call.inside
        around = 1 if outer is None else outer.times_in_all
        known = self.times is not None and around is not None
        return self.times * around if known else None

    def setting(self, layer, path: tuple) -> tuple | None:
        """(operation, path) of what sets entry `path` of the config of `layer`.

        None if no argument of the outer operation does.
        """
        if self.sets is not None:
            setting = self.sets.get(".".join(map(str, path)))
        else:
            wrapped = layer is self.call.operation.layer
            setting = ("layer", "config", *path) if wrapped else None
        if isinstance(setting, str):
            setting = (setting,)
        return self.call.setting(setting) if setting else None

    def obstacle(self, layer, path, place, counts) -> str | None:
        """Why entry `path` of the config of `layer` cannot be `counts`.

        Raises:
            ValueError: the rule names an argument that does not exist.
        """
        words = {"setting": ".".join(map(str, path)), "inner": layer.name}
        if place is None:
            return self.call.say(UNSET_WIDTH, **words)
        outer, path = place
        try:
            value = outer.get_config()
        except (NotImplementedError, TypeError, ValueError):
            return None  # Refused with the cause before anything is built.
        argument = ".".join(map(str, path))
        try:
            for key in path:
                value = value[key]
        except (KeyError, IndexError, TypeError):
            raise ValueError(
                f"The rule for {type(outer).__name__} says that its argument "
                f"{argument!r} sets a width, but the get_config() of "
                f"{outer.name!r} has no such entry."
            ) from None
        if value in (counts, counts[0]) or [*counts] == value:
            return None
        words |= {"argument": argument, "value": value}
        return self.call.say(OTHER_VALUE, **words)


def checked_sets(operation, layer, sets: dict | None) -> dict | None:
    """The `sets` that a rule gives for a layer inside `operation`.

    None only for the layer inside a wrapper, which is made anew by itself.

    Raises:
        ValueError: the layer is not built, or it is a model and `sets` does
            not say which of its layers it is about.
    """
    rule = f"The rule for {type(operation).__name__}"
    if not layer.built:
        raise ValueError(
            f"{rule} follows the layer {layer.name!r} of {operation.name!r}, "
            "which is not built, so it has no weights yet. Build it in "
            "build(), or follow only those layers that call() uses."
        )
    if _keras.is_model(layer) and sets:
        raise ValueError(
            f"{rule} follows {layer.name!r}, a model with layers of its own, "
            "and sets= does not tell them apart. Call through() for one layer "
            "of it after the other; hidden_widths() takes names of them, such "
            "as 'ffn.layers.0'."
        )
    around = _keras.wraps_one_layer(operation)
    if sets is None and not (around and layer is operation.layer):
        return {}
    return sets


def call_inside(operation, layer, tensors):
    """The call of `layer` that `operation` makes, on `KerasTensor`s.

    Raises:
        ValueError: it fails.
    """
    try:
        return _keras.imagined_call(layer, tensors)
    except Exception as error:
        shapes = ", ".join(str(x.shape) for x in tensors)
        raise ValueError(
            f"The rule for {type(operation).__name__} follows the layer "
            f"{layer.name!r} of {operation.name!r} on tensors of the shapes "
            f"{shapes}, but such a call fails: {error}"
        ) from error
