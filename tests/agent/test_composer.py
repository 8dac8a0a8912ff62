"""The composer: what is bought on numbers worked by hand, and the strategy that tests, buys and runs."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from budgeteer.agent import composer
from budgeteer.agent._composer import skills_of
from budgeteer.agent.composition import Component, Skill, Verdict, compose, retrieved
from budgeteer.agent.pool import Helper, tools_of
from budgeteer.check.scripted import Scripted
from budgeteer.core.errors import InvalidInput
from budgeteer.ledger import Allowance, Limit, MemoryLedger
from budgeteer.models.chat import call_of
from budgeteer.solve import Budgeted, Question, Style, Task
from budgeteer.solve.tool import Tool

FIND, SUM, DRAW = Skill("find", 3.0, ("f1", "f2")), Skill("sum", 2.0, ("s1",)), Skill("draw", 1.0, ("d1",))


def bought(skills: Any, components: Any, budget: float, good: Mapping[str, str], broken: str = "", **more: Any) -> Any:
    """What is bought where ``good`` says which requests a component answers, and the requests that were tried."""
    tried = []

    async def trial(name: str, skill: Skill, query: str) -> Verdict:
        tried.append((name, query))
        if name in broken.split():
            return Verdict.BROKEN
        return Verdict.HELPFUL if query in good.get(name, "").split() else Verdict.USELESS

    return asyncio.run(compose(skills, components, budget, trial, **more)), tried


def test_what_is_bought_follows_the_threshold_worked_by_hand() -> None:
    """L = 1/40, U = 6/10, B = 50. a is worth 3 for 40: 0.075 >= Psi(0) = L/e = 0.0092. After it z = 0.8 and Psi(0.8) =
    (24 e)^0.8 L/e = 0.26; b is worth 2 for 10: 0.2 is below it, although the rest would cover it."""
    psi = (0.6 * math.e / 0.025) ** 0.8 * 0.025 / math.e
    assert 0.2 < psi == pytest.approx(0.2602, abs=1e-4)
    components = [Component("a", "find", 40), Component("b", "sum", 10)]
    found, _ = bought([FIND, SUM, DRAW], components, 50, {"a": "f1 f2", "b": "s1"})
    assert (found.chosen, found.spent, found.covered) == (["a"], 40, ["find"])
    cheaper = [Component("a", "find", 20), Component("b", "sum", 10)]  # z = 0.4, L = 1/20: Psi = (12 e)^0.4 L/e = 0.074
    found, _ = bought([FIND, SUM, DRAW], cheaper, 50, {"a": "f1 f2", "b": "s1"})
    assert (found.chosen, found.spent, found.covered) == (["a", "b"], 30, ["find", "sum"])


def test_only_what_a_component_adds_counts_and_covered_skills_are_tested_no_more() -> None:
    components = [Component("a", "find sum", 10), Component("b", "find sum", 10), Component("c", "draw", 10)]
    good = {"a": "f1 f2 s1", "b": "f1 f2 s1", "c": "d1"}
    found, tried = bought([FIND, SUM, DRAW], components, 1000, good)
    assert found.chosen == ["a", "c"]
    assert [name for name, _ in tried] == ["a", "a", "a", "a", "c"]  # b has nothing to add
    assert found.verdicts["a", "find"] == [Verdict.HELPFUL] * 2


def test_half_of_the_tests_is_not_enough_and_what_is_broken_is_tried_no_more() -> None:
    components = [Component("a", "find", 10), Component("b", "find sum", 10)]
    found, tried = bought([FIND, SUM], components, 1000, {"a": "f1 s1", "b": "f1 f2 s1"}, broken="b")
    assert found.chosen == ["a"]  # for sum alone
    assert found.covered == ["sum"]
    assert [query for name, query in tried if name == "b"] == ["f1"]


def test_few_candidates_come_for_a_skill_and_bad_prices_are_refused() -> None:
    components = [Component("a", "draw a picture", 1), Component("b", "find a page", 1)]
    _, tried = bought([FIND], components, 10, {}, candidates=1)
    assert {name for name, _ in tried} == {"b"}
    assert bought([], components, 10, {})[0].chosen == []
    with pytest.raises(InvalidInput, match="above 0"):
        bought([FIND], [Component("a", "", 0)], 10, {})
    with pytest.raises(InvalidInput, match="room=0"):
        composer(room=0)


def test_what_comes_for_a_skill_is_like_its_name_with_each_request_not_like_all_of_them_joined() -> None:
    """Joined, the four words of one request outweigh the name; by themselves, two of three requests are like it."""
    skill = Skill("search", 1.0, ("the of is for", "a", "b"))
    _, tried = bought(
        [skill], [Component("noise", "the of is for", 1), Component("finder", "search", 1)], 9, {}, candidates=1
    )
    assert {name for name, _ in tried} == {"finder"}


def test_an_encoder_of_ones_own_says_who_comes_for_a_skill() -> None:
    """By words nobody is like "seek"; by these vectors the finder is."""
    vectors = {"draws": [0.0, 1.0], "finds": [1.0, 0.0], "seek a?": [0.9, 0.1]}
    components = [Component("a", "draws", 1), Component("b", "finds", 1)]
    seek = [Skill("seek", 1.0, ("a?",))]
    for encode, name in ((None, "a"), (lambda texts: np.array([vectors[text] for text in texts]), "b")):
        more = {} if encode is None else {"encode": encode}
        _, tried = bought(seek, components, 10, {}, candidates=1, **more)
        assert {one for one, _ in tried} == {name}
        assert retrieved(seek, components, 10, **more).chosen == [name]


def test_retrieval_buys_the_likest_without_a_test_as_long_as_there_is_budget() -> None:
    components = [Component("liar", "find find find", 6), Component("b", "sum", 5), Component("c", "draw", 4)]
    found = retrieved([FIND, SUM, DRAW], components, 10)
    assert (found.chosen, found.spent, found.covered) == (["liar", "c"], 10, ["find", "draw"])  # b: 4 are left
    twice = retrieved([FIND, Skill("find again", 1.0, ("f3",))], components, 6)
    assert (twice.chosen, twice.spent, twice.covered) == (["liar"], 6, ["find", "find again"])
    assert retrieved([FIND], [], 10).chosen == []


def best(covers: list[int], prices: Any, weights: Any, budget: float) -> float:
    """The most weight that a set of tools covers within the budget, of all 2^n sets; ``covers`` are bits of skills."""
    cost, covered = np.zeros(1), np.zeros(1, np.int64)
    for price, cover in zip(prices, covers, strict=True):
        cost, covered = np.concatenate([cost, cost + price]), np.concatenate([covered, covered | cover])
    kept = np.unique(covered[cost <= budget])
    return float(sum(weight * (kept >> skill & 1) for skill, weight in enumerate(weights)).max())


@pytest.mark.parametrize(
    ("skills", "budget", "mean", "plain"),
    [(20, 250, 0.47, 0.53), (20, 500, 0.54, 0.62), (10, 250, 0.54, 0.61), (10, 500, 0.77, 0.88)],
)
def test_what_is_bought_of_twenty_tools_against_the_best_purchase(
    skills: int, budget: int, mean: float, plain: float
) -> None:
    """Means of 20 draws: tools with a skill each (20), or one or two of ten, at prices of 20 to 120 tokens.

    The rule is above its bound 1 / (ln(U / L) + 1). It has no more than one that buys, in a random order, whatever
    helps and fits: it keeps budget for tools as good as U, of which there are none."""
    shares, others = [], []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        weights, prices = rng.integers(1, 6, skills).astype(float), rng.integers(20, 121, 20)
        own = [[i] if skills == 20 else rng.choice(skills, int(rng.integers(1, 3)), replace=False) for i in range(20)]
        covers = [sum(1 << int(j) for j in each) for each in own]
        wanted = [Skill(f"skill{j}", float(weights[j]), (f"q{j}",)) for j in range(skills)]
        about = [" ".join(f"skill{j}" for j in each) for each in own]
        components = [Component(f"t{i}", about[i], float(prices[i])) for i in range(20)]
        good = {f"t{i}": " ".join(f"q{j}" for j in each) for i, each in enumerate(own)}
        found, _ = bought(wanted, components, budget, good)
        top = best(covers, prices, weights, budget)
        assert found.spent == sum(prices[int(name[1:])] for name in found.chosen) <= budget
        shares.append(sum(weights[int(name.removeprefix("skill"))] for name in found.covered) / top)
        left, covered = budget, 0
        for i in rng.permutation(20):
            if prices[i] <= left and covers[i] & ~covered:
                left, covered = left - prices[i], covered | covers[i]
        others.append(sum(weight for j, weight in enumerate(weights) if covered >> j & 1) / top)
        bound = math.log(sum(weights) / min(prices) / (min(weights) / max(prices))) + 1
        assert 1 / bound <= shares[-1] <= 1
    assert (np.mean(shares), np.mean(others)) == (pytest.approx(mean, abs=0.006), pytest.approx(plain, abs=0.006))


def test_the_model_names_skills_tests_judges_and_answers_with_what_was_bought() -> None:
    style = Style(lambda text: f"{text}\n", lambda text: text.strip().split("\n")[0] or None, "", answer_tokens=10)
    used: list[str] = []

    def tool(name: str, about: str, answer: str) -> Tool:
        async def call(arguments: Mapping[str, Any]) -> str:
            used.append(name)
            return answer

        return Tool(name, about, {"of": {"type": "string"}}, call)

    def write(prompt: str, rng: Any) -> str:
        if prompt.endswith("Skills:\n"):
            return "capitals | 3 | Capital of Norway? | Capital of Peru?\n"
        if prompt.endswith("Verdict:"):
            return "helpful" if "Oslo" in prompt else "useless"
        if "</tool_response>" in prompt or "Answer now" in prompt:
            return "Oslo\n" if "Oslo" in prompt else "?\n"
        name = "atlas" if '"name": "atlas"' in prompt else "liar" if '"name": "liar"' in prompt else ""
        return call_of(name, '{"of": "Norway"}') if name else "?\n"

    def solved(tools: tuple[Tool, ...], budget: int) -> tuple[Any, int, list[str]]:
        model, ledger = Scripted(write), MemoryLedger()
        used.clear()
        ledger.open("q", [Limit("all", budget)])
        task = Task(
            Question("q", "Capital of Norway?"), Budgeted(model, Allowance(ledger, "q", {"all": budget})), style, 0,
            tools=tools,
        )  # fmt: skip
        answer = asyncio.run(composer(room=400).solve(task))
        return answer.answer, task.model.spend.units["all"], [str(request.prompt) for request in model.requests]

    liar, atlas = tool("liar", "Knows every capital of Norway and Peru.", "no idea"), tool("atlas", "An atlas.", "Oslo")
    answer, _, prompts = solved((liar, atlas), 90_000)
    assert answer == "Oslo"
    assert used == ["liar", "liar", "atlas", "atlas", "atlas"]  # tests of both, and the run
    assert '"name": "liar"' not in prompts[-1]
    assert solved((liar,), 90_000)[0] == "?"  # nothing helps: answered without tools
    for budget in (300, 1200, 2500):
        answer, spent, _ = solved((liar, atlas), budget)
        assert spent <= budget


def test_sub_agents_are_bought_by_the_dollars_of_a_call_and_tools_that_cost_nothing_stay() -> None:
    """The large agent alone knows the answer, at $0.002 a call; a room of $0.001 cannot buy it."""
    style = Style(lambda text: f"{text}\n", lambda text: text.strip().split("\n")[0] or None, "", answer_tokens=10)

    def write(prompt: str, rng: Any) -> str:
        if prompt.endswith("Skills:\n"):
            return "capitals | 3 | Capital of Norway?\n"
        if prompt.endswith("Verdict:"):
            return "helpful" if "Oslo" in prompt else "useless"
        if "</tool_response>" in prompt or "Answer now" in prompt:
            return "Oslo\n" if "Oslo" in prompt else "?\n"
        name = next((name for name in ("large", "small") if f'"name": "{name}"' in prompt), "")
        return call_of(name, '{"query": "Capital of Norway?"}') if name else "?\n"

    async def nothing(arguments: Mapping[str, Any]) -> str:
        return "nothing"

    def solved(**options: Any) -> tuple[Any, str]:
        helpers = [
            Helper(name, Scripted(lambda prompt, rng, said=said: said), "Knows capitals of Norway.", price, 1000)
            for name, price, said in (("small", 100_000, "no idea"), ("large", 2_000_000, "Oslo"))
        ]
        tools = (*tools_of(helpers), Tool("free", "Of no use.", {"of": {"type": "string"}}, nothing))
        model, ledger, budget = Scripted(write), MemoryLedger(), {"all": 90_000}
        ledger.open("q", [Limit("all", budget["all"])])
        task = Task(
            Question("q", "Capital of Norway?"), Budgeted(model, Allowance(ledger, "q", budget)), style, 0, tools=tools
        )
        answer = asyncio.run(composer(paid_in="dollars", **options).solve(task))
        return answer.answer, str(model.requests[-1].prompt)

    answer, prompt = solved(room=0.003)
    assert answer == "Oslo"
    assert '"name": "large"' in prompt
    assert '"name": "free"' in prompt
    assert '"name": "small"' not in prompt
    answer, prompt = solved(room=0.001)
    assert answer == "?"
    assert '"name": "free"' in prompt
    answer, prompt = solved(room=0.003, tests=False)  # both say the same of themselves: the first is believed
    assert '"name": "small"' in prompt
    assert answer == "?"
    for bad in ({"room": math.inf}, {"room": 1, "paid_in": "yen"}):
        with pytest.raises(InvalidInput, match="tokens or dollars"):
            composer(**{"paid_in": "dollars", **bad})  # type: ignore[arg-type]


def test_skills_are_read_as_they_are_written() -> None:
    text = "- find | 2.5 | a? | b? | c? | d?\nfind | 1 | e?\nno weight | x | a?\nno test | 2\n | 2 | a?\nsum | 0 | f?"
    assert skills_of(text, 9) == (Skill("find", 2.5, ("a?", "b?", "c?")), Skill("sum", 1.0, ("f?",)))
    assert len(skills_of(text, 1)) == 1
