"""Adaptive voting: stop sampling once the majority is decided."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Literal

from budgeteer.core.errors import InvalidInput
from budgeteer.solve import Answer, StoppedBy, Strategy, Task
from budgeteer.strategies.aggregator import majority
from budgeteer.strategies.kit.decided import certain, leads, overtaken
from budgeteer.strategies.kit.samples import MAX_TOKENS, Sampler


def adaptive_vote(
    n: int = 32,
    *,
    risk: float = 0.1,
    rule: Literal["overtaken", "leads"] = "overtaken",
    max_tokens: int = MAX_TOKENS,
    temperature: float = 1.0,
) -> Strategy:
    """The majority of up to n samples, or fewer once it is decided.

    Rules, after k samples with vote counts v (sorted, v_1 for the leader) and n - k votes to come:

    - certain: no answer can reach the leader any more, ``v_2 + (n - k) < v_1``; always applied. The answer is the same
      as that of self-consistency with the same samples.
    - ``"overtaken"``: a bound on P(an answer passes the leader in the n - k votes | v), ties half, is at most ``risk``
      (:func:`~budgeteer.strategies.kit.decided.overtaken`; 0 where the certain rule holds). It predicts the vote of n
      samples, so it needs less evidence the fewer are to come; ``risk = 0`` is the certain rule alone.
    - ``"leads"``: P(the leader is the most probable answer | v) is at least ``1 - risk``
      (:func:`~budgeteer.strategies.kit.decided.leads`). It is the rule of Adaptive-Consistency, which predicts the vote
      of infinitely many samples.

    Samples without an answer do not vote. Each round asks for the fewest samples that could decide the vote if all of
    them agreed with the leader, so no sample of a request is wasted and the prompt is sent few times.

    When it helps: questions differ; easy ones are decided after three or four samples. When not: all are hard, or the
    prompt is long compared with a trace, since each round sends it again.

    "Let's Sample Step by Step: Adaptive-Consistency for Efficient Reasoning and Coding with LLMs", arXiv 2305.11860;
    the first two rules are ours.

    Args:
        n: most samples.
        risk: in [0, 1): how likely another result of the vote may be.
        rule: which statistical rule.
        max_tokens: cap of one sample.
        temperature: of the samples.
    """
    if n < 1:
        raise InvalidInput(f"adaptive_vote(n={n}); give at least one sample")
    decided = stop_rule(rule, risk)

    async def solve(task: Task) -> Answer:
        samples = Sampler(task, max_tokens=max_tokens, temperature=temperature)
        stopped = StoppedBy.DONE
        while (left := n - len(samples.drawn)) and not samples.stopped:
            counts = votes(samples.answers)
            if decided(counts, left):
                stopped = StoppedBy.DECIDED
                break
            await samples.more(fewest(decided, counts, left))
        return samples.best(majority()(samples.answers, [0.0] * len(samples.drawn)), stopped)

    return Strategy(solve)


Decided = Callable[[Sequence[int], int], bool]
"""(votes of each answer, votes to come) -> whether the vote is decided."""


def stop_rule(rule: str, risk: float) -> Decided:
    """The rule by its name; see :func:`adaptive_vote`.

    Raises:
        InvalidInput: there is no such rule, or the risk is not in [0, 1).
    """
    if not 0 <= risk < 1:
        raise InvalidInput(f"risk is {risk}; it is a probability, 0 to below 1")
    if rule == "overtaken":
        return lambda counts, left: overtaken(counts, left) <= risk
    if rule == "leads":
        return lambda counts, left: certain(counts, left) or leads(counts) >= 1 - risk
    raise InvalidInput(f"rule is {rule!r}; the rules are 'overtaken' and 'leads'")


def votes(answers: Sequence[str | None]) -> list[int]:
    """Votes of each distinct answer, most first."""
    return sorted(Counter(answer for answer in answers if answer is not None).values(), reverse=True)


def fewest(decided: Decided, counts: Sequence[int], left: int) -> int:
    """The fewest further votes, all for the leader, after which the rule would stop; ``left`` if none does before.

    >>> fewest(stop_rule("leads", 0.05), [], 32)
    4
    """
    leader, *rivals = counts or [0]
    for more in range(1, left):
        if decided([leader + more, *rivals], left - more):
            return more
    return left
