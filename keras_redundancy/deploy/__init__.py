"""From a pruned model to where it runs: tf_keras, LiteRT, ONNX, SavedModel."""

from keras_redundancy.deploy.bridge import (
    from_tf_keras as from_tf_keras,
    to_tf_keras as to_tf_keras,
)
from keras_redundancy.deploy.exporting import (
    Exported as Exported,
    ExportedFile as ExportedFile,
    export as export,
    litert as litert,
)
