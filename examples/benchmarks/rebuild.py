"""How long do trace, plan and apply take, beside keras.models.clone_model?

    python examples/benchmarks/rebuild.py --model ResNet50 --tau 0.9 0.05

All are timed in turn, `--repeats` times in one run, and the medians printed,
with the median of the ratios (trace + plan + apply) / clone_model. Random
weights; tau 0.9 removes nothing there, 0.05 about half of the units.
"""

import argparse
import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

import keras_redundancy as kr
from keras_redundancy.tables import render_table


def seconds(function, *args, **kwargs):
    """(result, seconds) of a call."""
    start = time.perf_counter()
    result = function(*args, **kwargs)
    return result, time.perf_counter() - start


def once(model, tau):
    """Seconds of clone, trace, plan without its trace, apply; and widths."""
    _, clone = seconds(keras.models.clone_model, model)
    _, trace = seconds(kr.trace, model)
    plan, planned = seconds(kr.plan, model, tau)
    _, apply = seconds(plan.apply)
    return (clone, trace, planned - trace, apply), plan.parameters


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--model", nargs="+", default=["ResNet50"])
    parser.add_argument("--tau", type=float, nargs="+", default=[0.9, 0.05])
    parser.add_argument("--repeats", type=int, default=7)
    args = parser.parse_args()
    rows = []
    for name in args.model:
        model = getattr(keras.applications, name)(weights=None)
        for tau in args.tau:
            once(model, tau)
            runs = []
            for repeat in range(args.repeats):
                times, (before, after) = once(model, tau)
                runs.append(times)
                print(f"{name}, tau {tau:g}: {repeat + 1}/{args.repeats}")
            runs = np.array(runs)
            ratio = float(np.median(runs[:, 1:].sum(axis=1) / runs[:, 0]))
            removed = 100 * (1 - after / before)
            rows.append(
                (name, tau, removed, *np.median(runs, axis=0).tolist(), ratio)
            )
    header = ("model", "tau", "params cut, %", "clone_model, s", "trace, s")
    header += ("plan, s", "apply, s", "ours / clone_model")
    title = f"Medians of {args.repeats}, {keras.backend.backend()}"
    print(render_table(title, header, rows))


if __name__ == "__main__":
    main()
