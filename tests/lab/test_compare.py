"""A small comparison from end to end: equal budgets, kept results, and errors before any work is done."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from budgeteer import cli
from budgeteer.core.errors import BudgeteerError, CheckpointError, InvalidInput, UnknownName
from budgeteer.lab import results
from budgeteer.lab.arms import Arm, pairs, with_references
from budgeteer.lab.compare import compare
from budgeteer.lab.run import RunSpec, execute
from budgeteer.lab.tasks.base import score
from budgeteer.models.policy import REASONER, load_policy
from budgeteer.rl.config import TrainConfig
from helpers import needs

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
        assert 0 <= run["greedy_accuracy"] <= 1
        assert [point["tokens"] for point in run["curve"]] == sorted(point["tokens"] for point in run["curve"])
        assert run["curve"][0]["tokens"] == 0
        assert run["curve"][-1] == {"tokens": tokens["used"], "seconds": run["seconds"], "accuracy": run["accuracy"]}
        trains = run["recipe"] != "untrained"
        assert d["steps"] == 2 * trains
        assert bool(d["traces"]) == trains
        assert "identity" not in run


def test_differences_are_paired_over_seeds(made):
    _, found, _ = made
    first, second = found["comparisons"]
    assert [(c["a"], c["b"]) for c in (first, second)] == [("untrained@0", "grpo@100%"), ("duet@50%", "grpo@100%")]
    first = second
    accuracy = {name: results.by_seed(found["runs"], name) for name in results.labels(found["runs"])}
    difference = [accuracy[first["a"]][s]["accuracy"] - accuracy[first["b"]][s]["accuracy"] for s in SEEDS]
    assert first["n"] == 2
    assert first["mean"] == pytest.approx(sum(difference) / 2)


def test_the_greedy_accuracy_is_that_of_the_likeliest_tokens_of_the_held_out_problems(made):
    """An oracle of its own: a token at a time, the whole sequence computed anew, no sampler."""
    _, found, _ = made
    spec = replace(BASE, recipe="untrained", budget="0", tokens=0, pool_seed=BASE.pool_seed + SEEDS[0])
    policy, pool = load_policy(REASONER), spec.pool_of_items
    good = 0
    for item in pool.heldout:
        (ids,) = policy.encode([item.prompt])
        begun = len(ids)
        while len(ids) < begun + BASE.config.max_tokens and ids[-1] != policy.markers.eos:
            with torch.inference_mode():
                hidden = policy.model(torch.tensor([ids]))[0, -1]
                ids = [*ids, int(policy.model.logits(hidden).argmax())]
        good += score(pool.environment, item, policy.decode([ids[begun:]])[0]) == 1
    run = results.by_seed(found["runs"], "untrained@0")[SEEDS[0]]
    assert run["greedy_accuracy"] == good / len(pool.heldout)
    assert run["greedy_accuracy"] != run["accuracy"]


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


def files(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def tokenizer_without(marker, folder):
    shutil.copytree(REASONER, folder)
    path = folder / "tokenizer.json"
    path.write_text(path.read_text().replace(marker, "<nothing>"))
    return str(folder)


def test_mistakes_that_all_runs_share_are_found_before_anything_is_started(tmp_path, monkeypatch):
    monkeypatch.setattr("multiprocessing.context.SpawnProcess.start", lambda process: pytest.fail("a worker started"))
    task = tmp_path / "small.jsonl"
    task.write_text("".join(json.dumps({"question": f"{i}+1=?", "answer": str(i + 1)}) + "\n" for i in range(9)))
    arms, out = [Arm.parse("grpo@5k"), Arm.parse("duet@50%")], tmp_path / "out"
    for wrong, message in (
        ({"model": tokenizer_without("</think>", tmp_path / "model")}, "needs '</think>'"),
        ({"pool": str(task)}, "9 distinct problems, 48 asked"),
        ({"pool": "chainz"}, "did you mean 'chains'"),
        ({"config": replace(BASE.config, prompts=100)}, "24 training prompts, 100 a step"),
        ({"config": replace(BASE.config, max_tokens=10**5)}, "lower max_tokens"),
        ({"config": replace(BASE.config, device="tpu9")}, "not to be had"),
    ):
        with pytest.raises(BudgeteerError, match=message):
            compare(arms, [0], replace(BASE, **wrong), out, workers=2)
    with pytest.raises(BudgeteerError, match="give at least"):
        compare([Arm.parse("grpo@3")], [0], BASE, out, workers=2)
    with pytest.raises(InvalidInput, match="give 1 or more"):
        compare(arms, [0], BASE, out, workers=0)
    assert files(out) == {}


@pytest.mark.parametrize(
    ("other", "named"),
    [
        ({"config": replace(BASE.config, steps=3)}, "steps: 3 here, 2 there"),
        ({"config": replace(BASE.config, group=3)}, "group: 3 here, 4 there"),
        ({"pool_seed": 7}, "pool_seed: 7 here, 0 there; problems"),
        ({"heldout": 25}, "heldout: 25 here, 24 there; problems"),
    ],
)
def test_a_folder_of_other_settings_is_refused_and_what_differs_is_named(made, monkeypatch, other, named):
    folder, _, _ = made
    monkeypatch.setattr("multiprocessing.context.SpawnProcess.start", lambda process: pytest.fail("a worker started"))
    before = files(folder)
    with pytest.raises(InvalidInput, match=re.escape(named)):
        compare(ARMS, SEEDS, replace(BASE, **other), folder)
    with pytest.raises(InvalidInput, match=r"choose another --out"):
        compare([Arm.parse("vip@5k")], SEEDS, replace(BASE, **{"train": 23, **other}), folder)
    assert files(folder) == before


def test_the_content_of_a_task_file_belongs_to_the_identity(tmp_path):
    task = tmp_path / "task.jsonl"

    def write(plus):
        rows = [{"question": f"{i}+1=?", "answer": str(i + plus)} for i in range(40)]
        task.write_text("".join(json.dumps(row) + "\n" for row in rows))

    write(1)
    spec = replace(BASE, recipe="grpo", budget="900", tokens=900, pool=str(task), train=20, heldout=20)
    before = spec.identity()
    assert execute(spec, tmp_path, lambda progress, config: False) is None
    write(2)
    assert {k for k, v in spec.identity().items() if v != before[k]} == {"problems"}
    with pytest.raises(CheckpointError, match=r"of another run \(problems\)"):
        execute(spec, tmp_path)
    write(1)
    assert execute(spec, tmp_path)["diagnostics"]["steps"] == 2


def test_train_keeps_the_policy_and_refuses_a_folder_of_another_run(tmp_path, capsys):
    small = {"steps": 2, "prompts": 6, "group": 4, "max-tokens": 64, "train-items": 24, "heldout-items": 24}
    options = ["--task", "chains", "--device", "cpu", *(word for k, v in small.items() for word in (f"--{k}", str(v)))]

    def train(*more):
        code = cli.main(["train", "duet", "--out", str(tmp_path / "out"), *options, *more])
        return code, *capsys.readouterr()

    code, out, _ = train("--budget", "900")
    policy = tmp_path / "out" / "policy"
    assert code == 0
    assert out.splitlines()[-1] == f"trained policy: {policy}"
    assert sum(path.stat().st_size for path in policy.iterdir()) < 2**20
    assert (load_policy(policy).model.embed != load_policy().model.embed).any()
    before = files(tmp_path)
    assert "nothing was trained" in train("--budget", "900")[1]
    code, _, error = train("--budget", "901")
    assert code == 2
    assert "budget: 901 here, 900 there; tokens: 901 here, 900 there" in error
    assert files(tmp_path) == before
    code, out, _ = train("--out", str(tmp_path / "free"))
    assert code == 0
    assert "duet@uncapped" in out


def test_the_tokenizer_and_the_weights_belong_to_the_identity(tmp_path):
    def changed(model):
        mine, theirs = BASE_GRPO.identity(), replace(BASE_GRPO, model=model).identity()
        return {name for name in mine if mine[name] != theirs[name]}

    copy = tmp_path / "copy"
    shutil.copytree(REASONER, copy)
    assert changed(str(copy)) == set()
    assert changed(tokenizer_without("</think>", tmp_path / "other")) == {"tokenizer"}
    (copy / "model.safetensors").write_bytes(b"other")
    assert changed(str(copy)) == {"weights of the model"}


BASE_GRPO = replace(BASE, recipe="grpo", budget="900", tokens=900)
ENDLESS = replace(BASE, config=replace(BASE.config, steps=10**5, eval_every=0))


@pytest.mark.parametrize("times", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_ctrl_c_pauses_at_a_checkpoint_and_twice_stops_at_once(tmp_path, times):
    def on_update(update):
        if update.state == "running" and not pressed:
            for _ in range(times):
                pressed.append(1)
                os.kill(os.getpid(), signal.SIGINT)

    pressed, reasons, before = [], [], signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        compare(
            [Arm.parse("grpo@90m")], [0], ENDLESS, tmp_path, workers=2, on_update=on_update, on_pause=reasons.append
        )
    assert signal.getsignal(signal.SIGINT) is before
    assert not multiprocessing.active_children()
    if times == 1:
        assert reasons == ["Ctrl-C"]
        assert list(tmp_path.glob("checkpoints/*/checkpoint.pt"))
    else:
        assert len(pressed) == 2


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


def test_the_plain_baseline_at_the_full_budget_is_a_second_reference():
    arms = [Arm.parse(t) for t in ("grpo@100%", "uniform-answer-stop@100%", "duet@50%")]
    assert pairs(arms) == [
        ("uniform-answer-stop@100%", "grpo@100%"),
        ("duet@50%", "grpo@100%"),
        ("grpo@100%", "uniform-answer-stop@100%"),
        ("duet@50%", "uniform-answer-stop@100%"),
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
    assert spec.identity() == RunSpec("duet", "output:1m", 10**6).identity()
    assert spec.identity() != RunSpec("duet", "output:1m", 10**6, train=255).identity()
