"""What is lost by which method, and how fast it is won back.

    python examples/recovery.py MODEL.keras DATA.npz --out runs
    python examples/recovery.py MODEL.keras DATA.npz --epochs 1 4 16
    python examples/recovery.py MODEL.keras DATA.npz --samples 2048 --seeds 3

DATA.npz holds `images`, some thousand samples as the model takes them, without
labels; `test_images` and `test_labels`, integers; and, if it is to choose
between settings, `held_out_images` and `held_out_labels`, which --held-out
measures on in place of the test set. Each seed draws --samples of the images
(all of them by default), and distils in an order of its own. --features are
names of layers whose outputs are compared as well.

The first table compares methods of others with those of this package: the same
cuts, of the same model, on the same images, and every BatchNormalization
estimated anew on them. With --epochs, the second one has the accuracy after so
many epochs of distillation from there, and the seconds of processor time that
it all took; --draw makes a picture of it. What is in --out is not measured
again; a file of another model or of other data is refused.
"""

import argparse
import os
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from accuracy import accuracy
from example_results import Results, digest
from example_tables import spread
from matplotlib.figure import Figure

import keras_redundancy as kr
from keras_redundancy._shared.tables import Table

CUTS = (0.3, 0.5, 0.7)
# What `kr.plan` is given besides the data and the target.
METHODS = {
    "L1, drop": {"method": kr.L1(), "absorb": "drop"},
    "FPGM, drop": {"method": kr.FPGM(), "absorb": "drop"},
    "BatchNormalization scales, drop": {
        "method": kr.BatchNormalizationScales(),
        "absorb": "drop",
    },
    "Taylor, drop": {"method": kr.Taylor(), "absorb": "drop"},
    "Taylor, least squares": {
        "method": kr.Taylor(),
        "absorb": "least_squares",
    },
    "folded clusters, merge": {
        "method": kr.Clusters(criterion="folded"),
        "absorb": "merge",
    },
    "L1, ridge regression (GRAIL)": {
        "method": kr.L1(),
        "absorb": "least_squares",
    },
    "greedy": {"method": kr.Greedy(), "absorb": "least_squares"},
    "greedy by the loss": {
        "method": kr.Greedy(errors="loss"),
        "absorb": "least_squares",
    },
    "greedy, a round": {
        "method": kr.Greedy(),
        "absorb": "least_squares",
        "mend": kr.Mend(),
    },
}
DISTILLED = ("L1, drop", "greedy", "greedy by the loss")
# Sources of samples where there are none: --without-data.
MADE = ("pink noise", "synthetic images")


class Measured:
    """Accuracies of one seed, kept in a file as soon as they are known."""

    def __init__(self, args, seed):
        self.args, self.seed = args, seed
        self.model = keras.models.load_model(args.model, compile=False)
        with np.load(args.data) as arrays:
            images = arrays["images"]
            kind = "held_out" if args.held_out else "test"
            labels = arrays[f"{kind}_labels"].reshape(-1)
            self.judge = arrays[f"{kind}_images"], labels
        order = np.random.default_rng(seed).permutation(len(images))
        self.images = images[order[: args.samples]]
        args.out.mkdir(parents=True, exist_ok=True)
        arrays = *self.model.get_weights(), self.images, *self.judge
        path = args.out / f"{args.model.stem}-{kind}-seed{seed}.json"
        self.results = Results(path, of=digest(arrays))
        self._known, self._small = {}, {}

    def result(self, *key, find):
        """What `find()` returns, or returned before."""

        def shown():
            found = find()
            print(f"seed {self.seed}:", *key, found, flush=True)
            return found

        return self.results.result(*key, find=shown)

    def base(self):
        """The accuracy of the model itself."""
        return self.result("base", find=lambda: self.accuracy(self.model))

    def accuracy(self, model):
        """In percent."""
        return round(accuracy(model, self.judge), 2)

    def known(self, source):
        """The calibration on some samples, made once."""
        if source not in self._known:
            self._known[source] = kr.calibrate(self.model, self.data(source))
        return self._known[source]

    def data(self, source):
        if source == "images":
            return self.images
        count = self.args.synthetic_samples
        options = {
            "mean": self.images.mean((0, 1, 2)),
            "stddev": self.images.std((0, 1, 2)),
        }
        if source == "pink noise":
            shape = self.images.shape[1:]
            return kr.pink_noise(shape, count, **options)
        return kr.synthetic_images(
            self.model,
            count,
            steps=self.args.synthetic_steps,
            outputs="softmax",
            **options,
        )

    def small(self, method, cut, source="images"):
        """The smaller model, made once, and the seconds that it took."""
        key = method, cut, source
        if key not in self._small:
            start = time.process_time()
            options = {"mend": kr.Mend(rounds=0), **METHODS[method]}
            small = kr.prune(
                self.model,
                target={"flops": 1 - cut},
                data=self.known(source),
                **options,
            )
            self._small[key] = small, time.process_time() - start
        return self._small[key]

    def pruned(self, method, cut, source="images"):
        """[accuracy, seconds]."""

        def find():
            small, seconds = self.small(method, cut, source)
            return [self.accuracy(small), round(seconds, 1)]

        key, args = (method, cut), self.args
        if source != "images":
            key += source, args.synthetic_samples
        if source == "synthetic images":
            key += (f"{args.synthetic_steps} steps",)
        return self.result(*key, find=find)

    def distilled(self, method, cut, epochs):
        """[accuracy, seconds in all]."""

        def find():
            small, seconds = self.small(method, cut)
            start = time.process_time()
            small = kr.distill(
                small,
                self.model,
                self.images,
                epochs=epochs,
                learning_rate=self.args.learning_rate,
                batch_size=self.args.batch_size,
                outputs="softmax",
                augment=augmentation(self.args.shift, self.seed),
                held_out=0.0,
                batch_statistics=True,
                features=self.args.features,
                seed=self.seed,
                verbose=0,
            )
            seconds += time.process_time() - start
            return [self.accuracy(small), round(seconds, 1)]

        args = self.args
        key = method, cut, f"{epochs} epochs", f"shift {args.shift}"
        key += f"batch {args.batch_size}", f"rate {args.learning_rate:g}"
        key += ("features", *args.features) if args.features else ()
        return self.result(*key, find=find)


def augmentation(far, seed):
    """Images are mirrored, and shifted by up to `far` pixels."""
    mirrored = keras.layers.RandomFlip("horizontal", seed=seed)
    if not far:
        return mirrored
    rng = np.random.default_rng(seed)

    def changed(images):
        images = keras.ops.convert_to_numpy(mirrored(images, training=True))
        height, width = images.shape[1:3]
        padding = [(0, 0), (far, far), (far, far), (0, 0)]
        padded = np.pad(images, padding, mode="reflect")
        starts = rng.integers(0, 2 * far + 1, (len(images), 2))
        return np.stack(
            [
                image[y : y + height, x : x + width]
                for image, (y, x) in zip(padded, starts, strict=True)
            ]
        )

    return changed


def draw(runs, methods, distilled, path):
    """Accuracy over seconds: one panel for each cut, a line for a method.

    Methods that are not distilled are single points.
    """
    cuts, epochs = runs[0].args.cuts, runs[0].args.epochs
    figure = Figure((4 * len(cuts), 3.5), layout="constrained")
    panels = figure.subplots(1, len(cuts), squeeze=False)
    for panel, cut in zip(panels[0], cuts, strict=True):
        for method in dict.fromkeys([*distilled, *methods]):
            points = [[run.pruned(method, cut) for run in runs]]
            if method in distilled:
                points += [
                    [run.distilled(method, cut, n) for run in runs]
                    for n in epochs
                ]
            scores, seconds = np.mean(points, axis=1).T
            panel.plot(seconds, scores, marker="o", label=method)
        base = np.mean([run.base() for run in runs])
        panel.axhline(base, color="gray", linestyle=":")
        panel.set_title(f"{cut:.0%} of multiply-adds cut")
        panel.set_xlabel("seconds of processor time")
        panel.set_xscale("log")
    panels[0][0].set_ylabel("accuracy, %")
    panels[0][0].legend()
    figure.savefig(path, dpi=120)


def parsed():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, default=Path("runs"))
    parser.add_argument("--cuts", type=float, nargs="+", default=CUTS)
    parser.add_argument("--methods", nargs="+", choices=METHODS)
    parser.add_argument("--epochs", type=int, nargs="+", default=[])
    parser.add_argument("--distil", nargs="+", choices=METHODS)
    parser.add_argument("--shift", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--samples", type=int)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--held-out", action="store_true")
    parser.add_argument("--features", nargs="+", default=[])
    parser.add_argument("--without-data", action="store_true")
    parser.add_argument("--synthetic-samples", type=int, default=256)
    parser.add_argument("--synthetic-steps", type=int, default=200)
    parser.add_argument("--draw", type=Path)
    return parser.parse_args()


def cell(found):
    """Mean accuracy and processor time of [accuracy, seconds] of each seed."""
    scores, seconds = zip(*found, strict=True)
    return f"{spread(scores)} ({np.mean(seconds):.0f} s)"


def main():
    args = parsed()
    runs = [Measured(args, seed) for seed in range(args.seeds)]
    base = spread([run.base() for run in runs])
    header = ["method", *(f"{cut:.0%} cut" for cut in args.cuts)]
    known = [(method, "images") for method in args.methods or METHODS]
    if args.without_data:
        known += [("greedy", source) for source in MADE]
    rows = []
    for method, source in known:
        found = [
            cell([run.pruned(method, cut, source) for run in runs])
            for cut in args.cuts
        ]
        on = "" if source == "images" else f", on {source}"
        rows.append([method + on, *found])
    print(Table(f"Accuracy, %; {base} before", header, rows))
    methods, rows = args.distil or DISTILLED, []
    for method in methods if args.epochs else ():
        for epochs in args.epochs:
            found = [
                cell([run.distilled(method, cut, epochs) for run in runs])
                for cut in args.cuts
            ]
            rows.append([f"{method}, {epochs} epochs", *found])
    if rows:
        print(Table("Accuracy after distillation, %", header, rows))
    if args.draw:
        draw(runs, args.methods or METHODS, methods, args.draw)


if __name__ == "__main__":
    main()
