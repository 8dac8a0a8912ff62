"""A record of paid calls, so that a run that was killed makes none of them again.

Every call has a name: its question, a digest of the request, and a number among equal requests. The name is the id of
the ledger's reservation, so that a call is charged once whatever is repeated, and the key of its answer in the record.
The answer, or the failure, is recorded before the call is settled.

When a killed run is resumed, its strategies start their open questions again. The k-th of equal requests gets the
answer of the k-th of them on record, at no cost; further requests are sent to the model. Calls that were under way at
the kill may have been billed: they count as spent in full, and are made again under a new name if what is left of the
question's budget covers them. Failed calls are made again, too, if their question had ended and its row was removed
from the output: whoever removes a row wants the question to be asked again.
"""

from __future__ import annotations

import asyncio
import copy
import hashlib
import json
from collections import Counter
from collections.abc import AsyncIterator, Container, Iterable, Mapping, Sequence
from contextlib import aclosing
from contextvars import ContextVar
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

from budgeteer.core.errors import ModelError
from budgeteer.core.meter import Prices
from budgeteer.core.usage import Usage
from budgeteer.ledger import Allowance
from budgeteer.ledger.protocol import MAX_SECONDS
from budgeteer.metering.call import Call
from budgeteer.metering.outcome import Outcome
from budgeteer.metering.settlement import Settlement
from budgeteer.models.chat import Prompt
from budgeteer.models.model import Choice, Chunk, Model, Request, Response
from budgeteer.solve.budgeted import Budgeted
from budgeteer.solve.lines import Lines
from budgeteer.solve.tool import Tool, written

_CALL: ContextVar[str] = ContextVar("name of the call under way")
_BROKEN_OFF = "the call was broken off"


class Calls:
    """The answers and failures of a run's calls, by name, in a file.

    Args:
        path: of the file; None: nothing is recorded, since the run cannot be resumed.

    Attributes:
        pausing: whether the run is being paused, so that a call that is interrupted now is made again later.
    """

    def __init__(self, path: Path | None) -> None:
        # no fsync: after a power cut, a call that the ledger knows and the record does not counts as under way
        self._file = None if path is None else Lines(path, sync=False)
        rows = [] if self._file is None else self._file.earlier
        self._earlier = {row["call"]: row for row in rows if "call" in row}
        self._ended = {row["ended"] for row in rows if "ended" in row}
        self._numbers: dict[str, list[int]] = {}
        self.pausing = False

    @property
    def recording(self) -> bool:
        """Whether calls are recorded."""
        return self._file is not None

    def get(self, name: str) -> dict[str, Any] | None:
        """The record of a call from an earlier process; None if there is none."""
        return self._earlier.get(name)

    def begin(self, answered: Container[str]) -> None:
        """Prepare the record for this process: forget failed calls of questions that had ended but have no row.

        Args:
            answered: scopes of the questions that have a row.
        """
        again = {scope for scope in self._ended if scope not in answered}
        self._earlier = {
            name: row
            for name, row in self._earlier.items()
            if "failed" not in row or name.split(".", 1)[0] not in again
        }
        for name in self._earlier:
            stem, number = numbered(name)
            self._numbers.setdefault(stem, []).append(number)
        for numbers in self._numbers.values():
            numbers.sort()

    def on_record(self, stem: str) -> Sequence[int]:
        """Numbers, ascending, of the equal requests (of one stem) that earlier processes made."""
        return self._numbers.get(stem, ())

    def end(self, scope: str) -> None:
        """Record that a question has ended; its row is written next."""
        if self._file is not None:
            self._file.append({"ended": scope})

    def add(self, name: str, **outcome: Any) -> None:
        """Record the answer or the failure of a call."""
        if self._file is not None:
            self._file.append({"call": name, **outcome})

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()


class Recorded:
    """A model whose answers are recorded, and read from the record if they are there.

    Only for calls to which :class:`Named` has given a name.
    """

    def __init__(self, model: Model, calls: Calls) -> None:
        self._model, self._calls = model, calls
        self.context, self.choices = getattr(model, "context", None), getattr(model, "choices", None)

    @property
    def name(self) -> str:
        """That of the model."""
        return self._model.name

    @property
    def hides(self) -> bool:
        """That of the model."""
        return bool(getattr(self._model, "hides", False))

    @property
    def capabilities(self) -> frozenset[str]:
        """That of the model."""
        return self._model.capabilities

    def count(self, prompt: Prompt) -> int:
        """Input tokens of a prompt, or an upper bound."""
        return self._model.count(prompt)

    async def generate(self, request: Request) -> Response:
        """All choices of a request, from the record or the model."""
        name = _CALL.get()
        known = self._calls.get(name)
        if known is not None:
            if "failed" in known:
                raise ModelError(known["failed"], billed=known["billed"], again=known["again"])
            return _response(known)
        try:
            response = await self._model.generate(request)
        except BaseException as error:
            self._failed(name, error)
            raise
        self._calls.add(name, **_plain(response))
        return response

    async def stream(self, request: Request) -> AsyncIterator[Chunk | Response]:
        """``generate`` piece by piece; a stream that was closed early is recorded as far as it was read."""
        name = _CALL.get()
        known = self._calls.get(name)
        if known is not None:
            for piece in known.get("chunks", ()):
                yield Chunk(*piece)
            if "failed" in known:
                raise ModelError(known["failed"], billed=known["billed"], again=known["again"])
            if "choices" in known:
                yield _response(known)
            return
        chunks: list[Chunk] = []
        whole = False
        try:
            async with aclosing(self._model.stream(request)) as pieces:  # type: ignore[type-var]
                async for piece in pieces:
                    whole = isinstance(piece, Response)
                    if isinstance(piece, Response):
                        self._calls.add(name, chunks=chunks, **_plain(piece))
                    else:
                        chunks.append(piece)
                    yield piece
        except GeneratorExit:
            if not whole:
                self._calls.add(name, chunks=chunks)
            raise
        except BaseException as error:
            self._failed(name, error, chunks=chunks)
            raise

    def _failed(self, name: str, error: BaseException, **seen: Any) -> None:
        if isinstance(error, ModelError):
            self._calls.add(name, failed=str(error), billed=error.billed, again=error.again, **seen)
        elif isinstance(error, asyncio.CancelledError) and not self._calls.pausing:
            self._calls.add(name, failed=_BROKEN_OFF, billed=True, again=False, **seen)

    async def aclose(self) -> None:
        """Does nothing: the owner of the model closes it."""


class NamedAllowance:
    """An allowance whose reservations have the names of their calls as ids, and do not expire."""

    def __init__(self, allowance: Allowance, named: bool) -> None:
        self._allowance, self._named = allowance, named

    @property
    def remaining(self) -> dict[str, int]:
        """Units per kind that are left of the allowance."""
        return self._allowance.remaining

    def hold(self, amounts: Mapping[str, int]) -> None:
        """Deduct units from the allowance permanently."""
        self._allowance.hold(amounts)

    def share(self, parts: Sequence[Mapping[str, int]]) -> list[NamedAllowance]:
        """Parts of what is left; each gives back what it did not use when its block ends."""
        return [NamedAllowance(part, self._named) for part in self._allowance.share(parts)]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._allowance.close()

    def reserve(self, amounts: Mapping[str, int], *, id: str | None = None) -> Any:
        """A call of the allowance, as a context manager."""
        return self._allowance.reserve(amounts, id=_CALL.get() if self._named else id, ttl=MAX_SECONDS)


class Named(Budgeted):
    """A budgeted model for one question of a run, whose calls have names.

    Args:
        model: any Model.
        allowance: what the question may use.
        prices: for an allowance of money, and for ``cost``.
        calls: the run's record.
        scope: name of the question's account.
        used: stem of a name -> the first number under which no earlier process was charged.
        gone: units per kind that earlier processes were charged for calls that are not on record.

    Attributes:
        wasted: units per kind that were charged for calls without an answer, including ``gone``.
    """

    def __init__(
        self,
        model: Model,
        allowance: Allowance | NamedAllowance,
        *,
        prices: Prices | None,
        calls: Calls,
        scope: str,
        used: Mapping[str, int],
        gone: Mapping[str, int],
    ) -> None:
        held: Any = allowance if isinstance(allowance, NamedAllowance) else NamedAllowance(allowance, calls.recording)
        super().__init__(Recorded(model, calls) if calls.recording else model, held, prices=prices)
        self._right, self._calls, self._scope, self._used = allowance, calls, scope, used
        self._owed = dict(gone)  # one for all models of the question, as are the other records
        self._beside = ""
        self._seen: Counter[str] = Counter()
        self._prices = prices
        self.wasted = {kind: gone.get(kind, 0) for kind in allowance.remaining}
        self._paid = Counter[str]()  # one for all models of the question

    @property
    def cost(self) -> int:
        """Pico-dollars of what was charged, if there are prices."""
        return self._paid["cost"]

    async def _start(self, request: Request, stage: str, attempt: int) -> Call:
        if self._calls.recording:
            self._name(_digest(request, stage, self._beside))
        return await super()._start(request, stage, attempt)

    async def use(self, tool: Tool, arguments: Mapping[str, Any]) -> str:
        """The text of a tool's result, from the record or the tool; see :meth:`Budgeted.use`."""
        if self._calls.recording:
            self._name(_short([tool.name, written(arguments)]))
        text = await super().use(tool, arguments)
        self._paid["cost"] += tool.cost if self._prices is not None else 0
        return text

    async def _called(self, tool: Tool, arguments: Mapping[str, Any]) -> str:
        if not self._calls.recording:
            return await super()._called(tool, arguments)
        known = self._calls.get(_CALL.get())
        if known is not None and "result" in known:
            return str(known["result"])
        name = _CALL.get()
        text = await super()._called(tool, arguments)
        self._calls.add(name, result=text)
        return text

    def _name(self, digest: str) -> None:
        """Give the next call of this digest its name."""
        stem = f"{self._scope}.{digest}"
        known, at = self._calls.on_record(stem), self._seen[stem]
        self._seen[stem] += 1
        if at < len(known):
            number = known[at]
        else:
            number = max(self._used.get(stem, 0), known[-1] + 1 if known else 0) + at - len(known)
        if self._owed and at >= len(known):
            # calls on record see the budget as it was at the time, or their requests would not be the same
            self._right.hold(dict(self._owed))
            self._owed.clear()
        _CALL.set(f"{stem}.{number}")

    def other(self, model: Model) -> Named:
        """Another model behind the same budget, whose calls have names of their own."""
        twin = copy.copy(self)
        twin.model = Recorded(model, self._calls) if self._calls.recording else model
        twin._beside = model.name
        return twin

    def _book(self, settlement: Settlement) -> None:
        super()._book(settlement)
        if settlement.outcome == Outcome.UNKNOWN:
            for kind, units in settlement.amounts.items():
                self.wasted[kind] += units
        if self._prices is not None:
            self._paid["cost"] += self._prices.cost(settlement.usage, settlement.response_model or settlement.model)


def numbered(name: str) -> tuple[str, int]:
    """A call's name as its stem and its number among equal requests."""
    stem, _, number = name.rpartition(".")
    return stem, int(number)


def _digest(request: Request, stage: str, beside: str = "") -> str:
    """A digest of a request, its stage and the name of the model, where that is not the run's."""
    prompt = request.prompt
    content = (
        prompt if isinstance(prompt, str) else {k: v for k, v in asdict(prompt).items() if k != "tools" or v},
        request.max_tokens,
        request.n,
        request.temperature,
        request.stop,
        request.seed,
        request.logprobs,
        stage,
        *([beside] if beside else []),
    )
    return _short(content)


def _short(content: Sequence[Any]) -> str:
    return hashlib.blake2b(json.dumps(content).encode(), digest_size=12).hexdigest()


def _plain(response: Response) -> dict[str, Any]:
    choices = [[c.text, c.tokens, c.finish, c.logprobs, c.forced, c.notes] for c in response.choices]
    return {"choices": choices, "usage": {k: v for k, v in asdict(response.usage).items() if v not in (None, ())}}


def _response(row: Mapping[str, Any]) -> Response:
    choices: Iterable[Any] = row["choices"]
    answered = tuple(
        Choice(text, tokens, finish, None if logprobs is None else tuple(logprobs), *steered)
        for text, tokens, finish, logprobs, *steered in choices
    )
    return Response(answered, Usage(**row["usage"]))
