"""How much accuracy does a cut cost? Every method at the same FLOPs.

    python examples/accuracy.py mlp --data FOLDER
    python examples/accuracy.py vgg --data FOLDER --seeds 3 --epochs 10 --tune 1
    python examples/accuracy.py resnet --data FOLDER --out runs

Trains a network for each seed (an MLP 784-300-100-10 on Fashion-MNIST, a
VGG-style network with BatchNormalization or a ResNet-20 on CIFAR-10), cuts it
to 70, 50 and 30 % of its multiply-adds by each method (or, with --of units
--cuts 0.8, to 20 % of its hidden units), and prints the accuracy right after,
as the mean and standard deviation over seeds. With --tune, the methods of
`TUNED` are fine-tuned for so many epochs (the last one counts); with --scratch,
the shapes of `SCRATCH` are trained from new weights for as long as the network
was and the fine-tuning took, together.

Calibration takes images of the training set, without labels. The last 5,000
images of the training set are held out: with --held-out, the accuracy is that
on them, which is what settings were chosen by; without it, that on the test
set. Networks and accuracies are kept in --out, and what is there is not made
again.
"""

import argparse
import functools
import os
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import example_data
import keras
import numpy as np
from example_results import Results
from example_tables import spread
from keras import layers

import keras_redundancy as kr
from keras_redundancy._shared.tables import Table

HELD_OUT = 5000
CUTS = (0.3, 0.5, 0.7)
BATCH = 128

# What `kr.plan` is given besides the data and the target. "a round" is the
# default of the package.
METHODS = {
    "random, drop": {"select": "random", "absorb": "drop"},
    "L1, drop (Li et al.)": {"select": "l1", "absorb": "drop"},
    "FPGM, drop": {"select": "fpgm", "absorb": "drop"},
    "clusters, drop (Ayinde A)": {
        "select": "clusters",
        "keep": "random",
        "absorb": "drop",
    },
    "random of clusters' number, drop (Ayinde B)": {
        "select": "method-b",
        "absorb": "drop",
    },
    "L1, merge": {"select": "l1", "absorb": "merge"},
    "clusters, merge": {"select": "clusters", "absorb": "merge"},
    "folded clusters, merge": {
        "select": "clusters",
        "criterion": "folded",
        "absorb": "merge",
    },
    "activation clusters, affine (NoiseOut)": {
        "select": "clusters",
        "criterion": "activations",
        "absorb": "affine",
    },
    "L1, least squares": {"select": "l1", "absorb": "least_squares"},
    "clusters, least squares": {
        "select": "clusters",
        "absorb": "least_squares",
    },
    "pivoted, least squares": {
        "select": "pivoted",
        "absorb": "least_squares",
    },
    "greedy, least squares": {"select": "greedy", "absorb": "least_squares"},
    "greedy, least squares, a round": {
        "select": "greedy",
        "absorb": "least_squares",
        "rounds": 1,
    },
    "L1, least squares, a round": {
        "select": "l1",
        "absorb": "least_squares",
        "rounds": 1,
    },
    "greedy, least squares, distilled": {
        "select": "greedy",
        "absorb": "least_squares",
        "mend": kr.Distill(rounds=0, epochs=16, batch_statistics=True),
    },
    "greedy, least squares, on pink noise": {
        "select": "greedy",
        "absorb": "least_squares",
        "data": "noise",
    },
}
TUNED = (
    "L1, drop (Li et al.)",
    "L1, least squares",
    "pivoted, least squares",
    "greedy, least squares",
    "greedy, least squares, a round",
)
SCRATCH = ("L1, drop (Li et al.)", "greedy, least squares")


# --- networks ---------------------------------------------------------------


def mlp():
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Flatten(),
            layers.Dense(300, activation="relu"),
            layers.Dense(100, activation="relu"),
            layers.Dense(10),
        ]
    )


def _convolution(x, width, strides=1, size=3):
    x = layers.Conv2D(
        width, size, strides=strides, padding="same", use_bias=False
    )(x)
    return layers.BatchNormalization()(x)


def vgg():
    """Ten convolutions of 32 to 256 filters."""
    x = inputs = keras.Input((32, 32, 3))
    for count, width in ((2, 32), (2, 64), (3, 128), (3, 256)):
        for _ in range(count):
            x = layers.ReLU()(_convolution(x, width))
        x = layers.MaxPooling2D()(x)
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(10)(x))


def resnet():
    """ResNet-20 of He et al. (2016), with projections."""
    inputs = keras.Input((32, 32, 3))
    x = layers.ReLU()(_convolution(inputs, 16))
    for width in (16, 32, 64):
        for block in range(3):
            strides = 2 if width > 16 and block == 0 else 1
            y = layers.ReLU()(_convolution(x, width, strides))
            y = _convolution(y, width)
            if strides > 1:
                x = _convolution(x, width, strides, size=1)
            x = layers.ReLU()(layers.Add()([x, y]))
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(10)(x))


# Each with its data, epochs, images to calibrate on, and whether those to
# train on are shifted and mirrored.
NETWORKS = {
    "mlp": (mlp, "fashion_mnist", 15, 8192, False),
    "vgg": (vgg, "cifar10", 30, 4096, True),
    "resnet": (resnet, "cifar10", 60, 4096, True),
}


# --- data and training ------------------------------------------------------


class Batches(keras.utils.PyDataset):
    """Shuffled batches; images are shifted and mirrored if `augment`."""

    def __init__(self, images, labels, augment, seed):
        super().__init__()
        self.images, self.labels, self.augment = images, labels, augment
        self.rng = np.random.default_rng(seed)
        self.on_epoch_end()

    def on_epoch_end(self):
        self.order = self.rng.permutation(len(self.images))

    def __len__(self):
        return len(self.images) // BATCH

    def __getitem__(self, number):
        chosen = self.order[number * BATCH : (number + 1) * BATCH]
        images = self.images[chosen]
        if self.augment:
            images = changed(images, self.rng)
        return images, self.labels[chosen]


def changed(images, rng, far=2):
    """Images shifted by up to `far` pixels, and half of them mirrored."""
    count, size = images.shape[:2]
    padded = np.pad(images, [(0, 0), (far, far), (far, far), (0, 0)])
    windows = np.lib.stride_tricks.sliding_window_view(
        padded, (size, size), axis=(1, 2)
    )
    row, column = rng.integers(0, 2 * far + 1, (2, count))
    shifted = windows[np.arange(count), row, column]
    images = np.moveaxis(shifted, 1, -1).copy()
    mirrored = rng.random(count) < 0.5
    images[mirrored] = images[mirrored, :, ::-1]
    return images


def standardized(splits):
    """Images with mean 0 and variance 1 per color, by the training images."""
    (images, _), _ = splits
    mean, deviation = images.mean((0, 1, 2)), images.std((0, 1, 2))
    return [((x - mean) / deviation, y) for x, y in splits]


def train(model, data, epochs, rate, augment, seed, decay=5e-4):
    """SGD with momentum and a rate that falls to zero along a cosine."""
    batches = Batches(*data, augment, seed)
    warm = len(batches) // 2
    schedule = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=rate / 10,
        decay_steps=epochs * len(batches) - warm,
        warmup_target=rate,
        warmup_steps=warm,
    )
    model.compile(
        keras.optimizers.SGD(
            schedule, momentum=0.9, nesterov=True, weight_decay=decay
        ),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=False,  # faster so without a GPU
    )
    start = time.perf_counter()
    model.fit(batches, epochs=epochs, verbose=0)
    took = time.perf_counter() - start
    print(f"  {epochs} epochs in {took:.0f} s", flush=True)
    return model


def accuracy(model, data):
    """In percent."""
    if keras.backend.backend() == "tensorflow":
        model.jit_compile = False  # which would take longer than it saves
    logits = model.predict(data[0], batch_size=500, verbose=0)
    return 100 * float((logits.argmax(axis=-1) == data[1]).mean())


# --- the experiment ---------------------------------------------------------


class Run:
    """The network of one seed, and what is known of it, kept in a folder."""

    def __init__(self, args, seed, train_data, judge):
        self.args, self.seed = args, seed
        self.train_data, self.judge = train_data, judge
        self.rng = np.random.default_rng(seed)
        self.build, _, epochs, samples, self.augment = NETWORKS[args.network]
        self.epochs = args.epochs or epochs
        self.samples = args.samples or samples
        self.rate = 0.05 if args.network == "mlp" else 0.1
        name = f"{args.network}-{self.epochs}-seed{seed}"
        kind = "held-out" if args.held_out else "test"
        self.path = args.out / f"{name}.keras"
        self.results = Results(args.out / f"{name}-{kind}.json")
        self.model = self._model()

    def _model(self):
        if self.path.exists():
            return keras.models.load_model(self.path)
        print(f"training {self.path.stem}", flush=True)
        keras.utils.set_random_seed(self.seed)
        model = self._trained(self.build(), self.epochs, self.rate)
        model.save(self.path)
        return model

    def _trained(self, model, epochs, rate):
        data = self.train_data
        return train(model, data, epochs, rate, self.augment, self.seed)

    def result(self, *key, find):
        """What `find()` returns, or what it returned before."""
        if self.args.of != "flops":
            key = self.args.of, *key
        return self.results.result(*key, find=find)

    def base(self):
        return self.result(
            "base", find=lambda: accuracy(self.model, self.judge)
        )

    @functools.cached_property
    def known(self):
        """What the images tell: the same for all methods."""
        images = self.train_data[0][: self.samples]
        return kr.calibrate(self.model, images)

    @functools.cached_property
    def known_by_noise(self):
        shape = self.model.input_shape[1:]
        noise = kr.pink_noise(shape, self.samples, seed=self.seed)
        return kr.calibrate(self.model, noise)

    def _changed(self, images):
        """What distillation sees: images changed as those of training."""
        return changed(np.asarray(images), self.rng)

    def plan(self, method, cut, repair):
        options = {
            "target": {self.args.of: 1 - cut},
            "data": self.known,
            "repair": repair,
            "rounds": 0,
            "seed": self.seed,
            **METHODS[method],
        }
        if "mend" in options:
            del options["repair"], options["rounds"]
            if self.augment:
                config = options["mend"].get_config()
                config |= {"augment": self._changed, "seed": self.seed}
                options["mend"] = kr.Distill(**config)
        if options["data"] == "noise":
            options["data"] = self.known_by_noise
        if options.get("select") == "method-b":
            clusters = kr.plan(self.model, **{**options, "select": "clusters"})
            del options["target"]
            options |= {"select": "random", "ratio": _ratios(clusters)}
        return kr.plan(self.model, **options)

    def pruned(self, method, cut, repair):
        """[accuracy, share of multiply-adds cut, share of parameters cut]."""

        def find():
            plan = self.plan(method, cut, repair)
            costs = plan.flops, plan.parameters
            cuts = [1 - after / before for before, after in costs]
            return [accuracy(plan.apply(), self.judge), *cuts]

        return self.result(method, cut, repair, find=find)

    def tuned(self, method, cut):
        """Accuracy after some epochs of fine-tuning."""

        def find():
            small = self.plan(method, cut, True).apply()
            keras.utils.set_random_seed(self.seed)
            self._trained(small, self.args.tune, self.rate / 10)
            return accuracy(small, self.judge)

        key = method, cut, "tuned", self.args.tune
        return self.result(*key, find=find)

    def from_scratch(self, method, cut):
        """Accuracy of the smaller shape, trained for as long in all."""
        epochs = self.epochs + self.args.tune

        def find():
            keras.utils.set_random_seed(self.seed)
            small = self.plan(method, cut, False).apply()
            scratch = keras.models.clone_model(small)
            self._trained(scratch, epochs, self.rate)
            return accuracy(scratch, self.judge)

        return self.result(method, cut, "scratch", epochs, find=find)


def _ratios(plan):
    """The share of units that go, by layer."""
    return {
        layer.name: len(decision.selection.removed) / decision.space.size
        for decision in plan.decisions
        if decision.reason is None
        for layer in decision.space.producers
    }


def show_pruned(runs, methods):
    header = ["method"]
    cuts = runs[0].args.cuts
    for cut in cuts:
        header += [f"{cut:.0%} cut", "repaired"]
    rows = []
    for method in methods:
        row = [method]
        for cut in cuts:
            for repair in (False, True):
                if not repair and {"rounds", "mend"} & {*METHODS[method]}:
                    row.append("")
                    continue
                found = [run.pruned(method, cut, repair)[0] for run in runs]
                row.append(spread(found))
        rows.append(row)
        print(*row, sep=" | ", flush=True)
    print(Table("Accuracy without fine-tuning, %", header, rows))


def show_trained(runs, methods, title, find):
    """A table of what find(run, method, cut) returns."""
    cuts = runs[0].args.cuts
    header = ["method", *(f"{cut:.0%} cut" for cut in cuts)]
    rows = []
    for method in methods:
        found = [[find(run, method, cut) for run in runs] for cut in cuts]
        rows.append([method, *map(spread, found)])
        print(*rows[-1], sep=" | ", flush=True)
    print(Table(title, header, rows))


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("network", choices=NETWORKS)
    parser.add_argument("--data", help="folder with NAME.npz files")
    parser.add_argument("--out", type=Path, default=Path("runs"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--tune", type=int, default=0)
    parser.add_argument("--scratch", action="store_true")
    parser.add_argument("--of", choices=["flops", "units"], default="flops")
    parser.add_argument("--cuts", type=float, nargs="+", default=CUTS)
    parser.add_argument("--samples", type=int)
    parser.add_argument("--methods", nargs="+", choices=METHODS)
    parser.add_argument("--held-out", action="store_true")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    data = NETWORKS[args.network][1]
    (images, labels), test = standardized(example_data.load(data, args.data))
    train_data = images[:-HELD_OUT], labels[:-HELD_OUT]
    held_out = images[-HELD_OUT:], labels[-HELD_OUT:]
    judge = held_out if args.held_out else test
    runs = [Run(args, seed, train_data, judge) for seed in range(args.seeds)]
    print("accuracy before:", spread([run.base() for run in runs]), flush=True)
    show_pruned(runs, args.methods or METHODS)
    if args.tune:
        title = "Accuracy after fine-tuning, %"
        show_trained(runs, args.methods or TUNED, title, Run.tuned)
    if args.scratch:
        title = "Accuracy from scratch, %"
        show_trained(runs, args.methods or SCRATCH, title, Run.from_scratch)


if __name__ == "__main__":
    main()
