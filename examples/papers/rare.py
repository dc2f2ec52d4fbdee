"""RaRe: On the Redundancy in the Rank of Neural Network Parameters.

Lee et al. (2021): a regularizer draws the two most similar vectors of a kernel
together, until they are parallel and can be fused (DLRA); kernels are
Frobenius normalized (FN). An MLP 784-500-500-500-500-10 on Fashion-MNIST.

    python examples/papers/rare.py --table 1 --data FOLDER --seeds 3
    python examples/papers/rare.py --figure 2 --data FOLDER --epochs 6

--dropout, --l2 and --gradient-noise add what the paper trains with besides.
--held-out judges by held-out training images, by which settings are chosen, in
place of the test set.

Table 2 has the paper's number; the others are numbered by this script:
"""

import dataclasses

import drawing
import keras
import numpy as np
import vgg_networks
from experiments import Paper, Shown, Table, accuracy, caption, fitted, spread
from keras import layers

import keras_redundancy as kr

HIDDEN = (500, 500, 500, 500)
KINDS = ("plain", "FN", "FN + DLRA")
# What is measured in each epoch, and the digits of it in a table.
CURVES = {"accuracy": 2, "cross-entropy": 4, "on training images": 4}
STRENGTHS = (1.0, 5.0, 10.0, 20.0, 40.0)
TAUS_COS = (1e-4, 1e-3, 1e-2)
TAUS_EUC = (0.01, 0.1, 1.0)
IN_PAPER = {
    "plain": "90.45 %",
    "FN + DLRA": "90.65 %, 30.65 % of weights gone, 7.1 times fewer steps",
}

paper = Paper("rare", __doc__)
paper.argument("--hidden", type=int, nargs="+", default=HIDDEN)
paper.argument("--rate", type=float, default=1e-3, help="of Adam")
paper.argument("--strength", type=float, default=20.0, help="lambda_1")
paper.argument("--strengths", type=float, nargs="+", default=STRENGTHS)
paper.argument("--tau-cos", type=float, default=1e-3)
paper.argument("--tau-euc", type=float, default=0.1)
paper.argument("--dropout", type=float, default=0.0)
paper.argument("--l2", type=float, default=0.0, help="lambda_2")
paper.argument("--gradient-noise", type=float, default=0.0, help="its variance")
paper.argument("--held-out", action="store_true")
paper.argument("--scale", type=float, default=0.5, help="of a VGG's widths")
OF_PAPER = {"dataset": "fashion_mnist", "epochs": 20}


class NoisyAdam(keras.optimizers.Adam):
    """Adam with noise of variance `noise` / (1 + step)^0.55 on gradients.

    Raises:
        ValueError: Keras runs on another backend than TensorFlow, where an
            optimizer would draw the same noise in each step.

    Source: Neelakantan et al., Adding Gradient Noise Improves Learning for
    Very Deep Networks (2015).
    """

    def __init__(self, learning_rate, noise, **kwargs):
        if keras.backend.backend() != "tensorflow":
            raise ValueError(
                "Gradient noise needs TensorFlow, but Keras runs on "
                f"{keras.backend.backend()}. Leave out --gradient-noise, or "
                "set KERAS_BACKEND=tensorflow."
            )
        super().__init__(learning_rate, **kwargs)
        self.noise = noise
        self.random = keras.random.SeedGenerator(0)

    def apply(self, grads, trainable_variables=None):
        step = keras.ops.cast(self.iterations, "float32")
        deviation = (self.noise / (1 + step) ** 0.55) ** 0.5
        grads = [
            g + deviation * keras.random.normal(g.shape, seed=self.random)
            for g in grads
        ]
        return super().apply(grads, trainable_variables)


def network(shape, classes, hidden=HIDDEN, dropout=0.0, l2=0.0):
    """A perceptron; `l2` is a factor of the squared Frobenius norms."""
    parts = [keras.Input(shape), layers.Flatten()]
    penalty = keras.regularizers.L2(l2) if l2 else None
    for units in hidden:
        parts.append(layers.Dense(units, "relu", kernel_regularizer=penalty))
        if dropout:
            parts.append(layers.Dropout(dropout))
    parts.append(layers.Dense(classes, kernel_regularizer=penalty))
    return keras.Sequential(parts)


def normalized(model):
    """The same with the kernel of each layer Frobenius normalized."""
    return keras.Sequential(
        [
            keras.Input(model.input_shape[1:]),
            *(
                kr.FrobeniusNormalization(x) if hasattr(x, "kernel") else x
                for x in model.layers
            ),
        ]
    )


def perceptron(
    data,
    kind,
    hidden,
    strength,
    tau_cos,
    tau_euc,
    rate,
    dropout,
    l2,
    gradient_noise,
    held_out,
    epochs,
    seed,
):
    """Train a perceptron of a kind; curves, and the sizes learned."""
    model = network(data.shape, data.classes, hidden, dropout, l2)
    weights = sum(
        int(np.prod(x.kernel.shape))
        for x in model.layers
        if hasattr(x, "kernel")
    )
    callbacks = []
    if "DLRA" in kind:
        model = kr.factorize(kr.apply_rare(model, strength))
        callbacks = [kr.callbacks.DynamicLowRank(tau_cos, tau_euc)]
    if "FN" in kind:
        model = normalized(model)
    optimizer = keras.optimizers.Adam(rate)
    if gradient_noise:
        optimizer = NoisyAdam(rate, gradient_noise)
    if held_out:
        data = dataclasses.replace(data, test=data.held_out)
    history = fitted(model, data, epochs, optimizer, callbacks=callbacks)
    sizes = callbacks[0].sizes[-1] if callbacks else {}
    return {
        "accuracy": history["val_accuracy"],
        "cross-entropy": history["val_cross_entropy"],
        "on training images": history["cross_entropy"],
        "weights": history.get("factorized_weights", [weights] * epochs),
        "all weights": weights,
        "sizes": [list(map(int, size)) for size in sizes.values()],
    }


def perceptrons(run, kind, **changes):
    """A `Result` for each seed; `changes` of the command's settings."""
    args = run.args
    settings = {
        "strength": args.strength,
        "tau_cos": args.tau_cos,
        "tau_euc": args.tau_euc,
        **changes,
    }
    if "DLRA" not in kind:
        settings = dict.fromkeys(settings)
    return run.seeds(
        perceptron,
        kind=kind,
        hidden=args.hidden,
        rate=args.rate,
        dropout=args.dropout,
        l2=args.l2,
        gradient_noise=args.gradient_noise,
        held_out=args.held_out,
        epochs=args.epochs,
        **settings,
    )


def share_gone(result):
    """Percent of the numbers of all kernels."""
    return 100 * (1 - result["weights"][-1] / result["all weights"])


def epochs_to_pass(result, plain):
    """The first epoch, from 1, better than the best of the plain network."""
    best = max(plain["accuracy"])
    better = [x > best for x in result["accuracy"]]
    return str(1 + better.index(True)) if any(better) else "never"


def described(run):
    """A caption that names what is trained with."""
    args = run.args
    options = {
        "dropout": args.dropout,
        "L2": args.l2,
        "gradient noise": args.gradient_noise,
    }
    said = [f"{name} {value:g}" for name, value in options.items() if value]
    said.append("held-out images" if args.held_out else "test images")
    return caption(run, *said)


@paper.table(1, **OF_PAPER)
def kinds(run):
    """accuracy, epochs to the plain network's best, and weights gone"""
    plain = perceptrons(run, "plain")
    rows = []
    for kind in KINDS:
        found = perceptrons(run, kind)
        passed = map(epochs_to_pass, found, plain)
        rows.append(
            [
                kind,
                spread([x["accuracy"][-1] for x in found]),
                spread([max(x["accuracy"]) for x in found]),
                spread([1 + int(np.argmax(x["accuracy"])) for x in found], 1),
                ", ".join(passed) if kind != "plain" else None,
                spread([share_gone(x) for x in found]),
                IN_PAPER.get(kind),
            ]
        )
    header = ["network", "last epoch, %", "best epoch, %", "which"]
    header += ["passes plain's best", "weights gone, %", "the paper"]
    return Shown([Table("Accuracy", header, rows, described(run))])


@paper.table(2, **OF_PAPER)
def sizes(run):
    """the sizes that the layers learned"""
    found = perceptrons(run, "FN + DLRA")
    names = [f"layer {n + 1}" for n in range(len(found[0]["sizes"]))]
    rows = [
        [f"seed {seed}", *(f"{m} x {n}" for m, n in result["sizes"])]
        for seed, result in enumerate(found)
    ]
    title = "Sizes of W in P W Q"
    return Shown([Table(title, ["", *names], rows, described(run))])


@paper.figure(1, **OF_PAPER)
def curves(run):
    """accuracy and cross-entropy over epochs"""
    found = {kind: perceptrons(run, kind) for kind in KINDS}
    epochs = range(1, run.args.epochs + 1)
    rows = [
        [
            kind,
            *(
                spread([x[name][-1] for x in results], digits)
                for name, digits in CURVES.items()
            ),
        ]
        for kind, results in found.items()
    ]
    table = Table(
        "After the last epoch", ["network", *CURVES], rows, described(run)
    )

    def draw():
        figure, axes = drawing.panels(3)
        for panel, name in zip(axes, CURVES, strict=True):
            for kind, results in found.items():
                drawing.line(panel, epochs, [x[name] for x in results], kind)
            drawing.finish(panel, xlabel="epoch", ylabel=name)
        return figure

    return Shown([table], draw)


def against(run, title, name, values, xscale="linear"):
    """Weights gone, and accuracy, against one of the settings.

    Returns:
        A table, and a function that draws on two axes.
    """
    found = [perceptrons(run, "FN + DLRA", **{name: x}) for x in values]
    gone = [[share_gone(x) for x in results] for results in found]
    scores = [[x["accuracy"][-1] for x in results] for results in found]
    rows = [
        [f"{x:g}", spread(g), spread(s)]
        for x, g, s in zip(values, gone, scores, strict=True)
    ]
    header = [title, "weights gone, %", "accuracy, %"]
    table = Table(f"Effect of {title}", header, rows, described(run))

    def draw(axes):
        for panel, measured, label in zip(
            axes, (gone, scores), header[1:], strict=True
        ):
            drawing.line(panel, values, np.transpose(measured))
            panel.set_xscale(xscale)
            drawing.finish(panel, xlabel=title, ylabel=label)

    return table, draw


@paper.figure(2, **OF_PAPER)
def strengths(run):
    """compression and accuracy against lambda_1"""
    table, draw_on = against(run, "lambda_1", "strength", run.args.strengths)

    def draw():
        figure, axes = drawing.panels(2)
        draw_on(axes)
        return figure

    return Shown([table], draw)


@paper.figure(3, **OF_PAPER)
def thresholds(run):
    """compression and accuracy against tau_cos and tau_euc"""
    found = [
        against(run, "tau_cos", "tau_cos", TAUS_COS, "log"),
        against(run, "tau_euc", "tau_euc", TAUS_EUC, "log"),
    ]

    def draw():
        figure, axes = drawing.panels(4, columns=2)
        found[0][1](axes[:2])
        found[1][1](axes[2:])
        return figure

    return Shown([table for table, _ in found], draw)


def convolutional(data, kind, depth, scale, strength, tau_cos, epochs, seed):
    """Train a VGG-style network, with RaRe or without; what is left of it."""
    model = vgg_networks.build(data, depth, scale)
    before = model.count_params(), kr.flops(model)
    callbacks = []
    if kind == "RaRe":
        model = kr.factorize(kr.apply_rare(model, strength))
        callbacks = [kr.callbacks.DynamicLowRank(tau_cos)]
    fitted(model, data, epochs, keras.optimizers.Adam(), callbacks=callbacks)
    trained = accuracy(model, data.test)
    small = kr.prune(model, tau=1 - tau_cos)
    return {
        "trained": trained,
        "accuracy": accuracy(small, data.test),
        "parameters": small.count_params() / before[0],
        "flops": kr.flops(small) / before[1],
    }


@paper.table(3, dataset="cifar10", epochs=30)
def convolutions(run):
    """the convolutional extension: a VGG-11 with and without RaRe"""
    args = run.args
    rows = []
    for kind in ("plain", "RaRe"):
        found = run.seeds(
            convolutional,
            kind=kind,
            depth=11,
            scale=args.scale,
            strength=args.strength if kind == "RaRe" else None,
            tau_cos=args.tau_cos,
            epochs=args.epochs,
        )
        rows.append(
            [
                kind,
                spread([x["trained"] for x in found]),
                spread([x["accuracy"] for x in found]),
                spread([100 - 100 * x["parameters"] for x in found]),
                spread([100 - 100 * x["flops"] for x in found]),
            ]
        )
    header = ["network", "trained, %", "after joining, %"]
    header += ["parameters gone, %", "multiply-adds gone, %"]
    below = caption(run, f"widths times {args.scale:g}")
    return Shown([Table("VGG-11", header, rows, below)])


if __name__ == "__main__":
    paper.main()
