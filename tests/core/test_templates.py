"""The templates that contributors copy keep working: a copy passes its part's check, and is run by the command line."""

from __future__ import annotations

import doctest
import importlib
import json
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from budgeteer.check import check_method
from budgeteer.check._method import CHECKS
from budgeteer.core.allocator import stateless
from budgeteer.core.method import PARTS, Method
from budgeteer.core.plan import ENDED, Items
from budgeteer.core.run import RUNS, run_of
from budgeteer.core.steer import Rows, Snapshot
from budgeteer.lab import evidence as package
from budgeteer.models.policy import REASONER
from helpers import needs, theirs

ROOT = Path(__file__).parents[2]
FACTORIES = {
    "allocator": "cheapest_first",
    "online": "fixed_price",
    "joint": "random_search",
    "rounding": "systematic",
    "matching": "greedy",
    "router": "priced",
    "allowance": "Counting",
    "steer": "deadline",
    "meter": "letters",
    "strategy": "second_opinion",
    "many": "in_turn",
    "aggregator": "firm_majority",
    "scorer": "short_first",
    "verifier": "caseless",
    "reward": "brevity",
    "advantage": "against_the_rest",
    "importance": "first_tokens",
    "ratio": "capped",
    "stream": "by_key",
    "carry": "second_chance",
    "variant": "nudged",
    "schedule": "half_cosine",
    "weight": "root_mean",
    "recipe": "concise",
    "tuning": "shortest_right",
    "policy": "short",
    "style": "brackets",
    "task": "Divisible",
    "score": "large_values",
    "split": "lend",
    "reducer": "named",
    "route": "straight",
    "rest": "into_last",
}
"""Template -> the factory in it."""
TORCH = ("recipe", "reward", "advantage", "ratio", "score", "split", "rest")
WITHOUT_DOCTEST = (
    "strategy", "recipe", "advantage", "many", "scorer", "importance", "carry", "variant", "tuning", "policy",
)  # fmt: skip
"""Parts whose methods need more than a few lines to be called; tests below call them."""


@pytest.fixture
def copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on the path with a copy of each template, named like the template."""
    folder = tmp_path / "copies"
    shutil.copytree(ROOT / "templates", folder, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.syspath_prepend(folder)
    importlib.invalidate_caches()
    yield folder
    for name in (*FACTORIES, "evidence"):  # such plain names must not leak into other tests
        sys.modules.pop(name, None)


def template(part: str) -> ModuleType:
    if part in TORCH:
        pytest.importorskip("torch")
    if part == "policy":
        pytest.importorskip("orjson")
    return importlib.import_module(part)


def entry(part: str) -> Method:
    """What somebody else's package declares of its copy."""
    name, given = FACTORIES[part].replace("_", "-").lower(), {"budget": 300} if part == "online" else {}
    return Method(name, part, f"{part}:{FACTORIES[part]}", "what the template does", arguments=given)


def test_every_part_has_its_template_and_its_page() -> None:
    assert set(FACTORIES) == set(PARTS) == set(RUNS) == set(CHECKS)
    assert {path.stem for path in (ROOT / "templates").glob("*.py")} == {*PARTS, "evidence"}
    assert {path.stem for path in (ROOT / "docs" / "add").glob("*.md")} == {*PARTS, "index"}
    index = (ROOT / "docs" / "add" / "index.md").read_text()
    for part, does in PARTS.items():
        assert f"| [{part}]({part}.md) | {does} | `templates/{part}.py` |" in index


@pytest.mark.parametrize("part", FACTORIES)
def test_a_page_has_the_file_the_entry_the_check_and_how_it_is_run(part: str, copies: Path) -> None:
    template(part)
    method, page = entry(part), (ROOT / "docs" / "add" / f"{part}.md").read_text()
    assert f'--8<-- "templates/{part}.py"' in page
    written = re.sub(r"\s+", " ", page).replace("( ", "(")  # however the formatter laid it out
    assert f'Method("{method.name}", "{part}", "my_package.{method.path}", ' in written
    assert f"check_{part}(" in page
    assert f"budgeteer methods --check {method.name}" in page
    assert run_of(method) in page


@pytest.mark.parametrize("part", FACTORIES)
def test_a_copy_is_explained_and_passes_the_check_of_its_part(part: str, copies: Path) -> None:
    module = template(part)
    assert Path(str(module.__file__)).parent == copies
    tried = doctest.testmod(module)
    assert tried.failed == 0
    assert tried.attempted or part in WITHOUT_DOCTEST
    assert "Helps when" in getattr(module, FACTORIES[part]).__doc__ or part == "task"
    check_method(entry(part))


def test_the_allocator_by_hand(copies: Path) -> None:
    # 2 units each: b costs 2, c 4 (6 so far), a 20 (26 so far); 25 tokens reach b and c
    items = Items(("a", "b", "c"), np.array([10.0, 1.0, 2.0]))
    allocator = template("allocator").cheapest_first(2)
    plan = allocator.allocate(25, items, allocator.init(items), rng=np.random.default_rng(0))
    assert (plan.units.tolist(), plan.expected_cost) == ([0, 2, 2], 6.0)


def test_the_steer_by_hand(copies: Path) -> None:
    # caps 40 and 80, a quarter is 10 and 20: at 12 tokens the first is late, unless it has closed its thinking
    steer = template("steer").deadline(0.25)
    state = steer.init(Rows(("a", "b"), np.array([40, 80]), 0))
    for closed, decided in ((-1, [1, 0]), (8, [0, 0])):
        action, state = steer.step(state, Snapshot.of([12, 12], closed=[closed, -1]))
        assert action.decision.tolist() == decided


def test_the_reward_by_hand(copies: Path) -> None:
    rewards = template("reward")
    from budgeteer.rl.reward import Columns

    # 1 - 0.5 * 10 / 40 = 0.875; a wrong answer gets nothing, however short
    caps, status = np.full(2, 40), np.full(2, ENDED, np.int8)
    rows = Columns(np.array([1.0, 0.0]), np.array([10, 1]), np.zeros(2, np.int64), caps, status)
    assert rewards.brevity(0.5).score((), rows).tolist() == [0.875, 0.0]


def test_the_style_by_hand(copies: Path) -> None:
    from budgeteer.solve.styles import TaskInfo

    style = template("style").brackets(TaskInfo("sums", numeric=True), thinking=False)
    messages = style.prompt("1 + 1?").messages
    assert [message.role for message in messages] == ["system", "user"]
    assert "it is a number" in messages[0].content
    assert style.split("So [[ 2 ]].") == ("So ", " 2 ]].")
    assert (style.read("So [[ 2.0 ]]."), style.read("So 2."), style.complete("2"), style.complete("2]]")) == (
        "2", None, False, True,
    )  # fmt: skip


def test_the_task_by_hand(copies: Path) -> None:
    task = template("task").Divisible(20, 1, most=2)
    assert {item.level for item in task.items} == {"2"}
    for item in task.items:
        low = item.entry["low"]  # of two numbers in a row one is even
        assert item.answer == str(low + low % 2)
        assert [task.verify(item, text) for text in (str(low), str(low + 1))] == [1.0 - low % 2, float(low % 2)]


def test_the_advantage_by_hand(copies: Path) -> None:
    from budgeteer.check._made_up import made_up

    rollouts, view = made_up(0)
    found = template("advantage").against_the_rest(rollouts, view)
    first = np.flatnonzero(rollouts.group == 2)
    rest = [np.delete(rollouts.reward[first], i).mean() for i in range(len(first))]
    np.testing.assert_allclose(found[first], rollouts.reward[first] - rest)
    assert found[rollouts.group == len(rollouts.keys) - 1].tolist() == [0.0]  # alone


def test_the_ratio_by_hand(copies: Path) -> None:
    ratio = template("ratio").capped(1.5)
    import torch

    from budgeteer.rl.ratio import Tokens

    new, row = torch.log(torch.tensor([0.5, 3.0])), torch.zeros(2, dtype=torch.int64)
    tokens = Tokens(new, torch.zeros(2), torch.tensor([2.0, -2.0]), row, torch.ones(2).bool())
    assert ratio(tokens).tolist() == [1.0, -3.0]


def test_the_recipe_ends_answers_and_lowers_long_ones(copies: Path) -> None:
    made = template("recipe").concise(0.5)
    from budgeteer.rl.reward import Columns

    caps, status = np.full(2, 40), np.full(2, ENDED, np.int8)
    rows = Columns(np.ones(2), np.array([20, 30]), np.zeros(2, np.int64), caps, status)
    assert made.reward.score((), rows).tolist() == [1.0, 0.5]  # a buffer of 20: 20 is before it, 30 half way in
    assert made.steer(None).every == 1


@pytest.fixture
def installed(copies: Path) -> Path:
    """The copies as a package of somebody else, with an entry for each."""
    lines = ["from budgeteer.core.method import Method", *(f"{part} = {entry(part)!r}" for part in FACTORIES)]
    (copies / "mine.py").write_text("\n".join(lines) + "\n")
    info = copies / "mine-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n")
    points = [f"mine-{part} = mine:{part}" for part in FACTORIES]
    (info / "entry_points.txt").write_text("\n".join(["[budgeteer.methods]", *points]) + "\n")
    return copies


def run(folder: Path, *words: str, stdin: str = "", code: int = 0) -> str:
    done = theirs.budgeteer(folder, *words, stdin=stdin)
    assert done.returncode == code, done.stderr
    return done.stderr if code else done.stdout


def rows(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_the_copies_are_listed_and_split_a_budget(installed: Path) -> None:
    listed = {(row["part"], row["name"]) for row in json.loads(run(installed, "methods", "--json"))}
    assert {(part, entry(part).name) for part in FACTORIES} <= listed
    items = '{"key": "a", "cost": 10}\n{"key": "b", "cost": 1}\n'
    split = run(installed, "allocate", "-", "--method", "cheapest-first", "--budget", "20", "--json", stdin=items)
    assert json.loads(split)["plan"] == {"a": 0, "b": 4}


PRINTED = {
    "online": "0 (297.0,)",
    "joint": "[1 0]",
    "rounding": "[False  True  True]",
    "matching": "3.5 0",
    "router": "(8, 1) (8, 1)",
    "allowance": "{'all': 980}",
    "meter": "80",
    "reducer": "2",
}
"""What the lines print that run a copy of a part which no command resolves by itself."""


def test_a_copy_that_no_command_runs_is_run_by_the_lines_of_its_page(
    installed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert PRINTED.keys() == {part for part, how in RUNS.items() if not how.startswith("budgeteer ")}
    for part, printed in PRINTED.items():
        exec(run_of(entry(part)), {})
        assert capsys.readouterr().out.strip() == printed, part


needs_reasoner = pytest.mark.skipif(not (REASONER / "model.safetensors").exists(), reason="no embedded reasoner yet")


@needs_reasoner
@pytest.mark.parametrize(
    "options",
    [
        ["--strategy", "second-opinion", "--budget", "400"],
        ["--strategy", "in-turn", "--budget", "400", "--total"],
        ["--strategy", "split:aggregate=firm-majority,most=3", "--budget", "4000", "--total"],
        ["--strategy", "best-of-n:scorer=short-first,n=2", "--budget", "4000"],
        ["--strategy", "direct", "--verifier", "caseless", "--budget", "letters:900"],
    ],
    ids=["strategy", "many", "aggregator", "scorer", "verifier and meter"],
)
def test_solve_runs_the_copies(installed: Path, tmp_path: Path, options: list[str]) -> None:
    pytest.importorskip("torch")
    needs.reasoning_gym()
    out = tmp_path / "answers.jsonl"
    assert "questions   1" in run(installed, "solve", "chains", "--limit", "1", *options, "--out", str(out))
    (row,) = rows(out)
    assert row["calls"] > 0


def test_solve_asks_the_copy_of_the_task_in_the_copy_of_the_style(installed: Path, tmp_path: Path) -> None:
    pytest.importorskip("openai")
    from helpers.answers import chat, used
    from helpers.upstream import Upstream

    item = template("task").Divisible(1, 0, most=3).items[0]
    out = tmp_path / "answers.jsonl"
    with Upstream(chat((f"Easy: [[ {item.answer} ]]",), used(60, 9))) as provider:
        asked = ["solve", "divisible:most=3", "--limit", "1", "--style", "brackets:thinking=false"]
        how = ["--strategy", "direct", "--model", f"{provider.url}#m", "--budget", "5000", "--out", str(out)]
        run(installed, *asked, *how)
        first, second = provider.requests[-1][1]["messages"]
    assert first["content"] == "Give the answer between [[ and ]]; it is a number."
    assert second["content"] == item.prompt
    (row,) = rows(out)
    assert (row["answer"], row["correct"]) == (item.answer, True)


@needs_reasoner
@pytest.mark.parametrize("variant", [pytest.param(False, marks=pytest.mark.slow), True])
def test_train_fills_every_slot_with_a_copy(installed: Path, tmp_path: Path, variant: bool) -> None:
    pytest.importorskip("torch")
    needs.reasoning_gym()
    recipe = (
        "concise:steer=deadline,reward=brevity,advantage=against-the-rest,importance=first-tokens,ratio=capped,"
        f"stream=by-key,{'variant=nudged' if variant else 'carry=second-chance'},lr=half-cosine,token_weight=root-mean"
    )
    sizes = {"steps": 1, "prompts": 4, "group": 2, "max-tokens": 48, "train-items": 12, "heldout-items": 12}
    small = [word for key, value in sizes.items() for word in (f"--{key}", str(value))]
    folder = tmp_path / "run"
    train = ["train", recipe, "--budget", "600", "--task", "chains", "--device", "cpu", "--out", str(folder)]
    assert str(folder / "policy") in run(installed, *train, *small)


def test_a_gateway_serves_with_the_copy_of_the_policy(installed: Path, tmp_path: Path) -> None:
    for needed in ("aiohttp", "orjson", "prometheus_client", "starlette", "uvicorn"):
        pytest.importorskip(needed)
    headers, sent = theirs.capped(installed, tmp_path / "gateway.toml", "short")
    assert headers["x-budgeteer-policy"] == "short=20"
    assert sent["max_tokens"] == 20


def test_the_evidence_runs_is_published_and_can_fail(
    copies: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evidence = template("evidence")
    rows = evidence.experiments()
    assert [row.verdict for row in rows] == ["shown", "shown"]
    path = package.write("template", tmp_path, package.label(rows, evidence.DECLARED))
    assert [row["verdict"] for row in json.loads(path.read_text())] == ["shown", "control holds"]
    # a method that leaves nine tenths of its budget unspent must not keep the claim
    whole = template("allocator").cheapest_first()
    lazy = stateless(lambda budget, items: whole.allocate(budget // 10, items, (), rng=np.random.default_rng(0)))
    monkeypatch.setattr(evidence, "cheapest_first", lambda: lazy)
    assert evidence.more_units(spread=1.0).verdict == "refuted here"
