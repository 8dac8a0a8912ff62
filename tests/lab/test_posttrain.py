"""Training of any causal model: untied heads, no chat template, adapters, verifiers that break, resuming."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("trl")

import transformers  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

from budgeteer.core.errors import BudgeteerError, BudgetExceeded, CheckpointError, InvalidInput, UnknownName  # noqa: E402
from budgeteer.lab import report, results  # noqa: E402
from budgeteer.lab.posttrain import run as running  # noqa: E402
from budgeteer.lab.posttrain.run import posttrain, summary  # noqa: E402
from budgeteer.lab.posttrain.settings import Lora  # noqa: E402
from budgeteer.models.transformers import Transformers  # noqa: E402
from budgeteer.verify.sandbox import Sandbox  # noqa: E402
from helpers.posttrain_tiny import files, qwen3, settings  # noqa: E402
from helpers.trl_tiny import THINKER  # noqa: E402


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    torch.set_num_threads(1)
    return qwen3(tmp_path_factory.mktemp("qwen3"))


@pytest.fixture(scope="module")
def task(tmp_path_factory) -> str:
    return files(tmp_path_factory.mktemp("task"))


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def policy_of(folder: Path) -> dict:
    return load_file(folder / "policy" / "model.safetensors")


@pytest.fixture(scope="module")
def whole(model, task, tmp_path_factory) -> Path:
    """An unbroken run."""
    out = tmp_path_factory.mktemp("whole")
    posttrain(settings(model, task), out, out / "policy", save_every=1)
    return out


def test_a_run_keeps_its_budget_and_leaves_results_logs_and_a_model(whole, model) -> None:
    document = results.read(whole / "results.json")
    run = document["runs"][0]
    assert 0 < run["tokens"]["used"] <= 900
    steps = lines(whole / "metrics.jsonl")
    assert [row["step"] for row in steps] == list(range(1, len(steps) + 1))
    assert steps[-1]["budget/used"] == run["tokens"]["used"]
    assert sum(row["verifier_failures"] for row in steps) == run["diagnostics"]["verifier_failures"] > 0
    heldout = json.loads((whole / "heldout.json").read_text())
    for when in ("before", "after"):
        assert len(heldout[when]["scores"]) == 8
        assert max(heldout[when]["tokens"]) <= 12  # the cap of training
    assert not set(heldout["before"]["keys"]) & {row["prompt"] for row in lines(whole / "samples.jsonl")}
    assert all("\n" not in row["completion"] for row in lines(whole / "samples.jsonl"))  # where `direct` ends
    assert not (whole / "checkpoints").exists()
    assert "before" in summary(whole)
    assert "duet@900" in report.render(document)
    start, end = load_file(model / "model.safetensors"), policy_of(whole)
    assert start.keys() == end.keys()
    assert not torch.equal(start["lm_head.weight"], end["lm_head.weight"])  # untied, and trained
    asked = Transformers(whole / "policy")
    assert asked.ends == {1017}  # the tokens with a line break end nothing outside training


def test_the_same_command_again_trains_nothing_and_another_one_is_refused(whole, model, task) -> None:
    before = (whole / "results.json").read_text()
    assert posttrain(settings(model, task), whole, whole / "policy") == json.loads(before)
    with pytest.raises(InvalidInput, match=r"of another run .*kl: 0\.5 here, 0\.0 there"):
        posttrain(settings(model, task, kl=0.5), whole, whole / "policy")


def test_no_folder_of_somebody_else_is_replaced_by_the_model(model, task, tmp_path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(InvalidInput, match="is not empty; choose another --save-model"):
        posttrain(settings(model, task), tmp_path / "out", tmp_path / "mine")
    assert (tmp_path / "mine" / "notes.txt").read_text() == "mine"
    before = {path.name: path.read_bytes() for path in model.iterdir()}
    with pytest.raises(InvalidInput, match="is the folder of the model that is trained"):
        posttrain(settings(model, task), tmp_path / "out", model)
    assert {path.name: path.read_bytes() for path in model.iterdir()} == before
    assert not (tmp_path / "out" / "heldout.json").exists()


def test_a_run_that_has_ended_is_not_trained_again_for_a_model_that_lies_elsewhere(
    whole, model, task, tmp_path
) -> None:
    with pytest.raises(InvalidInput, match="give the --save-model of that run, or another --out"):
        posttrain(settings(model, task), whole, tmp_path / "elsewhere")


def test_a_paused_run_goes_on_to_the_same_weights(whole, model, task, tmp_path) -> None:
    paused = posttrain(
        settings(model, task), tmp_path, tmp_path / "policy", on_step=lambda progress, accuracy: progress.step < 2
    )
    assert paused is None
    assert len(lines(tmp_path / "metrics.jsonl")) == 2
    assert posttrain(settings(model, task), tmp_path, tmp_path / "policy", save_every=1) is not None
    mine, theirs = policy_of(tmp_path), policy_of(whole)
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)
    for kind in ("metrics", "samples"):
        ours, other = lines(tmp_path / f"{kind}.jsonl"), lines(whole / f"{kind}.jsonl")
        assert [{**row, "step_time": 0} for row in ours] == [{**row, "step_time": 0} for row in other]


@pytest.mark.parametrize("tokens", [250, None])
def test_what_ended_and_was_not_saved_is_saved_without_another_step(model, task, tmp_path, monkeypatch, tokens) -> None:
    """Killed after the last checkpoint: of a budget that is used up, and of steps that are done."""
    more = {"steps": 2} if tokens is None else {"steps": 50, "recipe": "dapo"}  # dapo takes what it wants
    run = settings(model, task, tokens=tokens, **more)
    kept: list = []

    def killed(built, policy, settings) -> None:
        kept.append({name: p.detach().clone() for name, p in built.trainer.model.named_parameters()})
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(running, "_save", killed)
        with pytest.raises(KeyboardInterrupt):
            posttrain(run, tmp_path, tmp_path / "policy")
    document = posttrain(run, tmp_path, tmp_path / "policy")
    assert tokens is None or tokens - 12 < document["runs"][0]["tokens"]["used"] <= tokens
    end = policy_of(tmp_path)
    assert all(torch.equal(end[name], value) for name, value in kept[0].items())


def test_an_adapter_is_merged_into_a_model_of_the_stored_type(task, tmp_path) -> None:
    pytest.importorskip("peft")
    base = qwen3(tmp_path / "base", torch.bfloat16)
    run = settings(base, task, recipe="grpo", steps=1, lora="r=4,targets=q_proj+v_proj", tokens=None)
    posttrain(run, tmp_path / "out", tmp_path / "out" / "policy")
    start, end = load_file(base / "model.safetensors"), policy_of(tmp_path / "out")
    assert {value.dtype for value in end.values()} == {torch.bfloat16}
    assert start.keys() == end.keys()
    changed = {name for name in start if not torch.equal(start[name], end[name])}
    assert changed
    assert all(name.endswith(("q_proj.weight", "v_proj.weight")) for name in changed)
    assert (tmp_path / "out" / "policy-adapter" / "adapter_config.json").exists()


def test_chats_are_asked_through_the_template_and_answers_read_behind_the_thinking(tmp_path) -> None:
    rows = [{"question": f"What is {a} plus {b}?", "answer": str(a + b)} for a in range(4) for b in range(4)]
    (tmp_path / "my.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = settings(THINKER, f"{tmp_path / 'my.jsonl'}:verifier=math", steps=1, max_tokens=64, tokens=None, style=None)
    document = posttrain(run, tmp_path, tmp_path / "policy")
    assert document["config"]["style"] == "think"
    written = lines(tmp_path / "samples.jsonl")
    right = [row for row in written if row["reward"] == 1]
    assert right
    assert all("</think>" in row["completion"] and "boxed{" in row["completion"] for row in right)


def test_a_variant_says_its_text_to_the_trained_model(model, tmp_path) -> None:
    """HBPO's four budgets at the heads of answers; a KL penalty goes with a recipe that weighs it."""
    run = settings(model, files(tmp_path), recipe="hbpo", steps=1, heldout=2, prompts=2, group=4, tokens=None)
    posttrain(run, tmp_path / "out", tmp_path / "out" / "policy")
    written = [row["completion"] for row in lines(tmp_path / "out" / "samples.jsonl")]
    assert written
    assert all(text.split(":")[0].isdigit() for text in written)
    run = settings(model, files(tmp_path), recipe="ares", kl=0.1, steps=1, heldout=2, prompts=2, group=2, tokens=None)
    document = posttrain(run, tmp_path / "b", tmp_path / "b" / "policy")
    assert document["runs"][0]["tokens"]["used"] > 0


def test_hints_are_the_solutions_of_the_file(model, tmp_path) -> None:
    """All steps but the last of each solution in the first round, and no token of them on the bill."""
    rows = [{"question": f"{a} and 4?", "answer": f"{a}4", "solution": [f"{a} first ", "and then "]} for a in range(9)]
    path, run = tmp_path / "my.jsonl", {"recipe": "seele:rounds=1", "steps": 1, "tokens": None, "heldout": 2}
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    document = posttrain(settings(model, str(path), **run), tmp_path / "out", tmp_path / "out" / "policy")
    written = [row["completion"] for row in lines(tmp_path / "out" / "samples.jsonl")]
    assert written
    assert all(" first " in text and text[0].isdigit() for text in written)
    assert 0 < document["runs"][0]["tokens"]["used"] <= 12 * 4 * 2
    path.write_text("".join(json.dumps({**row, "solution": []}) + "\n" for row in rows))
    with pytest.raises(InvalidInput, match=r"the solution in row 0 of the data set is '\[\]'"):
        posttrain(settings(model, str(path), **run), tmp_path / "b", tmp_path / "b" / "policy")


@pytest.mark.parametrize(
    ("content", "failures"),
    [
        ("def verify(answer, reference): raise KeyError(answer)", True),
        ("def verify(answer, reference): return float('nan')", True),
        ("def verify(answer, reference): return None", True),
        ("import time\ndef verify(answer, reference): time.sleep(60 * (len(answer) % 2))", True),
        ("def verify(answer, reference): return 0", False),
    ],
)
def test_a_verifier_that_fails_gives_0_and_is_counted(model, tmp_path, monkeypatch, content, failures) -> None:
    monkeypatch.setattr("budgeteer.lab.posttrain.problems.Sandbox", partial(Sandbox, seconds=0.2))
    said: list[str] = []
    run = settings(model, files(tmp_path, content), recipe="grpo", steps=1, heldout=2, prompts=2, group=2, tokens=None)
    document = posttrain(run, tmp_path / "out", tmp_path / "out" / "policy", say=said.append)
    assert document["runs"][0]["accuracy"] == 0
    assert (document["runs"][0]["diagnostics"]["verifier_failures"] > 0) == failures
    assert bool(said) == failures
    assert len(said) <= 5


@pytest.mark.parametrize(
    ("more", "error", "message"),
    [
        ({"tokens": 3}, BudgetExceeded, r"give at least [\d,]+ tokens, .* rollouts of every prompt take about"),
        ({"max_tokens": 500}, InvalidInput, "512 positions"),
        ({"recipe": "grop"}, UnknownName, "did you mean"),
        ({"recipe": "grpo:lr=rex"}, InvalidInput, "lr_scheduler_type"),
        ({"style": "think"}, InvalidInput, "no tags of thinking"),
        ({"style": "chat"}, InvalidInput, "no chat template"),
        ({"heldout": 40}, InvalidInput, "30 distinct problems"),
        ({"prompts": 28}, InvalidInput, "prompts, 28 a generation"),
        ({"lora": "r=0"}, InvalidInput, "r is 0"),
        ({"lora": "rank=4"}, UnknownName, "option of --lora"),
        ({"lora": "targets=q_proj+nothing"}, InvalidInput, r"targets=nothing: the model has no such module; .*v_proj"),
        ({"group": 1}, InvalidInput, "--group is 1"),
        ({"device": "cpu:0"}, InvalidInput, "CUDA_VISIBLE_DEVICES"),
        ({"dtype": "int8"}, UnknownName, "dtype"),
        ({"model": "/nowhere/at/all"}, CheckpointError, "is not there"),
        ({"task": "python"}, InvalidInput, "cannot read"),
    ],
)
def test_what_cannot_run_is_refused_before_the_first_token(model, task, tmp_path, more, error, message) -> None:
    if more.get("task") == "python":
        more = {"task": task.replace("verify.py", "none.py")}
    run = settings(model, **{"task": task, **more}) if "model" not in more else settings(Path(more["model"]), task)
    with pytest.raises(error, match=message) as raised:
        posttrain(run, tmp_path, tmp_path / "policy")
    assert isinstance(raised.value, BudgeteerError)
    assert not (tmp_path / "heldout.json").exists()


def test_equal_questions_are_one_and_long_ones_are_named(model, tmp_path) -> None:
    task = files(tmp_path)
    path = tmp_path / "my.jsonl"
    path.write_text(path.read_text() * 2 + json.dumps({"question": "no " * 600, "answer": "1"}) + "\n")
    with pytest.raises(InvalidInput, match=r"row \d+ of the data set \(key 'my:61'\) has .* 512 positions"):
        posttrain(settings(model, task), tmp_path / "out", tmp_path / "out" / "policy")


def test_a_tokenizer_without_an_end_is_refused(model, task, tmp_path) -> None:
    folder = qwen3(tmp_path / "endless")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokenizer.eos_token = None
    tokenizer.save_pretrained(folder)
    with pytest.raises(InvalidInput, match="has no end of a sequence"):
        posttrain(settings(folder, task), tmp_path / "out", tmp_path / "out" / "policy")


def test_an_adapter_in_words() -> None:
    assert Lora.parse("r=8,alpha=4,dropout=0.1") == Lora(8, 4, 0.1, "all-linear")
    assert Lora.parse("") == Lora(16, 32, 0.0, "all-linear")
    for text in ("r=x", "r=2.5", "r=true", "alpha=x", "dropout=1", "targets=3", "r"):
        with pytest.raises(BudgeteerError):
            Lora.parse(text)


ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}


def started(command: list[str], processes: int, port: int, sharded: bool = False, **more) -> list[subprocess.Popen]:
    """A module with its arguments in several processes over gloo; ``sharded`` shares the weights out (FSDP2)."""
    run = [sys.executable, "-m", *(["helpers.sharded_cpu"] if sharded else []), *command]
    if processes == 1:
        return [subprocess.Popen([sys.executable, "-m", *command], env=ENVIRONMENT, **more)]
    shared = {**ENVIRONMENT, "WORLD_SIZE": str(processes), "MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    return [
        subprocess.Popen(run, env={**shared, "RANK": str(i), "LOCAL_RANK": str(i)}, **more) for i in range(processes)
    ]


def ended(children: list[subprocess.Popen]) -> list[tuple[str, str]]:
    """What each wrote, if anybody listened."""
    said = [child.communicate() for child in children]
    assert [child.returncode for child in children] == [0] * len(children), said
    return said


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, pytest.param(2, id="sharded")])
def test_killed_and_resumed_it_has_the_weights_of_an_unbroken_run(model, tmp_path, processes) -> None:
    def start(out: Path, port: int) -> list[subprocess.Popen]:
        return started(["helpers.posttrain_tiny", str(model), str(out)], processes, port, sharded=True)

    ended(start(tmp_path / "whole", 29535))
    children = start(tmp_path / "killed", 29536)
    while not (tmp_path / "killed" / "checkpoints" / "checkpoint-3" / "trainer_state.json").exists():
        assert [child.poll() for child in children] == [None] * processes
        time.sleep(0.01)
    for child in children:
        child.send_signal(signal.SIGKILL)
    for child in children:
        child.wait()
    assert not (tmp_path / "killed" / "results.json").exists()
    ended(start(tmp_path / "killed", 29537))
    mine, theirs = policy_of(tmp_path / "killed"), policy_of(tmp_path / "whole")
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)


@pytest.mark.slow
@pytest.mark.parametrize("sharded", [False, True], ids=["whole", "sharded"])
def test_two_processes_train_as_one_and_count_what_both_did(tmp_path, sharded) -> None:
    """The command itself; each process scores a part of the rollouts, and one prints. Losses and weights differ by the
    order of sums alone, which AdamW enlarges where gradients are nearly 0."""
    model, task = qwen3(tmp_path / "model", tied=sharded), files(tmp_path)
    said = []
    for processes in (1, 2):
        options = (
            f"--recipe duet --budget 900 --heldout-items 8 --steps 4 --prompts 4 --group 4 --max-tokens 12 --lr 1e-2 "
            f"--device cpu --style direct --out {tmp_path / str(processes)}"
        )
        command = ["budgeteer", "train", "--model", f"hf:{model}", "--task", task, *options.split()]
        written = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        said.append(ended(started(command, processes, 29533, sharded, **written)))
    one, two = (tmp_path / name for name in "12")
    same = ("step", "budget/used", "budget/trained", "reward", "verifier_failures")
    mine, theirs = lines(one / "metrics.jsonl"), lines(two / "metrics.jsonl")
    assert [[row[name] for name in same] for row in mine] == [[row[name] for name in same] for row in theirs]
    assert [row["loss"] for row in mine] == pytest.approx([row["loss"] for row in theirs], abs=1e-5)
    assert sum(row["verifier_failures"] for row in mine) > 0
    ours, other = policy_of(one), policy_of(two)
    assert ours.keys() == other.keys()
    assert all(torch.allclose(ours[name], other[name], atol=1e-4) for name in ours)
    assert [sum(out.count("trained policy:") for out, _ in each) for each in said] == [1, 1]
    assert sum(errors.count("step   1/4") for _, errors in said[1]) <= 1
