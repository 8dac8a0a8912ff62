"""DiffAdapt's bundles: fewer tokens at the same accuracy, when is that so?

400 made-up questions of difficulty d in [0, 1]. With x tokens, of at most 100, a question is solved with probability
``c(d) (1 - exp(-x / s(d)))``: easy ones soon (s = 5 + 40 d), hard ones hardly ever (c falls from 1 at d = 0.6 to 0.02
at d = 0.8). Classes come from d with noise: easy below 0.3, hard above 0.7; easy ones get 0.4, hard ones 0.5 of the
tokens. *Controls*: noise that leaves nothing of d; hard questions that more tokens do solve (c = 1, s = 5 + 80 d).
"""

from __future__ import annotations

import numpy as np

from budgeteer.core.plan import F64
from budgeteer.lab.evidence import ABOVE_ZERO, BELOW_ONE, BELOW_ZERO, Evidence, declare, measured
from budgeteer.steer._diffadapt_probe import BUNDLES

QUESTIONS, MOST = 400, 100

DECLARED = declare(
    "simulation",
    claims=(
        "tokens",
        "accuracy",
        "classes",
    ),
    controls=(
        "classes of noise (control)",
        "hard questions that tokens solve (control)",
    ),
)


def experiments() -> list[Evidence]:
    """Tokens and accuracy, then what the classes are worth against shares given at random, and the boundary."""
    budget = f"{QUESTIONS} questions, at most {MOST} tokens each"
    played = [play(seed, noise=0.1, ceiling=True) for seed in range(20)]
    blind = [play(seed, noise=50.0, ceiling=True) for seed in range(20)]
    rising = [play(seed, noise=0.1, ceiling=False) for seed in range(20)]
    everyone = "all tokens for every question"
    chance = "the same shares, dealt at random"
    return [
        measured(
            "tokens",
            [p[0] for p in played],
            BELOW_ONE,
            claim="Fewer tokens are used (ratio)",
            baseline=everyone,
            budget=budget,
        ),
        measured(
            "accuracy",
            [p[1] for p in played],
            (-0.01, 1.0),
            claim="Accuracy loses at most 1 point (difference)",
            baseline=everyone,
            budget=budget,
        ),
        measured(
            "classes",
            [p[2] for p in played],
            ABOVE_ZERO,
            claim="Accuracy is higher than by chance (difference)",
            baseline=chance,
            budget="equal tokens",
        ),
        measured(
            "classes of noise (control)",
            [p[2] for p in blind],
            (-0.005, 0.005),
            claim="With classes of noise, accuracy is that of chance (difference, within half a point)",
            baseline=chance,
            budget="equal tokens",
        ),
        measured(
            "hard questions that tokens solve (control)",
            [p[1] for p in rising],
            BELOW_ZERO,
            claim="Where hard questions can be solved with more tokens, accuracy falls (difference)",
            baseline=everyone,
            budget=budget,
        ),
    ]


def play(seed: int, *, noise: float, ceiling: bool) -> tuple[float, float, float]:
    """Ratio of tokens, and differences of expected accuracy: to all tokens for all, and to shares dealt at random."""
    rng = np.random.default_rng([seed, 23])
    d = rng.random(QUESTIONS)
    seen = d + noise * rng.normal(size=QUESTIONS)
    if noise > 1:  # the ranks of noise, so that the classes keep their sizes
        seen = (seen.argsort().argsort() + 0.5) / QUESTIONS
    share = np.array([bundle.share for bundle in BUNDLES])[np.where(seen < 0.3, 0, np.where(seen > 0.7, 2, 1))]

    def accuracy(tokens: F64) -> float:
        top = np.clip((0.8 - d) / 0.2, 0.02, 1.0) if ceiling else np.ones(QUESTIONS)
        return float((top * -np.expm1(-tokens / (5 + (40 if ceiling else 80) * d))).mean())

    ours = accuracy(MOST * share)
    dealt = float(np.mean([accuracy(MOST * rng.permutation(share)) for _ in range(50)]))
    return float(share.mean()), ours - accuracy(np.full(QUESTIONS, float(MOST))), ours - dealt
