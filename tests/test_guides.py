"""The guides run, and find what their text says that they find."""

import ast
import importlib.util
import runpy
import sys
import types
from pathlib import Path

import keras
import pytest
from keras import layers

import keras_redundancy as kr
from keras_redundancy.channels.rules import registry
from tests.rule_checks import assert_copies_go

GUIDES = Path(__file__).parent.parent / "examples" / "guides"
FIELDS = (
    *("Title", "Author", "Date created", "Last modified", "Description"),
    "Accelerator",
)


@pytest.fixture
def run(tmp_path, monkeypatch, capfd):
    """Runs a guide; returns its variables and what it printed."""
    monkeypatch.chdir(tmp_path)
    rules = dict(registry.rule.registry)

    def run(name):
        found = runpy.run_path(str(GUIDES / f"{name}.py"))
        return found, capfd.readouterr().out

    yield run
    for cls in set(registry.rule.registry) - set(rules):
        registry.rule.register(cls)(registry.rule.registry[object])


@pytest.mark.parametrize(
    "path", sorted(GUIDES.glob("*.py")), ids=lambda path: path.stem
)
def test_guides_have_the_form_of_those_of_keras(path):
    cells = [
        node.value.value
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    ]
    header = dict(line.split(": ", 1) for line in cells[0].strip().splitlines())
    assert tuple(header) == FIELDS
    assert cells[1].startswith("\n## Introduction\n")
    assert all(cell.startswith("\n") and cell.endswith("\n") for cell in cells)


def test_shrink_an_application(run):
    found, printed = run("shrink_an_application")
    model, small = found["model"], found["small"]
    assert kr.flops(small) <= 0.5 * kr.flops(model)
    most = 0.35 if keras.backend.backend() == "torch" else 0.3
    assert small.count_params() < most * model.count_params()
    widths = [x.filters for x in small.layers if type(x) is layers.Conv2D]
    assert {width % 8 for width in widths} == {0}
    assert found["before"] > 0.5
    assert found["tuned"] > found["before"] - 0.1
    assert "it is an output of the model" in printed
    assert "small.keras:" in printed


def test_choose_how_much(run):
    found, printed = run("choose_how_much")
    trial = found["found"].trial
    assert trial.score >= found["found"].base.score - 0.01
    assert kr.flops(found["small"]) < 0.5 * kr.flops(found["model"])
    scores = {
        name: trials[-1].score
        for name, trials in found["comparison"].trials.items()
    }
    dropped = scores.pop("largest L1 norms, rest dropped")
    assert min(scores.values()) > dropped
    assert "cut alone" in printed


def test_train_at_low_rank(run):
    found, printed = run("train_at_low_rank")
    plain, small = found["plain"], found["small"]
    assert small.count_params() < 0.8 * plain.count_params()
    assert found["plan"].parameters[1] == plain.count_params()
    accuracy = found["accuracy"]
    assert accuracy(small) > accuracy(plain) - 0.03
    assert "of W are in use" in printed


def test_teach_it_a_layer(run, tmp_path):
    found, printed = run("teach_it_a_layer")
    assert "there is no rule for the operation scan (Scan)" in printed
    assert "16 of 32 channels are left" in printed
    assert found["error"].item() < 1e-5
    assert [x.ff_dim for x in found["small"].layers[1:3]] == [32, 32]
    # The rules that it registers hold what rules have to hold.
    inputs = keras.Input((5, 12))
    x = layers.Dense(16, name="before")(inputs)
    x = layers.Dense(8, activation="relu")(found["RunningMean"]()(x))
    assert_copies_go(keras.Model(inputs, layers.Dense(3)(x)), tmp_path)


def test_to_a_device(run, monkeypatch):
    # tfmot sets it, and other processes would take tf_keras for tf.keras.
    monkeypatch.setenv("TF_USE_LEGACY_KERAS", "0")
    for name in ("tensorflow_model_optimization", "ai_edge_litert"):
        pytest.importorskip(name)
    found, printed = run("to_a_device")
    files = {step: x.file for step, x in found["files"].items()}
    accuracies = found["accuracies"]
    assert files["pruned"].bytes < 0.4 * files["trained"].bytes
    for step in ("pruned, int8", "trained on, int8"):
        assert files[step].bytes < 0.5 * files["pruned"].bytes
        assert accuracies[step] > accuracies["trained"] - 0.02
    assert printed.splitlines()[-1].startswith("trained on, int8")


def keras_tuner_with_one_trial():
    """Calls a hypermodel as KerasTuner does, with the first of all choices."""

    class Values(dict):
        values = property(dict)

        def Choice(self, name, values):
            return self.setdefault(name, values[0])

    class HyperModel:
        def fit(self, hp, model, *data, **options):
            return model.fit(*data, **options)

    class GridSearch:
        def __init__(self, hypermodel, objective, directory, project_name):
            self.hypermodel, self.found = hypermodel, Values()

        def search(self, *data, **options):
            model = self.hypermodel.build(self.found)
            options["callbacks"] = []
            self.hypermodel.fit(self.found, model, *data, **options)

        def get_best_hyperparameters(self):
            return [self.found]

    return types.SimpleNamespace(
        HyperModel=HyperModel,
        GridSearch=GridSearch,
        Objective=lambda name, direction: (name, direction),
    )


def test_search_with_other_tools(run, tmp_path, monkeypatch):
    if importlib.util.find_spec("keras_tuner") is None:
        (tmp_path / "tuner").mkdir()
        module = keras_tuner_with_one_trial()
        monkeypatch.setitem(sys.modules, "keras_tuner", module)
    found, printed = run("search_with_other_tools")
    whole = found["trained"].count_params()
    grid = found["grid"]
    assert grid.best_params_ == {"model_kwargs": {"ratio": 0.3}}
    assert grid.best_score_ > 0.9
    assert found["found_by_grid"].count_params() < 0.7 * whole
    assert "{'ratio': 0.3}\n" in printed
    smallest = found["smallest"]
    assert smallest.count_params() < 0.5 * whole
    x, y = found["judged"]
    assert (
        smallest.evaluate(x, y, verbose=0, return_dict=True)["accuracy"] > 0.9
    )


def test_the_example_of_register_rule_is_that_of_the_guide():
    text = (GUIDES / "teach_it_a_layer.py").read_text()
    rule = text.split("@kr.register_rule(RunningMean)\n")[1].split("\n\n")[0]
    rule = rule.splitlines()
    documented = kr.register_rule.__doc__.splitlines()
    at = documented.index(" " * 8 + rule[0])
    assert documented[at : at + len(rule)] == [" " * 8 + x for x in rule]
