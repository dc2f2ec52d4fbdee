"""A report as one HTML file, which needs no other: `Report.to_html`."""

import base64
from html import escape

import numpy as np

from keras_redundancy._shared.files import replaced
from keras_redundancy._shared.tables import cell_text
from keras_redundancy.numbers.clustering import cluster_filters
from keras_redundancy.reports.heatmaps import png, similarities

TAUS = (0.1, 0.3, 0.5, 0.7, 0.9)
# Units in a picture, so that a model of a hundred layers is a small file.
MOST_UNITS = 96
MOST_NAMES = 14
COLORS = ("#1b6ca8", "#b2182b", "#2d8659", "#8856a7", "#c77f00", "#555555")
STYLE = """
body {font: 15px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 76em;
      padding: 0 1em; color: #222}
table {border-collapse: collapse; font-variant-numeric: tabular-nums}
.wide {overflow-x: auto}
th, td {padding: .2em .7em; text-align: right; white-space: nowrap}
th:first-child, th:last-child {text-align: left}
th {border-bottom: 2px solid #888}
td.text {text-align: left; white-space: normal}
tr:nth-child(even) {background: #f4f4f4}
.pictures {display: flex; flex-wrap: wrap; gap: 1em}
figure {margin: 0; width: 11em}
figure img {width: 11em; height: 11em; image-rendering: pixelated;
            border: 1px solid #ccc}
figcaption {font-size: .85em; overflow-wrap: anywhere}
svg {max-width: 100%; height: auto}
svg text {font: 12px system-ui, sans-serif; fill: #444}
polyline:hover {stroke-width: 4}
"""


def write_page(path, report, columns, sensitivity=None, difference=None):
    """Write a page on a model to a file.

    Args:
        path: the file; it is replaced when the page is whole.
        report: a `Report`.
        columns: {name of a field of `LayerReport`: heading} of its table.
        sensitivity: what `sensitivity` returned, or None.
        difference: what `difference` returned, or None.

    Raises:
        OSError: it cannot be written there.
    """
    title = f"Redundancy of {report.model}"
    parts = [f"<h1>{escape(title)}</h1>", f"<p>{escape(report.summary)}</p>"]
    parts += ["<h2>Layers</h2>", _table(report, columns)]
    parts += ["<h2>Clusters by similarity</h2>", _clusters(report)]
    parts += ["<h2>Similar units</h2>", _pictures(report)]
    if sensitivity is not None:
        parts += ["<h2>Sensitivity</h2>", _curves(sensitivity)]
    if difference is not None:
        parts += ["<h2>Before and after</h2>", _widths(difference)]
    page = (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        '<link rel="icon" href="data:,">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body>\n"
        + "\n".join(parts)
        + "\n</body></html>\n"
    )
    with replaced(path) as fresh:
        fresh.write_text(page, encoding="utf-8")


def _table(report, columns):
    head = "".join(f"<th>{escape(name)}</th>" for name in columns.values())
    rows = (
        "".join(_cell(getattr(layer, name)) for name in columns)
        for layer in report.layers
    )
    body = "".join(f"<tr>{row}</tr>\n" for row in rows)
    return f'<div class="wide"><table><tr>{head}</tr>\n{body}</table></div>'


def _cell(value):
    if isinstance(value, str):
        return f'<td class="text">{escape(value)}</td>'
    return f"<td>{cell_text(value)}</td>"


def _clusters(report):
    """A line for each layer: its share of clusters, against tau."""
    lines = {}
    for title, layer, matrix in _compared(report):
        counts = [
            len(np.unique(cluster_filters(matrix, tau, report.linkage)))
            for tau in TAUS
        ]
        lines[title] = [count / layer.n for count in counts]
    if not lines:
        return "<p>No layer has two units.</p>"
    words = "<p>n_f / n, the clusters among the units of each layer.</p>"
    return words + line_chart(TAUS, lines, "tau", (0, 1))


def _pictures(report):
    """The similarity of all pairs of units of a layer, by cluster."""
    figures = []
    for title, layer, matrix in _compared(report):
        tau = layer.tau or TAUS[len(TAUS) // 2]
        found = similarities(matrix, tau, report.linkage, MOST_UNITS)
        shown = "" if layer.n <= MOST_UNITS else f", {MOST_UNITS} of them shown"
        figures.append(
            f'<figure><img alt="" src="{_data_uri(found)}"><figcaption>'
            f"{escape(title)}: {layer.n} units{shown}"
            "</figcaption></figure>"
        )
    words = (
        "<p>Cosines of the filters of all pairs of units, those of a cluster "
        "next to one another: red 1, white 0, blue -1.</p>"
    )
    return words + f'<div class="pictures">{"".join(figures)}</div>'


def _compared(report):
    return [(k, *v) for k, v in report.by_title.items() if v[0].n > 1]


def _curves(sensitivity):
    lines = {
        part.name: [trial.score for trial in trials]
        for part, trials in sensitivity.trials.items()
    }
    lines["uncut"] = [sensitivity.base.score] * len(sensitivity.levels)
    scores = [score for line in lines.values() for score in line]
    words = "<p>The score when one layer alone is cut.</p>"
    bounds = min(scores), max(scores)
    return words + line_chart(
        sensitivity.levels, lines, sensitivity.how, bounds
    )


def _widths(difference):
    """A bar for each layer, of its units before, and in it those after."""
    sizes = [
        (name, *(0 if x is None else x.units for x in pair))
        for name, pair in difference.layers.items()
    ]
    most = max((max(pair) for _, *pair in sizes), default=1)
    bars = []
    for number, (name, before, after) in enumerate(sizes):
        y = 22 * number
        for units, color in ((before, "#cccccc"), (after, COLORS[0])):
            width = 400 * units / most
            bars.append(
                f'<rect x="220" y="{y}" width="{width:.1f}" height="17" '
                f'fill="{color}"/>'
            )
        bars.append(
            f'<text x="212" y="{y + 13}" text-anchor="end">{escape(name)}'
            f'</text><text x="630" y="{y + 13}">{before:,} → {after:,}</text>'
        )
    before, after = difference.total
    words = (
        f"<p>Units of each layer. Parameters: {before.parameters:,} → "
        f"{after.parameters:,}"
    )
    if None not in (before.multiply_adds, after.multiply_adds):
        words += (
            f"; multiply-adds: {before.multiply_adds:,} → "
            f"{after.multiply_adds:,}"
        )
    height = 22 * len(sizes)
    return (
        f'{words}.</p><svg viewBox="0 0 800 {height}" width="800" '
        f'height="{height}">{"".join(bars)}</svg>'
    )


def line_chart(xs, lines, x_name: str, bounds) -> str:
    """An SVG with a line for each name.

    Names stand beside it, if they are not too many, and are shown when a line
    is pointed at.

    Args:
        xs: numbers, shape (points,).
        lines: {name: numbers, shape (points,)}.
        x_name: what the numbers of `xs` are.
        bounds: the lowest and the highest number of the vertical axis.
    """
    left, top, width, height = 60, 10, 600, 260
    low, high = bounds
    reach = (high - low) or 1

    def place(x, y):
        across = (x - min(xs)) / ((max(xs) - min(xs)) or 1)
        return left + width * across, top + height * (high - y) / reach

    parts = []
    for share in (0, 0.25, 0.5, 0.75, 1):
        value = low + share * reach
        _, y = place(min(xs), value)
        parts.append(
            f'<line x1="{left}" x2="{left + width}" y1="{y:.1f}" '
            f'y2="{y:.1f}" stroke="#ddd"/><text x="{left - 8}" '
            f'y="{y + 4:.1f}" text-anchor="end">{value:.3g}</text>'
        )
    for x in xs:
        across, _ = place(x, low)
        parts.append(
            f'<text x="{across:.1f}" y="{top + height + 18}" '
            f'text-anchor="middle">{x:g}</text>'
        )
    for number, (name, ys) in enumerate(lines.items()):
        points = " ".join(
            "{:.1f},{:.1f}".format(*place(x, y))
            for x, y in zip(xs, ys, strict=True)
        )
        color = COLORS[number % len(COLORS)]
        parts.append(
            f'<polyline points="{points}" fill="none" stroke="{color}" '
            f'stroke-width="2"><title>{escape(name)}</title></polyline>'
        )
        if len(lines) <= MOST_NAMES:
            y = top + 12 + 18 * number
            parts.append(
                f'<text x="{left + width + 16}" y="{y}" style="fill: {color}">'
                f"{escape(name)}</text>"
            )
    parts.append(
        f'<text x="{left + width / 2}" y="{top + height + 38}" '
        f'text-anchor="middle">{escape(x_name)}</text>'
    )
    return (
        f'<svg viewBox="0 0 960 320" width="960" height="320">'
        f"{''.join(parts)}</svg>"
    )


def _data_uri(matrix):
    """A picture of cosines, as the address of what it says."""
    _, data = png(matrix)
    return "data:image/png;base64," + base64.b64encode(data).decode()
