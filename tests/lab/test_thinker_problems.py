"""Problems of the thinking model: right answers by other means, streams that repeat, a split that holds."""

from __future__ import annotations

import random
import re
from datetime import date, datetime, timedelta

import pytest

from budgeteer.core.errors import InvalidInput, UnknownName
from budgeteer.lab.thinker import working
from budgeteer.lab.thinker.conversations import FAMILIES, conversation, problem
from budgeteer.lab.thinker.problem import held, split_of
from budgeteer.lab.thinker.working import Working

SIGNS = {"add": "+", "plus": "+", "subtract": "-", "minus": "-", "multiply by": "*", "times": "*"}


def chain(question: str) -> str:
    """An arithmetic chain from its text."""
    if found := re.search(r"(?:Compute|What is|Evaluate|Find the value of) ([\d\s()+*-]+)[.?]$", question):
        return str(eval(found[1]))
    value = int(re.search(r"\d+", question)[0])
    for word, n in re.findall(r"(add|plus|subtract|minus|multiply by|times) (\d+)", question, re.IGNORECASE):
        value = eval(f"{value}{SIGNS[word.lower()]}{n}")
    return str(value)


def story(question: str) -> str:
    """A word problem from its sentences."""
    owner = re.search(r"^(?:There are \d+ \w+ in )?(\w+?)(?:'s bag| has)", question)[1]
    value = 0
    for i, sentence in enumerate(re.findall(r"[^.?]+", question)):
        n = [int(x) for x in re.findall(r"\d+", sentence)]
        if i == 0:
            value = n[0]
        elif "with" in sentence:
            value += n[0] * n[1]
        elif re.search(r"doubles|triples", sentence):
            value *= 2 if "doubles" in sentence else 3
        elif "equally" in sentence:
            value //= n[0]
        elif re.search(r"gives \d+ to|loses|sells|thrown away|takes", sentence):
            value -= n[0]
        elif re.search(r"buys|finds|gives (?:him|her)|gets|wins", sentence):
            value += n[0]
        else:
            assert not n or owner not in sentence, sentence  # an aside, about somebody else
    return str(value)


def comparison(question: str) -> str:
    """Who has the most or the fewest, from the sentences."""
    *told, ask = re.findall(r"[^.?]+", question)
    values = {}
    for sentence in told:
        a, b = (int(x) for x in re.findall(r"\d+", sentence))
        sign = "*" if "each" in sentence or "of" in sentence else "-" if re.search("lost|away", sentence) else "+"
        sign = "+" if "got" in sentence else sign
        values[sentence.split()[0]] = eval(f"{a}{sign}{b}")
    return (max if "most" in ask or "more" in ask else min)(values, key=values.get)


def order(question: str) -> str:
    """Sorted numbers of a list."""
    falling = "descending" in question or "largest to" in question
    numbers = sorted(map(int, re.findall(r"\d+", question)), reverse=falling)
    return ", ".join(map(str, numbers))


def calendar(question: str) -> str:
    """A date, a weekday or a time, with Python's calendar."""
    if found := re.search(r"\d+:\d+", question):
        now = datetime.strptime(found[0], "%H:%M")
        for n, unit in re.findall(r"(\d+) (hour|minute)", question):
            now += timedelta(**{f"{unit}s": int(n)})
        return f"{now.hour}:{now.minute:02}"
    if "eek" in question:
        day = re.search(r"\w+day\b", question.replace("Today", ""))[0]
        monday = date(2023, 1, 2) + timedelta(days=["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"].index(day[:3]))
        span = int(re.search(r"(\d+)(?: more)? days", question)[1])
        return f"{monday + timedelta(days=span):%A}"
    start = datetime.strptime(re.search(r"(?:after|on|is) ([A-Z]\w+ \d+)", question)[1] + " 2022", "%B %d %Y")
    span = int(re.search(r"(\d+) days(?! or)(?!\.)", question.replace("365 days", ""))[1])
    end = start + timedelta(days=span)
    return f"{end:%B} {end.day}"


def looked_up(asked) -> str:
    """What the store says about a phrase such as "the manager of Ana's friend"."""
    if found := re.search(r"(price|stock) of (.*?)[.?]", asked.question):
        return str(sum(int(asked.store[thing][found[1]]) for thing in re.split(r", | and ", found[2])))

    def resolve(phrase: str) -> str:
        if phrase in asked.store:
            return phrase
        if not phrase.startswith("the "):
            owner, _, link = phrase.rpartition("'s ")
            return asked.store[resolve(owner)][link]
        _, link, owner = re.fullmatch(r"(the) (\w+) of (.*)", phrase).groups()
        return asked.store[resolve(owner)][link]

    shapes = {
        "city": r"(?:Where does|In which city does) (.*) live\?",
        "pet": r"(?:What pet does (.*) have|Which animal lives with (.*))\?",
        "age": r"(?:How old is|What is the age of) (.*)\?",
        "team": r"(?:In which team is (.*)|Which team does (.*) play for)\?",
        "room": r"(?:In which room does (.*) work|What is the room number of (.*))\?",
    }
    for attribute, shape in shapes.items():
        if found := re.fullmatch(shape, asked.question):
            return asked.store[resolve(next(g for g in found.groups() if g))][attribute]
    raise AssertionError(asked.question)


ORACLES = {
    "arithmetic": lambda p: chain(p.question),
    "words": lambda p: story(p.question),
    "lookups": looked_up,
    "comparisons": lambda p: comparison(p.question),
    "sorting": lambda p: order(p.question),
    "dates": lambda p: calendar(p.question),
}


def worked(asked, seed: int, checks: int, *, sloppy: bool = True) -> tuple[str, Working]:
    def read(record: str, attribute: str) -> str:
        return asked.read({asked.tool.record: record, asked.tool.attribute: attribute})

    found = Working(random.Random(seed), read, sloppy=sloppy)
    return found.run(asked.work, checks), found


@pytest.mark.parametrize("family", FAMILIES)
def test_answers_are_right_by_an_independent_reading_of_the_question(family: str) -> None:
    for split in ("train", "test"):
        for i in range(300):
            asked = problem(11, i, split, family)
            assert ORACLES[family](asked) == asked.answer, asked.question
            assert asked.level in FAMILIES[family].LEVELS
            assert worked(asked, i, i % 3, sloppy=False)[0] == asked.answer


@pytest.mark.parametrize("family", FAMILIES)
def test_every_further_check_finds_more_of_the_errors(family: str) -> None:
    asked = [problem(5, i, "train", family) for i in range(400)]
    right = [sum(worked(p, i, checks)[0] == p.answer for i, p in enumerate(asked)) / 400 for checks in (0, 1, 2)]
    assert right[0] + 0.05 < right[1] < right[2]
    length = [sum(len(worked(p, i, checks)[1].turns[-1].lines) for i, p in enumerate(asked)) for checks in (0, 1, 2)]
    assert length[0] < length[1] < length[2]


def test_a_trace_as_one_would_write_it_by_hand() -> None:
    w = Working(random.Random(0), sloppy=False)
    assert w.run(lambda w: str(w.calc(w.calc(47, "+", 38), "-", 29)), 1) == "56"
    assert w.turns[0].lines == [
        "47+38=85",
        "85-29=56",
        "So the answer is 56.",
        "Wait, let me check.",
        "47+38=85? 7+8=15 4+3+1=8, 85 ok",
        "85-29=56? 15-9=6 7-2=5, 56 ok",
        "So the answer is 56.",
    ]


def test_a_check_mends_an_error_and_computes_anew_what_follows(monkeypatch) -> None:
    monkeypatch.setattr(working, "kind_of", lambda fact: "sure")
    monkeypatch.setattr(working, "SLIPS", {"sure": 1.0})  # the first pass errs in every step, and so does what follows
    monkeypatch.setattr(working, "SLOW_SLIP", 0.0)
    monkeypatch.setattr(working, "_glance_rate", lambda fact, number: 0.0)
    monkeypatch.setattr(working, "DETOUR", 0.0)
    w = Working(random.Random(0))
    w.run(lambda w: str(w.calc(w.calc(47, "+", 38), "-", 29)), 1)
    first, second, _, _, check, again, _ = w.turns[0].lines
    said = int(first.removeprefix("47+38="))
    assert said != 85
    assert second.startswith(f"{said}-29=")
    assert check == f"47+38={said}? 7+8=15 4+3+1=8, 85 no"
    assert again.startswith("85-29=")  # quickly once more, since its operand changed
    assert "?" not in again
    later = Working(random.Random(0))
    assert later.run(lambda w: str(w.calc(w.calc(47, "+", 38), "-", 29)), 2) == "56"


def test_a_wrong_lookup_is_asked_again_in_a_turn_of_its_own(monkeypatch) -> None:
    monkeypatch.setattr(working, "kind_of", lambda fact: "sure")
    monkeypatch.setattr(working, "SLIPS", {"sure": 1.0})
    monkeypatch.setattr(working, "_glance_rate", lambda fact, number: 0.0)
    monkeypatch.setattr(working, "FAILED_CALL", 0.0)
    store = {"Ana": {"city": "Oslo", "pet": "dog"}}
    w = Working(random.Random(0), lambda record, attribute: store[record][attribute])
    assert w.run(lambda w: w.fetch("Ana", "city", ["pet"]), 1) == "Oslo"
    assert [turn.call for turn in w.turns] == [("Ana", "pet"), ("Ana", "city"), None]
    assert w.turns[1].lines == [
        "dog.",
        "So the answer is dog.",
        "Wait, let me check.",
        "city of Ana: dog? I asked for pet, no",
        "city of Ana?",
    ]


def test_streams_repeat_and_differ_by_seed_and_index() -> None:
    same = [conversation(3, i) for i in range(50)]
    assert [c.messages for c in same] == [conversation(3, i).messages for i in range(50)]
    assert conversation(3, 40).messages == same[40].messages  # whatever was drawn before
    assert len({c.messages[-1]["content"] + c.problem.question for c in same}) > 45
    assert [c.messages for c in same] != [conversation(4, i).messages for i in range(50)]


def test_no_held_out_problem_is_trained_on() -> None:
    trained = {conversation(0, i).problem.key for i in range(3000)}
    held = {problem(1, i, "test").key for i in range(600)}
    assert not trained & held
    assert {split_of(key) for key in trained} == {"train"}
    assert {split_of(key) for key in held} == {"test"}
    assert split_of("chain 1+1") == split_of("chain 1+1")


def test_bad_names_and_levels_are_clear_errors() -> None:
    with pytest.raises(UnknownName, match="words"):
        problem(0, 0, family="word")
    with pytest.raises(InvalidInput, match="level"):
        held(lambda rng, level: problem(0, 0, "train"), random.Random(0), 1, "test")


def test_the_store_answers_errors_in_words() -> None:
    asked = problem(0, 0, family="lookups", level=1)
    record, attribute = asked.tool.record, asked.tool.attribute
    name = next(iter(asked.store))
    assert asked.read({record: "Nobody", attribute: "city"}) == "error: no record Nobody"
    assert asked.read({record: name, attribute: "cities"}) == f"error: no cities of {name}"
    assert asked.read({}) == "error: no record None"
