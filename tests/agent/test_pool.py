"""Models as tools of an agent, and the reward of those that learn to call them."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

from budgeteer.agent import react
from budgeteer.agent.pool import Helper, tools_of
from budgeteer.check.scripted import Scripted
from budgeteer.core.errors import InvalidInput
from budgeteer.models.chat import call_of
from budgeteer.rl.reward import Columns, router_r1
from budgeteer.solve import Question, Style
from budgeteer.solve.runner import Settings, run

NONE = np.zeros(0)
STYLE = Style(lambda text: text + "\n", lambda text: text.strip() or None, "")


def helper(name: str, says: str, price: int) -> Helper:
    return Helper(name, Scripted(lambda prompt, rng: says), "Knows.", price, 20, ask=lambda query: query)


def test_an_agent_calls_models_within_its_budget_of_calls_and_money() -> None:
    small, large = helper("small", "[I do not know]", 1000), helper("large", "Oslo", 50_000)

    def write(prompt: str, rng: Any) -> str:
        if "Oslo" in prompt:
            return "Oslo\n"
        return call_of("large" if "do not know" in prompt else "small", '{"query": "Capital of Norway?"}')

    settings = Settings(tools=lambda question: tools_of([small, large]))
    asked = [Question("1", "What is the capital of Norway?")]
    done = asyncio.run(run(asked, react(turns=4), Scripted(write), STYLE, "5k, tool:large:1, tool:3", settings))
    assert done.rows[0]["answer"] == "Oslo"
    units = done.rows[0]["units"]
    assert (units["tool"], units["tool:large"]) == (2, 1)
    assert [len(one.spent) for one in (small, large)] == [1, 1]
    assert large.cost == large.spent[0] * 50_000 <= large.tool().units("money") == 20 * 50_000


def test_a_helper_that_fails_is_a_text_and_not_the_end() -> None:
    broken = Helper("broken", Scripted(lambda prompt, rng: 1 / 0), "Knows.", ask=lambda query: query)
    said = asyncio.run(broken.tool().call({"query": "x"}))
    assert said.startswith("[broken failed: ")
    assert broken.spent == []


def test_pools_that_cannot_be() -> None:
    one = helper("one", "x", 1)
    for helpers, why in [([], "no model to call"), ([one, one], "several helpers")]:
        with pytest.raises(InvalidInput, match=why):
            tools_of(helpers)
    with pytest.raises(InvalidInput, match="seconds above 0"):
        tools_of([one], patience=0)
    with pytest.raises(InvalidInput, match="price=-1"):
        helper("one", "x", -1)
    with pytest.raises(InvalidInput, match="letters, digits"):
        tools_of([helper("no name", "x", 1)])


def rows(
    correct: list[float], cost: list[float], formed: list[int] | None = None, status: list[int] | None = None
) -> Any:
    n = len(correct)
    given = {} if formed is None else {"well_formed": formed}
    return Columns(correct, [9] * n, [0] * n, [9] * n, status or [1] * n, called_cost=cost, **given)


def test_the_reward_by_hand() -> None:
    # roots 0, 1, 2, 3, 4: the quantiles of 5 and 95 % are 0.2 and 3.8
    five = rows([1, 1, 0.5, 0, 1], [0, 1, 4, 9, 16], [1, 1, 1, 1, 0])
    cheap = [1, 1 - 0.8 / 3.6, 1 - 1.8 / 3.6]
    expected = [0.6 + 0.4 * cheap[0], 0.6 + 0.4 * cheap[1], 0.6 * 0.5 + 0.4 * cheap[2], 0, -1]
    assert router_r1(0.4).score(NONE, five).tolist() == pytest.approx(expected)
    assert router_r1(0).score(NONE, five).tolist() == [1, 1, 0.5, 0, -1]


def test_the_window_remembers_costs_and_forgets_old_ones() -> None:
    reward = router_r1(0.5, window=3)
    state = reward.observe(reward.init(), rows([1, 1], [100, 4], [1, 1]))
    assert state.tolist() == [100, 4]
    state = reward.observe(state, rows([0, 1], [9, 16], [1, 1]))
    assert state.tolist() == [4, 9, 16]
    low, high = np.quantile([2, 3, 4, 3], (0.05, 0.95))
    (got,) = reward.score(state, rows([1], [9], [1]))
    assert got == pytest.approx(0.5 + 0.5 * (1 - (3 - low) / (high - low)))
    assert reward.score(NONE, rows([1, 1], [7, 7], [1, 1])).tolist() == [0.75, 0.75]  # nothing to compare


def test_cheap_and_wrong_never_pays_and_columns_have_defaults() -> None:
    score = router_r1(0.9).score(NONE, rows([0, 1], [0, 100], [1, 1]))
    assert score[0] < score[1]
    reward = router_r1()
    plain = Columns([1, 0], [9, 9], [0, 0], [9, 9], [1, 4]).completed(reward.needs, {})
    assert reward.score(NONE, plain).tolist() == [0.7 + 0.3 * 0.5, -1]  # a row that was cut keeps to no format
    for wrong in (lambda: router_r1(1.5), lambda: router_r1(window=0)):
        with pytest.raises(InvalidInput, match="give 0 to 1"):
            wrong()
