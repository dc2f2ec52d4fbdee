"""Something to calibrate on where there is no data at all."""

import numpy as np

from keras_redundancy.options import check_count, check_seed


def pink_noise(
    shape, samples: int = 2048, *, mean=0.0, stddev=1.0, seed: int = 0
) -> np.ndarray:
    """Noise with the spectrum of natural images, to calibrate on without data.

    The amplitude falls with the frequency f as 1/f, along all axes but the
    last: what neighbours hold is alike, as in photographs or sound. It tells
    less than real samples do, and not of every network more than its filters:
    of the three in the README, of one.

    Args:
        shape: that of a sample, the channels last, such as (32, 32, 3).
        samples: how many.
        mean, stddev: those of the model's training data as it was fed in,
            numbers or an array with one for each channel.
        seed: of the random numbers.

    Returns:
        A float32 array of shape (samples, *shape).

    Raises:
        ValueError: `shape` has an open size or no axis beside the channels.

    Source: Field, Relations between the Statistics of Natural Images and the
    Response Properties of Cortical Cells (1987).
    """
    check_count("samples", samples)
    check_seed(seed)
    if len(shape) < 2 or not all(shape):
        raise ValueError(
            f"shape is {shape}, but it has to be that of one sample, all "
            "sizes known, with a channel axis and at least one before it, "
            "such as (32, 32, 3)."
        )
    sizes = shape[:-1]
    frequency = np.sqrt(
        sum(
            f**2
            for f in np.meshgrid(*map(np.fft.fftfreq, sizes), indexing="ij")
        )
    )
    frequency.flat[0] = 1 / max(sizes)
    axes = tuple(range(1, len(shape)))
    noise = np.random.default_rng(seed).normal(size=(samples, *shape))
    spectrum = np.fft.fftn(noise, axes=axes) / frequency[..., None]
    noise = np.fft.ifftn(spectrum, axes=axes).real
    noise /= noise.std()
    return (noise * stddev + mean).astype(np.float32)
