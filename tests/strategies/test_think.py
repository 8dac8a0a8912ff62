"""Strategies of one trace: worked examples on a scripted model, one token a character, and the rules all of them keep.

The question is "q", its prompt "q:", thinking closes with "|", an answer ends with a newline, and 4 tokens of output
are enough for an answer.
"""

from __future__ import annotations

import asyncio
import inspect
import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from budgeteer.check.scripted import Scripted
from budgeteer.core.errors import InvalidInput
from budgeteer.core.registry import METHODS, get, load, make
from budgeteer.ledger import Allowance, Limit, MemoryLedger
from budgeteer.models.chat import Chat, Message
from budgeteer.models.model import PREFILL, PREFIX, SEED
from budgeteer.solve import Answer, Budgeted, Question, Strategy, Style, Task
from budgeteer.solve.runner import refuse_needs
from budgeteer.strategies import (
    budget_forcing,
    conciseness,
    convergence,
    diffadapt,
    direct,
    elastic,
    length_filtered_vote,
    plan_and_budget,
    truncate,
)
from budgeteer.strategies._diffadapt import Bundle, Record, Thresholds, calibrate, choose
from budgeteer.strategies._length_filtered_vote import entropy, filtered_vote
from budgeteer.strategies.kit.planner import Decomposition, Part

STYLE = Style(
    prompt=lambda question: question + ":",
    answer=lambda rest: rest.partition("\n")[0].strip() or None,
    close="|",
    stop=("\n",),
    answer_tokens=4,
    wait="w",
)
CHAT = Style(lambda q: Chat((Message("user", f"{q}:"),)), STYLE.answer, "|", ("\n",), 4)


def script(natural: str, forced: Callable[[str], str] = lambda thinking: "0") -> Scripted:
    """Writes ``natural``; once it was led off that path, the answer that ``forced`` gives to its thinking."""

    def write(prompt: str, rng: random.Random) -> str:
        written = prompt.partition(":")[2]
        if natural.startswith(written):
            return natural[len(written) :]
        thinking, closed, _ = written.partition("|")
        return forced(thinking) + "\n" if closed else "x" * 40

    return Scripted(write)


def task(model: Scripted, amount: int = 1000, kind: str = "all", seed: int = 0, style: Style = STYLE) -> Task:
    ledger = MemoryLedger()
    ledger.open("q", [Limit(kind, amount)])
    return Task(Question("q1", "q"), Budgeted(model, Allowance(ledger, "q", {kind: amount})), style, seed)


def run(strategy: Strategy, of: Task) -> tuple[Answer, int]:
    answer = asyncio.run(strategy.solve(of))
    return answer, sum(of.model.spend.units.values())


# -- direct, truncate ---------------------------------------------------------------------------------------------


def test_direct_is_one_call() -> None:
    """Prompt 2 + "abcde|7\\n" 8."""
    answer, spent = run(direct(), task(script("abcde|7\n")))
    assert (answer.answer, answer.stopped_by, spent) == ("7", "done", 10)


@pytest.mark.parametrize(("budget", "answer", "by"), [(8, None, "budget"), (9, "7", "budget"), (10, "7", "done")])
def test_direct_is_cut_at_the_budget(budget: int, answer: str | None, by: str) -> None:
    """Of "abcde|7\\n" 6, 7 and 8 tokens fit."""
    found, spent = run(direct(), task(script("abcde|7\n"), budget))
    assert (found.answer, found.stopped_by, spent) == (answer, by, budget)


def test_direct_at_its_own_cap() -> None:
    assert run(direct(3), task(script("abcde|7\n")))[0].stopped_by == "cap"


def test_truncate_has_no_answer_for_a_cut_trace() -> None:
    answer, spent = run(truncate(4), task(script("abcde|7\n", lambda thinking: "7")))
    assert (answer, spent) == (Answer(None, "cap", ("abcd",)), 6)


def test_truncate_finishes_an_answer_that_was_begun() -> None:
    """6 tokens end at "|"; the answer "7\\n" is another call: 2 + 6, then 8 + 2."""
    answer, spent = run(truncate(6), task(script("abcde|7\n")))
    assert (answer.answer, answer.stopped_by, spent) == ("7", "done", 18)


# -- budget forcing, elastic --------------------------------------------------------------------------------------


def test_forcing_cuts_and_asks_for_the_answer() -> None:
    """2 + 3 tokens; then "q:abc|" 6 + "3\\n" 2."""
    answer, spent = run(budget_forcing(3), task(script("abcde|7\n", lambda thinking: str(len(thinking)))))
    assert (answer, spent) == (Answer("3", "cap", ("abc|3",)), 13)


def test_forcing_leaves_a_trace_alone_that_closes() -> None:
    answer, spent = run(budget_forcing(20), task(script("abcde|7\n")))
    assert (answer.answer, answer.stopped_by, spent) == ("7", "done", 10)


def test_forcing_keeps_the_answer_within_the_budget() -> None:
    """With m tokens of thinking (2 + m) + (2 + m + 4) <= 16, so m = 4; then "q:abcd|" 7 + 2."""
    answer, spent = run(budget_forcing(), task(script("abcdefgh|7\n", lambda thinking: str(len(thinking))), 16))
    assert (answer.answer, answer.stopped_by, spent) == ("4", "budget", 6 + 9)


def test_a_budget_of_output_pays_the_prompt_no_second_time() -> None:
    """m + 4 <= 10 tokens of output, so m = 6."""
    of = task(script("abcdefgh|7\n", lambda thinking: str(len(thinking))), 10, "output")
    answer, spent = run(budget_forcing(), of)
    assert (answer.answer, spent) == ("6", 8)


def test_wait_replaces_an_early_close() -> None:
    """ "ab|" takes 3 tokens, "w" 1, "cd|" 3: 7 >= 6, so the answer follows in a call of its own."""

    def write(prompt: str, rng: random.Random) -> str:
        return {"q:": "ab|1\n", "q:abw": "cd|2\n", "q:abwcd|": "2\n"}[prompt]

    answer, spent = run(budget_forcing(20, minimum=6), task(Scripted(write)))
    assert (answer, spent) == (Answer("2", "done", ("abwcd|2",)), (2 + 3) + (5 + 3) + (8 + 2))


def test_wait_ends_when_the_cap_is_near() -> None:
    """Every piece is "|" alone: 1 token and 1 for the wait, until 5 + 1 >= 6."""
    model = Scripted(lambda prompt, rng: "|9\n" if "|" not in prompt else "9\n")
    answer, _ = run(budget_forcing(6, minimum=6), task(model))
    assert (answer.answer, answer.traces) == ("9", ("ww|9",))


def test_elastic_keeps_the_answers_budget() -> None:
    """Budget 20, answer 6: (2 + m) + (2 + m + 6) <= 20, so m = 5, and the answer "123456" has all its tokens."""
    answer, spent = run(elastic(answer=6), task(script("abcdefgh|7\n", lambda thinking: "123456"), 20))
    assert answer.answer == "12345"  # "|" was read with the prompt: 8 + 5 of the 13 that are left
    assert spent == 20


def test_elastic_gives_both_phases_their_own() -> None:
    """Thinking closes after 6 tokens; the answer has its 3 and no more, though 94 of the thinking are left."""
    answer, spent = run(elastic(100, answer=3), task(script("abcde|1234567\n")))
    assert (answer.answer, answer.stopped_by, spent) == ("123", "done", (2 + 6) + (8 + 3))


def test_elastic_with_too_little_for_both_only_answers() -> None:
    answer, spent = run(elastic(), task(script("abcde|7\n", lambda thinking: "5"), 6))
    assert (answer.answer, spent) == ("5", 3 + 2)


# -- convergence --------------------------------------------------------------------------------------------------


def test_convergence_stops_when_two_answers_agree() -> None:
    """Forced answers at 2, 4, 6 letters are 1, 2, 2: (2 + 2) + (5 + 2), (4 + 2) + (7 + 2), (6 + 2) + (9 + 2)."""
    model = script("abcdefghijkl|7\n", lambda thinking: "1" if len(thinking) < 4 else "2")
    answer, spent = run(convergence(every=2, agree=2), task(model))
    assert (answer, spent) == (Answer("2", "converged", ("abcdef|2",)), 11 + 15 + 19)


def test_convergence_ends_with_the_thinking() -> None:
    model = script("abc|7\n", lambda thinking: str(len(thinking)))
    answer, _ = run(convergence(every=2, agree=2), task(model))
    assert (answer.answer, answer.stopped_by) == ("7", "done")


def test_convergence_returns_its_last_answer_when_the_budget_ends() -> None:
    """The first piece and its answer take 11 of 20; (4 + m) + (4 + m + 4) <= 9 has no m >= 1."""
    model = script("abcdefghijkl|7\n", lambda thinking: str(len(thinking)))
    answer, spent = run(convergence(every=2, agree=2), task(model, 20))
    assert (answer.answer, answer.stopped_by, spent) == ("2", "budget", 11)


# -- length-filtered vote -----------------------------------------------------------------------------------------


def test_entropies_by_hand() -> None:
    """3/4 and 1/4: 0.75 log2(4/3) + 0.25 * 2 = 0.3113 + 0.5; four different ones: 2 bits."""
    assert entropy(["a", "a", "a", "b"]) == pytest.approx(0.811278, abs=1e-6)
    assert entropy(["a", "b", "c", "d"]) == 2.0


def test_a_group_of_one_does_not_count() -> None:
    """Width 1. Length 3: z alone, entropy 0. Length 5: a a a b, 0.81. Length 8: a b c b, 1.5."""
    answers, sizes = list("zaaabzbcb"), [3, 5, 5, 5, 5, 8, 8, 8, 8]
    assert filtered_vote(answers, sizes, 1, 1, minimum=2) == ("a", 0.75)
    assert filtered_vote(answers, sizes, 1, 1, minimum=1) == ("z", 1.0)


def test_the_filter_overrules_the_majority() -> None:
    """The majority is b (4 of 9), but at length 2 the answers agree on a."""
    answers, sizes = list("aaabbcbbc"), [2, 2, 2, 9, 9, 9, 12, 12, 12]
    assert filtered_vote(answers, sizes, 1, 1) == ("a", 1.0)
    assert filtered_vote(answers, sizes, 1, 3)[0] == "b"


def test_only_small_groups_vote_together() -> None:
    assert filtered_vote(["a", "b", "a"], [1, 5, 9], 2, 3, 2) == ("a", pytest.approx(2 / 3))
    assert filtered_vote([None, None], [1, 2]) == (None, None)


def test_vote_buys_new_samples_with_what_the_first_left() -> None:
    """A sample is "a|7\\n", 4 tokens, and may be 10. 52: five fit (2 + 50), 22 spent; 30 left: two, 10; 20: one, 6;
    14: one, 6; then 8 pays for 6 tokens, not 10: nine samples."""
    of = task(Scripted(lambda prompt, rng: "a|7\n"), 52)
    answer, spent = run(length_filtered_vote(16, max_tokens=10), of)
    assert (answer.answer, answer.stopped_by, len(answer.traces), spent) == ("7", "budget", 9, 44)


# -- plan and budget ----------------------------------------------------------------------------------------------


def fixed(*parts: Part, level: int | None = None):  # type: ignore[no-untyped-def]
    async def plan(of: Task) -> Decomposition:
        return Decomposition(parts, level)

    return plan


def test_parts_are_held_to_their_tokens() -> None:
    """6 tokens, credits 2 and 1: 4 for "A", 2 for "B", each under its heading, then the answer."""
    model = Scripted(lambda prompt, rng: "5\n" if "|" in prompt else "x" * 40)
    of = task(model)
    strategy = plan_and_budget("constant", fixed(Part("A", 2.0), Part("B")), heading="<{part}>", thinking=6)
    answer, _ = run(strategy, of)
    assert (answer.answer, answer.traces) == ("5", ("<A>xxxx<B>xx|5",))
    assert [(r.prompt, r.max_tokens) for r in model.requests] == [
        ("q:<A>", 4),
        ("q:<A>xxxx<B>", 2),
        ("q:<A>xxxx<B>xx|", 4),
    ]


def test_what_a_part_leaves_goes_to_the_next() -> None:
    """The first part ends after 1 + 2 tokens of its 4, so the second has 2 + 1."""
    model = Scripted(lambda p, rng: "5\n" if "|" in p else "x\n\n" if p.endswith("<A>") else "x" * 40)
    of = task(model, style=Style(STYLE.prompt, STYLE.answer, "|", (), 4))
    strategy = plan_and_budget("constant", fixed(Part("A", 2.0), Part("B")), heading="<{part}>", thinking=6)
    answer, _ = run(strategy, of)
    assert answer.traces == ("<A>x\n\n<B>xxx|5\n",)


def test_a_tight_budget_pays_for_all_parts_and_the_answer() -> None:
    """Prompt 2, headings 3, b tokens a part, answer 4: (5 + b) + (8 + 2 b) + (8 + 2 b + 4) <= 50, so b = 5."""
    model = Scripted(lambda prompt, rng: "5\n" if "|" in prompt else "x" * 40)
    answer, spent = run(plan_and_budget("constant", fixed(Part("A"), Part("B")), heading="<{part}>"), task(model, 50))
    assert answer.traces == ("<A>xxxxx<B>xxxxx|5",)
    assert (answer.answer, spent) == ("5", 10 + 18 + 21)


def test_the_model_plans_and_is_charged() -> None:
    def write(prompt: str, rng: random.Random) -> str:
        if prompt.startswith("Split"):
            return "1. first\n2. second\n\nno more"
        if prompt.startswith("Grade"):
            return "2: 75, 25\n"
        return "5\n" if "|" in prompt else "x" * 900

    model = Scripted(write)
    answer, _ = run(plan_and_budget("constant", levels=(8, 12, 16, 20, 24)), task(model, 5000))
    assert answer.answer == "5"
    assert [r.max_tokens for r in model.requests] == [200, 40, 9, 3, 4]  # level 2: 12 tokens, 75 to 25


def test_a_chat_is_advised_in_words() -> None:
    """90 of 100 tokens after the prompt... in all: credits 3 to 1, and three words for four tokens."""
    model = Scripted(lambda prompt, rng: "hm|5\n")
    run(plan_and_budget("constant", fixed(Part("A", 3.0), Part("B")), thinking=80), task(model, style=CHAT))
    (request,) = model.requests
    text = request.prompt.messages[-1].content  # type: ignore[union-attr]
    assert "A (at most 45 words)" in text
    assert "B (at most 15 words)" in text


# -- diffadapt ----------------------------------------------------------------------------------------------------


def test_probes_choose_the_bundle() -> None:
    """All probes say 7 (easy: 20 tokens), none ends (hard: 25), two of four agree (normal: 50)."""
    bundles = (Bundle(0.5, 0.4), Bundle(0.8, 1.0), Bundle(0.4, 0.5))
    cases = {"a|7\n": (20, 0.5), "x" * 40: (25, 0.4)}
    for text, want in cases.items():
        model = Scripted(lambda prompt, rng, text=text: text)  # type: ignore[misc]
        run(diffadapt(bundles=bundles, probe_tokens=8, max_tokens=50), task(model))
        assert [(r.n, r.max_tokens) for r in model.requests[:1]] == [(4, 8)]
        assert (model.requests[1].max_tokens, model.requests[1].temperature) == want


def test_levels_and_thresholds() -> None:
    limits = Thresholds(sure=0.75, unsure=0.5, short=0.6)
    assert [choose(a, b, limits) for a, b in [(0.75, 0.6), (0.75, 0.61), (0.5, 0.1), (0.49, 0.1)]] == [
        "easy", "normal", "normal", "hard",
    ]  # fmt: skip


def test_calibration_finds_the_cheapest_thresholds_that_keep_the_score() -> None:
    """Four kinds of question. Easy pays where the probes agree; hard where they do not; in between only normal is
    right: 10 + 100 + 100 + 20 tokens."""
    rows = [
        Record(1.0, 0.3, (1, 1, 1), (10, 100, 50)),
        Record(0.75, 0.6, (0, 1, 0), (10, 100, 50)),
        Record(0.5, 0.9, (0, 1, 0), (10, 100, 50)),
        Record(0.25, 1.0, (0, 0, 0), (40, 100, 20)),
    ]
    limits = calibrate(rows, tolerance=0.0)
    assert [choose(r.agreement, r.length, limits) for r in rows] == ["easy", "normal", "normal", "hard"]
    assert calibrate([], 0.0) == Thresholds()


def test_probes_answer_for_a_trace_without_one() -> None:
    model = Scripted(lambda prompt, rng: "a|7\n" if rng.random() < 0.7 else "x" * 99)
    answers = [run(diffadapt(probe_tokens=8, max_tokens=20, probes=8), task(model, seed=s))[0] for s in range(20)]
    assert {answer.answer for answer in answers} == {"7"}


# -- conciseness --------------------------------------------------------------------------------------------------


def test_the_reminder_follows_the_question() -> None:
    model = Scripted(lambda prompt, rng: "a|7\n")
    answer, _ = run(conciseness(budget_forcing(50), "Short!"), task(model))
    assert (answer.answer, model.requests[0].prompt) == ("7", "q Short!:")
    assert conciseness(budget_forcing()).needs == budget_forcing().needs


# -- rules of all strategies --------------------------------------------------------------------------------------

THINK = [m.name for m in METHODS if m.part == "strategy" and not m.arguments]  # made without arguments
NAMES = [
    name for name in THINK if not {"internals", "tools"} & make("strategy", name).needs
]  # the others: test_strategies_inside.py, tests/agent
SMALL = {
    "diffadapt": {"probe_tokens": 8},
    "convergence": {"every": 5},
    "length-filtered-vote": {"samples": 5, "max_tokens": 20},
    "plan-and-budget": {"planner": fixed(Part("A", 2.0), Part("B"))},
}


def noisy(prompt: str, rng: random.Random) -> str:
    thinking = "" if "|" in prompt else "".join(rng.choices("ab\t", k=rng.randint(0, 30))) + "|"
    return thinking + str(rng.randint(0, 3)) + "\n" * rng.randint(0, 1) + "tail"


def rules(name: str) -> Strategy:
    return make("strategy", name, **SMALL.get(name, {}))


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=40, deadline=None)
@given(budget=st.integers(0, 150), seed=st.integers(0, 9), kind=st.sampled_from(["all", "output"]))
def test_no_budget_is_too_small_and_none_is_exceeded(name: str, budget: int, seed: int, kind: str) -> None:
    of = task(Scripted(noisy), budget, kind, seed)
    answer, spent = run(rules(name), of)
    assert spent <= budget
    assert answer.stopped_by
    if answer.answer is None and of.model.spend.calls == 0:
        assert answer.stopped_by == "budget"


@pytest.mark.parametrize("name", NAMES)
def test_a_budget_of_nothing_or_one_token_is_no_error(name: str) -> None:
    for budget in (0, 1):
        assert run(rules(name), task(Scripted(noisy), budget)) == (Answer(None, "budget", ANY), 0)


class _Any:
    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = None  # type: ignore[assignment]


ANY = _Any()


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_gives_the_same_answer(name: str) -> None:
    results = [run(rules(name), task(Scripted(noisy), 400, seed=3)) for _ in range(2)]
    assert results[0] == results[1]
    requests = []
    for seed in (3, 4):
        model = Scripted(noisy)
        run(rules(name), task(model, 400, seed=seed))
        requests.append([r.seed for r in model.requests])
    assert requests[0] != requests[1]


@pytest.mark.parametrize("name", NAMES)
def test_a_large_budget_has_an_answer(name: str) -> None:
    answer, _ = run(rules(name), task(Scripted(noisy), 100_000))
    assert answer.answer is not None


@pytest.mark.parametrize("name", NAMES)
def test_black_boxes_and_chats(name: str) -> None:
    """In a chat, a strategy that continues a trace works where the model declares PREFILL, and is refused elsewhere."""
    strategy = rules(name)
    black_box = Scripted(chatting, capabilities=frozenset({SEED}))
    if PREFIX in strategy.needs:
        for capabilities in ({SEED}, {SEED, PREFIX}):
            model = Scripted(chatting, capabilities=frozenset(capabilities))
            with pytest.raises(InvalidInput, match="does not declare 'prefill'"):
                refuse_needs(strategy, model, CHAT, checked=False)
    else:
        refuse_needs(strategy, black_box, CHAT, checked=False)
        assert run(strategy, task(black_box, style=CHAT))[0].answer == "2"
    goes_on = Scripted(chatting, capabilities=frozenset({SEED, PREFILL}))
    refuse_needs(strategy, goes_on, CHAT, checked=False)
    assert run(strategy, task(goes_on, style=CHAT))[0].answer == "2"
    assert all(isinstance(request.prompt, Chat) for request in goes_on.requests)


def chatting(prompt: str, rng: random.Random) -> str:
    """Thinks two letters, then answers; goes on where it stopped."""
    begun = prompt.partition(":")[2]
    whole = "ab|2\n"
    return whole[len(begun) :] if whole.startswith(begun) else "2\n" if begun.endswith("|") else "|2\n"


@pytest.mark.parametrize("name", NAMES)
def test_an_endpoint_that_loses_a_race_for_the_budget_is_no_error(name: str) -> None:
    """Others spend the same allowance between the look at it and the call."""
    from budgeteer.core.errors import BudgetExceeded

    of = task(Scripted(noisy), 300)

    async def refuse(*args: object, **kwargs: object) -> None:
        raise BudgetExceeded(kind="all", scope="q", used=300, requested=9, limit=300)

    of.model.generate = refuse  # type: ignore[method-assign, assignment]
    answer, _ = run(rules(name), of)
    assert (answer.answer, answer.stopped_by) == (None, "budget")


@pytest.mark.parametrize("name", NAMES)
def test_factories_need_no_arguments(name: str) -> None:
    assert isinstance(make("strategy", name), Strategy)
    parameters = inspect.signature(load(get("strategy", name))).parameters.values()
    assert all(p.default is not inspect.Parameter.empty for p in parameters)


@pytest.mark.parametrize(
    "make",
    [
        lambda: budget_forcing(10, minimum=11),
        lambda: elastic(answer=0),
        lambda: convergence(agree=1),
        lambda: convergence(every=0),
        lambda: length_filtered_vote(width=0),
        lambda: diffadapt(probes=1),
        lambda: plan_and_budget("quadratic"),  # type: ignore[arg-type]
        lambda: calibrate([], -1.0),
    ],
)
def test_bad_settings_say_so(make: Callable[[], object]) -> None:
    with pytest.raises(InvalidInput):
        make()
