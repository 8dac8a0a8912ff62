"""The decode loop: rows that run together, one token each at a step, in slots that they take and leave.

The training sampler and the embedded reasoner drive it. It knows no prompts, requests or budgets: whoever drives it
says which rows of the table start, and reads from the table what became of them.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from budgeteer.core.plan import I64, RUNNING
from budgeteer.core.steer import Internals
from budgeteer.engine.decoder import Decoder
from budgeteer.engine.llama import Llama
from budgeteer.engine.steering import Steering
from budgeteer.engine.table import Table


class Turn(NamedTuple):
    """What a step did: slots of rows that took a token, and of rows that a steer ended before theirs. They are valid
    until the next step."""

    taken: I64
    ended: I64


class Batch:
    """Rows of a table in slots [0, used) of a decoder.

    Args:
        model: its device decides where the work is done.
        slots: rows at once.
        columns: of the cache: more than the longest row has tokens, and the more, the rarer are shifts.
        table: what is kept of the rows.
        inside: what steers are told about the model.
        compiled: use the compiled kernels.
        granule: rows of a forward pass are rounded up to a multiple of it. The matrix products of 16 or more rows give
            each row the same bits as those of any other multiple of 16 (seen on three kinds of processors).

    Attributes:
        live: [slots] whether a slot has a row that runs.
        record: [slots] its row in the table.
    """

    def __init__(
        self,
        model: Llama,
        slots: int,
        columns: int,
        table: Table,
        inside: Internals,
        *,
        compiled: bool,
        granule: int = 1,
    ) -> None:
        self.slots, self.granule, self.table = slots, granule, table
        self.decoder = Decoder(model, slots, columns, compiled)
        self.steering = Steering(table, inside, compiled)
        self.state_shape = (model.config.num_hidden_layers + 1, model.config.hidden_size)
        self.live = np.zeros(slots, np.bool_)
        self.record, self.token, self.position, self.start, self.group = (np.zeros(slots, np.int64) for _ in range(5))
        self.soft = np.zeros(slots, np.bool_)
        self.fed = torch.zeros(slots, model.config.hidden_size, device=model.device)
        self.used, self.column, self.feeding = 0, 0, False

    def admit(self, records: I64, position: int | I64, group: int | I64, logits: Tensor, states: Tensor | None) -> Turn:
        """Start rows of the table in free slots, holes first, and take their first tokens.

        Args:
            records: [k] rows of the table, reset.
            position, group: of the row's first token, and of its prompt in the decoder; for all rows, or [k].
            logits, states: [k, V] and [k, L + 1, h] after the prompts.
        """
        count = len(records)
        holes = np.flatnonzero(~self.live[: self.used])[:count]
        slots = np.concatenate([holes, np.arange(self.used, self.used + count - len(holes))])
        self.used += count - len(holes)
        self.live[slots], self.record[slots], self.soft[slots] = True, records, False
        self.position[slots], self.start[slots], self.group[slots] = position, self.column, group
        ended = self._before(slots)
        if len(ended):
            going = self.live[slots]
            slots = slots[going]
            where = torch.from_numpy(going).to(logits.device)
            logits, states = logits[where], None if states is None else states[where]
        return self._take(slots, logits, states, ended)

    def step(self) -> Turn:
        """A token for every row that runs, unless its steer ends it."""
        slots = self.close_up()
        ended = self._before(slots)
        if len(ended):
            slots = self.live[: self.used].nonzero()[0]
        if not len(slots):
            return Turn(slots, ended)
        logits, states = self._forward(slots)
        if slots[-1] == len(slots) - 1:  # no holes, only padding behind
            logits, states = logits[: len(slots)], None if states is None else states[: len(slots)]
        elif self.steering.late:
            where = torch.from_numpy(slots).to(logits.device)
            logits, states = logits.index_select(0, where), None if states is None else states.index_select(0, where)
        else:
            return self._take(slots, logits, states, ended, slots)
        return self._take(slots, logits, states, ended)

    def close_up(self, *, always: bool = False) -> I64:
        """Fill the holes of ended rows with the last rows that run, when they are many, so that the batch is short.

        Returns:
            The slots of rows that run.
        """
        live = self.live[: self.used]
        slots: I64 = live.nonzero()[0]
        count = len(slots)
        if count == 0:
            self.used = self.column = 0
        if count == self.used or (not always and (self.used - count) * 8 <= self.used):
            return slots
        holes, movers = np.flatnonzero(~live[:count]), count + np.flatnonzero(live[count:])
        if len(holes):
            self.decoder.move(holes, movers, int(self.start[movers].min()), self.column)
            self.fed[holes] = self.fed[movers]
            for column in (self.record, self.token, self.position, self.start, self.group, self.soft):
                column[holes] = column[movers]
        self.live[:count], self.live[count : self.used] = True, False
        self.used = count
        return np.arange(count)

    def _before(self, slots: I64) -> I64:
        """Ask the steers that need no logits about the rows in these slots; the slots of those that they end."""
        if not self.steering.early:
            return slots[:0]
        record = self.record[slots]
        self.steering.before(record)
        ended: I64 = slots[self.table.status[record] != RUNNING]
        self.live[ended] = False
        return ended

    def _forward(self, slots: I64) -> tuple[Tensor, Tensor | None]:
        """Logits and, where a steer needs them, states of the batch's slots after their last tokens.

        Args:
            slots: of the rows that run.
        """
        n = self.used
        if self.column == self.decoder.columns:
            by = int(self.start[slots].min())
            self.decoder.shift(by, n)
            self.column -= by
            self.start[:n] -= by
        m = min(self.slots, -(-n // self.granule) * self.granule)
        # ended rows and padding attend to their own new column only, and stay in range
        if len(slots) < m:
            self.start[:m][~self.live[:m]] = self.column
        states, fed = None, None
        if self.steering.late and self.steering.wants_hidden(self.record[slots]):
            states = self.fed.new_empty((m, *self.state_shape))
        if self.feeding:
            soft = self.soft[:m] & self.live[:m]
            fed = (soft, self.fed[:m]) if soft.any() else None
        logits = self.decoder.step(
            self.token[:m], self.position[:m], self.start[:m], self.group[:m], self.column, states, fed
        )
        self.column += 1
        self.position[slots] += 1
        return logits, states

    def _take(self, slots: I64, logits: Tensor, states: Tensor | None, ended: I64, where: I64 | None = None) -> Turn:
        """The next token of the rows in these slots [k], from logits [k, V], or from those at ``where`` [k]."""
        if not len(slots):
            return Turn(slots, ended)
        taken = self.steering.take(self.record[slots], logits.contiguous(), states, where)
        if len(taken.at) < len(slots):
            stopped = np.ones(len(slots), np.bool_)
            stopped[taken.at] = False
            self.live[slots[stopped]] = False
            ended, slots = np.concatenate([ended, slots[stopped]]), slots[taken.at]
        self.token[slots] = taken.token
        if self.feeding or taken.soft is not None:
            self.soft[slots] = False if taken.soft is None else taken.soft
            self.feeding = bool(self.soft.any())
        if taken.embeddings is not None:
            self.fed[slots] = taken.embeddings.to(self.fed)
        self.live[slots] = self.table.status[self.record[slots]] == RUNNING
        return Turn(slots, ended)
