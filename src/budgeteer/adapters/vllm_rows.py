"""The rows of vLLM's batch that are steered: the engine's own table and steering, over somebody else's forward pass."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from budgeteer.adapters.vllm_asked import Asked
from budgeteer.core.errors import BudgeteerError, CheckpointError
from budgeteer.core.plan import I64, RUNNING
from budgeteer.core.steer import Internals, fingerprint_of
from budgeteer.core.steer import Rows as Began
from budgeteer.engine.head import HEADS, Head, load_head
from budgeteer.engine.steering import Steering, Ticket
from budgeteer.engine.table import Table, marks_of_text
from budgeteer.models.chat import tags_of
from budgeteer.models.inside import pieces_of

_NO_TOKEN = -1
"""What vLLM puts where it has not yet read which token was sampled."""


@dataclass(frozen=True, eq=False)
class Served(Internals):
    """What steers are told about a served model, whose weights the process does not see.

    Attributes:
        folder: of the model; None = it is none of this machine.
        close: text that closes the thinking, by the chat template; ``""`` = it has none.
    """

    folder: Path | None = None
    close: str = ""

    @cached_property
    def fingerprint(self) -> str:
        """That of the input embeddings in the model's files.

        Raises:
            CheckpointError: they are not to be found there.
        """
        from safetensors import safe_open

        for file in sorted(self.folder.glob("*.safetensors")) if self.folder else ():
            with safe_open(file, framework="pt") as opened:
                for name in opened.keys():  # noqa: SIM118 (not a dict)
                    if name.endswith(("embed_tokens.weight", "wte.weight")):
                        return fingerprint_of(opened.get_tensor(name).float())
        raise CheckpointError(f"{self.folder} has no safetensors file with input embeddings, so no head can be trusted")


def served(config: Any, never: tuple[int, ...]) -> Served:
    """What is told about the model of an engine, from its settings."""
    from vllm.tokenizers import cached_tokenizer_from_config

    model = config.model_config
    tokenizer: Any = cached_tokenizer_from_config(model)
    size, eos = int(model.get_vocab_size()), int(tokenizer.eos_token_id if tokenizer.eos_token_id is not None else -1)
    template = getattr(tokenizer, "chat_template", None)
    tags = None if template is None else tags_of(template, frozenset(tokenizer.get_added_vocab()))
    folder = Path(model.model)
    return Served(
        None,
        pieces_of(tokenizer, size, frozenset({eos} - {-1})),
        eos,
        lambda text: list(tokenizer(text, add_special_tokens=False)["input_ids"]),
        never,
        folder if folder.is_dir() else None,
        "" if tags is None else tags.close,
    )


@dataclass(eq=False)
class Row:
    """One request.

    Attributes:
        asked, params: what it asks for.
        record: its row of the table, -1 = it is not steered any more: its end is forced.
        ticket: its place among the rows of its steer; None = it never had one.
        seen: tokens that are in the table.
        told: length at which the steers were last asked, -1 = never.
        forced: token that was forced then, -1 = none.
        margin: of the distribution that was drawn from then.
    """

    asked: Asked
    params: Any
    record: int = -1
    ticket: Ticket | None = None
    seen: int = 0
    told: int = -1
    forced: int = -1
    margin: float = float("nan")


class Rows:
    """All steered requests of an engine.

    Args:
        model: what steers are told about it.
        sizes: requests at once, tokens of one.
        log: where it is told what had to be ended.
    """

    def __init__(self, model: Served, sizes: tuple[int, int], log: logging.Logger) -> None:
        self.model, self._log, self._sizes = model, log, sizes
        self._rows: dict[Hashable, Row] = {}
        self._groups: dict[str, tuple[int, set[Hashable], list[Ticket]]] = {}
        self._numbers = 0
        # pages of the table that no row has touched take no memory
        self._table = Table(*sizes, [marks_of_text(model, [model.eos] * (model.eos >= 0), model.close, ())])
        self._table.marks *= sizes[0]
        self._table.codes = np.repeat(self._table.codes, sizes[0], 0)
        self._table.kind = np.arange(sizes[0])
        self._table.pieces = model.pieces
        self._steering = Steering(self._table, model, False)
        self._free = list(range(sizes[0]))[::-1]

    def knows(self, keys: Iterable[Hashable]) -> bool:
        """Whether one of these requests is steered."""
        return any(key in self._rows for key in keys)

    def add(self, key: Hashable, asked: Asked, params: Any) -> None:
        """Take a request; one that cannot be steered will have its end forced."""
        self._rows[key] = Row(asked, params)
        try:
            self._begin(key)
        except BudgeteerError as error:
            self.refuse(key, str(error))

    def remove(self, key: Hashable) -> None:
        """Forget a request. What its steer knows of it stays until its group is gone, since samples are compared."""
        row = self._rows.pop(key, None)
        if row is None:
            return
        self._release(row)
        name = row.asked.group
        group = None if name is None else self._groups.get(name)
        if name is None or group is None:
            self._leave(row)
            return
        _, keys, tickets = group
        keys.discard(key)
        if not keys:
            for ticket in tickets:
                self._steering.leave(ticket)
            del self._groups[name]

    def refuse(self, key: Hashable, why: str) -> None:
        """Let a request end with its next token."""
        row = self._rows[key]
        if row.record >= 0 or row.ticket is None:
            self._log.error("a request with %s was ended: %s", ", ".join(row.asked.steers), why)
        self._release(row)

    def apply(self, logits: Tensor, at: Sequence[tuple[int, Hashable, Sequence[int]]]) -> None:
        """Change the logits [n, V] in place.

        Args:
            at: row of the logits, request, and its output tokens so far.
        """
        places, live = [], []
        for place, key, tokens in at:
            row = self._rows.get(key)
            if row is None:
                continue
            self._catch_up(key, row, tokens)
            if row.record < 0:
                self._force(logits, place, self._end(row))
            else:
                places.append(place)
                live.append(row)
        if live:
            self._steer(logits, places, live)

    def _begin(self, key: Hashable) -> None:
        """A row at its first token."""
        row = self._rows[key]
        steer = row.asked.steer(lambda method: self._head(method))
        most, seed = int(row.params.max_tokens or self._sizes[1]), row.params.seed
        cap = min(most, self._sizes[1])
        self._numbers += 1
        number, name = self._numbers, row.asked.group
        if name is not None:
            number, keys, tickets = self._groups.setdefault(name, (number, set(), []))
            keys.add(key)
        began = Began((str(key),), np.array([cap]), secrets.randbits(63) if seed is None else int(seed) % 2**64)
        row.ticket = self._steering.join(steer, began, np.array([number]))
        if name is not None:
            tickets.append(row.ticket)
        row.record, row.seen, row.told, row.forced = self._free.pop(), 0, -1, -1
        record = np.array([row.record])
        close = self.model.close if row.asked.close is None else row.asked.close
        marks = marks_of_text(self.model, [self.model.eos] * (self.model.eos >= 0), close, ())
        self._table.marks[row.record] = marks
        self._table.codes[row.record] = marks.codes
        self._table.reset(record, cap, float(row.params.temperature))
        self._steering.start(row.ticket, 0, record)

    def _head(self, method: str) -> Head:
        if self.model.folder is None:
            raise CheckpointError("the served model is no folder of this machine, so no head lies beside it")
        head = load_head(method.replace("-", "_"), self.model.folder / HEADS)
        head.check(self.model)
        return head

    def _release(self, row: Row) -> None:
        if row.record >= 0:
            self._steering.stop(row.record)
            self._free.append(row.record)
            row.record = -1

    def _leave(self, row: Row) -> None:
        """Take a row out of those of its steer."""
        if row.ticket is None:
            return
        if row.asked.group is not None:
            self._groups[row.asked.group][2].remove(row.ticket)
        self._steering.leave(row.ticket)
        row.ticket = None

    def _catch_up(self, key: Hashable, row: Row, tokens: Sequence[int]) -> None:
        """Put the tokens that are new into the table. A row that is asked again at the same length, or has become
        shorter, begins anew: what was sampled then was thrown away (a part of a prompt, or a preempted request)."""
        if row.record < 0:
            return
        if tokens and _NO_TOKEN in tokens[row.seen :]:
            self.refuse(
                key,
                "vLLM does not show the tokens so far; serve with --no-async-scheduling, or with --logits-processors "
                "budgeteer.adapters.vllm:Budgeteer",
            )
            return
        if len(tokens) <= row.told:
            self._release(row)
            self._leave(row)
            self._begin(key)
        record = np.array([row.record])
        for token in tokens[row.seen :]:
            if self._table.status[row.record] != RUNNING:
                break
            margin = np.array([row.margin], np.float32)
            forced = np.array([token == row.forced])
            self._table.record(record, np.array([token]), np.zeros(1, np.float32), margin, forced)
            row.forced, row.margin = -1, float("nan")
        row.seen = len(tokens)

    def _steer(self, logits: Tensor, places: list[int], live: list[Row]) -> None:
        table, steering = self._table, self._steering
        records = np.array([row.record for row in live])
        steering.before(records[table.status[records] == RUNNING])
        going = np.flatnonzero(table.status[records] == RUNNING)
        effect = None
        if len(going) and (steering.late or steering.wants_margin):
            shown = logits[[places[i] for i in going.tolist()]].float().cpu().contiguous()
            effect = steering.after(records[going], shown, None) if steering.late else None
            if steering.wants_margin:
                self._margins(shown, records[going], [live[i] for i in going.tolist()])
        for error, failed in steering.failures:
            self._log.error("a steer failed, and %d requests were ended: %r", len(failed), error)
        steering.failures.clear()
        forced = table.next_forced(records)
        drawn = np.zeros(len(live), np.bool_)
        if effect is not None:
            drawn[going] = effect.drawn
        position = {int(i): k for k, i in enumerate(going)}
        for i, (place, row) in enumerate(zip(places, live, strict=True)):
            row.told = row.seen
            if table.status[row.record] != RUNNING:
                self._release(row)
                self._force(logits, place, self._end(row))
            elif forced is not None and forced[i] >= 0:
                row.forced = int(forced[i])
                self._force(logits, place, row.forced)
            elif drawn[i]:
                assert effect is not None
                # vLLM divides by the request's temperature afterwards; the steer's logits are as they are
                warm = float(row.params.temperature) or 1.0
                logits[place] = (effect.logits[position[i]] * warm).to(logits)

    def _margins(self, shown: Tensor, records: I64, rows: Sequence[Row]) -> None:
        """Keep p(1st) - p(2nd) of what the next tokens are drawn from, as the engine's own loop does."""
        masked = shown.clone()
        masked[:, list(self.model.never)] = -torch.inf
        divisor = torch.from_numpy(self._table.divisor[records]).float()[:, None]
        top = (masked / divisor).softmax(-1).topk(2, -1).values
        for row, margin in zip(rows, (top[:, 0] - top[:, 1]).tolist(), strict=True):
            row.margin = margin

    def _end(self, row: Row) -> int:
        """The token that ends a request."""
        eos = row.params.eos_token_id
        return int(eos if eos is not None else min(row.params.all_stop_token_ids, default=self.model.eos))

    def _force(self, logits: Tensor, place: int, token: int) -> None:
        logits[place] = -torch.inf
        logits[place, token] = 0.0
