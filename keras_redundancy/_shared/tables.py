"""Plain-text tables, for reports and plans."""

import io
import textwrap

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

WIDTH = 160


class Rendered:
    """Something whose `str` is a text to look at."""

    def render(self) -> str:
        """Print the text and return it."""
        text = str(self)
        print(text)
        return text


def on_one_line(text: str, width: int = 100) -> str:
    """A text that is cut off where it is longer than that, for a `repr`."""
    return textwrap.shorten(text, width, placeholder=" ...")


def render_table(title, header, rows) -> str:
    """A table as text: numbers to the right, None as a dash.

    Args:
        title: a line above the table.
        header: the column names.
        rows: sequences of str, int, float or None. Floats are shown with
            three digits after the point, integers with separators.
    """
    table = Table(title=title, title_justify="left", box=box.SIMPLE)
    rows = list(rows)
    for number, name in enumerate(header):
        values = [row[number] for row in rows]
        text = any(isinstance(value, str) for value in values)
        table.add_column(
            name,
            justify="left" if text else "right",
            overflow="fold",
            no_wrap=not text,
        )
    for row in rows:
        table.add_row(*(Text(cell_text(value)) for value in row))
    console = Console(
        file=io.StringIO(), width=WIDTH, color_system=None, highlight=False
    )
    console.print(table)
    lines = console.file.getvalue().splitlines()
    return "\n".join(line.rstrip() for line in lines).strip("\n") + "\n"


def cell_text(value) -> str:
    """How a table shows a str, an int, a float or None."""
    if value is None:
        return "-"
    if isinstance(value, str):
        return value
    if isinstance(value, float):
        return f"{value:.3f}"
    return f"{value:,}"
