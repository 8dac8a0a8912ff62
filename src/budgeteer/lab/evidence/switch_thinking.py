"""SwiReasoning: does the cap on switches control how long the embedded reasoner thinks?

60 chains of 3 to 6 steps a seed at temperature 1, a window of 3 tokens, at most 120 tokens each. The reasoner was never
trained on mixed embeddings, so nothing is claimed about accuracy; it is in the details beside plain sampling.
"""

from __future__ import annotations

import numpy as np

from budgeteer.lab.evidence import ABOVE_ZERO, Evidence, declare, measured

CAPS = (1, 2, 4, None)
QUESTIONS, OUTPUT = 60, 120

DECLARED = declare(
    "embedded reasoner",
    claims=(
        "never shorter",
        "longer",
    ),
)


def experiments(seeds: int = 5) -> list[Evidence]:
    """The least and the mean effect of a larger cap on the tokens of thinking."""
    from budgeteer.lab.asking import ask
    from budgeteer.lab.evidence.budget_guidance import plain
    from budgeteer.lab.run import one_thread
    from budgeteer.lab.tasks.base import THINK_END
    from budgeteer.lab.tasks.chains import Chains
    from budgeteer.models.reasoner import Reasoner
    from budgeteer.strategies import switch_thinking

    one_thread()
    model = Reasoner()
    least, grown = [], []
    rows: dict[str, list[tuple[float, float]]] = {}
    for seed in range(seeds):
        env = Chains(QUESTIONS, 600 + seed, min_steps=3, max_steps=6)
        lengths = []
        for cap in (*CAPS, "plain"):
            strategy = plain(None) if cap == "plain" else switch_thinking(cap, window=3)  # type: ignore[arg-type]
            asked = ask(model, strategy, env, env.items, output=OUTPUT, seed=seed)
            rows.setdefault(str(cap), []).append((float(asked.right.mean()), float(asked.output.mean())))
            if cap != "plain":
                lengths.append([len(a.traces[0].partition(THINK_END)[0]) for a in asked.answers])
        steps = np.diff(np.array(lengths), axis=0)
        least.append(float(steps.min()))
        grown.append(float(steps.mean(1).min()))
    details = [
        {"switches": cap, "accuracy": float(np.mean(a, 0)[0]), "tokens": float(np.mean(a, 0)[1])}
        for cap, a in rows.items()
    ]
    budget = f"the same seeds, {OUTPUT} tokens a question"
    return [
        measured(
            "never shorter",
            least,
            (-0.5, np.inf),
            claim="No question's thinking is shorter with more switches allowed (smallest growth, characters)",
            baseline="the next smaller cap",
            budget=budget,
            details=details,
        ),
        measured(
            "longer",
            grown,
            ABOVE_ZERO,
            claim="Mean thinking grows with each step of the cap, 1, 2, 4, none (smallest growth, characters)",
            baseline="the next smaller cap",
            budget=budget,
        ),
    ]
