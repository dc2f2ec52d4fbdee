"""How many threads NumPy and SciPy compute matrix products with."""

import functools

import threadpoolctl


def one_thread():
    """A context in which NumPy and SciPy compute products in one thread.

    Between two products, the threads of OpenBLAS wait by spinning, and so
    take the cores from TensorFlow's threads and from other programs. Where
    there are many small products, or the backend computes something between
    them, several threads take several times as long as one.
    """
    return _libraries().limit(limits=1, user_api="blas")


@functools.cache
def _libraries():
    """The libraries for matrix products that are loaded, SciPy's as well."""
    import scipy.linalg  # noqa: F401

    return threadpoolctl.ThreadpoolController()
