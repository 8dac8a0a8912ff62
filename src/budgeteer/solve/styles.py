"""How models are asked, by name: the embedded reasoner's format, few-shot raw completions, chat."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

from budgeteer import verify
from budgeteer.core import registry
from budgeteer.core.errors import InvalidInput
from budgeteer.core.spec import parse
from budgeteer.models.chat import THINK, Chat, Message, Tags
from budgeteer.models.model import PREFILL, PREFIX
from budgeteer.solve.strategy import Style

REASONER = "reasoner"
"""Name of the embedded reasoner, and of its style."""
_DIGITS = r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?"
_WHOLE = re.compile(rf"[-+]?\$?[-+]?{_DIGITS}")


class Example(NamedTuple):
    """One worked question of a few-shot prompt; all or none of a prompt's examples have reasoning."""

    question: str
    reasoning: str
    answer: str


@dataclass(frozen=True, slots=True)
class Asked:
    """What a style has to know about a task.

    Attributes:
        name: of the task, such as ``"chains"``; it tells whether the embedded reasoner was trained on it.
        numeric: whether all answers are numbers, so that the number that an answer's line states is the answer.
        examples: worked questions that are not among those asked.
        units: whether some of these numbers are dollars, so that other units are kept for the verifier to refuse.
        tags: between which the model thinks in a chat; None = its chat template has none.
    """

    name: str
    numeric: bool = False
    examples: tuple[Example, ...] = ()
    units: bool = False
    tags: Tags | None = THINK

    def by(self, model: object) -> Asked:
        """The task as this model is asked it: with the tags that the model declares, if it declares any."""
        return replace(self, tags=getattr(model, "tags", self.tags))


class Named(Protocol):
    """The attributes of a model that decide the style."""

    @property
    def name(self) -> str: ...

    @property
    def capabilities(self) -> frozenset[str]: ...


def normal(text: str) -> str:
    """The normal form of an answer, so that equal answers compare equal.

    It has no decoration; numbers have no commas, ``$``, ``+`` and no zeros at the end of decimals.

    >>> normal(" **1,234.50** "), normal("$5."), normal("-0.0"), normal("['1',  '2']")
    ('1234.5', '5', '0', "['1', '2']")
    """
    shown = " ".join(text.split()).strip("*`_ ").removesuffix(".").strip("*`_ ")
    if not _WHOLE.fullmatch(shown):
        return shown
    number = shown.replace(",", "").replace("$", "").replace("+", "")
    if "." in number:
        number = number.rstrip("0").rstrip(".")
    return "0" if number == "-0" else number


def first_line(text: str) -> str | None:
    """The first line, or None if it is blank.

    >>> first_line(" 4\\n5"), first_line("\\n4")
    ('4', None)
    """
    return text.split("\n", 1)[0].strip() or None


def _reader(task: Asked) -> Callable[[str], str | None]:
    """The reader of an answer's line: if all answers are numbers, it returns the number that the line states
    (:func:`budgeteer.verify.stated`), else the line as it is."""
    if not task.numeric:
        return first_line

    def answer(text: str) -> str | None:
        line = first_line(text)
        return line and verify.stated(line, units=task.units)

    return answer


def _said(text: str) -> str | None:
    """The first line that is not blank: chat models decorate and break lines as they like."""
    return next((line for line in (part.strip("*`_ \t") for part in text.splitlines()) if line), None)


_TRAINED = {
    "chains": 5,
    "chain_sum": 6,
    "gcd": 5,
    "number_filtering": 36,
    "real": 36,
    "hard": 5,
    "homogeneous": 5,
}
"""Tasks that the embedded reasoner was trained on -> tokens of their longest ``</think>`` and answer."""


def reasoner(task: Asked) -> Style:
    """The question alone; the thinking ends with ``</think>``, the answer is the first line after it.

    Raises:
        InvalidInput: the embedded reasoner was not trained on the task.
    """
    if task.name not in _TRAINED:
        raise InvalidInput(
            f"the embedded reasoner knows nothing of {task.name!r}; it was trained on {', '.join(_TRAINED)}. "
            f"Choose one of those, or another model such as --model smollm2"
        )
    return Style(str, first_line, "</think>", answer_tokens=_TRAINED[task.name], normal=normal)


def few_shot(task: Asked) -> Style:
    """A raw completion after worked examples with reasoning; ``Answer:`` closes the thinking.

    Raises:
        InvalidInput: no examples with reasoning are known for the task.
    """
    examples = _examples(task)
    if not any(example.reasoning for example in examples):
        raise InvalidInput(f"no worked examples for {task.name!r}; give some, or take the style direct or chat")
    shots = "".join(f"Question: {e.question}\nReasoning: {e.reasoning}\nAnswer: {e.answer}\n\n" for e in examples)
    return Style(
        lambda text: f"{shots}Question: {text}\nReasoning:",
        _reader(task),
        "\nAnswer:",
        stop=("\n\n", "\nQuestion:"),
        answer_tokens=24,
        wait=" Wait,",
        normal=normal,
    )


def direct(task: Asked) -> Style:
    """A raw completion after examples without reasoning: the model answers at once.

    Raises:
        InvalidInput: no examples are known for the task.
    """
    examples = _examples(task)
    if not examples:
        raise InvalidInput(f"no examples for {task.name!r}; give some, or take the style chat")
    shots = "".join(f"Question: {e.question}\nAnswer: {e.answer}\n\n" for e in examples)
    return Style(
        lambda text: f"{shots}Question: {text}\nAnswer:",
        _reader(task),
        "",
        stop=("\n",),
        answer_tokens=24,
        normal=normal,
    )


CHAT = "Think step by step, briefly. Then write the final answer alone on a last line that begins with 'Answer:'."


def chat(task: Asked) -> Style:
    """Chat messages; the answer is on the line of ``Answer:``, or on the next one."""
    read = _reader(task)

    def answer(text: str) -> str | None:
        said = _said(text)
        return said and read(said)

    return Style(
        lambda text: Chat((Message("system", CHAT), Message("user", text))),
        answer,
        "Answer:",
        answer_tokens=32,
        normal=normal,
        complete=lambda text: "\n" in text.lstrip("*`_ \n"),
    )


def style_of(text: str, task: Asked) -> Style:
    """The registered style of this name, for a task; options follow it as in ``NAME:key=value``.

    Raises:
        UnknownName: no style has the name, or it has no such option.
        InvalidInput: the style does not fit the task, or the method makes no Style.
    """
    spec = parse(text, "style")
    made = registry.make("style", spec.name, **spec.values)(task)
    if not isinstance(made, Style):
        raise InvalidInput(f"style {spec.name!r} makes a {type(made).__name__}; return a Style")
    return made


def choose(model: Named, task: Asked) -> str:
    """The name of the style that fits a model and a task.

    The embedded reasoner has a style of its own. A model whose chat template has tags of thinking is asked in a chat,
    with the style think. Another model that continues text is asked in raw completions after worked
    examples, with reasoning if the examples have it. Any other model is asked in chat messages.

    Raises:
        InvalidInput: the model is the embedded reasoner, which was not trained on the task.
    """
    if model.name == REASONER:
        reasoner(task)
        return REASONER
    if PREFILL in model.capabilities and getattr(model, "tags", None) is not None:
        return "think"
    examples = _examples(task)
    if PREFIX not in model.capabilities or not examples:
        return "chat"
    return "few-shot" if any(example.reasoning for example in examples) else "direct"


def _examples(task: Asked) -> Sequence[Example]:
    return task.examples or EXAMPLES.get(task.name) or EXAMPLES["numbers" if task.numeric else "text"]


EXAMPLES: dict[str, tuple[Example, ...]] = {
    "numbers": (
        Example(
            "Mia has 3 boxes with 4 pencils each and buys 5 more pencils. How many pencils does she have?",
            "3 boxes of 4 are 3 * 4 = 12 pencils. With 5 more that is 12 + 5 = 17.",
            "17",
        ),
        Example(
            "A ticket costs $8. A group of 6 pays with a $50 note. How many dollars do they get back?",
            "6 tickets cost 6 * 8 = 48 dollars. They get back 50 - 48 = 2.",
            "2",
        ),
        Example(
            "A train runs 240 miles in 4 hours. How many miles does it run in 7 hours at the same speed?",
            "In one hour it runs 240 / 4 = 60 miles. In 7 hours it runs 7 * 60 = 420.",
            "420",
        ),
    ),
    "text": (
        Example("Which city is the capital of France?", "The capital of France is Paris.", "Paris"),
        Example("Is a whale a fish or a mammal?", "Whales breathe air and nurse their young.", "mammal"),
        Example("What day comes three days after Monday?", "Tuesday, Wednesday, Thursday.", "Thursday"),
    ),
    "chain_sum": (
        Example(
            "State the final answer to the following arithmetic problem: 4 + 3 - 6 =", "4 + 3 = 7. 7 - 6 = 1.", "1"
        ),
        Example("State the final answer to the following arithmetic problem: 2 - 7 =", "2 - 7 = -5.", "-5"),
        Example(
            "State the final answer to the following arithmetic problem: 9 + 5 + 8 =", "9 + 5 = 14. 14 + 8 = 22.", "22"
        ),
        Example(
            "State the final answer to the following arithmetic problem: 8 - 3 + 1 - 2 =",
            "8 - 3 = 5. 5 + 1 = 6. 6 - 2 = 4.",
            "4",
        ),
    ),
    "gcd": (
        Example(
            "Find the Greatest Common Divisor (GCD) of these numbers: 12, 18. Give only the GCD as your final answer.",
            "18 - 12 = 6. 6 divides 12 and 18.",
            "6",
        ),
        Example(
            "Find the Greatest Common Divisor (GCD) of these numbers: 7, 9. Give only the GCD as your final answer.",
            "7 is a prime and does not divide 9.",
            "1",
        ),
        Example(
            "Find the Greatest Common Divisor (GCD) of these numbers: 28, 21. Give only the GCD as your final answer.",
            "28 - 21 = 7. 7 divides 21 and 28.",
            "7",
        ),
    ),
    "chains": (
        Example(
            "Modulo 11, from left to right: 7 + 5 * 3 =",
            "7 + 5 = 12, modulo 11 that is 1. 1 * 3 = 3.",
            "3",
        ),
        Example("Modulo 11, from left to right: 2 - 6 =", "2 - 6 = -4, modulo 11 that is 7.", "7"),
        Example(
            "Modulo 11, from left to right: 9 * 4 - 1 =",
            "9 * 4 = 36, modulo 11 that is 3. 3 - 1 = 2.",
            "2",
        ),
    ),
}
"""Task -> our own worked examples; ``numbers`` and ``text`` are for questions of a file."""
