"""What is learnt of answers: how much of their worst case calls use, and how long answers without a cap become.

A limit is hard, or it is learnt. In a learnt limit a call holds what most calls of its kind used (the quantile of
:class:`~budgeteer.metering.estimate.Estimator`), more while its stream grows, and is settled with what it used; in a
hard one it holds its worst case from the start. The ledger keeps a learnt limit of ``all`` as one of the kind
``learnt.all``, so that both kinds of limits stand in one path and are reserved in one step.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from budgeteer.core.amounts import LEARNT as PREFIX
from budgeteer.core.amounts import OF
from budgeteer.core.errors import InvalidInput
from budgeteer.gateway.conduct import LEARNT
from budgeteer.gateway.config import Model
from budgeteer.metering.call import Metering
from budgeteer.metering.estimate import Estimator, State
from budgeteer.metering.settlement import Planned
from budgeteer.metering.thinking import BUDGETS, TASK, at

_LOG = logging.getLogger(__name__)
RESERVES = Estimator()
"""Of reservations: 95 of 100 calls use no more."""
_CAPS = Estimator(quantile=0.99, window=400, rate=0.0)
"""Of default caps: 99 of 100 answers are no longer, so that one in a hundred is cut short before the cap doubles."""
_SPARE = 2
"""A default cap is so many times the learnt length: an answer that is cut short is lost, a longer cap only reserved."""


def group_of(cap: int) -> str:
    """The group of calls whose use is learnt together: caps up to the same power of two.

    >>> group_of(0), group_of(100), group_of(128), group_of(129)
    (' cap 0', ' cap 128', ' cap 128', ' cap 256')
    """
    return f" cap {1 << (cap - 1).bit_length() if cap else 0}"


def default_cap(model: Model, body: Mapping[str, Any], learnt: Learnt | None) -> int:
    """The output cap of a request that gives none: ``default_output`` of the model, and on top of it the tokens that
    the request allows for thinking, which count as output; at most ``max_output``."""
    largest = model.bounds.max_output or 1
    if model.default_output is None:
        return largest
    if isinstance(model.default_output, int):
        default = model.default_output
    else:
        default = largest if learnt is None else learnt.cap(model)
    given = [value for path in BUDGETS if path not in TASK and type(value := at(body, path)) is int]
    thought = max((value if value >= 0 else largest for value in given), default=0)  # some take -1 for "no limit"
    return min(largest, default + thought)


class BudgetEnded(InvalidInput):
    """The budget does not cover how far a stream has grown."""


class Learnt:
    """What was learnt, by model; safe across threads, and kept as a text.

    Args:
        metering: learns how much of their bounds calls use, if it has an estimator.
    """

    def __init__(self, metering: Metering) -> None:
        self._metering, self._caps, self._lock = metering, State(), threading.Lock()
        self._stored = State(), State()
        self.changed = False

    def follow(self, metering: Metering) -> None:
        """Go on with another metering, that of a new configuration."""
        self._metering = metering

    def cap(self, model: Model) -> int:
        """The learnt default cap of a model; ``max_output`` until enough answers were seen."""
        largest = model.bounds.max_output or 1
        return min(largest, _SPARE * _CAPS.reserve(self._caps, model.price, largest))

    def ended(self, planned: Planned, model: Model, output: int, chose_cap: bool) -> None:
        """Take in a whole answer.

        Args:
            planned: the call.
            model: that answered.
            output: tokens of all its choices.
            chose_cap: whether its cap was chosen here.
        """
        self.changed |= self._metering.estimator is not None
        if model.default_output != LEARNT or not chose_cap:
            return
        largest, length = model.bounds.max_output or 1, -(-output // planned.choices)
        if length >= (planned.cap or largest):  # it was cut short: nobody knows how long it would have become
            length = largest
        with self._lock:
            self._caps = _CAPS.observe(self._caps, model.price, largest, length)
            self.changed = True

    def to_text(self) -> str:
        """All that was learnt, as JSON."""
        return _text(self._metering.state, self._caps)

    def read(self, text: str) -> None:
        """Go on from a text that a gateway has stored.

        Raises:
            InvalidInput: it is something else.
        """
        self._stored = self._metering.state, self._caps = _states(text)

    def share(self, store: Callable[[Callable[[str | None], str]], object]) -> None:
        """Add what was learnt here to what all replicas have stored, and go on from both.

        Args:
            store: replaces the stored text, None = there is none, by what a function makes of it, in one transaction.
        """
        self.changed = False
        mine = self._metering.state, self._caps
        merged = mine

        def add(text: str | None) -> str:
            nonlocal merged
            theirs = State(), State()
            try:
                theirs = theirs if text is None else _states(text)
            except InvalidInput as error:
                _LOG.error("%s; it is learnt again from here", error)
            merged = _merge(self._stored, mine, theirs)
            return _text(*merged)

        try:
            store(add)
        except BaseException:
            self.changed = True
            raise
        with self._lock:
            self._caps = _CAPS.merge(mine[1], self._caps, merged[1])
        self._metering.change_state(lambda state: RESERVES.merge(mine[0], state, merged[0]))
        self._stored = merged


_Both = tuple[State, State]
"""Of reservations, and of default caps."""


def _merge(base: _Both, mine: _Both, theirs: _Both) -> _Both:
    return RESERVES.merge(base[0], mine[0], theirs[0]), _CAPS.merge(base[1], mine[1], theirs[1])


def _text(reserves: State, caps: State) -> str:
    return json.dumps({"reserves": reserves.to_json(), "caps": caps.to_json()})


def _states(text: str) -> _Both:
    try:
        data = json.loads(text)
        return State.from_json(data["reserves"]), State.from_json(data["caps"])
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidInput(f"not what the gateway learnt: {error!r}") from error


def learnt_amounts(likely: Planned | None, kinds: Sequence[str]) -> dict[str, int]:
    """What a call holds in learnt limits, by their kinds in the ledger."""
    return {} if likely is None else {PREFIX + kind: likely.amounts[kind] for kind in kinds}


def with_learnt(amounts: Mapping[str, int], kinds: Sequence[str]) -> dict[str, int]:
    """The units that were used, in learnt limits as well, by their kinds in the ledger."""
    return {**amounts, **{PREFIX + kind: amounts[kind] for kind in kinds}}


def plain(amounts: Mapping[str, int]) -> dict[str, int]:
    """The units without those that are counted again for limits of models, or for learnt ones."""
    return {kind: units for kind, units in amounts.items() if OF not in kind and not kind.startswith(PREFIX)}
