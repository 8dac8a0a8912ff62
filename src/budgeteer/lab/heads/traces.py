"""Traces of a model with its states at some of their positions: what heads are trained on.

They are sampled through the Model protocol, with a steer that watches: it sees the states, and changes nothing. A
question is one request. Its traces are a file, written when the request has ended, so that a collection that was
stopped, kill -9 included, goes on with the next question; each file is a function of the settings and its question.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from budgeteer.core.errors import CheckpointError, InvalidInput
from budgeteer.core.plan import F64, I64
from budgeteer.core.steer import NOTHING, Action, Mask, Need, Rows, Snapshot, State, Steer
from budgeteer.models.model import INTERNALS, Finish, Model, Request
from budgeteer.solve.folders import lock, same_settings
from budgeteer.solve.strategy import Question, Style, derive

UNKNOWN = -1
"""The token that came next, where no step saw it."""


@dataclass(frozen=True, slots=True)
class Collection:
    """How traces are sampled.

    Attributes:
        rollouts: traces of each question.
        max_tokens: cap of each trace.
        temperature: of the draws.
        positions: most positions of a trace whose states are kept; drawn evenly, the first one among them.
        seed: of draws and of the choice of positions.
    """

    rollouts: int = 4
    max_tokens: int = 512
    temperature: float = 1.0
    positions: int = 32
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Traces:
    """n traces of g questions, and the states of the frozen model at N positions before one of their tokens.

    Attributes:
        questions: ids of the g questions; ``group`` [n] index of each trace's question.
        length: [n] tokens of each trace.
        closed: [n] tokens up to the end of thinking, its marker included. Where it never closed, the length, or the cap
            of a trace that was cut there: a bound from below. 0 = there was no thinking.
        right: [n] score in [0, 1]; NaN = there is no reference.
        entropy: [n] mean entropy of the next-token distributions at temperature 1, nats.
        trace, index: [N] trace, and tokens before the position; ordered by both.
        states: [N, layers, hidden] float16: input embedding, then the state after each block.
        token: [N] that came next; UNKNOWN where the trace ended with it.
    """

    questions: tuple[str, ...]
    group: I64
    length: I64
    closed: I64
    right: F64
    entropy: F64
    trace: I64
    index: I64
    states: Tensor
    token: I64

    def of_questions(self, questions: Mask) -> Traces:
        """The traces of some questions [g]."""
        kept = questions[self.group]
        number = np.cumsum(kept) - 1
        at = kept[self.trace]
        return Traces(
            tuple(name for name, mine in zip(self.questions, questions.tolist(), strict=True) if mine),
            (np.cumsum(questions) - 1)[self.group[kept]],
            self.length[kept],
            self.closed[kept],
            self.right[kept],
            self.entropy[kept],
            number[self.trace[at]],
            self.index[at],
            self.states[torch.from_numpy(at)],
            self.token[at],
        )

    def thinking(self) -> tuple[Mask, I64]:
        """(positions [N] inside the thinking whose next token is known, tokens of thinking still to come at each of
        them)."""
        inside = (self.index < self.closed[self.trace]) & (self.token != UNKNOWN)
        return inside, (self.closed[self.trace] - self.index)[inside]

    def aside(self, *, share: float = 0.2, seed: int = 0) -> Mask:
        """[N] positions of some questions, drawn at random: those by which a training is stopped."""
        return np.asarray(self._some(share, seed)[self.group[self.trace]])

    def _some(self, share: float, seed: int) -> Mask:
        """[g] a share of the questions, at least one."""
        g = len(self.questions)
        some = np.zeros(g, np.bool_)
        some[np.random.default_rng(seed).permutation(g)[: max(1, round(share * g))]] = True
        return some

    def split(self, *, share: float = 0.2, seed: int = 0) -> tuple[Traces, Traces]:
        """(traces to train on, held-out ones), by question.

        Raises:
            InvalidInput: fewer than two questions.
        """
        g = len(self.questions)
        if g < 2:
            raise InvalidInput(f"traces of {g} questions cannot be split into some to train on and some held out")
        held = self._some(share, seed)
        return self.of_questions(~held), self.of_questions(held)


def collect(
    model: Model,
    style: Style,
    questions: Sequence[Question],
    grade: Callable[[Question, str | None], float | None],
    how: Collection,
    folder: Path,
    identity: dict[str, str],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Traces:
    """Sample the traces that a folder does not hold yet; all of them.

    Args:
        model: that shows its internals.
        style: how it is asked and read.
        questions: with distinct ids.
        grade: (question, answer) -> score in [0, 1]; None without a reference.
        how: many, long and warm.
        folder: of the files, one a question.
        identity: what else has to be the same when the collection goes on.
        progress: called with the number of questions that are done, and that of all.

    Raises:
        InvalidInput: the model shows no internals, the folder was begun with other settings, or another process writes
            to it.
        CheckpointError: a file in the folder is damaged.
    """
    if INTERNALS not in model.capabilities:
        raise InvalidInput(
            f"{model.name} does not show its hidden states, which heads are trained on; take a model that is decoded "
            "here: reasoner, thinker or hf:FOLDER"
        )
    files = [folder / f"{i:05}.safetensors" for i in range(len(questions))]
    with contextlib.ExitStack() as stack:
        lock(folder, stack)
        settings = {name: str(getattr(how, name)) for name in Collection.__dataclass_fields__}
        same_settings(folder / "settings.json", {**identity, **settings})
        missing = [i for i, file in enumerate(files) if not file.exists()]
        progress(len(files) - len(missing), len(files))

        async def every() -> None:
            # one question at a time: the last bits of states depend on how many rows are decoded together
            for left, i in zip(range(len(missing) - 1, -1, -1), missing, strict=True):
                _write(files[i], *await _sampled(model, style, questions[i], grade, how))
                progress(len(files) - left, len(files))

        asyncio.run(every())
    return _read(files, questions)


async def _sampled(
    model: Model,
    style: Style,
    question: Question,
    grade: Callable[[Question, str | None], float | None],
    how: Collection,
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """(tensors, notes) of one question's traces."""
    seen = WatchedRows(how.rollouts, how.positions, derive(how.seed, "positions", question.id))
    request = Request(
        style.prompt(question.text),
        how.max_tokens,
        how.rollouts,
        how.temperature,
        style.stop,
        derive(how.seed, "traces", question.id),
        steer=watching(seen),
        close=style.close,
    )
    response = await model.generate(request)
    choices = response.choices
    length = np.array([choice.tokens or 0 for choice in choices])
    cut = np.array([choice.finish == Finish.LENGTH for choice in choices])
    # a trace that closed with its very last token was never seen closed
    late = np.array([bool(style.close) and style.split(choice.text)[1] is not None for choice in choices])
    closed = np.where(seen.closed >= 0, seen.closed, np.where(late | ~cut, length, how.max_tokens))
    if not style.close:
        closed = np.zeros(how.rollouts, np.int64)
    scores = [grade(question, style.read(choice.text)) for choice in choices]
    row, index, states, token = seen.kept()
    tensors = {
        "length": torch.from_numpy(length),
        "closed": torch.from_numpy(closed),
        "right": torch.tensor([np.nan if score is None else score for score in scores], dtype=torch.float64),
        "entropy": torch.from_numpy(seen.entropy / np.maximum(seen.steps, 1)).float(),
        "row": torch.from_numpy(row),
        "index": torch.from_numpy(index),
        "token": torch.from_numpy(token),
        "states": states,
    }
    return tensors, {"id": question.id, "texts": [choice.text for choice in choices]}


@dataclass(eq=False)
class WatchedRows:
    """What a watching steer saw of n rows: a sample of the positions of each, drawn while nobody knows how many there
    will be (reservoir sampling), and sums over all of them.

    Attributes:
        rows, positions, seed: n, most positions of a row, and the seed of the choice.
        closed: [n] length at which the thinking closed, -1 = not seen.
        entropy, steps: [n] sum of the entropies, and their number.
        reservoir: of each row, (index, states, token that came next) of the positions that are kept.
    """

    rows: int
    positions: int
    seed: int
    closed: I64 = field(init=False)
    entropy: F64 = field(init=False)
    steps: I64 = field(init=False)
    reservoir: list[list[list[Any]]] = field(init=False)

    def __post_init__(self) -> None:
        self.closed, self.steps = np.full(self.rows, -1), np.zeros(self.rows, np.int64)
        self.entropy = np.zeros(self.rows)
        self.reservoir = [[] for _ in range(self.rows)]

    def look(self, now: Snapshot) -> None:
        """Take note of rows before their next token, and of the token that they took before it."""
        # in double precision: how many rows are beside a row must not show in what is kept
        entropy = torch.special.entr(now.logits.double().softmax(-1)).sum(-1).tolist()
        for i, row in enumerate(now.row.tolist()):
            at, kept = int(now.length[i]), self.reservoir[row]
            if now.closed[i] > 0:
                self.closed[row] = now.closed[i]
            self.entropy[row] += entropy[i]
            self.steps[row] += 1
            if kept and kept[-1][0] == at - 1:  # what is kept last stands last
                kept[-1][2] = int(now.last[i])
            place = self._place(row, at, len(kept))
            if place is not None:
                entry = [at, now.hidden[i].half().clone(), UNKNOWN]
                kept[place:] = [*kept[place + 1 :], entry]

    def _place(self, row: int, at: int, kept: int) -> int | None:
        """Which of the kept positions makes room for this one; ``kept`` = none has to, None = it is not kept.

        The first position stays; of the others each is kept with the same probability.
        """
        if kept < self.positions:
            return kept
        if self.positions == 1:
            return None
        number = int(np.random.default_rng([self.seed, row, at]).integers(at))
        return 1 + number if number < self.positions - 1 else None

    def kept(self) -> tuple[I64, I64, Tensor, I64]:
        """Row, index, states and next token of all positions that are kept."""
        entries = [(row, *entry) for row, own in enumerate(self.reservoir) for entry in sorted(own, key=lambda e: e[0])]
        row, index, token = (np.array([entry[k] for entry in entries], np.int64) for k in (0, 1, 3))
        return row, index, torch.stack([entry[2] for entry in entries]), token


def watching(seen: WatchedRows) -> Steer:
    """A steer that changes nothing and tells ``seen`` what it sees."""

    def init(rows: Rows) -> State:
        return np.arange(len(rows.keys))

    def step(state: State, now: Snapshot) -> tuple[Action, State]:
        seen.look(now)
        return NOTHING, state

    return Steer(init, step, frozenset({Need.TOKENS, Need.MARKERS, Need.LOGITS, Need.HIDDEN}))


def _write(path: Path, tensors: dict[str, Tensor], notes: dict[str, Any]) -> None:
    from safetensors.torch import save_file

    part = path.with_suffix(".part")
    try:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, part, {"notes": json.dumps(notes)})
        os.replace(part, path)
    except OSError as error:
        raise InvalidInput(f"cannot write {path}: {error}") from error


def _read(files: Sequence[Path], questions: Sequence[Question]) -> Traces:
    from safetensors import SafetensorError, safe_open

    parts: list[dict[str, Tensor]] = []
    rows = 0
    for file, question in zip(files, questions, strict=True):
        try:
            with safe_open(file, framework="pt") as opened:
                tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 (not a dict)
                name = json.loads(opened.metadata()["notes"])["id"]
            tensors["trace"] = tensors["row"] + rows
            rows += len(tensors["length"])
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"cannot read traces in {file}: {error}; remove the file to sample it anew"
            ) from error
        if name != question.id:
            raise CheckpointError(f"{file} holds traces of {name!r}, not of {question.id!r}; choose another folder")
        parts.append(tensors)

    def joined(name: str) -> Any:
        return torch.cat([tensors[name] for tensors in parts]).numpy()

    return Traces(
        tuple(question.id for question in questions),
        np.repeat(np.arange(len(parts)), [len(tensors["length"]) for tensors in parts]),
        joined("length"),
        joined("closed"),
        joined("right"),
        joined("entropy"),
        joined("trace"),
        joined("index"),
        torch.cat([tensors["states"] for tensors in parts]),
        joined("token"),
    )
