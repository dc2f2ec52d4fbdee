"""Rules that a test registers."""

import pytest

from keras_redundancy.channels.rules import registry


@pytest.fixture
def rules_of_one_test():
    """What a test registers is forgotten after it."""
    before = dict(registry.rule.registry)
    yield
    for cls in set(registry.rule.registry) - set(before):
        registry.rule.register(cls)(registry.rule.registry[object])
