"""benchmarks/rewards_thinker.py: what a start that was trained took is taken from the tokens of the training."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).parents[2]
for needed in ("torch", "trl", "transformers"):
    pytest.importorskip(needed)


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import rewards_thinker

    return rewards_thinker


@pytest.fixture
def given(script, monkeypatch):
    """What the training was given; it took 70 tokens. The start took 400."""
    given = {}

    def trained(recipe, seed, model, tokenizer, made, grader, drawer, budget, args, columns):
        given.update(recipe=recipe, budget=budget)
        progress = SimpleNamespace(used=70, step=2, steps_log=[{"rollouts": 3}, {"rollouts": 4}])
        return SimpleNamespace(
            spending=SimpleNamespace(progress=progress),
            accelerator=SimpleNamespace(unwrap_model=lambda model: model),
            model=model,
        )

    def brief(seed, folder, args):
        given.update(folder=folder, problems=args.problems, epochs=args.epochs)
        return script.THINKER, 400

    monkeypatch.setattr(script, "trained", trained)
    monkeypatch.setattr(script, "brief", brief)
    return given


def run(script, name, folder):
    return script.run(name, 7, Namespace(tokens=1_000, train=4, heldout=1, max_tokens=4, folder=folder))


def test_what_the_start_took_is_taken_from_the_training(script, given, tmp_path):
    row = run(script, "right-only, after brief", tmp_path)
    assert given == {
        "recipe": "grpo:reward=right-only", "budget": 600, "folder": tmp_path / "made" / "7",
        "problems": script.BRIEF["problems"], "epochs": script.BRIEF["epochs"],
    }  # fmt: skip
    assert (row["used"], row["steps"], row["rollouts"]) == (470, 2, 7)


def test_the_start_alone_is_not_trained_further(script, given, tmp_path):
    row = run(script, "start, after brief", tmp_path)
    assert "budget" not in given
    assert (row["used"], row["steps"]) == (400, 0)


def test_other_arms_have_all_tokens(script, given, tmp_path):
    row = run(script, "none", tmp_path)
    assert given == {"recipe": "grpo", "budget": 1_000}
    assert row["used"] == 70


def test_an_arm_that_is_decoded_greedily_is_trained_as_the_other(script, given, tmp_path, monkeypatch):
    temperatures = []
    monkeypatch.setattr(
        script,
        "drawn_with",
        lambda drawer, prompts, *rest: temperatures.append(rest[-1]) or [[drawer.end]] * len(prompts),
    )
    for name in ("kimi", "kimi, greedy"):
        row = run(script, name, tmp_path)
        assert given == {"recipe": "grpo:reward=kimi", "budget": 1_000}
        assert row["reward"] == name
    assert temperatures == [1.0, 0.0]
