"""Cut, evaluate, and learn from it: sensitivity, search, compare."""

import json

import keras
import numpy as np
import pytest
from keras import layers

import keras_redundancy as kr
from keras_redundancy.evaluation.trials import Trials, score_of
from tests import models
from tests.evaluation.planted import QUIET, Likeness, planted

NEAR = -1e-5


# --- sensitivity ------------------------------------------------------------


def test_one_part_is_cut_at_a_time():
    model = planted()
    evaluate = Likeness(model)
    found = kr.sensitivity(
        model, evaluate, [0.999, 0.2], select="clusters", **QUIET
    )
    whole, *cuts = evaluate.seen
    assert whole == [12, 8, 3]
    assert next(first for first, second, _ in cuts if second == 8) == 8
    assert all(12 in cut or 8 in cut for cut in cuts)
    first, second = found.trials
    assert (first.name, first.size) == ("first", 12)
    # Copies cost nothing, all else does.
    for part in (first, second):
        assert found.drops(part)[0] < -NEAR < found.drops(part)[1]
        assert found.depth_within(part, -NEAR) == 1


def test_what_a_trial_leaves_is_what_the_model_has():
    model = planted()
    small = []

    def evaluate(model):
        small.append((kr.flops(model), model.count_params()))
        return 0.0

    found = kr.sensitivity(model, evaluate, ratios=[0.25, 0.5], **QUIET)
    trials = [found.base, *(t for ts in found.trials.values() for t in ts)]
    for trial, (flops, parameters) in zip(trials, small, strict=True):
        assert trial.flops == flops / small[0][0]
        assert trial.parameters == parameters / small[0][1]


def test_levels_go_from_the_gentlest():
    model, evaluate = planted(), lambda model: 1.0
    by_tau = kr.sensitivity(model, evaluate, (0.5, 0.9), **QUIET)
    assert (by_tau.how, by_tau.levels) == ("tau", (0.9, 0.5))
    levels = (tau for tau in (0.5, 0.9))
    assert kr.sensitivity(model, evaluate, levels, **QUIET).levels == (0.9, 0.5)
    assert kr.sensitivity(model, evaluate, 0.9, **QUIET).levels == (0.9,)
    by_ratio = kr.sensitivity(model, evaluate, **QUIET)
    assert by_ratio.how == "ratio"
    assert by_ratio.levels[0] == 0.125
    assert by_ratio.levels[-1] == 0.875


def test_a_stream_is_one_part():
    model = models.randomized(models.residual())
    found = kr.sensitivity(model, lambda m: 0.0, ratios=[0.5], **QUIET)
    streams = [part for part in found.trials if len(part.layers) > 1]
    assert streams
    for part, (trial,) in found.trials.items():
        assert trial.parameters < 1, part


def test_a_sensitivity_is_shown_and_told():
    model = planted()
    found = kr.sensitivity(model, Likeness(model), ratios=[0.5], **QUIET)
    text = str(found)
    assert "first" in text
    assert "ratio 0.5" in text
    assert "uncut" in text
    told = json.loads(json.dumps(found.to_dict()))
    assert told["parts"][0]["layers"] == ["first"]
    assert told["parts"][0]["trials"][0]["score"] < 0


def test_a_sensitivity_is_drawn():
    model = planted()
    taus = [0.9, 0.5, 0.1]
    figure = kr.sensitivity(model, Likeness(model), taus, **QUIET).plot()
    (axes,) = figure.axes
    lines = [line.get_label() for line in axes.lines]
    assert lines == ["first", "second", "uncut"]
    assert list(axes.lines[0].get_xdata()) == taus


# --- search -----------------------------------------------------------------


@pytest.mark.parametrize("with_data", [False, True])
def test_a_search_stays_above_its_floor(with_data):
    model = planted()
    evaluate = Likeness(model)
    before = model.get_weights()
    options = QUIET
    if with_data:
        data = models.random_inputs(model, batch=200)
        options = {**QUIET, "data": data, "rounds": 0}
    found = kr.search(model, evaluate, max_drop=0.1, **options)
    assert found.trial.score >= found.floor == found.base.score - 0.1
    assert found.trial.flops < 0.9
    small = found.apply()
    assert evaluate(small) == pytest.approx(found.trial.score, abs=1e-5)
    assert kr.flops(small) == found.trial.flops * kr.flops(model)
    assert "score" in str(found)
    assert "score" in found._repr_html_()
    assert json.loads(json.dumps(found.to_dict()))["floor"] == found.floor
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_a_search_finds_the_copies():
    model = planted()
    found = kr.search(
        model,
        Likeness(model),
        max_drop=1e-5,
        taus=[0.999, 0.5],
        **QUIET,
    )
    kept = {name: kept for name, (kept, _) in models.widths(found.plan).items()}
    assert kept == {"first": 8, "second": 6, "last": 3}


def test_no_cut_that_was_tried_is_above_the_floor_and_cheaper():
    model = planted()
    found = kr.search(model, Likeness(model), max_drop=0.1, **QUIET)
    allowed = [t.flops for t in found.tried if t.score >= found.floor]
    assert found.trial.flops == min(allowed)


def test_where_nothing_may_go_nothing_goes():
    model = models.randomized(models.mlp())
    wanted = [layer.output.shape for layer in model.layers]

    def evaluate(model):
        return float([layer.output.shape for layer in model.layers] == wanted)

    found = kr.search(model, evaluate, max_drop=0.5, **QUIET)
    assert found.trial.flops == 1
    models.assert_same_function(model, found.apply())


# --- the log ----------------------------------------------------------------


def test_a_log_is_gone_on_with(tmp_path):
    model, log = planted(), tmp_path / "log"
    evaluate = Likeness(model)

    def stops(model):
        if len(evaluate.seen) == 5:
            raise RuntimeError("the machine is out of disk")
        return evaluate(model)

    options = {"ratios": [0.25, 0.5, 0.75], "log": log, **QUIET}
    with pytest.raises(RuntimeError, match="out of disk"):
        kr.sensitivity(model, stops, **options)
    assert len(log.read_text().splitlines()) == 1 + 5
    with log.open("a") as file:
        file.write('["{\\"second')  # A crash in the middle of a line.
    found = kr.sensitivity(model, evaluate, **options)
    assert len(evaluate.seen) == 1 + 2 * 3
    again = kr.sensitivity(model, evaluate, **options)
    assert len(evaluate.seen) == 1 + 2 * 3
    assert found.to_dict() == again.to_dict()
    without = kr.sensitivity(model, evaluate, **{**options, "log": None})
    assert without.to_dict() == again.to_dict()
    # A search goes on from it.
    more = {"max_drop": 0.1} | options
    count = len(evaluate.seen)
    searched = kr.search(model, evaluate, **more)
    assert 0 < len(evaluate.seen) - count <= len(searched.tried)
    count = len(evaluate.seen)
    assert kr.search(model, evaluate, **more).tried == searched.tried
    assert len(evaluate.seen) == count


def test_a_log_of_other_weights_or_options_is_refused(tmp_path):
    model, log = planted(), tmp_path / "log"
    options = {"ratios": [0.5], "log": log, **QUIET}
    kr.sensitivity(model, lambda m: 0.0, **options)
    before = log.read_bytes()
    with pytest.raises(ValueError, match="Name another file"):
        kr.sensitivity(model, lambda m: 0.0, select="fpgm", **options)
    model.layers[0].bias.assign(model.layers[0].bias + 1)
    with pytest.raises(ValueError, match="Name another file"):
        kr.sensitivity(model, lambda m: 0.0, **options)
    assert log.read_bytes() == before
    for text in ("accuracy 0.9\n", "a note without an end of line"):
        log.write_text(text)
        with pytest.raises(ValueError, match="Name another file"):
            kr.sensitivity(model, lambda m: 0.0, **options)
        assert log.read_text() == text


def test_a_log_in_no_folder_or_over_one_is_refused(tmp_path):
    options = {"ratios": [0.5], **QUIET}
    with pytest.raises(IsADirectoryError, match="is a folder, and what is in"):
        kr.sensitivity(planted(), lambda m: 0.0, log=tmp_path, **options)
    missing = tmp_path / "none" / "log"
    with pytest.raises(ValueError, match=r"no folder .*none.* to write 'log'"):
        kr.sensitivity(planted(), lambda m: 0.0, log=missing, **options)


@pytest.mark.parametrize("length", [0, 1, 20])
def test_a_log_cut_short_in_its_first_line_begins_anew(tmp_path, length):
    model, log = planted(), tmp_path / "log"
    options = {"ratios": [0.5], "log": log, **QUIET}
    kr.sensitivity(model, lambda m: 0.0, **options)
    whole = log.read_bytes()
    log.write_bytes(whole[:length])
    kr.sensitivity(model, lambda m: 0.0, **options)
    assert log.read_bytes() == whole


def test_a_method_object_is_searched_with(tmp_path):
    model, log = planted(), tmp_path / "log"
    options = {"ratios": [0.25], "log": log, **QUIET}
    by_object = kr.sensitivity(
        model, Likeness(model), method=kr.FPGM(), **options
    )
    by_name = kr.sensitivity(
        model, Likeness(model), ratios=[0.25], select="fpgm", **QUIET
    )
    assert by_object.to_dict() == by_name.to_dict()
    with pytest.raises(ValueError, match="Name another file"):
        kr.sensitivity(model, Likeness(model), method=kr.L1(), **options)


# --- bad input --------------------------------------------------------------


@pytest.mark.parametrize(
    ("score", "error", "words"),
    [
        ([0.3, 0.9], TypeError, "return one number"),
        ({"accuracy": 0.9}, TypeError, "return one number"),
        (None, TypeError, "return one number"),
        (True, TypeError, "return one number"),
        (float("nan"), ValueError, "cannot be compared with other scores"),
        (float("inf"), ValueError, "cannot be compared with other scores"),
    ],
)
def test_scores_that_are_none(score, error, words):
    with pytest.raises(error, match=words):
        kr.sensitivity(planted(), lambda model: score, **QUIET)


def test_numbers_of_all_kinds_are_scores():
    tensor = keras.ops.convert_to_tensor(1.0)
    for score in (1, 1.0, np.float32(1), np.array(1.0), np.int64(1), tensor):
        assert score_of(lambda model, found=score: found, None) == 1.0


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"taus": [0.5], "ratios": [0.5]}, TypeError, "not both"),
        ({"taus": []}, ValueError, "taus is empty"),
        ({"ratios": [1.5]}, ValueError, "ratios"),
        ({"taus": [0.0]}, ValueError, "taus"),
        ({"select": "greedy"}, ValueError, "cannot do without data"),
        ({"skip": ["first", "second"]}, ValueError, "nothing to cut"),
        ({"skip": "third"}, ValueError, "third"),
        ({"deep": True}, TypeError, "deep"),
        ({"ratio": 0.5}, TypeError, "ratio= says how many .* Pass taus= or"),
        ({"target": {"flops": 0.5}}, TypeError, "target= says how many"),
    ],
)
def test_options_that_make_no_sense(options, error, words):
    def evaluate(model):
        raise AssertionError("nothing is evaluated")

    with pytest.raises(error, match=words):
        kr.sensitivity(planted(), evaluate, **QUIET, **options)


def test_evaluate_that_is_no_function():
    with pytest.raises(TypeError, match="'accuracy', but it has to be a func"):
        kr.sensitivity(planted(), "accuracy", **QUIET)


@pytest.mark.parametrize(
    ("drop", "error"),
    [(-0.1, ValueError), ("1 %", TypeError), (True, TypeError)],
)
def test_drops_that_make_no_sense(drop, error):
    with pytest.raises(error, match="max_drop"):
        kr.search(planted(), lambda model: 0.0, max_drop=drop, **QUIET)


def test_parts_with_a_layer_in_common_are_one():
    inputs = keras.Input((6, 3))
    x = layers.Bidirectional(layers.LSTM(4))(inputs)
    model = models.randomized(keras.Model(inputs, layers.Dense(2)(x)))
    trials = Trials(model, lambda m: 0.0, None, [0.5], None, None, {})
    assert len(trials.plan({part: 0.5 for part in trials.parts}).flops) == 2
    producers = [id(p) for part in trials.parts for p in part.layers]
    assert len(producers) == len(set(producers))


# --- layers that are for training alone -------------------------------------


def searched(model, evaluate, data):
    options = {"max_drop": 1e-4, "data": data, "rounds": 0, **QUIET}
    options |= {"select": "clusters"}
    return kr.search(model, evaluate, taus=[0.9999], **options).apply()


def compared(model, evaluate, data):
    methods = {"greedy": {}, "own": lambda model, share: kr.prune(model, 0.999)}
    options = {"shares": [0.5], "data": data, "rounds": 0, **QUIET}
    found = kr.compare(model, evaluate, methods, **options)
    assert found.trials["own"][0].score > NEAR
    assert found.trials["greedy"][0].flops <= 0.5


def calibrated(model, evaluate, data):
    known = kr.calibrate(model, data)
    return kr.prune(model, 0.9999, select="clusters", data=known, rounds=0)


@pytest.mark.parametrize(
    ("way", "known"),
    [(calibrated, False)]
    + [(way, known) for way in (searched, compared) for known in (False, True)],
)
def test_layers_for_training_alone_are_cut_as_what_they_compute(way, known):
    model = planted()
    for layer in model.layers[:2]:  # All units fire: none is constant.
        layer.bias.assign(np.abs(models.numpy(layer.bias)))
    model = kr.factorize(model)
    evaluate = Likeness(model)
    data = evaluate.data
    if known:
        data = kr.calibrate(model, data)
    small = way(model, evaluate, data)
    if small is not None:
        assert {type(x) for x in small.layers} == {layers.Dense}
        assert [x.units for x in small.layers] == [8, 6, 3]


def test_a_calibration_without_layers_that_are_to_stay():
    inputs = keras.Input((6,))
    x = kr.NoiseOutputs(2)(layers.Dense(12, activation="relu")(inputs))
    model = keras.Model(inputs, layers.Dense(3)(x))
    model.compile("sgd", "mse")
    known = kr.calibrate(model, np.ones((9, 6)))
    with pytest.raises(ValueError, match="Pass the samples themselves"):
        kr.prune(model, 0.9, data=known, optimizer=True)
    assert kr.prune(model, 0.9, data=np.ones((9, 6)), optimizer=True)


def test_a_drop_that_allows_every_score():
    options = {"ratios": [0.5], "max_drop": 1, **QUIET}
    with pytest.warns(UserWarning, match="max_drop=1 allows every score"):
        kr.search(planted(), lambda model: 0.9, **options)


def test_methods_of_one_name_are_all_compared():
    methods = [lambda m, share: m, lambda m, share: m]
    found = kr.compare(planted(), lambda m: 0.0, methods, shares=[0.5], **QUIET)
    assert len(found.trials) == 2
