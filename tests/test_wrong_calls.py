"""Calls that newcomers make: errors say what was meant."""

import keras
import numpy as np
import pytest

import keras_redundancy as kr
from tests import models


def message(error, function):
    with pytest.raises(error) as caught:
        function()
    return str(caught.value)


def test_verbose_is_a_keyword_and_a_flag():
    model = models.mlp()
    plan = kr.plan(model, ratio=0.5)
    message(TypeError, lambda: plan.apply(model))
    for call in (
        lambda: plan.apply(verbose="no"),
        lambda: kr.prune(model, ratio=0.5, verbose=model),
        lambda: kr.plan(model, ratio=0.5, verbose=None),
    ):
        assert "verbose must be" in message(TypeError, call)
    assert plan.apply(verbose=0).count_params() < model.count_params()
