import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import pytest


@pytest.fixture(autouse=True)
def _seeded():
    """Every test starts from the same weights and the same layer names."""
    keras.utils.set_random_seed(0)
    keras.backend.clear_session()
