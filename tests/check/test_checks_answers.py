"""Checks of what answers and of what is asked: each rule against a method that breaks it."""

from __future__ import annotations

import dataclasses
import itertools
import math
import random
import time

import numpy as np
import pytest

from budgeteer.check import (
    CheckFailed,
    check_aggregator,
    check_many,
    check_scorer,
    check_style,
    check_task,
    check_verifier,
)
from budgeteer.check import _verifier as verifier_rules
from budgeteer.core.environment import Item
from budgeteer.core.errors import InvalidInput
from budgeteer.models.chat import Message
from budgeteer.models.model import Request
from budgeteer.solve import Answer, Style
from budgeteer.strategies import split
from budgeteer.strategies.aggregator import Ranked, majority, weighted_majority
from budgeteer.strategies.scorer import Scorer, mean_logprob, self_evaluation, verifier
from budgeteer.verify import exact

RNG = np.random.default_rng(0)


# aggregators


def counting_none(answers, scores):
    ranked = majority()(answers, scores)
    return [one._replace(weight=one.weight * sum(a is not None for a in answers) / len(answers)) for one in ranked]


def sorting(answers, scores):
    answers.sort(key=str)
    return majority()(answers, scores)


AGGREGATORS = {
    "do not count": counting_none,
    "order of the samples": lambda a, s: [Ranked(next(x for x in a if x is not None), 1.0)] if any(a) else [],
    "each answer once": lambda a, s: majority()(a, s) * 2,
    "answers of|an answer of the samples": lambda a, s: [Ranked("42", 1.0)],
    "weights": lambda a, s: [one._replace(weight=math.nan) for one in majority()(a, s)],
    "changed the lists": sorting,
    "no memory, no chance": lambda a, s: [one._replace(weight=RNG.random()) for one in majority()(a, s)],
    "list of Ranked": lambda a, s: tuple(majority()(a, s)),
    "was ranked; rank one": lambda a, s: weighted_majority()(a, s) if not any(map(math.isnan, s)) else [],
}


@pytest.mark.parametrize("rule", list(AGGREGATORS))
def test_check_aggregator_rejects_what_breaks_the_rule(rule):
    with pytest.raises(CheckFailed, match=rule):
        check_aggregator(AGGREGATORS[rule])


# scorers


def scored(score, **declared):
    """A scorer of one function (task, samples) -> scores."""

    def bind(task):
        async def scores(samples):
            return await score(task, samples)

        return scores

    return Scorer(bind, **declared)


async def by_place(task, samples):
    return [float(i) for i in range(len(samples))]


async def of_answers(task, samples):
    return [float(len(sample.answer)) for sample in samples]


async def asking(task, samples):
    for sample in samples:
        await task.model.generate(Request(sample.text, 4))
    return [0.0] * len(samples)


async def past_the_budget(task, samples):
    for sample in samples:
        await task.model.model.generate(Request(sample.text, 4))
    return [0.0] * len(samples)


async def by_chance(task, samples):
    return [RNG.random() for _ in samples]


async def too_few(task, samples):
    return [0.0]


async def infinite(task, samples):
    return [math.inf] * len(samples)


SCORERS = {
    "not with its place": scored(by_place),
    "raised TypeError": scored(of_answers),
    "is not charged": scored(asking),
    "raised BudgetExceeded": scored(asking, charged=True),
    "went past the task's model": scored(past_the_budget, charged=True),
    "the same samples and seed": scored(by_chance),
    "one number each": scored(too_few),
    "NaN where nobody knows": scored(infinite),
    "which nobody declares": mean_logprob()._replace(needs=frozenset({"clairvoyance"})),
    "without a verifier": mean_logprob()._replace(needs=verifier().needs),
}


@pytest.mark.parametrize("rule", list(SCORERS))
def test_check_scorer_rejects_what_breaks_the_rule(rule):
    with pytest.raises(CheckFailed, match=rule):
        check_scorer(SCORERS[rule])


def test_check_scorer_accepts_several_votes():
    check_scorer(self_evaluation(votes=3, temperature=0.7))


# verifiers


def slow(answer, reference):
    if answer is not None and len(answer) > 1000:
        time.sleep(0.02)
    return exact(answer, reference)


VERIFIERS = {
    "None has a score of 0": lambda answer, reference: float(answer is None or answer == reference),
    "the same text is right": lambda answer, reference: 0.5 * exact(answer, reference),
    "in doubt an answer is wrong": lambda answer, reference: float(answer is not None),
    "raised ValueError": lambda answer, reference: exact(answer, reference) or 0 * float(answer or 0),
    r"scores are in \[0, 1\]": lambda answer, reference: 100 * exact(answer, reference),
    "the same pair": lambda answer, reference: exact(answer, reference) if answer is None else RNG.random(),
}


@pytest.mark.parametrize("rule", list(VERIFIERS))
def test_check_verifier_rejects_what_breaks_the_rule(rule):
    with pytest.raises(CheckFailed, match=rule):
        check_verifier(VERIFIERS[rule])


def test_check_verifier_rejects_what_takes_too_long(monkeypatch):
    monkeypatch.setattr(verifier_rules, "SECONDS", 0.01)
    with pytest.raises(CheckFailed, match="bound the work"):
        check_verifier(slow)


# many questions


def collected(change):
    """``split`` with its pairs of position and answer changed, in a list."""

    async def many(tasks):
        for pair in change([pair async for pair in split(tasks)]):
            yield pair

    return many


async def raising(tasks):
    for i, task in enumerate(tasks):
        await task.model.generate(Request(task.style.prompt(task.question.text), 40))
        yield i, Answer("4", "done")


async def beside(tasks):
    for i, task in enumerate(tasks):
        await task.model.model.generate(Request(task.style.prompt(task.question.text), 4))
        yield i, Answer(None, "done")


MANY = {
    "answered twice": collected(lambda pairs: pairs * 2),
    "each exactly once": collected(lambda pairs: pairs[1:]),
    "the same seed gave": collected(lambda pairs: [(i, with_chance(a)) for i, a in pairs]),
    "normal form": collected(lambda pairs: [(i, dataclasses.replace(a, answer=" 4 ")) for i, a in pairs]),
    "raised BudgetExceeded": raising,
    "went past the tasks' models": beside,
    "have no answer": collected(lambda pairs: [(i, Answer(None, "done")) for i, _ in pairs]),
}


def with_chance(answer):
    return dataclasses.replace(answer, confidence=RNG.random())


@pytest.mark.parametrize("rule", list(MANY))
def test_check_many_rejects_what_breaks_the_rule(rule):
    with pytest.raises(CheckFailed, match=rule):
        check_many(MANY[rule])


# styles


def plain(close="</think>", **changes):
    """A style that keeps the rules, with changes that break one."""
    kept = {"prompt": lambda text: f"Q: {text}", "answer": lambda text: text.split("\n", 1)[0].strip() or None}
    return lambda task: Style(**{**kept, "close": close, **changes})


class Often(Style):
    """Reads an answer wherever there is one."""

    def read(self, trace):
        return trace.rsplit(" ", 1)[-1].strip() or None


def fussy(task):
    raise InvalidInput("no")


def careless(task):
    raise KeyError(task.name)


COUNT = itertools.count()
STYLES = {
    "does not hold the question's text": plain(prompt=lambda text: text.lower()),
    "is another one each time": plain(prompt=lambda text: f"{next(COUNT)} {text}"),
    "a prompt is a text or a Chat": plain(prompt=lambda text: [Message("user", text)]),
    "it reads None, not '42'": plain(answer=lambda text: None),
    "thinking that is not closed it reads": lambda task: Often(
        prompt=str, answer=str.strip, close="</think>", normal=lambda text: text.strip() or "x"
    ),
    "is part of close": plain(close="\n\nAnswer:", stop=("\n\n",)),
    "answer_tokens is 0": plain(answer_tokens=0),
    "complete of no text is True": plain(complete=lambda text: True),
    "raised IndexError": plain(answer=lambda text: text.split()[0]),
    "an answer is a text or None": plain(
        answer=lambda text: text.strip() if " " in text else [text], normal=lambda x: x
    ),
    "the normal form of": plain(normal=lambda text: text + "!"),
    "every task was refused": fussy,
    "raise InvalidInput": careless,
    "no Style": lambda task: 7,
}


def test_check_style_accepts_what_keeps_the_rules():
    check_style(plain())


@pytest.mark.parametrize("rule", list(STYLES))
def test_check_style_rejects_what_breaks_the_rule(rule):
    with pytest.raises(CheckFailed, match=rule):
        check_style(STYLES[rule])


# tasks


class Sums:
    """A task that keeps the rules, with methods for mutants to change."""

    name = "sums"

    def __init__(self, size, seed):
        self.rng = random.Random(seed)
        self.items = [self.item(*self.draw(i)) for i in range(self.many(size))]

    def many(self, size):
        return size

    def draw(self, i):
        return i, self.rng.randrange(10**6)

    def item(self, a, b):
        return Item(f"{a}+{b}", f"{a} + {b} =", str(a + b))

    def verify(self, item, answer):
        return float(answer == item.answer)


def sums(**methods):
    return type("Mutant", (Sums,), methods)


def spoiling(self, item, answer):
    item.entry["seen"] = item.entry.get("seen", 0) + 1
    return float(answer == item.answer)


TASKS = {
    "the same size and seed made other problems": sums(draw=lambda self, i: (i, random.randrange(10**6))),
    "made the same problems; draw them from the seed": sums(draw=lambda self, i: (i, i)),
    "3 problems were made where 30": sums(many=lambda self, size: 3),
    "two problems have the same key": sums(item=lambda self, a, b: Item("key", f"{a} + {b} =", str(a + b))),
    "two problems have the same prompt": sums(item=lambda self, a, b: Item(f"{a}", "7 + 7 =", "14")),
    "the prompt of .* is empty": sums(item=lambda self, a, b: Item(f"{a}", " ", "14")),
    "has the reference None": sums(item=lambda self, a, b: Item(f"{a}", f"{a} + {b} =", None)),
    "is no Item": sums(item=lambda self, a, b: (a, b)),
    "it is right: 1": sums(verify=lambda self, item, answer: 0.0),
    "None is right": sums(verify=lambda self, item, answer: 1.0),
    "'' is right": sums(verify=lambda self, item, answer: float(answer is not None)),
    "raised ValueError": sums(verify=lambda self, item, answer: float(int(answer or 0) == int(item.answer))),
    r"scores are in \[0, 1\]": sums(verify=lambda self, item, answer: 2.0),
    "and then of": sums(verify=lambda self, item, answer: float(answer == item.answer) or (next(COUNT) % 2) / 2),
    "grading changed the problems": sums(verify=spoiling),
    "its name is ''": sums(name=""),
    "no Environment": lambda size, seed: [],
    "raised ZeroDivisionError": lambda size, seed: 1 / 0,
}


def test_check_task_accepts_what_keeps_the_rules():
    check_task(Sums)


@pytest.mark.parametrize("rule", list(TASKS))
def test_check_task_rejects_what_breaks_the_rule(rule):
    with pytest.raises(CheckFailed, match=rule):
        check_task(TASKS[rule])
