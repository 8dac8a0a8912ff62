"""Small or large model at each step: against runs whose best choice is known, and an agent that asks two models."""

from __future__ import annotations

import asyncio
import importlib
import json
from collections.abc import Callable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from budgeteer.agent import routed
from budgeteer.agent._routed import FEATURES
from budgeteer.agent.playing import play_of
from budgeteer.check.scripted import Scripted
from budgeteer.core.amounts import PICO
from budgeteer.core.errors import InvalidInput, ModelError
from budgeteer.ledger import Allowance, Limit, MemoryLedger
from budgeteer.models.chat import call_of
from budgeteer.prices.price import Price, Rates
from budgeteer.prices.table import of
from budgeteer.route.steps import (
    EASY,
    HARD,
    INTRACTABLE,
    Choose,
    StepPolicy,
    Trajectory,
    advantage,
    fit,
    imitated,
    kinds,
    read,
)
from budgeteer.solve import Budgeted, Question, StoppedBy, Style, Task
from budgeteer.solve.tool import Tool

# -- what is learnt ---------------------------------------------------------------------------------------------------

STEPS, TASKS = 6, 60


def world(seed: int, seen: bool = True) -> Any:
    """Tasks of six steps, a quarter of which the small model fails four times in five; a failed step loses the task.
    Each model's other steps fail one time in fifty; a step of the large one costs 5, of the small one 1."""
    hard = np.random.default_rng(seed).random((TASKS, STEPS)) < 0.25

    def play(tasks: Sequence[int], choosing: Callable[[int], Choose]) -> list[Trajectory]:
        made = []
        for run, task in enumerate(tasks):
            choose, luck = choosing(run), np.random.default_rng([seed, task, run])
            x = np.array([[1.0, hard[task, k] * seen, k / STEPS] for k in range(STEPS)])
            large = np.array([choose(row) for row in x])
            fails = np.where(hard[task] & ~large, 0.8, 0.02)
            made.append(
                Trajectory(x, large, float(np.where(large, 5, 1).sum()), bool((luck.random(STEPS) > fails).all()))
            )
        return made

    return play


def of_all(play: Any, choose: Choose) -> tuple[float, float]:
    runs = play(range(TASKS), lambda run: choose)
    return float(np.mean([run.solved for run in runs])), float(np.mean([run.cost for run in runs]))


def test_the_large_model_takes_the_hard_steps_alone() -> None:
    found = fit(world(1), TASKS, np.random.default_rng(0))
    policy, test = found.policy, world(2)
    assert policy.chance(np.array([1.0, 1.0, 0.5])) > 0.9
    assert policy.chance(np.array([1.0, 0.0, 0.5])) < 0.4
    (right, cost), (most, dear), (least, cheap) = (
        of_all(test, choose) for choose in (policy.choose, lambda x: True, lambda x: False)
    )
    assert right > most - 0.05
    assert cost < 0.5 * dear
    mixed = least + (most - least) * (cost - cheap) / (dear - cheap)  # the line between the two
    assert right > mixed + 0.3
    known = int((found.kind != INTRACTABLE).sum())
    assert found.played == 2 * TASKS + known * 4 * 21


def test_without_a_sign_of_what_is_hard_it_is_a_mix_at_best() -> None:
    found, test = fit(world(1, seen=False), TASKS, np.random.default_rng(0)), world(2, seen=False)
    (right, cost), (most, dear), (least, cheap) = (
        of_all(test, choose) for choose in (found.policy.choose, lambda x: True, lambda x: False)
    )
    assert right <= least + (most - least) * (cost - cheap) / (dear - cheap) + 0.05


def test_the_same_draws_teach_the_same() -> None:
    one, other = (fit(world(1), TASKS, np.random.default_rng(3), rounds=2).policy.w for _ in range(2))
    assert one.tolist() == other.tolist()
    assert fit(world(1), TASKS, np.random.default_rng(4), rounds=2).policy.w.tolist() != one.tolist()


def run_of(large: Sequence[int], cost: float, solved: bool = True) -> Trajectory:
    return Trajectory(np.ones((len(large), 1)), np.array(large, bool), cost, solved)


def test_kinds_and_advantages_by_hand() -> None:
    small = [[run_of([0], 1, True)], [run_of([0], 1, False)], [run_of([0], 1, False)]]
    large = [[run_of([1], 5, False)], [run_of([1], 5, True)], [run_of([1], 5, False)]]
    assert kinds(small, large).tolist() == [EASY, HARD, INTRACTABLE]
    assert kinds([[*small[0], *small[1]], [*small[0], *small[1], *small[2]]], large[:2]).tolist() == [EASY, HARD]
    ends = [run_of([0], 2.0)], [run_of([1], 6.0)]
    # C = (3 - 2) / 4: R = 1 + 0.4 * 0.75 = 1.3; of the small one 1.4, of the large one 1
    assert advantage(run_of([0], 3.0), EASY, *ends, 0.4) == pytest.approx(-0.1)
    assert advantage(run_of([0], 3.0), HARD, *ends, 0.4) == pytest.approx(0.3)
    assert advantage(run_of([0], 3.0, False), HARD, *ends, 0.4) == -1.0
    # of two runs that cost 1 and 3, one of which fails: ends at 2 and 6, R = (0 + 1 + 0.4 * 0.75) / 2
    two = [run_of([0], 1.0, False), run_of([0], 3.0)]
    assert advantage(run_of([0], 2.0), EASY, two, ends[1], 0.4) == pytest.approx(1.4 - 0.65)
    assert advantage(run_of([0], 0.0), HARD, *ends, 0.4) == pytest.approx(0.4)  # cheaper than the small one: C = 0
    # where the large one was not dearer nothing is saved
    assert advantage(run_of([0], 1.0), HARD, [run_of([0], 6.0)], [run_of([1], 6.0)], 0.4) == 0.0


def test_the_cheapest_solved_run_is_imitated_and_kinds_have_equal_weight() -> None:
    # three easy tasks by the small model, one hard by the large one: equal weight of both, so a chance of a half
    boundary = [[run_of([0], 1), run_of([1], 5)]] * 3 + [[run_of([0], 1, False), run_of([1], 5)]]
    w = imitated(np.array([EASY] * 3 + [HARD]), boundary, [], [], 1e-6)
    assert StepPolicy(w).chance(np.ones(1)) == pytest.approx(0.5, abs=1e-6)
    # a mixed run that solves the hard task for less takes the place of the large one
    w = imitated(np.array([EASY] * 3 + [HARD]), boundary, [3], [run_of([0, 0, 0, 1], 3)], 1e-6)
    assert StepPolicy(w).chance(np.ones(1)) == pytest.approx(1 / 8, abs=1e-5)


def test_nothing_that_can_be_solved_teaches_nothing() -> None:
    def play(tasks: Sequence[int], choosing: Any) -> list[Trajectory]:
        return [run_of([choosing(i)(np.ones(1))], 1.0, False) for i, _ in enumerate(tasks)]

    found = fit(play, 3, np.random.default_rng(0))
    assert found.policy.w.tolist() == [0.0]
    assert found.played == 6


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"tasks": 0}, "1 or more tasks"),
        ({"group": 0}, "1 or more tasks"),
        ({"boundary": 0}, "1 or more tasks"),
        ({"rounds": -1}, "0 or more rounds"),
        ({"thrift": 1.5}, "thrift from 0 to 1"),
        ({"trust": 0.0}, "above 0"),
        ({"penalty": 0.0}, "above 0"),
    ],
)
def test_bad_numbers_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        fit(world(1), **{"tasks": TASKS, "rng": np.random.default_rng(0), **options})


def test_bad_trajectories_are_refused() -> None:
    with pytest.raises(InvalidInput, match="give finite"):
        Trajectory(np.ones((2, 1)), np.ones(3, bool), 1.0, True)
    with pytest.raises(InvalidInput, match="0 or more"):
        run_of([1], -1.0)
    with pytest.raises(InvalidInput, match="0 trajectories for 60 tasks"):
        fit(lambda tasks, choosing: [], TASKS, np.random.default_rng(0))
    with pytest.raises(InvalidInput, match="2 features a step; this policy has learnt from 3"):
        StepPolicy(np.ones(3)).chance(np.ones(2))


def test_a_policy_comes_back_from_its_file(tmp_path: Any) -> None:
    path = tmp_path / "steps.json"
    StepPolicy(np.array([0.5, -2.0])).save(path)
    assert read(path).w.tolist() == [0.5, -2.0]
    for damaged in ("", "{}", json.dumps({"steps": {"w": ["a"]}}), json.dumps({"steps": {"w": []}})):
        path.write_text(damaged)
        with pytest.raises(InvalidInput, match=r"no policy of steps|damaged"):
            read(path)
    with pytest.raises(InvalidInput, match="no policy of steps"):
        read(tmp_path / "nothing.json")


# -- an agent with two models -----------------------------------------------------------------------------------------

STYLE = Style(lambda text: f"{text}\n", lambda text: text.strip().split("\n")[0] or None, "", answer_tokens=10)
LOOK = call_of("look", '{"at": "it"}')


class Named(Scripted):
    """A scripted model with a name, whose calls of the tool end after some results."""

    def __init__(self, name: str, answer: str, results: int = 2) -> None:
        def write(prompt: str, rng: Any) -> str:
            return answer + "\n" if "Answer now" in prompt or prompt.count("</tool_response>") >= results else LOOK

        super().__init__(write)
        self.name = name


async def found(arguments: Any) -> str:
    return "it is 4"


def task(model: Any, budget: dict[str, int], number: int = 0) -> Task:
    ledger = MemoryLedger()
    ledger.open("q", [Limit(kind, units) for kind, units in budget.items()])
    price = {name: Price(Rates(input=Decimal(n), output=Decimal(n))) for name, n in (("little", 1), ("big", 10))}
    made = Budgeted(model, Allowance(ledger, "q", budget), prices=of(price, "test"))
    return Task(
        Question(f"q{number}", "2 + 2 ="), made, STYLE, 0, tools=(Tool("look", "", {"at": {"type": "string"}}, found),)
    )


def solved(asked: Task, large: Any, policy: Any, **options: Any) -> Any:
    return asyncio.run(routed(large, policy, **options).solve(asked))


def test_each_step_is_of_the_model_that_the_policy_says_and_both_see_all_turns() -> None:
    little, big, heard = Named("little", "3"), Named("big", "4"), []
    asked = task(little, {"all": 20_000})
    answer = solved(asked, big, lambda x: x[1] == 0.1, seen=lambda *told: heard.append(told))
    assert answer.answer == "3"
    assert (len(little.requests), len(big.requests)) == (2, 1)  # turns 0 and 2, and turn 1
    assert str(big.requests[0].prompt).count("</tool_response>") == 1
    assert str(little.requests[1].prompt).count("</tool_response>") == 2
    ((of, x, taken),) = heard
    assert of is asked
    assert taken.tolist() == [False, True, False]
    assert x.shape == (3, len(FEATURES))
    assert x[:, 1].tolist() == [0.0, 0.1, 0.2]
    assert x[0, 2] == 1.0 > x[1, 2] > x[2, 2]
    assert x[:, 6].tolist() == [0.0, 1.0, 0.0]  # the second result says nothing that the first did not


def test_both_pay_from_one_budget_at_their_own_prices() -> None:
    spent = {}
    for policy in ("small", "large"):
        asked = task(Named("little", "4"), {"money": PICO})
        assert solved(asked, Named("big", "4"), policy).answer == "4"
        spent[policy] = asked.model.spend.units["money"]
    assert spent["large"] == 10 * spent["small"]


@pytest.mark.parametrize(
    ("budget", "steps"),
    [(1.0, "s"), (2.0, "ss"), (6.0, "sss"), (11.0, "lss"), (17.0, "lls"), (25.0, "lll")],
)
def test_a_large_step_that_does_not_fit_is_the_small_one_s(budget: float, steps: str) -> None:
    """Thousandths of a dollar; the whole way of the small model takes 1.62, that of the large one 16.2."""
    heard: list[Any] = []
    asked = task(Named("little", "4"), {"money": round(budget * PICO / 1000)})
    answer = solved(asked, Named("big", "4"), "large", seen=lambda *told: heard.append(told[2]))
    assert answer.answer == "4"
    assert "".join("l" if large else "s" for large in heard[0]) == steps


def test_no_budget_is_overspent() -> None:
    for hundredths in range(0, 2600, 37):
        budget = hundredths * PICO // 100_000
        asked = task(Named("little", "4"), {"money": budget})
        answer = solved(asked, Named("big", "4"), "large")
        assert asked.model.spend.units["money"] <= budget
        assert (answer.answer == "4") != (answer.stopped_by == StoppedBy.BUDGET and answer.answer is None)


def test_a_large_model_that_fails_leaves_its_steps_to_the_small_one() -> None:
    class Down(Named):
        async def generate(self, request: Any) -> Any:
            raise ModelError("down", billed=False)

    asked = task(Named("little", "4"), {"all": 20_000})
    assert solved(asked, Down("big", "5"), "large").answer == "4"
    with pytest.raises(ModelError):
        solved(task(Down("little", "4"), {"all": 20_000}), Named("big", "5"), "small")


def test_it_learns_that_the_answer_takes_the_large_model(tmp_path: Any) -> None:
    """The small model looks things up as well as the large one, and answers wrong."""
    little, big = Named("little", "3"), Named("big", "4")
    play = play_of(
        big, lambda number, run: task(little, {"money": PICO}, number), lambda number, answer: answer.answer == "4"
    )
    policy = fit(play, 4, np.random.default_rng(0), group=8, rounds=40, penalty=0.1).policy
    policy.save(tmp_path / "steps.json")
    heard: list[Any] = []
    asked = task(little, {"money": PICO})
    assert solved(asked, big, str(tmp_path / "steps.json"), seen=lambda *told: heard.append(told[2])).answer == "4"
    assert heard[0].tolist() == [False, False, True]
    # without money a trajectory costs its steps of the large model
    plain = play_of(big, lambda number, run: task(little, {"all": 20_000}), lambda number, answer: True)
    (ran,) = plain([0], lambda run: lambda x: x[1] > 0)
    assert ran.cost == 2.0


def test_what_an_agent_cannot_use_is_refused() -> None:
    with pytest.raises(InvalidInput, match="give at least 1"):
        routed(Named("big", "4"), turns=0)
    with pytest.raises(InvalidInput, match="learnt from 2 features a step, and an agent has 7"):
        routed(Named("big", "4"), StepPolicy(np.ones(2)))
    with pytest.raises(InvalidInput, match="no policy of steps"):
        routed(Named("big", "4"), "nothing.json")


# -- what it brought --------------------------------------------------------------------------------------------------

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def script(monkeypatch: Any) -> Any:
    pytest.importorskip("bm25s")
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("route_steps")


def test_the_page_holds_the_numbers_of_the_benchmark(script: Any) -> None:
    content = json.loads(script.TARGET.read_text())
    page = (ROOT / "docs" / "route.md").read_text()
    assert importlib.import_module("pages").between(page, script.table(content), *script.MARKS) == page


def test_points_above_the_line_by_hand(script: Any) -> None:
    small, large = {"dollars": 1.0, "right": 0.2}, {"dollars": 3.0, "right": 0.6}
    assert script.above([small, large, {"dollars": 2.0, "right": 0.5}]) == pytest.approx(0.1)
    assert script.above([small, large, {"dollars": 0.5, "right": 0.25}]) == pytest.approx(0.05)
    assert script.above([small, large, {"dollars": 4.0, "right": 0.7}]) == pytest.approx(0.1)


def test_the_benchmark_measures_every_arm(script: Any) -> None:
    gold = ["Mira Hale was born in Oslo.", "Oslo is in Norway."]
    rows = [
        {
            "question": f"Where is the town in which Mira Hale {n} was born?", "answers": ["Norway"],
            "gold_sentences": gold, "candidate_sentences": [*gold, "Carl Weiss was a poet."],
        }
        for n in range(6)
    ]  # fmt: skip
    found = script.measured(rows, 0, True)
    assert [row["arm"] for row in found] == list(script.ARMS)
    by = {row["arm"]: row for row in found}
    assert by["small"]["large"] == 0.0 < by["large"]["large"]
    assert all(row["dollars"] <= 0.0005 for row in found)
