"""What calibration data says of what kernels read, and checks of it."""

import keras
import numpy as np

import keras_redundancy as kr


def statistics_of(model, data, batch_size=32):
    known = kr.calibrate(model, data, batch_size=batch_size)
    return known.graph, known.statistics


def views_by_layer(graph, statistics):
    """{layer name: views of what its kernel reads}."""
    return {
        axis.layer.name: statistics.views[id(axis)]
        for axis in graph.axes
        if id(axis) in statistics.views
    }


def assert_moments(moments, rows, tolerance=1e-5):
    rows = np.asarray(rows, np.float64)
    covariance = np.cov(rows, rowvar=False, bias=True)
    scale = np.abs(covariance).max()
    assert moments.count == len(rows)
    np.testing.assert_allclose(
        moments.mean, rows.mean(axis=0), atol=tolerance * np.sqrt(scale)
    )
    np.testing.assert_allclose(
        moments.covariance, covariance, atol=tolerance * scale
    )


def between(model, tensor, data):
    """What a tensor inside of a model holds for these inputs."""
    return keras.Model(model.inputs, tensor).predict(data, verbose=0)


def assert_same_moments(a, b):
    np.testing.assert_allclose(a.mean, b.mean, atol=1e-6)
    np.testing.assert_allclose(a.scatter, b.scatter, atol=1e-4)
