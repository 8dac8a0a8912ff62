"""Builders of training examples on scripted models and traces worked by hand, and the command under a budget."""

from __future__ import annotations

import asyncio
import dataclasses
import random

import pytest

from budgeteer.check.scripted import ALL, Scripted
from budgeteer.core.errors import InvalidInput
from budgeteer.ledger import Allowance, Limit, MemoryLedger
from budgeteer.models.chat import THINK, Chat, Message
from budgeteer.models.model import PREFILL, PREFIX
from budgeteer.solve import Budgeted, Question, Style, Task
from budgeteer.tuning import (
    Built,
    adacot,
    adactrl,
    adaptive_deep,
    adar1,
    ares,
    brief,
    hunyuan_turbos,
    refuse_example,
    self_braking,
    thinkdial,
)
from budgeteer.tuning._adar1 import chosen, of_groups, within
from budgeteer.tuning._self_braking import BRAKE, Braked, braked, elected, marked, overthinking
from budgeteer.tuning.kit import Trace, beginning, prompt_of, steps_of, traces
from budgeteer.tuning.protocol import PREFERENCE, SFT

OPEN, END = "<think>\n", "\n</think>\n\n"


def style(chat: bool = True) -> Style:
    def prompt(text):
        return Chat((Message("user", text),), tags=THINK) if chat else text

    return Style(
        prompt, lambda text: (text.split() or [None])[-1], THINK.close, answer_tokens=20, end=END,
        complete=lambda text: text.endswith("."), normal=lambda text: text.rstrip("."), wait="\nWait,",
    )  # fmt: skip


def built(builder, write, *, budget=10**6, chat=True, question="2+2?", reference="4", seed=0):
    """What a builder makes of a model that writes so; (Built, model)."""
    model, ledger = Scripted(write, capabilities=ALL | {PREFILL}), MemoryLedger()
    ledger.open("t", [Limit("all", budget)])
    with Allowance(ledger, "t", {"all": budget}) as allowance:
        task = Task(
            Question("q", question), Budgeted(model, allowance), style(chat), seed, lambda a: float(a == reference)
        )
        return asyncio.run(builder.build(task)), model


def short(prompt: str) -> bool:
    return prompt.endswith(f"{OPEN}{END}")


def text(example, field="completion"):
    return example[field] if isinstance(example[field], str) else example[field][-1]["content"]


# -- Ada-R1 ------------------------------------------------------------------------------------------------------------


def kind(*rights: tuple[bool, int]) -> list[Trace]:
    return [Trace(f"{i}:{right}:{tokens}", tokens, "4", right) for i, (right, tokens) in enumerate(rights)]


def test_long_is_preferred_by_more_than_half_a_trace() -> None:
    four = kind((True, 9), (True, 9), (False, 9), (False, 9))
    one_less = kind((True, 1), (False, 1), (False, 1), (False, 1))
    assert chosen(four, one_less) == (four, one_less)  # 1/4 > 1/8
    assert chosen(one_less, four) == (four, one_less)
    assert chosen(four, kind((True, 1), (True, 1), (False, 1), (False, 1)))[0] is not four  # as good: short


def test_group_pairs_take_right_ones_before_wrong_ones_of_the_other_kind() -> None:
    kept, other = kind((True, 3), (False, 4), (True, 5)), kind((True, 6), (False, 7), (False, 8))
    pairs = of_groups(kept, other, 99, random.Random(0))
    assert {(a.tokens, b.tokens) for a, b in pairs} == {(3, 7), (3, 8), (5, 7), (5, 8)}
    assert len(of_groups(kept, other, 3, random.Random(0))) == 3
    right = kind((True, 6))  # no wrong one: right ones of the other kind
    assert {b.tokens for _, b in of_groups(kept, right, 9, random.Random(0))} == {6}


def test_instance_pairs_take_the_shortest_right_one_before_the_longest() -> None:
    mixed = kind((True, 5), (True, 3), (False, 2), (False, 9), (False, 7))
    assert [(a.tokens, b.tokens) for a, b in within(mixed, 2)] == [(3, 9), (3, 7)]
    good = kind((True, 5), (True, 3), (True, 9), (True, 3))
    assert [(a.tokens, b.tokens) for a, b in within(good, 2)] == [(3, 9), (3, 5)]
    assert within(kind((False, 1)), 2) == []


@pytest.mark.parametrize("chat", [True, False])
def test_adar1_on_a_question_that_needs_no_thinking(chat) -> None:
    def write(prompt, rng):
        begun = short(prompt) or prompt.endswith(END)
        return "4." if begun else f"{OPEN}{'so ' * rng.randint(1, 5)}{END}4."

    made, model = built(adar1(4, group_pairs=2, instance_pairs=1), write, chat=chat)
    assert {example["level"] for example in made.examples} == {"group"}  # short ones are all alike
    assert len(made.examples) == 2
    for example in made.examples:
        refuse_example(PREFERENCE, example)
        assert text(example, "chosen").endswith(f"{END}4.")
        assert "so " in text(example, "rejected")
    assert [request.n for request in model.requests] == [4, 4]
    assert made.answer == "4"


def test_adar1_has_no_pairs_where_nothing_is_right_and_prefers_long_where_only_that_is() -> None:
    wrong, _ = built(adar1(2), lambda prompt, rng: "5." if short(prompt) else f"{OPEN}a{END}5.")
    assert wrong == Built((), "5")
    made, _ = built(
        adar1(3, instance_pairs=1),
        lambda prompt, rng: "5." if short(prompt) else f"{OPEN}{'a' * rng.randint(1, 9)}{END}4.",
    )
    levels = [example["level"] for example in made.examples]
    assert levels.count("group") == 3  # of three right ones, with one wrong text
    for example in made.examples:
        if example["level"] == "group":
            assert text(example, "rejected") == f"{OPEN}{END}5."
        else:
            assert len(text(example, "chosen")) < len(text(example, "rejected"))


def test_adar1_takes_its_short_traces_from_another_model() -> None:
    other = Scripted(lambda prompt, rng: f"{OPEN}quick{END}4.", capabilities=ALL - {PREFILL})
    builder = adar1(3, instance_pairs=0, short=other)
    assert builder.models == (other,)
    assert PREFIX not in builder.needs  # nothing is closed for it
    made, model = built(builder, lambda prompt, rng: f"{OPEN}{'a' * rng.randint(1, 9)}{END}4.")
    assert [request.n for request in model.requests] == [3]
    assert [request.n for request in other.requests] == [3]
    assert other.requests[0].prompt == model.requests[0].prompt  # asked alike
    assert len(made.examples) == 3
    for example in made.examples:  # both are right, so short is preferred
        assert text(example, "chosen") == f"{OPEN}quick{END}4."
        assert "aquick" not in text(example, "rejected")
    assert text(made.examples[0], "rejected").startswith(f"{OPEN}a")


def test_a_trace_that_was_cut_is_in_no_pair_of_adar1_and_counts_as_wrong() -> None:
    def write(prompt, rng):  # short ones are wrong; of the long ones every other one never ends
        return "5." if short(prompt) else f"{OPEN}{'a' * rng.choice([3, 900])}{END}4."

    made, model = built(adar1(8, group_pairs=9, instance_pairs=9, max_tokens=100), write)
    (long,) = [request for request in model.requests if not short(request.prompt.begun)]
    assert 0 < sum("a" * 20 in model._choice(long, i).text for i in range(8)) < 8
    assert made.examples  # long is preferred, by the share of those that ended
    for example in made.examples:
        assert text(example, "chosen") == f"{OPEN}aaa{END}4."
        assert "a" * 20 not in text(example, "rejected")


def test_the_short_model_of_adar1_pays_from_the_same_budget() -> None:
    other = Scripted(lambda prompt, rng: f"{OPEN}quick{END}4.")
    made, model = built(adar1(3, short=other), lambda prompt, rng: f"{OPEN}a{END}4.", budget=20)
    assert (made, model.requests, other.requests) == (Built((), None), [], [])


# -- AdaCoT ------------------------------------------------------------------------------------------------------------


def test_adacot_labels_by_answers_without_thinking() -> None:
    def easy(prompt, rng):
        return "4." if short(prompt) else f"{OPEN}long{END}4."

    made, model = built(adacot(4), easy)
    (example,) = made.examples
    assert (example["needs_thinking"], text(example)) == (0, f"{OPEN}{END}4.")
    assert len(model.requests) == 1  # it is not asked to think
    refuse_example(SFT, example)
    both, _ = built(adacot(4, always=True), easy)
    assert [text(one) for one in both.examples] == [f"{OPEN}{END}4.", f"{OPEN}long{END}4."]

    made, _ = built(adacot(4), lambda prompt, rng: "5." if short(prompt) else f"{OPEN}long{END}4.")
    (example,) = made.examples
    assert (example["needs_thinking"], text(example)) == (1, f"{OPEN}long{END}4.")
    made, _ = built(adacot(4), lambda prompt, rng: "5." if short(prompt) else f"{OPEN}long{END}5.")
    assert made == Built((), "5")


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("Yes.", 1),
        ("It may be no... yes", 1),
        ("No", 0),
        ("**no**, one fact", 0),
        ("I know nothing", None),
        ("no " * 300, None),
    ],
)
def test_adacot_labels_by_a_judge(said, kind) -> None:
    judge = Scripted(lambda prompt, rng: said, capabilities=ALL | {PREFILL})

    def write(prompt, rng):
        return "4." if short(prompt) else f"{OPEN}long{END}4."

    made, model = built(adacot(3, judge=judge), write)
    assert len(judge.requests) == 1
    assert "Question: 2+2?" in judge.requests[0].prompt.messages[0].content
    if kind is None:
        assert (made, model.requests) == (Built(()), [])
        return
    (example,) = made.examples  # answers without thinking are right, and the judge decides
    assert (example["needs_thinking"], text(example)) == (kind, f"{OPEN}long{END}4." if kind else f"{OPEN}{END}4.")
    assert [short(request.prompt.begun) for request in model.requests] == [not kind]


def test_the_judge_of_adacot_pays_from_the_same_budget() -> None:
    judge = Scripted(lambda prompt, rng: "no")
    builder = adacot(3, judge=judge)
    assert builder.models == (judge,)
    assert built(builder, lambda prompt, rng: "4.", budget=900)[0] == Built(())  # 512 and the question do not fit
    assert judge.requests == []


@pytest.mark.parametrize("chat", [True, False])
def test_adactrl_tags_the_shortest_right_trace_easy_and_the_longest_hard(chat) -> None:
    def writes(*said):
        left = iter(said)
        return lambda prompt, rng: next(left)

    long, wrong = f"{OPEN}long long{END}4.", f"{OPEN}short{END}5."
    brief = f"{OPEN}short{END}4."
    # 3 of 4 are right, more than 0.625; the shortest right one is the second
    made, model = built(adactrl(4), writes(long, brief, wrong, long), chat=chat)
    (example,) = made.examples

    def behind(tag: str, trace: str) -> str:  # a chat template drops what stands before the thinking
        return f"{OPEN}{tag}{trace.removeprefix(OPEN)}" if chat else f"{tag}{trace}"

    assert (example["tag"], text(example), made.answer) == ("[Easy]", behind("[Easy]", brief), "4")
    assert [request.n for request in model.requests] == [4]
    refuse_example(SFT, example)
    made, _ = built(adactrl(4), writes(brief, wrong, wrong, long), chat=chat)  # a half
    assert text(made.examples[0]) == behind("[Hard]", long)
    made, _ = built(adactrl(8), writes(brief, *[wrong] * 3, *[long] * 4), chat=chat)  # 5 of 8 are not more
    assert text(made.examples[0]) == behind("[Hard]", long)
    assert built(adactrl(2), writes(wrong, wrong), chat=chat)[0] == Built((), "5")


def test_adactrl_writes_what_its_reward_reads() -> None:
    from budgeteer.core import registry
    from budgeteer.rl.reward import Columns

    made, _ = built(adactrl(2), lambda prompt, rng: f"{OPEN}a{END}4.")
    rows = Columns([1, 1], [9, 9], [0, 0], [99, 99], [1, 1], text=[text(made.examples[0]), "4."])
    tag = registry.part_of("reward", "adactrl").terms((), rows)["tag"]
    assert tag.tolist() == [0.5, -0.5]


def test_no_example_is_made_of_an_answer_that_the_style_begins() -> None:
    from budgeteer.solve import styles
    from budgeteer.solve.styles import TaskInfo

    own = styles.style_of("think:begun=[Easy]", TaskInfo("sums", numeric=True))
    task = Task(Question("q", "2+2?"), None, own, 0, None)  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="examples would lack; leave begun out"):
        prompt_of(task)


def test_adacot_counts_the_share() -> None:
    """Half of the answers without thinking are right."""
    answers = iter(["4.", "5."] * 50)

    def write(prompt, rng):
        return next(answers) if short(prompt) else f"{OPEN}long{END}4."

    assert built(adacot(4, enough=0.5), write)[0].examples[0]["needs_thinking"] == 0
    assert built(adacot(4, enough=0.51), write)[0].examples[0]["needs_thinking"] == 1


# -- ThinkDial ---------------------------------------------------------------------------------------------------------


def test_thinkdial_cuts_the_thinking_to_its_shares() -> None:
    words = "a1 a2 a3 a4 a5 a6 a7 a8 a9"  # a token is a character

    def write(prompt, rng):
        return "4." if prompt.endswith(END) else f"{OPEN}{words}{END}4."

    made, _ = built(thinkdial(1, text="Effort {effort}. "), write)
    assert [example["effort"] for example in made.examples] == ["high", "medium", "low"]
    asked = [example["prompt"][-1]["content"] for example in made.examples]
    assert asked == [f"Effort {word}. 2+2?" for word in ("high", "medium", "low")]
    thinking = f"{OPEN}{words}\n"  # 8 + 26 + 1 characters: 17 and 8 of them
    high, medium, low = (text(example).partition("</think>")[0] for example in made.examples)
    assert high == thinking
    assert medium == f"{OPEN}a1 a2 a3\nThat is enough to answer.\n"
    assert low == "<think>\nTime is almost up, so I answer now.\n"
    for example in made.examples:
        refuse_example(SFT, example)
        assert text(example).endswith("4.")


def test_thinkdial_wants_every_mode_to_be_right() -> None:
    def write(prompt, rng):
        return ("5." if "almost" in prompt else "4.") if prompt.endswith(END) else f"{OPEN}a b c d e{END}4."

    assert built(thinkdial(1), write)[0] == Built((), "4")
    assert built(thinkdial(1), lambda prompt, rng: f"{OPEN}a b c{END}5.")[0] == Built((), "5")


def test_beginnings_end_between_words() -> None:
    class Counting:
        count = staticmethod(len)

    task = type("T", (), {"model": Counting})()
    assert [beginning(task, "ab cd ef", n) for n in (8, 7, 5, 4, 2, 1, 0)] == [
        "ab cd ef",
        "ab cd",
        "ab cd",
        "ab",
        "ab",
        "",
        "",
    ]


# -- Self-braking ------------------------------------------------------------------------------------------------------


def test_the_score_by_hand() -> None:
    assert overthinking(1, 1, 0.0) == 0
    assert overthinking(3, 4, 0.2) == pytest.approx(0.1 * 0.2 + 0.9 * 0.25)
    assert marked("Wait, that is it. Hmm! But waiting") == pytest.approx(3 / 7)


def test_steps_join_to_the_thinking() -> None:
    for thinking in ("a\n\nb\n \nc", "a\nb\n\nc", "a", "a\nb\n", ""):
        assert "".join(steps_of(thinking)) == thinking
    assert steps_of("one\n\ntwo\nthree") == ["one\n\n", "two\nthree"]
    assert steps_of("one\ntwo\n") == ["one\n", "two\n"]


def test_dynamic_braking_by_hand() -> None:
    # the answer is in step 8 of 12; without markers the score of m steps is 0.9 (1 - 8/m):
    # 9: 0.1, 10: 0.18, 11: 0.245..., 12: 0.3; the threshold 0.2 masks the 11th, 0.25 brakes before the 12th
    steps = [f"s{i} " for i in range(1, 13)]
    right = [i == 7 for i in range(12)]
    assert braked(steps, right, 0.2, exact=False) == Braked("".join(steps[:10]), "s11 ")
    assert braked(steps[:11], right[:11], 0.2, exact=False) is None  # it ends before
    assert braked(steps, [False] * 12, 0.2, exact=False) is None
    # 1 of 2 is at once 0.45: nothing is masked
    assert braked(["a ", "b "], [True, False], 0.2, exact=False) == Braked("a ", "")


def test_exact_braking_keeps_the_second_solution() -> None:
    steps = ["a. ", "b 4. ", "c. ", "d 4. ", "e one. Two! Three. ", "f. "]
    right = [False, True, False, True, False, False]
    assert braked(steps, right, 0.2, exact=True) == Braked("a. b 4. c. d 4. ", "e one. Two! ")
    alone = [False, True, False, False, False, False]
    assert braked(steps, alone, 0.2, exact=True) == Braked("a. b 4. ", "c. ")
    assert braked(steps, [False] * 5 + [True], 0.2, exact=True) is None  # right at its end


@pytest.mark.parametrize("exact", [False, True])
def test_self_braking_writes_what_it_says(exact) -> None:
    thinking = "so 4.\nWait, check again.\nand 4.\nHmm, what if?\nand 4."

    def write(prompt, rng):
        return f"{OPEN}{thinking}{END}It is 4."

    made, _ = built(self_braking(1, exact=exact), write)
    (example,) = made.examples
    refuse_example(SFT, example)
    said = text(example)
    assert example["braked"]
    assert said.endswith(f"\n\n{BRAKE}{END}It is 4.")
    if exact:
        assert said.startswith(f"{OPEN}so 4.\nWait, check again.\nand 4.\nHmm, what if?\n\n{BRAKE}")
        ((begin, end),) = example["masked"]
        assert said[begin:end] == "Hmm, what if?"
    else:
        assert said.startswith(f"{OPEN}so 4.\n\n{BRAKE}")
        assert example["masked"] == []


def test_a_judge_finds_solutions_in_other_words() -> None:
    whole = f"{OPEN}so four.\nWait, check again.\nand four.\nHmm, what if?\nand four.{END}4."
    assert not built(self_braking(1), lambda prompt, rng: whole)[0].examples[0]["braked"]  # no step has a 4
    answers = iter(
        ["step: 1", "step: 3", "step: 1", "I see it.\n**step**: <1>", "step: 2", "step: 3", "none", "step: 3"]
    )
    judge = Scripted(lambda prompt, rng: next(answers))
    made, _ = built(self_braking(1, exact=True, judge=judge), lambda prompt, rng: whole)
    (example,) = made.examples
    assert text(example) == f"{OPEN}so four.\nWait, check again.\nand four.\nHmm, what if?\n\n{BRAKE}{END}4."
    first, second = (request.prompt.messages[0].content for request in judge.requests)
    assert [request.n for request in judge.requests] == [4, 4]
    assert "Question: 2+2?\nAnswer: 4\n\nstep 1: so four.\nstep 2: Wait, check again.\nstep 3:" in first
    assert "Answer: 4\n\nstep 2: Wait" in second  # the second one is looked for behind the first
    silent = Scripted(lambda prompt, rng: "I cannot say")
    made, _ = built(self_braking(1, judge=silent), lambda prompt, rng: whole)
    assert not made.examples[0]["braked"]
    assert elected(["step: 5", "step: 2"], 1, 9) == 2
    assert elected(["step: 9"], 1, 8) is None


def test_a_trace_that_does_not_overthink_stays_as_it_is() -> None:
    whole = f"{OPEN}first.\nthen.\nso 4.{END}4."
    made, _ = built(self_braking(1), lambda prompt, rng: whole)
    assert [(text(one), one["masked"], one["braked"]) for one in made.examples] == [(whole, [], False)]
    assert built(self_braking(1), lambda prompt, rng: f"{OPEN}so{END}5.")[0] == Built((), "5")


# -- what all share ----------------------------------------------------------------------------------------------------


def test_traces_are_as_many_as_the_budget_has_room_for() -> None:
    async def build(task):
        return await traces(task, 4, most=50, temperature=1.0)

    class Asking:
        def __init__(self):
            self.build = build

    def write(prompt, rng):
        return f"{OPEN}a{END}4."

    for budget, count in ((10**4, 4), (153, 2), (154, 3), (54, 1), (53, 0)):  # 4 of the prompt, 50 for each
        made, model = built(Asking(), write, budget=budget)
        assert len(made) == count == sum(request.n for request in model.requests), budget


def test_a_trace_that_is_cut_is_not_right() -> None:
    async def build(task):
        return await traces(task, 1, most=len(OPEN) + 1 + len(END) + 1, temperature=1.0)

    made, _ = built(type("A", (), {"build": staticmethod(build)})(), lambda prompt, rng: f"{OPEN}a{END}42.")
    assert [(trace.answer, trace.right) for trace in made] == [(None, False)]  # "4" so far


# -- Hunyuan-TurboS ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chat", [True, False])
def test_hunyuan_turbos_keeps_a_right_short_answer_and_continues_a_wrong_one(chat) -> None:
    lead = OPEN if chat else ""
    made, model = built(hunyuan_turbos(), lambda prompt, rng: "4.", chat=chat)
    assert [(text(e), e["failed"]) for e in made.examples] == [(f"{lead}{END}4.", 0)]
    assert len(model.requests) == 1

    said = iter(["It is 5.", f" no.{END}6.", f" no, it is four.{END}4."])
    made, model = built(hunyuan_turbos(), lambda prompt, rng: next(said), chat=chat)
    whole = f"{lead}It is 5.\nWait, no.\nWait, no, it is four.{END}4."
    assert [(text(e), e["failed"], e["question"]) for e in made.examples] == [(whole, 2, "2+2?")]
    assert made.answer == "4"


def test_hunyuan_turbos_gives_up_after_its_tries_and_needs_a_word_of_doubt() -> None:
    made, model = built(hunyuan_turbos(3), lambda prompt, rng: "5." if short(prompt) else f" so{END}6.")
    assert made == Built((), "6")
    assert len(model.requests) == 4
    with pytest.MonkeyPatch.context() as patch:
        plain = style()
        patch.setitem(globals(), "style", lambda chat: dataclasses.replace(plain, wait=""))
        with pytest.raises(InvalidInput, match="no word that continues a thinking"):
            built(hunyuan_turbos(), lambda prompt, rng: "4.")


# -- Adaptive Deep Reasoning, ARES -------------------------------------------------------------------------------------


@pytest.mark.parametrize("chat", [True, False])
def test_adaptive_deep_has_both_kinds_with_and_without_what_asks_for_them(chat) -> None:
    def write(prompt, rng):
        return "4." if short(prompt) or prompt.endswith(END) else f"{OPEN}{'so ' * rng.randint(2, 5)}{END}4."

    made, model = built(adaptive_deep(3, long="at length: ", short="at once: "), write, chat=chat)
    assert [(e["kind"], e["asked"]) for e in made.examples] == [("short", 1), ("short", 0), ("long", 1), ("long", 0)]
    said = [text(e, "prompt") for e in made.examples]
    assert said == ["at once: 2+2?", "2+2?", "at length: 2+2?", "2+2?"]
    texts = [text(e) for e in made.examples]
    assert texts[0] == texts[1] == f"{OPEN if chat else ''}{END}4."
    assert texts[2] == texts[3]
    assert "so " in texts[2]
    assert [request.n for request in model.requests] == [3, 3]
    assert all("at " not in str(request.prompt) for request in model.requests)  # nobody is asked so


def test_adaptive_deep_leaves_out_a_kind_that_is_never_right() -> None:
    made, _ = built(adaptive_deep(2), lambda prompt, rng: "5." if short(prompt) else f"{OPEN}a{END}4.")
    assert [e["kind"] for e in made.examples] == ["long", "long"]
    made, _ = built(adaptive_deep(2), lambda prompt, rng: "5.")
    assert made == Built((), "5")


def test_ares_takes_the_right_trace_nearest_to_what_the_difficulty_is_worth() -> None:
    def of(rights, lengths, **options):
        said = iter([f"{OPEN}{'a' * n}{END}{4 if good else 5}." for good, n in zip(rights, lengths, strict=True)])
        made, _ = built(ares(len(rights), **options), lambda prompt, rng: next(said))
        return made

    bare = len(f"{OPEN}{END}4.")  # a token a letter
    # always solved: 20 tokens are wanted; half solved: (20 + 100) / 2 = 60
    easy = of([1, 1, 1, 1], [90, 22 - bare, 30, 60], short=20, long=100).examples
    assert (easy[0]["rate"], easy[0]["target"], len(text(easy[0]))) == (1.0, 20.0, 22)
    half = of([1, 0, 1, 0], [9, 60 - bare, 70 - bare, 5], short=20, long=100).examples
    assert (half[0]["rate"], half[0]["target"], len(text(half[0]))) == (0.5, 60.0, 70)
    # as near: the shorter one
    assert len(text(of([1, 0, 1, 0], [70 - bare, 1, 50 - bare, 1], short=20, long=100).examples[0])) == 50
    assert of([0, 0], [3, 3]) == Built((), "5")


@pytest.mark.parametrize(
    "make",
    [
        lambda: adaptive_deep(0), lambda: adaptive_deep(long="x", short="x"), lambda: ares(0), lambda: ares(short=0),
        lambda: ares(short=9, long=8),
        lambda: adar1(0), lambda: adar1(group_pairs=-1), lambda: adacot(enough=0), lambda: adacot(0),
        lambda: adactrl(0), lambda: adactrl(easy=1), lambda: adactrl(max_tokens=0),
        lambda: thinkdial(0), lambda: thinkdial(text="no word"), lambda: self_braking(threshold=1),
        lambda: self_braking(0), lambda: hunyuan_turbos(0), lambda: hunyuan_turbos(max_tokens=0),
    ],
)  # fmt: skip
def test_values_out_of_range_are_refused(make) -> None:
    with pytest.raises(InvalidInput, match=r"give|write"):
        make()


@pytest.mark.parametrize(
    ("example", "field"),
    [
        ({"id": "q", "prompt": "a"}, "completion"),
        ({"id": "q", "prompt": "", "completion": "b"}, "prompt"),
        ({"id": "q", "prompt": "a", "completion": ["b"]}, "completion"),
        ({"id": "q", "prompt": "a", "completion": [{"role": "assistant"}]}, "completion"),
        ({"prompt": "a", "completion": "b"}, "id"),
    ],
)
def test_what_trl_could_not_read_is_refused(example, field) -> None:
    with pytest.raises(InvalidInput, match=f"{field}="):
        refuse_example(SFT, example)


# -- short right traces ------------------------------------------------------------------------------------------------


def test_the_shortest_right_traces_are_kept() -> None:
    drawn = iter(["a b c", "a", "wrong", "a b"])

    def write(prompt, rng):
        thinking = next(drawn)
        return f"{thinking}</think>\n\n{'5' if thinking == 'wrong' else '4'}."

    made, model = built(brief(4, keep=2), write, chat=False)
    assert [text(each) for each in made.examples] == ["a</think>\n\n4.", "a b</think>\n\n4."]
    assert made.answer == "4"
    assert sum(request.n for request in model.requests) == 4


def test_they_are_drawn_at_an_effort_and_learnt_behind_the_usual_prompt() -> None:
    made, model = built(brief(1, effort="low"), lambda prompt, rng: f"{OPEN}so{END}4.")
    (asked,) = model.requests
    assert asked.prompt.thinking.effort == "low"
    (one,) = made.examples
    assert "chat_template_kwargs" not in one
    assert one["prompt"] == [{"role": "user", "content": "2+2?"}]
    with pytest.raises(InvalidInput, match="take the style think"):
        built(brief(1, effort="low"), lambda prompt, rng: "4.", chat=False)


def test_no_right_trace_no_example() -> None:
    made, _ = built(brief(2), lambda prompt, rng: f"{OPEN}so{END}5.")
    assert made == Built((), "5")
    for bad in ({"n": 0}, {"keep": 0}, {"max_tokens": 0}, {"temperature": -1.0}):
        with pytest.raises(InvalidInput):
            brief(**bad)
