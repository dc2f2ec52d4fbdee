"""The code of README.md and of the pages of examples/ runs as it stands."""

import re
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers

import keras_redundancy as kr
from tests import models

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "examples").rglob("*.md"))]
LINK = re.compile(r"\]\(([^)#]+)")


def blocks_of(page):
    return re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)


BLOCKS = [
    pytest.param(block, id=f"{page.relative_to(ROOT)}-{number}")
    for page in PAGES
    for number, block in enumerate(blocks_of(page))
]


def staged():
    names = ("stem", "conv1")
    convolutions = [
        layers.Conv2D(16, 3, padding="same", activation="relu", name=name)
        for name in names
    ]
    return keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            *convolutions,
            layers.GlobalAveragePooling2D(),
            layers.Dense(4, name="fc"),
        ]
    )


@pytest.mark.parametrize("block", BLOCKS)
def test_block(block, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = models.randomized(staged())
    models.plant(model)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    names = {"keras": keras, "kr": kr, "model": model, "loss": loss}
    names["images"] = models.random_inputs(model, batch=100)
    names["labels"] = np.arange(100) % 4
    names["new_images"], names["new_labels"] = names["images"], names["labels"]
    exec(block, names)
    if "small = " in block:
        small = names["small"]
        assert small.count_params() < model.count_params()
        packages = {type(x).__module__.split(".")[0] for x in small.layers}
        assert packages == {"keras"}
    assert (tmp_path / "small.keras").exists() == ("small.save" in block)


def test_there_are_blocks_to_run():
    words = (
        ("small.save", 1),
        ("kr.calibrate", 1),
        ("kr.search", 1),
        (".explain()", 1),
        ("kr.fit_and_prune", 1),
        ("kr.callbacks.DynamicLowRank", 1),
        ("kr.merge_correlated", 1),
        ("kr.prune", 4),
        ("kr.callbacks.RedundancyMonitor", 1),
        ("kr.pink_noise", 1),
        ("kr.merge_correlated", 1),
    )
    assert len(BLOCKS) == len(words)
    for block, (word, count) in zip(BLOCKS, words, strict=True):
        assert block.values[0].count(word) == count


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 200


@pytest.mark.parametrize(
    "page", PAGES, ids=lambda page: page.parent.name + page.stem
)
def test_links_lead_to_files(page):
    links = LINK.findall(page.read_text())
    assert links
    assert [x for x in links if not (page.parent / x).exists()] == []


def test_what_users_of_other_libraries_write_here():
    model = models.randomized(staged())
    half = kr.prune(model, kr.L1(), ratio=0.5, absorb=kr.Drop(), skip="fc")
    assert [x.filters for x in half.layers[:2]] == [8] * 2
    plan = kr.plan(model, ratio=0).without("conv1", [3, 7])
    assert [x.filters for x in plan.apply().layers[:2]] == [16, 14]
    with pytest.warns(UserWarning, match="round_to=8 keeps all units"):
        one = kr.prune(model, ratio={"conv1": 0.2}, round_to=8)
    assert [x.filters for x in one.layers[:2]] == [16] * 2
    one = kr.prune(model, ratio={"conv1": 0.6}, round_to=4)
    assert [x.filters for x in one.layers[:2]] == [16, 8]
