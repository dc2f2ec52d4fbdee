"""Subscripts of symbols: code writes what arrays take, and Keras less."""

import contextlib
import operator

import keras


@contextlib.contextmanager
def all_subscripts():
    """Let x[:5], x[None], x[...] and x[numbers] work where x is a symbol.

    Keras itself takes integers there, and tuples of them and of slices.
    """
    plain = keras.KerasTensor.__getitem__

    def subscript(x, key):
        if _is_numbers(key):
            return keras.ops.take(x, key, axis=0)
        keys = key if isinstance(key, tuple | list) else (key,)
        return plain(x, tuple(map(_as_plain, keys)))

    keras.KerasTensor.__getitem__ = subscript
    try:
        yield
    finally:
        keras.KerasTensor.__getitem__ = plain


def _is_numbers(key):
    """Whether it is an array of integers."""
    if not getattr(key, "shape", ()):
        return False
    return keras.backend.is_int_dtype(
        keras.backend.standardize_dtype(key.dtype)
    )


def _as_plain(key):
    """An integer of any library as one of Python."""
    if key is None or key is Ellipsis or isinstance(key, slice):
        return key
    return operator.index(key)
