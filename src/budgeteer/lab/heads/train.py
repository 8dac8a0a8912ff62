"""Heads of a model, from its name and questions to files: what ``budgeteer heads train`` does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from budgeteer.core.errors import InvalidInput
from budgeteer.engine.head import HEADS, Head, save_head
from budgeteer.engine.kinds import KINDS
from budgeteer.engine.vocabulary_head import LinearHead
from budgeteer.lab.heads.difficulty import held_difficulty, train_difficulty
from budgeteer.lab.heads.fit import FLAT, Form, HeldOut
from budgeteer.lab.heads.guidance import OFTEN, held_guidance, train_guidance
from budgeteer.lab.heads.introspection import held_introspection, length_bins, train_introspection
from budgeteer.lab.heads.traces import Collection, Traces, collect
from budgeteer.lab.heads.vocabulary import write_into
from budgeteer.lab.questions import QuestionSet
from budgeteer.models.model import Model
from budgeteer.solve import styles

FILES = {kind: name for name, kind in KINDS.items()}
"""What ``budgeteer heads train`` calls a head -> name of its file."""


@dataclass(frozen=True, slots=True)
class Training:
    """How heads are trained.

    Attributes:
        kinds: some of ``guidance``, ``zip-rc``, ``difficulty``.
        form: of the heads.
        steps: updates of a head; a fifth of them for ``difficulty``, which learns from one position a question.
        line_ends: what ends a line of thinking, after which guidance steers.
        seed: of everything random.
        collection: how traces are sampled.
        style: how the model is asked; None = what fits model and questions.
    """

    kinds: tuple[str, ...]
    form: Form = FLAT
    steps: int = 1500
    line_ends: tuple[str, ...] = ("\n",)
    seed: int = 0
    collection: Collection = field(default_factory=Collection)
    style: str | None = None


@dataclass(frozen=True, slots=True)
class Trained:
    """One head.

    Attributes:
        kind: what it is for.
        path: of its file.
        held: how it does on held-out questions.
    """

    kind: str
    path: Path
    held: HeldOut


def train(
    model: Model,
    asked: QuestionSet,
    how: Training,
    out: Path,
    traces: Path,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[list[Trained], dict[str, float]]:
    """Collect traces, train heads on four fifths of the questions, try them on the rest, and write them.

    In the form ``vocabulary``, ``out`` becomes a copy of the model with its heads in ``out/heads``; otherwise it is the
    folder of the heads.

    Args:
        model: that shows its internals.
        asked: the questions, with references for ``zip-rc`` and ``difficulty``.
        how: what to train.
        out: where to.
        traces: folder of the traces; the same command goes on with what it holds.
        progress: of the collection.

    Returns:
        the heads, and what was seen: number of traces and positions, share of right answers, of closed thinking.

    Raises:
        InvalidInput: questions without references or too few of them, a model that cannot have such heads.
    """
    _check(model, asked, how, out)
    name = styles.choose(model, asked.info) if how.style is None else how.style
    style = styles.style_of(name, asked.info.by(model))
    inside = model.inside  # type: ignore[attr-defined]
    identity = {"model": inside.fingerprint, "questions": asked.task.digest(), "style": name}
    collected = collect(model, style, asked.questions, asked.grade, how.collection, traces, identity, progress)
    ours, other = collected.split(seed=how.seed)
    made = [_train_kind(kind, ours, other, inside, how) for kind in how.kinds]
    if how.form.name == "vocabulary":
        linear = {FILES[kind]: head for kind, head, _ in made if isinstance(head, LinearHead)}
        write_into(model, linear, out)
        folder = out / HEADS
    else:
        folder = out
        for kind, head, _ in made:
            save_head(head, folder / f"{FILES[kind]}.safetensors")
    seen = {
        "traces": float(len(collected.length)),
        "positions": float(len(collected.trace)),
        "tokens a trace": float(collected.length.mean()),
        "thinking of it": float(collected.closed.mean()),
    }
    if not np.isnan(collected.right).any():
        seen["right"] = float(collected.right.mean())
    return [Trained(kind, folder / f"{FILES[kind]}.safetensors", result) for kind, _, result in made], seen


def _check(model: Model, asked: QuestionSet, how: Training, out: Path) -> None:
    """Refuse before the first trace what cannot be trained."""
    if len(asked.questions) < 2:
        raise InvalidInput(f"{asked.task.source} has {len(asked.questions)} questions; give 2 or more, better hundreds")
    without = len(asked.questions) - len(asked.references)
    if without and set(how.kinds) != {"guidance"}:
        raise InvalidInput(
            f"{without:,} of {len(asked.questions):,} questions of {asked.task.source} have no reference answer, and "
            f"{' and '.join(kind for kind in how.kinds if kind != 'guidance')} learn from right and wrong ones; give "
            f"answers, or train guidance alone"
        )
    if "difficulty" in how.kinds and how.form.name == "layers":
        raise InvalidInput("difficulty is read from the last layer alone; train it in the form flat or vocabulary")
    if how.form.name == "vocabulary":
        if not hasattr(model, "tokenizer"):
            raise InvalidInput(f"{model.name} is not run by transformers, which writes the copy of it; give hf:FOLDER")
        if out == getattr(model, "folder", None):
            raise InvalidInput(
                f"{out} holds the model itself, and the form vocabulary writes a copy; give another --out"
            )


def _train_kind(kind: str, ours: Traces, other: Traces, inside: Any, how: Training) -> tuple[str, Head, HeldOut]:
    fingerprint, seed = inside.fingerprint, how.seed
    if kind == "guidance":
        at, left = ours.thinking()
        states = ours.states[at.nonzero()[0]]
        guidance = train_guidance(
            states,
            ours.token[at],
            left,
            vocab=len(inside.embed),
            fingerprint=fingerprint,
            line_ends=how.line_ends,
            steps=how.steps,
            seed=seed,
            often=OFTEN,
            form=how.form,
            aside=ours.aside(seed=seed)[at] if len(ours.questions) > 1 else None,
        )
        return kind, guidance, held_guidance(guidance, ours, other)
    if kind == "zip-rc":
        lengths = length_bins(how.collection.max_tokens)
        both = train_introspection(ours, fingerprint, lengths=lengths, steps=how.steps, seed=seed, form=how.form)
        return kind, both.head, held_introspection(both, ours, other)
    steps = max(1, how.steps // 5)
    probe = train_difficulty(ours, fingerprint, steps=steps, seed=seed, form=how.form.name)
    return kind, probe, held_difficulty(probe, ours, other)
