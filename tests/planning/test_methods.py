"""Methods are objects: what they take, what is refused, and one's own."""

import inspect

import keras
import numpy as np
import pytest

import keras_redundancy as kr
from tests import models

METHODS = {
    "clusters": kr.Clusters,
    "random": kr.Random,
    "l1": kr.L1,
    "fpgm": kr.FPGM,
    "greedy": kr.Greedy,
    "pivoted": kr.Pivoted,
    "taylor": kr.Taylor,
}
ABSORBS = {
    "merge": kr.Merge,
    "drop": kr.Drop,
    "affine": kr.Affine,
    "least_squares": kr.LeastSquares,
}


def kept(plan):
    return [d.selection.kept.tolist() for d in plan.decisions]


@pytest.fixture
def model():
    model = models.randomized(models.mlp())
    models.plant(model)
    return model


@pytest.fixture
def data(model):
    return models.random_inputs(model, batch=100)


# --- objects and short names ------------------------------------------------


@pytest.mark.parametrize("name", METHODS)
def test_a_short_name_is_an_object(model, data, name):
    options = {"ratio": 0.4, "mend": False, "data": data}
    method = METHODS[name]
    seed = {"seed": 1} if name == "random" else {}
    by_object = kr.plan(model, method(**seed), **options)
    for same in (
        kr.plan(model, name, **options, **seed),
        kr.plan(model, select=name, **options, **seed),
        kr.plan(model, select=method(**seed), **options),
        kr.plan(model, method(), **options, **seed),
    ):
        assert kept(same) == kept(by_object)
    assert len(by_object["dense"].selection.kept) == 10


def test_an_object_takes_all_that_options_say(model):
    said = kr.Clusters(0.9, linkage="single", keep="mean", criterion="folded")
    plan = kr.plan(model, said)
    same = kr.plan(
        model, tau=0.9, linkage="single", keep="mean", criterion="folded"
    )
    assert kept(plan) == kept(same)
    assert plan.keep == same.keep == "mean"
    models.assert_same_function(plan.apply(), same.apply(), tolerance=0)
    by_layer = kr.plan(model, kr.Clusters({"dense": 0.9999}))
    assert kept(by_layer) == kept(kr.plan(model, {"dense": 0.9999}))


def test_levels_of_objects(model, data):
    assert kept(kr.plan(model, kr.Greedy(0.99), data=data)) == kept(
        kr.plan(model, correlation=0.99, data=data)
    )
    at_random = kr.plan(model, kr.Random(0.9999, seed=1))
    clusters = kr.plan(model, 0.9999)
    assert models.widths(at_random) == models.widths(clusters)


@pytest.mark.parametrize("name", ABSORBS)
def test_what_consumers_read_is_an_object(model, data, name):
    options = {"ratio": 0.4, "mend": False, "data": data}
    by_name = kr.prune(model, absorb=name, **options)
    by_object = kr.prune(model, absorb=ABSORBS[name](), **options)
    models.assert_same_function(by_name, by_object, tolerance=0)


def test_mend_is_one_value(model, data):
    def repair(**options):
        return kr.plan(model, ratio=0.4, data=data, **options).repair

    assert repair(mend=False) is None
    assert repair(repair=False) is None
    rounds = [
        repair(**options).rounds
        for options in (
            {},
            {"mend": True},
            {"rounds": 2},
            {"mend": kr.Mend(rounds=2)},
            {"mend": kr.Mend(0)},
        )
    ]
    assert rounds == [1, 1, 2, 2, 0]


@pytest.mark.parametrize(
    "kind", [*METHODS.values(), *ABSORBS.values(), kr.Mend]
)
def test_configs_and_reprs(kind):
    made = kind()
    assert repr(made) == f"{kind.__name__}()"
    assert kind.from_config(made.get_config()) == made
    parameters = inspect.signature(kind).parameters
    assert set(made.get_config()) == set(parameters)
    assert "Source:" in kind.__doc__


def test_a_repr_shows_what_was_said():
    method = kr.Clusters(0.9, keep="largest")
    assert repr(method) == "Clusters(tau=0.9, keep='largest')"
    assert kr.Clusters.from_config(method.get_config()) == method
    by_layer = kr.Clusters(models.numpy)
    assert repr(by_layer) == "Clusters(tau=numpy)"


# --- methods of one's own ---------------------------------------------------


class Spread(kr.Method):
    """Ten lines in one file: units whose weights spread most stay."""

    def scores(self, units):
        return units.filters.std(axis=0)


def spread(units):
    return units.filters.std(axis=0)


class OnlyScores:
    """An object of no class of the package."""

    scores = staticmethod(spread)


@pytest.mark.parametrize("method", [Spread(), spread, OnlyScores()])
@pytest.mark.parametrize("level", [{"ratio": 0.5}, {"target": {"flops": 0.5}}])
def test_methods_of_ones_own(model, method, level):
    plan = kr.plan(model, method, **level)
    for decision in plan.decisions[:2]:
        kernel = models.numpy(decision.space.producers[0].kernel)
        order = np.argsort(-kernel.std(axis=0), kind="stable")
        count = len(decision.selection.kept)
        assert 0 < count < decision.space.size
        assert decision.selection.kept.tolist() == sorted(order[:count])
    small = plan.apply()
    assert small.count_params() == plan.parameters[1] < model.count_params()


def test_what_a_function_gets_to_know(model, data):
    seen = {}

    def score(units):
        seen[units.name] = units
        return units.norms

    kr.plan(model, score, ratio=0.25, data=data, absorb="drop", mend=False)
    units = seen["dense_1"]
    (layer,) = units.layers
    assert layer is model.layers[1]
    kernel = models.numpy(layer.kernel)
    np.testing.assert_array_equal(units.filters, kernel[:, units.numbers])
    norms = np.linalg.norm(units.filters, axis=0)
    np.testing.assert_allclose(units.norms, norms, rtol=1e-6)
    (reader,) = units.readers
    assert reader.layer is model.layers[2]
    read = keras.Model(model.inputs, layer.output).predict(data, verbose=0)
    read = read[:, units.numbers]
    np.testing.assert_allclose(reader.mean, read.mean(axis=0), rtol=1e-4)
    covariance = np.cov(read, rowvar=False, bias=True)
    np.testing.assert_allclose(reader.covariance, covariance, atol=1e-4)
    with pytest.raises(ValueError, match="read-only"):
        units.filters[0, 0] = 1


def test_a_function_may_want_folded_filters():
    model = models.randomized(models.vgg())
    plain, folded = (
        kr.plan(model, lambda u: u.norms, ratio=0.5, criterion=criterion)
        for criterion in ("filters", "folded")
    )
    assert kept(plain) != kept(folded)


def test_a_function_without_ratio_is_a_tau_by_layer(model):
    plan = kr.plan(model, lambda layer: 0.9 if layer.name == "dense" else None)
    assert [d.tau for d in plan.decisions] == [0.9, None, None]
    with pytest.raises(AttributeError) as caught:
        kr.plan(model, spread)
    assert "ratio=" in caught.value.__notes__[0]


def test_a_function_of_units_that_fails_says_what_units_have():
    with pytest.raises(AttributeError) as caught:
        kr.plan(models.mlp(), lambda units: units.weights, ratio=0.5)
    assert "16 units of dense, which have filters" in caught.value.__notes__[0]


# --- bad input --------------------------------------------------------------


@pytest.mark.parametrize(
    ("scores", "error", "words"),
    [
        (lambda u: u.filters, ValueError, r"shape \(12, 16\) for the 16 units"),
        (lambda u: u.norms[1:], ValueError, r"\(15,\) for the 16 units"),
        (lambda u: 1.0, ValueError, r"shape \(\)"),
        (lambda u: None, ValueError, "returned None for the 16 units"),
        (lambda u: ["a"] * len(u), TypeError, "no numbers"),
        (
            lambda u: u.norms * np.nan,
            ValueError,
            "NaN for the 16 units of dense, for 16",
        ),
    ],
)
def test_scores_that_are_none(scores, error, words):
    model = models.randomized(models.mlp())
    with pytest.raises(error, match=words) as caught:
        kr.plan(model, scores, ratio=0.5)
    assert "of dense" in str(caught.value)
    assert "one number for each unit" in str(caught.value)


class NoScores(kr.Method):
    pass


@pytest.mark.parametrize(
    ("arguments", "options", "error", "words"),
    [
        ([kr.Merge()], {"ratio": 0.5}, TypeError, r"absorb=Merge\(\)"),
        ([kr.Mend()], {"ratio": 0.5}, TypeError, r"mend=Mend\(\)"),
        ([], {"ratio": 0.5, "absorb": kr.L1()}, TypeError, "first argument"),
        ([], {"ratio": 0.5, "absorb": 3}, TypeError, "received 3"),
        ([], {"ratio": 0.5, "mend": "yes"}, TypeError, r"kr.Mend\(rounds=2\)"),
        ([], {"ratio": 0.5, "mend": kr.Drop()}, TypeError, r"Drop\(\)"),
        (
            [kr.L1],
            {"ratio": 0.5},
            TypeError,
            r"made with its options: L1\(\)",
        ),
        ([], {"ratio": 0.5, "select": 3}, TypeError, "3 is no selection"),
        (["best"], {"ratio": 0.5}, ValueError, "'clusters', 'random'"),
        ([0.9], {"tau": 0.9}, TypeError, "given twice"),
        (["l1"], {"ratio": 0.5, "select": "l1"}, TypeError, "given twice"),
        ([kr.Clusters(0.9)], {"ratio": 0.5}, TypeError, r"in Clusters\(tau=0"),
        ([kr.Clusters()], {}, TypeError, "received none of them"),
        ([kr.L1()], {"tau": 0.9}, ValueError, r"go with L1\(\), which ranks"),
        ([kr.Greedy(0.9)], {}, ValueError, "cannot do without data"),
        (
            [kr.Random(linkage="single")],
            {"ratio": 0.5},
            ValueError,
            "no effect",
        ),
        (
            [kr.Clusters()],
            {"ratio": 0.5, "linkage": "single"},
            ValueError,
            r"Say it there: Clusters\(linkage='single'\)",
        ),
        (
            [kr.L1()],
            {"ratio": 0.5, "linkage": "single"},
            ValueError,
            r"L1\(\) does not take it \(it takes criterion\)",
        ),
        (
            [kr.Clusters(0.9, keep="mean")],
            {"absorb": kr.Drop()},
            ValueError,
            r"keep='mean' does not go with Drop\(\)",
        ),
        ([], {"ratio": 0.5, "mend": kr.Mend()}, ValueError, "without data="),
        (
            [],
            {"ratio": 0.5, "mend": False, "rounds": 2},
            TypeError,
            "say the same thing",
        ),
        ([0.9], {"min_unit": 3}, TypeError, "Did you mean min_units="),
        ([], {"ratios": 0.3}, TypeError, "Did you mean ratio="),
        ([], {"ratio": 0.5, "absorb": kr.Drop}, TypeError, r"object, Drop\(\)"),
        (
            [lambda units: units.norms],
            {"tau": 0.5},
            ValueError,
            "go with the function .*<lambda>, which ranks",
        ),
        ([NoScores()], {"ratio": 0.5}, NotImplementedError, "define scores"),
    ],
)
def test_objects_where_another_kind_belongs(arguments, options, error, words):
    model = models.randomized(models.mlp())
    for function in (kr.plan, kr.prune):
        with pytest.raises(error, match=words):
            function(model, *arguments, **options)


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: kr.Clusters(2.0), ValueError),
        (lambda: kr.Clusters("single"), TypeError),
        (lambda: kr.Clusters(linkage="none"), ValueError),
        (lambda: kr.Clusters(keep="best"), ValueError),
        (lambda: kr.L1("best"), ValueError),
        (lambda: kr.L1(0.5), TypeError),
        (lambda: kr.Random(seed=-1), ValueError),
        (lambda: kr.Greedy(1.5), ValueError),
        (lambda: kr.Mend(-1), ValueError),
        (lambda: kr.L1(linkage="single"), TypeError),
    ],
)
def test_an_object_refuses_what_it_does_not_take(make, error):
    with pytest.raises(error):
        make()
