"""Asks the steers of all rows, each distinct one once for all of its rows, and does what they say.

It knows a table of rows and nothing of caches, so that every engine uses it: the loop over the
:class:`~budgeteer.engine.decoder.Decoder`, transformers' own forward pass, and ``generate`` of Hugging Face.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from budgeteer.core.plan import ABORTED, CUT, ENDED, FINISHED, I64, RUNNING
from budgeteer.core.steer import (
    ABORT,
    FINISH,
    STOP,
    Action,
    Internals,
    Mask,
    Need,
    Rows,
    Snapshot,
    State,
    Steer,
    join,
    take,
)
from budgeteer.engine.decoder import draw
from budgeteer.engine.table import Table


@dataclass(slots=True, eq=False)
class Group:
    """A steer with the rows of all requests that have it; columns are of the rows of ``state``.

    Attributes:
        record: row of the table, -1 = it is not there (yet, or any more).
        ticket: number of the request.
        member: what :attr:`Snapshot.group` says.
    """

    number: int
    steer: Steer
    state: State
    record: I64
    ticket: I64
    member: I64


class Ticket(NamedTuple):
    """The rows of one request among those of its steer."""

    group: Group
    number: int


class Taken(NamedTuple):
    """The result of a step.

    Attributes:
        at: [k] which of the rows took a token; the others were ended before it.
        token: [k].
        soft, embeddings: [k] and [k, h], rows that are fed an embedding next; None = no row is.
    """

    at: I64
    token: I64
    soft: Mask | None
    embeddings: Tensor | None


@dataclass(slots=True, eq=False)
class Effect:
    """The actions of all late steers on m rows; rows in ``drawn`` draw from ``logits`` as they are."""

    logits: Tensor
    drawn: Mask
    soft: Mask
    embeddings: Tensor | None = None


class Steering:
    """The steers of the rows of a table.

    Attributes:
        failures: what steers raised, with the rows of the table that they had; these rows are ABORTED. Whoever drives
            the rows reads and clears it.
    """

    def __init__(self, table: Table, model: Internals, compiled: bool) -> None:
        self.table, self.model, self.compiled = table, model, compiled
        self.groups: dict[Steer, Group] = {}
        self.early: list[Group] = []
        self.late: list[Group] = []
        self.place = np.zeros(len(table.length), np.int64)
        self.owner = np.full(len(table.length), -1, np.int64)
        self.failures: list[tuple[Exception, I64]] = []
        self.wants_margin = False
        self._numbers = 0

    def join(self, steer: Steer, rows: Rows, member: I64 | None = None) -> Ticket:
        """Add the rows of a request to those of its steer; they are not asked about before they are started.

        Args:
            member: [n] for :attr:`Snapshot.group`; None = they are one group.
        """
        self._numbers += 1
        n, state = len(rows.keys), steer.init(rows)
        record, ticket = np.full(n, -1), np.full(n, self._numbers)
        member = ticket if member is None else member
        group = self.groups.get(steer)
        if group is None:
            group = self.groups[steer] = Group(self._numbers, steer, state, record, ticket, member)
            self._sort()
        else:
            group.state = join(group.state, state)
            group.record = np.concatenate([group.record, record])
            group.ticket = np.concatenate([group.ticket, ticket])
            group.member = np.concatenate([group.member, member])
        return Ticket(group, self._numbers)

    def start(self, ticket: Ticket, first: int, records: I64) -> None:
        """Rows ``first``, ``first + 1``, ... of a request are in these rows of the table now."""
        group = ticket.group
        rows = np.flatnonzero(group.ticket == ticket.number)[first : first + len(records)]
        group.record[rows] = records
        self.place[records], self.owner[records] = rows, group.number

    def stop(self, record: int) -> None:
        """This row of the table is free for another one."""
        if self.owner[record] >= 0:
            group = next(g for g in self.groups.values() if g.number == self.owner[record])
            group.record[self.place[record]] = -1
            self.owner[record] = -1

    def leave(self, ticket: Ticket) -> State:
        """Take the rows of a request out of its steer's; their state."""
        group = ticket.group
        mine = group.ticket == ticket.number
        state = take(group.state, np.flatnonzero(mine))
        kept = np.flatnonzero(~mine)
        if not len(kept):
            del self.groups[group.steer]
            self._sort()
            return state
        group.state = take(group.state, kept)
        group.record, group.ticket, group.member = group.record[kept], group.ticket[kept], group.member[kept]
        there = np.flatnonzero(group.record >= 0)
        self.place[group.record[there]] = there
        return state

    def _sort(self) -> None:
        self.early = [group for group in self.groups.values() if not group.steer.late]
        self.late = [group for group in self.groups.values() if group.steer.late]
        self.wants_margin = any(Need.MARGIN in steer.needs for steer in self.groups)

    def wants_hidden(self, record: I64) -> bool:
        """Whether a steer of one of these rows [m] needs hidden states."""
        return any(
            Need.HIDDEN in group.steer.needs and bool((self.owner[record] == group.number).any()) for group in self.late
        )

    def before(self, record: I64) -> None:
        """Ask those about these rows [m] that need no logits; rows that they end have another status then."""
        for group in self.early:
            at = self._due(group, record)
            if len(at):
                mine = record[at]
                action = self._ask(group, mine, None, None)
                if action is not None:
                    self._obey(action, mine)

    def take(self, record: I64, logits: Tensor, hidden: Tensor | None, slots: I64 | None = None) -> Taken:
        """The next token of these rows [m]: as their late steers want it, as it is forced, or drawn.

        Args:
            logits: [m, V] raw, contiguous; not written to.
            slots: [m] where each row is in ``logits``, which may be longer then: to draw for a few rows more costs less
                than to copy the others. Not for rows with late steers. None = in this order.
            hidden: [m, L + 1, h], where :meth:`wants_hidden` says so.
        """
        t, at, effect = self.table, np.arange(len(record)), None
        if self.late:
            effect = self.after(record, logits, hidden)
            going = t.status[record] == RUNNING
            if not going.all():
                at, record, logits = at[going], record[going], logits[torch.from_numpy(going).to(logits.device)]
                if effect is not None:
                    effect = _some(effect, going)
                if not len(at):
                    return Taken(at, at, None, None)
        if self.model.never:
            logits, effect = self._without_never(logits, effect)
        where = t.length[record]
        uniform = t.uniform[record, where]
        if slots is None:
            token, logprob, margin = draw(logits, t.divisor[record], uniform, self.compiled, self.wants_margin)
        else:
            numbers, divisor = np.zeros(len(logits), np.float32), np.ones(len(logits))
            numbers[slots], divisor[slots] = uniform, t.divisor[record]
            token, logprob, margin = draw(logits, divisor, numbers, self.compiled, self.wants_margin)
            token, logprob, margin = token[slots], logprob[slots], None if margin is None else margin[slots]
        greedy = t.greedy[record] if t.any_greedy or effect is not None else None
        if greedy is not None and greedy.any():
            token[greedy] = _rows(logits, greedy.nonzero()[0], slots).argmax(1).cpu().numpy()
        if effect is not None and greedy is not None and effect.drawn.any():
            some = np.flatnonzero(effect.drawn)
            changed = effect.logits[torch.from_numpy(some).to(logits.device)]
            # in torch's operators: a token that is excluded has a probability of exactly 0 there
            drawn, own, _ = draw(changed, np.ones(len(some)), uniform[some], False, False)
            token[some] = np.where(greedy[some], changed.argmax(1).cpu().numpy(), drawn)
            logprob[some] = own
        forced, is_forced = t.next_forced(record), None
        if forced is not None:
            is_forced = forced >= 0
            token, logprob = np.where(is_forced, forced, token), np.where(is_forced, np.float32(0), logprob)
        if t.any_scored and len(scored := np.flatnonzero(t.scored[record])):
            logp = F.log_softmax(_rows(logits, scored, slots).float(), -1).cpu().numpy()
            logprob[scored] = logp[np.arange(len(scored)), token[scored]]
        t.record(record, token, logprob, margin if self.wants_margin else None, is_forced)
        if effect is None:
            return Taken(at, token, None, None)
        return Taken(at, token, effect.soft if effect.embeddings is not None else None, effect.embeddings)

    def _without_never(self, logits: Tensor, effect: Effect | None) -> tuple[Tensor, Effect | None]:
        """The logits, and those of the steers, without the tokens that are never drawn."""
        never, shown = list(self.model.never), logits
        logits = logits.clone()
        logits[:, never] = -torch.inf
        if effect is not None and effect.logits is not shown:
            effect.logits[:, never] = -torch.inf  # a copy, as the engine's own are not written to
        elif effect is not None:
            effect.logits = logits
        return logits, effect

    def _due(self, group: Group, record: I64) -> I64:
        """Places of the rows that a steer is to be asked about now."""
        due = self.owner[record] == group.number
        if group.steer.every > 1:
            due &= self.table.length[record] % group.steer.every == 0
        return np.flatnonzero(due)

    def _ask(self, group: Group, record: I64, logits: Tensor | None, hidden: Tensor | None) -> Action | None:
        """What a steer says about its rows [k]; None: it raised."""
        t = self.table
        snapshot = Snapshot(
            self.place[record],
            t.length[record],
            t.cap[record],
            t.closed[record],
            t.answered[record],
            t.last[record],
            t.will_be_forced(record),
            t.temperature[record],
            group.member,
            partial(t.margin.__getitem__, record),
            lambda i: t.tokens[record[i], : t.length[record[i]]],
            lambda i: t.close_of(int(record[i])),
            self.model,
            logits,
            hidden,
        )
        try:
            action, group.state = group.steer.step(group.state, snapshot)
        except Exception as error:
            t.status[record] = ABORTED
            self.failures.append((error, record))
            return None
        return action

    def _obey(self, action: Action, record: I64) -> None:
        """End, force and cap rows [k]."""
        t = self.table
        if action.force is not None and (action.force >= 0).any():
            t.force[record] = np.where(action.force >= 0, action.force, t.force[record])
            t.forcing = True
        if action.cap is not None:
            t.cap[record] = np.minimum(t.cap[record], np.maximum(action.cap, t.length[record]))
            t.status[record[t.length[record] >= t.cap[record]]] = CUT
        decision = action.decision
        if decision is None or not decision.any():
            return
        t.status[record[decision == ABORT]] = ABORTED
        t.status[record[decision == STOP]] = ENDED
        finish = record[decision == FINISH]
        t.status[finish[t.answered[finish] >= 0]] = FINISHED
        for row in finish[(t.closed[finish] < 0) & (t.closing[finish] == 0)].tolist():
            t.closing[row] = len(t.close_of(row))
            t.forcing = True

    def after(self, record: I64, logits: Tensor, hidden: Tensor | None) -> Effect | None:
        """Ask the steers of these rows [m] that need the logits [m, V]; None: they leave these as they are."""
        effect, m = None, len(record)
        for group in self.late:
            at = self._due(group, record)
            if not len(at):
                continue
            where = slice(None) if len(at) == m else torch.from_numpy(at).to(logits.device)
            seen = hidden[where] if hidden is not None and Need.HIDDEN in group.steer.needs else None
            action = self._ask(group, record[at], logits[where], seen)
            if action is None:
                continue
            self._obey(action, record[at])
            if action.logits is None and action.embeddings is None:
                continue
            if effect is None:
                effect = Effect(logits, np.zeros(m, np.bool_), np.zeros(m, np.bool_))
            if action.logits is not None:
                some = np.arange(len(at)) if action.drawn is None else np.flatnonzero(action.drawn)
                effect.drawn[at[some]] = True
                effect.logits = logits.clone() if effect.logits is logits else effect.logits
                effect.logits[at[some]] = action.logits[some].to(logits.dtype)
            if action.embeddings is not None:
                some = np.arange(len(at)) if action.soft is None else np.flatnonzero(action.soft)
                effect.soft[at[some]] = True
                if effect.embeddings is None:
                    effect.embeddings = self.model.embed.new_zeros((m, self.model.embed.shape[1]))
                effect.embeddings[at[some]] = action.embeddings[some]
        return effect


def _rows(logits: Tensor, at: I64, slots: I64 | None) -> Tensor:
    """The logits of some rows, ``at`` [k] of those that are in ``slots``."""
    return logits[torch.from_numpy(at if slots is None else slots[at]).to(logits.device)]


def _some(effect: Effect, going: Mask) -> Effect:
    embeddings = None if effect.embeddings is None else effect.embeddings[torch.from_numpy(going)]
    return Effect(
        effect.logits[torch.from_numpy(going).to(effect.logits.device)],
        effect.drawn[going],
        effect.soft[going],
        embeddings,
    )
