"""Pink noise takes the place of images."""

import tracemalloc

import numpy as np
import pytest

import keras_redundancy as kr


def test_pink_noise_takes_little_more_memory_than_what_it_returns():
    tracemalloc.start()
    noise = kr.pink_noise((32, 32, 3), samples=128)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2 * noise.nbytes


def test_pink_noise_is_one_filter_of_white_noise():
    """Made in parts, it is what all samples at once would be."""
    sizes, channels = (6, 9), 2
    frequency = np.hypot(*np.meshgrid(*map(np.fft.fftfreq, sizes[::-1])))
    frequency[0, 0] = 1 / max(sizes)
    white = np.random.default_rng(3).normal(size=(80, *sizes, channels))
    spectrum = np.fft.fft2(white, axes=(1, 2)) / frequency[..., None]
    expected = np.fft.ifft2(spectrum, axes=(1, 2)).real
    expected = expected / expected.std() * [2, 3] + [1, -1]
    noise = kr.pink_noise(
        (*sizes, channels), 80, mean=[1, -1], stddev=[2, 3], seed=3
    )
    np.testing.assert_allclose(noise, expected, atol=1e-5)


def test_pink_noise_falls_with_the_frequency():
    noise = kr.pink_noise((32, 32, 2), 256, mean=[1, -1], stddev=[2, 3])
    assert noise.shape == (256, 32, 32, 2)
    assert noise.dtype == np.float32
    np.testing.assert_allclose(noise.mean((0, 1, 2)), [1, -1], atol=0.3)
    np.testing.assert_allclose(noise.std((0, 1, 2)), [2, 3], rtol=0.05)
    power = (np.abs(np.fft.fft(noise[..., 0], axis=1)) ** 2).mean((0, 2))
    slope = np.polyfit(np.log(np.arange(2, 12)), np.log(power[2:12]), 1)[0]
    assert slope < -1
    np.testing.assert_array_equal(
        noise, kr.pink_noise((32, 32, 2), 256, mean=[1, -1], stddev=[2, 3])
    )


@pytest.mark.parametrize(
    "shape", [(3,), (None, 32, 3), (0, 4), (-1, 8, 3), (8.0, 3)]
)
def test_noise_of_no_shape(shape):
    with pytest.raises(ValueError, match="one sample"):
        kr.pink_noise(shape)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"mean": [0, 1]}, "one for each of the 3 channels"),
        ({"mean": "grey"}, "one for each of the 3 channels"),
        ({"stddev": -1}, "cannot be negative"),
    ],
)
def test_noise_of_no_scale(options, words):
    with pytest.raises((TypeError, ValueError), match=words):
        kr.pink_noise((8, 8, 3), 2, **options)
