"""What callers of this package have written goes on working."""

import keras_redundancy as kr
from tests import models

# Of the package before its modules were sorted into rooms.
NAMES = """
    CallTrace Channels FactorizedConv2D FactorizedDense FrobeniusNorm
    FrobeniusNormalization NoiseOutputs RaReRegularizer analyze apply_rare
    calibrate cluster_filters compact compare difference factorize
    fit_and_prune flops hidden_widths merge_correlated pink_noise plan prune
    redundancy register_rule search sensitivity strip svcca to_dense trace
    callbacks.DynamicLowRank callbacks.RedundancyMonitor plots.activations
    plots.filters_by_cluster plots.redundancy plots.score_against_flops
    plots.sensitivity plots.similarity_heatmap plots.similarity_histograms
    plots.singular_values plots.training channels.ChannelGraph channels.Role
    channels.Space channels.SpaceAxis channels.VariableAxis layers.NoiseOutputs
    regularizers.RaReRegularizer constraints.FrobeniusNorm
"""
OPTIONS = {
    **{"tau": 0.9, "ratio": None, "target": None, "correlation": None},
    **{"data": None, "batch_size": 8, "steps": None, "input_shape": None},
    **{"criterion": "filters", "select": "clusters", "linkage": "average"},
    **{"keep": "medoid", "absorb": "merge", "repair": None, "rounds": None},
    **{"layers": None, "skip": None, "round_to": 1, "min_units": 1},
    **{"seed": 0, "allow_inexact": False, "optimizer": False},
}


def test_public_names_are_there():
    missing = []
    for path in NAMES.split():
        found = kr
        for name in path.split("."):
            found = getattr(found, name, None)
        missing += [] if callable(found) else [path]
    assert not missing


def test_options_of_plan_have_their_names():
    plan = kr.plan(models.mlp(), **OPTIONS)
    assert repr(plan.compared.method) == "Clusters(seed=0)"
    assert plan.decisions[0].tau == 0.9


def test_tab_completion_and_help_show_the_public_names():
    shown = {name for name in dir(kr) if not name.startswith("_")}
    assert {path.split(".")[0] for path in NAMES.split()} <= shown
    assert not {"building", "planning", "_keras"} & shown
    functions = {name for name in shown if callable(getattr(kr, name))}
    assert [x for x in sorted(functions) if f"`{x}`" not in kr.__doc__] == []
