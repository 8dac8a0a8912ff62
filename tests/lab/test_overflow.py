"""BenchOverflow: shares and intervals on tables by hand, Spearman against scipy, the command on scripted models."""

from __future__ import annotations

import json
import sys
import types

import numpy as np
import pytest

from budgeteer import cli
from budgeteer.check.scripted import Scripted
from budgeteer.core.errors import InvalidInput, ModelError
from budgeteer.lab.bench import overflow
from budgeteer.lab.bench.overflow import Cell, Prompt, analyse, lengths, spearman
from budgeteer.lab.stats import crossed_weights

ASKED = (Prompt("a", "paper", "one"), Prompt("a", "paper", "two"), Prompt("b", "ours", "three"))


def test_the_prompts_are_nine_kinds_of_six_all_different():
    every = overflow.prompts()
    assert len({prompt.text for prompt in every}) == 54
    kinds = {(prompt.kind, prompt.origin) for prompt in every}
    assert sorted(origin for _, origin in kinds) == ["ours"] * 5 + ["paper"] * 4
    assert {sum(prompt.kind == kind for prompt in every) for kind, _ in kinds} == {6}


def test_lengths_count_the_cap_where_it_cut_and_nothing_where_a_call_failed():
    def row(by, output):
        return {"stopped_by": by, "tokens": {"output": output}}

    table = lengths([[row("done", 7), row("cap", 9), row("error: gone", 3), row("budget", 0)]], cap=10)
    np.testing.assert_array_equal(table, [[7, 10, np.nan, np.nan]])


def test_shares_variance_and_differences_by_hand():
    plain = np.array([[10.0, 2.0, 4.0], [10.0, 6.0, 4.0]])
    short = np.array([[10.0, 2.0, 4.0], [4.0, 2.0, 4.0]])
    tables = {Cell("m", "plain"): plain, Cell("m", "reminder"): short}
    found = analyse(tables, ASKED, cap=10, at=[4, 10], config={})
    first, second = found["cells"]
    assert first["CSR@10"]["mean"] == pytest.approx(2 / 6)
    assert first["CSR@4"]["mean"] == pytest.approx(5 / 6)
    assert second["CSR@10"]["mean"] == pytest.approx(1 / 6)
    assert first["within"]["mean"] == pytest.approx((0 + 8 + 0) / 3)  # 2 and 6: 4 + 4, by n - 1
    assert first["median"] == 5
    assert first["kinds"]["a"]["CSR@10"]["mean"] == 0.5
    assert first["kinds"]["b"]["CSR@10"]["mean"] == 0
    (less,) = found["differences"]
    assert less["CSR@10"]["mean"] == pytest.approx(-1 / 6)
    assert less["mean"]["mean"] == pytest.approx((-6 - 4) / 6)
    assert less["CSR@10"]["low"] <= -1 / 6 <= less["CSR@10"]["high"]
    assert [k for k, *_ in first["curve"] if k in (4, 10)] == [4, 10]
    assert {k: share for k, share, *_ in first["curve"]}[4] == pytest.approx(5 / 6)


def test_a_prompt_that_failed_anywhere_is_left_out_everywhere():
    holes = np.array([[10.0, np.nan, 4.0]])
    found = analyse({Cell("m", "plain"): holes, Cell("k", "plain"): holes * 0 + 4}, ASKED, cap=10, at=[10], config={})
    assert (found["prompts"], found["left_out"]) == (2, 1)
    assert found["cells"][0]["CSR@10"]["mean"] == 0.5
    assert found["correlations"][0]["rho"] is None  # the second model always writes the same
    with pytest.raises(InvalidInput, match="not one prompt"):
        analyse({Cell("m", "plain"): holes * np.nan}, ASKED, cap=10, at=[10], config={})


def test_spearman_is_that_of_scipy_and_its_interval_holds_it():
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(3)
    for _ in range(20):
        a = rng.integers(0, 6, size=15).astype(float)  # with ties
        b = a + rng.integers(0, 9, size=15)
        assert spearman(a, b) == pytest.approx(stats.spearmanr(a, b).statistic)
    found = overflow.correlation(a, b, crossed_weights(15, 1)[0])
    assert found["low"] < found["rho"] < found["high"] <= 1


class Long(Scripted):
    """Writes as long as the prompt's number of letters; twice as long without the reminder."""

    def __init__(self, name: str, fails: bool = False) -> None:
        super().__init__(lambda prompt, rng: "x" * (len(prompt) * (1 if "concise" in prompt else 2)))
        self.name, self.fails = name, fails

    async def generate(self, request):
        if self.fails:
            raise ModelError("no such model")
        return await super().generate(request)


@pytest.fixture
def models(monkeypatch):
    made = {"m": Long("m"), "k": Long("k"), "broken": Long("broken", fails=True)}
    module = types.ModuleType("budgeteer.models.load")
    module.load_model = lambda name, **options: made[name]
    monkeypatch.setitem(sys.modules, "budgeteer.models.load", module)
    return made


def test_the_command_measures_and_goes_on_without_asking_again(models, tmp_path, capsys):
    words = ["bench", "overflow", "m", "k", "--each", "1", "--repeats", "2", "--cap", "150", "--at", "100"]
    words += ["--reminder", "--out", str(tmp_path)]
    assert cli.main(words) == 0
    assert "reminder, less without" in capsys.readouterr().out
    numbers = json.loads((tmp_path / "overflow.json").read_text())
    asked = overflow.prompts(1)
    by = {(cell["model"], cell["arm"]): cell for cell in numbers["cells"]}
    share = np.mean([2 * len(prompt.text) >= 150 for prompt in asked])
    assert by["m", "plain"]["CSR@150"]["mean"] == pytest.approx(share)
    assert by["m", "plain"]["within"]["mean"] == 0
    assert numbers["correlations"][0]["rho"] == pytest.approx(1)
    assert "<svg" in (tmp_path / "report.html").read_text()
    calls = len(models["m"].requests)
    assert calls == 9 * 2 * 2
    assert cli.main(words) == 0
    assert len(models["m"].requests) == calls


def test_other_settings_in_the_same_folder_are_named_by_their_options(models, tmp_path, capsys):
    words = ["bench", "overflow", "m", "--repeats", "1", "--at", "5", "--out", str(tmp_path)]
    assert cli.main([*words, "--cap", "10", "--each", "1"]) == 0
    assert cli.main([*words, "--cap", "10", "--each", "2"]) == 2
    said = capsys.readouterr().err
    assert "begun with --each = '1', not '2'" in said
    assert "budget" not in said
    assert cli.main([*words, "--cap", "11", "--each", "1"]) == 2
    assert "begun with --cap = '10', not '11'" in capsys.readouterr().err
    assert len(models["m"].requests) == 9


def test_two_models_whose_folders_end_in_the_same_word_are_two(models, tmp_path):
    """Such as hf:runs/a/policy and hf:runs/b/policy."""
    models |= {"hf:a/policy": Long("policy"), "hf:b/policy": Long("policy")}
    words = ["bench", "overflow", "hf:a/policy", "hf:b/policy", "--each", "1", "--cap", "10", "--out", str(tmp_path)]
    assert cli.main([*words, "--repeats", "1", "--at", "5"]) == 0
    assert len(models["hf:a/policy"].requests) == len(models["hf:b/policy"].requests) == 9
    cells = json.loads((tmp_path / "overflow.json").read_text())["cells"]
    assert [cell["model"] for cell in cells] == ["hf:a/policy", "hf:b/policy"]


def test_a_budget_that_may_not_do_is_refused_before_the_first_call(models, tmp_path, capsys):
    words = ["bench", "overflow", "m", "--each", "1", "--repeats", "1", "--cap", "10", "--out", str(tmp_path)]
    longest = max(len(prompt.text) for prompt in overflow.prompts(1)) + 1 + len(overflow.REMINDER) + 10
    assert cli.main([*words, "--budget", str(9 * longest - 1)]) == 2
    assert f"may take {9 * longest:,} tokens" in capsys.readouterr().err
    assert not models["m"].requests
    assert cli.main([*words, "--budget", str(9 * longest)]) == 0


def test_a_model_that_fails_is_no_table_of_zeros(models, tmp_path, capsys):
    words = ["bench", "overflow", "broken", "--each", "1", "--cap", "10", "--out", str(tmp_path)]
    assert cli.main(words) == 1
    assert "not one prompt was answered" in capsys.readouterr().err
