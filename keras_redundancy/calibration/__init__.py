"""Calibration: data in, mean and covariance of activations out."""

from keras_redundancy.calibration.gradients import Sensitivity as Sensitivity
from keras_redundancy.calibration.moments import Moments as Moments
from keras_redundancy.calibration.noise import pink_noise as pink_noise
from keras_redundancy.calibration.observer import observe as observe
from keras_redundancy.calibration.reuse import Calibration as Calibration
from keras_redundancy.calibration.synthetic import (
    synthetic_images as synthetic_images,
)
from keras_redundancy.calibration.views import (
    Statistics as Statistics,
    View as View,
    statistics_of as statistics_of,
)
