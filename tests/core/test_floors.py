"""No import runs upwards, and none makes a circle; what is generated is up to date; long files are accounted for."""

from __future__ import annotations

import ast
import importlib
import runpy
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from budgeteer.core.methods import METHODS

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src"
FLOORS = (
    {"core"},
    {"prices", "ledger", "verify", "draw"},
    {"metering"},
    {"allocate"},
    {"online", "joint", "steer"},
    {"engine", "models"},
    {"solve"},
    {"strategies", "rl", "cache", "context", "route"},
    {"agent"},
    {"adapters", "tuning"},
    {"gateway"},
    {"check"},
    {"lab"},
    {"cli"},
)
"""Packages from the ground up, as in docs/architecture.md."""
LONGEST = 400
"""Lines of a file that nobody has to explain."""


@cache
def modules() -> dict[str, Path]:
    found = {}
    for path in SOURCE.rglob("*.py"):
        name = ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__")
        found[name] = path
    return found


def statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """What runs when a module is imported: its head, and what stands under ``if``, ``try`` and ``with`` there."""
    for node in body:
        yield node
        checking = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        if isinstance(node, ast.If | ast.Try | ast.With):
            blocks: list[list[ast.stmt]] = [] if checking else [node.body]
            blocks += [getattr(node, "orelse", []), getattr(node, "finalbody", [])]
            blocks += [handler.body for handler in getattr(node, "handlers", [])]
            for block in blocks:
                yield from statements(block)


def imported(text: str, *, inside: bool) -> set[str]:
    """Modules of ours that a text imports: when it is imported itself, or anywhere in it."""
    tree = ast.parse(text)
    found = set()
    for node in ast.walk(tree) if inside else statements(tree.body):
        if isinstance(node, ast.ImportFrom):
            assert node.module, "an import is relative; write the whole name"
            assert not node.level, "an import is relative; write the whole name"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                found.add(whole if whole in modules() else node.module)
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found & modules().keys()


def imports(name: str, *, inside: bool) -> set[str]:
    """Modules of ours that a module imports: at its head, or anywhere."""
    return imported(modules()[name].read_text(encoding="utf-8"), inside=inside) - {name}


def floor(name: str) -> int | None:
    """The floor of a module's package; None for budgeteer itself."""
    package = [*name.split("."), ""][1]
    return next((i for i, floor in enumerate(FLOORS) if package in floor), None)


def test_every_package_has_a_floor() -> None:
    packages = {path.name for path in (SOURCE / "budgeteer").iterdir() if (path / "__init__.py").exists()}
    assert packages == set().union(*FLOORS)


@pytest.mark.parametrize("inside", [False, True], ids=["at the head", "inside functions"])
def test_no_import_runs_upwards(inside: bool) -> None:
    up = {
        (name, other)
        for name in modules()
        for other in imports(name, inside=inside)
        if None not in (here := floor(name), there := floor(other)) and there > here  # type: ignore[operator]
    }
    assert up == set()


def test_no_room_takes_names_from_the_roof() -> None:
    """``from budgeteer import neyman`` would reach every floor unseen; only evidence and commands write as users do."""
    above = {name for name in modules() if "budgeteer" in imports(name, inside=True)}
    assert {name for name in above if not name.startswith(("budgeteer.lab.evidence.", "budgeteer.cli"))} == {
        "budgeteer.gateway.openapi"  # the version that its document names
    }


def test_imports_are_found_wherever_they_stand() -> None:
    text = """
import budgeteer.core.plan
if TYPE_CHECKING:
    from budgeteer.lab import arms
else:
    from budgeteer.core import spec
try:
    from budgeteer.core.usage import Usage
except ImportError:
    import budgeteer.core.meter
def f():
    from budgeteer.lab.run import Run
"""
    head = {f"budgeteer.core.{name}" for name in ("plan", "spec", "usage", "meter")}
    assert imported(text, inside=False) == head
    assert imported(text, inside=True) == head | {"budgeteer.lab.arms", "budgeteer.lab.run"}
    with pytest.raises(AssertionError, match="relative"):
        imported("from ..lab import run", inside=True)


def test_packages_of_one_floor_do_not_import_each_other() -> None:
    """But for engine and models, which are one room with two doors."""
    across = set()
    for name in modules():
        for other in imports(name, inside=True):
            packages = {name.split(".")[1], other.split(".")[1]} if floor(name) == floor(other) is not None else set()
            if len(packages) == 2 and packages != {"engine", "models"}:
                across.add((name, other))
    assert across == set()


def test_no_circle_of_imports() -> None:
    try:
        TopologicalSorter({name: imports(name, inside=False) for name in modules()}).prepare()
    except CycleError as error:
        raise AssertionError(" -> ".join(error.args[1])) from None


def test_the_gateway_has_no_circle_even_inside_functions() -> None:
    """Its pages and its admin API share queries; the application knows both, and nobody below knows the application."""
    room = {name for name in modules() if name.startswith("budgeteer.gateway")}
    try:
        TopologicalSorter({name: imports(name, inside=True) & room for name in room}).prepare()
    except CycleError as error:
        raise AssertionError(" -> ".join(error.args[1])) from None
    assert not {other for name in room for other in imports(name, inside=True) if other.startswith("budgeteer.lab")}


def test_policies_do_not_know_the_proxy() -> None:
    """The configuration keeps their tables and the application builds them; they see a protocol, not the proxy."""
    used, left = {name for name in modules() if name.startswith("budgeteer.gateway.policies.")}, set()
    while used - left:
        name = (used - left).pop()
        left.add(name)
        used |= {other for other in imports(name, inside=True) if other.startswith("budgeteer.gateway.")}
    assert not used & {"budgeteer.gateway.proxy", "budgeteer.gateway.app"}
    config = imports("budgeteer.gateway.config", inside=True)
    assert not {name for name in config if name.startswith("budgeteer.gateway.policies")}


def test_exports_are_written_from_the_registry() -> None:
    done = subprocess.run([sys.executable, "tools/exports.py", "--check"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stdout}{done.stderr}run: python tools/exports.py"


def packages_of_methods() -> tuple[str, ...]:
    """Those whose exports ``tools/exports.py`` writes, such as ``"rl.weight"``."""
    packages: tuple[str, ...] = runpy.run_path(str(ROOT / "tools/exports.py"))["PACKAGES"]
    return packages


def test_a_package_that_registers_a_method_is_one_of_methods() -> None:
    """Its methods are in files of their own, and its exports are written from the registry."""
    homes = set()
    for method in METHODS:
        module, _, factory = method.path.partition(":")
        if (SOURCE / module.replace(".", "/")).is_dir():  # a package that exports it
            module = getattr(importlib.import_module(module), factory).__module__
        package, _, file = module.rpartition(".")
        if file.startswith("_"):
            homes.add(package)
    assert homes == {f"budgeteer.{package}" for package in packages_of_methods()}


@pytest.mark.parametrize("package", packages_of_methods())
def test_a_file_with_an_underscore_is_a_method(package: str) -> None:
    """``_name.py`` registers the method ``name``; a helper's file has no underscore, and no name of an export, which
    would be the module instead of the function once somebody has imported it."""
    registered = {method.path for method in METHODS}
    files = {path.stem for path in (SOURCE / "budgeteer" / package.replace(".", "/")).glob("*.py")} - {"__init__"}
    methods = {file for file in files if file.startswith("_")}
    assert {file for file in methods if f"budgeteer.{package}.{file}:{file[1:]}" not in registered} == set()
    assert (files - methods) & set(importlib.import_module(f"budgeteer.{package}").__all__) == set()


def test_a_long_file_has_its_reason_in_the_architecture() -> None:
    """Of any language; what is no text (weights, stored samples) has no lines."""
    reasons = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8").partition("## Long files")[2]
    base = SOURCE / "budgeteer"
    files = [path for path in base.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    texts = [path for path in files if path.suffix not in (".safetensors", ".npz")]
    long = {path.relative_to(base).as_posix() for path in texts if path.read_bytes().count(b"\n") > LONGEST}
    assert "ledger/ledger.lua" in long
    assert {path for path in long if f"`{path}`" not in reasons} == set()


def test_every_package_has_its_tests_in_a_folder_of_its_name() -> None:
    packages = {package for floor in FLOORS for package in floor}
    assert {p for p in packages if not list((ROOT / "tests" / p).glob("test_*.py"))} == set()


def test_there_is_one_scripted_upstream() -> None:
    """Other servers of the tests are no upstream: they receive what alerts send."""
    serving = ("http.server", "start_server(")
    texts = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("*.py")}
    servers = {name for name, text in texts.items() if any(word in text for word in serving)}
    assert servers - {Path(__file__).name} == {"upstream.py", "receivers.py"}
