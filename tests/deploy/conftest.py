import pytest

from keras_redundancy.deploy import runtimes


@pytest.fixture(autouse=True)
def _timed_by_few_runs(monkeypatch):
    monkeypatch.setattr(runtimes, "LEAST_SECONDS", 0.0)
