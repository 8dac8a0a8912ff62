"""Verdicts of the evidence as last published in docs/evidence, without running anything."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

# a wheel carries the published results inside the package; a checkout has them in docs/
_FOLDERS = (Path(__file__).parent / "evidence" / "results", Path(__file__).parents[3] / "docs" / "evidence")


def verdicts(module: str | None) -> str:
    """Such as ``"shown 8, refuted here 3"``; empty when nothing was published for the module."""
    for folder in _FOLDERS:
        path = folder / f"{module}.json"
        if module and path.exists():
            counts = Counter(entry["verdict"] for entry in json.loads(path.read_text()))
            return ", ".join(f"{verdict} {n}" for verdict, n in sorted(counts.items(), key=lambda x: -x[1]))
    return ""
