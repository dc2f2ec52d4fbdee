"""Photograph what a browser shows of a run: TensorBoard, and the report.

    python examples/pictures.py --out OUT
    python examples/screenshots.py OUT

Starts TensorBoard on OUT/logs and opens its pages and OUT/report.html in a
Chromium without a window. Writes OUT/tensorboard_scalars.png, ..._histograms,
..._images, and report.png. Needs Chromium and its driver (on Debian: `apt
install chromium chromium-driver`), and `pip install selenium tensorboard`.
"""

import argparse
import contextlib
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic"),
    *("--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
)
# Pages of TensorBoard, and words on them.
PAGES = {
    "scalars": ("scalars&tagFilter=n_r_at|similarity", ["mean_similarity"]),
    "histograms": ("histograms", ["similarities"]),
    "images": ("images", ["by_cluster"]),
}


@contextlib.contextmanager
def browser(width: int = 1300, height: int = 1000):
    """A Chromium without a window, of so many pixels."""
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with tempfile.TemporaryDirectory() as profile:
        size = f"--window-size={width},{height}"
        for flag in (*FLAGS, size, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        driver = webdriver.Chrome(options=options, service=Service(DRIVER))
        try:
            yield driver
        finally:
            driver.quit()


@contextlib.contextmanager
def tensorboard(folder):
    """Starts one on a folder, gives its address, and ends it."""
    command = [sys.executable, "-m", "tensorboard.main", "--port", "0"]
    command += ["--host", "127.0.0.1", "--logdir", str(folder)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        yield _address(process.stderr)
    finally:
        process.terminate()
        process.wait()
        process.stderr.close()


def _address(lines):
    said = []
    for line in lines:
        said.append(line)
        if address := re.search(r"http://\S+", line):
            return address[0]
    raise OSError("TensorBoard did not start:\n" + "".join(said))


def wait_for(driver, words) -> str:
    """The text of the page, when all of the words are in it."""

    def find(driver):
        text = driver.find_element(By.TAG_NAME, "body").text
        return text if all(word in text for word in words) else None

    return WebDriverWait(driver, 60).until(find, f"not shown: {words}")


def photograph(driver, address, out):
    """Write pictures of TensorBoard's pages, and of the report, to a folder.

    Args:
        driver: what `browser` gives.
        address: what `tensorboard` gives.
        out: the folder, with report.html in it.
    """
    for name, (page, words) in PAGES.items():
        driver.get(f"{address}#{page}")
        driver.refresh()
        wait_for(driver, words)
        time.sleep(2)  # Lines are drawn after the words.
        driver.save_screenshot(out / f"tensorboard_{name}.png")
    driver.get((out / "report.html").absolute().as_uri())
    driver.save_screenshot(out / "report.png")


def main(arguments=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("out", type=Path, help="that of pictures.py")
    args = parser.parse_args(arguments)
    if not (CHROMIUM and DRIVER):
        parser.error("there is no chromium or no chromedriver: install both")
    for path in (args.out / "logs", args.out / "report.html"):
        if not path.exists():
            parser.error(f"there is no {path}: run pictures.py --out first")
    with browser() as driver, tensorboard(args.out / "logs") as address:
        photograph(driver, address, args.out)


if __name__ == "__main__":
    main()
