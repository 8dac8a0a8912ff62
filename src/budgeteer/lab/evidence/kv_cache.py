"""Scores of a KV cache on SmolLM2-135M: how likely the right answer stays with a quarter of the cache, against random.

Texts of 400 tokens hide one number among filler (``budgeteer cache eval``, task ``single``); a seed is a text. The
quantity is the log-probability of the right answer, nats a token, less that with entries drawn at random, from the same
prefill. *Known*: the question stands in the prompt when the choice is made. *Unknown*: it comes after the choice.
*Control*: other random entries. Windows are 16 queries, for texts this short. It takes three minutes on an idle core.
"""

from __future__ import annotations

from collections.abc import Sequence

from budgeteer.lab.evidence import ABOVE_ZERO, Evidence, declare, measured

SEEDS, LENGTH, BUDGET = 8, 400, "25%"
KNOWN = ("snapkv:window=16", "tova", "h2o", "defensive:window=16")
UNKNOWN = ("kvzip", "expected-attention", "prefix-kv", "knorm", "streaming-llm", "recent")
CONTROL = "other random entries (control)"

DECLARED = declare(
    "real model",
    claims=(*(f"{name}, known" for name in KNOWN), *(f"{name}, unknown" for name in UNKNOWN)),
    controls=(CONTROL,),
)


def experiments() -> list[Evidence]:
    """Each score against random entries, on the same texts."""
    from budgeteer.lab.cache_eval import evaluate, opened
    from budgeteer.lab.needles import samples

    model, encode = opened("smollm2")

    def size(text: str) -> int:
        return len(encode(text, True))

    found: dict[str, list[float]] = {}
    for seed in range(SEEDS):
        sample = samples("single", 1, LENGTH, size, seed=seed)
        for known, methods in ((True, KNOWN), (False, UNKNOWN)):
            asked = "known" if known else "unknown"
            for each in evaluate(model, encode, sample, ["random", *methods], [BUDGET], known=(known,), seed=seed):
                found.setdefault(f"{each.method}, {asked}", []).append(each.logprob)
        others = evaluate(model, encode, sample, ["random"], [BUDGET], known=(True,), seed=seed + SEEDS)
        found.setdefault(CONTROL, []).extend(each.logprob for each in others if each.method == "random")
    return [
        *(against_random(found, f"{name}, known") for name in KNOWN),
        *(against_random(found, f"{name}, unknown") for name in UNKNOWN),
        _control(found),
    ]


def against_random(found: dict[str, list[float]], name: str) -> Evidence:
    """A claim: the answer is likelier than with random entries."""
    method, asked = name.split(", ")
    return measured(
        name,
        _less(found[name], found[f"random, {asked}"]),
        ABOVE_ZERO,
        claim=f"With {method} and the question {asked}, the right answer is likelier (nats a token, difference)",
        baseline="entries at random",
        budget=f"{BUDGET} of the entries",
        details=[{"log p": of, "seeds": SEEDS, "mean": sum(found[of]) / SEEDS} for of in (name, f"full, {asked}")],
    )


def _control(found: dict[str, list[float]]) -> Evidence:
    return measured(
        CONTROL,
        _less(found[CONTROL], found["random, known"]),
        (-1.0, 1.0),
        claim="Other random entries are as good, within 1 nat a token (difference)",
        baseline="entries at random",
        budget=f"{BUDGET} of the entries",
    )


def _less(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    return [a - b for a, b in zip(ours, theirs, strict=True)]
