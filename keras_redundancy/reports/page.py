"""A report as a single HTML file: `Report.to_html`."""

import base64
import dataclasses
from html import escape

import numpy as np

from keras_redundancy._shared.files import replaced
from keras_redundancy.numbers.clustering import cluster_filters
from keras_redundancy.reports.heatmaps import png, similarities

TAUS = (0.1, 0.3, 0.5, 0.7, 0.9)
# At most so many units in a picture: a model of a hundred layers must not make
# a file that browsers open slowly.
MOST_UNITS = 96
MOST_NAMES = 14
# Of the area between the axes of a chart, in pixels.
LEFT, TOP, WIDTH, HEIGHT = 60, 10, 600, 260
COLORS = ("#1b6ca8", "#b2182b", "#2d8659", "#8856a7", "#c77f00", "#555555")
STYLE = """
body {font: 15px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 76em;
      padding: 0 1em; color: #222}
table {border-collapse: collapse; font-variant-numeric: tabular-nums}
.wide {overflow-x: auto}
caption {text-align: left; color: #666}
th, td {padding: .2em .7em; text-align: right; white-space: nowrap}
th:first-child, th:last-child {text-align: left}
th {border-bottom: 2px solid #888}
td:first-child, td:last-child {white-space: normal}
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


def write_page(path, report, sensitivity=None, difference=None) -> None:
    """Write an HTML page about a model.

    Args:
        path: the file; it is replaced when the page is complete.
        report: a `Report`.
        sensitivity: what `sensitivity` returned, or None.
        difference: what `difference` returned, or None.

    Raises:
        OSError: the file cannot be written.
    """
    title = f"Redundancy of {report.model}"
    parts = [f"<h1>{escape(title)}</h1>", f"<p>{escape(report.summary)}</p>"]
    table = dataclasses.replace(report.table(), below="").to_html()
    parts += ["<h2>Layers</h2>", f'<div class="wide">{table}</div>']
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


def _clusters(report):
    """A chart of n_f / n against tau, with a line for each layer."""
    lines = {}
    for title, (layer, matrix) in report.with_pairs.items():
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
    """For each layer a picture of the cosines of all pairs of its units."""
    figures = []
    for title, (layer, matrix) in report.with_pairs.items():
        tau = layer.tau or TAUS[len(TAUS) // 2]
        _, picture = png(similarities(matrix, tau, report.linkage, MOST_UNITS))
        data = base64.b64encode(picture).decode()
        shown = "" if layer.n <= MOST_UNITS else f", {MOST_UNITS} of them shown"
        figures.append(
            f'<figure><img alt="" src="data:image/png;base64,{data}">'
            f"<figcaption>{escape(title)}: {layer.n} units{shown}"
            "</figcaption></figure>"
        )
    words = (
        "<p>Cosines of the filters of all pairs of units; units of one "
        "cluster stand side by side. Red is 1, white 0, blue -1.</p>"
    )
    return words + f'<div class="pictures">{"".join(figures)}</div>'


def _curves(sensitivity):
    lines = {
        part.name: [trial.score for trial in trials]
        for part, trials in sensitivity.trials.items()
    }
    lines["uncut"] = [sensitivity.base.score] * len(sensitivity.levels)
    scores = [score for line in lines.values() for score in line]
    words = "<p>The score when only this layer is cut.</p>"
    bounds = min(scores), max(scores)
    return words + line_chart(
        sensitivity.levels, lines, sensitivity.how, bounds
    )


def _widths(difference):
    """A bar for each layer: grey before, and on it coloured after."""
    sizes = [
        (name, *(0 if x is None else x.units for x in pair))
        for name, pair in difference.layers.items()
    ]
    most = max((max(pair) for _, *pair in sizes), default=1)
    bars = [
        _bar(22 * number, name, before, after, 400 / most)
        for number, (name, before, after) in enumerate(sizes)
    ]
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
    return f"{words}.</p>" + _svg(800, 22 * len(sizes), bars)


def _bar(y, name, before, after, pixels_per_unit):
    rectangles = "".join(
        f'<rect x="220" y="{y}" width="{pixels_per_unit * units:.1f}" '
        f'height="17" fill="{color}"/>'
        for units, color in ((before, "#cccccc"), (after, COLORS[0]))
    )
    return rectangles + (
        f'<text x="212" y="{y + 13}" text-anchor="end">{escape(name)}'
        f'</text><text x="630" y="{y + 13}">{before:,} → {after:,}</text>'
    )


def line_chart(xs, lines, x_name: str, bounds) -> str:
    """An SVG chart with a line for each name.

    Up to `MOST_NAMES` names stand beside the chart. A browser shows the name
    of a line when the mouse points at it.

    Args:
        xs: the horizontal positions, shape (points,).
        lines: {name: the vertical positions, shape (points,)}.
        x_name: the label of the horizontal axis.
        bounds: the lowest and the highest number of the vertical axis.
    """
    across = np.interp(xs, (min(xs), max(xs)), (LEFT, LEFT + WIDTH))
    below = zip(across, (f"{x:g}" for x in xs), strict=True)
    parts = _axes(bounds, below, escape(x_name))
    for number, (name, ys) in enumerate(lines.items()):
        down = np.interp(ys, bounds, (TOP + HEIGHT, TOP))
        points = " ".join(
            f"{x:.1f},{y:.1f}" for x, y in zip(across, down, strict=True)
        )
        color = COLORS[number % len(COLORS)]
        parts.append(
            f'<polyline points="{points}" fill="none" stroke="{color}" '
            f'stroke-width="2"><title>{escape(name)}</title></polyline>'
        )
        if len(lines) <= MOST_NAMES:
            y = TOP + 12 + 18 * number
            parts.append(
                f'<text x="{LEFT + WIDTH + 16}" y="{y}" style="fill: {color}">'
                f"{escape(name)}</text>"
            )
    return _svg(960, 320, parts)


def _axes(bounds, below, x_name):
    """Horizontal lines with their numbers; the texts and the name below."""
    heights = np.linspace(TOP + HEIGHT, TOP, 5)
    parts = [
        f'<line x1="{LEFT}" x2="{LEFT + WIDTH}" y1="{y:.1f}" y2="{y:.1f}" '
        f'stroke="#ddd"/><text x="{LEFT - 8}" y="{y + 4:.1f}" '
        f'text-anchor="end">{value:.3g}</text>'
        for y, value in zip(heights, np.linspace(*bounds, 5), strict=True)
    ]
    texts = [(x, 18, text) for x, text in below]
    for x, down, text in (*texts, (LEFT + WIDTH / 2, 38, x_name)):
        parts.append(
            f'<text x="{x:.1f}" y="{TOP + HEIGHT + down}" '
            f'text-anchor="middle">{text}</text>'
        )
    return parts


def _svg(width, height, parts):
    return (
        f'<svg viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}">{"".join(parts)}</svg>'
    )
