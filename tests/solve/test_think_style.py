r"""The style think: what is asked, and which part of an answer is read."""

from __future__ import annotations

import pytest

from budgeteer.core.errors import InvalidInput
from budgeteer.models.chat import THINK, Chat, Thinking, tags_of
from budgeteer.solve.styles import BOX, LINE, TaskInfo, choose, style_of

NUMBERS, TEXTS = TaskInfo("gsm8k", numeric=True), TaskInfo("other")


def chat_of(style: str, task: TaskInfo) -> Chat:
    prompt = style_of(style, task).prompt("How many?")
    assert isinstance(prompt, Chat)
    return prompt


@pytest.mark.parametrize(
    ("answer", "number", "text"),
    [
        ("The answer is \\boxed{42}.", "42", "42"),
        ("\\boxed{7} no, \\boxed{42}", "42", "42"),
        ("The answer is \\boxed{4", None, None),
        ("I put it in \\boxed{}.\nAnswer: 42", "42", "42"),
        ("It is $\\boxed{\\frac{1}{2}}$", "0.5", "\\frac{1}{2}"),
        ("**Answer:** 42\n\nI hope this helps!", "42", "42"),
        ("So the final answer is 1,042 apples.\nBye.", "1042", "1,042 apples"),
        ("6 * 7 is\n42", "42", "42"),
        ("Answer: Paris", "Answer: Paris", "Paris"),  # where all are numbers, words are left to the verifier
        ("  \n", None, None),
    ],
)
def test_the_answer_is_the_box_or_the_line_that_says_so_or_the_last_line(
    answer: str, number: str | None, text: str | None
) -> None:
    for task, want in ((NUMBERS, number), (TEXTS, text)):
        style = style_of("think", task)
        assert style.read(f"<think>\nI say \\boxed{{1}}\n</think>\n\n{answer}") == want
        assert style.read(f"<think>\n{answer}") is None  # an answer that is not outside the tags is none


def test_what_is_asked_for_is_what_is_led_to() -> None:
    for task, asks, lead in ((NUMBERS, BOX, "The answer is \\boxed{"), (TEXTS, LINE, "Answer:")):
        assert chat_of("think", task).messages[-1].content == f"How many?\n\n{asks}"
        assert style_of("think", task).closed("<think>\nso") == f"<think>\nso\n</think>\n\n{lead}"
    assert chat_of("think", TaskInfo("thinking")).messages[-1].content == "How many?"
    assert style_of("think", TaskInfo("thinking")).closed("") == THINK.end
    assert chat_of("think:on=false,effort=low,tokens=9", TEXTS).thinking == Thinking(False, "low", 9)


def test_the_tags_are_those_of_the_model() -> None:
    class Model:
        name, capabilities, tags = "m", frozenset({"prefill", "prefix"}), tags_of("[THINK] [/THINK]")

    class Plain(Model):
        tags = None

    assert style_of("think", TEXTS.by(Model())).close == "[/THINK]"
    assert choose(Model(), NUMBERS) == "think"
    assert choose(Plain(), NUMBERS) == "few-shot"
    with pytest.raises(InvalidInput, match="no tags of thinking; use the style chat"):
        style_of("think", TEXTS.by(Plain()))
    assert style_of("think", TEXTS.by(object())).close == "</think>"


def test_a_thinking_that_is_switched_off_leaves_an_answer_without_tags() -> None:
    style = style_of("think:on=false", NUMBERS)
    assert (style.close, style.closing) == ("", "")
    for trace in ("It is \\boxed{42}.", "<think>\n\n</think>\n\n\\boxed{42}", "6 * 7 is\n42"):
        assert style.read(trace) == "42"


def test_efforts_are_asked_for_by_the_words_that_were_trained() -> None:
    said = chat_of('think:effort=low,said="Effort {effort}. "', TEXTS)
    assert said.messages[0].content.startswith("Effort low. ")
    assert said.thinking == Thinking()  # the chat template is told nothing
    assert chat_of('think:effort=medium,said="{percent}%: "', TEXTS).messages[0].content.startswith("50%: ")
    assert chat_of('think:effort="70",said="{percent}%: "', TEXTS).messages[0].content.startswith("70%: ")
    with pytest.raises(InvalidInput, match="none is given"):
        chat_of('think:said="Effort {effort}. "', TEXTS)
    with pytest.raises(InvalidInput, match="does not say"):
        chat_of('think:effort=low,said="Think hard. "', TEXTS)
    tokens = chat_of('think:effort="128",said=" Think for {effort} tokens.",behind=true', NUMBERS)
    assert tokens.messages[0].content.endswith(f"{BOX} Think for 128 tokens.")
    with pytest.raises(InvalidInput, match="behind=true says where the text of said stands, and there is none"):
        chat_of("think:behind=true", TEXTS)


def test_every_style_asks_for_a_mode_as_variants_of_training_do() -> None:
    said = 'effort=low,said="{effort}: "'
    asked = chat_of(f"chat:{said}", TEXTS)
    assert asked.messages[-1].content == "low: How many?"
    assert asked.messages[0] == chat_of("chat", TEXTS).messages[0]
    for name in ("few-shot", "direct"):  # around the raw text, worked examples and all, as in training
        plain = style_of(name, NUMBERS).prompt("How many?")
        assert style_of(f"{name}:{said}", NUMBERS).prompt("How many?") == f"low: {plain}"
    chains = TaskInfo("chains", numeric=True)
    assert style_of("reasoner", chains).prompt("2+2=") == "2+2="
    assert style_of(f"reasoner:{said},behind=true", chains).prompt("2+2=") == "2+2=low: "
    assert style_of("reasoner:begun=[Easy]", chains).prompt("2+2=") == "2+2=[Easy]"
    for name in ("chat", "few-shot", "direct"):
        with pytest.raises(InvalidInput, match="effort=low is said by no text"):
            style_of(f"{name}:effort=low", NUMBERS)


def test_answers_begin_as_they_were_trained_to() -> None:
    assert chat_of('think:begun="128: "', TEXTS).begun == "128: "
    assert chat_of('think:begun="{open}[Easy]"', TEXTS).begun == "<think>\n[Easy]"
    assert chat_of("think", TEXTS).begun == ""
