"""Plain-text tables, for reports and plans."""

import dataclasses
import io
import numbers
import reprlib
import textwrap
from collections.abc import Sequence
from html import escape

from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

WIDTH = 160
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 100


@dataclasses.dataclass(frozen=True)
class Table:
    """A table: numbers to the right, None as a dash.

    Attributes:
        title: a line above the table.
        header: the column names.
        rows: sequences of str, int, float or None. Floats are shown with
            three digits after the point, integers with separators.
        below: lines below the table.
    """

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence]
    below: str = ""

    def __str__(self):
        table = RichTable(
            title=self.title, title_justify="left", box=box.SIMPLE
        )
        for number, name in enumerate(self.header):
            text = any(isinstance(row[number], str) for row in self.rows)
            table.add_column(
                name,
                justify="left" if text else "right",
                overflow="fold",
                no_wrap=not text,
            )
        for row in self.rows:
            table.add_row(*(Text(cell_text(value)) for value in row))
        console = Console(
            file=io.StringIO(), width=WIDTH, color_system=None, highlight=False
        )
        console.print(table)
        lines = console.file.getvalue().splitlines()
        text = "\n".join(line.rstrip() for line in lines).strip("\n")
        return f"{text}\n{self.below}"

    def to_html(self) -> str:
        """An HTML table; all text in it is escaped."""
        head = "".join(f"<th>{escape(name)}</th>" for name in self.header)
        rows = "".join(
            f"<tr>{''.join(map(_html_cell, row))}</tr>" for row in self.rows
        )
        below = f"<pre>{escape(self.below)}</pre>" if self.below else ""
        return (
            f"<table><caption>{escape(self.title)}</caption>"
            f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>{below}"
        )


def _html_cell(value):
    side = "left" if isinstance(value, str) else "right"
    return f'<td style="text-align: {side}">{escape(cell_text(value))}</td>'


class Rendered:
    """What can be looked at as a table: printed, or shown in a notebook."""

    def table(self) -> Table:
        """What is shown."""
        raise NotImplementedError

    def render(self) -> str:
        """Print the table and return it as text."""
        text = str(self)
        print(text)
        return text

    def __str__(self):
        return str(self.table())

    def _repr_html_(self) -> str:
        """For notebooks."""
        return self.table().to_html()


def listed(words: Sequence, most: int = 12) -> str:
    """The first of some words or numbers, with commas, for a message."""
    return ", ".join([*map(str, words[:most]), *["..."] * (len(words) > most)])


def on_one_line(text: str) -> str:
    """`text` on one line, cut off at 100 characters, for a `repr`."""
    return textwrap.shorten(text, 100, placeholder=" ...")


def shown(value) -> str:
    """A value in an error message: a short `repr`; of an array the shape."""
    if shape := getattr(value, "shape", None):
        return f"an array of shape {tuple(shape)}"
    return on_one_line(_SHORT.repr(value))


def cell_text(value) -> str:
    """How a table shows a str, an integer, a float or None.

    Numbers of NumPy count as such.
    """
    if value is None:
        return "-"
    if isinstance(value, str):
        return value
    if isinstance(value, numbers.Integral):
        return f"{value:,}"
    return f"{value:.3f}"
