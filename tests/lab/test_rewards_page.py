"""benchmarks/rewards.py: its tables on rows worked by hand, its arms, and the page that holds the committed figures."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
pytest.importorskip("torch")


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import rewards

    return rewards


@pytest.fixture
def report(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import rewards_report

    return rewards_report


@pytest.fixture
def taught(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import rewards_taught

    return rewards_taught


def run(reward, seed, *asks, stop=False):
    return {"reward": reward, "seed": seed, "stop": stop, "asks": list(asks)}


def ask(accuracy, tokens, name="", **more):
    return {"ask": name, "accuracy": accuracy, "tokens": tokens, "to answer": tokens / 2, "levels": {}, **more}


def test_the_page_holds_the_numbers_of_the_file(script):
    content = json.loads(script.TARGET.read_text())
    measured, page = script.MEASURED.read_text(), script.PAGE.read_text()
    assert script.between(measured, script.summary(content), script.BEGIN, script.END) == measured
    assert script.between(page, script.short(content), *script.SHORT) == page


def test_the_page_holds_the_numbers_of_the_thinking_model(script, report):
    content = json.loads((ROOT / "benchmarks" / "results" / "rewards_thinker.json").read_text())
    page = (ROOT / "docs" / "rewards-measured.md").read_text()
    assert script.between(page, report.thinker_summary(content), *report.THINKER_MARKS) == page


def test_the_page_of_trl_holds_the_numbers_of_its_file(script):
    for needed in ("trl", "datasets"):
        pytest.importorskip(needed)
    import trl_thinker

    content = json.loads(trl_thinker.TARGET.read_text())
    page = (ROOT / "docs" / "trl.md").read_text()
    assert script.between(page, trl_thinker.summary(content["runs"]), *trl_thinker.MARKS) == page
    runs = [{"arm": arm, "seed": 1, "accuracy": right, "tokens": 9, "used": 4, "rollouts": 2} for arm, right in (
        ("grpo@100%", 0.5), ("grpo@50%", 0.4), ("duet@50%", 0.45),
    )]  # fmt: skip
    assert trl_thinker.summary(runs).splitlines()[2:] == [
        "| `grpo` | 100 % | 1 | 50.0 |  |  | 9 | 4 | 2 |",
        "| `grpo` | 50 % | 1 | 40.0 | -10.0 |  | 9 | 4 | 2 |",
        "| `duet` | 50 % | 1 | 45.0 | -5.0 | +5.0 | 9 | 4 | 2 |",
    ]


def test_the_drawing_holds_the_numbers_of_the_file(script, report):
    runs = json.loads(script.TARGET.read_text())["parts"]["main"]["runs"]
    drawn = report.picture(runs, "Rewards at equal training tokens")
    assert drawn + "\n" == (ROOT / "docs" / "rewards.svg").read_text()
    assert "<title>kimi: 59.5 % at 26.9 tokens</title>" in drawn
    assert "adactrl" not in drawn  # below the axis


def test_the_main_table_by_hand(report):
    runs = [
        run("none", 1, ask(0.5, 40)), run("none", 2, ask(0.7, 40)), run("start", 1, ask(0.4, 50)),
        run("kimi", 1, ask(0.6, 20)), run("kimi", 2, ask(0.7, 10)), run("kimi", 1, ask(0.0, 1), stop=True),
        run("start", 2, ask(0.4, 50)), run("pear", 1, ask(0.1, 9, "low"), ask(0.9, 10, "high")),
    ]  # fmt: skip
    rows = [line.split("|")[1:-1] for line in report.main_table(runs, False)[2:-1]]
    assert [row[0].strip() for row in rows] == ["`start`", "`none`", "`pear`, asked high", "`kimi` *"]
    kimi = [cell.strip() for cell in rows[3]]
    # 10 points and 0 more than none; the geometric mean of 1/2 and 1/4; 60^2 / 20 = 180 and 70^2 / 10 = 490
    assert kimi[1] == "2"
    assert kimi[3].startswith("+5.0 [")
    assert kimi[5] == kimi[7] == "35 %"
    assert kimi[8].startswith("335.0 [")
    assert kimi[9].startswith("+242.5 [")  # none: 62.5 and 122.5
    # one seed has no interval, and no place on the frontier beside two
    assert [cell.strip() for cell in rows[2]][2:6] == ["90.0", "+40.0", "10.0", "25 %"]


def efforts(seed, *tokens_and_rights):
    names = ("start, low effort", "start, usual effort", "start")
    return [run(name, seed, ask(right, tokens)) for name, (tokens, right) in zip(names, tokens_and_rights, strict=True)]


def test_a_reward_is_held_against_asking_for_less_at_the_same_tokens(report):
    runs = [
        *efforts(1, (50, 0.4), (100, 0.5), (200, 0.6)), *efforts(2, (50, 0.4), (100, 0.6), (200, 0.6)),
        run("kimi", 1, ask(0.6, 150)), run("kimi", 2, ask(0.6, 75)), run("pear", 1, ask(0.7, 300)),
        run("alp", 1, ask(0.1, 25)), run("none", 1, ask(0.5, 200)), run("cosine", 3, ask(0.5, 200)),
    ]  # fmt: skip
    found = report.arms(runs, False)
    above = {name: report.above_asking(name, found) for name in found}
    # half-way 0.55 and 0.5; beyond the longest 0.6; half-way to nothing 0.2; no seed with all efforts
    assert above["kimi"].mean == pytest.approx((0.05 + 0.1) / 2)
    assert above["pear"].mean == pytest.approx(0.1)
    assert above["alp"].mean == pytest.approx(-0.1)
    assert above["cosine"] is above["start"] is above["start, low effort"] is None
    lines = report.main_table(runs, False, answered=False)
    last = {line.split("`")[1]: line.split("|")[-2].strip() for line in lines[2:-1]}
    assert lines[0].endswith("| above asking for less |")
    assert last["kimi"].startswith("+7.5 [")
    assert (last["alp"], last["start"], last["cosine"]) == ("-10.0", "", "")
    # without one of the efforts there is nothing to hold it against
    assert "asking" not in report.main_table([row for row in runs if "low" not in row["reward"]], False)[0]


def test_intervals_for_all_arms_at_once_are_wider_the_more_arms_there_are(report):
    # +10 and +12 points: half of the interval is t / 100, and t of one degree of freedom is 12.7 at 95 %
    spread = [("near", 0.10, 0.12), ("far", 0.25, 0.27), ("low", -0.5, -0.48)]
    runs = [run("none", seed, ask(0.5, 9)) for seed in (1, 2)]
    runs += [run(name, seed, ask(0.5 + by[seed - 1], 9)) for name, *by in spread for seed in (1, 2)]
    runs += [run("once", 1, ask(0.9, 9))]
    one = [row for row in runs if row["reward"] in ("none", "far")]
    assert report.right_at_once(one, False).endswith("above `none` in accuracy: `far`; below: nothing.")
    # of three arms t is 38.2 at 1 - 0.05 / 3, and what one seed says does not count
    said = report.right_at_once(runs, False)
    assert said.startswith("With intervals for all 3 arms of 2 seeds at once (Bonferroni), ")
    assert said.endswith("above `none` in accuracy: nothing; below: `low`.")
    assert report.right_at_once([row for row in runs if row["seed"] == 1], False) == ""


def test_kinds_of_problems_are_as_hard_as_the_start_finds_them(report):
    levels = {"a": [0.7, 9, 8], "b": [0.4, 9, 8], "c": [0.1, 30, 20]}
    runs = [run("start", 1, ask(0.4, 9) | {"levels": levels}), run("start", 2, ask(0.4, 9) | {"levels": levels})]
    assert report.banded(runs) == {"a": 0, "b": 1, "c": 2}
    assert report.by_difficulty(runs, False)[2] == "| `start` | 70 | 9 | 40 | 9 | 10 | 30 |"


def test_two_starts_are_compared_by_ranks(report):
    one = [run(name, 1, ask(0.1 * n, 10 * n)) for n, name in enumerate(("a", "b", "c"), 1)]
    other = [run(name, 1, ask(0.1 * right, 10 * n)) for n, name, right in ((5, "a", 2), (6, "b", 1), (9, "c", 3))]
    # tokens are in the same order; of accuracy, and of E3 (10, 20, 30 and 80, 17, 100), two neighbours change places
    said = report.agreement([*one, run("d", 1, ask(1, 1))], other)
    assert said.startswith("The 3 arms")
    assert [*re.findall(r"-?\d\.\d\d", said)] == ["1.00", "0.50", "0.50"]


def test_the_thinking_models_table_is_compared_with_the_small_reasoners(report):
    runs = [
        run(name, seed, ask(0.1 * n, 10 * n) | {"levels": {"a": [0.5, 9, 8]}})
        for n, name in enumerate(("none", "kimi", "alp"), 1)
        for seed in (1, 2)
    ]
    turned = [run(name, 1, ask(0.1 * n, 40 - 10 * n)) for n, name in enumerate(("none", "kimi", "alp"), 1)]
    config = {"tokens": 9, "steps": 1, "heldout": 2, "lr": 1e-4}
    content = {
        "config": config,
        "runs": [row | {"used": 5} for row in runs],
        "small reasoner": report.alike(turned, runs),
    }
    said = report.thinker_summary(content)
    assert "of the 3 arms that are in both: -1.00 by tokens, 1.00 by accuracy, 1.00 by E3." in said


def test_asked_against_measured_by_hand(report):
    tokens = [
        run("l1", 1, ask(0.5, 18, "16", distance={"16": 4, "32": 20}), ask(0.5, 30, "32", distance={"16": 16, "32": 6}))
    ]
    wanted = {"l1": [("16", 16), ("32", 32)], "e1": [("50 %", 0.5), ("100 %", 1.0)]}
    assert report.effort_table(tokens, wanted)[2] == "| `l1` | 1 | 16, 32 | 18.0, 30.0 | 5.00 | 18.00 | 1 of 1 |"
    shares = [
        run("e1", seed, ask(0.5, 30, "50 %", thinking=half), ask(0.5, 40, "100 %", thinking=20))
        for seed, half in ((1, 12), (2, 24))
    ]
    # 0.6 and 1.2 of the whole; own errors 0.1, 0.7, 0, 0; with the other tag 0.4, 0.2, 0.5, 0.5
    line = report.effort_table(shares, wanted)[2]
    assert line == "| `e1` | 2 | 50 %, 100 % | 0.90, 1.00 | 0.20 | 0.40 | 1 of 2 |"


def test_every_registered_reward_is_an_arm_that_makes_a_recipe(script):
    from budgeteer.core import registry

    names = set(script.PARTS["main"].names)
    measured = {run["reward"] for run in json.loads(script.TARGET.read_text())["parts"]["main"]["runs"]}
    assert set(registry.of("reward")) - names == {"router-r1"}  # which needs models to call
    assert set(registry.of("reward")) - measured == {"router-r1"}
    plain = {
        "start",
        "none",
        "elastic, whole recipe",
        "budget-forcing, whole recipe",
        "dr-grpo, whole recipe",
        "dapo, whole recipe",
    }
    for name in {name for part in script.PARTS.values() for name in part.names}:
        recipe = script.recipe_of(name, stop=True)
        assert (recipe.reward is None) == (name in plain)
        assert (recipe.variant is not None) == (script.plain_name(name) in {*script.ASKED, "rmt"})
        assert recipe.steer is not None
    assert script.recipe_of("adactrl", stop=False, knows=True).variant is None
    assert script.recipe_of("l1, tags shuffled", stop=False, knows=True).variant is not None
    assert script.recipe_of("kimi", stop=False).steer is None


def test_shuffled_tags_are_those_of_other_prompts_and_rows_of_a_prompt_keep_one(script):
    from budgeteer.core.plan import Items, Plan
    from budgeteer.rl.history import History
    from budgeteer.rl.recipe import View
    from budgeteer.rl.variant import drawn_budget

    items = Items(tuple("abcdef"), np.ones(6))
    units = np.array([2, 0, 3, 1, 2, 4])
    view = View(items, Plan(items.keys, units, 12.0), History.empty(), 100)
    plain = drawn_budget().vary((), view, np.random.default_rng(3))
    mixed = script.shuffled(drawn_budget()).vary((), view, np.random.default_rng(3))
    assert mixed.prefix == plain.prefix
    owner = np.repeat(np.arange(6), units)
    new, old = ([np.unique(v.columns["target"][owner == i]) for i in (0, 2, 3, 4, 5)] for v in (mixed, plain))
    assert all(len(values) == 1 for values in new)
    assert sorted(np.concatenate(new)) == sorted(np.concatenate(old))
    assert (np.concatenate(new) != np.concatenate(old)).any()


def test_a_table_without_the_columns_to_the_answer(report):
    runs = [run("none", 1, ask(0.5, 40)), run("kimi", 1, ask(0.6, 20))]
    head, _, none, kimi, _ = report.main_table(runs, False, answered=False)
    assert head == "| reward | seeds | accuracy | minus `none` | tokens | share | E3 | minus `none` |"
    assert [cell.strip() for cell in none.split("|")[2:-1]] == ["1", "50.0", "", "40.0", "", "62.5", ""]
    assert [cell.strip() for cell in kimi.split("|")[2:-1]] == ["1", "60.0", "+10.0", "20.0", "50 %", "180.0", "+117.5"]


def test_examples_with_tags_are_the_traces_of_these_lengths(taught):
    short, middle, long = (taught.Trace(list(range(n)), n - 2) for n in (4, 7, 16))  # 2, 5, 14 think, 7 on average
    easy = taught.Asked("2+2=", 0.75, [middle, long, short])
    hard = taught.Asked("3+3=", 0.625, [middle, long, short])
    made = taught.BUILDERS["l1"](easy)
    assert [(e.before, len(e.tokens)) for e in made] == [("7: ", 7), ("16: ", 16), ("4: ", 4)]
    # shares of 7: 1.75, 3.5 (2 and 5 are as near; the first counts), 5.25, 7
    made = taught.BUILDERS["e1"](easy)
    assert [(e.before, len(e.tokens)) for e in made] == [("25%: ", 4), ("50%: ", 7), ("75%: ", 7), ("100%: ", 7)]
    made = taught.BUILDERS["thinkdial"](hard)
    assert [(e.before, len(e.tokens)) for e in made] == [("low: ", 4), ("medium: ", 7), ("high: ", 7)]
    assert [(e.begun, len(e.tokens)) for e in taught.BUILDERS["adactrl"](easy)] == [("[Easy]", 4)]
    assert [(e.begun, len(e.tokens)) for e in taught.BUILDERS["adactrl"](hard)] == [("[Hard]", 16)]
    kinds = [(e.before, e.begun, len(e.tokens)) for e in taught.BUILDERS["adaptive-deep"](hard)]
    assert kinds == [("short: ", "[Easy]", 4), ("", "[Easy]", 4), ("long: ", "[Hard]", 16), ("", "[Hard]", 16)]
    assert len(taught.examples([easy], "e1")) == taught.EXAMPLES


def test_the_control_has_the_same_traces_and_the_tags_of_others(taught):
    short, long = (taught.Trace(list(range(n)), n - 2) for n in (4, 16))
    asked = [taught.Asked("2+2=", 0.75, [long, short]), taught.Asked("3+3=", 0.5, [long, short])]
    plain, mixed = (taught.examples(asked, "adactrl", mix) for mix in (False, True))
    assert [(e.prompt, e.tokens) for e in mixed] == [(e.prompt, e.tokens) for e in plain]
    assert sorted(e.begun for e in mixed) == sorted(e.begun for e in plain)
    right = np.array([e.begun == ("[Easy]" if len(e.tokens) == 4 else "[Hard]") for e in mixed])
    assert all(e.begun == ("[Easy]" if len(e.tokens) == 4 else "[Hard]") for e in plain)
    assert 0.4 < right.mean() < 0.6


def test_what_is_said_and_asked_is_read_and_the_rest_is_learnt(taught):
    from budgeteer.models.policy import load_policy

    policy = load_policy()
    ids = policy.tokenizer.encode("7</think>7").ids
    part = [taught.Example("low: ", "2+2=", "[Easy]", ids), taught.Example("", "2+2=", "", ids[:1])]
    tokens, weight = taught.batch(policy, part)
    for row, example in enumerate(part):
        asked = policy.encode([example.before + example.prompt])[0]
        begun = policy.encode([example.begun])[0][1:] if example.begun else []
        whole = [*asked, *begun, *example.tokens]
        assert tokens[row, : len(whole)].tolist() == whole
        learnt = [0.0] * (len(asked) - 1) + [1.0] * (len(whole) - len(asked))
        assert weight[row].tolist() == learnt + [0.0] * (weight.shape[1] - len(learnt))


def test_traces_are_drawn_once_for_all_dials(taught, monkeypatch, tmp_path):
    asked = [taught.Asked("2+2=", 0.75, [taught.Trace([1, 2, 3], 1)])]
    calls = []
    monkeypatch.setattr(taught, "own_traces", lambda policy, cap, questions: calls.append(questions) or asked)
    for _ in range(2):
        assert taught.kept_traces(None, 9, 4, tmp_path / "traces.json") == asked
    assert calls == [4]


# -- a start from which length follows what is asked ------------------------------------------------------------------


@pytest.fixture
def dials(monkeypatch):
    for needed in ("trl", "transformers"):
        pytest.importorskip(needed)
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import dials_thinker

    return dials_thinker


def test_examples_are_the_shortest_the_middle_and_the_longest_trace_of_a_problem(dials):
    def traces(*lengths):
        return [dials.Trace([n], n) for n in lengths]

    # of 20 and 180 the geometric mean is 60
    assert [t.thinking for t in dials.chosen(traces(180, 50, 20, 90))] == [20, 50, 180]
    assert [t.thinking for t in dials.chosen(traces(20, 40))] == [20, 40]
    assert dials.chosen(traces(20, 39)) == dials.chosen(traces(20)) == dials.chosen([]) == []
    made = dials.examples([traces(20, 180), traces(9), traces(50, 100, 200)])
    assert [(e.problem, e.said) for e in made] == [(0, 16), (0, 176), (2, 48), (2, 96), (2, 192)]
    mixed = dials.examples([traces(20, 180), traces(9), traces(50, 100, 200)], shuffle=1)
    assert sorted(e.said for e in mixed) == sorted(e.said for e in made)
    assert [e.said for e in mixed] != [e.said for e in made]
    assert [e.tokens for e in mixed] == [e.tokens for e in made]


def test_the_correlation_is_within_problems(dials):
    asked = np.array([[1.0, 3.0], [1.0, 3.0]])
    assert dials.correlation(asked, np.array([[10.0, 20.0], [110.0, 120.0]])) == pytest.approx(1)
    # +5 and -5 beside +15 and -15 of equal asks: (-1 * -5 + 1 * 5 - 15 - 15) / sqrt(4 * (50 + 450))
    assert dials.correlation(asked, np.array([[0.0, 10.0], [30.0, 0.0]])) == pytest.approx(-20 / np.sqrt(2000))
    assert dials.correlation(asked, np.full((2, 2), 7.0)) == 0


def test_the_page_holds_the_numbers_of_the_dials(script, report):
    content = json.loads((ROOT / "benchmarks" / "results" / "dials_thinker.json").read_text())
    page = (ROOT / "docs" / "rewards-measured.md").read_text()
    assert script.between(page, report.dials_summary(content), *report.DIALS_MARKS) == page


# -- what TRAAC's compression costs ------------------------------------------------------------------------------------


def test_the_page_holds_the_numbers_of_traac(script, report):
    content = json.loads((ROOT / "benchmarks" / "results" / "traac.json").read_text())
    page = (ROOT / "docs" / "rewards-measured.md").read_text()
    assert script.between(page, report.traac_summary(content), *report.TRAAC_MARKS) == page


def test_the_table_of_traac_by_hand(report):
    def row(level, good, out, needed):
        return {"level": level, "right": good, "advantage": 0.5, "trace advantage": -0.5, "steps": 10, "out": out,
                "needed": needed}  # fmt: skip

    levels = {"a": [0.9, 1, 1], "b": [0.5, 1, 1], "c": [0.1, 1, 1], "d": [0.3, 1, 1]}
    made = [row(0, 1, 2, 1), row(0, 0, 2, 0)]
    runs = [
        {"arm": "reward alone", "seed": 1, "accuracy": 0.5, "tokens": 30.0, "levels": levels, "compressed": []},
        {"arm": "compressed", "seed": 1, "accuracy": 0.4, "tokens": 20.0, "levels": levels, "compressed": made},
    ]
    lines = report.traac_summary({"bands": {"a": 0, "b": 1, "c": 2, "d": 2}, "runs": runs}).splitlines()
    assert lines[2:4] == [
        "| reward alone | 1 | 50.0 |  | 90 | 50 | 20 | 30.0 | 0 |",
        "| compressed | 1 | 40.0 | -10.0 | 90 | 50 | 20 | 20.0 | 2 |",
    ]
    assert lines[-1] == "| easy | 2 | 50 % | +0.50 | -0.50 | 20 % | 25 % |"


def test_arms_that_are_decoded_greedily_have_a_table_of_their_own(report):
    settings = {"tokens": 1_000, "steps": 2, "heldout": 4, "lr": 0.1}
    runs = [
        run("none", 1, ask(0.5, 20)), run("kimi", 1, ask(0.4, 10)),
        run("none, greedy", 1, ask(0.7, 30)), run("kimi, greedy", 1, ask(0.75, 15)),
    ]  # fmt: skip
    runs = [{**row, "used": 9} for row in runs]
    lines = report.thinker_summary({"config": settings, "runs": runs}).splitlines()
    rows = [line for line in lines if line.startswith(("| `none`", "| `kimi`")) and line.count("|") > 8]
    assert [row.split("|")[3:6] for row in rows] == [
        [" 50.0 ", "  ", " 20.0 "], [" 40.0 ", " -10.0 ", " 10.0 "],
        [" 70.0 ", "  ", " 30.0 "], [" 75.0 ", " +5.0 ", " 15.0 "],
    ]  # fmt: skip
    assert lines.index("**Decoded greedily**, the same held-out problems.") > lines.index(rows[1])
