"""Prune a model while it is trained: `fit_and_prune`."""

from keras_redundancy.training.driver import fit_and_prune as fit_and_prune
from keras_redundancy.training.results import Cut as Cut, Pruned as Pruned
