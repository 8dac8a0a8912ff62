"""The search over pipelines against all pipelines, and pipelines run on a scripted model."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from budgeteer import cli
from budgeteer.check.scripted import Scripted
from budgeteer.core import registry
from budgeteer.core.errors import InvalidInput
from budgeteer.core.joint import Assignment
from budgeteer.core.method import Method
from budgeteer.joint import agent_tts
from budgeteer.joint._agent_tts import first_trials, observations
from budgeteer.joint.kit import Space, Trial
from budgeteer.lab import stages
from budgeteer.models import load as models_load

COST = np.array([[1.0, 2, 4, 8, 5, 10, 20, 40]] * 2)
FAMILY = [0, 0, 0, 0, 1, 1, 1, 1]
SAMPLES = [1, 2, 4, 8]
BUDGET = 30.0


def wrong(skills: list[tuple[float, float]], y: np.ndarray) -> tuple[float, np.ndarray]:
    """1 - the product over stages of a curve that rises to its model's skill, and falls a little behind 4 samples."""
    right = 1.0
    for row, skill in zip(y, skills, strict=True):
        option = int(row.argmax())
        n = SAMPLES[option % 4]
        right *= skill[option // 4] * (1 - 0.5**n) - 0.02 * max(0, n - 4)
    return 1 - right, np.zeros_like(y)


def calls_to(share: float, skills: list[tuple[float, float]], seed: int, *, rules: bool) -> int:
    """Evaluations until a pipeline of this share of the best one's accuracy was tried."""
    best = max(
        1 - wrong(skills, np.eye(8)[list(choice)])[0]
        for choice in itertools.product(range(8), repeat=2)
        if sum(COST[0][list(choice)]) <= BUDGET
    )
    seen: list[float] = []

    def loss(y: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = wrong(skills, y)
        seen.append(1 - value)
        return value, gradient

    propose = None if rules else (lambda space, trials, wanted, rng: [])  # what is not proposed is drawn at random
    rng = np.random.default_rng(seed)
    agent_tts(loss, COST, BUDGET, COST * 0, rng=rng, family=FAMILY, propose=propose, trials=64)
    return next(i + 1 for i, right in enumerate(seen) if right >= share * best)


def test_the_rules_find_a_good_pipeline_in_fewer_trials_than_random_draws() -> None:
    problems = [[(0.9, 0.95), (0.3, 0.9)], [(0.4, 0.9), (0.9, 0.92)], [(0.6, 0.7), (0.5, 0.9)]]
    ours = [calls_to(0.98, skills, seed, rules=True) for skills in problems for seed in range(5)]
    random = [calls_to(0.98, skills, seed, rules=False) for skills in problems for seed in range(5)]
    assert np.mean(ours) < 0.7 * np.mean(random)


def test_enough_trials_find_the_best_pipeline_that_is_affordable() -> None:
    skills = [(0.4, 0.9), (0.9, 0.92)]
    found = agent_tts(
        lambda y: wrong(skills, y), COST, BUDGET, COST * 0, rng=np.random.default_rng(0), family=FAMILY, trials=64
    )
    every = [c for c in itertools.product(range(8), repeat=2) if sum(COST[0][list(c)]) <= BUDGET]
    assert found.calls == len(every)
    assert found.loss == pytest.approx(min(wrong(skills, np.eye(8)[list(c)])[0] for c in every))


def test_the_first_trials_give_each_stage_a_unit_of_each_model() -> None:
    # a unit is one sample of the dearest model, 5: four samples of the small one (4), the other stage has the dear one
    assert first_trials(Space(COST, np.array(FAMILY), BUDGET)) == [(2, 4), (4, 4), (4, 2), (4, 4)]
    # 8 do not pay a dear one beside it: the others get the cheapest
    assert first_trials(Space(COST, np.array(FAMILY), 8.0)) == [(2, 0), (4, 0), (0, 2), (0, 4)]


def test_the_moves_are_the_three_observations() -> None:
    space = Space(COST, np.array(FAMILY), BUDGET)
    found = observations(space, [Trial((4, 5), 0.5)], 100, np.random.default_rng(0))
    assert {(2, 5), (4, 3)} <= set(found)  # another model for what the stage has, or for less
    assert {(5, 5), (4, 6), (4, 4)} <= set(found)  # a step up and down
    assert (5, 4) in found  # up at one stage, down at the other
    assert all(space.of(choice) <= BUDGET for choice in found)


def test_an_agents_proposals_are_tried_and_its_nonsense_is_left_out() -> None:
    tried = []

    def loss(y: np.ndarray) -> tuple[float, np.ndarray]:
        tried.append(tuple(y.argmax(axis=1).tolist()))
        return wrong([(0.5, 0.9), (0.5, 0.9)], y)

    def propose(space: Space, trials: list[Trial], wanted: int, rng: np.random.Generator) -> list[list[int]]:
        return [[7, 7], [99, 0], [1], [6, 5], trials[0].choice]

    agent_tts(loss, COST, BUDGET, COST * 0, rng=np.random.default_rng(0), family=FAMILY, propose=propose, trials=8)
    assert (6, 5) in tried
    assert len(tried) == len(set(tried)) == 8
    assert all(sum(COST[0][list(choice)]) <= BUDGET for choice in tried)


PIPELINE = """
[ways.quick]
model = "{a}"
style = "direct"
[ways.slow]
model = "{b}"
style = "direct"
weight = 3.0

[[stages]]
name = "half"
prompt = "half of {{number}}"
ways = ["quick", "slow"]
samples = [1, 3]
tokens = 10

[[stages]]
name = "more"
prompt = "{{half}} and one"
ways = ["quick"]
samples = [1]
tokens = 20
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    def write(prompt: str, rng: object) -> str:
        words = prompt.rstrip().splitlines()
        line = next(word for word in reversed(words) if "half of" in word or "and one" in word)
        number = int("".join(filter(str.isdigit, line)))
        if "and one" in line:
            return f" {number + 1}\n"
        return f" {number // 2}\n"

    def wrong_half(prompt: str, rng: object) -> str:
        return " 0\n" if "half of" in prompt.splitlines()[-2] + prompt.splitlines()[-1] else write(prompt, rng)

    models = {"quick": Scripted(wrong_half, characters=False), "slow": Scripted(write, characters=False)}
    for model in models.values():
        model.aclose = nothing  # type: ignore[attr-defined]
    monkeypatch.setattr(models_load, "load_model", lambda name: models[name])
    (tmp_path / "p.toml").write_text(PIPELINE.format(a="quick", b="slow"))
    rows = [{"number": n, "answer": n // 2 + 1} for n in (8, 20, 64)]
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


async def nothing() -> None:
    """Closes nothing."""


def test_costs_are_a_prompt_and_samples_by_weight(folder: Path) -> None:
    pipeline = stages.load(folder / "p.toml")
    assert pipeline.options == [("quick", 1), ("quick", 3), ("slow", 1), ("slow", 3)]
    assert pipeline.costs([5.0, 7.0]).tolist() == [[15, 35, 45, 105], [27, 1e300, 1e300, 1e300]]
    assert pipeline.family.tolist() == [0, 0, 1, 1]


def test_the_command_finds_the_way_that_is_right(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [str(folder / "p.toml"), str(folder / "q.jsonl")]
    assert cli.main(["stages", *files, "--budget", "200", "--trials", "4", "--heldout", files[1]]) == 0
    said = capsys.readouterr().out
    assert "best       half: slow x 1, more: quick x 1" in said
    assert "right      100.0% of the 3 questions" in said
    assert "held out   100.0%" in said
    assert "search     4 pipelines" in said


def dearest_first(loss, cost, budget, start, *, rng, family=(), trials=1, most=2):  # type: ignore[no-untyped-def]
    """A joint method of somebody else: the dearest choices that fit, ``most`` of them; it notes what it was given."""
    GIVEN.update(family=family, trials=trials, most=most)
    every = [c for c in itertools.product(range(cost.shape[1]), repeat=len(cost)) if paid(cost, c) <= budget]
    tried = sorted(every, key=lambda c: -paid(cost, c))[:most]
    values = [loss(np.eye(cost.shape[1])[list(c)])[0] for c in tried]
    best = np.array(tried[int(np.argmin(values))])
    return Assignment(best, best, min(values), len(tried))


GIVEN: dict[str, object] = {}


def paid(cost: np.ndarray, choice: tuple[int, ...]) -> float:
    return sum(float(row[k]) for row, k in zip(cost, choice, strict=True))


def test_any_joint_method_of_the_registry_searches(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = Method("dearest-first", "joint", f"{__name__}:dearest_first", "the dearest choices")
    monkeypatch.setattr(registry, "METHODS", (*registry.METHODS, theirs))
    command = ["stages", str(folder / "p.toml"), str(folder / "q.jsonl"), "--budget", "200"]
    assert cli.main([*command, "--search", "dearest-first:most=3", "--trials", "7"]) == 0
    said = capsys.readouterr().out
    assert "search     3 pipelines" in said
    assert "best       half: slow x 3, more: quick x 1" in said
    assert GIVEN == {"family": [0, 0, 1, 1], "trials": 7, "most": 3}
    assert cli.main([*command, "--search", "dearest-first", "--batch", "2"]) == 2
    assert "--search dearest-first has no option batch; leave --batch out" in capsys.readouterr().err


def test_the_gaussian_process_searches_with_its_options(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["stages", str(folder / "p.toml"), str(folder / "q.jsonl"), "--budget", "200"]
    assert cli.main([*command, "--search", "gaussian-process:first=2", "--trials", "4"]) == 0
    said = capsys.readouterr().out
    assert "best       half: slow x 1, more: quick x 1" in said or "best       half: slow x 3" in said
    assert "right      100.0% of the 3 questions" in said


def test_an_agent_is_told_options_costs_and_trials() -> None:
    pipeline = stages.Pipeline({"w": stages.Way("m")}, (stages.Stage("a", "{q}", ("w",), (1, 3), 10),))
    learnt = "More samples helped: not [2] but more."
    model = Scripted(lambda prompt, rng: learnt if prompt.endswith(stages.GUIDELINES) else "I would try [[1], [0]]")
    space = Space(pipeline.costs([2.0]), pipeline.family, 50.0)
    found = stages.agent(model, pipeline)(space, [Trial((0,), 0.25)], 2, np.random.default_rng(0))
    assert found == [[1], [0]]
    asked, prompt = (str(request.prompt) for request in model.requests)
    assert learnt in prompt
    assert learnt not in asked
    assert asked.startswith(prompt.partition("Guidelines")[0])
    for part in ("budget of 50", "0 = w x 1 (cost 12)", "1 = w x 3 (cost 32)", "[0]: 0.250", "JSON list of 2"):
        assert part in prompt


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("x = 1", "cannot read a pipeline"),
        ('[ways.a]\nmodel = "m"\n[[stages]]\nname = "s"\nprompt = "p"\nways = ["b"]', "names a way 'b'; there are a"),
        ('[ways.a]\nmodel = "m"\n[[stages]]\nname = "s"\nprompt = "p"\nways = ["a"]\nsamples = [0]', "1 or more"),
        ('[ways.a]\nmodel = "m"\nweight = -1\n[[stages]]\nname = "s"\nprompt = "p"\nways = ["a"]', "weight is above 0"),
    ],
)
def test_pipelines_that_cannot_be_are_refused(tmp_path: Path, text: str, part: str) -> None:
    (tmp_path / "p.toml").write_text(text)
    with pytest.raises(InvalidInput, match=part):
        stages.load(tmp_path / "p.toml")


def test_rows_without_a_field_are_refused(folder: Path) -> None:
    (folder / "q.jsonl").write_text('{"answer": 3}\n')
    with pytest.raises(InvalidInput, match="line 1: no number"):
        stages.rows_of(folder / "q.jsonl", stages.load(folder / "p.toml"))
