"""What was answered to each key, so that references to stored responses are bounded: numbers in the store, no text."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Sequence

from budgeteer.core.errors import InvalidInput, LedgerUnavailable
from budgeteer.gateway.ask import Ask
from budgeteer.gateway.damage import damaged_store
from budgeteer.gateway.keyring import run
from budgeteer.gateway.refusal import Refused
from budgeteer.gateway.store import Store
from budgeteer.ledger.protocol import wall_clock
from budgeteer.metering.references import Bound, Stored, bound

DAYS = 30
"""Days for which an answer is remembered; OpenAI stores responses as long."""
_MS = DAYS * 86_400_000
_MOST = 5000
"""References of a request that are looked up."""
_PATIENCE = 1.0
"""Seconds that an answer waits until it is remembered, so that its client can refer to it at any replica."""
_ID = re.compile(r"[\w.:@=+~-]{1,256}", re.ASCII)
_LOG = logging.getLogger(__name__)


class Answers:
    """Remembers answers of the Responses API, in the store that the replicas share.

    Args:
        store: of the gateway.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    async def keep(self, key: str, stored: Sequence[Stored]) -> None:
        """Remember what references to these answers to a key stand for.

        If the store does not take them in time, later references to them are refused; the client gets the answer all
        the same."""
        known = {answer.id: answer.to_text() for answer in stored if _ID.fullmatch(answer.id)}
        if not known:
            return
        now = wall_clock()
        writing = asyncio.ensure_future(run(self._store.keep_answer, key, known, now, now + _MS))
        writing.add_done_callback(_said)
        await asyncio.wait((writing,), timeout=_PATIENCE)

    async def find(self, ids: Sequence[str], key: str) -> dict[str, Stored | None]:
        """Id -> what a reference to it stands for; None if the answer with this id went to other keys only. Ids of no
        answer are left out.

        Raises:
            LedgerUnavailable: the store does not answer, or is damaged.
        """
        asked = [id for id in dict.fromkeys(ids) if _ID.fullmatch(id)]
        if not asked:
            return {}
        texts = await run(self._store.answers, asked, wall_clock())
        try:
            return {id: Stored.of_text(id, by_key[key]) if key in by_key else None for id, by_key in texts.items()}
        except (ValueError, TypeError) as error:
            raise damaged_store("an answer in the gateway's store", repr(error)) from error

    async def recall(self, ask: Ask) -> None:
        """Bound the references of a request by what its key was answered; what nothing bounds is left as it is.

        Raises:
            Refused: a reference is to an answer of another key, or there are too many of them.
            LedgerUnavailable: the store does not answer, or is damaged.
        """
        references = ask.unseen.references
        if len(references) > _MOST:
            raise Refused(
                400, "not_bounded", f"the input has {len(references):,} references; at most {_MOST:,} are read"
            )
        known = await self.find([id for _, id in references], ask.key.id)
        mine = {id: stored for id, stored in known.items() if stored is not None}
        try:
            bounds: Bound | None = bound(references, mine)
        except InvalidInput as error:
            if len(mine) < len(known):  # never passed on, whatever the model's bounds are: it is another key's text
                raise Refused(400, "not_bounded", str(error)) from None
            bounds, ask.unbounded = None, str(error)
        if bounds is not None:
            ask.recalled(bounds)

    async def forget(self, key: str, id: str) -> None:
        """Forget a response of a key, which is deleted."""
        await run(self._store.forget_answer, key, id)


def _said(writing: asyncio.Future[None]) -> None:
    """Log why an answer could not be remembered."""
    error = None if writing.cancelled() else writing.exception()
    if isinstance(error, LedgerUnavailable):
        _LOG.error("an answer is not remembered, so references to it will be refused: %s", error)
    elif error is not None:
        _LOG.error("an answer is not remembered", exc_info=error)
