"""Verdicts of the evidence as last published in docs/evidence, without running anything."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

# a wheel carries the published results inside the package; a checkout has them in docs/
_FOLDERS = (Path(__file__).parent / "evidence" / "results", Path(__file__).parents[3] / "docs" / "evidence")


def verdicts(module: str | None) -> str:
    """:func:`count` of what was published for the module, and the data behind it; empty when nothing was."""
    for folder in _FOLDERS:
        path = folder / f"{module}.json"
        if module and path.exists():
            rows = json.loads(path.read_text(encoding="utf-8"))
            data = Counter(row["data"] for row in rows).most_common()
            return f"{count(rows)} ({', '.join(name if len(data) == 1 else f'{name} {n}' for name, n in data)})"
    return ""


def count(rows: Sequence[Mapping[str, Any]]) -> str:
    """Claims and controls apart, most frequent verdicts first.

    >>> count([{"role": "claim", "verdict": "shown"}, {"role": "control", "verdict": "control broken"}])
    '1 claim: 1 shown; 1 control: 1 broken'
    >>> count([{"role": "must fail", "verdict": "control holds"}] * 2)
    '2 controls: 2 hold'
    """
    parts = []
    for kind in ("claim", "control"):
        some = Counter(row["verdict"] for row in rows if (row["role"] == "claim") == (kind == "claim"))
        if some:
            listed = ", ".join(f"{n} {_word(verdict, n)}" for verdict, n in some.most_common())
            parts.append(f"{some.total()} {kind}{'s' * (some.total() > 1)}: {listed}")
    return "; ".join(parts)


def _word(verdict: str, n: int) -> str:
    word = verdict.removeprefix("control ")
    return "hold" if word == "holds" and n > 1 else word
