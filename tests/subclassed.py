"""Subclassed models and layers made of layers, as users write them."""

import keras
from keras import layers, ops


class FeedForward(layers.Layer):
    """Its config sets the width inside."""

    def __init__(self, width, **kwargs):
        super().__init__(**kwargs)
        self.width = width
        self.expand = layers.Dense(width, "relu", name="expand")
        self.drop = layers.Dropout(0.1)

    def build(self, shape):
        self.project = layers.Dense(shape[-1], name="project")
        self.expand.build(shape)
        self.project.build((*shape[:-1], self.width))

    def call(self, x, training=None):
        hidden = self.drop(self.expand(x), training=training)
        return x + self.project(hidden)

    def get_config(self):
        return {**super().get_config(), "width": self.width}


class Scaled(FeedForward):
    """What the config sets is more than a width."""

    def call(self, x):
        return x + self.project(self.expand(x)) / self.width


class TwoWidths(layers.Layer):
    """No argument sets the two widths inside, and there is no config."""

    def __init__(self):
        super().__init__()
        self.first = layers.Dense(8, activation="relu")
        self.second = layers.Dense(8, activation="relu")

    def call(self, x):
        return self.second(self.first(x))


class ResNet(keras.Model):
    def __init__(self):
        super().__init__()
        self.stem = layers.Conv2D(8, 3, padding="same", use_bias=False)
        self.norm = layers.BatchNormalization()
        self.blocks = [
            keras.Sequential(
                [
                    layers.Conv2D(8, 3, padding="same", use_bias=False),
                    layers.BatchNormalization(),
                    layers.ReLU(),
                    layers.Conv2D(8, 3, padding="same"),
                ]
            )
            for _ in range(2)
        ]
        self.pool = layers.GlobalAveragePooling2D()
        self.head = layers.Dense(3)

    def call(self, x, training=None):
        x = ops.relu(self.norm(self.stem(x), training=training))
        for block in self.blocks:
            x = ops.relu(x + block(x, training=training))
        return self.head(self.pool(x))


class UNet(keras.Model):
    def __init__(self):
        super().__init__()
        self.down = [self.convolution(6), self.convolution(8)]
        self.pool = layers.MaxPooling2D()
        self.middle = self.convolution(10)
        self.grow = layers.Conv2DTranspose(8, 2, strides=2)
        self.up = [self.convolution(8), self.convolution(6)]
        self.resize = layers.UpSampling2D()
        self.head = layers.Conv2D(2, 1)

    def convolution(self, filters):
        return layers.Conv2D(filters, 3, padding="same", activation="relu")

    def call(self, x):
        first = self.down[0](x)
        second = self.down[1](self.pool(first))
        x = self.grow(self.middle(self.pool(second)))
        x = self.up[0](ops.concatenate([x, second], axis=-1))
        x = self.up[1](ops.concatenate([self.resize(x), first], axis=-1))
        return self.head(x)


class Encoder(keras.Model):
    """The encoder of a variational autoencoder."""

    def __init__(self):
        super().__init__()
        self.convolution = layers.Conv2D(8, 3, strides=2, activation="relu")
        self.flatten = layers.Flatten()
        self.hidden = layers.Dense(12, activation="relu")
        self.mean = layers.Dense(2)
        self.spread = layers.Dense(2)

    def call(self, x):
        x = self.hidden(self.flatten(self.convolution(x)))
        return self.mean(x), self.spread(x)


class Decoder(keras.Model):
    """Its decoder."""

    def __init__(self):
        super().__init__()
        self.hidden = layers.Dense(4 * 4 * 6, activation="relu")
        self.grow = layers.Conv2DTranspose(
            8, 3, strides=2, padding="same", activation="relu"
        )
        self.image = layers.Conv2D(1, 3, padding="same", activation="sigmoid")

    def call(self, z):
        x = ops.reshape(self.hidden(z), (-1, 4, 4, 6))
        return self.image(self.grow(x))


class Discriminator(keras.Model):
    """That of a DCGAN."""

    def __init__(self):
        super().__init__()
        self.convolutions = [
            layers.Conv2D(filters, 4, strides=2, padding="same")
            for filters in (8, 12)
        ]
        self.norm = layers.BatchNormalization()
        self.slope = layers.LeakyReLU(0.2)
        self.flatten = layers.Flatten()
        self.head = layers.Dense(1)

    def call(self, x, training=False):
        x = self.slope(self.convolutions[0](x))
        x = self.norm(self.convolutions[1](x), training=training)
        return self.head(self.flatten(self.slope(x)))


class ResidualTCN(layers.Layer):
    """A gated block of a WaveNet."""

    def __init__(self, dilation, **kwargs):
        super().__init__(**kwargs)
        options = {"padding": "causal", "dilation_rate": dilation}
        self.value = layers.Conv1D(8, 2, activation="tanh", **options)
        self.gate = layers.Conv1D(8, 2, activation="sigmoid", **options)
        self.project = layers.Conv1D(6, 1)

    def call(self, x):
        return x + self.project(self.value(x) * self.gate(x))


class TCN(keras.Model):
    def __init__(self):
        super().__init__()
        self.stem = layers.Conv1D(6, 1)
        self.blocks = [ResidualTCN(2**i) for i in range(2)]
        self.head = layers.Conv1D(2, 1)

    def call(self, x):
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x)


class Mixer(keras.Model):
    """An MLP-Mixer."""

    def __init__(self):
        super().__init__()
        self.stem = layers.Conv2D(8, 4, strides=4)
        self.rows = layers.Reshape((4, 8))
        self.norms = [layers.LayerNormalization() for _ in range(2)]
        self.tokens = [layers.Dense(10, activation="gelu"), layers.Dense(4)]
        self.channels = [layers.Dense(16, activation="gelu"), layers.Dense(8)]
        self.head = layers.Dense(3)

    def call(self, x):
        x = self.rows(self.stem(x))
        y = ops.transpose(self.norms[0](x), (0, 2, 1))
        y = self.tokens[1](self.tokens[0](y))
        x = x + ops.transpose(y, (0, 2, 1))
        x = x + self.channels[1](self.channels[0](self.norms[1](x)))
        return self.head(ops.mean(x, axis=1))


class ViT(keras.Model):
    def __init__(self):
        super().__init__()
        self.stem = layers.Conv2D(8, 4, strides=4)
        self.positions = layers.Embedding(4, 8)
        self.norms = [layers.LayerNormalization() for _ in range(2)]
        self.attention = layers.MultiHeadAttention(4, 2)
        self.expand = layers.Dense(16, activation="gelu")
        self.project = layers.Dense(8)
        self.head = layers.Dense(3)

    def call(self, x, training=None):
        x = self.stem(x)
        batch, height, width, channels = ops.shape(x)
        x = ops.reshape(x, (batch, height * width, channels))
        x = x + self.positions(ops.arange(height * width))
        y = self.norms[0](x)
        x = x + self.attention(y, y, training=training)
        x = x + self.project(self.expand(self.norms[1](x)))
        return self.head(x[:, 0])


class Translator(keras.Model):
    """From one sequence to another, with two LSTMs."""

    def __init__(self):
        super().__init__()
        self.words = layers.Embedding(11, 6)
        self.encoder = layers.LSTM(7, return_state=True)
        self.decoder = layers.LSTM(7, return_sequences=True)
        self.hidden = layers.Dense(12, activation="relu")
        self.head = layers.Dense(11)

    def call(self, inputs):
        _, *states = self.encoder(self.words(inputs["source"]))
        x = self.decoder(self.words(inputs["target"]), initial_state=states)
        return self.head(self.hidden(x))


class Siamese(keras.Model):
    def __init__(self):
        super().__init__()
        self.tower = keras.Sequential(
            [layers.Dense(12, activation="relu"), layers.Dense(6)]
        )
        self.head = layers.Dense(1)

    def call(self, pair):
        a, b = (self.tower(x) for x in pair)
        return self.head(ops.abs(a - b))


class Early(keras.Model):
    """It stops early where the values are small: no graph says that."""

    def __init__(self):
        super().__init__()
        self.first, self.second = layers.Dense(4), layers.Dense(4)

    def call(self, x):
        x = self.first(x)
        if ops.max(x) < 0.5:
            return x
        return self.second(x)
