"""Matrix products in one thread, and in as many as before after that."""

import threading

import pytest
import threadpoolctl

from keras_redundancy._shared.threads import one_thread


@pytest.fixture
def counts():
    """A function that returns the numbers of threads; two at the start."""

    def of_libraries():
        found = threadpoolctl.threadpool_info()
        return {x["num_threads"] for x in found if x["user_api"] == "blas"}

    with threadpoolctl.threadpool_limits(2, user_api="blas"):
        if of_libraries() != {2}:
            pytest.skip("the number of threads cannot be set here")
        yield of_libraries


def test_blocks_can_be_nested(counts):
    with one_thread():
        with one_thread():
            assert counts() == {1}
        assert counts() == {1}
    assert counts() == {2}


def test_the_number_comes_back_after_an_error(counts):
    with pytest.raises(KeyError), one_thread():
        raise KeyError
    assert counts() == {2}


def test_the_number_comes_back_whichever_thread_leaves_first(counts):
    has_entered, may_leave = threading.Event(), threading.Event()

    def work():
        with one_thread():
            has_entered.set()
            may_leave.wait(10)

    other = threading.Thread(target=work)
    with one_thread():
        other.start()
        assert has_entered.wait(10)
    may_leave.set()
    other.join()
    assert counts() == {2}
