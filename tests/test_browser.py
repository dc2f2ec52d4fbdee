"""What a person sees: pages in a real browser, of a real TensorBoard."""

import re
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import layers
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

import keras_redundancy as kr

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic"),
    *("--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
    "--window-size=1400,1400",
)
pytestmark = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="needs chromium and chromedriver"
)


@pytest.fixture
def browser(tmp_path):
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={tmp_path / 'profile'}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture
def tensorboard(tmp_path):
    """Starts one on a folder and returns its address."""
    started = []

    def start(folder):
        command = [sys.executable, "-m", "tensorboard.main", "--port", "0"]
        command += ["--host", "127.0.0.1", "--logdir", str(folder)]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        started.append(process)
        said = []
        for line in process.stderr:
            said.append(line)
            address = re.search(r"http://\S+", line)
            if address:
                return address[0]
        raise AssertionError("".join(said))

    yield start
    for process in started:
        process.terminate()
        process.wait()
        process.stderr.close()


def network():
    model = keras.Sequential(
        [
            keras.Input((8,)),
            layers.Dense(24, activation="relu", name="first"),
            layers.Dense(16, activation="relu", name="second"),
            layers.Dense(3, name="third"),
        ]
    )
    model.compile("adam", "mse")
    return model


def data():
    x = np.random.default_rng(0).normal(size=(64, 8)).astype("float32")
    return x, x[:, :3]


def text_with(browser, words):
    """The text of the page, when all of the words are in it."""

    def find(driver):
        text = driver.find_element(By.TAG_NAME, "body").text
        return text if all(word in text for word in words) else None

    return WebDriverWait(browser, 60).until(find, f"not shown: {words}")


def test_tensorboard_shows_scalars_histograms_and_pictures(
    browser, tensorboard, tmp_path
):
    logs = tmp_path / "logs"
    callbacks = [
        keras.callbacks.TensorBoard(logs),
        kr.callbacks.RedundancyMonitor(logs, tau=0.3),
    ]
    network().fit(*data(), epochs=3, verbose=0, callbacks=callbacks)
    address = tensorboard(logs)
    browser.get(address + "#scalars")
    words = ["effective_rank/first", "epoch_loss", "n_r_at_0.3", "model"]
    text_with(browser, [*words, "redundancy", "train"])
    browser.get(address + "#histograms")
    browser.refresh()
    text_with(browser, ["similarities/first", "similarities/third"])
    browser.get(address + "#timeseries")
    browser.refresh()
    text_with(browser, ["by_cluster", "similarities"])

    def picture(driver):
        images = driver.find_elements(By.CSS_SELECTOR, "img[src*='blob']")
        images += driver.find_elements(By.CSS_SELECTOR, "img[src*='data/']")
        sizes = [int(x.get_property("naturalWidth")) for x in images]
        return 144 in sizes  # 24 units of 6 pixels

    assert WebDriverWait(browser, 60).until(picture, "no picture is shown")


def test_a_report_opens_from_disk(browser, tmp_path):
    model = network()
    found = kr.sensitivity(
        model, lambda model: model.count_params() / 1000, verbose=0
    )
    difference = kr.difference(model, kr.prune(model, ratio=0.5))
    kr.analyze(model, tau=0.3).to_html(
        tmp_path / "report.html", sensitivity=found, difference=difference
    )
    browser.get((tmp_path / "report.html").as_uri())
    words = ["Redundancy of sequential", "second", "24 → 12", "prunable"]
    text_with(browser, words)
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
