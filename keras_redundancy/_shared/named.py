"""Tables of classes and functions that fit on a screen."""


def named(module, names: str) -> list:
    """What `module` has under these names, which are words of one string.

    Raises:
        AttributeError: it has nothing of one of these names.
    """
    return [getattr(module, name) for name in names.split()]
