"""Questions that are answered from a store, record by record, through calls of a tool."""

from __future__ import annotations

import random

from budgeteer.lab.thinker.problem import Problem, Tool
from budgeteer.lab.thinker.words import NAMES, THINGS
from budgeteer.lab.thinker.working import Working

LEVELS = range(1, 5)
"""Records to be read."""
TOOLS = (
    Tool("lookup", "name", "field", "Read one field of a record."),
    Tool("get_value", "record", "key", "Get the value of a key in a record."),
    Tool("read_store", "item", "attribute", "Read an attribute of an item in the store."),
)
PEOPLE = ("manager", "friend", "teacher", "neighbour", "doctor")
"""Attributes that lead to another person."""
FACTS = {
    "city": ("Where does {} live?", "In which city does {} live?"),
    "pet": ("What pet does {} have?", "Which animal lives with {}?"),
    "age": ("How old is {}?", "What is the age of {}?"),
    "team": ("In which team is {}?", "Which team does {} play for?"),
    "room": ("In which room does {} work?", "What is the room number of {}?"),
}
_VALUES = {
    "city": ("Oslo", "Rome", "Lima", "Bern", "Cairo", "Paris", "Delhi", "Quito", "Tokyo", "Lagos"),
    "pet": ("cat", "dog", "horse", "bird", "fish", "snake", "goat", "rabbit"),
    "team": ("red", "blue", "green", "yellow", "black", "white"),
}


def draw(rng: random.Random, level: int) -> Problem:
    """A chain of ``level`` records, or the total price of some things."""
    return _total(rng, level) if 2 <= level <= 4 and rng.random() < 0.35 else _chain(rng, level)


def _person(rng: random.Random) -> dict[str, str]:
    return {
        **{key: rng.choice(values) for key, values in _VALUES.items()},
        "age": str(rng.randint(18, 80)),
        "room": str(rng.randint(100, 399)),
    }


def _chain(rng: random.Random, level: int) -> Problem:
    names = rng.sample(NAMES, 2 * level + 2)
    store = {name: _person(rng) for name in names}
    for name, record in store.items():
        for link in PEOPLE:
            record[link] = rng.choice([other for other in names if other != name])
    links = [rng.choice(PEOPLE) for _ in range(level - 1)]
    last = rng.choice(tuple(FACTS))
    start = now = names[0]
    for link in links:
        now = store[now][link]

    def work(w: Working) -> str:
        now = start
        for link in links:
            now = w.fetch(now, link, [other for other in PEOPLE if other != link])
        return w.fetch(now, last, [other for other in FACTS if other != last])

    who = start
    for link in links:
        possessive = rng.random() < 0.5 and not who.startswith("the ")
        who = f"{who}'s {link}" if possessive else f"the {link} of {who}"
    right = store[now][last]
    key = f"chain {start} {links} {last} {right}"
    question = rng.choice(FACTS[last]).format(who)
    return Problem("lookups", key, question, right, level, work, tool=rng.choice(TOOLS), store=store)


def _total(rng: random.Random, level: int) -> Problem:
    things = rng.sample(THINGS, level + 2)
    store = {thing: {"price": str(rng.randint(2, 99)), "stock": str(rng.randint(2, 99))} for thing in things}
    attribute = rng.choice(("price", "stock"))
    wanted = things[:level]

    def work(w: Working) -> str:
        others = ["stock" if attribute == "price" else "price"]
        numbers = [w.fetch(thing, attribute, others) for thing in wanted]
        total = _number(numbers[0])
        for number in numbers[1:]:
            total = w.calc(total, "+", _number(number))
        return str(total)

    right = sum(int(store[thing][attribute]) for thing in wanted)
    listed = ", ".join(wanted[:-1]) + f" and {wanted[-1]}"
    question = rng.choice(
        (f"What is the total {attribute} of {listed}?", f"Add the {attribute} of {listed}. What is the sum?")
    )
    key = f"total {attribute} " + " ".join(store[thing][attribute] for thing in wanted)
    return Problem("lookups", key, question, str(right), level, work, tool=rng.choice(TOOLS), store=store)


def _number(text: str) -> int:
    return int(text) if text.isdecimal() else 0
