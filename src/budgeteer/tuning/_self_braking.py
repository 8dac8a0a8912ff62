"""Traces that stop by themselves when they say the same again (Self-Braking Tuning, arXiv 2505.14604)."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

from budgeteer.core.errors import InvalidInput
from budgeteer.models.load import named
from budgeteer.models.model import Model, check_temperature
from budgeteer.rl.reward.counted import pattern
from budgeteer.solve import Task
from budgeteer.tuning.kit import MAX_TOKENS, ended, example, graded, judged, steps_of, tags_in, traces
from budgeteer.tuning.protocol import SFT, Builder, Built

MARKERS = (
    "another", "backtrack", "but", "check", "going back", "hmm", "hmmm", "however", "hold on", "instead of",
    "just to be thorough", "just to make sure", "let me check", "let me just double-check", "let me try another",
    "let me verify", "maybe i can consider", "maybe i should consider", "might", "not sure", "perhaps", "recheck",
    "retry", "trace back", "wait",
)  # fmt: skip
"""Phrases that mark overthinking, those of the paper's repository."""
FIND = """Below are numbered steps of somebody's thinking about a question, and the answer to the question.

Question: {question}
Answer: {answer}

{steps}

In which step is the answer stated for the first time? An equal number that is a value on the way does not count; the
answer may be written in another form. Think about it, and end with a line
step: NUMBER"""
"""What a judge is asked, who finds the steps that state the answer; the paper's question in this project's words."""
BRAKE = "I have come to the same answer more than once, so I stop here."
"""What a trace says before it stops."""
BETA, WIDTH = 0.1, 0.05
"""Weight of the markers in the score, and the difference of the two thresholds."""


@dataclass(frozen=True, slots=True)
class Braked:
    """A thinking that was cut: what is kept and learnt, and what is kept and masked behind it."""

    kept: str
    masked: str


def overthinking(right: int, steps: int, markers: float) -> float:
    """``BETA * markers + (1 - BETA) * (1 - right / steps)``.

    Args:
        right: number of the first step that has the answer, from 1 on.
        steps: number of steps.
        markers: share of the words that are markers.

    >>> round(overthinking(2, 8, 0.5), 3)
    0.725
    """
    return BETA * markers + (1 - BETA) * (1 - right / steps)


def marked(text: str) -> float:
    """The share of a text's words that belong to markers.

    >>> marked("Wait, hold on now"), marked("")
    (0.75, 0.0)
    """
    words = len(text.split())
    inside = sum(len(found.split()) for found in pattern(MARKERS).findall(text))
    return inside / words if words else 0.0


def braked(steps: list[str], right: list[bool], threshold: float, *, exact: bool) -> Braked | None:
    """Where a thinking brakes; None if it goes on to its own end.

    Args:
        steps: of the thinking, which join to it.
        right: of each step, whether it states the right answer.
        threshold: of the score.
        exact: SBT-E, else SBT-D.
    """
    if True not in right:
        return None
    first = right.index(True)
    if exact:
        if overthinking(first + 1, len(steps), marked("".join(steps))) <= threshold:
            return None
        second = next((i for i in range(first + 1, len(steps)) if right[i]), first)
        following = "".join(steps[second + 1 : second + 2])
        sentences = re.findall(r"[^.!?]*(?:[.!?]+\s*|$)", following)
        return Braked("".join(steps[: second + 1]), "".join(sentences[:2])) if following else None
    kept = masked = "".join(steps[: first + 1])
    for i in range(first + 1, len(steps)):
        longer = "".join(steps[: i + 1])
        score = overthinking(first + 1, i + 1, marked(longer))
        if score >= threshold + WIDTH:
            return Braked(kept, masked[len(kept) :])
        masked = longer
        if score < threshold:
            kept = longer
    return None


def self_braking(
    n: int = 2,
    exact: bool = False,
    threshold: float = 0.2,
    max_tokens: int = MAX_TOKENS,
    temperature: float = 0.7,
    judge: Model | str | None = None,
    votes: int = 4,
) -> Builder:
    """Cut right traces where they begin to repeat their answer, let them say so, and end them.

    A step is a paragraph of the thinking (a line, where there is one paragraph). The first of them that states the
    right answer is step f of m; with k the share of words that are markers of overthinking (wait, but, check, ...), the
    score is ``0.1 k + 0.9 (1 - f / m)``. Dynamic (SBT-D): steps are added behind f one by one, with m the steps so far;
    those with a score from ``threshold`` on are kept and masked, and before the first one with ``threshold + 0.05`` the
    trace brakes. Exact (SBT-E): a trace whose score is above the threshold is kept to the end of its second solution,
    with the first two sentences of the next step masked. Then come a sentence that says why it stops, the end of the
    thinking, and the trace's own answer. Traces that never come so far are examples as they are (``braked`` = false).

    ``masked`` has the spans [begin, end) of the completion, in characters, that are read and not learnt;
    :func:`budgeteer.adapters.trl.masked` makes tokens of them for TRL's SFT trainer. The paper lets a language model
    find the first solution and, for SBT-E, the second behind it: that is ``judge``, asked ``votes`` times for each, of
    which the most frequent step counts, the earliest of several. Without one a step states what the style reads as its
    answer, or what stands behind its last equals sign: solutions that state it in other words are missed, and an
    intermediate result that happens to be the answer counts. Accuracy falls by 1 to 3 points in the paper's tables.

    This is how the text tells it. The paper's code differs in three things: it learns the first step from the threshold
    on, keeps and masks the one that passes ``threshold + 0.05`` as well, and brakes a trace, too, that ends between the
    two; and it counts markers behind the first solution only.

    When it helps: long traces that check their answer again and again. When not: traces that are right at their end.

    Args:
        n: traces of a question; the right ones are used.
        exact: SBT-E instead of SBT-D.
        threshold: of the score, in (0, 1).
        max_tokens: cap of a trace.
        temperature: of the draws.
        judge: another model that answers chats, or its name as ``--model`` takes it; None = the rule above.
        votes: of the judge.

    Raises:
        InvalidInput: a value outside these.
    """
    if min(n, votes, max_tokens) < 1 or not 0 < threshold < 1:
        raise InvalidInput(
            f"self_braking(n={n}, threshold={threshold}, max_tokens={max_tokens}, votes={votes}); give 1 or more "
            "traces, tokens and votes, and a threshold between 0 and 1"
        )
    check_temperature(temperature)
    other = None if judge is None else named(judge)

    async def build(task: Task) -> Built:
        style = task.style
        drawn = await traces(task, n, most=max_tokens, temperature=temperature)
        good = [trace for trace in drawn if trace.right]
        made = []
        for trace in good:
            thinking, rest = style.split(trace.text)
            lead = opening(task, thinking)
            steps = steps_of(thinking[len(lead) :])
            if other is None:
                solved = [states(task, step) for step in steps]
            else:
                solved = await found(task, other, steps, str(trace.answer), votes, twice=exact)
            cut = braked(steps, solved, threshold, exact=exact)
            if cut is None:
                made.append(example(task, trace.text, masked=[], braked=False))
                continue
            kept = lead + cut.kept
            before = kept + cut.masked
            text = ended(task, before.rstrip() + "\n\n" + BRAKE) + (rest or "").lstrip()
            spans = [[len(kept), len(before.rstrip())]] if cut.masked.strip() else []
            made.append(example(task, text, masked=spans, braked=True))
        answer = next((trace.answer for trace in (*good, *drawn) if trace.answer is not None), None)
        return Built(tuple(made), answer)

    return Builder(build, SFT, models=() if other is None else (other,))


async def found(task: Task, judge: Model, steps: list[str], answer: str, votes: int, *, twice: bool) -> list[bool]:
    """Of each step, whether a judge says that it is the first to state the answer, or the next one behind it.

    Args:
        task: the question.
        judge: who is asked.
        steps: of a thinking.
        answer: that it comes to.
        votes: times that the judge is asked.
        twice: ask for the next one, too.
    """
    solved = [False] * len(steps)
    for _ in range(1 + twice):
        begin = solved.index(True) + 1 if any(solved) else 0
        if begin == len(steps):
            break
        listed = "\n".join(f"step {i + 1}: {step.strip()}" for i, step in enumerate(steps) if i >= begin)
        # what the model wrote comes last: it may hold braces
        asked = FIND.replace("{question}", task.question.text).replace("{answer}", answer).replace("{steps}", listed)
        said = await judged(task, judge, asked, votes, 0.7 if votes > 1 else 0.0)
        step = elected(said, begin + 1, len(steps))
        if step is None:
            break
        solved[step - 1] = True
    return solved


def elected(said: list[str], low: int, high: int) -> int | None:
    """The step from ``low`` to ``high`` that the most judgements end with, the earliest of several; None without any.

    >>> elected(["step: 3", "I see.\\nStep: 5", "**step**: <5>", "step: 3", "step: 99"], 1, 8)
    3
    """
    last = [re.findall(r"step\W*(\d+)", text.lower())[-1:] for text in said]
    counts = Counter(int(number) for numbers in last for number in numbers if low <= int(number) <= high)
    return min(counts, key=lambda step: (-counts[step], step)) if counts else None


def opening(task: Task, thinking: str) -> str:
    """The tag that a thinking begins with, and the blanks behind it; ``""`` where there is none."""
    tags = tags_in(task)
    if tags is None or not thinking.startswith(tags.open):
        return ""
    rest = thinking[len(tags.open) :]
    return thinking[: len(thinking) - len(rest.lstrip())]


def states(task: Task, step: str) -> bool:
    """Whether a step states the right answer: by what the style reads in it, or behind its last equals sign."""
    style = task.style
    said = (style.answer(part.strip()) for part in (step, step.rpartition("=")[2]) if part.strip())
    return any(answer is not None and graded(task, style.normal(answer)) for answer in said)
