# ruff: noqa: RUF001 -- signs as models write them
"""Grading: a table of pairs decided by hand, and what holds for all texts."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from budgeteer import verify
from budgeteer.core import registry
from budgeteer.core.errors import InvalidInput, UnknownName, VerifierError

SIGNS = {"<NBSP>": "\u00a0", "<THIN>": "\u2009", "<EMPTY>": ""}
NAMES = ["auto", "choice", "exact", "math", "number"]
VERIFIERS = {name: verify.named(name) for name in NAMES}


def pairs():
    with (Path(__file__).parent / "data" / "grading_pairs.tsv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE):
            for sign, text in SIGNS.items():
                row["answer"], row["reference"] = (row[key].replace(sign, text) for key in ("answer", "reference"))
            yield row


PAIRS = list(pairs())


@pytest.mark.parametrize("row", PAIRS, ids=lambda row: f"{row['verifier']}:{row['reference']}|{row['answer']}")
def test_a_pair_is_graded_as_decided_by_hand(row):
    answer = None if row["answer"] == "<NONE>" else row["answer"]
    assert VERIFIERS[row["verifier"]](answer, row["reference"]) == float(row["expected"]), row["note"]


def test_the_table_holds_200_pairs_half_of_them_wrong():
    wrong = sum(row["expected"] == "0" for row in PAIRS)
    assert len(PAIRS) >= 200
    assert 0.4 < wrong / len(PAIRS) < 0.6


# what holds for all texts

ALPHABET = "0123456789abcxyzABC .,:;/+-*^=()[]{}$%\\ '\"_~°×½²−–\u00a0\u2009\n\t"
WORDS = st.sampled_from(
    ["\\frac", "\\boxed{", "\\sqrt", "\\left(", "10^", "1e", "{,}", "the answer is ", "**", "\\text{", "3/4", "x=",
     "km", "and ", "\\pi", "log", "%", "$", "(", ")", "{", "}", ",", " ", "7", "yes", "é", "１２", "\U0001d7d9", "\x00"]
)  # fmt: skip
TEXTS = st.one_of(st.text(max_size=60), st.text(ALPHABET, max_size=60), st.lists(WORDS, max_size=14).map("".join))


@settings(deadline=None, max_examples=150)
@given(text=TEXTS)
@pytest.mark.parametrize("name", NAMES)
def test_every_text_is_its_own_answer(name, text):
    assert VERIFIERS[name](text, text) == 1.0


@settings(deadline=None, max_examples=150)
@given(a=TEXTS, b=TEXTS)
@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_raised_and_scores_are_0_or_1(name, a, b):
    verifier = VERIFIERS[name]
    assert verifier(a, b) in (0.0, 1.0)
    assert verifier(None, b) == 0.0


@settings(deadline=None, max_examples=150)
@given(a=TEXTS, b=TEXTS)
@pytest.mark.parametrize("name", ["choice", "exact", "math", "number"])
def test_named_verifiers_do_not_care_which_side_is_the_reference(name, a, b):
    verifier = VERIFIERS[name]
    assert verifier(a, b) == verifier(b, a)


@pytest.mark.parametrize("row", [row for row in PAIRS if row["verifier"] != "auto"], ids=lambda row: row["answer"])
def test_pairs_of_named_verifiers_are_symmetric(row):
    verifier = VERIFIERS[row["verifier"]]
    assert verifier(row["reference"], row["answer"]) == float(row["expected"])


@given(n=st.integers(-(10**12), 10**12), d=st.integers(1, 10**6))
@settings(deadline=None)
def test_numbers_equal_their_other_spellings_and_not_their_neighbours(n, d):
    for right in (f"{n:,}", f"{n}.0", f"${n}$", f"\\boxed{{{n}}}", f"{n} apples", f"{n}e0", f"{n * d}/{d}"):
        assert verify.auto(right, str(n)) == 1.0, right
    for wrong in (
        str(n + 1),
        str(-n) if n else "1",
        f"{n}.5",
        f"{n}0" if n else "00",
        f"{n},{n}",
        f"{n}:{n}",
        f"{n} or 1",
    ):
        assert verify.auto(wrong, str(n)) == 0.0, wrong


HOSTILE = [
    "9^" * 2000 + "9", "10^10^10", "1e" + "9" * 5000, "9" * 10_000, "(" * 10_000, "((" * 140 + "x" + "))" * 140,
    "{" * 5000 + "}" * 5000, "\\frac{" * 1600, "\\boxed{" * 1400, "\\boxed{" * 280, "**" * 5000, "** " * 660,
    "$" * 10_000, "the answer is " * 700, "the answer is " * 140, "1," * 5000, "1," * 990 + "2", "1 " * 5000,
    "1 000" * 380, " " * 10_000, "x^x^x^x^x^x", "-" * 10_000, "-" * 290 + "1", "\\sqrt" * 59 + "2", "sin" * 99 + "x",
    "½" * 10_000,
    "²" * 10_000, "=" * 290, "1+" * 149 + "1", "a" * 10_000, "\x00" * 10_000, "2^(2^(2^(2^(2^(2^2)))))", "0.1^-9999",
    "\\text{" * 330,
    "[" * 150 + "1" + "]" * 150, "1/" * 150 + "1", "99999999999999^99999999", "{1}," * 400, "\ud800", "1e309*x", "0^-1",
    "\\left" * 400, "(1,(1,(1,(1,(1,(1,(1,1)))))))" * 60,
]  # fmt: skip


def test_hostile_texts_end(tmp_path):
    """In a process of its own, which is ended if a text is never done with."""
    script = (
        "import json, sys\nfrom budgeteer import verify\ntexts = json.load(sys.stdin)\n"
        "for verifier in map(verify.named, verify.known()):\n    for a in texts:\n"
        "        for b in ('5', a, 'x^2 + 1'):\n"
        "            verifier(a, b), verifier(b, a)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], input=json.dumps(HOSTILE), capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr[-2000:]


# by name


def test_verifiers_are_listed_with_the_methods():
    assert sorted(verify.known()) == NAMES
    assert set(NAMES) == set(registry.of("verifier"))


def test_an_unknown_verifier_suggests_the_nearest():
    with pytest.raises(UnknownName, match="'number'"):
        verify.named("numbers")


def test_a_verifier_of_a_file(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "def verify(answer, reference):\n    return 0.5 * (answer == reference)\n\ndef other(a, r):\n    return 1\n"
    )
    assert verify.named(f"python:{path}")("a", "a") == 0.5
    assert verify.named(f"python:{path}:other")(None, "a") == 1.0
    before = verify.identity(f"python:{path}")
    path.write_text("def verify(answer, reference):\n    return 1.0\n")
    assert verify.named(f"python:{path}")("a", "b") == 1.0
    assert verify.identity(f"python:{path}") != before
    assert verify.identity("auto") == "auto"


@pytest.mark.parametrize(
    ("content", "error", "match"),
    [
        (None, InvalidInput, "cannot read"),
        ("1 +", InvalidInput, "raised SyntaxError"),
        ("x = 1\n", InvalidInput, r"no function verify\(answer, reference\)"),
        ("def verify(a, r):\n    return 7\n", VerifierError, "returned 7.0 on reference 'b'; return 0 to 1"),
        ("def verify(a, r):\n    return float('nan')\n", VerifierError, "returned nan"),
        (
            "def verify(a, r):\n    raise ZeroDivisionError\n",
            VerifierError,
            "raised on reference 'b': ZeroDivisionError",
        ),
    ],
)
def test_a_bad_verifier_of_a_file_says_what_is_wrong(tmp_path, content, error, match):
    path = tmp_path / "mine.py"
    if content is not None:
        path.write_text(content)
    with pytest.raises(error, match=match):
        verify.named(f"python:{path}")("a", "b")


def test_a_verifier_that_exits_ends_nothing(tmp_path):
    (tmp_path / "ends.py").write_text("import sys\nsys.exit(3)\n")
    with pytest.raises(InvalidInput, match=r"ends.py raised SystemExit\(3\) when it was loaded"):
        verify.named(f"python:{tmp_path}/ends.py")
    (tmp_path / "late.py").write_text("def verify(answer, reference):\n    raise SystemExit(5)\n")
    with pytest.raises(VerifierError, match=r"raised on reference '2': SystemExit\(5\)"):
        verify.named(f"python:{tmp_path}/late.py")("2", "2")
