"""Small objects that say what they were made with."""

import dataclasses


@dataclasses.dataclass(frozen=True, repr=False)
class Configured:
    """A frozen dataclass with a config and a `repr` of a line."""

    def get_config(self) -> dict:
        """The arguments that the object was made with."""
        return {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
        }

    @classmethod
    def from_config(cls, config: dict):
        return cls(**config)

    def __repr__(self):
        given = [
            f"{field.name}={name_of(getattr(self, field.name))}"
            for field in dataclasses.fields(self)
            if getattr(self, field.name) != field.default
        ]
        return f"{type(self).__name__}({', '.join(given)})"


def name_of(value) -> str:
    """The `repr` of a value; the name of a function, which has no address."""
    if callable(value):
        return getattr(value, "__qualname__", type(value).__qualname__)
    return repr(value)
