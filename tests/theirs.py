"""A package of somebody else, really installed: a module and its metadata with entry points, in a folder."""

from __future__ import annotations

from pathlib import Path

MODULE = """
import os
import time
from dataclasses import replace
from pathlib import Path

from budgeteer.allocate import uniform
from budgeteer.core.method import Method
from budgeteer.rl.recipes import grpo
from budgeteer.rl.recipes.kit import grpo_advantage

SCALE = 1.0
MARK = Path(os.environ.get("THEIRS_MARK", os.devnull))


def advantage(rollouts, view):
    MARK.write_text("a run of theirs is busy")
    return SCALE * grpo_advantage(rollouts, view)


def broken(rollouts, view):
    while not MARK.exists():
        time.sleep(0.05)
    raise ValueError("their advantage is broken")


def recipe():
    return replace(grpo(), name="theirs", advantage=advantage)


def broken_recipe():
    return replace(grpo(), name="theirs-broken", advantage=broken)


def no_recipe():
    return 7


def their_uniform():
    return uniform()


ONE = Method("theirs", "recipe", "theirs_of_a_test:recipe", "GRPO of theirs")
TWO = Method("theirs-broken", "recipe", "theirs_of_a_test:broken_recipe", "fails in its first step")
THREE = Method("theirs-none", "recipe", "theirs_of_a_test:no_recipe", "makes something else")
FOUR = Method("their-uniform", "allocator", "theirs_of_a_test:their_uniform", "the same for all")
FIVE = Method("their-direct", "strategy", "budgeteer.strategies._direct:direct", "one trace")
"""


def install(folder: Path, **more: str) -> Path:
    """Put the package into a folder; ``more`` adds entry points, name = object."""
    info = folder / "theirs_of_a_test-1.0.dist-info"
    info.mkdir(parents=True)
    (folder / "theirs_of_a_test.py").write_text(MODULE)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs-of-a-test\nVersion: 1.0\n")
    names = {name.lower(): f"theirs_of_a_test:{name}" for name in ("ONE", "TWO", "THREE", "FOUR", "FIVE")}
    lines = [f"{name} = {path}" for name, path in {**names, **more}.items()]
    (info / "entry_points.txt").write_text("\n".join(["[budgeteer.methods]", *lines]) + "\n")
    return folder
