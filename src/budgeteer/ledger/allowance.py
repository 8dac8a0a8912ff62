"""Allowance: an in-process right to spend, which cannot be copied, spent twice, or used after it was handed on."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, NoReturn, Self, overload

from budgeteer.core.errors import AllowanceError, BudgetExceeded, InvalidInput
from budgeteer.ledger.limit import check_amounts, check_path, check_units
from budgeteer.ledger.protocol import Ledger, OnAbandon, encode_tags
from budgeteer.ledger.reserved import Reserved

_HINT = "give the Allowance more, lower the cap of the call's output, or end a call or child that holds some"


class _Tree:
    """Shared by an allowance and all that descend from it: a lock, the process, and the scopes known to be open."""

    def __init__(self, path: str) -> None:
        self.lock, self.pid = threading.Lock(), os.getpid()
        self.opened = {*check_path(path)}


class Allowance:
    """The right to spend at most ``amounts`` at a path of a ledger, in this process.

    It is affine (arXiv 2606.04056): copying and pickling it, and using it after ``delegate`` or ``close``, are errors.
    Every call reserves in the ledger too, so the limits there hold whatever allowances were made; the allowance adds a
    cap of this run, agent or task on top. Not thread-bound: threads and tasks may share one.

    Hard: units held and spent never exceed ``amounts``, except for what calls used above their own reservations. That
    is deducted from what is left (below 0, if need be), which goes to the parent when this allowance closes.

    Args:
        ledger: any Ledger.
        path: of an open account.
        amounts: the cap, units per kind; kinds that it leaves out are limited by the ledger alone.
        tags: put on every settlement, such as {"run": "7"}.

    >>> from budgeteer.ledger import Limit, MemoryLedger
    >>> ledger = MemoryLedger()
    >>> ledger.open("acme", [Limit("all", 10_000)])
    >>> with Allowance(ledger, "acme", {"all": 1000}) as agent:
    ...     with agent.reserve({"all": 400}) as call:
    ...         call.settle({"all": 150}, stage="review")
    ...     coder, reviewer = agent.share([2, 1])
    ...     coder.remaining, reviewer.remaining
    ({'all': 567}, {'all': 283})
    """

    def __init__(
        self, ledger: Ledger, path: str, amounts: Mapping[str, int], *, tags: Mapping[str, str] | None = None
    ) -> None:
        self._ledger, self._path = ledger, check_path(path)[-1]
        self._free = dict(check_amounts(amounts))
        self._granted, self._held = dict(self._free), dict.fromkeys(self._free, 0)  # held: by calls and by children
        self._tags = dict(tags or {})
        encode_tags(self._tags)
        self._tree, self._state = _Tree(path), "open"
        self._next: Allowance | None = None
        self._parent: Allowance | None = None
        self._children: set[Allowance] = set()

    @property
    def path(self) -> str:
        """The account that calls are charged to."""
        return self._path

    @property
    def remaining(self) -> dict[str, int]:
        """Units per kind that are neither held, spent nor given to a child; below 0 after an overshoot."""
        with self._tree.lock:
            return dict(self._free)

    def reserve(
        self,
        amounts: Mapping[str, int],
        *,
        id: str | None = None,
        ttl: int | None = None,
        on_abandon: OnAbandon = "charge",
    ) -> Call:
        """A call, as a context manager (``with`` or ``async with``) that holds units on entry and settles on exit.

        Its reservation is renewed as long as the block runs, however long. If the process dies in it, it counts as
        abandoned after ``ttl`` seconds. In a ledger that dies with the process it is simply held.

        Args:
            amounts: worst case of the call, units per kind.
            id, ttl, on_abandon: as in :meth:`Ledger.reserve`.

        Raises (on entry):
            BudgetExceeded: this allowance or an account of the path does not cover it.
            AllowanceError: the allowance was delegated, closed, or is of another process.
        """
        return Call(self, amounts, id, ttl, on_abandon)

    @overload
    def share(
        self, parts: Sequence[int] | Sequence[Mapping[str, int]], *, tags: Mapping[str, str] | None = None
    ) -> list[Allowance]: ...

    @overload
    def share(
        self, parts: Mapping[str, int] | Mapping[str, Mapping[str, int]], *, tags: Mapping[str, str] | None = None
    ) -> dict[str, Allowance]: ...

    def share(self, parts: Any, *, tags: Mapping[str, str] | None = None) -> list[Allowance] | dict[str, Allowance]:
        """Split what is left among children; what a child does not use comes back when it closes.

        Args:
            parts: one for each child. Integers are weights: all that is left is split by them to the unit, by largest
                remainder. Mappings are amounts, units per kind, and the rest stays here. A mapping from names gives
                every child a scope of its own under this path; it is opened on first use, without limits of its own.
            tags: put on every settlement of the children, beside and before those of this allowance.

        Returns:
            The children, as a list, or by name if ``parts`` has names.

        Raises:
            BudgetExceeded: the amounts exceed what is left.
            InvalidInput: a name that is on the path already (a cycle), weights that are all 0.
        """
        names = list(parts) if isinstance(parts, Mapping) else None
        slices = list(parts.values()) if isinstance(parts, Mapping) else list(parts)
        paths = [self._path if names is None else self._below(name) for name in names or slices]
        if not slices:
            raise InvalidInput("share got no parts; give a weight or amounts for each child")
        weights = all(isinstance(part, int) for part in slices)
        amounts = [] if weights else [dict(check_amounts(part)) for part in slices]
        encode_tags(tags := {**self._tags, **(tags or {})})
        with self._tree.lock:
            self._check()
            if weights:
                split = {kind: _split(max(0, free), slices) for kind, free in self._free.items()}
                amounts = [{kind: split[kind][i] for kind in split} for i in range(len(slices))]
            for kind, free in self._free.items():
                missing = [part for part in amounts if kind not in part]
                if missing:
                    raise InvalidInput(
                        f"a part {missing[0]} lacks {kind}, which this allowance limits; name every kind"
                    )
                wanted = sum(part[kind] for part in amounts)
                if wanted > free and wanted:
                    raise self._refusal(kind, wanted)
            extra = sorted({kind for part in amounts for kind in part} - self._free.keys())
            if extra:
                raise InvalidInput(f"the parts name {', '.join(extra)}, which this allowance does not hold")
            children = [self._child(path, part, tags) for path, part in zip(paths, amounts, strict=True)]
            for part in amounts:
                for kind, units in part.items():
                    self._free[kind] -= units
                    self._held[kind] += units
            self._children.update(children)
        return children if names is None else dict(zip(names, children, strict=True))

    def refusal(self, kind: str, units: int, hint: str) -> BudgetExceeded:
        """The error of a call that needs more units of a kind than are left; ``hint`` says what to do."""
        with self._tree.lock:
            return self._refusal(kind, units, hint)

    def delegate(self, scope: str | None = None) -> Allowance:
        """Hand the whole right on to a new allowance; this one can no longer be used.

        Calls under way and children belong to the new allowance; what it leaves over goes to the parent of this one.

        Args:
            scope: name of the new holder, as a scope of its own under this path.

        Raises:
            InvalidInput: the scope is on the path already: agents that delegate in a circle spend for ever.
        """
        path = self._path if scope is None else self._below(scope)
        with self._tree.lock:
            self._check()
            heir = self._child(path, self._free, self._tags)
            heir._granted, heir._held = self._granted, self._held
            heir._parent = self._parent
            if self._parent is not None:
                self._parent._children.discard(self)
                self._parent._children.add(heir)
            heir._children, self._children = self._children, set()
            for child in heir._children:
                child._parent = heir
            self._free, self._held = dict.fromkeys(self._free, 0), dict.fromkeys(self._free, 0)
            self._state, self._next = "delegated", heir
        return heir

    def beside(self, path: str, amounts: Mapping[str, int]) -> Allowance:
        """A new allowance of another account of the same ledger, for helper calls that this allowance does not pay.

        Args:
            path: of an open account.
            amounts: the cap, units per kind.
        """
        self._check()
        return Allowance(self._ledger, path, amounts, tags=self._tags)

    def close(self) -> None:
        """Give back to the parent what is left here and in open children; a second call does nothing.

        Calls under way may still settle; what they leave over goes to the parent, too.
        """
        with self._tree.lock:
            self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __copy__(self) -> NoReturn:
        raise AllowanceError("an allowance cannot be copied, or it could be spent twice; share it or delegate it")

    def __deepcopy__(self, _: object) -> NoReturn:
        self.__copy__()

    def __reduce_ex__(self, _: object) -> NoReturn:
        raise AllowanceError(
            "an allowance cannot be pickled; open an account for the other process and let it make an allowance there"
        )

    # the arithmetic; the caller holds the lock where a name begins with an underscore

    def _below(self, name: object) -> str:
        if not isinstance(name, str) or "/" in name:
            raise InvalidInput(f"{name!r} is no scope; give one name, such as 'reviewer'")
        if name in self._path.split("/"):
            raise InvalidInput(f"{name!r} is on the path {self._path!r} already: that delegation would be a circle")
        return check_path(f"{self._path}/{name}")[-1]

    def _child(self, path: str, amounts: Mapping[str, int], tags: Mapping[str, str]) -> Allowance:
        child = Allowance(self._ledger, path, dict.fromkeys(amounts, 0), tags=tags)
        child._free, child._granted, child._tree, child._parent = dict(amounts), dict(amounts), self._tree, self
        return child

    def _check(self) -> None:
        if self._state != "open":
            raise AllowanceError(f"this allowance of {self._path!r} was {self._state}; use the one that was handed on")
        if self._tree.pid != os.getpid():
            raise AllowanceError(
                f"this allowance belongs to process {self._tree.pid}; open an account for this one and make it its own"
            )

    def _refusal(self, kind: str, units: int, hint: str = _HINT) -> BudgetExceeded:
        return BudgetExceeded(
            kind=kind,
            scope=f"{self._path} (allowance)",
            used=self._granted[kind] - self._free[kind],
            requested=units,
            limit=self._granted[kind],
            held=self._held[kind],
            hint=hint,
        )

    def hold(self, amounts: Mapping[str, int]) -> None:
        """Deduct units of a call from what is left.

        Raises:
            BudgetExceeded: less is left.
            AllowanceError: the allowance was delegated, closed, or is of another process.
        """
        with self._tree.lock:
            self._check()
            for kind, free in self._free.items():
                if kind not in amounts:
                    raise InvalidInput(
                        f"the call names {', '.join(amounts)} but not {kind}, which this allowance limits"
                    )
                if amounts[kind] and amounts[kind] > free:  # 0 units need no room, even after an overshoot
                    raise self._refusal(kind, amounts[kind])
            for kind in self._free:
                self._free[kind] -= amounts[kind]
                self._held[kind] += amounts[kind]

    def give(self, amounts: Mapping[str, int], held: Mapping[str, int] | None = None) -> None:
        """Put units back into the allowance that holds the right now: this one, its delegate, or a parent.

        Args:
            amounts: units that were not used; negative after an overshoot.
            held: units that are no longer held; None: the same as ``amounts``, since none of them was used.
        """
        with self._tree.lock:
            self._give(amounts, amounts if held is None else held)

    def _give(self, amounts: Mapping[str, int], held: Mapping[str, int]) -> None:
        holder: Allowance | None = self
        while holder is not None and holder._state != "open":
            holder = holder._next
        if holder is not None:
            for kind in holder._free.keys() & amounts.keys():
                holder._free[kind] += amounts[kind]
                holder._held[kind] -= held[kind]

    def _close(self) -> None:
        if self._state != "open":
            return
        for child in tuple(self._children):
            child._close()
        left, self._free = self._free, dict.fromkeys(self._free, 0)
        ended = {kind: units - self._held[kind] for kind, units in self._granted.items()}  # calls go on in the parent
        self._state, self._next = "closed", self._parent
        if self._parent is not None:
            self._parent._children.discard(self)  # a run has a child for each question
        self._give(left, ended)

    def unopened(self) -> list[str]:
        """Scopes of the path that the ledger may not know yet."""
        known = self._tree.opened
        return [] if self._path in known else [scope for scope in check_path(self._path) if scope not in known]


class Call(Reserved):
    """Units held for one call, settled when the block ends.

    ``settle`` says what was used and may be called again as more is known: the last amounts count, also if the block
    is left by an error or a cancellation. If it is never called, all that was held is charged and tagged
    ``estimated``, since the provider may bill it; ``release`` says that nothing was sent. If the ledger does not answer
    when the block ends, another thread books the end later: the call is over and paid, and its result must not be lost.

    Attributes:
        id: of the reservation, for a later ``Ledger.settle``.
        ledger: where it is reserved.
        amounts: units per kind that are held.
        reservation: as the ledger returned it; None before the block is entered. Status "settled" means that this id
            was charged before.
    """

    __slots__ = ("_actual", "_allowance", "_released", "_tags")

    def __init__(
        self,
        allowance: Allowance,
        amounts: Mapping[str, int],
        id: str | None,
        ttl: int | None,
        on_abandon: OnAbandon = "charge",
    ) -> None:
        super().__init__(allowance._ledger, allowance._path, amounts, id, ttl, on_abandon)
        self._allowance = allowance
        self._actual: dict[str, int] | None = None
        self._tags: dict[str, str] = {}
        self._released = False

    def settle(self, actual: Mapping[str, int], **tags: str) -> None:
        """Say what was used so far, units per kind; booked when the block ends."""
        self._same(actual)
        encode_tags(tags)
        self._actual, self._tags = dict(check_amounts(actual)), {**self._tags, **tags}

    def release(self) -> None:
        """Say that the call was not sent; nothing is charged."""
        self._released = True

    def extend(self, amounts: Mapping[str, int]) -> None:
        """Hold these totals (units per kind) instead, as a stream grows; lower ones than are held change nothing.

        Raises:
            BudgetExceeded: the allowance or the ledger does not cover them; the call holds what it held.
        """
        more, totals = self._more(amounts)
        try:
            self._raise_to(totals)
        except BaseException:
            self._allowance.give(more)
            raise

    async def aextend(self, amounts: Mapping[str, int]) -> None:
        """``extend`` without blocking the event loop."""
        more, totals = self._more(amounts)
        try:
            await self._araise_to(totals)
        except BaseException:
            self._allowance.give(more)
            raise

    def __enter__(self) -> Self:
        allowance = self._enter()
        try:
            for scope in allowance.unopened():
                self.ledger.open(scope)
                allowance._tree.opened.add(scope)
            self._reserve()
        except BaseException:
            allowance.give(self.amounts)
            raise
        return self

    async def __aenter__(self) -> Self:
        allowance = self._enter()
        try:
            for scope in allowance.unopened():
                await self.ledger.aio.open(scope)
                allowance._tree.opened.add(scope)
            await self._areserve()
        except BaseException:
            allowance.give(self.amounts)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._book(*self._exit())

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self._abook(*self._exit())

    def _enter(self) -> Allowance:
        if self.reservation is not None:
            raise AllowanceError(f"call {self.id!r} was entered before; reserve again for another call")
        self._allowance.hold(self.amounts)
        return self._allowance

    def _exit(self) -> tuple[dict[str, int] | None, dict[str, str], bool]:
        """Settle with the allowance, which cannot fail; returns what the ledger is to book."""
        self._end()
        charged = dict.fromkeys(self.amounts, 0) if self._released else self._actual or self.amounts
        left = {kind: units - charged[kind] for kind, units in self.amounts.items()}
        self._allowance.give(left, self.amounts)
        tags = {**self._allowance._tags, **self._tags}
        return self._actual, tags if self._actual is not None else {**tags, "estimated": "yes"}, self._released

    def _same(self, amounts: Mapping[str, int]) -> None:
        if not isinstance(amounts, Mapping) or amounts.keys() != self.amounts.keys():
            raise InvalidInput(f"the call holds {', '.join(self.amounts)}, {amounts!r} was given; name the same kinds")

    def _more(self, amounts: Mapping[str, int]) -> tuple[dict[str, int], dict[str, int]]:
        """Take off the allowance what these totals need more; that, and the totals."""
        self._same(amounts)
        wanted, held = dict(check_amounts(amounts)), self.amounts
        more = {kind: max(0, wanted[kind] - units) for kind, units in held.items()}
        self._allowance.hold(more)
        return more, {kind: units + more[kind] for kind, units in held.items()}


def _split(total: int, weights: Sequence[int]) -> list[int]:
    """Whole units by weight that sum to the total: largest remainder, ties to the first.

    >>> _split(10, [1, 1, 1]), _split(7, [0, 3])
    ([4, 3, 3], [0, 7])
    """
    whole = sum(check_units(weight, "a weight") for weight in weights)
    if whole == 0:
        raise InvalidInput(f"the weights {list(weights)} are all 0; give at least one above")
    shares = [total * weight // whole for weight in weights]
    order = sorted(range(len(weights)), key=lambda i: (-(total * weights[i] % whole), i))
    for i in order[: total - sum(shares)]:
        shares[i] += 1
    return shares
