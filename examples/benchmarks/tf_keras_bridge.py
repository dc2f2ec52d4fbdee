"""Which models go to tf_keras and back, and how exactly?

    python examples/benchmarks/tf_keras_bridge.py MobileNetV2 VGG16

Without names, the networks of the example scripts and all 40
`keras.applications`, with random weights and the smallest input that each one
takes. Needs `pip install ".[tfmot]"`.

`difference` is the largest difference of the outputs on four random inputs, as
a share of the largest output; `back` is whether the weights come back bit for
bit. A model that cannot be translated has the reason in its row.
"""

import argparse
import functools
import gc
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))
sys.path.insert(0, str(Path(__file__).parent.parent / "papers"))

import accuracy
import lenet_networks
import quickstart
import rare
import recurrent

import keras_redundancy as kr
from keras_redundancy._shared.tables import Table
from keras_redundancy.deploy.samples import Subject, difference

HEADER = ("model", "input", "parameters", "seconds", "difference", "back")
SIZES = (32, 71, 75, 224, 331)
EXAMPLES = {
    "quickstart": lambda: quickstart.build((28, 28, 1), (32, 64, 128)),
    "accuracy, mlp": accuracy.mlp,
    "accuracy, vgg": accuracy.vgg,
    "accuracy, resnet": accuracy.resnet,
    "rare": lambda: rare.network((28, 28, 1), 10),
    "noiseout, lenet300": lambda: lenet_networks.lenet300((28, 28, 1), 10),
    "noiseout, lenet5": lambda: lenet_networks.lenet5((28, 28, 1), 10),
    **{
        f"recurrent, {name}": functools.partial(recurrent.network, name, 64)
        for name in ("lstm", "gru", "letters")
    },
}


def application(name):
    """An application for the smallest images that it takes."""
    for size in SIZES:
        try:
            return getattr(keras.applications, name)(
                weights=None,
                input_shape=(size, size, 3),
                classes=10,
                classifier_activation=None,
            )
        except ValueError as error:
            refused = error
    raise refused


def row_of(name):
    """The row of the table for a model."""
    keras.utils.set_random_seed(0)
    model = EXAMPLES[name]() if name in EXAMPLES else application(name)
    start = time.perf_counter()
    try:
        old = kr.deploy.to_tf_keras(model)
        again = kr.deploy.from_tf_keras(old, like=model)
    except ValueError as error:
        reason = str(error).partition("\n")[0]
        shape = str(model.input_shape[1:])
        return name, shape, model.count_params(), None, reason, "-"
    seconds = time.perf_counter() - start
    subjects = [Subject.of(x) for x in (model, old)]
    inputs = subjects[0].samples(None, 4)
    error = difference(*(x.predict(inputs) for x in subjects))
    pairs = zip(model.get_weights(), again.get_weights(), strict=True)
    is_same = all(np.array_equal(*pair) for pair in pairs)
    figures = (model.count_params(), seconds, f"{error:.1e}")
    return name, str(model.input_shape[1:]), *figures, str(is_same)


def main():
    applications = [x for x in dir(keras.applications) if x[0].isupper()]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    names = [*EXAMPLES, *applications]
    parser.add_argument("names", nargs="*", metavar="NAME", default=names)
    rows = []
    for name in parser.parse_args().names:
        rows.append(row_of(name))
        print(*rows[-1], flush=True)
        keras.backend.clear_session()
        gc.collect()
    print(Table("To tf_keras and back", HEADER, rows))


if __name__ == "__main__":
    main()
