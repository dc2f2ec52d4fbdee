"""Pictures of results: lines over a number, with their spread over seeds."""

import numpy as np
from matplotlib.figure import Figure


def panels(count, *, width=4.0, height=3.4, columns=None, **options):
    """A figure, and a list of `count` axes in it."""
    columns = min(count, columns or count)
    rows = -(-count // columns)
    figure = Figure((width * columns, height * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, **options)
    axes = list(grid.ravel())
    for empty in axes[count:]:
        empty.set_axis_off()
    return figure, axes[:count]


def line(axes, x, values, label=None, **options):
    """The mean over seeds of `values`, shape (seeds, points), and a band."""
    values = np.asarray(values, float)
    mean, spread = values.mean(axis=0), values.std(axis=0)
    (drawn,) = axes.plot(x, mean, marker=".", label=label, **options)
    if len(values) > 1:
        color = drawn.get_color()
        axes.fill_between(
            x, mean - spread, mean + spread, alpha=0.2, color=color
        )
    return drawn


def finish(axes, *, legend=True, **texts):
    """Set titles and labels, a grid and a legend."""
    axes.set(**texts)
    axes.grid(alpha=0.3)
    if legend and axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize="small")
