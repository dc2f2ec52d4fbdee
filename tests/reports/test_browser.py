"""What a person sees: pages in a real browser, of a real TensorBoard."""

import keras
import matplotlib.image
import numpy as np
import pytest
import screenshots
from keras import layers
from screenshots import wait_for
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

import keras_redundancy as kr
from tests import models

pytestmark = pytest.mark.skipif(
    not (screenshots.CHROMIUM and screenshots.DRIVER),
    reason="needs chromium and chromedriver",
)


@pytest.fixture(scope="module")
def browser():
    with screenshots.browser() as driver:
        yield driver


def network():
    model = keras.Sequential(
        [
            keras.Input((8,)),
            layers.Dense(24, activation="relu", name="first"),
            layers.Dense(16, activation="relu", name="second"),
            layers.Dense(3, name="third"),
        ]
    )
    model.compile("adam", "mse", run_eagerly=models.EAGERLY)
    return model


def data():
    x = np.random.default_rng(0).normal(size=(64, 8)).astype("float32")
    return x, x[:, :3]


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """Of a TensorBoard that shows what a training has logged."""
    logs = tmp_path_factory.mktemp("logs")
    callbacks = [
        keras.callbacks.TensorBoard(logs),
        kr.callbacks.RedundancyMonitor(logs, tau=0.3),
    ]
    network().fit(*data(), epochs=3, verbose=0, callbacks=callbacks)
    with screenshots.tensorboard(logs) as address:
        yield address


def test_tensorboard_shows_scalars_histograms_and_pictures(browser, address):
    browser.get(address + "#scalars")
    words = ["effective_rank/first", "epoch_loss", "n_r_at_0.3", "model"]
    wait_for(browser, [*words, "redundancy", "train"])
    browser.get(address + "#histograms")
    browser.refresh()
    wait_for(browser, ["similarities/first", "similarities/third"])
    browser.get(address + "#timeseries")
    browser.refresh()
    wait_for(browser, ["by_cluster", "similarities"])

    def picture(driver):
        images = driver.find_elements(By.CSS_SELECTOR, "img[src*='blob']")
        images += driver.find_elements(By.CSS_SELECTOR, "img[src*='data/']")
        sizes = [int(x.get_property("naturalWidth")) for x in images]
        return 144 in sizes  # 24 units of 6 pixels

    assert WebDriverWait(browser, 60).until(picture, "no picture is shown")


def test_screenshots(browser, address, tmp_path, capsys):
    with pytest.raises(SystemExit):
        screenshots.main([str(tmp_path)])
    assert "run pictures.py --out first" in capsys.readouterr().err
    kr.analyze(network()).to_html(tmp_path / "report.html")
    screenshots.photograph(browser, address, tmp_path)
    pages = (*(f"tensorboard_{page}" for page in screenshots.PAGES), "report")
    for page in pages:
        picture = matplotlib.image.imread(tmp_path / f"{page}.png")
        assert picture.shape[1] == 1300
        assert len(np.unique(picture[..., 0])) > 20


def test_a_report_opens_from_disk(browser, tmp_path):
    model = network()
    found = kr.sensitivity(
        model, lambda model: model.count_params() / 1000, verbose=0
    )
    difference = kr.difference(model, kr.prune(model, ratio=0.5))
    kr.analyze(model, tau=0.3).to_html(
        tmp_path / "report.html", sensitivity=found, difference=difference
    )
    browser.get_log("browser")  # What other pages said.
    browser.get((tmp_path / "report.html").as_uri())
    words = ["Redundancy of sequential", "second", "24 → 12", "prunable"]
    wait_for(browser, words)
    images = browser.find_elements(By.TAG_NAME, "img")
    widths = [int(x.get_property("naturalWidth")) for x in images]
    assert widths == [24, 16, 3]
    lines = browser.find_elements(By.TAG_NAME, "polyline")
    assert len(lines) == 3 + 2 + 1  # clusters, parts that are cut, uncut
    assert browser.get_log("browser") == []
    loaded = browser.execute_script(
        "return performance.getEntriesByType('resource').map(x => x.name)"
    )
    assert all(name.startswith("data:") for name in loaded)
