"""Noise in measured times does not decide how much is cut."""

import dataclasses

import numpy as np
import pytest

from keras_redundancy.planning.budgets import OutOfReachError
from keras_redundancy.planning.latency import RACES, least_cut_within


@dataclasses.dataclass
class Race:
    """A model that takes `fixed` of the time however much of it is cut."""

    fixed: float
    noise: float
    runs: int = 0

    def __post_init__(self):
        self.rng = np.random.default_rng(0)

    def cut_to(self, left):
        """As decisions, the units that are left of 1,000."""
        if left < 0.02:
            raise OutOfReachError
        selection = dataclasses.make_dataclass("Selection", ["kept"])
        kept = selection(range(round(1000 * left)))
        return [dataclasses.make_dataclass("One", ["selection"])(kept)]

    def race_with(self, decisions):
        left = len(decisions[0].selection.kept) / 1000

        def race():
            self.runs += 1
            time = self.fixed + (1 - self.fixed) * left
            return time + self.rng.normal(scale=self.noise)

        return race

    def cut_within(self, share):
        """(The share of the units that is left, the measured time)."""
        decisions, time = least_cut_within(share, self.cut_to, self.race_with)
        return len(decisions[0].selection.kept) / 1000, time


def test_without_noise_the_least_cut_is_found():
    race = Race(fixed=0.2, noise=0.0)
    left, time = race.cut_within(0.6)
    assert 0.49 <= left <= 0.5
    assert time == pytest.approx(0.2 + 0.8 * left)
    assert race.runs <= 9 * RACES


def test_little_noise_is_averaged():
    left, time = Race(fixed=0.2, noise=0.02).cut_within(0.6)
    assert 0.45 < left < 0.55
    assert time <= 0.6


def test_noise_that_decides_is_noticed():
    """The time of a tiny network hardly depends on its units."""
    race = Race(fixed=0.9, noise=0.08)
    with pytest.warns(UserWarning, match="Noise hides which plan meets"):
        left, time = race.cut_within(0.9)
    assert left >= 0.4
    assert time > 0.85
    assert race.runs > 9 * RACES


def test_time_that_does_not_fall():
    race = Race(fixed=0.93, noise=0.05)
    with pytest.raises(OutOfReachError, match="1 cuts that were timed"):
        race.cut_within(0.9)


def test_nothing_that_can_be_cut():
    race = Race(fixed=0.5, noise=0.0)
    race.cut_to = lambda left: race.__class__.cut_to(race, 0)
    with pytest.raises(OutOfReachError, match=r"takes 100\.0%"):
        race.cut_within(0.9)
