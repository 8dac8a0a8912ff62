"""The page of an evaluation: which methods are drawn, where their points are, and which heads have a map."""

from __future__ import annotations

import re
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from budgeteer.lab.cache_answers import Answered
from budgeteer.lab.cache_eval import table
from budgeteer.lab.cache_report import best, render

EVEN, UNEVEN = [[0.25, 0.25], [0.25, 0.25]], [[0.5, 0.0], [0.36, 0.14]]


def rows(methods: dict[str, float]) -> list[dict[str, Any]]:
    """Methods and what they lose; those whose name ends in ``:split=layers`` hold unequal heads."""

    def answers(method: str, budget: str, lost: float, size: int, heads: list[list[float]]) -> list[Answered]:
        right = [lost < 1, lost < 0.1]
        return [
            Answered(
                "single",
                method,
                budget,
                True,
                r,
                -1 - lost - i / 10,
                size / 400,
                size,
                3 * size,
                heads=heads,
                prompt=1.0 + i,
                token=size / 400,
                places=[[0.5, 0.0], [0.25, 0.25]] if method != "full" else [[1.0, 1.0]] * 2,
            )
            for i, r in enumerate(right)
        ]

    found = answers("full", "100%", 0.0, 400, [[1.0, 1.0], [1.0, 1.0]])
    for method, lost in methods.items():
        heads = UNEVEN if method.endswith(":split=layers") else EVEN
        found += answers(method, "25%", lost, 100, heads) + answers(method, "50%", lost / 2, 200, heads)
    return table(found)


def test_a_point_for_each_budget_and_a_map_where_heads_differ() -> None:
    page = render(rows({"random": 1.5, "<i>:split=layers": 0.05}), "a <b> model")
    assert best(rows({"random": 1.5, "tova": 0.05})) == ["tova", "random"]
    assert "a &lt;b&gt; model, 2 texts" in page
    assert "The full cache: 100% right with 400 bytes." in page
    assert "<i>" not in page
    assert page.count("<figure") == 5  # two charts, one map of heads, one of places a method
    tips = re.findall(r"part of the text ([0-9%]+ to [0-9%]+): ([0-9.]+%) of the entries are held in layer (\d)", page)
    assert tips[:3] == [("0% to 50%", "50%", "0"), ("0% to 50%", "25%", "1"), ("50% to 100%", "25%", "1")]
    assert page.index("<i>:split=layers at 25%, question known: by place".replace("<i>", "&lt;i&gt;")) < page.index(
        "random at 25%, question known: by place"
    )
    cells = re.findall(r"<td[^>]*><span>([^<]*)</span>", page[page.index("&lt;i&gt;:split=layers</th>") :])
    assert cells[:7] == ["50%", "50%", "", "200", "600", "1.50", "0.50"]  # budget, kept, end, bytes, peak, times
    assert cells[8] == "0.0% [-69.3%, 69.3%]"  # of two texts, both right as in the full cache: z sqrt(1/8)
    tips = re.findall(r"key-value head (\d): ([0-9.]+%) of the entries are held in layer (\d)</title>", page)
    assert tips == [("0", "50%", "0"), ("0", "36%", "1"), ("1", "14%", "1")]
    assert "at 25%, question known</h3>" in page
    assert "question asked after the choice" not in page.lower()
    # means of lost are 1.5 and 0.75 at 100 and 200 bytes, and each loss is on its curve
    assert ">random: 1.5 at 100</title>" in page
    assert ">random: 0.75 at 200</title>" in page


def test_no_more_methods_are_drawn_than_can_be_told_apart() -> None:
    found = rows({f"method{i}": float(i) for i in range(10)})
    page = render(found, "model")
    assert "The 8 of 10 methods that lose least are drawn" in page
    legend = page[page.index("legend") : page.index("</ul>")]
    assert "method7" in legend
    assert "method8" not in legend
    assert page[: page.index("Which parts of the text")].count("method9") == 2  # in the table, once a budget
    assert "What each head kept" not in page


def test_a_method_with_the_full_budget_is_a_method_like_others() -> None:
    found = [row for row in rows({"tova": 0.05}) if row["budget"] != "50%"]
    for row in found:
        row["budget"] = "100%"
    assert best(found) == ["tova"]
    page = render(found, "model")
    assert "The full cache: 100% right with 400 bytes." in page
    assert ">tova: 0.05 at 100</title>" in page
