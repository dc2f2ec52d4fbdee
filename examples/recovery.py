"""What is lost by which method, and how fast it is won back.

    python examples/recovery.py MODEL.keras DATA.npz --out runs
    python examples/recovery.py MODEL.keras DATA.npz --epochs 1 4 16
    python examples/recovery.py MODEL.keras DATA.npz --samples 2048 --seeds 3

DATA.npz holds `images`, some thousand samples as the model takes them, without
labels; `test_images` and `test_labels`, integers; and, if it is to choose
between settings, `held_out_images` and `held_out_labels`, which --held-out
measures on in place of the test set. Each seed draws --samples of the images
(all of them by default), and distils in an order of its own. --features are
names of layers whose outputs are compared as well; --outputs values compares
logits by their squares.

The first table compares methods of others with those of this package: the same
cuts, of the same model, on the same images, and every BatchNormalization
estimated anew on them. With --epochs, the second one has the accuracy after so
many epochs of distillation from there, and the seconds of processor time that
it all took; --draw makes a picture of it. What is in --out is not measured
again; a file of another model or of other data is refused.

With --labelled-epochs, DATA.npz also holds `labels`, integers, one for each
of the images. A third table then has the accuracy after so many epochs with
them: of plain fine-tuning, and of distillation with labels. Both start from
the same smaller model and use the same images, optimizer and learning rates;
seconds are those of this training alone.
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
    # With hierarchical clusters, where that method has k-means.
    "Model Folding": {
        "method": kr.Clusters(criterion="folded"),
        "absorb": "merge",
        "ratio": "the same",
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
# Methods and sources of samples, where there are none: --without-data.
MADE = (
    ("greedy", "pink noise"),
    ("greedy", "synthetic images"),
    ("Model Folding", "synthetic images"),
)


class Measured:
    """Accuracies of one seed, kept in a file as soon as they are known."""

    def __init__(self, args, seed):
        self.args, self.seed = args, seed
        self.model = keras.models.load_model(args.model, compile=False)
        with np.load(args.data) as arrays:
            images = arrays["images"]
            labels = arrays["labels"] if args.labelled_epochs else None
            kind = "held_out" if args.held_out else "test"
            truth = arrays[f"{kind}_labels"].reshape(-1)
            self.judge = arrays[f"{kind}_images"], truth
        order = np.random.default_rng(seed).permutation(len(images))
        order = order[: args.samples]
        self.images = images[order]
        self.labels = None if labels is None else labels.reshape(-1)[order]
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
            options = {
                "data": self.known(source),
                "mend": kr.Mend(rounds=0),
                **METHODS[method],
            }
            if options.get("ratio") == "the same":
                options["ratio"] = self._share(cut, options)
            else:
                options["target"] = {"flops": 1 - cut}
            small = kr.prune(self.model, **options)
            self._small[key] = small, time.process_time() - start
        return self._small[key]

    def _share(self, cut, options):
        """The share of each layer's units to remove for this cut."""
        low, high = 0.0, 1.0
        while high - low > 1e-3:
            ratio = (low + high) / 2
            plan = kr.plan(self.model, **options | {"ratio": ratio})
            before, after = plan.flops
            if after > before * (1 - cut):
                low = ratio
            else:
                high = ratio
        return high

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
            small = self._distilled(small, epochs, self.args.features)
            seconds += time.process_time() - start
            return [self.accuracy(small), round(seconds, 1)]

        key = method, cut, *self._trained_how(epochs)
        key += ("features", *self.args.features) if self.args.features else ()
        return self.result(*key, find=find)

    def with_labels(self, method, cut, epochs, has_teacher):
        """[accuracy, seconds of the training alone]."""

        def find():
            small, _ = self.small(method, cut)
            start = time.process_time()
            if has_teacher:
                small.compile(loss=self._loss())
                small = self._distilled(small, epochs, labels=self.labels)
            else:
                small = self._fitted(small, epochs)
            return [
                self.accuracy(small),
                round(time.process_time() - start, 1),
            ]

        how = "distilled" if has_teacher else "fine-tuned"
        key = method, cut, "labels", how, *self._trained_how(epochs)
        return self.result(*key, find=find)

    def _trained_how(self, epochs):
        args = self.args
        return (
            f"{epochs} epochs",
            f"shift {args.shift}",
            f"batch {args.batch_size}",
            f"rate {args.learning_rate:g}",
            *[args.outputs] * (args.outputs != "softmax"),
        )

    def _distilled(self, small, epochs, features=(), labels=None):
        return kr.distill(
            small,
            self.model,
            self.images,
            labels,
            epochs=epochs,
            learning_rate=self.args.learning_rate,
            batch_size=self.args.batch_size,
            outputs=self.args.outputs,
            augment=augmentation(self.args.shift, self.seed),
            held_out=0.0,
            batch_statistics=True,
            features=features,
            seed=self.seed,
            verbose=0,
        )

    def _fitted(self, small, epochs):
        """A copy that `fit` trained, with what `kr.distill` trains with."""
        args, seed = self.args, self.seed
        fitted = keras.models.clone_model(small)
        fitted.set_weights(small.get_weights())
        batches = Labelled(
            self.images,
            self.labels,
            args.batch_size,
            augmentation(args.shift, seed),
            seed,
        )
        rate = keras.optimizers.schedules.CosineDecay(
            args.learning_rate, epochs * len(batches)
        )
        fitted.compile(
            keras.optimizers.Adam(rate),
            self._loss(),
            jit_compile=False,  # faster so without a GPU
        )
        fitted.fit(batches, epochs=epochs, shuffle=False, verbose=0)
        return fitted

    def _loss(self):
        answers = self.model.predict(self.images[:64], verbose=0)
        is_shares = np.allclose(answers.sum(axis=-1), 1, atol=1e-3)
        return keras.losses.SparseCategoricalCrossentropy(
            from_logits=not (is_shares and answers.min() >= 0)
        )


class Labelled(keras.utils.PyDataset):
    """Shuffled batches of changed images and their labels."""

    def __init__(self, images, labels, batch_size, augment, seed):
        super().__init__()
        self.images, self.labels = images, labels
        self.batch_size, self.augment = batch_size, augment
        self.rng = np.random.default_rng(seed)
        self.on_epoch_end()

    def on_epoch_end(self):
        self.order = self.rng.permutation(len(self.images))

    def __len__(self):
        return len(self.images) // self.batch_size

    def __getitem__(self, number):
        start = number * self.batch_size
        chosen = self.order[start : start + self.batch_size]
        images = self.augment(self.images[chosen])
        return keras.ops.convert_to_numpy(images), self.labels[chosen]


def augmentation(far, seed):
    """Images are mirrored, and shifted by up to `far` pixels."""
    flip = keras.layers.RandomFlip("horizontal", seed=seed)

    def mirrored(images):
        return flip(images, training=True)

    if not far:
        return mirrored
    rng = np.random.default_rng(seed)

    def changed(images):
        images = keras.ops.convert_to_numpy(mirrored(images))
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
    parser.add_argument("--labelled-epochs", type=int, default=0)
    parser.add_argument("--distil", nargs="+", choices=METHODS)
    parser.add_argument("--shift", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--outputs", default="softmax")
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


def show(runs, title, rows):
    """Print a table of what was measured for each cut.

    Args:
        runs: the `Measured` of each seed.
        title: a line above the table.
        rows: {name: (a method of `Measured`, which method prunes, what else
            it takes after the cut, ...)}.
    """
    if not rows:
        return
    cuts = runs[0].args.cuts
    header = ["method", *(f"{cut:.0%} cut" for cut in cuts)]
    found = [
        [
            name,
            *(
                cell([find(run, method, cut, *how) for run in runs])
                for cut in cuts
            ),
        ]
        for name, (find, method, *how) in rows.items()
    ]
    print(Table(title, header, found))


def main():
    args = parsed()
    runs = [Measured(args, seed) for seed in range(args.seeds)]
    base = spread([run.base() for run in runs])
    sources = {
        method: (Measured.pruned, method) for method in args.methods or METHODS
    }
    if args.without_data:
        for method, source in MADE:
            row = Measured.pruned, method, source
            sources[f"{method}, on {source}"] = row
    show(runs, f"Accuracy, %; {base} before", sources)
    distilled = args.distil or DISTILLED
    show(
        runs,
        "Accuracy after distillation, %",
        {
            f"{method}, {epochs} epochs": (Measured.distilled, method, epochs)
            for method in distilled
            for epochs in args.epochs
        },
    )
    epochs = args.labelled_epochs
    show(
        runs,
        f"Accuracy after {epochs} epochs with labels, %",
        {
            f"{method}, {name}": (Measured.with_labels, method, epochs, how)
            for method in distilled * bool(epochs)
            for name, how in (("fine-tuned", False), ("distilled", True))
        },
    )
    if args.draw:
        draw(runs, args.methods or METHODS, distilled, args.draw)


if __name__ == "__main__":
    main()
