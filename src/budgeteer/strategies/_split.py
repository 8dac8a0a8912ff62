"""One budget for many questions: sample in rounds, and give the next round to the questions where it may matter."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Literal, NamedTuple, Protocol

import numpy as np

from budgeteer.allocate import greedy_marginal
from budgeteer.core.allocator import Allocator
from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import ENDED, F64, Items, Menu, Outcomes, require_plan
from budgeteer.solve import Answer, StoppedBy, Task, derive
from budgeteer.strategies._adaptive_vote import votes
from budgeteer.strategies.aggregator import Aggregator, majority
from budgeteer.strategies.kit.decided import gain, leads
from budgeteer.strategies.kit.samples import MAX_TOKENS, Sampler

SIZES = (1, 2, 4, 8)
"""Numbers of samples that a menu offers for a question in one round."""


class Offer(NamedTuple):
    """What an allocator is shown.

    Attributes:
        items: one for each question.
        sizes: samples of each option of the items' menus; None = there is no menu, and a unit is a sample.
    """

    items: Items
    sizes: tuple[int, ...] | None = None


class Show(Protocol):
    """Makes items from what is known of each question."""

    def __call__(
        self, keys: tuple[str, ...], counts: Sequence[Sequence[int]], drawn: Sequence[int], cost: F64
    ) -> Offer:
        """The offer for n questions.

        Args:
            keys: [n] ids of the questions.
            counts: [n] votes of each of a question's answers, most first.
            drawn: [n] samples drawn so far.
            cost: [n] expected units of one more sample.
        """


def gains(keys: tuple[str, ...], counts: Sequence[Sequence[int]], drawn: Sequence[int], cost: F64) -> Offer:
    """Menus of 1, 2, 4 or 8 more samples, for allocators of menus.

    The value of an option is :func:`budgeteer.strategies.kit.decided.gain`.
    """
    prices = [[max(1, math.ceil(size * per_sample)) for size in SIZES] for per_sample in cost.tolist()]
    return Offer(Items(keys, menu=Menu.of(prices, [[gain(own, size) for size in SIZES] for own in counts])), SIZES)


def agreement(keys: tuple[str, ...], counts: Sequence[Sequence[int]], drawn: Sequence[int], cost: F64) -> Offer:
    """Items without menus, for all other allocators.

    With the leader's votes v_1 of n samples, the pass rate is ``p = (v_1 + 1) / (n + 2)`` and std ``sqrt(p (1 - p))``.
    """
    n = np.array(drawn, np.int64)
    right = np.array([max(own, default=0) for own in counts], np.int64)
    p = (right + 1.0) / (n + 2.0)
    return Offer(Items(keys, cost, std=np.sqrt(p * (1 - p)), pass_rate=p, visits=n, drawn=n, right=right))


SHOWN: dict[str, Show] = {"gains": gains, "agreement": agreement}
"""The ways to show questions to an allocator, by name."""


async def split(
    tasks: Sequence[Task],
    allocator: Allocator | None = None,
    *,
    show: Show | Literal["gains", "agreement"] = "gains",
    first: int = 2,
    most: int = 64,
    rounds: int = 12,
    risk: float = 0.01,
    verify: bool = False,
    max_tokens: int = MAX_TOKENS,
    temperature: float = 1.0,
    aggregate: Aggregator | None = None,
) -> AsyncIterator[tuple[int, Answer]]:
    """Answer all questions from one allowance; yields (position, answer), each as soon as it is final.

    Every question gets ``first`` samples. Then, in each of ``rounds`` rounds, the allocator splits an equal part of
    what is left over the questions that are open: items are questions; a unit is a sample and costs what the
    question's samples cost on average so far; value and spread follow from how far its answers agree. A question is
    final once P(its leader is the most probable answer) is at least ``1 - risk``, at ``most`` samples, or when a
    verifier accepts an answer; its share goes to the others. The answer is that of the majority. Where a plan has
    ``max_tokens``, a sample of that question has at most so many tokens.

    Requests of a round run at the same time. Each reserves its worst case, so requests that do not fit at once are sent
    when the others have settled. On a model that declares SEED the answers are a function of the seeds alone.

    When it helps: questions differ in difficulty and the budget is a few samples each. When not: the budget is so small
    that no question gets more than ``first`` samples, or so large that all are decided.

    The rule for the gain: "Statistical Decision Making for Optimal Budget Allocation in Crowd Labeling", arXiv
    1403.3080. Any allocator of :mod:`budgeteer.allocate` can take its place; ``uniform`` with ``show=agreement`` is the
    baseline.

    Args:
        tasks: one for each question, with distinct ids; each has a ``Budgeted`` of its own over one common allowance.
        allocator: None = greedy_marginal, which needs :func:`gains`.
        show: what the allocator sees: :func:`gains` for allocators of menus, :func:`agreement` for all others; or one
            of these names.
        first: samples of every question before the first round.
        most: most samples of one question.
        rounds: number of rounds of allocation.
        risk: in [0, 1), that a decided question has another majority; 0 decides none before ``most`` samples.
        verify: stop a question, and answer it, with the first answer whose ``task.check`` is 1.
        max_tokens: cap of one sample.
        temperature: of the samples.
        aggregate: None = majority.

    Raises:
        InvalidInput: tasks that share a ``Budgeted`` or do not share an allowance, repeated ids, ``verify`` without a
            verifier, or numbers out of range.
    """
    _check(tasks, first, most, rounds, risk, verify)
    method = greedy_marginal() if allocator is None else allocator
    shown = SHOWN.get(show) if isinstance(show, str) else show
    if shown is None:
        raise InvalidInput(f"split shows an allocator {' or '.join(SHOWN)}, not {show!r}")
    rank = majority() if aggregate is None else aggregate
    samplers = [Sampler(task, max_tokens=max_tokens, temperature=temperature) for task in tasks]
    open_ = dict.fromkeys(range(len(tasks)))  # in order
    state = None

    async def draw(wanted: dict[int, int], caps: Mapping[int, int]) -> None:
        """Draw these samples (question -> number) in waves, each of as many as fit at once; ``caps``: question ->
        tokens of a sample that the plan allows, 0 = no cap of its own."""
        while wanted:
            came = await asyncio.gather(*(samplers[i].once(count, caps.get(i, 0)) for i, count in wanted.items()))
            for i, got in zip(list(wanted), came, strict=True):
                wanted[i] -= got
                if wanted[i] <= 0 or samplers[i].stopped:
                    del wanted[i]
            if not any(came):
                break

    def final(i: int, last: bool) -> Answer | None:
        sampler, task = samplers[i], tasks[i]
        if verify and task.check is not None:
            for answer in dict.fromkeys(sampler.answers):
                if answer is not None and task.check(answer) >= 1:
                    return sampler.answer(answer, StoppedBy.VERIFIED, 1.0)
        ranked = rank(sampler.answers, [math.nan] * len(sampler.drawn))
        sure = not verify and risk > 0 and leads(votes(sampler.answers)) >= 1 - risk
        if not (last or sure or sampler.stopped or len(sampler.drawn) >= most):
            return None
        full = len(sampler.drawn) >= most
        stopped = StoppedBy.DECIDED if sure else StoppedBy.DONE if full else StoppedBy.BUDGET
        return sampler.best(ranked, stopped)

    await draw(dict.fromkeys(open_, min(first, most)), {})
    for number in range(rounds + 1):
        for i in list(open_):
            answer = final(i, number == rounds)
            if answer is not None:
                del open_[i]
                yield i, answer
        rows = [i for i in open_ if samplers[i].drawn]
        if number == rounds or not rows:
            continue
        kind, left = scarcest(tasks)
        offer = shown(
            tuple(tasks[i].question.id for i in rows),
            [votes(samplers[i].answers) for i in rows],
            [len(samplers[i].drawn) for i in rows],
            np.array([max(tasks[i].model.spend.units[kind] / len(samplers[i].drawn), 1e-9) for i in rows]),
        )
        state = method.init(offer.items) if state is None else state
        rng = np.random.default_rng(derive(tasks[0].seed, "split", number))
        share = left // (rounds - number)
        plan = require_plan(
            method.allocate(share, offer.items, state, rng=rng), offer.items, share, "split's allocator"
        )
        before = {i: len(samplers[i].drawn) for i in rows}
        wanted = {}
        for i, units in zip(rows, plan.units.tolist(), strict=True):
            samples = units if offer.sizes is None else (0, *offer.sizes)[units]
            if samples:
                wanted[i] = min(samples, most - before[i])
        await draw(wanted, dict(zip(rows, plan.max_tokens.tolist(), strict=True)))
        state = method.observe(state, _outcomes(tasks, samplers, before, verify))


def scarcest(tasks: Sequence[Task]) -> tuple[str, int]:
    """The kind of unit of which the least is left, relative to what was spent of it, and how much that is."""
    left = tasks[0].model.remaining
    spent = {kind: sum(task.model.spend.units[kind] for task in tasks) for kind in left}
    kind = min(left, key=lambda kind: left[kind] / max(spent[kind], 1))
    return kind, max(0, left[kind])


def _outcomes(tasks: Sequence[Task], samplers: Sequence[Sampler], before: dict[int, int], verify: bool) -> Outcomes:
    """Outcomes of the samples drawn since ``before`` (question -> number); their reward is the verifier's, else 1 if
    the sample agrees with the question's leader."""
    keys: list[str] = []
    tokens: list[int] = []
    reward: list[float] = []
    for i, start in before.items():
        task, new = tasks[i], samplers[i].drawn[start:]
        ranked = majority()(samplers[i].answers, [])
        for sample in new:
            keys.append(task.question.id)
            tokens.append(sample.tokens)
            if verify and task.check is not None:
                reward.append(0.0 if sample.answer is None else float(task.check(sample.answer)))
            else:
                reward.append(float(sample.answer is not None and sample.answer == ranked[0].answer))
    status = np.full(len(keys), ENDED, np.int8)
    return Outcomes(tuple(keys), np.array(tokens, np.int64), np.array(reward), np.full(len(keys), np.nan), status)


def _check(tasks: Sequence[Task], first: int, most: int, rounds: int, risk: float, verify: bool) -> None:
    if first < 1 or most < 1 or rounds < 0 or not 0 <= risk < 1:
        raise InvalidInput(f"split(first={first}, most={most}, rounds={rounds}, risk={risk}); samples are at least 1")
    if len({task.question.id for task in tasks}) < len(tasks):
        raise InvalidInput("two questions have the same id; give each its own")
    if len({id(task.model) for task in tasks}) < len(tasks):
        raise InvalidInput("two questions share a Budgeted; give each its own over the same allowance, to tell costs")
    if len({id(task.model.allowance) for task in tasks}) > 1:
        raise InvalidInput("the questions have different allowances; a split needs all of them on one")
    if verify and any(task.check is None for task in tasks):
        raise InvalidInput("verify needs a verifier for every question; give task.check, or leave verify out")
