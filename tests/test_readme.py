"""The code of the README runs as it stands."""

import re
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers

import keras_redundancy as kr
from tests import models
from tests.rule_checks import assert_copies_go

README = Path(__file__).parent.parent / "README.md"
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)


def staged():
    names = ("stem", "stage1_a", "stage1_b", "stage2_a")
    convolutions = [
        layers.Conv2D(16, 3, padding="same", activation="relu", name=name)
        for name in names
    ]
    return keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            *convolutions,
            layers.GlobalAveragePooling2D(),
            layers.Dense(4),
        ]
    )


@pytest.mark.parametrize("block", BLOCKS)
def test_block(block, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = models.randomized(staged())
    models.plant(model)
    names = {"keras": keras, "kr": kr, "model": model}
    names["images"] = models.random_inputs(model, batch=100)
    names["labels"] = np.arange(100) % 4
    exec(block, names)
    if "small.save" in block:
        assert (tmp_path / "small.keras").exists()
        assert names["small"].count_params() < model.count_params()


def test_there_are_blocks_to_run():
    words = (
        ("small.save", 1),
        ("kr.calibrate", 1),
        ("kr.pink_noise", 1),
        ("kr.search", 1),
        ("kr.callbacks.RedundancyMonitor", 1),
        ("kr.callbacks.DynamicLowRank", 1),
        ("kr.fit_and_prune", 1),
        ("kr.NoiseOutputs", 1),
        ("kr.prune", 4),
        ("plan.explain()", 1),
        ("register_rule", 1),
    )
    assert len(BLOCKS) == len(words)
    for block, (word, count) in zip(BLOCKS, words, strict=True):
        assert block.count(word) == count


def test_the_rule_of_the_readme_prunes(tmp_path):
    names = {"keras": keras, "kr": kr}
    exec(BLOCKS[-1], names)
    inputs = keras.Input((12,))
    x = layers.Dense(16, name="before")(inputs)
    x = layers.Dense(8, activation="relu")(names["ChannelScale"]()(x))
    assert_copies_go(keras.Model(inputs, layers.Dense(3)(x)), tmp_path)
