"""Hooks into decoding: what a strategy that needs internals sees at every step, and what it may change.

A :class:`budgeteer.models.model.Request` carries a hook. Before a token is drawn, the engine calls the hook once for
all rows of the batch whose hooks are equal, so a hook is a frozen dataclass of its parameters: the same strategy on
many questions at once costs one call a step. What belongs to a row lives in ``Row.state``; what belongs to a request
(a record to be read afterwards) lives in a field with ``compare=False`` and is reached by ``row.request.hook``.

The order at a step: rows that the hook ends draw nothing; forced tokens are taken as they are; other rows draw from
the logits with the row's own stream of random numbers. A forced token is a token: it counts, is part of the text, and
ends the row if it is the end-of-sequence token or completes a stop text.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from budgeteer.core.plan import I64
from budgeteer.models.model import Request

if TYPE_CHECKING:
    from torch import Tensor

Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Internals:
    """What the engine tells a hook about its model.

    Attributes:
        embed: [V, h] input embeddings.
        pieces: text of each token id.
        eos: id of the end-of-sequence token.
        encode: text -> token ids, without a beginning-of-sequence token.
    """

    embed: Tensor
    pieces: tuple[str, ...]
    eos: int
    encode: Callable[[str], list[int]]

    @cached_property
    def fingerprint(self) -> str:
        """Of the weights, so that a head that was trained on other ones is refused."""
        return hashlib.blake2b(self.embed.detach().cpu().numpy().tobytes(), digest_size=8).hexdigest()


@dataclass(slots=True, eq=False)
class Row:
    """One choice of one request while it is decoded. The engine appends to ``tokens``; the hook owns ``state``.

    Attributes:
        request: the whole request: its cap, temperature and hook.
        choice: index within the request, in [0, request.n).
        prompt: tokens of the prompt, with the beginning-of-sequence token.
        tokens: drawn or forced so far; empty at the first step, when the logits are those after the prompt.
        state: None at the first step, then what the hook left there.
    """

    request: Request
    choice: int
    prompt: Sequence[int]
    tokens: list[int] = field(default_factory=list)
    state: Any = None


@dataclass(frozen=True, slots=True, eq=False)
class Action:
    """What a hook changes for its m rows; None = nothing.

    Attributes:
        logits: [m, V] to draw from as they are (greedy requests: their argmax): the request's temperature is the
            hook's affair. ``-inf`` excludes a token; a row needs at least one finite value.
        drawn: [m] rows that ``logits`` counts for; None = all. The others draw from the model's at their temperature.
        force: [m] token ids to take instead of a draw; -1 = draw.
        embeddings: [m, h] fed at the next step instead of the embedding of the token that is taken now.
        soft: [m] rows that ``embeddings`` counts for; None = all.
        end: [m] rows that end here, before a token is taken; they finish with ``"stop"``.
    """

    logits: Tensor | None = None
    drawn: Mask | None = None
    force: I64 | None = None
    embeddings: Tensor | None = None
    soft: Mask | None = None
    end: Mask | None = None


class Hook(Protocol):
    """Called at every decoding step; equal hooks are called together, so it is hashable (a frozen dataclass).

    An error that it raises fails the requests of its rows and no others.
    """

    @property
    def hidden(self) -> bool:
        """Whether it wants the hidden states."""
        ...

    def step(self, inside: Internals, rows: Sequence[Row], logits: Tensor, hidden: Tensor | None) -> Action | None:
        """Decide about the next token of m rows.

        Args:
            inside: the model's.
            rows: [m], those of requests with hooks equal to this one.
            logits: [m, V] raw next-token logits. A buffer of the engine: neither to be kept nor to be written to.
            hidden: [m, L + 1, h] at the last position: the input embedding, then the state after each block, the last
                of them after the final norm (the order of transformers). None unless ``hidden``.

        Returns:
            What changes; None = nothing.
        """
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Effect:
    """The actions on all n rows of a batch, merged. ``logits`` of rows in ``tempered`` are drawn from as they are."""

    logits: Tensor
    tempered: Mask
    force: I64
    end: Mask
    embeddings: Tensor | None
    soft: Mask
    failed: dict[int, Exception]

    def among(self, asked: Mask, going: Mask) -> Effect:
        """The same for the rows ``going`` [n] of a batch of which ``asked`` [n] had a hook; others are left alone."""
        place = np.cumsum(asked) - 1
        here = np.flatnonzero(going)
        has, at = asked[here], place[here].clip(0)

        def spread(values: Any, empty: Any) -> Any:
            return np.where(has, values[at], empty)

        return Effect(
            self.logits[at],
            spread(self.tempered, False),
            spread(self.force, -1),
            np.zeros(len(here), np.bool_),
            None if self.embeddings is None else self.embeddings[at],
            spread(self.soft, False),
            {},
        )


def call_hooks(inside: Internals, rows: Sequence[Row], logits: Tensor, hidden: Tensor | None) -> Effect:
    """Call every distinct hook of a batch once and merge what they return.

    Args:
        rows: [n]; those without a hook are left alone.
        logits: [n, V] raw; not written to.
        hidden: [n, L + 1, h], needed when a hook wants it.

    Returns:
        The merged actions; ``failed`` maps rows to what their hook raised.
    """
    n = len(rows)
    groups: dict[Any, list[int]] = {}
    for i, row in enumerate(rows):
        if row.request.hook is not None:
            groups.setdefault(row.request.hook, []).append(i)
    out, tempered, force = logits, np.zeros(n, np.bool_), np.full(n, -1, np.int64)
    end, soft, failed = np.zeros(n, np.bool_), np.zeros(n, np.bool_), dict[int, Exception]()
    embeddings: Tensor | None = None
    for hook, members in groups.items():
        at = np.array(members)
        where = slice(None) if len(members) == n else at
        try:
            action = hook.step(
                inside,
                [rows[i] for i in members],
                logits[where],
                hidden[where] if hook.hidden else None,  # type: ignore[index]
            )
        except Exception as error:
            failed |= dict.fromkeys(members, error)
            continue
        if action is None:
            continue
        if action.logits is not None:
            some = np.ones(len(at), np.bool_) if action.drawn is None else action.drawn
            tempered[at[some]] = True
            out = out.clone() if out is logits else out
            out[at[some]] = action.logits[some]
        if action.force is not None:
            force[at] = action.force
        if action.end is not None:
            end[at] = action.end
        if action.embeddings is not None:
            some = np.ones(len(at), np.bool_) if action.soft is None else action.soft
            soft[at[some]] = True
            if embeddings is None:
                embeddings = inside.embed.new_zeros((n, inside.embed.shape[1]))
            embeddings[at[some]] = action.embeddings[some]
    return Effect(out, tempered, force, end, embeddings, soft, failed)
