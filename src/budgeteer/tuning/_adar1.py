"""Pairs that prefer short or long by problem, and the shortest right trace within (Ada-R1, arXiv 2504.21659)."""

from __future__ import annotations

import random
from dataclasses import replace

from budgeteer.core.errors import InvalidInput
from budgeteer.models.load import named
from budgeteer.models.model import PREFIX, Model, check_temperature
from budgeteer.solve import Task, derive
from budgeteer.solve.strategy import CHECK
from budgeteer.tuning.kit import MAX_TOKENS, Trace, closed_at_once, pair, rate, traces
from budgeteer.tuning.protocol import PREFERENCE, Builder, Built


def adar1(
    n: int = 8,
    group_pairs: int = 4,
    instance_pairs: int = 2,
    max_tokens: int = MAX_TOKENS,
    temperature: float = 0.7,
    short: Model | str | None = None,
) -> Builder:
    """Sample n long and n short traces of a question, and make pairs of two levels.

    With K traces a kind, long is preferred if its share of right ones is larger by more than 1 / (2 K), else short;
    a question that neither gets right has no pairs. Group pairs (``level`` = group): ``group_pairs`` random ones of a
    right trace of the preferred kind and a trace of the other kind, a wrong one where there is one. Instance pairs:
    the shortest right trace of the preferred kind, before its ``instance_pairs`` longest ones, wrong ones where there
    are any. A trace that was cut counts as wrong and is in no pair: a chat template would write it as what it is not.

    A long trace is as the model thinks by itself. A short one is of the model ``short``, which was fine-tuned on short
    solutions, as in the paper; without one it is the model's own with its thinking closed at once. Train with DPO, in
    the paper with beta 0.1, a learning rate of 5e-7 and 3 epochs: with a short model the hybrid of both that
    ``budgeteer lab merge LONG SHORT`` writes, else the model itself. When it helps: a model that thinks about
    everything, and is often right without. When not: a model that is never right without, for which only the instance
    level is left.

    Args:
        n: traces of each kind.
        group_pairs, instance_pairs: of each question, at most.
        max_tokens: cap of a trace.
        temperature: of the draws.
        short: another model that thinks briefly, or its name as ``--model`` takes it; it is asked as the first one is
            and pays from the same budget.

    Raises:
        InvalidInput: no traces, or a negative number of pairs.
    """
    if n < 1 or min(group_pairs, instance_pairs) < 0 or max_tokens < 1:
        raise InvalidInput(
            f"adar1(n={n}, group_pairs={group_pairs}, instance_pairs={instance_pairs}, max_tokens={max_tokens}); give "
            "1 or more traces and tokens, and 0 or more pairs"
        )
    check_temperature(temperature)

    second = None if short is None else named(short)

    async def build(task: Task) -> Built:
        brief = task if second is None else replace(task, model=task.model.other(second))
        begun = closed_at_once(task) if second is None else ""
        quick = await traces(brief, n, most=max_tokens, temperature=temperature, begun=begun, stage="short")
        long = await traces(task, n, most=max_tokens, temperature=temperature, stage="long")
        best = next((trace.answer for trace in (*long, *quick) if trace.right), None)
        if best is None:
            return Built((), next((trace.answer for trace in long if trace.answer is not None), None))
        kept, other = ([trace for trace in kind if trace.whole] for kind in chosen(long, quick))
        rng = random.Random(derive(task.seed, task.question.id, "pairs"))
        pairs = [(*both, "group") for both in of_groups(kept, other, group_pairs, rng)]
        pairs += [(*both, "instance") for both in within(kept, instance_pairs)]
        return Built(tuple(pair(task, good.text, bad.text, level=level) for good, bad, level in pairs), best)

    needs = frozenset({CHECK, PREFIX} if second is None else {CHECK})
    return Builder(build, PREFERENCE, needs, () if second is None else (second,))


def chosen(long: list[Trace], short: list[Trace]) -> tuple[list[Trace], list[Trace]]:
    """The traces of the preferred kind, and those of the other one."""
    margin = 1 / (2 * max(len(long), len(short), 1))
    return (long, short) if rate(long) - rate(short) > margin or not short else (short, long)


def of_groups(kept: list[Trace], other: list[Trace], count: int, rng: random.Random) -> list[tuple[Trace, Trace]]:
    """Up to ``count`` random pairs, none twice, of a right trace of one kind and a trace of the other, wrong ones
    first."""
    good = [trace for trace in kept if trace.right]
    bad = [trace for trace in other if not trace.right] or other
    every = {(a.text, b.text): (a, b) for a in good for b in bad if a.text != b.text}
    return rng.sample([*every.values()], min(count, len(every)))


def within(kept: list[Trace], count: int) -> list[tuple[Trace, Trace]]:
    """The shortest right trace before the longest others, wrong ones where there are any."""
    good = [trace for trace in kept if trace.right]
    if not good:
        return []
    best = min(good, key=lambda trace: trace.tokens)
    rest = [trace for trace in kept if not trace.right] or [trace for trace in good if trace.tokens > best.tokens]
    different = {trace.text: trace for trace in rest if trace.text != best.text}
    return [(best, trace) for trace in sorted(different.values(), key=lambda trace: -trace.tokens)[:count]]
