"""Numbers in tables look alike, whichever library made them."""

import numpy as np
import pytest

from keras_redundancy._shared.tables import Table, cell_text


@pytest.mark.parametrize("kind", [float, np.float16, np.float32, np.float64])
def test_floats_have_three_digits_after_the_point(kind):
    assert cell_text(kind(0.25)) == "0.250"
    assert cell_text(kind(1234)) == "1234.000"


@pytest.mark.parametrize("kind", [int, np.int32, np.int64, np.uint16])
def test_integers_have_separators(kind):
    assert cell_text(kind(12345)) == "12,345"


def test_other_cells():
    assert cell_text(None) == "-"
    assert cell_text("a") == "a"


def test_html_escapes_text():
    html = Table("<i>", ["<i>"], [["<i>"], [np.float32(2)]], "<i>").to_html()
    assert html.count("&lt;i&gt;") == 4
    assert "<i>" not in html
    assert "2.000" in html
