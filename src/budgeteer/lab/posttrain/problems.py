"""The problems of a run as a model of transformers is asked them, and how what it writes is read and scored."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from budgeteer import verify
from budgeteer.core.environment import Item, verified
from budgeteer.core.errors import InvalidInput, VerifierError
from budgeteer.lab import pool as pools
from budgeteer.lab.posttrain.settings import Settings
from budgeteer.lab.questions import examples_of, info_of
from budgeteer.lab.tasks.named import parse
from budgeteer.models.chat import Chat, template_options
from budgeteer.models.model import PREFILL, PREFIX
from budgeteer.models.transformers import tags_in
from budgeteer.rl.identity import digest
from budgeteer.solve import Style, styles
from budgeteer.verify.sandbox import Sandbox

SAID = 5
"""Failures of a verifier that are reported one by one."""


class Asked(NamedTuple):
    """What a model is asked, and how.

    Attributes:
        train, heldout: problems; none is in both.
        style: how the model is asked and its answers are read; ``name`` of it.
        template: variables of the chat template.
        score: an answer to a problem -> [0, 1]; raises VerifierError.
        close: end the verifier's process.
        identity: fingerprint of all of this.
    """

    train: tuple[Item, ...]
    heldout: tuple[Item, ...]
    style: Style
    name: str
    template: Mapping[str, Any]
    score: Callable[[Item, str], float]
    close: Callable[[], None]
    identity: str

    def prompt(self, item: Item) -> str | list[dict[str, str]]:
        """The problem as TRL takes it: text, or messages.

        Raises:
            InvalidInput: the style begins the answer, which training leaves to the model.
        """
        made = self.style.prompt(item.prompt)
        if isinstance(made, str):
            return made
        if made.begun:
            raise InvalidInput(f"style {self.name!r} begins the model's answer; choose another --style for training")
        return [message._asdict() for message in made.messages]


class _Traits(NamedTuple):
    """What decides the style of a model, as its tokenizer says it."""

    name: str
    capabilities: frozenset[str]
    tags: Any


def asked(settings: Settings, tokenizer: Any) -> Asked:
    """The problems of a run.

    A verifier ``python:FILE.py`` runs in a process with limits. With a chat template a model is asked in chats, without
    one in raw text after worked examples.

    Raises:
        BudgeteerError: of the task, the verifier or the style.
    """
    spec, verifier = parse(settings.task)
    own = verifier is not None and verifier.startswith("python:")
    sandbox = Sandbox(verifier) if own and verifier is not None else None
    task = str(spec) if own else settings.task
    pool = pools.build(task, settings.task_seed, settings.train, settings.heldout)
    plain = tokenizer.chat_template is None
    references = [item.answer for item in (*pool.train, *pool.heldout) if item.answer is not None]
    examples = examples_of(task, pool.environment, len(pool.train) + len(pool.heldout), settings.task_seed)
    info = info_of(pool.environment.name, references, examples)
    traits = _Traits("", frozenset({PREFIX if plain else PREFILL}), tags_in(tokenizer))
    info = info.by(traits)
    name = settings.style or styles.choose(traits, info)
    style = styles.style_of(name, info)
    first = style.prompt(pool.train[0].prompt)
    template = {}
    if isinstance(first, Chat):
        if plain:
            raise InvalidInput(
                f"the tokenizer of {settings.model} has no chat template, which the style {name!r} needs; leave "
                "--style out or set it to direct or few-shot"
            )
        template = template_options(first.thinking, tokenizer.chat_template, settings.model)

    def score(item: Item, answer: str) -> float:
        if sandbox is None:
            return verified(pool.environment, item, answer)
        return 0.0 if item.answer is None else sandbox(answer, item.answer)

    contents = [pool.digest(), verify.identity(verifier) if own and verifier is not None else ""]
    return Asked(
        pool.train,
        pool.heldout,
        style,
        name,
        template,
        score,
        (lambda: None) if sandbox is None else sandbox.close,
        digest(*(text.encode() for text in contents)),
    )


@dataclass(slots=True)
class Grader:
    """Scores of completions. A verifier that fails gives 0, and is counted.

    Attributes:
        asked: the problems.
        decode: token ids -> text, special tokens included.
        ends: ids of the tokens that the model itself ends with.
        say: is told of the first failures.
        failures: of the verifier since :meth:`taken`.
    """

    asked: Asked
    decode: Callable[[list[int]], str]
    ends: frozenset[int]
    say: Callable[[str], None]
    failures: int = 0
    _said: int = field(default=0, repr=False)

    def text(self, tokens: Sequence[int]) -> str:
        """The trace of a completion: without the tokens that ended it, and up to the style's first stop text."""
        kept = list(tokens)
        while kept and kept[-1] in self.ends:
            kept.pop()
        text = self.decode(kept)
        found = [at for stop in self.asked.style.stop if (at := text.find(stop)) >= 0]
        return text[: min(found)] if found else text

    def score(self, item: Item, tokens: Sequence[int]) -> float:
        """The score of a completion in [0, 1]; 0 without an answer, and where the verifier fails."""
        answer = self.asked.style.read(self.text(tokens))
        if answer is None:
            return 0.0
        try:
            return self.asked.score(item, answer)
        except VerifierError as error:
            self.failures += 1
            if self._said < SAID:
                self._said += 1
                more = "; more of them are only counted" if self._said == SAID else ""
                self.say(f"{error}; the answer counts 0{more}")
            return 0.0

    def taken(self) -> int:
        """Failures since the last call."""
        count, self.failures = self.failures, 0
        return count
