"""Plan and budget: a plan of sub-questions, and tokens for each by difficulty and a schedule.

Paper: "Plan and Budget: Effective and Efficient Test-Time Scaling on Large Language Model Reasoning", arXiv 2505.16122.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np

from budgeteer.allocate import proportional, water_filling
from budgeteer.core.bisection import largest
from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import Items
from budgeteer.core.usage import Usage
from budgeteer.models.chat import Prompt, continued
from budgeteer.models.model import continuing
from budgeteer.solve import Answer, StoppedBy, Strategy, Task
from budgeteer.strategies.kit.planner import Part, Planner, model_planner
from budgeteer.strategies.kit.trace import Piece, ask, conclude, thinking_stops

Schedule = Literal["constant", "linear", "polynomial", "exponential", "cosine", "water-filling"]


def plan_and_budget(
    schedule: Schedule = "polynomial",
    planner: Planner | None = None,
    levels: tuple[int, int, int, int, int] | None = None,
    heading: str = "\n{number}. {part}\n",
    end: str = "\n\n",
    thinking: int = 1024,
    temperature: float = 0.0,
) -> Strategy:
    """Split a question into N parts; part j (from 0) gets tokens ``b_j`` in proportion to ``credit_j * s(j)``.

    s(j): constant 1; linear N - j; polynomial (N - j)^2; exponential 0.9^j; cosine 0.5 (1 + cos(pi j / (N - 1))) + 0.1.
    These schedules approximate ``water-filling``, which minimises ``sum_j credit_j b_j^-decay_j`` exactly. All round to
    whole tokens by largest remainder.

    A model that continues raw text (PREFIX) has to keep to the split: it thinks part by part, each under its heading;
    tokens that a part leaves go to the next ones; then the answer is forced. Any other model gets one prompt that lists
    the parts with at most ``3 b_j / 4`` words each, advice that it may ignore. The budget bounds both, and pays the
    planner's calls, too.

    When it helps: problems that consist of parts, where early parts need most tokens, or the credits are good. When
    not: the hard part comes late (then ``constant`` is better), the planner costs more than it saves, or its plan is
    wrong.

    Paper: "Plan and Budget: Effective and Efficient Test-Time Scaling on Large Language Model Reasoning",
    arXiv 2505.16122. Its closed form ``(c a)^(1 / (a + 1))`` holds for equal decays only. The official code gives what
    rounding leaves to the largest share, advises in words as if they were tokens, enforces nothing and does not count
    the planner's tokens.

    Args:
        schedule: how the tokens fall with the part's number.
        planner: None asks the model, see :func:`budgeteer.strategies.kit.planner.model_planner`.
        levels: thinking tokens for the planner's levels 1 to 5, such as the official code's (200, 250,
            350, 450, 600); None = as many as fit.
        heading: of a part, with ``{number}`` and ``{part}``.
        end: text that ends a part early.
        thinking: most tokens of all parts together.
        temperature: 0 is greedy.
    """
    if schedule not in get_args(Schedule):
        raise InvalidInput(f"schedule {schedule!r} is none of {', '.join(get_args(Schedule))}")
    make = planner or model_planner()

    async def solve(task: Task) -> Answer:
        prompt = task.style.prompt(task.question.text)
        plan = await make(task)
        cap = thinking if levels is None or plan.level is None else min(thinking, levels[plan.level - 1])
        if continuing(prompt) not in task.model.capabilities:
            return await advised(task, plan.parts, cap)
        heads = [heading.format(number=j, part=part.text) for j, part in enumerate(plan.parts, 1)]
        tokens = divide(room(task, prompt, heads, plan.parts, schedule, cap), plan.parts, schedule)
        trace, spent, planned, by = "", 0, 0, StoppedBy.DONE
        for j, (head, share) in enumerate(zip(heads, tokens, strict=True)):
            planned += share
            if planned == spent:
                continue
            piece = await ask(
                task,
                continued(prompt, trace + head),
                most=planned - spent,
                keep=task.style.answer_tokens,
                stop=(*thinking_stops(task), end),
                temperature=temperature,
                stage="part",
                at=j,
            )
            if not piece.tokens:
                by = StoppedBy.BUDGET
                break
            trace, spent = trace + head + piece.text + end * piece.ended, spent + piece.tokens
        return await conclude(task, prompt, trace, by, temperature=temperature)

    async def advised(task: Task, parts: Sequence[Part], cap: int) -> Answer:
        style, question = task.style, task.question.text
        free = task.model.afford(style.prompt(question), most=cap)
        words = [tokens * 3 // 4 for tokens in divide(free, parts, schedule)]
        listed = [f"- {part.text} (at most {n} words)" for part, n in zip(parts, words, strict=True)]
        text = "\n".join([question, "", "These sub-questions may help; think briefly about each:", *listed])
        piece: Piece = await ask(task, style.prompt(text), most=cap, stop=style.stop, temperature=temperature)
        if not piece.tokens:  # the advice does not fit: ask without it
            piece = await ask(task, style.prompt(question), most=cap, stop=style.stop, temperature=temperature)
        return Answer(style.read(piece.text) if piece.tokens else None, piece.stopped_by, (piece.text,))

    return Strategy(solve)


def weights(n: int, schedule: Schedule) -> list[float]:
    """The weights s(j) of n parts; see :func:`plan_and_budget`.

    >>> weights(3, "linear"), weights(3, "polynomial"), [round(s, 2) for s in weights(3, "cosine")]
    ([3.0, 2.0, 1.0], [9.0, 4.0, 1.0], [1.1, 0.6, 0.1])
    """
    if schedule == "linear":
        return [float(n - j) for j in range(n)]
    if schedule == "polynomial":
        return [float((n - j) ** 2) for j in range(n)]
    if schedule == "exponential":
        return [0.9**j for j in range(n)]
    if schedule == "cosine" and n > 1:
        return [0.5 * (1 + math.cos(math.pi * j / (n - 1))) + 0.1 for j in range(n)]
    return [1.0] * n


def divide(total: int, parts: Sequence[Part], schedule: Schedule) -> list[int]:
    """Whole tokens of each part, ``total`` in sum.

    >>> divide(10, [Part("a", 2.0), Part("b")], "linear")
    [8, 2]
    """
    keys = tuple(f"{j:06d}" for j in range(len(parts)))
    scale = np.array([part.credit * s for part, s in zip(parts, weights(len(parts), schedule), strict=True)])
    items = Items(keys, np.ones(len(parts)), scale=scale, decay=np.array([part.decay for part in parts]))
    allocator = water_filling() if schedule == "water-filling" else proportional("scale")
    units: list[int] = allocator.allocate(total, items, (), rng=np.random.default_rng(0)).units.tolist()
    return units


def room(task: Task, prompt: Prompt, heads: Sequence[str], parts: Sequence[Part], schedule: Schedule, cap: int) -> int:
    """The most tokens of thinking, up to ``cap``, for which the budget covers all calls.

    Each call reads the prompt and what earlier calls wrote; ``heads`` are the headings of the parts.
    """
    model = task.model
    sizes = [model.count(head) for head in heads]
    inputs, high = model.count(prompt), model.afford(prompt, most=cap, keep=task.style.answer_tokens)
    if schedule == "water-filling":
        pull = np.array(divide(high, parts, schedule), dtype=np.float64)
    else:
        pull = np.array([part.credit for part in parts]) * weights(len(parts), schedule)
    shares = (pull / max(float(pull.sum()), 1e-300)).tolist()

    def fits(thinking: int) -> bool:
        read, calls = inputs, []
        for size, share in zip(sizes, shares, strict=True):
            tokens = math.ceil(share * thinking - 1e-9)  # divide() itself is too slow for every step of this search
            read += size
            calls.append(Usage(input=read, output=tokens))
            read += tokens
        return model.fits(*calls, Usage(input=read, output=task.style.answer_tokens))

    return largest(fits, high)
