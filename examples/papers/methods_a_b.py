"""Methods A and B of Ayinde, Inanc and Zurada (2018)."""

import keras_redundancy as kr

# Images to estimate BatchNormalization on, and to fit to.
SAMPLES = 1024


def method_a(tau=None, seed=0):
    """Options of `kr.plan`: a random filter of each cluster, others dropped."""
    select = kr.Clusters(tau, keep="random", seed=seed)
    return {"select": select, "absorb": "drop"}


def method_b(tau=None, seed=0):
    """As many random filters as method A keeps."""
    return {"select": kr.Random(tau, seed=seed), "absorb": "drop"}


def first(images_and_labels, count):
    images, labels = images_and_labels
    return images[:count], labels[:count]
