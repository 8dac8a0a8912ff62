"""The frontier: its numbers against brute force, its report as a page, and a browser that opens it."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from budgeteer.check.scripted import Scripted
from budgeteer.core.budget import Budget
from budgeteer.core.errors import InvalidInput
from budgeteer.lab import frontier, frontier_report, questions
from budgeteer.lab.stats import crossed, crossed_weights, wilson
from budgeteer.solve.runner import Pause
from budgeteer.solve.styles import TaskInfo, style_of
from helpers.page import CHROMIUM, Page
from helpers.scripted import write
from helpers.strategies import inside, once, vote

BUDGETS = frontier.budgets_of("60,120,240")


def measure(folder, model, strategies=None, **more):
    asked = questions.load("chains:max_steps=2", limit=20)
    strategies = strategies or {"once": once(), "vote:n=5": vote(n=5)}
    options = {"about": {}, "concurrency": 4, "timeout": 60, "prices": None, "durable": False, "pause": Pause()}
    options |= {"on_row": lambda cell, row, progress: None} | more
    style = style_of("reasoner", asked.info)
    return asked, asyncio.run(frontier.measure(strategies, BUDGETS, [0, 1, 2], asked, model, style, folder, **options))


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    folder = tmp_path_factory.mktemp("frontier")
    asked, cells = measure(folder, Scripted(write))
    numbers = frontier.analyse(cells, "all", {"task": "chains"})
    return folder, asked, cells, numbers, frontier.traces(cells, folder, asked.references)


def test_numbers_by_brute_force(measured):
    _, _, cells, numbers, _ = measured
    assert len(numbers["points"]) == 6
    for point in numbers["points"]:
        rows = [row for cell, rows in cells.items() if (cell.strategy, cell.budget) == (point["strategy"], point["budget"]) for row in rows]  # fmt: skip  # noqa: E501
        assert len(rows) == 60
        accuracy, used = sum(row["correct"] for row in rows) / 60, sum(row["units"]["all"] for row in rows) / 60
        assert point["accuracy"]["mean"] == pytest.approx(accuracy)
        assert point["used"]["mean"] == pytest.approx(used)
        assert point["e3"] == pytest.approx((100 * accuracy) ** 2 / used)
        assert point["accuracy_per_token"] == pytest.approx(accuracy / used)
        assert point["used"]["mean"] <= point["limit"]
        assert point["overshoot"] == 0
        assert point["accuracy"]["low"] < accuracy < point["accuracy"]["high"]
    assert any(point["cut"]["mean"] for point in numbers["points"])
    by = {(p["strategy"], p["budget"]): p for p in numbers["points"]}
    for d in numbers["differences"]:
        assert d["b"] == "once"
        want = by[d["a"], d["budget"]]["accuracy"]["mean"] - by["once", d["budget"]]["accuracy"]["mean"]
        assert d["mean"] == pytest.approx(want)
    json.loads(frontier.to_text(numbers))


def test_answers_that_were_cut_are_told_apart():
    """Six rows by hand: of two that a budget or a cap cut one is right, of the four others three."""
    why = [("budget", True), ("cap", False), ("done", True), ("decided", True), ("error: no", False), ("done", True)]
    rows = [
        {
            "id": str(i), "correct": right, "stopped_by": stopped, "units": {"all": 10}, "budget": {"all": 10},
            "answer": "7", "tokens": {"input": 1, "output": 1, "reasoning": 0}, "calls": 1, "wasted": {"all": 0},
            "seconds": 0.0,
        }
        for i, (stopped, right) in enumerate(why)
    ]  # fmt: skip
    point = frontier.analyse({frontier.Cell("once", "all:10", 0): rows}, "all", {})["points"][0]
    assert point["cut"]["mean"] == pytest.approx(2 / 6)
    assert (point["accuracy_cut"]["mean"], point["accuracy_whole"]["mean"]) == (0.5, 0.75)
    whole = frontier.analyse({frontier.Cell("once", "all:10", 0): rows[2:]}, "all", {})["points"][0]
    assert (whole["cut"]["mean"], whole["accuracy_cut"], whole["accuracy_whole"]["mean"]) == (0, None, 0.75)


def test_what_is_measured_is_not_asked_again(measured):
    folder, _, cells, _, _ = measured
    model = Scripted(write)
    _, again = measure(folder, model)
    assert model.requests == []
    assert again == cells


def test_a_pause_keeps_what_is_there(tmp_path):
    pause = Pause()

    def on_row(cell, row, progress):
        if cell.strategy.startswith("vote") and progress.done == 3:
            pause.soft.set()

    model = Scripted(write)
    _, found = measure(tmp_path, model, pause=pause, on_row=on_row)
    assert found is None
    second = Scripted(write)
    _, cells = measure(tmp_path, second)
    assert len(cells) == 18
    third = Scripted(write)
    _, fresh = measure(tmp_path / "other", third)
    assert len(model.requests) + len(second.requests) == len(third.requests)
    plain = [{k: v for k, v in row.items() if k != "seconds"} for rows in cells.values() for row in rows]
    assert plain == [{k: v for k, v in row.items() if k != "seconds"} for rows in fresh.values() for row in rows]


def test_a_strategy_that_cannot_work_is_refused_before_anything_is_asked(tmp_path):
    model = Scripted(write)
    with pytest.raises(InvalidInput, match="inside needs internals"):
        measure(tmp_path, model, {"once": once(), "inside": inside()})
    assert model.requests == []


def test_budgets_of_a_frontier():
    assert frontier.budgets_of("1k,256") == [Budget("all", 256), Budget("all", 1000)]
    for text, match in (("", "not amounts"), ("50%", "not amounts"), ("256,$1", "several kinds")):
        with pytest.raises(InvalidInput, match=match):
            frontier.budgets_of(text)


def test_the_bootstrap_covers_and_pairs():
    """400 made-up experiments of 60 questions and 4 seeds: at least 93 % of the intervals hold the truth (they err on
    the wide side), and a paired difference is far narrower than its parts."""
    rng, held, weights = np.random.default_rng(0), 0, crossed_weights(60, 4, draws=400)
    for _ in range(400):
        difficulty = rng.normal(0, 1, 60)
        right = (rng.logistic(size=(4, 60)) < difficulty).astype(float)
        found = crossed(right, weights)
        held += found.low <= 0.5 <= found.high
    assert held / 400 >= 0.93
    apart = crossed(right - np.roll(right, 1, axis=0), weights)
    assert apart.mean == pytest.approx(0)
    same = crossed(right - right, weights)
    assert (same.low, same.high) == (0, 0)
    with pytest.raises(InvalidInput, match="values of shape"):
        crossed(right, crossed_weights(59, 4))


def test_wilson_by_its_equation():
    for right, n in ((0, 10), (3, 10), (10, 10), (499, 1000)):
        found = wilson(right, n)
        for p in (found.low, found.high):
            if 0 < p < 1:
                assert abs(p - right / n) == pytest.approx(1.959964 * (p * (1 - p) / n) ** 0.5, rel=1e-5)
    assert wilson(0, 10).low == 0
    with pytest.raises(InvalidInput):
        wilson(5, 4)


# the report


def test_the_page_holds_everything_and_stands_alone(measured):
    _, _, cells, numbers, texts = measured
    html = frontier_report.render(numbers, texts)
    page = Page(html)
    for heading in (
        "Accuracy by what was used",
        "Answers that were cut, and those that were not",
        "Every point",
        "At equal budgets, minus once",
        "Traces to read",
    ):
        assert heading in page.headings
    assert page.text.count("vote:n=5") > 10
    assert not {"script", "link", "img", "iframe"} & set(page.tags)
    assert not [value for name, value in page.attributes if name in ("src", "href") or name.startswith("on")]
    assert not re.search(r'="[^"]*\b(nan|inf)\b', html)
    assert len(re.findall(r'class="trace tr ', html)) == len(texts) == 8 * 6
    assert len(cells) == 18


def test_what_came_from_outside_is_escaped(measured):
    *_, numbers, texts = measured
    bad = "<script>alert('x')</script>\x00"
    texts = [{**trace, "question": bad, "answer": bad, "reference": bad, "traces": [bad]} for trace in texts]
    page = Page(frontier_report.render({**numbers, "config": {bad: bad}}, texts))
    assert "script" not in page.tags
    assert "<script>alert('x')</script>" in page.text


def test_the_terminal_table(measured):
    lines = frontier_report.table(measured[3]).splitlines()
    assert len(lines) == 2 + 6
    assert lines[2].startswith("once")
    assert lines[2].endswith("first")
    assert re.search(r"\[[+-]\d+\.\d, [+-]\d+\.\d\]$", lines[-1])


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium in PATH")
@pytest.mark.parametrize("width", [400, 1200])
def test_a_browser_shows_it_and_its_filters_work(measured, tmp_path, width):
    """Nothing sticks out, no two texts of the picture overlap, and every filter leaves just what it names."""
    _, _, _, numbers, texts = measured
    (tmp_path / "report.html").write_text(frontier_report.render(numbers, texts))
    wrong = sum(not trace["correct"] for trace in texts)
    both = sum(not t["correct"] and t["strategy"] == "vote:n=5" and t["budget"] == "120" for t in texts)
    probe = """
      <iframe src="report.html" style="width:%dpx;height:900px;border:0"></iframe><div id="out">not run</div>
      <script>onload = () => {
        const page = frames[0].document, root = page.documentElement, found = [];
        if (root.scrollWidth > root.clientWidth) found.push("page is " + root.scrollWidth + " wide");
        for (const d of page.querySelectorAll("details")) d.open = true;
        for (const svg of page.querySelectorAll("svg.chart")) {
          const texts = [...svg.querySelectorAll("text")].map(t => [t.textContent, t.getBoundingClientRect()]);
          texts.forEach(([a, r], i) => {
            for (const [b, q] of texts.slice(i + 1))
              if (r.left < q.right && q.left < r.right && r.top + 3 < q.bottom && q.top + 3 < r.bottom)
                found.push("overlap: " + a + " / " + b);
          });
        }
        const shown = () => [...page.querySelectorAll(".tr")].filter(t => t.offsetParent !== null).length;
        const counts = [shown()];
        page.getElementById("f-wrong").click(); counts.push(shown());
        page.getElementById("f-st1").click(); page.getElementById("f-bu1").click(); counts.push(shown());
        for (const g of ["r", "st", "bu"]) page.getElementById(g + "-all").click();
        counts.push(shown());
        document.getElementById("out").textContent = "found [" + found.join("; ") + "] shown " + counts;
      }</script>"""
    (tmp_path / "probe.html").write_text(probe % width)
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files", "--window-size=1300,1000"]
    command = [CHROMIUM, *flags, f"--user-data-dir={tmp_path}/profile", "--virtual-time-budget=5000", "--dump-dom"]
    out = subprocess.run([*command, (tmp_path / "probe.html").as_uri()], capture_output=True, text=True, timeout=120)
    want = f'<div id="out">found [] shown {len(texts)},{wrong},{both},{len(texts)}</div>'
    assert want in out.stdout, out.stdout[-600:] + out.stderr[-400:]
    assert shutil.which(CHROMIUM)


def test_every_style_with_which_a_trained_mode_is_asked_is_one() -> None:
    """Those of docs/rewards.md, numbers as words of effort among them."""
    page = (Path(__file__).resolve().parents[2] / "docs" / "rewards.md").read_text()
    section = page.partition("### Asking for a mode")[2].partition("\n## ")[0]
    named = [text.replace("\\|", "|") for text in re.findall(r"--style '([^']+)'", section)]
    assert len(named) == 7
    for text in named:
        modes = frontier.modes_of(text)
        assert len(modes) > 1
        prompts = [style_of(mode, TaskInfo("sums")).prompt("2+2?") for mode in modes.values()]
        assert len(set(map(str, prompts))) == len(modes), text
    asked = style_of(frontier.modes_of('think:effort="25|50",said="{percent}%: "')["effort=25"], TaskInfo("sums"))
    assert asked.prompt("2+2?").messages[-1].content.startswith("25%: 2+2?")
