"""Redundant Feature Pruning for Accelerated Inference in Deep Networks.

Ayinde, Inanc and Zurada (2018): filters are clustered by their cosines at tau,
and of each cluster a random one stays (method A); method B keeps as many at
random. VGG-16 and ResNet-56 on CIFAR-10.

    python examples/papers/redundant_features.py --figure 1 --data FOLDER
    python examples/papers/redundant_features.py --table 3 --data FOLDER \\
        --weights cifar_resnet56.npz

Without --weights, a file with the weights of a trained ResNet-56 ("0", "1", ...
in the order of `get_weights`), that network is trained. Accuracies that choose
something are those on held-out training images.

Figures and tables are numbered by this script, not as in the paper:
"""

import hashlib
from pathlib import Path

import drawing
import numpy as np
import resnet_networks
import vgg_networks
from experiments import (
    DECAY,
    Paper,
    Shown,
    Table,
    accuracy,
    fitted_with_momentum,
    spread,
)
from methods_a_b import SAMPLES, first, method_a, method_b
from resnet_networks import (
    STAGES,
    cut_resnet,
    one_stage,
    timed_resnet,
    tuned_resnet,
)

import keras_redundancy as kr

TAUS = tuple(n / 20 for n in range(18, 3, -1))
SENSITIVITY_TAUS = (0.8, 0.7, 0.6, 0.5, 0.4, 0.3)
# Cut of multiply-adds and of parameters, and fall of the accuracy after
# fine-tuning, as the paper prints them.
IN_PAPER = {
    "A": "40.5 % of multiply-adds, 78.1 % of parameters, 0.13 lost",
    "B": "40.5 % of multiply-adds, 78.1 % of parameters, 0.50 lost",
    "L1 (Li et al.)": "34.2 % of multiply-adds, 64.0 % of parameters, 0.40 "
    "lost",
}

paper = Paper("redundant_features", __doc__)
paper.argument("--scale", type=float, default=1.0, help="of VGG's widths")
paper.argument("--decay", type=float, default=DECAY, help="of VGG's weights")
paper.argument("--depth", type=int, help="of the network: 16, or 56")
paper.argument("--tune", type=int, default=30, help="epochs of fine-tuning")
paper.argument("--taus", type=float, nargs="+")
paper.argument("--images", type=int, help="to evaluate on; default: all")
paper.argument("--weights", type=Path, help="of a trained ResNet-56")
paper.argument(
    "--max-drop",
    type=float,
    default=1.0,
    help="points that each stage may lose before fine-tuning (table 3)",
)
OF_VGG = {"dataset": "cifar10", "epochs": 200, "depth": 16}


def trained(run):
    """A `Result` with the trained VGG of each seed."""
    args = run.args
    settings = {"depth": args.depth, "scale": args.scale}
    settings |= {"decay": args.decay, "epochs": args.epochs}
    return run.seeds(vgg_networks.vgg, **settings)


def tuned(model, data, epochs, seed):
    """Fine-tune a network at a tenth of the first rate."""
    return fitted_with_momentum(model, data, epochs, seed, rate=0.01)


# --- VGG-16 -----------------------------------------------------------------


@paper.figure(1, **OF_VGG, taus=TAUS)
def features(run):
    """n_f of each layer of VGG-16 against tau"""
    model = trained(run)[0].model
    found = kr.redundancy(model, run.args.taus)
    titles = [x.title for x in found.reports[0].layers if x.kind == "Conv2D"]
    rows = [
        [
            title,
            found.reports[0].by_title[title][0].n,
            *(x.by_title[title][0].n_f for x in found.reports),
        ]
        for title in titles
    ]
    header = ["layer", "n", *(f"{tau:g}" for tau in found.taus)]
    below = vgg_networks.described(run, "seed 0")
    table = Table("n_f at tau", header, rows, below)

    def draw():
        figure, (axes,) = drawing.panels(1, width=7, height=4.5)
        kr.plots.redundancy(found, "n_f", axes=axes)
        return figure

    return Shown([table], draw)


def sensitivity_by_method(run):
    """{method: what `kr.sensitivity` returns}, of the network of seed 0.

    Scores are logged in --out, in a file for each combination of settings.
    """
    args, data = run.args, run.data
    model = trained(run)[0].model
    held_out = first(data.held_out, args.images)

    def score(model):
        return accuracy(model, held_out)

    def retrained(model):
        return score(tuned(model, data, args.tune, 0))

    ways = {"A": (method_a(), score), "B": (method_b(), score)}
    if args.tune:
        ways["A, retrained"] = method_a(), retrained
    found = {}
    for name, (options, evaluate) in ways.items():
        known = [args.dataset, args.samples, args.depth, args.scale]
        known += [args.decay, args.epochs, args.images]
        known += [args.tune] if evaluate is retrained else []
        log = "-".join(map(str, ["sensitivity", name[0], *known]))
        found[name] = kr.sensitivity(
            model,
            evaluate,
            args.taus,
            skip="dense",
            log=args.out / f"{log}.log",
            verbose=False,
            **options,
        )
    return found


@paper.figure(2, **OF_VGG, taus=SENSITIVITY_TAUS)
def sensitivities(run):
    """accuracy when one layer alone is pruned: A, B, and A with retraining"""
    found = sensitivity_by_method(run)
    tables = []
    for name, result in found.items():
        shown = result.table()
        title = f"Method {name}"
        said = f"{shown.below}, held-out images", "seed 0"
        below = vgg_networks.described(run, *said)
        tables.append(Table(title, shown.header, shown.rows, below))

    def draw():
        figure, axes = drawing.panels(len(found), width=5, height=4)
        for panel, (name, result) in zip(axes, found.items(), strict=True):
            kr.plots.sensitivity(result, axes=panel)
            panel.set_title(f"method {name}")
        return figure

    return Shown(tables, draw)


def pruned_vgg(
    data,
    model,
    method,
    level,
    depth,
    scale,
    decay,
    epochs,
    tune,
    seed,
    images=None,
):
    """Prune a VGG by a method, and fine-tune it.

    Args:
        level: tau for A and B, the share of multiply-adds to leave for others.
    """
    options = {
        "A": lambda: method_a(level, seed),
        "B": lambda: method_b(level, seed),
        "L1 (Li et al.)": lambda: {"select": "l1", "absorb": "drop"},
        "ours, with data": lambda: {"data": data.train[0][:SAMPLES]},
    }[method]()
    if method not in ("A", "B"):
        options["target"] = {"flops": level}
    plan = kr.plan(model, skip="dense", **options)
    small = plan.apply()
    held_out, test = first(data.held_out, images), first(data.test, images)
    found = {
        "pruned": accuracy(small, test),
        "flops": plan.flops[1] / plan.flops[0],
        "parameters": plan.parameters[1] / plan.parameters[0],
    }
    tuned(small, data, tune, seed)
    found["tuned"] = accuracy(small, test)
    found["tuned, held-out"] = accuracy(small, held_out)
    return found


def pruned(run, method, levels):
    """A `Result` for each seed; `levels` has the level of each."""
    args = run.args
    return [
        run.one(
            pruned_vgg,
            {"model": network.model},
            method=method,
            level=level,
            depth=args.depth,
            scale=args.scale,
            decay=args.decay,
            epochs=args.epochs,
            tune=args.tune,
            seed=seed,
            images=args.images,
        )
        for seed, (network, level) in enumerate(
            zip(trained(run), levels, strict=True)
        )
    ]


def best_tau(run):
    """The tau at which A, fine-tuned, is best on held-out images, and scores.

    Of equally good ones the smallest, which cuts most.
    """
    scores = {
        tau: float(
            np.mean(
                [
                    x["tuned, held-out"]
                    for x in pruned(run, "A", [tau] * run.args.seeds)
                ]
            )
        )
        for tau in run.args.taus
    }
    return min(scores, key=lambda tau: (-scores[tau], tau)), scores


@paper.table(1, **OF_VGG, taus=SENSITIVITY_TAUS)
def layer_by_layer(run):
    """VGG-16 layer by layer, at the tau of least error on held-out images"""
    tau, scores = best_tau(run)
    model = trained(run)[0].model
    small = kr.prune(model, **method_a(tau), skip="dense")
    table = kr.difference(model, small).table()
    said = f"method A at tau {tau:g}", "sizes of seed 0"
    below = vgg_networks.described(run, *said)
    rows = [[f"{tau:g}", score] for tau, score in scores.items()]
    return Shown(
        [
            Table("Accuracy of A by tau", ["tau", "held-out, %"], rows),
            Table("Layers of VGG", table.header, table.rows, below),
        ]
    )


@paper.table(2, **OF_VGG, taus=SENSITIVITY_TAUS)
def methods(run):
    """A, B, L1 and ours at equal multiply-adds, before and after tuning"""
    tau, _ = best_tau(run)
    of_a = pruned(run, "A", [tau] * run.args.seeds)
    shares = [x["flops"] for x in of_a]
    found = {"A": of_a, "B": pruned(run, "B", [tau] * run.args.seeds)}
    for name in ("L1 (Li et al.)", "ours, with data"):
        found[name] = pruned(run, name, shares)
    before = spread([x["accuracy"] for x in trained(run)])
    rows = [
        [
            name,
            spread([100 - 100 * x["flops"] for x in results], 1),
            spread([100 - 100 * x["parameters"] for x in results], 1),
            spread([x["pruned"] for x in results]),
            spread([x["tuned"] for x in results]),
            IN_PAPER.get(name),
        ]
        for name, results in found.items()
    ]
    header = ["method", "multiply-adds cut, %", "parameters cut, %"]
    header += ["pruned, %", "fine-tuned, %", "the paper"]
    said = f"tau {tau:g}", f"{run.args.tune} epochs of tuning"
    below = vgg_networks.described(run, *said)
    title = f"Accuracy on test images, {before} % before"
    return Shown([Table(title, header, rows, below)])


# --- ResNet-56 --------------------------------------------------------------

STAGE_TAUS = (0.5, 0.4, 0.35, 0.3, 0.25, 0.2, 0.15, 0.1)
RACES = 5  # that time a cut
# Methods, and what they prune.
ROWS = (
    ("uncut", "first convolutions"),
    ("A", "first convolutions"),
    ("B", "first convolutions"),
    ("A", "with residual streams"),
    ("ours", "first convolutions"),
    ("ours", "with residual streams"),
)


def resnet_of(run):
    """A trained network, and the settings that say which."""
    args = run.args
    if args.weights is None:
        found = run.one(
            resnet_networks.resnet,
            depth=args.depth,
            epochs=args.epochs,
            seed=0,
        )
        return found.model, f"ResNet-{args.depth}, {args.epochs} epochs"
    if not args.weights.exists():
        raise FileNotFoundError(
            f"There is no {args.weights}. Leave out --weights to train a "
            "ResNet, or pass a file with its weights."
        )
    digest = hashlib.sha256(args.weights.read_bytes()).hexdigest()[:12]
    model = resnet_networks.with_weights(run.data, args.depth, args.weights)
    return model, f"ResNet-{args.depth}, weights {digest}"


def taus_of_stages(run, given, settings, scope):
    """For each stage the least tau that costs at most --max-drop points."""
    base = run.one(
        one_stage, given, scope=scope, stage=1, tau=None, **settings
    )["accuracy"]
    chosen = []
    for stage in STAGES:
        best = 1.0
        for tau in run.args.taus:
            found = run.one(
                one_stage, given, scope=scope, stage=stage, tau=tau, **settings
            )
            if base - found["accuracy"] > run.args.max_drop:
                break
            best = tau
        chosen.append(best)
    return chosen


@paper.table(3, dataset="cifar10", epochs=200, depth=56, taus=STAGE_TAUS)
def residual(run):
    """ResNet-56: first convolutions only, and with the residual streams"""
    model, network = resnet_of(run)
    given = {"model": model}
    settings = {"images": run.args.images, "network": network, "seed": 0}
    cuts = []
    for method, scope in ROWS:
        of_scope = "first convolutions" if method == "ours" else scope
        taus = taus_of_stages(run, given, settings, of_scope)
        cut = {"method": method, "scope": scope, "taus": taus, **settings}
        cuts.append((cut, run.one(cut_resnet, given, **cut)))
    # All are timed before any is trained: a machine has to be quiet for that.
    timed = [
        run.one(
            timed_resnet, {**given, "small": found.model}, races=RACES, **cut
        )["times"]
        for cut, found in cuts
    ]
    rows = []
    for (cut, found), times in zip(cuts, timed, strict=True):
        tuned = run.one(
            tuned_resnet, {"small": found.model}, tune=run.args.tune, **cut
        )
        pruned = cut["method"] != "uncut"
        rows.append(
            [
                cut["method"],
                cut["scope"] if pruned else "",
                ", ".join(f"{t:g}" for t in cut["taus"]) if pruned else "",
                *(100 * (1 - found[x]) for x in ("flops", "parameters")),
                found["dropped"],
                found["repaired"],
                tuned["accuracy"],
                spread([100 * t for t in times], 1),
            ]
        )
    header = ["method", "pruned", "tau by stage", "multiply-adds cut, %"]
    header += ["parameters cut, %", "accuracy, %", "repaired, %"]
    header += ["fine-tuned, %", "time, %"]
    images = f"{run.args.images or 'all'} images to evaluate on"
    below = f"{run.args.dataset}, {network}, {images}"
    below += (
        f"\n{run.args.tune} epochs of tuning at a tenth of the first rate; "
        f"time of inference in batches of 100, {RACES} times."
        "\nThe paper, fine-tuned: 27.9 % of multiply-adds and 23.7 % of "
        "parameters cut, error 6.61 to 6.88 %, 17 % of the time saved."
    )
    return Shown([Table("Pruned", header, rows, below)])


if __name__ == "__main__":
    paper.main()
