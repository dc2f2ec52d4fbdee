"""How much of KerasHub's models can go: `python hub_models.py [names...]`.

Small configurations with random weights. For each model:

- before, looked into: the share of the parameters in spaces of units that can
  be pruned, without looking into layers that have no rule, and with.
- copies: the greatest difference after units that are copies of others are
  removed, over the greatest output.
- half: of all units, the half with the least L1 norms is removed; the smaller
  model runs, is trained for a step, saved, and loaded again. Its answer is
  compared with that of the saved one.
- error: with data, over the error of a plain L1 cut of as many units.
- plan, apply: processor seconds for `half`.

Needs `pip install ".[hub]"`.
"""

import argparse
import tempfile
import time
import warnings
from pathlib import Path
from unittest import mock

import keras
import numpy as np
from hub_backbones import BACKBONES, SIZES, backbone

import keras_redundancy as kr
from keras_redundancy._shared.tables import Table
from keras_redundancy.channels import Role
from keras_redundancy.channels.labels import Constant

INSIDE = "keras_redundancy.channels.opening._is_unknown"


def share(model) -> float:
    """The percentage of the parameters that lie in prunable spaces."""
    return 100 * kr.trace(model).explain().prunable


def random_data(model, samples, seed=0):
    """Tokens, masks of padded sequences, and images, in the model's order."""
    random = np.random.default_rng(seed)
    lengths = random.integers(6, 13, samples)
    found = {}
    for x in model.inputs:
        shape = (samples, *(12 if n is None else n for n in x.shape[1:]))
        if "mask" in x.name:
            found[x.name] = (np.arange(shape[1]) < lengths[:, None]).astype(int)
        elif "int" in x.dtype:
            top = 2 if "segment" in x.name else SIZES["vocabulary_size"]
            found[x.name] = random.integers(0, top, shape)
        else:
            found[x.name] = random.normal(size=shape).astype("float32")
    return found if len(found) > 1 else next(iter(found.values()))


def plant_copies(model):
    """Make 30 % of the units of each space copies of other ones.

    Not of heads that differ in a constant, such as the slopes of ALiBi.
    """
    random = np.random.default_rng(0)
    for space in kr.trace(model).prunable:
        if any(isinstance(x.on.variable, Constant) for x in space.axes):
            continue
        units, count = random.permutation(space.size), int(0.3 * space.size)
        targets, sources = units[:count], random.choice(units[count:], count)
        for place in space.axes:
            variable, axis = place.on.variable, place.on.axis
            if place.on.role is not Role.CONSUMER:
                value = np.moveaxis(np.array(variable), axis, 0)
                for target, source in zip(targets, sources, strict=True):
                    there = place.positions[target], place.positions[source]
                    value[there[0]] = value[there[1]]
                variable.assign(np.moveaxis(value, 0, axis))


def answers(model, data):
    found = keras.tree.flatten(model.predict(data, batch_size=8, verbose=0))
    return [np.asarray(x, "float64") for x in found]


def distance(wanted, found):
    pairs = list(zip(wanted, found, strict=True))
    scale = max(abs(a).max() for a, _ in pairs)
    return max(abs(a - b).max() for a, b in pairs) / scale


def squares(wanted, found):
    pairs = zip(wanted, found, strict=True)
    return float(np.mean([np.square(a - b).mean() for a, b in pairs]))


def copies_go(model, data):
    weights = model.get_weights()
    plant_copies(model)
    wanted = answers(model, data)
    plan = kr.plan(model, tau=0.9999)
    gone = sum(len(x.selection.removed) for x in plan.decisions if not x.reason)
    found = distance(wanted, answers(plan.apply(), data))
    model.set_weights(weights)
    return f"{found:.0e} ({gone})"


def half(model, data):
    start = time.process_time()
    small = kr.plan(model, kr.L1(), ratio=0.5, absorb=kr.Drop()).apply()
    seconds = f"{time.process_time() - start:.1f}"
    given = answers(small, data)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "small.keras"
        small.save(path)
        again = keras.models.load_model(path)
    found = f"{distance(given, answers(again, data)):.0e}"
    small.compile("sgd", "mse")
    wanted = small.predict(data, batch_size=8, verbose=0)
    targets = keras.tree.map_structure(np.asarray, wanted)
    small.train_on_batch(data, targets)
    kept = "class" if type(again) is type(model) else "functional"
    return f"{found} {kept}", seconds


def error(model, data, other):
    small = [
        kr.prune(model, ratio=0.5, data=data),
        kr.prune(model, kr.L1(), ratio=0.5, absorb=kr.Drop()),
    ]
    wanted = answers(model, other)
    errors = [squares(wanted, answers(x, other)) for x in small]
    return f"{errors[0] / errors[1]:.2f}"


def tried(function, *arguments):
    try:
        return function(*arguments)
    except Exception as error:
        print(f"{function.__name__}: {type(error).__name__}: {error}"[:600])
        return type(error).__name__


def row(name, options):
    keras.utils.set_random_seed(0)
    model = backbone(name, options)
    data, other = random_data(model, 64), random_data(model, 64, seed=1)
    with mock.patch(INSIDE, return_value=False):
        before = share(model)
    after = share(model)
    built = tried(half, model, data)
    built, seconds = (built, "-") if isinstance(built, str) else built
    return [
        name,
        f"{before:.0f}",
        f"{after:.0f}",
        tried(copies_go, model, data),
        built,
        tried(error, model, data, other),
        seconds,
    ]


def main():
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", help="models; default: all")
    names = parser.parse_args().names or list(BACKBONES)
    unknown = [name for name in names if name not in BACKBONES]
    if unknown:
        known = ", ".join(BACKBONES)
        parser.error(f"There is no {unknown[0]}. There are {known}.")
    warnings.simplefilter("ignore")
    rows = []
    for name in names:
        rows.append(row(name, BACKBONES[name]))
        print(*rows[-1], flush=True)
    columns = (
        "backbone",
        "before, %",
        "looked into, %",
        "copies (units)",
        "half",
        "error",
        "plan, apply, s",
    )
    print(Table("Parameters that can go", columns, rows))


if __name__ == "__main__":
    main()
