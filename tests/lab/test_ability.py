"""The ability of a model from few answers: files, predictions on models that were not calibrated on, command line."""

from __future__ import annotations

import json

import numpy as np
import pytest

from budgeteer import cli
from budgeteer.core.errors import InvalidInput
from budgeteer.lab.ability import About, about, answered, estimate, fitted, responses

MODELS, TESTED, QUESTIONS = 60, 30, 80


@pytest.fixture(scope="module")
def world():
    """Answers of 60 models to 80 questions of two groups, and those of 30 further models."""
    rng = np.random.default_rng(5)
    slope = np.zeros((QUESTIONS, 3))
    slope[:, 0], slope[np.arange(QUESTIONS), 1 + np.arange(QUESTIONS) % 2] = rng.lognormal(0, 0.4, QUESTIONS), 0.5
    chance = 1 / (1 + np.exp(-(rng.normal(size=(MODELS + TESTED, 3)) @ slope.T - rng.normal(0, 1.5, QUESTIONS))))
    right = (rng.random(chance.shape) < chance).astype(int)
    keys = [f"q{i:03d}" for i in range(QUESTIONS)]
    cost = 100 * rng.lognormal(0, 1, QUESTIONS)
    return right[:MODELS], right[MODELS:], keys, cost


@pytest.fixture(scope="module")
def files(world, tmp_path_factory):
    right, _, keys, cost = world
    folder = tmp_path_factory.mktemp("ability")
    lines = [",".join(["model", *keys])]
    lines += [",".join([f"m{i}", *("" if (i + j) % 9 == 0 else str(x) for j, x in enumerate(row))]) for i, row in enumerate(right)]  # fmt: skip  # noqa: E501
    (folder / "responses.csv").write_text("\n".join(lines) + "\n")
    about = ["key,cost,group", *(f"{key},{c:.0f},{'ab'[j % 2]}" for j, (key, c) in enumerate(zip(keys, cost, strict=True)))]  # fmt: skip  # noqa: E501
    (folder / "questions.csv").write_text("\n".join(about) + "\n")
    return folder


def error(bank, questions, tested, keys, budget, discount, pick=None):
    """Mean absolute error of the predicted score of all questions, and mean number and tokens of the questions."""
    errors, asked, tokens = [], [], []
    for seed, row in enumerate(tested):
        truth, answers = dict(zip(keys, map(float, row), strict=True)), {}
        if pick is not None:
            answers = {key: truth[key] for key in np.random.default_rng(seed).permutation(keys)[:pick].tolist()}
        else:
            for _ in range(4):  # rounds
                found = estimate(bank, questions, answers, budget // 4, discount=discount)
                answers |= {key: truth[key] for key in found.ask}
                tokens.append(4 * found.tokens)
        errors.append(abs(estimate(bank, questions, answers, 0).scores[0].mean - row.mean()))
        asked.append(len(answers))
    return float(np.mean(errors)), float(np.mean(asked)), float(np.mean(tokens)) if tokens else 0.0


def test_chosen_questions_predict_models_that_were_not_calibrated_on(world, files):
    _, tested, keys, _ = world
    bank, _ = fitted(responses(str(files / "responses.csv")), about(str(files / "questions.csv")))
    counted = About(group=about(str(files / "questions.csv")).group)
    chosen, number, _ = error(bank, counted, tested, keys, 16, 1.0)
    random, _, _ = error(bank, counted, tested, keys, 0, 1.0, pick=16)
    nothing, _, _ = error(bank, counted, tested, keys, 0, 1.0, pick=0)
    assert number == 16
    assert chosen < 0.95 * random < 0.6 * nothing
    priced = about(str(files / "questions.csv"))
    cheap = error(bank, priced, tested[:8], keys, 1000, 1.0)
    dear = error(bank, priced, tested[:8], keys, 1000, 0.0)
    assert cheap[2] <= 1000
    assert cheap[1] > dear[1]  # more questions for the same tokens


def test_a_score_by_hand():
    """One question of two is answered; the other one has slope 1 and intercept 0, and the posterior is symmetric."""
    from budgeteer.allocate import Bank

    bank = Bank(("a", "b"), np.array([[1.0], [1.0]]), np.array([0.0, 0.0]))
    found = estimate(bank, About(), {}, 0)
    assert (found.ability.tolist(), found.deviation.tolist()) == ([0.0], [1.0])
    assert found.scores[0].mean == pytest.approx(0.5)
    # gradient: k p (1 - p) with k = (1 + pi / 8)^-1/2
    assert found.scores[0].deviation == pytest.approx(0.25 / np.sqrt(1 + np.pi / 8))
    found = estimate(bank, About(), {"a": 1.0}, 1)
    # the mode solves 1 - sigmoid(x) = x: 0.4012
    assert found.ability[0] == pytest.approx(0.4012, abs=1e-3)
    p = 1 / (1 + np.exp(-0.4012))
    v = 1 / (1 + p * (1 - p))
    other = 1 / (1 + np.exp(-0.4012 / np.sqrt(1 + np.pi / 8 * v)))
    assert found.scores[0].mean == pytest.approx((1 + other) / 2, abs=1e-4)
    assert found.ask == ("b",)
    with pytest.raises(InvalidInput, match="no question 'c'"):
        estimate(bank, About(), {"c": 1.0}, 0)


def test_on_the_command_line(files, world, capsys):
    _, tested, keys, cost = world
    command = ["lab", "ability", str(files / "responses.csv"), "--questions", str(files / "questions.csv")]
    assert cli.main([*command, "--budget", "1k", "--json"]) == 0
    first = json.loads(capsys.readouterr().out)
    assert (first["models"], first["questions"], first["ability"]) == (MODELS, QUESTIONS, [0.0, 0.0, 0.0])
    prices = dict(zip(keys, cost.round().tolist(), strict=True))
    assert sum(prices[key] for key in first["ask"]) == pytest.approx(first["tokens"])
    assert 0 < first["tokens"] <= 1000
    truth = dict(zip(keys, tested[0].tolist(), strict=True))
    (files / "mine.csv").write_text("key,right\n" + "".join(f"{key},{truth[key]}\n" for key in first["ask"]))
    assert cli.main([*command, "--answers", str(files / "mine.csv"), "--budget", "500"]) == 0
    said = capsys.readouterr().out
    assert f"from {len(first['ask'])} answers" in said
    asked = [line.strip() for line in said.split("ask next")[1].splitlines()[1:]]
    assert asked
    assert not set(asked) & set(first["ask"])


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("responses", "name,q1,q2\na,1,0\nb,0,1\n", "no field 'model'"),
        ("responses", "model,q1,q2\na,1,2\nb,0,1\n", "1 for right"),
        ("responses", "model,q1,q2\na,1,yes\nb,0,1\n", "no number"),
        ("responses", "model,q1,q2\na,1,0\n", "needs 2 of each"),
        ("responses", "model,q1,q2\na,1,0\na,0,1\n", "a model twice"),
        ("questions", "name,cost\nq1,3\n", "no field 'key'"),
        ("questions", "key,cost\nq1,-3\nq2,4\n", "above 0"),
        ("questions", "key,cost\nq1,3\n", "1 questions have no cost"),
        ("questions", "key,group\nq1,a\n", "1 questions have no group"),
        ("answers", "key,right\nq9,1\n", "no question 'q9'"),
        ("answers", "key,right\nq1,1\nq1,0\n", "twice"),
        ("answers", "key,answer\nq1,1\n", "no field 'right'"),
    ],
)
def test_bad_files_are_named(tmp_path, capsys, name, text, message):
    (tmp_path / "responses.csv").write_text("model,q1,q2\na,1,0\nb,0,1\n")
    (tmp_path / f"{name}.csv").write_text(text)
    command = ["lab", "ability", str(tmp_path / "responses.csv")]
    command += [] if name == "responses" else [f"--{name}", str(tmp_path / f"{name}.csv")]
    assert cli.main(command) == 2
    assert message in capsys.readouterr().err
    assert answered is not None
