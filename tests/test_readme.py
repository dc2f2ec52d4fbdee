"""The code of the README runs as it stands."""

import re
from pathlib import Path

import keras
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
    exec(block, names)
    if "small" in names:
        assert (tmp_path / "small.keras").exists()
        assert names["small"].count_params() < model.count_params()


def test_there_are_blocks_to_run():
    assert len(BLOCKS) == 4
    assert "small.save" in BLOCKS[0]
    assert BLOCKS[1].count("kr.prune") == 4
    assert "plan.explain()" in BLOCKS[2]
    assert "register_rule" in BLOCKS[3]


def test_the_rule_of_the_readme_prunes(tmp_path):
    names = {"keras": keras, "kr": kr}
    exec(BLOCKS[3], names)
    inputs = keras.Input((12,))
    x = layers.Dense(16, name="before")(inputs)
    x = layers.Dense(8, activation="relu")(names["ChannelScale"]()(x))
    assert_copies_go(keras.Model(inputs, layers.Dense(3)(x)), tmp_path)
