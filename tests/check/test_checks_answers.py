"""Checks of aggregators, scorers, verifiers and splits over questions: each rule against a method that breaks it."""

from __future__ import annotations

import dataclasses
import math
import time

import numpy as np
import pytest

from budgeteer.check import (
    CheckFailed,
    check_aggregator,
    check_many,
    check_scorer,
    check_verifier,
)
from budgeteer.check import _verifier as verifier_rules
from budgeteer.models.model import Request
from budgeteer.solve import Answer
from budgeteer.strategies import split
from budgeteer.strategies.kit.aggregate import Ranked, majority, weighted_majority
from budgeteer.strategies.kit.score import Scorer, mean_logprob, self_evaluation, verifier
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
