"""The verifiers of this package beside math-verify on the pairs that the tests grade.

    pip install --no-deps math-verify==0.9.0 latex2sympy2_extended==1.11.0 antlr4-python3-runtime==4.13.2
    python benchmarks/graders.py     # writes benchmarks/results/graders.json

The pairs (``tests/data/grading_pairs.tsv``) were decided by hand for this package, so their rules are its own: what is
not worked out is no answer, a unit counts, in doubt an answer is wrong. math-verify was made for LaTeX answers of maths
problems and reads texts around them; it gets each pair as it stands and as a formula between dollar signs, and counts
as agreeing if one of the two does. ``latex`` are the pairs with LaTeX in them, which are its home ground.
"""

from __future__ import annotations

import csv
import json
import logging
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from budgeteer.lab.results import write_text
from budgeteer.verify import named

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "benchmarks" / "results" / "graders.json"
SIGNS = {"<NBSP>": "\u00a0", "<THIN>": "\u2009", "<EMPTY>": "", "<NL>": "\n", "<BOM>": "\ufeff", "<ZERO>": "\u200b"}


def pairs() -> list[dict[str, str]]:
    """Rows of ``auto``, ``number`` and ``math`` with an answer."""
    with (ROOT / "tests" / "data" / "grading_pairs.tsv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    for row in rows:
        for key in ("answer", "reference"):
            for sign, text in SIGNS.items():
                row[key] = row[key].replace(sign, text)
    return [row for row in rows if row["verifier"] in ("auto", "number", "math") and row["answer"] != "<NONE>"]


def theirs(answer: str, reference: str, expected: bool) -> bool:
    """math-verify's verdict: of the two ways to write the pair, the one that agrees if one does."""
    from math_verify import parse, verify

    said = [
        bool(verify(parse(form.format(reference)), parse(form.format(answer)))) for form in ("{}", "${}$")
    ]  # it takes its own exceptions for a no
    return expected if expected in said else said[0]


def counted(rows: list[tuple[bool, bool, bool]]) -> dict[str, Any]:
    """Of (expected, ours, theirs): how many, and each grader's two kinds of errors."""
    errors: Counter[str] = Counter()
    for expected, *said in rows:
        for grader, verdict in zip(("budgeteer", "math-verify"), said, strict=True):
            if verdict != expected:
                errors[f"{grader}: {'refused a right one' if expected else 'took a wrong one'}"] += 1
    return {"pairs": len(rows), "right": sum(expected for expected, *_ in rows), **dict(sorted(errors.items()))}


def main() -> int:
    """Grade all pairs twice, write the file."""
    logging.disable(logging.CRITICAL)
    graded, latex = [], []
    for row in pairs():
        expected = float(row["expected"]) == 1
        ours = named(row["verifier"])(row["answer"], row["reference"]) == 1
        verdict = (expected, ours, theirs(row["answer"], row["reference"], expected))
        graded.append(verdict)
        if "\\" in row["answer"] + row["reference"]:
            latex.append(verdict)
    results = {"math-verify": "0.9.0", "all": counted(graded), "latex": counted(latex)}
    write_text(json.dumps(results, indent=1) + "\n", OUT)
    print(json.dumps(results, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
