"""What a comparison claims, on numbers worked by hand."""

from __future__ import annotations

import re
from typing import Any

from budgeteer.lab.claim import claim
from budgeteer.lab.report import render, table
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


def with_greedy(found: dict[str, Any], **accuracies: list[float]) -> dict[str, Any]:
    """The results with greedy accuracies by recipe and seed."""
    for entry in found["runs"]:
        if entry["recipe"] in accuracies:
            entry["greedy_accuracy"] = accuracies[entry["recipe"]][entry["seed"]]
    return found


def test_greedy_decoding_without_training_stands_beside_what_training_gains():
    found = with_greedy(results(0.50, [0.71, 0.72, 0.73]), untrained=[0.72, 0.72, 0.72])
    # drawn, the reference has 70.0 on every seed
    assert "gains 20.0 points over the untrained policy. Without any training, decoded greedily," in claim(found)
    assert "the policy is right on 72.0 %: +2.0 points [+2.0, +2.0] against grpo@100% as it is drawn." in claim(found)
    assert "Without any training" not in claim(results(0.50, [0.71, 0.72, 0.73]))


def test_the_table_has_the_greedy_accuracy_of_every_arm_and_its_gain_over_the_untrained_policys():
    found = with_greedy(
        results(0.50, [0.71, 0.72, 0.73]),
        untrained=[0.72, 0.72, 0.72],
        grpo=[0.70, 0.70, 0.70],
        duet=[0.73, 0.75, 0.74],
    )
    head, _, *rows = table(found).splitlines()
    assert [word.strip() for word in head.split("  ") if word.strip()][:4] == ["arm", "seeds", "accuracy", "greedy"]
    assert head.endswith("greedy minus untrained@0")
    duet, start = ({row.split()[0]: row for row in rows}[name] for name in ("duet@50%", "untrained@0"))
    # 1, 3 and 2 points: mean 2, standard error 1 / sqrt(3), t(2) = 4.303, so 2.48 either way
    assert "74.0 ± 2.5 %" in duet
    assert duet.endswith("+2.0 [-0.5, +4.5]")
    assert "50.0 ± 0.0 %" in start
    assert "72.0 ± 0.0 %" in start
    page = render(found)
    for said in ("<th>Greedy</th>", "Greedy minus untrained@0", "74.0 ± 2.5 %", "+2.0 [-0.5, +4.5]"):
        assert re.sub(r"<th[^>]*>", "<th>", page).count(said), said


def test_results_without_greedy_accuracies_still_make_a_table_and_a_page():
    old = results(0.50, [0.71, 0.72, 0.73])
    assert "greedy" not in table(old)
    assert "Greedy" not in render(old)
    some = with_greedy(old, duet=[0.73, 0.75, 0.74])  # and the untrained policy, of an older run, has none
    head, _, *rows = table(some).splitlines()
    assert "greedy" in head
    assert "minus untrained" not in head
    assert "unknown" in next(row for row in rows if row.startswith("untrained@0"))
