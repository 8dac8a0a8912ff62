"""What a comparison claims, on numbers worked by hand."""

from __future__ import annotations

from typing import Any

from budgeteer.lab.claim import claim
from budgeteer.lab.report import table
from budgeteer.lab.results import compare


def run(recipe: str, budget: str, seed: int, accuracy: float, seconds: float = 10.0) -> dict[str, Any]:
    tokens = {"planned": 0.0, "used": 100, "trained": 50, "wasted": 0}
    return {
        "recipe": recipe, "budget": budget, "seed": seed, "accuracy": accuracy, "tokens": tokens, "seconds": seconds,
        "curve": [],
    }  # fmt: skip


def results(start: float, half: list[float], stop: list[float] | None = None) -> dict[str, Any]:
    """A reference of 0.70 on every seed, the untrained policy at ``start``, and the arms at 50 %."""
    runs = [run("grpo", "100%", seed, 0.70) for seed in range(len(half))]
    runs += [run("untrained", "0", seed, start, 0.0) for seed in range(len(half))]
    runs += [run("duet", "50%", seed, accuracy, 5.0) for seed, accuracy in enumerate(half)]
    runs += [run("uniform-answer-stop", "50%", seed, accuracy, 5.0) for seed, accuracy in enumerate(stop or [])]
    pairs = [("untrained@0", "grpo@100%"), ("duet@50%", "grpo@100%")]
    if stop:
        pairs += [("uniform-answer-stop@50%", "grpo@100%"), ("duet@50%", "uniform-answer-stop@50%")]
    return {"schema": 1, "runs": runs, "comparisons": compare(runs, pairs)}


def test_the_margin_is_one_point_where_training_gains_much():
    # differences -0.4, -0.6, -0.5: mean -0.5, standard error 0.1 / sqrt(3), t(2) = 4.303, so 0.248 either way
    said = claim(results(0.50, [0.696, 0.694, 0.695]))
    assert "grpo@100% gains 20.0 points over the untrained policy." in said
    assert "duet@50% against grpo@100%: -0.5 points [-0.7, -0.3], 2.0 times as fast" in said
    assert "less than 1.0 points worse: shown." in said
    assert "add the arm uniform-answer-stop@50%" in said


def test_the_margin_is_a_quarter_of_the_gain_where_training_gains_little():
    # the reference gains 2 points, so the margin is 0.5, and the lower end -0.7 is below it
    said = claim(results(0.68, [0.696, 0.694, 0.695]))
    assert "less than 0.5 points worse: not shown by 3 seeds." in said


def test_nothing_is_not_worse_than_a_reference_that_gains_nothing():
    said = claim(results(0.70, [0.699, 0.701, 0.700]))
    assert "gains 0.0 points" in said
    assert "not worse at all: not shown" in said


def test_the_strongest_plain_baseline_stands_beside_the_claim():
    found = results(0.50, [0.696, 0.694, 0.695], [0.706, 0.704, 0.705])
    assert "Against uniform-answer-stop@50%, the same tokens: -1.0 points [-1.0, -1.0]." in claim(found)
    assert claim(found).count("add the arm") == 0
    head, _, *rows = table(found).splitlines()
    assert head.endswith("minus uniform-answer-stop")
    (row,) = (row for row in rows if row.startswith("duet@50%"))
    assert row.endswith("-1.0 [-1.0, -1.0]")


def test_the_strongest_plain_baseline_at_the_full_budget_has_its_own_verdict():
    found = results(0.50, [0.696, 0.694, 0.695])
    found["runs"] += [run("uniform-answer-stop", "100%", seed, 0.71) for seed in range(3)]
    pairs = [("duet@50%", "grpo@100%"), ("duet@50%", "uniform-answer-stop@100%")]
    found["comparisons"] = compare(found["runs"], pairs)
    # -1.4, -1.6, -1.5: 0.248 either way
    assert (
        "Against uniform-answer-stop@100%, the strongest plain baseline at the full budget: -1.5 points [-1.7, -1.3]; "
        "less than 1.0 points worse: not shown by 3 seeds."
    ) in claim(found)


def test_one_seed_gives_no_interval():
    assert "one seed gives no interval" in claim(results(0.50, [0.69]))
