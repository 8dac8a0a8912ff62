"""Runs of a comparison and cells of a frontier on a local Ray cluster of two nodes: the results of one machine."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

pytestmark = pytest.mark.ray

ray = pytest.importorskip("ray")
pytest.importorskip("torch")

from ray.cluster_utils import Cluster  # noqa: E402

from budgeteer.cli import main  # noqa: E402
from budgeteer.core.errors import BudgeteerError, InvalidInput  # noqa: E402
from budgeteer.lab import on_ray  # noqa: E402
from budgeteer.lab.arms import Arm  # noqa: E402
from budgeteer.lab.compare import compare  # noqa: E402
from budgeteer.lab.run import RunSpec, one_thread  # noqa: E402
from budgeteer.rl.config import TrainConfig  # noqa: E402

CONFIG = TrainConfig(steps=10, prompts=4, group=2, max_tokens=24, eval_every=0, device="cpu")
BASE = RunSpec("grpo", "100%", None, CONFIG, pool="chains", train=16, heldout=8, eval_samples=1)


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    node = {"num_cpus": 1, "object_store_memory": 80 << 20, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=node)
    cluster.add_node(num_cpus=1, object_store_memory=80 << 20)
    yield cluster.address
    ray.shutdown()
    cluster.shutdown()


def plain(results: dict) -> list[dict]:
    """What does not depend on the clock."""
    return [
        {name: run[name] for name in ("recipe", "budget", "seed", "accuracy", "tokens")}
        | {"rollouts": run["diagnostics"]["rollouts"]}
        for run in results["runs"]
    ]


def test_a_comparison_has_the_results_of_one_machine_and_goes_on_after_a_pause(address, tmp_path) -> None:
    """Percentages need the reference first; a run that is paused goes on from its checkpoint on any machine."""
    one_thread()
    arms = [Arm.parse("duet@50%")]
    here = compare(arms, [0, 1], BASE, tmp_path / "here", workers=1)

    class Enough(Exception):
        pass

    def stop(update) -> None:
        if update.step >= 9:
            raise Enough

    with on_ray.cluster(address) as library:
        assert on_ray.cores(library) == 2
        there = partial(on_ray.starter, library)
        with pytest.raises(Enough):
            compare(arms, [0, 1], BASE, tmp_path / "there", workers=2, elsewhere=there, on_update=stop)
        kept = list((tmp_path / "there" / "checkpoints").glob("*/checkpoint.pt"))
        assert kept or list((tmp_path / "there" / "runs").glob("*.json"))  # what was done came back
        again = compare(arms, [0, 1], BASE, tmp_path / "there", workers=2, elsewhere=there)
        assert not list((tmp_path / "there" / "checkpoints").glob("*/checkpoint.pt"))
        other = replace(BASE, config=replace(CONFIG, lr=1e-3))
        with pytest.raises(InvalidInput, match="other settings"):
            compare(arms, [0, 1], other, tmp_path / "there", workers=2, elsewhere=there)
    assert plain(again) == plain(here)


def test_a_run_whose_machine_is_lost_goes_on_elsewhere(tmp_path) -> None:
    """Two runs on two cores; one machine is lost in the middle of them, and what it did not write is done again."""
    one_thread()
    arms, base = [Arm.parse("grpo@4k"), Arm.parse("duet@4k")], replace(BASE, config=replace(CONFIG, steps=40))
    here = compare(arms, [0], base, tmp_path / "here", workers=1)
    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 0, "object_store_memory": 80 << 20, "include_dashboard": False},
    )
    nodes = [cluster.add_node(num_cpus=1, object_store_memory=80 << 20) for _ in range(2)]
    seen: dict[str, list[int]] = {}

    def lose(update) -> None:
        seen.setdefault(update.name, []).append(update.step)
        if nodes and len(seen) == 2 and update.state == "running" and update.step >= 2:
            cluster.remove_node(nodes.pop(), allow_graceful=False)
            nodes.clear()

    try:
        with on_ray.cluster(cluster.address) as library:
            there = partial(on_ray.starter, library)
            got = compare(arms, [0], base, tmp_path / "there", workers=2, elsewhere=there, on_update=lose)
    finally:
        cluster.shutdown()
    assert not nodes, "no machine was lost while both ran"
    assert plain(got) == plain(here)


def test_a_run_that_loses_machine_after_machine_fails_and_says_so(address, tmp_path, monkeypatch) -> None:
    class Dies(on_ray.Remote):
        def run(self, *given):
            os._exit(1)

    monkeypatch.setattr(on_ray, "Remote", Dies)
    with on_ray.cluster(address) as library, pytest.raises(BudgeteerError, match=r"its machine is gone \(ActorDied"):
        compare([Arm.parse("grpo@4k")], [0], BASE, tmp_path, workers=1, elsewhere=partial(on_ray.starter, library))


def test_the_command_has_the_results_of_one_machine(address, tmp_path, capsys) -> None:
    command = ["compare", "duet@50%", "--seeds", "1", "--task", "chains", "--train-items", "16", "--heldout-items", "8"]
    command += ["--steps", "4", "--prompts", "4", "--group", "2", "--max-tokens", "24", "--device", "cpu"]
    assert main([*command, "--out", str(tmp_path / "here"), "--workers", "1"]) == 0
    assert main([*command, "--out", str(tmp_path / "there"), "--ray", address]) == 0
    assert capsys.readouterr().out.count("duet@50% ") == 4  # a row of each table, and what is said below it
    here, there = (json.loads((tmp_path / name / "results.json").read_text()) for name in ("here", "there"))
    assert plain(there) == plain(here)
    assert (tmp_path / "there" / "report.html").exists()


def test_a_run_whose_files_differ_on_a_machine_fails_there_and_says_so() -> None:
    elsewhere = on_ray.Remote()
    run, error = elsewhere.run(BASE, {"steps": 11}, None)
    assert run is None
    assert "another one on a machine of the cluster" in str(error)


def test_a_frontier_has_the_rows_of_one_machine(address, tmp_path, capsys) -> None:
    def rows(folder: Path) -> dict[str, list]:
        kept = {}
        for path in sorted((folder / "rows").glob("*.jsonl")):
            lines = [json.loads(line) for line in path.read_text().splitlines()]
            kept[path.name] = sorted([(row["id"], row["answer"], row["units"]["all"]) for row in lines])
        return kept

    command = ["frontier", "direct,self-consistency:n=3", "chains", "--budgets", "128,256", "--seeds", "1"]
    command += ["--limit", "4"]
    assert main([*command, "--out", str(tmp_path / "here")]) == 0
    capsys.readouterr()
    assert main([*command, "--out", str(tmp_path / "there"), "--ray", address]) == 0
    assert "4 of 4 cells are done" in capsys.readouterr().err
    assert rows(tmp_path / "there") == rows(tmp_path / "here")
    assert len(rows(tmp_path / "here")) == 4
    assert main([*command, "--out", str(tmp_path / "there"), "--task-seed", "1", "--ray", address]) != 0


def test_a_cell_that_fails_says_why(address) -> None:
    def cell(text: str) -> int:
        return int(text)

    with on_ray.cluster(address) as library:
        cells = on_ray.cells(library, [("7",), ("x",)], 1, cell)
        assert next(cells) == 7
        with pytest.raises(BudgeteerError, match="invalid literal"):
            next(cells)


def test_no_cluster_answers() -> None:
    with pytest.raises(InvalidInput, match="no cluster"), on_ray.cluster("local"):
        pass
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # and does not listen
        host = f"127.0.0.1:{unused.getsockname()[1]}"
        for address in (host, f"ray://{host}"):
            with pytest.raises(InvalidInput, match="no Ray cluster answers there"), on_ray.cluster(address):
                pass
