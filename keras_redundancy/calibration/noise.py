"""Pink noise, to calibrate on where there are no data."""

import numbers

import numpy as np

from keras_redundancy._shared.arguments import check_count, check_seed

# The most numbers that are made at a time.
PART = 2**17


def pink_noise(
    shape, samples: int = 2048, *, mean=0.0, stddev=1.0, seed: int = 0
) -> np.ndarray:
    """Noise with the spectrum of natural images, to calibrate on without data.

    The amplitude falls with the frequency f as 1/f, along all axes but the
    last, so that neighbouring pixels are similar, as in photographs or sound.
    Real samples are better, and `synthetic_images` where the model has a
    `BatchNormalization`. Compare with pruning without data before you use
    it: of three networks in examples/accuracy.md, noise was better for one.

    Args:
        shape: the shape of a sample, channels last, such as (32, 32, 3).
        samples: the number of samples.
        mean, stddev: mean and standard deviation of the data that the model
            was trained on, after preprocessing: numbers, or an array with one
            for each channel.
        seed: of the random numbers.

    Returns:
        A float32 array of shape (samples, *shape).

    Raises:
        ValueError: `shape` has an open size or no axis beside the channels;
            or `mean` or `stddev` is not as it has to be.

    Source: Field, Relations between the Statistics of Natural Images and the
    Response Properties of Cortical Cells (1987).
    """
    check_count("samples", samples)
    check_seed(seed)
    is_shape = isinstance(shape, list | tuple) and all(
        isinstance(size, numbers.Integral) and size > 0 for size in shape
    )
    if not is_shape or len(shape) < 2:
        raise ValueError(
            f"shape is {shape!r}, but it has to be the shape of one sample: "
            "all sizes known, a channel axis and at least one axis before it, "
            "such as (32, 32, 3)."
        )
    _check_of_channels("mean", mean, shape)
    _check_of_channels("stddev", stddev, shape)
    if np.min(stddev) < 0:
        raise ValueError(f"stddev is {stddev!r}, but it cannot be negative.")
    noise = np.empty((samples, *shape), np.float32)
    parts = _parts(noise)
    rng, falloff = np.random.default_rng(seed), _falloff(shape[:-1])
    total = squares = 0.0
    for part in parts:
        pink = _filtered(rng.normal(size=part.shape), falloff)
        total += pink.sum()
        squares += np.square(pink).sum()
        part[...] = pink
    variance = squares / noise.size - (total / noise.size) ** 2
    scale = np.asarray(stddev) / np.sqrt(variance)
    for part in parts:
        part[...] = part * scale + mean
    return noise


def _check_of_channels(name, value, shape):
    try:
        np.broadcast_to(np.asarray(value, float), shape)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{name} is {value!r}, but it has to be a number, or one for each "
            f"of the {shape[-1]} channels."
        ) from error


def _parts(noise):
    """Slices of the samples, small ones, so that memory is too."""
    samples = len(noise)
    most = max(1, min(PART * samples // noise.size, samples // 32))
    return [noise[i : i + most] for i in range(0, samples, most)]


def _falloff(sizes):
    """1 / f for the frequencies of `rfftn` over axes of these sizes."""
    along = [*map(np.fft.fftfreq, sizes[:-1]), np.fft.rfftfreq(sizes[-1])]
    grid = np.meshgrid(*along, indexing="ij", sparse=True)
    frequency = np.sqrt(sum(f**2 for f in grid))
    frequency.flat[0] = 1 / max(sizes)
    return 1 / frequency


def _filtered(noise, falloff):
    """Multiply the spectrum of noise, shape (samples, *sizes, channels)."""
    axes = tuple(range(1, noise.ndim - 1))
    spectrum = np.fft.rfftn(noise, axes=axes)
    spectrum *= falloff[..., None]
    return np.fft.irfftn(spectrum, noise.shape[1:-1], axes=axes)
