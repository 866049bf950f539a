"""The map holds: imports go one way, pure modules stay pure, modules and functions stay small."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ["shared_store", "workers", "coordinator", "jobs"]  # each may import itself and those before it
MODULES = sorted(path for room in ROOMS for path in (ROOT / room).glob("*.py"))
FOREIGN = {"shared_store": {"torch", "ray", "timm", "albumentations"}, "workers": {"ray"}, "coordinator": {"torch"}}
IMPURE = {"ray", "torch", "time", "random", "os", "socket", "threading", "subprocess", "pathlib", "secrets"}
VOCABULARY = {
    "workers.tasks",
    "workers.examined",
    "workers.footprint",
    "workers.recipe",
    "shared_store.layout",
    "shared_store.records",
    "shared_store.errors",
    "shared_store.folds_table",
}


def imports(path: Path) -> set[str]:
    """Every module imported anywhere in a file, names of `from` imports included."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add(node.module or "")
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


def marks() -> dict[str, str]:
    """P or E of every module, as docs/architecture.md has them."""
    marked: dict[str, str] = {}
    room = ""
    for line in (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8").splitlines():
        if heading := re.match(r"## (\w+):", line):
            room = heading[1]
        elif row := re.match(r"\| (.+?) \| ([PE]) \|", line):
            for name in re.findall(r"`(\w+\.py)`", row[1]):
                marked[f"{room}/{name}"] = row[2]
    return marked


@pytest.mark.parametrize("path", MODULES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_imports_go_down_the_rooms(path: Path) -> None:
    room = path.parent.name
    above = set(ROOMS[ROOMS.index(room) + 1 :])
    tops = {name.split(".")[0] for name in imports(path)}
    assert not tops & above, f"{path} imports from a room above it"
    foreign = FOREIGN.get(room, set()) - ({"ray"} if path == ROOT / "shared_store" / "head.py" else set())
    assert not tops & foreign, f"{room} does without these libraries"


def test_ray_is_known_to_few_and_only_the_fleet_opens_the_workers_door() -> None:
    coordinator = [path for path in MODULES if path.parent.name == "coordinator"]
    with_ray = {path.name for path in coordinator if any(name.split(".")[0] == "ray" for name in imports(path))}
    assert with_ray == {
        *("actors.py", "cluster.py", "doctor_ray.py", "fleet.py", "machines.py"),
        *("nodes.py", "ray_series.py", "roster.py", "search.py"),
    }
    doors = {path.name for path in coordinator if imports(path) & {"workers.run", "workers.slot"}}
    assert doors == {"actors.py", "fleet.py"}


@pytest.mark.parametrize("module", sorted(name for name, mark in marks().items() if mark == "P"))
def test_a_pure_module_has_no_clock_no_disk_and_no_engine(module: str) -> None:
    found = imports(ROOT / module)
    assert not {name.split(".")[0] for name in found} & IMPURE
    if module.startswith("coordinator/"):
        outside = {name for name in found if name.split(".")[0] in ("workers", "shared_store")}
        assert all(any(f"{name}.".startswith(f"{known}.") for known in VOCABULARY) for name in outside), outside


def test_the_map_names_every_module_and_no_other() -> None:
    there = {f"{path.parent.name}/{path.name}" for path in MODULES if path.parent.name != "jobs"}
    assert set(marks()) == {name for name in there if not name.endswith("__init__.py")}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_modules_and_functions_stay_small_and_say_what_they_own(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    assert ast.get_docstring(tree), f"{path} does not say what it owns"
    assert text.count("\n") <= 260, f"{path} is two modules in one"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            assert (node.end_lineno or 0) - node.lineno < 50, f"{path}:{node.lineno} {node.name} is too long"


def test_jobs_are_thin() -> None:
    for path in (ROOT / "jobs").glob("*.py"):
        assert path.read_text(encoding="utf-8").count("\n") <= 100, f"{path} decides too much"


def test_the_packages_import_from_anywhere(tmp_path: Path) -> None:
    code = "import shared_store.store, workers.tasks, coordinator.graph, jobs.console"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, timeout=60)
