# ruff: noqa: RUF001 -- signs as models write them
"""Questions from files and tasks, and the styles in which they are asked."""

from __future__ import annotations

import gzip
import io
import json

import pytest

from budgeteer.check.scripted import Scripted
from budgeteer.core.errors import InvalidInput, UnknownName
from budgeteer.lab import questions
from budgeteer.lab.tasks.chains import Chains
from budgeteer.models.chat import Chat, Message
from budgeteer.models.model import PREFIX
from budgeteer.solve import Question, styles
from budgeteer.solve.styles import Example, TaskInfo, choose, normal, style_of
from helpers import needs


def write(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_plain_lines_and_gsm8k(tmp_path):
    path = write(
        tmp_path / "some.jsonl",
        {"id": "a", "question": "2 + 2?", "answer": 4},
        {"question": "Half of 5 apples?", "answer": "5 / 2 = <<5/2=2.5>>2.5\n#### 2.5"},
        {"id": 7, "question": "Why?"},
    )
    found = questions.load(path)
    assert [q.id for q in found.questions] == ["a", "some:2", "7"]
    assert found.references == {"a": "4", "some:2": "2.5"}
    assert found.info == TaskInfo("some", numeric=True)
    a, half, why = found.questions
    assert (found.grade(a, "4"), found.grade(a, "5"), found.grade(a, None)) == (1.0, 0.0, 0.0)
    assert found.grade(half, "it is 2.50") == 1.0
    assert found.grade(why, "because") is None
    assert len(questions.load(path, limit=2).questions) == 2


def test_gz_and_standard_input(tmp_path, monkeypatch):
    line = '{"question": "Capital of France?", "answer": "Paris"}\n'
    with gzip.open(tmp_path / "x.jsonl.gz", "wt") as file:
        file.write(line)
    monkeypatch.setattr("sys.stdin", io.StringIO(line))
    for source in (str(tmp_path / "x.jsonl.gz"), "-"):
        found = questions.load(source)
        assert found.grade(found.questions[0], "paris") == 1.0
        assert not found.info.numeric


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "no questions"),
        ("{", "line 1: not JSON"),
        ("[1]\n", r"line 1: not an object with fields but \[1\]"),
        ('{"question": " "}\n', "field 'question' holds ' ' and no text"),
        ('{"q": "a", "a": "b"}\n', "line 1: no field 'question'; it has 'q', 'a'; name yours with --question-field"),
        ('{"question": "a", "id": 1}\n\n{"question": "b", "id": "1"}\n', "line 3: the id '1' is there already"),
    ],
)
def test_bad_files_are_named(tmp_path, text, match):
    (tmp_path / "x.jsonl").write_text(text)
    with pytest.raises(InvalidInput, match=match):
        questions.load(str(tmp_path / "x.jsonl"))


def test_bad_sources_say_what_there_is(tmp_path):
    with pytest.raises(InvalidInput, match="cannot read"):
        questions.load(str(tmp_path / "none.jsonl"))
    with pytest.raises(UnknownName, match="chains"):
        questions.load("chain")
    with pytest.raises(InvalidInput, match="names no family"):
        questions.load("gym")
    with pytest.raises(InvalidInput, match="'4' is no option"):
        questions.load("chains:4")
    with pytest.raises(InvalidInput, match="'4' is no option"):
        questions.load("gym:gcd:4")
    with pytest.raises(UnknownName, match="did you mean 'min_steps'"):
        questions.load("chains:most=4", limit=3)
    with pytest.raises(InvalidInput, match="at least 1"):
        questions.load("chains", limit=0)


def test_chains():
    found = questions.load("chains:min_steps=2,max_steps=3", limit=10, seed=4)
    want = Chains(10, 4, min_steps=2, max_steps=3).items
    assert [(q.id, q.text) for q in found.questions] == [(item.key, item.prompt) for item in want]
    assert [found.grade(q, item.answer) for q, item in zip(found.questions, want, strict=True)] == [1.0] * 10
    assert found.grade(found.questions[0], None) == 0.0
    assert found.info == TaskInfo("chains", numeric=True)


def test_reasoning_gym_with_its_own_verifier_and_examples():
    needs.reasoning_gym()
    known = questions.load("gym:gcd", limit=5)
    assert [known.grade(q, known.references[q.id]) for q in known.questions] == [1.0] * 5
    assert known.info.examples == ()
    other = questions.load("gym:basic_arithmetic", limit=5)
    shots = other.info.examples
    assert len(shots) == 4
    assert not {shot.question for shot in shots} & {q.text for q in other.questions}
    style = style_of("direct", other.info)
    assert style.prompt("1 + 1 =").endswith(f"Answer: {shots[-1].answer}\n\nQuestion: 1 + 1 =\nAnswer:")


# styles


@pytest.mark.parametrize(
    ("name", "task", "trace", "answer"),
    [
        ("chat", "numbers", "Answer: 12:30", "12:30"),
        ("chat", "numbers", "Answer: B1", "B1"),
        ("chat", "numbers", "Answer: 1,2,3", "1,2,3"),
        ("chat", "numbers", "Answer: 3-5", "3-5"),
        ("chat", "numbers", "Answer: it is 3/4", "0.75"),
        ("chat", "numbers", r"Answer: $\\frac{3}{4}$", r"$\\frac{3}{4}$"),
        ("chat", "numbers", "Answer: 5 to 12", "5 to 12"),
        ("chat", "numbers", "Answer: 1e5", "100000"),
        ("chat", "numbers", "Answer: 50%", "0.5"),
        ("chat", "numbers", "Answer: 1.5 × 10^3", "1500"),
        ("chat", "numbers", "Answer: - 5", "-5"),
        ("chat", "numbers", "Answer: 10²", "100"),
        ("chat", "numbers", "Answer: 2^10", "2^10"),
        ("chat", "numbers", "Answer: sqrt(2)", "sqrt(2)"),
        ("chat", "numbers", "Answer: 7 remainder 2", "7 remainder 2"),
        ("chat", "numbers", "Answer: 5 or 6", None),
        ("chat", "numbers", "Answer: 42 (not 43)", None),
        ("few-shot", "numbers", "\nAnswer: She has 17 pencils in total.", "17"),
        ("few-shot", "numbers", "\nAnswer: They get back $50 - $48 = $2.", "2"),
        ("few-shot", "numbers", "\nAnswer: They get back 50 - 48 = 3.", "They get back 50 - 48 = 3"),
        ("few-shot", "numbers", "\nAnswer: Tom has 3 apples and Mia has 4.", "Tom has 3 apples and Mia has 4"),
        ("few-shot", "numbers", "\nAnswer: half of 5", "half of 5"),
        ("reasoner", "chains", "7+5=1;</think>1\n?7", "1"),
        ("reasoner", "chains", "7+5=1;", None),
        ("reasoner", "chains", "</think>", None),
        ("few-shot", "numbers", " 3 * 4 = 12.\nAnswer: $1,200.00", "1200"),
        ("few-shot", "numbers", " 3 * 4 = 12. The sum is 4.\nAnswer: 3 + 1 = 4 apples.\n", "4"),
        ("few-shot", "text", " It is.\nAnswer:  a  whale.\n\nQuestion: x", "a whale"),
        ("direct", "numbers", " 1,000", "1000"),
        ("chat", "numbers", "It is 3 * 4.\n\n**Answer:** 12", "12"),
        ("chat", "text", "Answer:\n\n**Paris**\nBye", "Paris"),
        ("chat", "text", "no idea", None),
    ],
)
def test_answers_are_read(name, task, trace, answer):
    assert style_of(name, TaskInfo(task, numeric=task == "numbers")).read(trace) == answer


def test_numbers_have_one_form():
    same = ["1200", "1,200", " $1200 ", "+1200", "1200.00", "1200.", "**1200**"]
    assert {normal(text) for text in same} == {"1200"}
    assert normal("-0") == normal("0.0") == "0"
    assert normal("12 apples") == "12 apples"
    assert normal("1,2,3") == "1,2,3"
    assert normal("12,34") == "12,34"
    assert normal("123456789012345678901234567890.10") == "123456789012345678901234567890.1"


def test_a_few_shot_prompt_ends_where_the_model_goes_on():
    shots = (Example("1 + 1?", "1 and 1 are 2.", "2"),)
    style = style_of("few-shot", TaskInfo("sums", True, shots))
    assert style.prompt("2 + 2?") == (
        "Question: 1 + 1?\nReasoning: 1 and 1 are 2.\nAnswer: 2\n\nQuestion: 2 + 2?\nReasoning:"
    )
    assert style.read(" 2 and 2 are 4." + style.close + " 4") == "4"


def test_every_example_is_read_by_its_own_style():
    for name, examples in styles.EXAMPLES.items():
        style = style_of("few-shot", TaskInfo(name, numeric=name != "text"))
        for example in examples:
            assert style.read(f" {example.reasoning}\nAnswer: {example.answer}\n\nQuestion:") == example.answer


def test_the_style_that_fits():
    class Named(Scripted):
        def __init__(self, name, *capabilities):
            super().__init__(lambda prompt, rng: "")
            self.name, self.capabilities = name, frozenset(capabilities)

    reasoner, base, box = Named("reasoner", PREFIX), Named("base", PREFIX), Named("gpt")
    assert choose(reasoner, TaskInfo("gcd", True)) == "reasoner"
    assert choose(base, TaskInfo("gcd", True)) == "few-shot"
    assert choose(base, TaskInfo("other", True, (Example("a", "", "1"),))) == "direct"
    assert choose(box, TaskInfo("gcd", True)) == "chat"
    with pytest.raises(InvalidInput, match=r"trained on chains, .*--model smollm2"):
        choose(reasoner, TaskInfo("gsm8k", True))
    with pytest.raises(InvalidInput, match="no worked examples"):
        style_of("few-shot", TaskInfo("other", True, (Example("a", "", "1"),)))
    with pytest.raises(UnknownName, match="few-shot"):
        style_of("fewshot", TaskInfo("gcd"))


def test_chat_is_messages():
    prompt = style_of("chat", TaskInfo("text")).prompt("Why?")
    assert isinstance(prompt, Chat)
    assert prompt.messages[-1] == Message("user", "Why?")
    assert Question("a", "b").text == "b"
