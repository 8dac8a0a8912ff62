"""A small comparison from end to end: equal budgets, kept results, and errors before any work is done."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

import needs
from budgeteer.errors import BudgeteerError, InvalidInput, UnknownName
from budgeteer.lab import results
from budgeteer.lab.compare import Arm, compare, pairs, with_references
from budgeteer.lab.run import RunSpec, execute
from budgeteer.models.policy import REASONER
from budgeteer.rl.trainer import TrainConfig

needs.reasoning_gym()
pytestmark = pytest.mark.skipif(not (REASONER / "model.safetensors").exists(), reason="no embedded reasoner yet")

BASE = RunSpec(
    "",
    "",
    None,
    config=TrainConfig(steps=2, prompts=6, group=4, eval_every=1, max_tokens=64, device="cpu"),
    pool="chains",
    train=24,
    heldout=24,
    eval_samples=1,
    curve_items=8,
)
ARMS = [Arm.parse("duet@50%")]
SEEDS = [0, 1]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder, news = tmp_path_factory.mktemp("comparison"), []
    found = compare(ARMS, SEEDS, BASE, folder, workers=2, on_update=news.append)
    return folder, found, news


def test_the_file_is_valid_and_is_what_was_returned(made):
    folder, found, _ = made
    read = results.read(folder / "results.json")
    assert read == json.loads(json.dumps(results.to_json(found)))
    # what the percentages are of, and what there was to gain, were added
    assert results.labels(read["runs"]) == ["grpo@100%", "untrained@0", "duet@50%"]
    for name in results.labels(read["runs"]):
        assert sorted(results.by_seed(read["runs"], name)) == SEEDS


def test_percentages_are_of_the_reference_of_the_same_seed_and_are_kept(made):
    _, found, _ = made
    reference = results.by_seed(found["runs"], "grpo@100%")
    for seed, run in results.by_seed(found["runs"], "duet@50%").items():
        assert 0 < run["tokens"]["used"] <= reference[seed]["tokens"]["used"] // 2
        # and not by leaving the budget lying about
        assert run["tokens"]["used"] > 0.35 * reference[seed]["tokens"]["used"]


def test_the_reference_is_the_fixed_group(made):
    _, found, _ = made
    for run in results.by_seed(found["runs"], "grpo@100%").values():
        assert [step["counts"] for step in run["diagnostics"]["rollouts_per_prompt"]] == [{"4": 6}] * 2


def test_accounts_and_diagnostics_of_every_run(made):
    _, found, _ = made
    for run in found["runs"]:
        tokens, d = run["tokens"], run["diagnostics"]
        assert tokens["trained"] + tokens["wasted"] <= tokens["used"]
        assert sum(level["used"] for level in d["tokens_by_level"].values()) == tokens["used"]
        assert 0 <= run["accuracy"] <= 1
        assert [point["tokens"] for point in run["curve"]] == sorted(point["tokens"] for point in run["curve"])
        assert run["curve"][0]["tokens"] == 0
        assert run["curve"][-1] == {"tokens": tokens["used"], "seconds": run["seconds"], "accuracy": run["accuracy"]}
        trains = run["recipe"] != "untrained"
        assert d["steps"] == 2 * trains
        assert bool(d["traces"]) == trains
        assert "digest" not in run


def test_differences_are_paired_over_seeds(made):
    _, found, _ = made
    first, second = found["comparisons"]
    assert [(c["a"], c["b"]) for c in (first, second)] == [("untrained@0", "grpo@100%"), ("duet@50%", "grpo@100%")]
    first = second
    accuracy = {name: results.by_seed(found["runs"], name) for name in results.labels(found["runs"])}
    difference = [accuracy[first["a"]][s]["accuracy"] - accuracy[first["b"]][s]["accuracy"] for s in SEEDS]
    assert first["n"] == 2
    assert first["mean"] == pytest.approx(sum(difference) / 2)


def test_news_of_every_run_arrived(made):
    _, found, news = made
    assert len({update.name for update in news}) == len(found["runs"])
    assert {update.state for update in news} == {"running", "done"}
    assert {update.used for update in news if update.name.startswith("untrained")} == {0}
    assert all(update.used <= (update.tokens or update.used) for update in news)


def test_finished_runs_leave_no_checkpoint(made):
    folder, found, _ = made
    assert not list(folder.glob("checkpoints/**/*.pt"))
    assert len(list(folder.glob("runs/*.json"))) == len(found["runs"])


def test_a_second_call_does_nothing_new(made):
    folder, found, _ = made
    before = {path: path.stat().st_mtime_ns for path in folder.glob("runs/*.json")}
    started = []
    again = compare(ARMS, SEEDS, BASE, folder, workers=2, on_update=started.append)
    assert again["runs"] == [json.loads(json.dumps(results.to_json(run))) for run in found["runs"]]
    assert {path: path.stat().st_mtime_ns for path in folder.glob("runs/*.json")} == before
    assert started == []


def test_a_run_in_this_process_is_the_run_of_the_comparison(made):
    _, found, _ = made
    want = results.by_seed(found["runs"], "duet@50%")[1]
    half = results.by_seed(found["runs"], "grpo@100%")[1]["tokens"]["used"] // 2
    config = replace(BASE.config, seed=1)
    run = execute(replace(BASE, recipe="duet", budget="50%", tokens=half, config=config, pool_seed=BASE.pool_seed + 1))
    assert run["tokens"] == want["tokens"]
    assert run["accuracy"] == want["accuracy"]


def test_a_paused_run_gives_nothing_and_its_checkpoint_goes_on(tmp_path):
    spec = replace(BASE, recipe="grpo", budget="900", tokens=900)
    assert execute(spec, tmp_path, lambda progress, config: False) is None
    assert (tmp_path / "checkpoint.pt").exists()
    saved = tmp_path / "policy"
    run = execute(spec, tmp_path, save_model=saved)
    assert run["diagnostics"]["steps"] == 2
    assert run["tokens"]["used"] <= 900
    assert execute(replace(spec, model=str(saved)))["curve"][0]["tokens"] == 0  # what was saved can be trained on


# -- what is refused before any work ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "hint"), [("dueet@50%", "'duet'"), ("grp@1k", "'grpo'"), ("uniform-stp", "uniform-stop")]
)
def test_an_unknown_recipe_suggests_the_nearest(text, hint):
    with pytest.raises(UnknownName, match=hint):
        Arm.parse(text)


@pytest.mark.parametrize("text", ["duet@50percent", "duet@", "duet@lots", "duet@-5", "duet@0%"])
def test_a_bad_budget_is_refused_with_the_notation(text):
    if text == "duet@":
        assert Arm.parse(text).budget == "100%"
        return
    with pytest.raises(InvalidInput, match=r"500k|not positive"):
        Arm.parse(text)


def test_a_budget_in_money_is_refused():
    with pytest.raises(InvalidInput, match="budgets are in tokens"):
        Arm.parse("duet@$5")


def test_an_out_that_cannot_be_a_folder_is_refused(tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    for out in (file, file / "under"):
        with pytest.raises(InvalidInput, match=r"file.*--out|another folder|choose"):
            compare(ARMS, SEEDS, BASE, out)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root ignores permissions")
def test_a_folder_without_permission_is_refused(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(InvalidInput, match="not writable"):
        compare(ARMS, SEEDS, BASE, tmp_path)


def test_the_first_error_of_a_run_ends_the_comparison(tmp_path):
    broken = replace(BASE, model=str(tmp_path / "nothing"))
    with pytest.raises(BudgeteerError, match="cannot read a Llama model") as caught:
        compare([Arm.parse("grpo@1k")], [0], broken, tmp_path / "out", workers=1)
    assert "the same command continues" in str(caught.value)
    assert "Traceback" not in str(caught.value)


def test_pairs_show_each_arm_against_the_reference_and_the_controls():
    arms = [Arm.parse(t) for t in ("grpo@100%", "grpo@50%", "uniform-answer-stop@50%", "duet@50%")]
    assert pairs(arms) == [
        ("grpo@50%", "grpo@100%"),
        ("uniform-answer-stop@50%", "grpo@100%"),
        ("duet@50%", "grpo@100%"),
        ("grpo@50%", "uniform-answer-stop@50%"),
        ("uniform-answer-stop@50%", "grpo@50%"),
        ("duet@50%", "uniform-answer-stop@50%"),
        ("duet@50%", "grpo@50%"),
    ]


def test_references_are_added_to_percentages_only_and_once():
    assert [a.label for a in with_references([Arm.parse("duet@1k"), Arm.parse("duet@1k")])] == ["duet@1k"]
    arms = with_references([Arm.parse("duet@50%"), Arm.parse("untrained"), Arm.parse("grpo@100%")])
    assert [a.label for a in arms] == ["grpo@100%", "untrained@0", "duet@50%"]


def test_the_untrained_policy_has_no_budget():
    with pytest.raises(InvalidInput, match="write untrained"):
        Arm.parse("untrained@50%")


def test_names_of_runs_fit_file_names_and_digests_change_with_the_settings():
    spec = RunSpec("duet", "output:1m", 10**6)
    assert spec.name == "duet@output_1m-seed0"
    assert Path(spec.name).name == spec.name
    assert spec.digest() == RunSpec("duet", "output:1m", 10**6).digest()
    assert spec.digest() != RunSpec("duet", "output:1m", 10**6, train=255).digest()
