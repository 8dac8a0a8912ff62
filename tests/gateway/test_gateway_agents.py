"""The page of agents: who was given, spent and holds what, in the ledger that agents and gateway share."""

from __future__ import annotations

import pytest

for needed in ("aiohttp", "orjson", "prometheus_client", "starlette", "uvicorn"):
    pytest.importorskip(needed)

from budgeteer import Usage  # noqa: E402
from budgeteer.gateway.trees import Trees  # noqa: E402
from budgeteer.ledger import Allowance, Limit, MemoryLedger  # noqa: E402
from budgeteer.metering.agents import AgentBudget  # noqa: E402
from budgeteer.metering.settlement import Answer  # noqa: E402
from helpers.browser import CHROMIUM, Browser  # noqa: E402
from helpers.gateway_fixture import ADMIN, Running, toml  # noqa: E402
from helpers.person import Person  # noqa: E402

BODY = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 50}


@pytest.fixture
def running(tmp_path):
    with Running(tmp_path, toml([("one", "http://127.0.0.1:9/v1", ["m"], "")])) as running:
        yield running


def agents(running):
    """A run with a sub-agent that spent 300 of the 2,000 that it was given."""
    ledger = running.gateway.ledger
    ledger.open("acme", [Limit("all", None)])
    budget = AgentBudget.parse("10k", ledger=ledger, path="acme/run-7", parts={"scout": "2k"})
    budget.use("scout", lambda: call(budget, 300))
    call(budget, 120)
    return budget


def call(budget, tokens):
    return budget.answer(
        BODY, lambda turn: Usage(input=tokens - 5, output=5), str, tools=False, read=lambda usage: Answer(usage)
    )


def test_only_new_lines_of_the_journal_are_read():
    ledger, read = MemoryLedger(), []
    lines = ledger.lines
    ledger.lines = lambda first=0, stop=None: (read.append(line) or line for line in lines(first, stop))
    ledger.open("a", [Limit("all", 1000)])
    trees, spends = Trees(ledger), Allowance(ledger, "a", {"all": 1000})
    for n in (1, 2, 3):
        with spends.reserve({"all": 40}) as held:
            held.settle({"all": 20})
        ((node, _),) = trees.at("all")
        assert (node.spent, node.held) == (20 * n, 0)
    with spends.reserve({"all": 5}) as held:
        assert trees.at("all", "a")[0][0].held == 5
        held.release()
    assert [(node.spent, node.held) for node, _ in trees.at("all")] == [(60, 0)]
    assert len(read) == len(set(read)) == len(list(lines()))
    assert trees.at("all", "b") == trees.at("turns") == []


def test_the_page_shows_who_was_given_spent_and_gave_back_what(running):
    agents(running)
    person = Person(running)
    page = person.get("/agents")[2]
    assert 'aria-label="all accounts: tokens"' in page
    for said in ("acme/run-7/scout", "2,000", "300", "1,700", "300 of 2,000", "10,000", "420"):
        assert said in page
    below = person.get("/agents?path=acme/run-7/scout")[2]
    assert "1 accounts" in below
    assert "10,000" not in below
    assert "Nothing of the kind" in person.get("/agents?kind=turns")[2]
    assert "<b>x" not in person.get("/agents?kind=%3Cb%3Ex&path=%3Cb%3Ex")[2]


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium in PATH")
def test_the_picture_follows_the_run_in_a_browser(running):
    budget = agents(running)
    with Browser() as page:
        page.open(f"{running.root}/login")
        page.fill("input[name=key]", ADMIN)
        page.press("form button")
        page.open(f"{running.root}/agents?path=acme/run-7")
        bars = "document.querySelectorAll('#tree svg rect title').length"
        before = page.js(bars)
        assert "420 of 10,000" in page.js("document.getElementById('tree').textContent")
        page.js("window.mine = 1")
        call(budget, 80)
        page.until("document.getElementById('tree').textContent.includes('500 of 10,000')")
        page.until("document.getElementById('rows').innerText.includes('9,500')")
        assert page.js("window.mine") == 1  # without a reload
        assert page.js(bars) == before == 4  # spent, and given back or left, of the run and of its sub-agent
        for width in (1200, 390):
            page.shape(width, 800, dark=width == 390)
            assert page.js("document.querySelector('#tree svg').getBoundingClientRect().width") > width / 2
            assert page.js("document.documentElement.scrollWidth") <= width
        assert page.problems() == []
