"""The Steer protocol: what may end, force or bend rows while they are decoded, decided for all rows at once.

A steer is two pure functions, ``init`` and ``step``, and what ``step`` has to see. An engine asks it for the next token
of its rows: the embedded model in training and inference, :class:`budgeteer.models.transformers.Transformers`, and
``model.generate`` of Hugging Face (:func:`budgeteer.adapters.transformers.steered`).

When an engine asks: a steer that needs neither logits nor hidden states is asked before they are computed, so that a
row that it ends costs no computation; the others are asked afterwards. What happens then, in this order: rows that the
steer ends take no token; a forced token is taken as it is; other rows draw from the model's logits at their
temperature, or from the steer's as they are. A forced token is a token: it counts, is part of the text, and ends the
row if it is the end of the sequence or completes a stop text.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from functools import cached_property, lru_cache, wraps
from typing import Any, NamedTuple, ParamSpec

import numpy as np
from numpy.typing import NDArray

from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import F64, I64, MOST

P = ParamSpec("P")
Mask = NDArray[np.bool_]
Tensor = Any
"""A torch tensor: this module imports no torch."""
State = Any
"""Columns with one entry a row: an array, list or tensor, or a tuple or dataclass of columns; ``()`` is no state."""


class Decision(IntEnum):
    """What becomes of a row before its next token."""

    CONTINUE = 0
    """It goes on."""
    FINISH = 1
    """A complete answer ends the row; open thinking is closed by force; otherwise the row goes on."""
    ABORT = 2
    """It ends without an answer; its tokens stay on the bill."""
    STOP = 3
    """It ends as if by itself."""


CONTINUE, FINISH, ABORT, STOP = Decision


class Need(StrEnum):
    """What a steer has to see, or an engine to do for it."""

    TOKENS = "tokens"
    """Lengths, caps and token ids."""
    MARKERS = "markers"
    """Where the thinking closed and the answer was complete."""
    TEXT = "text"
    """The texts of tokens, and the tokens of a text."""
    MARGIN = "margin"
    """The gap between the two largest probabilities of the last token's distribution."""
    LOGITS = "logits"
    """The logits of the next token, to read or to change."""
    HIDDEN = "hidden"
    """The hidden states of all layers at the last position."""
    EMBEDDINGS = "embeddings"
    """To feed an embedding that is no token's."""


LATE = frozenset({Need.LOGITS, Need.HIDDEN, Need.EMBEDDINGS})
"""Needs of the steers that are asked after the next token's logits were computed."""


def fingerprint_of(embed: Any) -> str:
    """The fingerprint of a model by its input embeddings [V, h], a torch tensor."""
    return hashlib.blake2b(embed.detach().cpu().numpy().tobytes(), digest_size=8).hexdigest()


@dataclass(frozen=True, eq=False)
class Internals:
    """What an engine tells a steer about its model.

    Attributes:
        embed: [V, h] input embeddings, a torch tensor.
        pieces: text of each token id; ``()`` where the engine does not offer :attr:`Need.TEXT`.
        eos: id of the end-of-sequence token, -1 = there is none.
        encode: text -> token ids, without a beginning-of-sequence token.
        never: ids that are never drawn, whatever their logits: those of a head in unused vocabulary rows. Steers see
            their logits.
    """

    embed: Tensor
    pieces: tuple[str, ...]
    eos: int
    encode: Callable[[str], list[int]]
    never: tuple[int, ...] = ()

    @cached_property
    def fingerprint(self) -> str:
        """A fingerprint of the weights, so that a head that was trained on other ones is refused."""
        return fingerprint_of(self.embed)


@dataclass(frozen=True, slots=True)
class Rows:
    """What a steer may know of n rows before they start.

    Attributes:
        keys: n keys, one a row: of the training prompts, where they repeat, or of the choices of a request.
        max_tokens: [n] hard cap of each row.
        seed: makes every random decision of the steer repeatable.
    """

    keys: tuple[str, ...]
    max_tokens: I64
    seed: int


def _no_margin() -> NDArray[np.float32]:
    raise InvalidInput("a steer asked for the margin without naming it; put Need.MARGIN into its needs")


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """The m running rows of a steer, before their next token.

    Attributes:
        row: [m] where the rows are in the steer's state.
        length: [m] tokens so far; 0 before the first one.
        cap: [m] most tokens that a row may have.
        closed: [m] length at which the thinking was closed by its marker, -1 = not yet; 0 = there is no thinking.
        answered: [m] length at which the answer was complete, -1 = not yet.
        last: [m] the last token, -1 before the first one.
        forced: [m] the next token is forced already: the rest of a marker that closes the thinking, or what another
            steer forces. What is decided about it changes nothing.
        temperature: [m] of the row's draws; 0 is greedy.
        group: [n] for all rows of the state: rows with equal numbers belong to one prompt (training) or one request.
        margin: call for [m] p(1st) - p(2nd) of the last token's distribution, NaN before the first token.
        tokens: call with i in [0, m) for the row's tokens so far.
        close: call with i in [0, m) for the tokens that close the row's thinking; ``()`` = it has none.
        model: what the engine tells about its model.
        logits: [m, V] raw logits of the next token, if needed. A buffer of the engine: neither to be kept nor to be
            written to.
        hidden: [m, L + 1, h] at the last position, if needed: the input embedding, then the state after each block,
            the last of them after the final norm (the order of transformers).
    """

    row: I64
    length: I64
    cap: I64
    closed: I64
    answered: I64
    last: I64
    forced: Mask
    temperature: F64
    group: I64
    margin: Callable[[], NDArray[np.float32]]
    tokens: Callable[[int], I64]
    close: Callable[[int], tuple[int, ...]]
    model: Internals
    logits: Tensor = None
    hidden: Tensor = None

    @classmethod
    def of(cls, length: Sequence[int] | I64, **columns: Any) -> Snapshot:
        """One with these lengths and columns; the rest as at the start of a row of endless cap. For tests and checks.

        Args:
            length: [m].
            columns: any attribute; numbers stand for all rows.

        >>> Snapshot.of([3, 9], closed=[-1, 8]).closed.tolist()
        [-1, 8]
        """
        m = len(length)
        start = {"row": np.arange(m), "cap": MOST, "closed": -1, "answered": -1, "last": -1}
        made: dict[str, Any] = {
            name: np.broadcast_to(np.asarray(columns.pop(name, value), np.int64), (m,)) for name, value in start.items()
        }
        made["length"] = np.asarray(length, np.int64)
        forced = np.broadcast_to(np.asarray(columns.pop("forced", False), np.bool_), (m,))
        warm = np.broadcast_to(np.asarray(columns.pop("temperature", 1.0), np.float64), (m,))
        last = made["last"]
        rest = {
            "group": np.zeros(m, np.int64),
            "margin": _no_margin,
            "tokens": lambda i: last[i : i + 1][: int(last[i] >= 0)],
            "close": lambda i: (),
            "model": Internals(None, (), -1, lambda text: []),
        }
        return cls(**made, forced=forced, temperature=warm, **{**rest, **columns})


@dataclass(frozen=True, slots=True, eq=False)
class Action:
    """What a steer does to the m rows of a snapshot; None = nothing.

    Attributes:
        decision: [m] int8, each a :class:`Decision`.
        force: [m] token ids to take instead of a draw; -1 = draw.
        logits: [m, V] to draw from as they are (greedy rows: their argmax): the row's temperature is the steer's
            affair. ``-inf`` excludes a token; a row needs at least one finite value.
        drawn: [m] rows that ``logits`` counts for; None = all. The others draw from the model's.
        embeddings: [m, h] fed at the next step instead of the embedding of the token that is taken now.
        soft: [m] rows that ``embeddings`` counts for; None = all.
        cap: [m] new caps; one above the row's present cap changes nothing.
    """

    decision: NDArray[np.int8] | None = None
    force: I64 | None = None
    logits: Tensor = None
    drawn: Mask | None = None
    embeddings: Tensor = None
    soft: Mask | None = None
    cap: I64 | None = None


NOTHING = Action()
"""Changes nothing."""


class Steer(NamedTuple):
    """Two pure functions, what the second has to see, and how often it is asked.

    Requests whose steers are equal are asked about together, at one call a step for all their rows; :func:`shared`
    makes a factory return the same steer for the same arguments. An error that a steer raises fails the requests of its
    rows, or the training step.

    Attributes:
        init: ``(rows) -> state``, columns with one entry a row. The engine joins the states of requests that come and
            takes out the rows of those that go.
        step: ``(state, snapshot) -> (action, state)``. It leaves the state that it was given untouched.
        needs: what it has to see or change; an engine that does not offer it refuses the steer before it spends.
        every: asked about a row when its length is a multiple of this, 0 included.
        kept_weight: ``(state) -> [n] float64`` importance weight of each row that the steer chose to let run by chance
            (1 for a row that was never at risk).
        report: ``(state) -> n`` notes, JSON data about each row to be read when it has ended.
    """

    init: Callable[[Rows], State]
    step: Callable[[State, Snapshot], tuple[Action, State]]
    needs: frozenset[Need] = frozenset({Need.TOKENS, Need.MARKERS})
    every: int = 1
    kept_weight: Callable[[State], F64] | None = None
    report: Callable[[State], list[Any]] | None = None

    @property
    def late(self) -> bool:
        """Asked after the logits of the next token were computed."""
        return not self.needs.isdisjoint(LATE)


def shared(factory: Callable[P, Steer]) -> Callable[P, Steer]:
    """Let a factory return the same steer for the same (hashable) arguments, so that equal ones are asked together."""
    made = lru_cache(256)(factory)

    @wraps(factory)
    def steer(*args: P.args, **kwargs: P.kwargs) -> Steer:
        return made(*args, **kwargs)  # type: ignore[arg-type]

    return steer


def require_offered(steer: Steer, offered: frozenset[Need], engine: str) -> None:
    """Refuse a steer that an engine cannot serve.

    Raises:
        InvalidInput: names what is missing.
    """
    missing = sorted(steer.needs - offered)
    if missing:
        raise InvalidInput(
            f"the steer needs {', '.join(missing)}, which {engine} does not offer; choose one that needs no more than "
            f"{', '.join(sorted(offered))}"
        )
    if steer.every < 1:
        raise InvalidInput(f"Steer.every is {steer.every}; ask after 1 or more tokens")


# states as columns


def take(state: State, rows: I64) -> State:
    """The state of some of its rows.

    >>> take((np.array([5, 6, 7]), ["a", "b", "c"]), np.array([2, 0]))
    (array([7, 5]), ['c', 'a'])
    """
    if isinstance(state, list):
        return [state[i] for i in rows.tolist()]
    if isinstance(state, tuple):
        return _like(state, [take(column, rows) for column in state])
    if dataclasses.is_dataclass(state) and not isinstance(state, type):
        names = [entry.name for entry in dataclasses.fields(state)]
        return type(state)(**{name: take(getattr(state, name), rows) for name in names})
    if not hasattr(state, "shape"):
        raise InvalidInput(f"a steer's state holds {state!r}; make it of arrays, lists or tensors with one entry a row")
    return state[rows]


def join(first: State, second: State) -> State:
    """The state of the rows of both, those of the first one first.

    >>> join((np.array([5]), ["a"]), (np.array([6]), ["b"]))
    (array([5, 6]), ['a', 'b'])
    """
    if isinstance(first, list):
        return [*first, *second]
    if isinstance(first, tuple):
        return _like(first, [join(a, b) for a, b in zip(first, second, strict=True)])
    if dataclasses.is_dataclass(first) and not isinstance(first, type):
        names = [entry.name for entry in dataclasses.fields(first)]
        return type(first)(**{name: join(getattr(first, name), getattr(second, name)) for name in names})
    if not hasattr(first, "shape"):
        raise InvalidInput(f"a steer's state holds {first!r}; make it of arrays, lists or tensors with one entry a row")
    if isinstance(first, np.ndarray):
        return np.concatenate([first, second])
    import torch  # only a steer that keeps tensors comes here

    return torch.cat([first, second])


def _like(state: tuple[Any, ...], columns: list[Any]) -> Any:
    return type(state)(*columns) if hasattr(state, "_fields") else tuple(columns)
