"""ZIP-RC: does ending samples by predicted value and length buy accuracy that fixed numbers of samples do not?

*Made-up samples*: 150 questions with a solve rate drawn from (0, 1), up to 8 samples each, of log-normal length (mean
about 60 tokens) and value 0 or 1. The rate is known at the start; a sample's value shows through a drift that grows
with its tokens, so predictions are calibrated and sharpen; its remaining length is seen with 7 in 10 in the right bin.
The answer is the finished sample of the highest predicted value. *Controls*: all rates 0.5 and nothing shown.

*The embedded reasoner*: 300 chains of 3 to 8 steps, temperature 1, the head of the package against self-consistency
with 1 to 8 samples, compared at equal output tokens by linear interpolation.
"""

from __future__ import annotations

import asyncio
from collections import Counter

import numpy as np

from budgeteer.core.plan import F64
from budgeteer.lab.evidence import ABOVE_ZERO, Evidence, Region, declare, measured
from budgeteer.steer._zip_rc import Costs, decide, middles, start

QUESTIONS, SAMPLES, EVERY = 150, 8, 16
VALUES = np.linspace(0, 1, 7)
LENGTHS = (0, 16, 32, 64, 96, 128, 192)
TOKENS = middles(LENGTHS)

DECLARED = declare(
    "simulation",
    claims=("made-up samples",),
    controls=("made-up samples, control",),
) | declare(
    "embedded reasoner",
    claims=("reasoner",),
)


def experiments() -> list[Evidence]:
    """Made-up samples, their control, and the reasoner."""
    return [simulated(informed=True), simulated(informed=False), *reasoner()]


def near(value: F64) -> F64:
    """[k, v] distributions on the grid with these means."""
    place = np.clip(value, 0, 1) * (len(VALUES) - 1)
    low = np.minimum(place.astype(int), len(VALUES) - 2)
    out = np.zeros((len(value), len(VALUES)))
    rows = np.arange(len(value))
    out[rows, low], out[rows, low + 1] = 1 - (place - low), place - low
    return out


def simulate(seed: int, informed: bool, costs: Costs | None, k: int) -> tuple[float, float]:
    """(accuracy, tokens a question): the controller, or k samples to their end when costs is None."""
    rng = np.random.default_rng([seed, 24])
    right = spent = 0.0
    for _ in range(QUESTIONS):
        rate = rng.random() if informed else 0.5
        truth = (rng.random(SAMPLES) < rate).astype(float)
        length = np.clip(rng.lognormal(np.log(50), 0.6, SAMPLES), 8, 250).astype(int)
        drift = 0.15 if informed else 0.0
        steps = int(length.max()) // EVERY + 2
        walk = np.cumsum(rng.normal(size=(SAMPLES, steps)) * EVERY**0.5 + drift * EVERY * (2 * truth - 1)[:, None], 1)
        walk = np.concatenate([np.zeros((SAMPLES, 1)), walk], 1)
        noise = rng.random((SAMPLES, steps + 1))

        def value(i: int, t: int) -> float:
            logit = np.log(rate / (1 - rate)) + 2 * drift * walk[i, t]  # noqa: B023 (called within the turn)
            return float(1 / (1 + np.exp(-np.clip(logit, -40, 40))))

        def joint(i: int, t: int) -> F64:
            seen = np.full(len(LENGTHS), 0.3 / len(LENGTHS))
            bin_ = int(np.searchsorted(LENGTHS, length[i] - t * EVERY, side="right")) - 1  # noqa: B023
            shown = bin_ if noise[i, t] < 0.7 else int(noise[i, t] * 1000) % len(LENGTHS)  # noqa: B023
            seen[shown if informed else 0] += 0.7 if informed else 0.0
            seen /= seen.sum()
            return np.asarray(near(np.array([value(i, t)]))[0][:, None] * seen)

        going = list(range(k))
        if costs is not None:
            going = going[: start(joint(0, 0), k, np.array([]), VALUES, TOKENS, costs)]
        done: list[tuple[float, int, int]] = []
        t = 0
        while going:
            t += 1
            for i in [i for i in going if length[i] <= t * EVERY]:
                done.append((value(i, t), int(length[i]), i))
                spent += length[i]
                going.remove(i)
            if going and costs is not None:
                known = np.array([(v, n) for v, n, _ in done]).reshape(-1, 2)
                keep = decide(
                    np.array([joint(i, t) for i in going]),
                    np.full(len(going), t * EVERY),
                    known[:, 0],
                    known[:, 1],
                    VALUES,
                    TOKENS,
                    costs,
                )
                spent += t * EVERY * float((~keep).sum())
                going = [i for i, kept in zip(going, keep.tolist(), strict=True) if kept]
        right += truth[max(done)[2]] if done else 0.0
    return right / QUESTIONS, spent / QUESTIONS


def above_curve(accuracy: float, tokens: float, curve: list[tuple[float, float]]) -> float:
    """Accuracy less that of a curve [(accuracy, tokens)] at the same tokens, by linear interpolation."""
    by_tokens = sorted((t, a) for a, t in curve)
    return accuracy - float(np.interp(tokens, [t for t, _ in by_tokens], [a for _, a in by_tokens]))


def simulated(*, informed: bool, seeds: int = 8) -> Evidence:
    """Accuracy above that of best-of-n at the controller's tokens."""
    values, seen = [], []
    for seed in range(seeds):
        accuracy, tokens = simulate(seed, informed, Costs(0.02, 0.0), SAMPLES)
        values.append(above_curve(accuracy, tokens, [simulate(seed, informed, None, k) for k in range(1, 9)]))
        seen.append((accuracy, tokens))
    region: Region = ABOVE_ZERO if informed else (-0.03, 0.03)
    where = "" if informed else ", when all questions are alike and nothing is shown (control)"
    effect = "is higher" if informed else "is the same within 3 points"
    accuracy, tokens = np.mean(seen, 0)
    return measured(
        "made-up samples" + ("" if informed else ", control"),
        values,
        region,
        claim=f"Accuracy {effect} at equal tokens{where} (difference)",
        baseline="best of 1 to 8 samples by the same predictions",
        budget="equal mean tokens",
        details=[{"accuracy": float(accuracy), "tokens": float(tokens)}],
    )


def reasoner(seeds: int = 5, questions: int = 300, cost: float = 0.03) -> list[Evidence]:
    """Accuracy above that of self-consistency at equal tokens."""
    from budgeteer.lab.asking import STYLE, ask
    from budgeteer.lab.run import one_thread
    from budgeteer.lab.tasks.chains import Chains
    from budgeteer.models.model import Request, Response
    from budgeteer.models.reasoner import Reasoner
    from budgeteer.strategies import zip_rc

    one_thread()
    model = Reasoner()
    values, details = [], []
    for seed in range(seeds):
        env = Chains(questions, 700 + seed, min_steps=3, max_steps=8)
        asked = ask(model, zip_rc(costs=Costs(cost, cost)), env, env.items, output=10_000, seed=seed)

        async def sample(env: Chains = env, seed: int = seed) -> list[Response]:
            requests = [
                Request(item.prompt, 128, SAMPLES, stop=STYLE.stop, seed=1000 * seed + j)
                for j, item in enumerate(env.items)
            ]
            return await asyncio.gather(*map(model.generate, requests))

        responses, curve = asyncio.run(sample()), []
        for k in (1, 2, 3, 4, 6, 8):
            right = used = 0.0
            for item, response in zip(env.items, responses, strict=True):
                texts = [STYLE.read(choice.text) for choice in response.choices[:k]]
                votes = Counter(text for text in texts if text is not None)
                right += env.verify(item, votes.most_common(1)[0][0] if votes else None)
                used += sum(choice.tokens or 0 for choice in response.choices[:k])
            curve.append((right / questions, used / questions))
        accuracy, tokens = float(asked.right.mean()), float(asked.output.mean())
        values.append(above_curve(accuracy, tokens, curve))
        details.append({"seed": seed, "accuracy": accuracy, "tokens": tokens, "self-consistency": curve})
    return [
        measured(
            "reasoner",
            values,
            ABOVE_ZERO,
            claim="On the embedded reasoner, accuracy is higher at equal tokens (difference)",
            baseline="self-consistency with 1 to 8 samples",
            budget="equal mean output tokens",
            details=details,
        )
    ]
