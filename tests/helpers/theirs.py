"""A package of somebody else, really installed: a module and its metadata with entry points, in a folder."""

from __future__ import annotations

import re
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "their_package" / "theirs_of_a_test.py"
NAMES = tuple(re.findall(r"^([A-Z]+) = Method\(", SOURCE.read_text(), re.MULTILINE))
"""Objects of the module that entry points name."""


def install(folder: Path, **more: str) -> Path:
    """Put the package into a folder; ``more`` adds entry points, name = object."""
    info = folder / "theirs_of_a_test-1.0.dist-info"
    info.mkdir(parents=True)
    for file in SOURCE.parent.glob("*.py"):
        (folder / file.name).write_text(file.read_text())
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs-of-a-test\nVersion: 1.0\n")
    names = {name.lower(): f"theirs_of_a_test:{name}" for name in NAMES}
    lines = [f"{name} = {path}" for name, path in {**names, **more}.items()]
    (info / "entry_points.txt").write_text("\n".join(["[budgeteer.methods]", *lines]) + "\n")
    return folder
