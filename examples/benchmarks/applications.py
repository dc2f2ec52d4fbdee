"""How long does pruning a `keras.applications` model take, and how much memory?

    python examples/benchmarks/applications.py ResNet50 VGG16 --repeats 5

Without names, all 40. Each application is built with random weights at its
default input shape, in a process of its own, and pruned in three ways:

    nothing   tau = 0.9, above all similarities: nothing goes
    copies    tau = 0.9, half of the units of every space are copies of others
    low-tau   a tau near the similarities of random filters, 1.25 / sqrt(z) for
              filters of z weights, which makes clusters of most units

`ours / clone` is (trace + plan + apply) / keras.models.clone_model, timed in
turn, `--repeats` times; times are the shortest of them, as other processes only
add to them. `memory` is the peak of trace, plan and apply beyond what was there
before, the new model included, over the size of the weights; `clone's` is that
of clone_model. It is measured on Linux.
"""

import argparse
import gc
import json
import math
import os
import subprocess
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from peak_memory import peak_beyond

import keras_redundancy as kr
from keras_redundancy._shared.tables import Table
from keras_redundancy.channels import Role

HEADER = (
    *("model", "parameters", "prunable, %", "way", "units cut, %", "clone, s"),
    *("trace, s", "plan, s", "apply, s", "ours / clone", "memory", "clone's"),
)


def names():
    """The applications that this Keras has, in alphabetical order."""
    return [x for x in dir(keras.applications) if x[0].isupper()]


def low_tau(layer):
    shape = layer.variables[-2 if layer.use_bias else -1].shape
    return min(0.9, 1.25 / math.sqrt(math.prod(shape[:-1])))


# The last one changes the weights.
WAYS = {"nothing": 0.9, "low-tau": low_tau, "copies": 0.9}


def make_copies(model, rng):
    """Make half of the units of every prunable space copies of the others."""
    for space in kr.trace(model).prunable:
        units = rng.permutation(space.size)
        copies, others = np.split(units, [space.size // 2])
        sources = rng.choice(others, len(copies))
        for place in space.axes:
            if place.on.role is not Role.CONSUMER:
                to, of = place.positions[copies], place.positions[sources]
                variable = place.on.variable
                value = np.moveaxis(variable.numpy(), place.on.axis, 0)
                value[to] = value[of]
                variable.assign(np.moveaxis(value, 0, place.on.axis))


def seconds(function, *args):
    """(result, seconds) of a call."""
    gc.collect()
    start = time.perf_counter()
    result = function(*args)
    return result, time.perf_counter() - start


def once(model, tau):
    """Seconds of clone, trace, plan without its trace, and apply."""
    _, clone = seconds(keras.models.clone_model, model)
    _, trace = seconds(kr.trace, model)
    plan, planned = seconds(kr.plan, model, tau)
    _, apply = seconds(plan.apply)
    return clone, trace, planned - trace, apply


def applied(name):
    """The application, with all that is loaded on first use loaded."""
    layers = [keras.layers.Dense(4), keras.layers.Dense(4)]
    small = keras.Sequential([keras.Input((4,)), *layers])
    keras.models.clone_model(kr.prune(small, 0.1))
    return getattr(keras.applications, name)(weights=None)


def measure_memory(name, way):
    """The peak over the size of the weights; the way "clone" is clone_model."""
    model = applied(name)
    weights = sum(x.nbytes for x in model.get_weights())
    if way == "clone":
        peak = peak_beyond(keras.models.clone_model, model)
        return None if peak is None else peak / weights
    if way == "copies":
        make_copies(model, np.random.default_rng(0))
    peak = peak_beyond(kr.prune, model, WAYS[way])
    return None if peak is None else peak / weights


def measure_time(name, ways, repeats):
    """The rows of the table for one application, but for the memory."""
    model = applied(name)
    graph, parameters = kr.trace(model), model.count_params()
    share = 100 * graph.parameters_of(*graph.prunable) / parameters
    del graph
    rows = []
    for way in ways:
        if way == "copies":
            make_copies(model, np.random.default_rng(0))
        tau = WAYS[way]
        runs = np.array([once(model, tau) for _ in range(repeats)])
        ratio = float(runs[:, 1:].sum(axis=1).min() / runs[:, 0].min())
        times = runs.min(axis=0).tolist()
        cut = _cut(kr.plan(model, tau))
        rows.append((name, parameters, share, way, cut, *times, ratio))
    return rows


def _cut(plan):
    """How many of the units that can go are removed, in percent."""
    decided = [d for d in plan.decisions if d.tau]
    removed = sum(len(d.selection.removed) for d in decided)
    return 100 * removed / sum(d.space.size for d in decided)


def in_a_process_of_its_own(name, *arguments, **variables):
    """What this script measures when it is given `--measure`."""
    command = [sys.executable, __file__, name, *map(str, arguments)]
    done = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        env=os.environ | variables,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def peak_of(name, way):
    # TensorFlow would keep what is freed, and hide a peak behind that.
    variables = {"TF_ONEDNN_USE_SYSTEM_ALLOCATOR": "1"}
    return in_a_process_of_its_own(name, "--measure", way, **variables)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", default=names())
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=WAYS)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure == "time":
        print(json.dumps(measure_time(args.names[0], args.ways, args.repeats)))
    elif args.measure:
        print(json.dumps(measure_memory(args.names[0], args.measure)))
    else:
        show(args)


def show(args):
    rows = []
    options = ("--repeats", args.repeats, "--ways", *args.ways)
    for name in args.names:
        times = in_a_process_of_its_own(name, "--measure", "time", *options)
        clones = peak_of(name, "clone")
        for row in times:
            rows.append((*row, peak_of(name, row[3]), clones))
            print(f"{name}, {row[3]}: {row[9]:.2f} x clone", flush=True)
    title = f"Shortest of {args.repeats}, {keras.backend.backend()}"
    print(Table(title, HEADER, rows))


if __name__ == "__main__":
    main()
