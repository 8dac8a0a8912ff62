"""Length-filtered vote: only the lengths at which answers agree may vote.

Paper: "When More is Less: Understanding Chain-of-Thought Length in LLMs", arXiv 2502.07266.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence

from budgeteer.core.errors import InvalidInput, ModelError
from budgeteer.core.usage import Usage
from budgeteer.solve import Answer, StoppedBy, Strategy, Task
from budgeteer.strategies.kit.trace import ask_many


def lines(thinking: str) -> int:
    """Number of steps of a text of thinking: its lines that are not blank."""
    return sum(1 for line in thinking.splitlines() if line.strip())


def length_filtered_vote(
    samples: int = 16,
    width: int = 2,
    groups: int = 3,
    minimum: int = 2,
    steps: Callable[[str], int] = lines,
    max_tokens: int = 1024,
    temperature: float = 1.0,
) -> Strategy:
    """Draw samples, group them by ``floor(steps / width)``, and vote within the groups whose answers agree most.

    The ``groups`` groups whose answers have the lowest entropy vote by majority. A group of one sample has entropy 0
    and would always be chosen: groups smaller than ``minimum`` do not count, unless there is no larger one (then all
    samples vote). In our evidence groups of one did not hurt, though: of groups with equal entropy the shorter one is
    chosen, and short chains are right there. Samples are drawn in as few calls as the budget allows; each may be
    ``max_tokens`` long, and tokens that earlier ones did not use pay for later ones.

    When it helps: over all lengths a wrong answer wins, and at some lengths the right one does; wrong answers scatter;
    groups have several samples. When not: accuracy hardly depends on length (then it only loses voters), or the wrong
    answers at some length are all the same.

    Paper: "When More is Less: Understanding Chain-of-Thought Length in LLMs", arXiv 2502.07266 (width 2, 3 groups).

    Args:
        samples: most samples.
        width: number of steps that a group spans.
        groups: number of groups that vote.
        minimum: smallest number of samples of a group.
        steps: text of the thinking -> its number of steps.
        max_tokens: cap of a sample.
        temperature: of the samples.
    """
    if min(samples, width, groups, minimum, max_tokens) < 1:
        raise InvalidInput("length_filtered_vote takes 1 or more samples, width, groups, minimum and max_tokens")

    async def solve(task: Task) -> Answer:
        style, model = task.style, task.model
        prompt = style.prompt(task.question.text)
        inputs = model.count(prompt)
        traces: list[str] = []
        stopped, failure = StoppedBy.BUDGET, ""
        while left := samples - len(traces):
            n = next((n for n in range(left, 0, -1) if model.fits(Usage(input=inputs, output=n * max_tokens))), 0)
            if not n and traces:
                break
            try:
                pieces = await ask_many(
                    task, prompt, n or 1, most=max_tokens, stop=style.stop, temperature=temperature, at=len(traces)
                )
            except ModelError as error:
                if not traces:
                    raise
                stopped, failure = StoppedBy.ERROR, str(error)  # those that came can vote
                break
            traces += [piece.text for piece in pieces]
            if not n or not pieces:
                break
        answers = [style.read(trace) for trace in traces]
        sizes = [steps(style.split(trace)[0]) for trace in traces]
        by = StoppedBy.DONE if len(traces) == samples else stopped
        winner, share = filtered_vote(answers, sizes, width, groups, minimum)
        return Answer(winner, by, tuple(traces), share, failure)

    return Strategy(solve)


def filtered_vote(
    answers: Sequence[str | None], sizes: Sequence[int], width: int = 2, groups: int = 3, minimum: int = 2
) -> tuple[str | None, float | None]:
    """The winner of the vote and its share of the votes that counted; (None, None) if no sample has an answer.

    Of groups with equal entropy the larger one votes, then the shorter one. Of answers with equal votes the one of the
    group with the lowest entropy wins, then the one that was drawn first.

    Args:
        answers: [n] of the samples; None does not vote.
        sizes: [n] number of steps of the samples.
        width, groups, minimum: as in :func:`length_filtered_vote`.

    >>> filtered_vote(["a", "b", "a", "a", "b", "b"], [1, 1, 2, 2, 9, 9], width=1, groups=1)
    ('a', 1.0)
    """
    members: dict[int, list[str]] = {}
    for answer, size in zip(answers, sizes, strict=True):
        if answer is not None:
            members.setdefault(size // width, []).append(answer)
    if not members:
        return None, None
    able = {size: group for size, group in members.items() if len(group) >= minimum}
    if not able:
        able = {0: [answer for answer in answers if answer is not None]}
    order = sorted(able, key=lambda size: (round(entropy(able[size]), 12), -len(able[size]), size))
    votes = Counter(answer for size in order[:groups] for answer in able[size])  # keeps the order of first sight
    winner, count = votes.most_common(1)[0]
    return winner, count / votes.total()


def entropy(answers: Sequence[str]) -> float:
    """Shannon entropy of the answers, in bits.

    >>> entropy("aabb"), entropy("aaaa")
    (1.0, 0.0)
    """
    shares = (count / len(answers) for count in Counter(answers).values())
    return math.fsum(-share * math.log2(share) for share in shares) + 0.0
