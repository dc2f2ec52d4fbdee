"""All pictures of a network's redundancy, from training to a report.

    python examples/pictures.py
    python examples/pictures.py --dataset fashion_mnist --data FOLDER --epochs 4

Trains the quickstart's network, on scikit-learn's handwritten digits by
default, watched by `RedundancyMonitor`. Writes to --out: TensorBoard's files
(`tensorboard --logdir OUT/logs` shows them), a picture of each kind, and
report.html, which compares the network with what is left of it when half of
its multiply-adds are cut.
"""

import argparse
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import example_data
import keras
import quickstart

import keras_redundancy as kr

AS_IT_IS = {"repair": False, "rounds": 0}
METHODS = {
    "L1 norm, dropped": {"select": "l1", "absorb": "drop", **AS_IT_IS},
    "L1 norm, merged": {"select": "l1", "absorb": "merge", **AS_IT_IS},
    "greedy, least squares": {"rounds": 0},
}


def parsed():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    example_data.add_arguments(parser)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument(
        "--samples",
        type=int,
        default=1000,
        help="images held out from training, on which accuracy is measured; "
        "and how many others calibrate the cuts",
    )
    parser.add_argument("--out", type=Path, default=Path("pictures"))
    return parser.parse_args()


def trained(x, y, callbacks, args):
    """The quickstart's network for one data set."""
    model = quickstart.build(x.shape[1:], quickstart.WIDTHS[args.dataset])
    model.compile(
        "adam",
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    options = {"epochs": args.epochs, "callbacks": callbacks, "verbose": 2}
    model.fit(x, y, batch_size=128, **options)
    return model


def main():
    args = parsed()
    keras.utils.set_random_seed(0)
    (x, y), _ = example_data.load(args.dataset, args.data)
    # What is said of accuracy is said of images held out from training.
    count = args.samples
    images, labels = x[-count:], y[-count:]
    x, y = x[:-count], y[:-count]
    logs = args.out / "logs"
    monitor = kr.callbacks.RedundancyMonitor(logs, data=images)
    callbacks = [keras.callbacks.TensorBoard(logs), monitor]
    model = trained(x, y, callbacks, args)

    def accuracy(model):
        # Batches of one size: for another one, Keras traces the model again.
        logits = model.predict(images, batch_size=250, verbose=0)
        return float((logits.argmax(axis=-1) == labels).mean())

    report = kr.analyze(model, tau=0.5)
    levels = (0.125, 0.25, 0.5, 0.75)
    sensitivity = kr.sensitivity(model, accuracy, ratios=levels)
    comparison = kr.compare(model, accuracy, METHODS, data=x[:count])
    draw(args.out, model, report, sensitivity, comparison)
    activations = kr.plots.activations(model, images, labels)
    activations.savefig(args.out / "activations.png", dpi=80)
    training = kr.plots.training(monitor, "max_similarity")
    training.savefig(args.out / "training.png", dpi=80)
    half = kr.prune(model, target={"flops": 0.5}, data=x[:count], rounds=0)
    report.to_html(
        args.out / "report.html",
        sensitivity=sensitivity,
        difference=kr.difference(model, half),
    )
    print("wrote", *sorted(path.name for path in args.out.iterdir()))


def draw(folder, model, report, sensitivity, comparison):
    """Pictures of what was measured of a model, as files in a folder."""
    taus = [n / 20 for n in range(1, 20)]
    first = report.layers[0].title
    pictures = {
        "redundancy": kr.plots.redundancy(kr.redundancy(model, taus)),
        "similarities": kr.plots.similarity_histograms(report),
        "heatmap": kr.plots.similarity_heatmap(report, first),
        "filters": kr.plots.filters_by_cluster(model, first),
        "singular_values": kr.plots.singular_values(report),
        "sensitivity": kr.plots.sensitivity(sensitivity),
        "methods": kr.plots.score_against_flops(comparison),
    }
    for name, figure in pictures.items():
        figure.savefig(folder / f"{name}.png", dpi=80)


if __name__ == "__main__":
    main()
