"""The rooms of the package: who may import whom, and how long a file is."""

import ast
import graphlib
from pathlib import Path

import pytest

import keras_redundancy

PACKAGE = Path(keras_redundancy.__file__).parent
NAME = PACKAGE.name

# Each room imports only those before it; the modules beside them import all.
ROOMS = (
    "_shared",
    "numbers",
    "_keras",
    "channels",
    "calibration",
    "building",
    "mend",
    "planning",
    "low_rank",
    "noise_out",
    "reports",
    "evaluation",
    "training",
    "deploy",
)
LONGEST = 450


def module_of(path: Path) -> str:
    """The name of the module in a file, without that of the package."""
    parts = list(path.relative_to(PACKAGE).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {
    module_of(path): path
    for path in sorted(PACKAGE.rglob("*.py"))
    if "entry" not in path.relative_to(PACKAGE).parts
}


def imports_of(text: str) -> list[tuple[str, bool]]:
    """(module of this package, whether when the file is run) of imports.

    What is imported inside a function is imported when that is called.
    """
    tree = ast.parse(text)
    later = {
        id(inner)
        for function in ast.walk(tree)
        if isinstance(function, (ast.FunctionDef, ast.Lambda))
        for inner in ast.walk(function)
    }
    found = []
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports name the whole path"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            if name.split(".")[0] == NAME:
                found.append((resolved(name), id(node) not in later))
    return found


def resolved(name: str) -> str:
    """The longest start of a dotted name that is a module."""
    parts = name.split(".")[1:]
    while parts and ".".join(parts) not in MODULES:
        parts.pop()
    return ".".join(parts)


IMPORTS = {name: imports_of(path.read_text()) for name, path in MODULES.items()}


def room_of(module: str) -> str:
    return module.split(".")[0]


def test_imports_are_found():
    text = (
        f"import {NAME}\n"
        f"from {NAME} import _keras\n"
        f"from {NAME}.building.stock import stock_form\n"
        f"def f():\n    from {NAME}.numbers import rank\n"
        "import keras\n"
    )
    assert imports_of(text) == [
        ("", True),
        ("_keras", True),
        ("building.stock", True),
        ("numbers.rank", False),
    ]


def test_every_folder_is_a_room():
    folders = {room_of(name) for name in MODULES if "." in name}
    assert folders == set(ROOMS)


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_those_below(room):
    below = {*ROOMS[: ROOMS.index(room) + 1], "_version"}
    up = {
        f"{name} imports {other or NAME}"
        for name, others in IMPORTS.items()
        if room_of(name) == room
        for other, _ in others
        if room_of(other) not in below
    }
    assert not up


def test_no_import_goes_round():
    """Nor one by way of a folder's `__init__`, which runs before its files."""
    graph = {}
    for name, others in IMPORTS.items():
        graph[name] = {other for other, at_once in others if at_once}
        graph[name].discard(name)
    order = graphlib.TopologicalSorter(graph)
    circle = []
    try:
        order.prepare()
    except graphlib.CycleError as error:
        circle = error.args[1]
    assert not circle


def test_no_file_is_too_long():
    lines = {
        name: len(path.read_text().splitlines())
        for path in MODULES.values()
        for name in [str(path.relative_to(PACKAGE))]
    }
    too_long = {name: n for name, n in lines.items() if n > LONGEST}
    assert not too_long, too_long
