"""ResNets of He et al. (2016) for small images, shortcuts without weights."""

import dataclasses

import keras
import numpy as np
from experiments import accuracy, fitted_with_momentum
from keras import layers, ops
from methods_a_b import SAMPLES, first, method_a, method_b

import keras_redundancy as kr
from keras_redundancy.planning.latency import Stopwatch

STAGES = (1, 2, 3)
WIDTHS = (16, 32, 64)
# Which layers are pruned: those of a stage, by names.
SCOPES = {
    "first convolutions": {s: rf"layer{s}_\d+_conv1" for s in STAGES},
    "with residual streams": {
        1: r"conv1|layer1_\d+_conv[12]",
        2: r"layer2_\d+_conv[12]",
        3: r"layer3_\d+_conv[12]",
    },
}
# Of each color, over the training images of CIFAR-10 as others publish it.
MEAN = np.array([0.485, 0.456, 0.406], "float32")
DEVIATION = np.array([0.229, 0.224, 0.225], "float32")


def build(data, depth):
    """Three stages of (depth - 2) / 6 blocks each.

    Shortcuts that halve the sides take every second pixel, and pad channels
    with zeros (option A of the paper).
    """
    x = inputs = keras.Input(data.shape)
    x = layers.ReLU()(_convolution(x, WIDTHS[0], 1, "conv1", "bn1"))
    for stage, width in zip(STAGES, WIDTHS, strict=True):
        for block in range((depth - 2) // 6):
            strides = 2 if stage > 1 and block == 0 else 1
            name = f"layer{stage}_{block}"
            y = _convolution(x, width, strides, f"{name}_conv1", f"{name}_bn1")
            y = layers.ReLU()(y)
            y = _convolution(y, width, 1, f"{name}_conv2", f"{name}_bn2")
            if strides > 1:
                pad = width // 4
                x = ops.pad(x[:, ::2, ::2], [(0, 0)] * 3 + [(pad, pad)])
            x = layers.ReLU()(layers.Add()([x, y]))
    x = layers.GlobalAveragePooling2D()(x)
    outputs = layers.Dense(data.classes, name="linear")(x)
    return keras.Model(inputs, outputs, name=f"resnet{depth}")


def _convolution(x, width, strides, name, norm):
    if strides > 1:
        x = layers.ZeroPadding2D(1)(x)
    x = layers.Conv2D(
        width,
        3,
        strides,
        padding="valid" if strides > 1 else "same",
        use_bias=False,
        name=name,
    )(x)
    return layers.BatchNormalization(epsilon=1e-5, name=norm)(x)


def standardized(images):
    """Images as the published weights expect them; gray ones as they are."""
    if images.shape[-1] != 3:
        return images
    return (images - MEAN) / DEVIATION


def resnet(data, depth, epochs, seed):
    """Train a ResNet on standardized images, and keep it: an experiment."""
    images, labels = data.train
    data = dataclasses.replace(data, train=(standardized(images), labels))
    model = build(data, depth)
    return fitted_with_momentum(model, data, epochs, seed), {}


def with_weights(data, depth, path):
    """The network with the weights of a file."""
    model = build(data, depth)
    with np.load(path) as weights:
        model.set_weights([weights[str(n)] for n in range(len(weights.files))])
    return model


def prepared(images_and_labels, count=None):
    """The first images, standardized, and their labels."""
    images, labels = first(images_and_labels, count)
    return standardized(images), labels


def one_stage(data, model, scope, stage, tau, images, network, seed):
    """The accuracy on held-out images with one stage pruned by method A."""
    options = method_a({SCOPES[scope][stage]: tau} if tau else 1.0, seed)
    small = kr.prune(model, **options)
    return {"accuracy": accuracy(small, prepared(data.held_out, images))}


def cut_resnet(data, model, method, scope, taus, images, network, seed):
    """Prune a ResNet, and keep it: an experiment; accuracies on test images.

    Args:
        taus: of each stage; for "ours", which takes the multiply-adds that
            method A leaves of the first convolutions, as well.
        network: what the network is, for the file.
    """
    test = prepared(data.test, images)
    calibration = prepared(data.train, SAMPLES)[0]

    def levels(scope):
        return dict(zip(SCOPES[scope].values(), taus, strict=True))

    if method == "uncut":
        return model, {
            "dropped": accuracy(model, test),
            "repaired": None,
            "flops": 1.0,
            "parameters": 1.0,
        }
    if method == "ours":
        a = kr.plan(model, **method_a(levels("first convolutions"), seed))
        share = a.flops[1] / a.flops[0]
        plan = kr.plan(
            model,
            layers=list(SCOPES[scope].values()),
            target={"flops": share},
            data=calibration,
        )
        dropped = None
    else:
        options = {"A": method_a, "B": method_b}[method](levels(scope), seed)
        dropped = accuracy(kr.prune(model, **options), test)
        plan = kr.plan(model, **options, data=calibration, rounds=0)
    small = plan.apply()
    return small, {
        "dropped": dropped,
        "repaired": accuracy(small, test),
        "flops": plan.flops[1] / plan.flops[0],
        "parameters": plan.parameters[1] / plan.parameters[0],
    }


def timed_resnet(data, model, small, races, **cut):
    """The time of inference over that of the uncut network, in batches of 100.

    Args:
        races: how often both networks run in turn.
        **cut: the settings of `cut_resnet`, for the file.
    """
    race = Stopwatch(model, 100).race_with(small)
    return {"times": [race() for _ in range(races)]}


def tuned_resnet(data, small, tune, images, seed, **cut):
    """The accuracy on test images once fine-tuned for some epochs."""
    images_and_labels = prepared(data.train)
    standard = dataclasses.replace(data, train=images_and_labels)
    fitted_with_momentum(small, standard, tune, seed, rate=0.01)
    return {"accuracy": accuracy(small, prepared(data.test, images))}
