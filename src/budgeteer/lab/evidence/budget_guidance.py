"""Budget guidance: does steering at line starts finish more thinking in time than cutting it does?

*Made-up traces*: lines of three types, where the type that is drawn at a line's start tells how much follows (explore:
much; conclude: nothing). Gammas of log(L + 1) for each type are fitted by moments to 4,000 free traces; 2,000 others
are guided, or cut. *Control*: the same types, but an independent coin ends a trace, so a type tells nothing.

*The embedded reasoner*: 300 chains of 5 steps, modulo 11, at temperature 1, 38 tokens a question, answer included; 37
are enough for a trace without detours. Steps and budget are where the gain over truncation was largest on other chains
(4 to 6 steps, 34 to 50 tokens, seeds 9000 to 9011); they were fixed before these seeds were looked at. Truncation is
left to think until its tokens are gone; forcing keeps 5 tokens to close the thinking and ask; guidance does that, too.
Each side's measured tokens are in the details: guidance uses fewer, so it is compared at no more than equal tokens.
Greedy decoding needs no method at all, so guidance, sampled and at temperature 0, is compared with greedy traces that
are cut at the same budget, too. *Control*: a head whose states are of other rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from budgeteer.core.plan import F64, I64
from budgeteer.lab.evidence import ABOVE_ZERO, Evidence, Region, declare, measured

if TYPE_CHECKING:
    from torch import Tensor

    from budgeteer.solve import Strategy

TOKENS = np.array([8, 4, 1])
NEXT = np.array([[0.6, 0.3, 0.1], [0.2, 0.3, 0.5]])
"""Types that follow explore and verify."""
BUDGET, TRACES = 24, 2000
QUESTIONS, STEPS, OUTPUT = 300, 5, 38

DECLARED = declare(
    "simulation",
    claims=(
        "made-up traces, types tell what follows",
        "made-up traces, mean length",
    ),
    controls=("made-up traces, types tell nothing (control)",),
) | declare(
    "embedded reasoner",
    claims=(
        "reasoner, against truncation",
        "reasoner, against forcing",
        "reasoner, against shuffled",
        "reasoner, against greedy truncation",
        "reasoner, at temperature 0, against greedy truncation",
        "reasoner, at temperature 0, against greedy forcing",
    ),
)


def experiments() -> list[Evidence]:
    """Made-up traces and their control, then the reasoner."""
    return [natural(informative=True), natural(informative=False), length(), *reasoner()]


# Made-up traces


def play(
    rng: np.random.Generator, n: int, informative: bool, favour: Callable[[I64], F64] | None, cap: int = 10_000
) -> tuple[list[I64], list[I64], I64]:
    """(types drawn at each line, tokens left from each line on, total tokens) of n traces; ``favour`` gives weights
    [m, 3] for tokens left [m]."""
    total, before = np.zeros(n, np.int64), np.zeros(n, np.int64)
    running = np.arange(n)
    types, starts, rows = list[I64](), list[I64](), list[I64]()
    while len(running):
        p = NEXT[before[running]]
        if favour is not None:
            p = p * favour(np.maximum(BUDGET - total[running], 1))
            nothing = p.sum(1) == 0
            p[nothing] = NEXT[before[running]][nothing]
            p = p / p.sum(1, keepdims=True)
        drawn = (rng.random(len(running))[:, None] > p.cumsum(1)[:, :2]).sum(1)
        types.append(drawn)
        starts.append(total[running])
        rows.append(running)
        total[running] += TOKENS[drawn] if informative else 4
        ended = drawn == 2 if informative else rng.random(len(running)) < 0.2
        ended |= total[running] >= cap
        before[running] = np.minimum(drawn, 1)
        running = running[~ended]
    left = [total[r] - s for r, s in zip(rows, starts, strict=True)]
    return types, left, total


def gammas(types: list[I64], left: list[I64]) -> F64:
    """[2, 3] shape and rate of log(L + 1) of each type, by moments."""
    kind, ell = np.concatenate(types), np.log(np.concatenate(left) + 1.0)
    out = np.zeros((2, 3))
    for t in range(3):
        mean, var = ell[kind == t].mean(), ell[kind == t].var() + 1e-3
        out[:, t] = mean**2 / var, mean / var
    return out


def favouring(shape_rate: F64) -> Callable[[I64], F64]:
    """The method's weights [m, 3] for tokens left [m]."""
    import torch

    from budgeteer.steer._budget_guidance import weights

    def favour(left: I64) -> F64:
        shape, rate = (torch.from_numpy(row).expand(len(left), 3) for row in shape_rate)
        a = weights(shape, rate, torch.from_numpy(left).double(), min_rate=0.0, min_mode=0.9)
        return np.asarray(a.numpy())

    return favour


def guided(seed: int, informative: bool) -> tuple[I64, I64]:
    """Lengths of guided and of unguided traces."""
    rng = np.random.default_rng([seed, 21])
    types, left, _ = play(rng, 2 * TRACES, informative, None)
    with_guidance = play(rng, TRACES, informative, favouring(gammas(types, left)))[2]
    return with_guidance, play(rng, TRACES, informative, None)[2]


def natural(*, informative: bool, seeds: int = 20) -> Evidence:
    """How many more traces end by themselves within the budget."""
    values = []
    for seed in range(seeds):
        ours, free = guided(seed, informative)
        values.append(float((ours <= BUDGET).mean() - (free <= BUDGET).mean()))
    region: Region = ABOVE_ZERO if informative else (-0.02, 0.02)
    types = "types tell what follows" if informative else "types tell nothing (control)"
    return measured(
        f"made-up traces, {types}",
        values,
        region,
        claim=f"Where {types}, the share of traces that end within the budget "
        + ("is larger (difference)" if informative else "is the same (difference, within 2 points)"),
        baseline="hard truncation",
        budget=f"{BUDGET} tokens of thinking",
    )


def length(*, seeds: int = 20) -> Evidence:
    """Mean length of guided traces against the budget."""
    values = [float(guided(seed, True)[0].mean() / BUDGET) for seed in range(seeds)]
    return measured(
        "made-up traces, mean length",
        values,
        (0.0, 1.1),
        claim="The mean length of guided traces is at most 1.1 of the budget, with nothing cut (ratio)",
        baseline="the budget",
        budget=f"{BUDGET} tokens of thinking",
    )


# The embedded reasoner


@dataclass(frozen=True, eq=False)
class Shuffled:
    """A head that reads the states of another row of the batch."""

    head: object

    def __getattr__(self, name: str) -> object:
        return getattr(self.head, name)

    def __call__(self, states: Tensor) -> Tensor:
        return self.head(states.roll(1, 0))  # type: ignore[operator, no-any-return]


def plain(reserve: int | None, temperature: float = 1.0, max_tokens: int = 400) -> Strategy:
    """One trace without guidance: forced to answer in ``reserve`` tokens, or cut where its tokens end (None)."""
    from budgeteer.solve import Answer, Strategy, Task
    from budgeteer.steer import budget_forcing
    from budgeteer.strategies.kit.inside import NEEDS, one_trace

    steer = None if reserve is None else budget_forcing(reserve=reserve)

    async def solve(task: Task) -> Answer:
        return await one_trace(task, steer, max_tokens=max_tokens, temperature=temperature)

    return Strategy(solve, NEEDS)


def reasoner(seeds: int = 10) -> list[Evidence]:
    """Accuracy of guidance less that of truncation, of forcing, of guidance by the states of other rows, and of greedy
    traces that are cut."""
    from budgeteer.engine.head import load_head
    from budgeteer.lab.asking import STYLE, ask
    from budgeteer.lab.run import one_thread
    from budgeteer.lab.tasks.chains import Chains
    from budgeteer.models.reasoner import Reasoner
    from budgeteer.solve import StoppedBy
    from budgeteer.strategies import budget_guidance

    one_thread()
    model = Reasoner()
    shuffled = Shuffled(load_head("budget_guidance"))
    greedy, other = "guidance at temperature 0", "guidance by the states of another question"
    sides = {
        "guidance": budget_guidance(),
        greedy: budget_guidance(temperature=0.0),
        "truncation": plain(None),
        "greedy truncation": plain(None, 0.0),
        "forcing": plain(STYLE.answer_tokens),
        "greedy forcing": plain(STYLE.answer_tokens, 0.0),
        other: budget_guidance(shuffled),  # type: ignore[arg-type]
    }
    outcomes: dict[str, list[tuple[float, float, float]]] = {name: [] for name in sides}
    for seed in range(seeds):
        env = Chains(QUESTIONS, 700 + seed, min_steps=STEPS, max_steps=STEPS)
        for name, strategy in sides.items():
            asked = ask(model, strategy, env, env.items, output=OUTPUT, seed=700 + seed)
            whole = np.mean([answer.stopped_by == StoppedBy.DONE for answer in asked.answers])
            outcomes[name].append((float(asked.right.mean()), float(asked.output.mean()), float(whole)))
    means = {name: np.mean(rows, 0) for name, rows in outcomes.items()}
    details = [{"side": name, "accuracy": a, "tokens": t, "ended by itself": w} for name, (a, t, w) in means.items()]
    warm = " at temperature 1"
    claims: list[tuple[str, str, str, Region, str]] = [
        ("against truncation", "guidance", "truncation", (0.10, 1.0), "is higher by more than 10 points"),
        ("against forcing", "guidance", "forcing", ABOVE_ZERO, "is higher"),
        ("against shuffled", "guidance", other, ABOVE_ZERO, "is higher with a question's own states"),
        ("against greedy truncation", "guidance", "greedy truncation", ABOVE_ZERO, "is higher"),
        ("at temperature 0, against greedy truncation", greedy, "greedy truncation", ABOVE_ZERO, "is higher"),
        ("at temperature 0, against greedy forcing", greedy, "greedy forcing", ABOVE_ZERO, "is higher"),
    ]
    return [
        measured(
            f"reasoner, {name}",
            [a[0] - b[0] for a, b in zip(outcomes[ours], outcomes[theirs], strict=True)],
            region,
            claim=f"On the embedded reasoner, accuracy of {ours}{'' if ours == greedy else warm} {effect} (difference)",
            baseline=theirs if theirs.startswith("greedy") else theirs + warm,
            budget=f"{OUTPUT} tokens a question; used {means[ours][1]:.1f} against {means[theirs][1]:.1f}",
            details=details,
        )
        for name, ours, theirs, region, effect in claims
    ]
