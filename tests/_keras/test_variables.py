"""The variables that a layer reads."""

import keras
import numpy as np
from keras import layers

from keras_redundancy import _keras
from tests import models


def test_the_variables_that_a_layer_reads():
    other, flag, also = (keras.Variable(np.ones(3, "float32")) for _ in "abc")
    random = keras.random.SeedGenerator(1)

    class Reads(layers.Layer):
        def build(self, shape):
            self.own = self.add_weight(shape=(3,), name="own")

        def call(self, x, also=None):
            flag.assign(flag + other)
            noise = keras.random.normal((3,), seed=random)
            return x * self.own * other + noise + also

    layer = Reads()
    x = keras.Input((3,))
    layer(x, also=also)
    read = _keras.variables_read(layer, (x,), {"also": also})
    states = [v for v in read if _keras.is_random_state(v)]
    # On PyTorch nothing is drawn where a layer runs on symbols.
    drawn = keras.backend.backend() != "torch"
    assert [*map(id, states)] == [id(random.state)] * drawn
    expected = [other, flag, layer.own, also, *states]
    assert {id(v) for v in read} == {id(v) for v in expected}
    np.testing.assert_array_equal(models.numpy(flag), np.ones(3))


def test_what_a_layer_read_before_it_failed():
    other = keras.Variable(np.ones(3, "float32"))

    class Fails(layers.Layer):
        def call(self, x):
            raise RuntimeError(str(models.numpy(other)))

    read = _keras.variables_read(Fails(), (keras.Input((3,)),), {})
    assert read == [other]
