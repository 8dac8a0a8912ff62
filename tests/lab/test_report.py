"""The report: well-formed, complete, escaped, honest about one seed; and a real browser opens it without errors."""

from __future__ import annotations

import copy
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from budgeteer.core.errors import InvalidInput
from budgeteer.lab import report
from helpers.page import CHROMIUM, Page
from helpers.results_fixture import ARMS, make


@pytest.fixture(scope="module")
def page() -> Page:
    return Page(report.render(make(3)))


def test_every_arm_and_section_is_there(page: Page) -> None:
    for name in ARMS:
        assert page.text.count(name) > 5
    assert page.headings == [
        "Final accuracy and what it cost",
        "Paired differences in accuracy",
        "Accuracy on the way",
        "Where the tokens went",
        "Tokens by difficulty level",
        "Where the time went",
        "Rollouts a prompt got, over time",
        "Sample traces",
        "How it was measured",
    ]


def test_it_stands_alone(page: Page) -> None:
    assert not {"script", "link", "img", "iframe"} & set(page.tags)
    assert not [value for name, value in page.attributes if name in ("src", "href", "srcset") or name.startswith("on")]
    html = report.render(make(1))
    assert "http" not in html
    assert set(re.findall(r"url\((.*?)\)", html)) == {"#hatch"}


def test_every_drawing_says_what_it_shows() -> None:
    html = report.render(make(2))
    for tag in re.findall(r"<svg [^>]*>", html):
        assert "aria-label=" in tag or 'aria-hidden="true"' in tag


def test_numbers_of_the_drawings_are_finite() -> None:
    for seeds in (1, 3):
        html = report.render(make(seeds))
        assert not re.search(r'="[^"]*\b(nan|inf)\b', html)


def test_what_came_from_outside_is_escaped() -> None:
    data = make(2)
    bad = "<script>alert('x')</script>\"><img src=x onerror=y>\x00\ud800"
    for run in data["runs"]:
        run["recipe"] += bad
        for trace in run["diagnostics"]["traces"]:
            trace["prompt"] = trace["completion"] = bad
        run["diagnostics"]["tokens_by_level"] = {bad: {"used": 10, "wasted": 1, "rollouts": 2}}
    data["comparisons"] = [
        dict(c, a=c["a"].replace("@", bad + "@"), b=c["b"].replace("@", bad + "@")) for c in data["comparisons"]
    ]
    data["config"] = {bad: [bad]}
    data["versions"] = {bad: bad}
    html = report.render(data)
    page = Page(html)
    assert not {"script", "img"} & set(page.tags)
    assert "<script>alert('x')</script>" in page.text  # shown as text
    html.encode("utf-8")
    assert "\x00" not in html


def test_headline_says_what_the_intervals_say(page: Page) -> None:
    assert "duet@50% is not told apart from grpo@100%" in page.text
    assert "grpo@50% and uniform-stop@50% are less accurate than it" in page.text
    data = make(3)
    data["comparisons"] = [
        {
            "a": "duet@50%",
            "b": "grpo@50%",
            "metric": "accuracy",
            "mean": 0.1,
            "low": 0.05,
            "high": 0.15,
            "level": 0.95,
            "n": 3,
        }
    ]
    assert "duet@50% is more accurate than grpo@50%" in Page(report.render(data)).text


def test_one_seed_shows_no_interval() -> None:
    page = Page(report.render(make(1)))
    assert "one seed, which shows nothing" in page.text
    assert "(1 seed)" in page.text
    assert "more accurate" not in page.text
    assert "less accurate" not in page.text
    assert "±" not in report.table(make(1))


def test_missing_optional_parts_leave_their_sections_out() -> None:
    data = make(2, diagnostics=False)
    bare = {"schema": 1, "runs": data["runs"]}
    for run in bare["runs"]:
        run["curve"] = []
        run["accuracy"] = None
    page = Page(report.render(bare))
    assert page.headings == ["Final accuracy and what it cost", "Where the tokens went", "How it was measured"]
    assert "no comparison" in page.text
    assert "unknown" in report.table(bare)


@pytest.mark.parametrize("part", ["tokens_by_level", "rollouts_per_prompt", "traces", "sampling_seconds", "steps"])
def test_each_diagnostic_may_be_missing_alone(part: str) -> None:
    data = make(2)
    for run in data["runs"][1:]:
        del run["diagnostics"][part]
    Page(report.render(data))


def test_empty_and_degenerate_results() -> None:
    assert "no comparison" in Page(report.render({"schema": 1, "runs": []})).text
    data = make(1)
    for run in data["runs"]:
        run["tokens"] = dict.fromkeys(run["tokens"], 0)
        run["seconds"] = 0.0
        run["curve"] = [{"tokens": 0, "seconds": 0.0, "accuracy": 0.5}]
        run["diagnostics"]["rollouts_per_prompt"] = [{"step": 7, "counts": {}}, {"step": 9, "counts": {"4": 1}}]
    Page(report.render(data))
    report.table(data)


def test_aborted_part_is_marked() -> None:
    html = report.render(make(1))
    (completion, *_) = re.findall(r"<del>(.*?)</del> <span class=\"stop\">✂ aborted here", html, re.S)
    assert completion.startswith("&lt;think&gt;3*9=27")
    assert "✂ cut here" in html


def test_traces_are_few_and_of_every_status() -> None:
    data = make(3)
    run = data["runs"][-1]
    trace = run["diagnostics"]["traces"][0]
    run["diagnostics"]["traces"] += [dict(trace, completion="x" * 5000)] * 50
    page = Page(report.render(data))
    assert page.text.count("✂ aborted here") >= 2
    assert f"{report.TRACES} of " in page.text
    assert len(report.render(data)) < 400_000


def test_curves_are_means_and_ranges_on_the_common_part() -> None:
    data = make(2)
    data["runs"] = data["runs"][:2]
    data["comparisons"] = []
    low, high = ([(0, 0.2), (100, 0.4)], [(0, 0.4), (200, 0.8)])
    for run, points in zip(data["runs"], (low, high), strict=True):
        run["curve"] = [{"tokens": t, "seconds": t / 10, "accuracy": a} for t, a in points]
    (line,) = report._lines(report.arms(data), "tokens")
    assert (line.x[0], line.x[-1]) == (0, 100)
    assert line.mean[-1] == pytest.approx((0.4 + 0.6) / 2)
    assert (line.low[-1], line.high[-1]) == pytest.approx((0.4, 0.6))


def test_many_counts_are_binned_by_doubling() -> None:
    assert report._rollout_bins({0, 4, 8}) == [(0, 0), (4, 4), (8, 8)]
    bins = report._rollout_bins(set(range(0, 34)))
    assert bins[:4] == [(0, 0), (1, 1), (2, 2), (3, 4)]
    assert bins[-1] == (33, 64)


def test_table() -> None:
    lines = report.table(make(3)).splitlines()
    assert lines[0].split()[:3] == ["arm", "seeds", "accuracy"]
    assert len({len(line) for line in lines}) == 1
    assert lines[2].endswith("reference")
    assert re.search(r"^duet@50% .* [+-]\d+\.\d \[[+-]\d+\.\d, [+-]\d+\.\d\]$", lines[-1])


def test_invalid_results_are_refused_by_name(tmp_path: Path) -> None:
    data = make(1)
    del data["runs"][0]["tokens"]["used"]
    with pytest.raises(InvalidInput, match=r"runs\[0\]\.tokens has no 'used'"):
        report.write_report(data, tmp_path / "report.html")
    assert not list(tmp_path.iterdir())


def test_rendering_changes_nothing() -> None:
    data: dict[str, Any] = make(1)
    before = copy.deepcopy(data)
    report.render(data)
    report.table(data)
    assert repr(data) == repr(before)


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium in PATH")
@pytest.mark.parametrize("width", [400, 1200])
def test_a_browser_lays_it_out_without_overflow(tmp_path: Path, width: int) -> None:
    """Opened from a file in a frame of the given width: nothing sticks out, no two texts of one drawing overlap."""
    report.write_report(make(3), tmp_path / "report.html")
    probe = """
      <iframe src="report.html" style="width:%dpx;height:900px;border:0"></iframe><div id="out">not run</div>
      <script>onload = () => {
        const page = frames[0].document, root = page.documentElement, found = [];
        if (root.scrollWidth > root.clientWidth) found.push("page is " + root.scrollWidth + " wide");
        for (const d of page.querySelectorAll("details")) d.open = true;
        for (const svg of page.querySelectorAll("svg.chart")) {
          const texts = [...svg.querySelectorAll("text")].map(t => [t.textContent, t.getBoundingClientRect()]);
          const box = svg.getBoundingClientRect();
          texts.forEach(([a, r], i) => {
            if (r.left < box.left - 1 || r.right > box.right + 1 || r.bottom > box.bottom + 2)
              found.push("outside: " + a);
            for (const [b, q] of texts.slice(i + 1))
              if (r.left < q.right && q.left < r.right && r.top + 3 < q.bottom && q.top + 3 < r.bottom)
                found.push("overlap: " + a + " / " + b);
          });
        }
        document.getElementById("out").textContent = "found [" + found.join("; ") + "] in " +
          page.querySelectorAll("svg.chart").length + " charts";
      }</script>"""
    (tmp_path / "probe.html").write_text(probe % width)
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files", "--window-size=1300,1000"]
    command = [
        CHROMIUM or "",
        *flags,
        f"--user-data-dir={tmp_path}/profile",
        "--virtual-time-budget=5000",
        "--dump-dom",
    ]
    out = subprocess.run([*command, (tmp_path / "probe.html").as_uri()], capture_output=True, text=True, timeout=120)
    assert '<div id="out">found [] in 6 charts</div>' in out.stdout, out.stdout[-600:] + out.stderr[-400:]
