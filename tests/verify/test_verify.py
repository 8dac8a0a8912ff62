# ruff: noqa: RUF001 -- signs as models write them
"""Grading: a table of pairs decided by hand, and what holds for all texts."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from budgeteer import verify
from budgeteer.core import registry
from budgeteer.core.errors import InvalidInput, UnknownName, VerifierError
from budgeteer.lab import questions
from budgeteer.solve.styles import TaskInfo, style_of
from budgeteer.verify import names
from budgeteer.verify.sandbox import Sandbox

SIGNS = {"<NBSP>": "\u00a0", "<THIN>": "\u2009", "<EMPTY>": "", "<NL>": "\n", "<BOM>": "\ufeff", "<ZERO>": "\u200b"}
NAMES = ["auto", "choice", "exact", "math", "number"]
VERIFIERS = {name: verify.named(name) for name in NAMES}


def pairs():
    with (Path(__file__).parents[1] / "data" / "grading_pairs.tsv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE):
            for sign, text in SIGNS.items():
                row["answer"], row["reference"] = (row[key].replace(sign, text) for key in ("answer", "reference"))
            yield row


PAIRS = list(pairs())


@pytest.mark.parametrize("row", PAIRS, ids=lambda row: f"{row['verifier']}:{row['reference']}|{row['answer']}")
def test_a_pair_is_graded_as_decided_by_hand(row):
    answer = None if row["answer"] == "<NONE>" else row["answer"]
    assert VERIFIERS[row["verifier"]](answer, row["reference"]) == float(row["expected"]), row["note"]


@pytest.mark.parametrize("style", ["reasoner", "few-shot", "direct", "chat"])
def test_a_pair_is_graded_the_same_when_a_style_has_read_it(style, tmp_path):
    """As ``solve`` and ``frontier`` do it: the reference decides how the answer is read, the verifier sees what was
    read. Answers of several lines are left out, since a style reads one."""
    wrong = []
    for row in PAIRS:
        if row["verifier"] != "auto" or not row["reference"] or row["answer"] == "<NONE>" or "\n" in row["answer"]:
            continue
        path = tmp_path / "one.jsonl"
        path.write_text(json.dumps({"question": "?", "answer": row["reference"]}) + "\n")
        asked = questions.load(str(path))
        known = TaskInfo("chains") if style == "reasoner" else asked.info
        look = style_of(style, known)
        said = look.read(f"{look.close or 'Answer:'} {row['answer']}\n" if look.close else f" {row['answer']}\n")
        if asked.grade(asked.questions[0], said) != float(row["expected"]):
            wrong.append((row["answer"], row["reference"], said))
    assert not wrong


STATED = [
    ("The total is 42 apples.", "42"), ("It costs $1,200.50 in total", "1200.5"), ("= 1e-3", "0.001"),
    ("2/3", "2/3"), ("She has 17 pencils (all of them)", "17"),
    ("6 * 8 = 48 dollars. They get back 50 - 48 = 2", "2"), ("-0", "0"), ("The result is minus 5", "-5"),
    ("there are 5 million people", "5000000"), ("5 km", "5"), ("about many", "about many"),
    ("5 dozen eggs", "5 dozen eggs"), ("Apollo 11", "Apollo 11"), ("see step 5", "see step 5"),
    ("5, I guess?", "5, I guess?"), ("three of the 5", "three of the 5"), ("it isn't 5", "it isn't 5"),
    ("no more than 5", None), ("5, no wait", None), ("f(5)", "f(5)"),
    ("the last of 7 is 5", "the last of 7 is 5"), ("5 out of ten", "5 out of ten"), ("", ""),
]  # fmt: skip


@pytest.mark.parametrize(("line", "number"), STATED)
def test_the_number_that_a_line_states(line, number):
    assert verify.stated(line) == number


def test_units_stay_where_references_are_in_dollars():
    assert [verify.stated(line, units=True) for line in ("$5", "5 dollars", "€5", "5 apples")] == [
        "5", "5", "5 €", "5 apple",
    ]  # fmt: skip


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


@settings(deadline=None, max_examples=300)
@given(line=TEXTS, units=st.booleans())
def test_what_is_read_is_a_number_that_stays_the_same_or_the_line(line, units):
    said = verify.stated(line, units=units)
    assert said is None or said == line or verify.stated(said, units=units) == said


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
    "\\left" * 400,
    "1 " * 990 + "x = 2", "a" * 1990 + " 5", "1+" * 190 + "1 = 191", "A) " * 130 + "B",
    "(1,(1,(1,(1,(1,(1,(1,1)))))))" * 60,
]  # fmt: skip


def test_hostile_texts_end(tmp_path):
    """In a process of its own, which is ended if a text is never done with."""
    script = (
        "import json, sys\nfrom budgeteer import verify\ntexts = json.load(sys.stdin)\n"
        "for verifier in map(verify.named, verify.known()):\n    for a in texts:\n"
        "        for b in ('5', a, 'x^2 + 1'):\n"
        "            verifier(a, b), verifier(b, a)\n"
        "for a in texts:\n    for text in (a, a + ' 5', 'it is ' + a + ' = 5', '5 ' + a):\n"
        "        verify.stated(text)\n"
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
        ("1 +", InvalidInput, "cannot be loaded: SyntaxError"),
        ("x = 1\n", InvalidInput, r"no function verify\(answer, reference\)"),
        ("def verify(a, r):\n    return 7\n", VerifierError, "returned 7, not 0 to 1, on reference 'b'"),
        ("def verify(a, r):\n    pass\n", VerifierError, "returned None, not 0 to 1, on reference 'b'"),
        ("def verify(a, r):\n    return float('nan')\n", VerifierError, "returned nan"),
        (
            "def verify(a, r):\n    raise ZeroDivisionError\n",
            VerifierError,
            r"raised ZeroDivisionError\(\) on reference 'b'",
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
    with pytest.raises(InvalidInput, match=r"ends\.py' cannot be loaded: SystemExit: 3"):
        verify.named(f"python:{tmp_path}/ends.py")
    (tmp_path / "late.py").write_text("def verify(answer, reference):\n    raise SystemExit(5)\n")
    with pytest.raises(VerifierError, match=r"raised SystemExit\(5\) on reference '2'"):
        verify.named(f"python:{tmp_path}/late.py")("2", "2")


def test_a_verifier_of_a_file_has_limits_whoever_asks_for_it_by_name(tmp_path, monkeypatch):
    monkeypatch.setattr(names, "Sandbox", partial(Sandbox, seconds=0.5))
    (tmp_path / "loops.py").write_text(
        "def verify(answer, reference):\n    while answer != reference: pass\n    return 1\n"
    )
    check = verify.named(f"python:{tmp_path}/loops.py")
    with pytest.raises(VerifierError, match=r"took more than 0\.5 s on reference 'b'"):
        check("a", "b")
    assert check("b", "b") == 1
    (tmp_path / "notes.txt").write_text("def verify(answer, reference):\n    return 1\n")
    with pytest.raises(InvalidInput, match=r"its name ends in \.py"):
        verify.named(f"python:{tmp_path}/notes.txt")
