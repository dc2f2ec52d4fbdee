"""The one room that touches what Keras does not export.

Keras has no public way to walk the graph of a model. Everything this package
needs for that is here, and `tests/_keras/` is the contract: when a Keras
release changes one of the private attributes, those tests say which.
"""

from keras_redundancy._keras.configs import (
    ACTIVATIONS as ACTIVATIONS,
    config_fault as config_fault,
    get_config as get_config,
    has_no_config as has_no_config,
    is_function as is_function,
)
from keras_redundancy._keras.copier import with_opened as with_opened
from keras_redundancy._keras.copying import (
    copy_with_variables as copy_with_variables,
)
from keras_redundancy._keras.gradients import gradients as gradients
from keras_redundancy._keras.graph import (
    Call as Call,
    ImaginedCall as ImaginedCall,
    calls as calls,
    fixed_batch as fixed_batch,
    graph_beside_call as graph_beside_call,
    graph_of as graph_of,
    handed_to as handed_to,
    imagined_call as imagined_call,
    input_structure as input_structure,
    is_model as is_model,
    mask_of as mask_of,
    needed_batch as needed_batch,
    node_of as node_of,
    origin as origin,
    output_structure as output_structure,
    output_tensors as output_tensors,
    replace_arguments as replace_arguments,
    run_for_inference as run_for_inference,
    standardized_inputs as standardized_inputs,
    with_mask as with_mask,
)
from keras_redundancy._keras.layers import (
    BORDER as BORDER,
    attention_projections as attention_projections,
    attention_values as attention_values,
    attributes_of as attributes_of,
    copy_operation as copy_operation,
    flat_layers as flat_layers,
    has_config as has_config,
    has_stock_bases as has_stock_bases,
    is_stock_class as is_stock_class,
    lambda_output_shape as lambda_output_shape,
    models_around as models_around,
    present_pass as present_pass,
    returning_sequences as returning_sequences,
    states_of as states_of,
    trusting_own_objects as trusting_own_objects,
    wraps_one_layer as wraps_one_layer,
)
from keras_redundancy._keras.merging import (
    models_to_merge as models_to_merge,
    sharing_models as sharing_models,
)
from keras_redundancy._keras.models import (
    compile_arguments as compile_arguments,
    compile_is_overridden as compile_is_overridden,
    direction_of_metric as direction_of_metric,
    has_own_config as has_own_config,
    loss_function as loss_function,
    own_attributes as own_attributes,
    plain_class as plain_class,
    rebuildable_class as rebuildable_class,
    with_compile_state_of as with_compile_state_of,
)
from keras_redundancy._keras.opened import (
    Opened as Opened,
    RecordingError as RecordingError,
    opened_from as opened_from,
    put_in_place as put_in_place,
    tensors_in as tensors_in,
    what_and_where as what_and_where,
)
from keras_redundancy._keras.operations import (
    ConvLSTMCell as ConvLSTMCell,
    CustomScaleLayer as CustomScaleLayer,
    LayerScale as LayerScale,
    ReLUOperation as ReLUOperation,
    adds_bias_elsewhere as adds_bias_elsewhere,
    both_operands as both_operands,
    core_operations as core_operations,
    image_operations as image_operations,
    in_order_of_size as in_order_of_size,
    is_added_as_bias as is_added_as_bias,
    linalg_operations as linalg_operations,
    math_operations as math_operations,
    nn_operations as nn_operations,
    numpy_operations as numpy_operations,
)
from keras_redundancy._keras.optimizers import (
    averages_weights as averages_weights,
    copy_weight_decay as copy_weight_decay,
    counters as counters,
    forget_functions as forget_functions,
    resize as resize,
    slots as slots,
)
from keras_redundancy._keras.penalties import penalized as penalized
from keras_redundancy._keras.recording import (
    NO_TENSORS as NO_TENSORS,
    has_state as has_state,
    recorded as recorded,
)
from keras_redundancy._keras.running import (
    flush as flush,
    is_torch_dataloader as is_torch_dataloader,
    local_replicas as local_replicas,
    number_of_batches as number_of_batches,
    numpy_batches as numpy_batches,
    predict_on_replicas as predict_on_replicas,
    quiet_about_retracing as quiet_about_retracing,
    replica_of as replica_of,
    replicas as replicas,
    scope_of as scope_of,
    sharded as sharded,
    without_gradients as without_gradients,
)
from keras_redundancy._keras.symbols import (
    Constant as Constant,
    EachSample as EachSample,
    Weight as Weight,
    returns_weight as returns_weight,
    scaling_equation as scaling_equation,
    stand_for_weight as stand_for_weight,
    stands_for_weight as stands_for_weight,
)
from keras_redundancy._keras.variables import (
    Reads as Reads,
    as_array as as_array,
    is_random_state as is_random_state,
    set_value as set_value,
    shapes_alone as shapes_alone,
    variables_in as variables_in,
    variables_read as variables_read,
)
from keras_redundancy._keras.walk import (
    FlatCall as FlatCall,
    FlatGraph as FlatGraph,
    Interpreter as Interpreter,
    flat_graph as flat_graph,
)
