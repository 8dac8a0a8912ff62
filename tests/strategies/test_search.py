"""Strategies of search/ on a scripted model, by hand: one token a character."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import itertools
import math
import random
from collections.abc import Callable

import numpy as np
import pytest

from budgeteer.allocate import neyman, thompson, uniform
from budgeteer.check.scripted import Scripted
from budgeteer.core.errors import InvalidInput, ModelError
from budgeteer.ledger import Allowance, Limit, MemoryLedger
from budgeteer.models.model import Request, Response
from budgeteer.solve import Answer, Budgeted, Question, StoppedBy, Strategy, Style, Task
from budgeteer.strategies import (
    adaptive_vote,
    beam,
    best_of_majority,
    best_of_n,
    dora,
    rebase,
    scale,
    self_consistency,
    split,
    value_tree,
)
from budgeteer.strategies._adaptive_vote import fewest, stop_rule
from budgeteer.strategies._dora import optimal_copies, trigrams, uniqueness
from budgeteer.strategies._split import agreement, gains
from budgeteer.strategies.aggregator import majority, majority_filter, max_score, weighted_majority
from budgeteer.strategies.kit.decided import certain, gain, leads, overtaken
from budgeteer.strategies.kit.nodes import chances
from budgeteer.strategies.scorer import mean_logprob, programmatic, self_evaluation, verifier

STYLE = Style(lambda q: f"{q}=", lambda rest: rest.strip() or None, close="#", stop=("\n",), answer_tokens=4)
LONG = programmatic(lambda question, trace: trace.count("a") / 10)
STEP = programmatic(lambda question, trace: 0.0 if "#" in trace else 0.5 if trace.endswith("a;") else -0.5)


def task_of(model: Scripted, budget: int = 10**6, seed: int = 7, check: Callable[[str], float] | None = None) -> Task:
    ledger = MemoryLedger()
    ledger.open("q", [Limit("all", budget)])
    allowance = Allowance(ledger, "q", {"all": budget})
    return Task(Question("q1", "2+2"), Budgeted(model, allowance), STYLE, seed, check)


def run(strategy: Strategy, task: Task) -> Answer:
    return asyncio.run(strategy.solve(task))


def listed(*texts: str) -> Scripted:
    """Texts in the order of sampling, whatever the seed; the last one again and again."""
    left = itertools.chain(texts, itertools.repeat(texts[-1]))
    return Scripted(lambda prompt, rng: next(left))


# aggregators

ANSWERS = ["7", None, "5", "5", "7", "6"]


def test_majority_breaks_ties_by_first_seen_and_ignores_what_has_no_answer():
    assert majority()(ANSWERS, [0.0] * 6) == [("7", 0.4), ("5", 0.4), ("6", 0.2)]
    assert majority()([None], [1.0]) == []


def test_weighted_majority_adds_scores_and_leaves_out_the_unscored():
    ranked = weighted_majority()(ANSWERS, [0.1, 0.9, 0.2, 0.2, math.nan, 0.3])
    assert [one.answer for one in ranked] == ["5", "6", "7"]
    assert ranked[0].weight == pytest.approx(0.4 / 0.8)
    assert weighted_majority()(ANSWERS, [math.nan] * 6) == majority()(ANSWERS, [0.0] * 6)


def test_max_score_prefers_the_more_frequent_of_equals():
    assert max_score()(ANSWERS, [0.1, 1, 0.5, 0.1, 0.1, 0.5])[0] == ("5", 0.5)


def test_majority_filter_spans_best_of_n_and_majority():
    scores = [0.1, 0.0, 0.2, 0.4, 0.3, 0.9]
    assert majority_filter(0.0)(ANSWERS, scores)[0] == ("6", 0.9)
    assert majority_filter(0.3)(ANSWERS, scores)[0].answer == "5"  # mean 0.3 against 0.2
    assert majority_filter(0.9)(ANSWERS, scores)[0].answer == "6"  # nothing is that frequent: nothing is left out
    assert len(majority_filter(0.3)(ANSWERS, scores)) == 3


# when a vote is decided


def test_leads_is_the_dirichlet_posterior_of_monte_carlo():
    rng = np.random.default_rng(0)
    for counts in ([1], [3, 1], [5, 4, 1], [7, 7], [30, 25, 2, 1, 1], [400, 350]):
        draws = rng.gamma(np.array([*counts, 0]) + 1.0, size=(200_000, len(counts) + 1))
        share = float((draws.argmax(1) == 0).mean())
        assert leads(counts) == pytest.approx(share, abs=4 * math.sqrt(share * (1 - share) / 200_000) + 1e-4), counts


def test_leads_of_one_answer_is_the_beta_integral():
    for votes in range(1, 12):  # against the unseen answer: 1 - I_1/2(v + 1, 1) = 1 - 2 ** -(v + 1)
        assert leads([votes]) == pytest.approx(1 - 0.5 ** (votes + 1), abs=1e-9)


def test_overtaken_by_one_rival_is_the_urn_of_monte_carlo_and_bounds_several():
    rng = np.random.default_rng(1)
    for counts, left in (([3], 9), ([3, 1], 6), ([5, 4, 1], 10), ([2, 1, 1, 1, 1], 20), ([9, 4], 12)):
        p = rng.dirichlet(np.array([*counts, 0]) + 1.0, size=100_000)
        final = np.array([*counts, 0]) + rng.multinomial(left, p)
        rivals = final[:, 1:].max(1)
        exact = float((rivals > final[:, 0]).mean() + (rivals == final[:, 0]).mean() / 2)
        error = 4 * math.sqrt(exact * (1 - exact) / 100_000) + 1e-4
        if len(counts) == 1:
            assert overtaken(counts, left) == pytest.approx(exact, abs=error)
        else:
            assert overtaken(counts, left) >= exact - error
            leads_by = final[:, 1:] - final[:, :1]
            pairs = float(((leads_by > 0) + (leads_by == 0) / 2).mean(0).sum())
            assert overtaken(counts, left) == pytest.approx(min(1.0, pairs), abs=3 * error)


def test_the_certain_rule_never_changes_the_answer():
    for total in range(1, 7):
        for sequence in itertools.product("abc", repeat=total):
            whole = majority()(sequence, [0.0] * total)[0].answer
            for k in range(1, total + 1):
                seen = majority()(sequence[:k], [0.0] * k)
                counts = [sequence[:k].count(one.answer) for one in seen]
                if certain(counts, total - k):
                    assert seen[0].answer == whole, (sequence, k)
                assert (overtaken(counts, total - k) == 0.0) == certain(counts, total - k)


def test_fewest_asks_for_no_sample_in_vain():
    rule = stop_rule("leads", 0.05)
    assert fewest(rule, [], 32) == 4  # 1 - 2 ** -5 > 0.95 > 1 - 2 ** -4
    assert fewest(stop_rule("overtaken", 0.0), [3, 1], 6) == 3  # 6 : 1 with 3 to come
    for bad in (-0.1, 1.0):
        with pytest.raises(InvalidInput, match="risk"):
            stop_rule("leads", bad)
    with pytest.raises(InvalidInput, match="rule"):
        adaptive_vote(rule="often")  # type: ignore[arg-type]


# sampling strategies


def test_self_consistency_by_hand():
    model = listed("a#4\n", "b#5\n", "c#4\n", "no answer")
    answer = run(self_consistency(4, max_tokens=10), task := task_of(model))
    assert answer == Answer("4", "done", ("a#4", "b#5", "c#4", "no answer"), 2 / 3, candidates=("4", "5"))
    # one request: the prompt of 4 once, traces of 4, 4, 4 (newline included) and 9
    assert len(model.requests) == 1
    assert task.model.spend.units == {"all": 4 + 21}


def test_samples_come_in_as_the_budget_settles():
    """56: one request of (56 - 4) // 20 = 2; 44 left: 2 more; 32: 1; 24: 1; 16 left: a short one of 12, then 8: 4."""
    model = Scripted(lambda prompt, rng: "a#4\n")
    answer = run(self_consistency(32, max_tokens=20), task := task_of(model, 56))
    assert [(r.n, r.max_tokens) for r in model.requests] == [(2, 20), (2, 20), (1, 20), (1, 20), (1, 12), (1, 4)]
    assert task.model.remaining == {"all": 0}
    assert (answer.answer, answer.stopped_by, len(answer.traces)) == ("4", "budget", 8)


def test_a_cut_answer_does_not_vote():
    assert run(self_consistency(1, max_tokens=4), task_of(listed("a#4567\n"))).answer is None


def test_adaptive_vote_stops_once_decided_and_agrees_with_self_consistency():
    model = Scripted(lambda prompt, rng: "a#4\n")
    answer = run(adaptive_vote(32, rule="leads", risk=0.05, max_tokens=10), task_of(model))
    assert (answer.answer, answer.stopped_by, len(answer.traces)) == ("4", "decided", 4)

    def noisy(prompt: str, rng) -> str:
        return f"a#{rng.choice('4445')}\n"

    for seed in range(20):
        sure = run(adaptive_vote(9, risk=0.0, max_tokens=10), task_of(listed_by(noisy, seed), seed=seed))
        full = run(self_consistency(9, max_tokens=10), task_of(listed_by(noisy, seed), seed=seed))
        assert sure.answer == full.answer
        assert sure.traces == full.traces[: len(sure.traces)]


def listed_by(write: Callable[..., str], seed: int) -> Scripted:
    rng = random.Random(seed)
    return listed(*[write("", rng) for _ in range(64)])


def test_best_of_n_takes_what_the_verifier_takes_and_stops_when_it_is_enough():
    texts = ("a#5\n", "b#5\n", "c#4\n", "d#5\n")
    check = {"4": 1.0, "5": 0.0}.__getitem__
    assert run(best_of_n(verifier(), 4, max_tokens=10), task_of(listed(*texts), check=check)).answer == "4"
    answer = run(best_of_n(verifier(), 9, max_tokens=10, enough=1.0), task_of(listed(*texts), check=check))
    assert (answer.stopped_by, len(answer.traces)) == ("decided", 4)  # rounds of 1, 1, 2
    model = listed(*texts)
    with pytest.raises(InvalidInput, match="no verifier"):
        run(best_of_n(verifier(), 4), task_of(model))
    assert model.requests == []


def test_the_model_judges_and_pays():
    def write(prompt: str, rng) -> str:
        if "correct?" in prompt:
            return " Yes" if "#4" in prompt else " No"
        return f"a#{rng.choice('45555')}\n"

    task = task_of(Scripted(write))
    answer = run(best_of_n(self_evaluation(), 16, max_tokens=10), task)
    assert answer.answer == "4"
    stages = [line for line, _ in task.model.allowance._ledger.lines() if '"stage":"judge"' in line]
    assert len(stages) == 16
    tight = task_of(Scripted(write), 300)  # judging costs far more than sampling here
    assert run(best_of_n(self_evaluation(), 16, max_tokens=10), tight).answer in ("4", "5")
    assert tight.model.remaining["all"] >= 0


def test_best_of_majority_by_hand():
    # 5 comes four times, 4 three times, 9 once with the best score
    texts = ("a#5\n", "a#5\n", "aa#4\n", "a#5\n", "aa#4\n", "aaaaaaa#9\n", "aa#4\n", "a#5\n")
    score = programmatic(lambda question, trace: trace.count("a") / 10)
    assert run(best_of_majority(score, 8, alpha=0.2, max_tokens=12), task_of(listed(*texts))).answer == "4"
    assert run(best_of_majority(score, 8, alpha=0.0, max_tokens=12), task_of(listed(*texts))).answer == "9"
    assert run(best_of_majority(score, 8, alpha=0.45, max_tokens=12), task_of(listed(*texts))).answer == "5"


# searches by steps


def test_optimal_copies_is_the_optimum_of_brute_force():
    rng = np.random.default_rng(2)
    for _ in range(60):
        k, n = int(rng.integers(1, 5)), int(rng.integers(1, 8))
        weights, trust = rng.dirichlet(np.ones(k)), float(np.exp(rng.normal(0, 2)))

        def failure(units, weights=weights, trust=trust) -> float:
            return math.prod(1 - trust * w / (trust + r) for w, b in zip(weights, units, strict=True) for r in range(b))

        best = min(failure(units) for units in itertools.product(range(n + 1), repeat=k) if sum(units) == n)
        found = optimal_copies(weights, n, trust)
        assert found.sum() == n
        assert failure(found.tolist()) == pytest.approx(best, rel=1e-9)


def test_duplicates_share_and_without_duplicates_dora_is_rebase():
    texts = ["abcabc", "abcabc", "abcabc", "xyzxyz"]
    assert uniqueness(trigrams(texts), 0.01) == pytest.approx([1 / 3, 1 / 3, 1 / 3, 1.0], abs=1e-6)
    assert uniqueness(np.eye(4), 0.01) == pytest.approx(np.ones(4))


def steps(letters: str = "ab", last: int = 3) -> Scripted:
    """Steps "a;" or "b;", three of them, then "#" and the number of a's."""

    def write(prompt: str, rng) -> str:
        done = prompt.partition("=")[2]
        if "#" in done:
            return f"{done.count('a')}\n"
        if done.count(";") >= last:
            return f"#{done.count('a')}\n"
        return rng.choice(letters) + ";rest"

    return Scripted(write)


SEARCHES = {
    "dora": lambda: dora(LONG, 6, step=";", step_tokens=8),
    "dora, trust": lambda: dora(LONG, 6, trust=2.0, step=";", step_tokens=8),
    "rebase": lambda: rebase(LONG, 6, step=";", step_tokens=8),
    "beam": lambda: beam(LONG, 6, width=3, step=";", step_tokens=8),
    "value tree": lambda: value_tree(STEP, 40, answers=3, horizon=8, step=";", step_tokens=8),
}
ALL = {
    **SEARCHES,
    "self-consistency": lambda: self_consistency(6, max_tokens=16),
    "best of n": lambda: best_of_n(LONG, 6, max_tokens=16),
    "best of n, logprob": lambda: best_of_n(mean_logprob(), 6, max_tokens=16),
    "best of n, judged": lambda: best_of_n(self_evaluation(), 6, max_tokens=16),
    "best of majority": lambda: best_of_majority(LONG, 6, max_tokens=16),
    "best of majority, judged": lambda: best_of_majority(self_evaluation(), 6, max_tokens=16),
    "adaptive vote": lambda: adaptive_vote(6, max_tokens=16),
    "scale": lambda: scale(0.5, max_tokens=16),
}


@pytest.mark.parametrize("name", ["rebase", "beam", "value tree"])
def test_a_search_follows_the_scores(name):
    """All paths of three a's score best; single traces have one in eight."""
    answers = [run(SEARCHES[name](), task_of(steps(), seed=seed)).answer for seed in range(20)]
    plain = [run(self_consistency(1, max_tokens=30), task_of(steps(), seed=seed)).answer for seed in range(20)]
    assert sum(answer == "3" for answer in answers) >= 12
    assert sum(answer == "3" for answer in plain) <= 6


@pytest.mark.parametrize("make", [rebase, dora, functools.partial(beam, width=2)])
def test_an_answer_after_the_thinking_may_have_the_texts_that_end_a_step(make):
    """Lines are the steps of the thinking; the answer has a blank line and three more."""
    whole = "so\n4\n#\n\nFirst this.\nThe answer is 4.\nBye."

    def write(prompt: str, rng: random.Random) -> str:
        return whole[len(prompt.partition("=")[2]) :]

    style = Style(str, lambda rest: "4" if "answer is 4" in rest else None, close="#", answer_tokens=40)
    task = dataclasses.replace(task_of(Scripted(write)), style=dataclasses.replace(style, prompt=lambda q: f"{q}="))
    searched = run(make(LONG, 2, step="\n", step_tokens=60), task)
    assert searched.answer == "4"
    assert set(searched.traces) == {whole}


@pytest.mark.parametrize("name", SEARCHES)
def test_a_search_that_runs_out_forces_an_answer(name):
    task = task_of(steps(last=50), 160)
    answer = run(SEARCHES[name](), task)
    assert answer.stopped_by == "budget"
    assert answer.answer is not None
    assert answer.answer.isdigit()
    assert task.model.remaining["all"] >= 0


@pytest.mark.parametrize("name", ALL)
def test_every_budget_gives_an_answer_or_a_reason_and_is_kept(name):
    for budget in (0, 1, 5, 20, 60, 200, 1000):
        task = task_of(steps(), budget)
        answer = run(ALL[name](), task)
        assert task.model.remaining["all"] >= 0
        assert answer.stopped_by
        if budget <= 1:
            assert (answer.answer, answer.stopped_by) == (None, "budget")


@pytest.mark.parametrize("name", ALL)
def test_a_seed_is_an_answer(name):
    same = [run(ALL[name](), task_of(steps(), seed=3)) for _ in range(2)]
    assert same[0] == same[1]
    others = {run(ALL[name](), task_of(steps(), seed=seed)).traces for seed in range(6)}
    assert len(others) > 1


@pytest.mark.parametrize("name", ALL)
def test_a_model_that_fails_is_an_error_or_the_best_so_far(name):
    class Failing(Scripted):
        async def generate(self, request: Request) -> Response:
            if len(self.requests) >= after:
                raise ModelError("gone", billed=False)
            return await super().generate(request)

    after = 0
    answer = run(ALL[name](), task_of(Failing(steps().write)))
    assert (answer.answer, answer.stopped_by, answer.error) == (None, StoppedBy.ERROR, "gone")
    after = 2
    answer = run(ALL[name](), task_of(Failing(steps().write), 120))
    assert answer.stopped_by


def test_value_tree_turns_greedy():
    values = np.array([1.0, 2.0, 4.0])
    assert chances(values, 1.0) == pytest.approx(values / 7)
    assert chances(values, 0.5) == pytest.approx(values**2 / 21)
    assert chances(values, 0.0)[2] == pytest.approx(1.0)
    assert np.isfinite(chances(np.array([1e-9, 1e9]), 0.0)).all()


def test_scale_thinks_about_what_is_difficult():
    def write(prompt: str, rng) -> str:
        return {"p1=": "aaa#1\n", "p1=#": "9\n", "p2=": "bb#2\n", "p2=#": "8\n", "end=": "c#3\n"}[prompt]

    def parts(question: str) -> list[str]:
        return ["p1", "p2", "end"]

    def hard(question: str, part: str) -> float:
        return {"p1": 0.9, "p2": 0.1}[part]

    model = Scripted(write)
    strategy = scale(0.5, plan=parts, difficulty=hard, ask=lambda question, known, part: part, max_tokens=20)
    answer = run(strategy, task_of(model))
    assert answer == Answer("3", "done", ("aaa#1", "#8", "c#3"))
    assert [request.prompt for request in model.requests] == ["p1=", "p2=#", "end="]


def test_scale_plans_and_rates_with_the_model_and_is_charged_for_it():
    def write(prompt: str, rng) -> str:
        if prompt.startswith("Question") and "List" in prompt:
            return " first\n2. second\n3. third\n\n"
        if prompt.endswith("Rating:"):
            return " 9\n" if "first" in prompt else " 0\n"
        return "5\n" if prompt.endswith("#") else "think#6\n"

    model = Scripted(write)
    answer = run(scale(0.5, max_tokens=20), task_of(model))
    assert answer.answer == "6"
    assert answer.traces == ("think#6", "#5", "think#6")
    assert len(model.requests) == 1 + 2 + 3


@pytest.mark.parametrize(
    "make",
    [
        lambda: self_consistency(0),
        lambda: adaptive_vote(0),
        lambda: best_of_n(LONG, 0),
        lambda: best_of_majority(LONG, alpha=2.0),
        lambda: dora(LONG, sharpness=0.0),
        lambda: rebase(LONG, sharpness=0.0),
        lambda: beam(LONG, 4, width=5),
        lambda: value_tree(LONG, floor=0.0),
        lambda: scale(2.0),
        lambda: self_evaluation("no fields"),
        lambda: self_evaluation(votes=3),
    ],
)
def test_bad_arguments_are_refused(make):
    with pytest.raises(InvalidInput):
        make()


# one budget for many questions


def many(model: Scripted, budget: int, n: int, **options) -> list[Task]:
    """n questions q0, q1, ... on one allowance."""
    ledger = MemoryLedger()
    ledger.open("q", [Limit("all", budget)])
    allowance = Allowance(ledger, "q", {"all": budget})
    return [Task(Question(f"q{i}", f"q{i}"), Budgeted(model, allowance), STYLE, 7 + i, **options) for i in range(n)]


def finish(tasks: list[Task], *args, **options) -> dict[int, Answer]:
    async def gather() -> dict[int, Answer]:
        return {i: answer async for i, answer in split(tasks, *args, **options)}

    return asyncio.run(gather())


def easy_and_hard() -> Scripted:
    """Even questions always say 4; odd ones 1 or 2."""
    return Scripted(lambda prompt, rng: "a#4\n" if int(prompt[1:-1]) % 2 == 0 else f"a#{rng.choice('112')}\n")


@pytest.mark.parametrize(
    ("allocator", "show"),
    [(None, gains), (uniform(), agreement), (neyman(), agreement), (thompson(), agreement)],
)
def test_a_split_answers_every_question_within_the_budget(allocator, show):
    for budget in (0, 1, 30, 90, 400, 3000):
        tasks = many(easy_and_hard(), budget, 8)
        answers = finish(tasks, allocator, show=show, max_tokens=8)
        assert sorted(answers) == list(range(8))
        assert tasks[0].model.remaining["all"] >= 0
        assert sum(task.model.spend.units["all"] for task in tasks) <= budget
        if budget >= 400:
            assert all(answers[i].answer is not None for i in range(8))
        if budget <= 1:
            assert all(answer.stopped_by == "budget" for answer in answers.values())


def test_a_split_spends_on_what_is_contested_and_repeats_itself():
    runs = [finish(many(easy_and_hard(), 1200, 8), max_tokens=8) for _ in range(2)]
    assert runs[0] == runs[1]
    drawn = [len(runs[0][i].traces) for i in range(8)]
    assert max(drawn[0::2]) <= min(drawn[1::2])
    assert sum(drawn[1::2]) > 2 * sum(drawn[0::2])
    assert {runs[0][i].answer for i in range(0, 8, 2)} == {"4"}
    assert [runs[0][i].stopped_by for i in range(0, 8, 2)] == ["decided"] * 4
    stops = [answer.stopped_by for answer in runs[0].values()]  # final first, yielded first
    assert stops == sorted(stops, key="decided".__ne__)


def test_a_split_obeys_the_cap_of_a_plan():
    model = Scripted(lambda prompt, rng: f"a#{rng.choice('12')}\n")
    even = uniform()

    def capped(budget, items, state, *, rng):
        plan = even.allocate(budget, items, state, rng=rng)
        return dataclasses.replace(plan, max_tokens=np.where(np.array(items.keys) == "q1", 6, 0))

    finish(many(model, 1200, 2), even._replace(allocate=capped), show=agreement, first=2, rounds=3, max_tokens=9)
    asked = {key: [r.max_tokens for r in model.requests if str(r.prompt).startswith(key)] for key in ("q0", "q1")}
    assert set(asked["q0"]) == {9}
    assert asked["q1"][0] == 9
    assert len(asked["q1"]) > 1
    assert set(asked["q1"][1:]) == {6}


def test_a_split_does_not_depend_on_how_fast_answers_come():
    delay = random.Random(0)

    class Slow(Scripted):
        async def generate(self, request: Request) -> Response:
            response = await super().generate(request)
            await asyncio.sleep(delay.random() / 500)
            return response

    fast = finish(many(Slow(easy_and_hard().write), 500, 8), max_tokens=8)
    slow = finish(many(Slow(easy_and_hard().write), 500, 8), max_tokens=8)
    assert fast == slow


def test_a_verifier_ends_a_question():
    answers = finish(
        many(easy_and_hard(), 3000, 6, check=lambda answer: float(answer in "42")), max_tokens=8, verify=True
    )
    assert all(answers[i].stopped_by == "verified" for i in answers)
    assert [answers[i].answer for i in range(6)] == ["4", "2"] * 3


def test_a_split_outlives_a_question_that_fails():
    class Failing(Scripted):
        async def generate(self, request: Request) -> Response:
            if str(request.prompt).startswith("q3"):
                raise ModelError("gone", billed=False)
            return await super().generate(request)

    answers = finish(many(Failing(easy_and_hard().write), 2000, 6), max_tokens=8)
    assert answers[3] == Answer(None, StoppedBy.ERROR, error="gone")
    assert all(answers[i].answer for i in (0, 1, 2, 4, 5))


def test_a_split_refuses_what_it_cannot_tell_apart():
    tasks = many(easy_and_hard(), 100, 2)
    for wrong, match in (
        ([tasks[0], tasks[0]], "same id"),
        ([tasks[0], dataclasses.replace(tasks[1], model=tasks[0].model)], "share a Budgeted"),
        ([tasks[0], many(easy_and_hard(), 100, 2)[1]], "different allowances"),
    ):
        with pytest.raises(InvalidInput, match=match):
            finish(wrong)
    with pytest.raises(InvalidInput, match="verifier"):
        finish(tasks, verify=True)


def test_gain_is_that_of_monte_carlo():
    """Draw p from the posterior, votes from p, and compare P(the first of two leads) before and after them."""
    from scipy.stats import beta

    rng = np.random.default_rng(3)
    for (v1, v2, rest), more in (((1, 1, 0), 1), ((4, 2, 3), 3), ((6, 5, 1), 8), ((2, 0, 0), 4)):
        own = np.array([v1 + 1, v2 + 1, rest + 1])
        new = own + np.array([rng.multinomial(more, p) for p in rng.dirichlet(own, 40_000)])
        high, low = new[:, :2].max(1), new[:, :2].min(1)
        rise = beta.sf(0.5, high, low) - beta.sf(0.5, own[:2].max(), own[:2].min())
        error = 4 * rise.std() / 200
        want = float(rise.mean()) * own[:2].sum() / own.sum()
        assert gain([v1, v2, *[1] * rest], more) == pytest.approx(want, abs=error), (v1, v2, rest)
    # exact for one vote: (4/5) * (4/5) * (P(Beta(3, 2) > 1/2) - 1/2), and P(Beta(3, 2) > 1/2) = 11/16
    assert gain([1, 1], 1) == pytest.approx(0.8 * 0.8 * (11 / 16 - 1 / 2))


def test_samples_are_asked_together_however_small_the_context() -> None:
    """A cap above the model's context is lowered to it; else no two samples would ever fit at once."""
    model = Scripted(lambda prompt, rng: f"x</think>{rng.randint(0, 3)}\n")
    model.context = 60  # type: ignore[attr-defined]
    ledger = MemoryLedger()
    ledger.open("q", [Limit("all", 10_000)])
    budgeted = Budgeted(model, Allowance(ledger, "q", {"all": 10_000}))
    style = Style(str, lambda text: text.strip() or None, "</think>")
    answer = asyncio.run(self_consistency(n=8).solve(Task(Question("q", "1 + 1"), budgeted, style, 0)))
    assert answer.answer is not None
    assert [(request.n, request.max_tokens) for request in model.requests] == [(8, 55)]
