"""``NAME:key=value``: one set of rules and one error text, in every command that takes a name."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from budgeteer import cli
from budgeteer.core.errors import InvalidInput
from budgeteer.core.spec import HOW, Spec, parse, parse_all

GOOD = [
    ("duet", "duet", {}),
    ("duet:exact=false", "duet", {"exact": False}),
    (" duet : exact = False , n = 8 ", "duet", {"exact": False, "n": 8}),
    ("a:b=NONE,c=TRUE,d=0.5,e=power", "a", {"b": None, "c": True, "d": 0.5, "e": "power"}),
    ("a:b=[1, 2],c=x", "a", {"b": [1, 2], "c": "x"}),
    ('a:b="x, y",c={"d": 1, "e": [2, 3]}', "a", {"b": "x, y", "c": {"d": 1, "e": [2, 3]}}),
    ("a:b=", "a", {"b": ""}),
    ("a:b=c=d", "a", {"b": "c=d"}),
    ("a:b=python:v.py:f", "a", {"b": "python:v.py:f"}),
    ("a:b=[x", "a", {"b": "[x"}),
]
BAD = [
    ("", "is empty"),
    (" ", "is empty"),
    (":n=1", "has no name before its options"),
    ("a:", "'' is no option"),
    ("a:n", "'n' is no option"),
    ("a:n=1,", "'' is no option"),
    ("a:n=1,,m=2", "'' is no option"),
    ("a:n=1,m", "'m' is no option"),
    ("a:n=1,2m=3", "'2m=3' is no option"),
    ("a:n=1,n=2", "gives n twice"),
]
ONE_NAME = [
    ("n=1", "has no name before its options"),
    ("a,b", "names 2 where one is wanted"),
    ("a:b:n=1", "'b' is no option"),
]
LISTS = ("a,b", "a:n=1,m", "a:n=1,", "a:n=1,,m=2", "a:n=1,2m=3")
"""What may be several names, good or bad ones, where several are read."""


@pytest.mark.parametrize(("text", "name", "values"), GOOD)
def test_names_with_options_are_read(text, name, values):
    spec = parse(text, "task", source=True)
    assert (spec.name, spec.values) == (name, values)
    assert parse(text, "recipe") == spec == parse(str(spec), "recipe")
    assert parse_all(f"{text},last:x=1", "strategy") == [spec, Spec("last", (("x", "1"),))]


@pytest.mark.parametrize(("text", "message"), [*BAD, *ONE_NAME])
def test_what_is_no_name_is_refused_in_the_same_words(text, message):
    for read in (parse,) if text in LISTS else (parse, parse_all):
        with pytest.raises(InvalidInput) as error:
            read(text, "recipe")
        said = str(error.value)
        assert (said.startswith("recipe "), message in said, HOW in said) == (True, True, True)


@pytest.mark.parametrize(
    ("text", "name"),
    [("gym:lcm:n=1", "gym:lcm"), ("a, b.csv:n=1", "a, b.csv"), ("python:a.py:X", "python:a.py:X"), ("n=1", "n=1")],
)
def test_where_something_comes_from_may_hold_colons_and_commas(text, name):
    assert parse(text, "task", source=True).name == name


@given(st.dictionaries(st.from_regex(r"[a-z_][a-z0-9_]*", fullmatch=True), st.text(), max_size=4))
def test_texts_come_back_whatever_they_hold(texts):
    spec = parse(str(Spec("x").given(**texts)), "task")
    assert {key: spec.text(key) for key in texts} == texts


COMMANDS = {
    "train {} --out {tmp}/o": "recipe",
    "compare {}@50% --out {tmp}/o": "recipe",
    "solve chains --strategy {} --budget 100": "strategy",
    "frontier {} chains --budgets 100 --out {tmp}/o": "strategy",
    "solve {tmp}/qa.jsonl --strategy direct --budget 100 --style {}": "style",
    "allocate {tmp}/items.jsonl --budget 1k --method {}": "allocator",
    "solve {} --strategy direct --budget 100": "task",
    "frontier direct {} --budgets 100 --out {tmp}/o": "task",
    "train grpo --out {tmp}/o --task {}": "task",
    "compare grpo@50% --workers 1 --out {tmp}/o --task {}": "task",
    "lab profile --task {} --items 4": "task",
}
KNOWN = {"recipe": "duet", "strategy": "direct", "style": "chat", "allocator": "neyman", "task": "chains"}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_reads_names_alike(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "qa.jsonl").write_text('{"question": "1 + 1", "answer": "2"}\n')
    (tmp_path / "items.jsonl").write_text('{"key": "a", "cost": 40, "std": 0.5}\n')
    what, wrong, several = COMMANDS[command], [], command.startswith("frontier {}")
    name = KNOWN[what]
    spellings = [(text.replace("a", name, 1) if text.startswith("a") else text, message) for text, message in BAD]
    unknown = [
        (f"{name}:no_such_option=1", f"unknown option of {name} 'no_such_option'"),
        (f"{name}x", f"unknown {what}"),
    ]
    for text, message in [*spellings, *unknown]:
        words = [word.format(text, tmp=tmp_path) if "{" in word else word for word in shlex.split(command)]
        code = cli.main(words)
        said = (capsys.readouterr().err.strip().splitlines() or [""])[-1]
        if several and text.replace(name, "a", 1) in LISTS:
            message = ""  # what is wrong may be another name than the first
        if code != 2 or message not in said or not (what in said or "option" in said):
            wrong.append(f"{text}: {code}, {said}")
    assert not wrong
