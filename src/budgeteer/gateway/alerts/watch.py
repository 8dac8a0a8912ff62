"""Watching limits in the background: what was spent is looked at once a second, and never by a request."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections.abc import Awaitable, Callable, Sequence

from budgeteer.core.errors import BudgeteerError, BudgetExceeded
from budgeteer.gateway.alerts.channels import NotDelivered, Sender
from budgeteer.gateway.alerts.levels import Level, Refusal, levels
from budgeteer.gateway.alerts.rules import Channel, Rule
from budgeteer.gateway.keyring import run
from budgeteer.gateway.keys import decode
from budgeteer.gateway.store import Store
from budgeteer.ledger import Ledger, core
from budgeteer.ledger.limit import check_path
from budgeteer.ledger.protocol import wall_clock

EVERY = 1.0
"""Seconds between looks."""
AGAIN = (1.0, 5.0, 30.0, 120.0, 600.0)
"""Seconds between attempts to deliver; the last one is repeated."""
LEASE = 120_000
"""Milliseconds for which a replica has an alert for itself beyond the time to its next attempt."""
_GIVEN_UP = 86_400_000
"""Milliseconds after which an alert that nobody takes is given up."""
_AT_ONCE = 4
"""Messages under way."""
_MOST = 1000
"""Alerts that wait at most for who does not take them; others stay unclaimed until there is room."""
_KNOWN = 100_000
_LOG = logging.getLogger(__name__)


class Alerts:
    """Looks at the limits of accounts that were spent from, and sends each alert once.

    An alert is claimed in the store that replicas share before it is sent. The claim is a lease until it was delivered:
    what a replica that died had still to send is sent by one that looks after the lease has ended.

    Args:
        rules: of the gateway's file.
        ledger, store: of the gateway.
        count: told the rule, the channel and what came of each attempt: "sent", "failed" or "given up".
    """

    def __init__(
        self, rules: Sequence[Rule], ledger: Ledger, store: Store, count: Callable[[str, str, str], None]
    ) -> None:
        self._rules, self._ledger, self._store, self._count = rules, ledger, store, count
        self._spent: set[str] = set()
        self._refused: set[Refusal] = set()
        self._known: dict[str, tuple[int, int]] = {}
        """Mark -> until when this process need not ask for it, and what was spent then."""
        self._sender, self._few = Sender(), asyncio.Semaphore(_AT_ONCE)
        self._tasks: set[asyncio.Task[None]] = set()
        self._ends = asyncio.Event()

    # what requests say; both only remember it

    def spent(self, path: str) -> None:
        """Something was charged to an account."""
        if self._rules and path:
            self._spent.add(path)

    def refused(self, error: BudgetExceeded) -> None:
        """A limit refused a request. It counts as used up if the request would fit it unspent, and not merely because
        requests under way hold the rest."""
        if error.requested <= error.limit < error.used - error.held + error.requested and self._rules:
            self._refused.add((error.scope, error.kind, error.limit))
            self._spent.add(error.scope)

    # in the background

    async def keep_watching(self) -> None:
        """Look at all accounts, then for ever at those that were spent from."""
        await self._guarded(self._look_at_all)
        while True:
            await asyncio.sleep(EVERY)
            await self._guarded(self.look)

    async def _guarded(self, look: Callable[[], Awaitable[None]]) -> None:
        try:
            await look()
        except BudgeteerError as error:
            _LOG.error("alerts: %s", error)
        except Exception:  # watching has to go on
            _LOG.exception("alerts: a look at the limits failed")

    async def _look_at_all(self) -> None:
        """What another process had still to send when it ended is sent by the next that starts."""
        _, state = await run(self._ledger.snapshot)
        await self._tell(state, set())

    async def look(self) -> None:
        """Look at the accounts that were spent from since the last look, and above them."""
        touched, self._spent = self._spent, set()
        refused, self._refused = self._refused, set()
        scopes = {scope for path in touched for scope in check_path(path)}
        paths = [scope for scope in scopes if any(rule.covers(scope) for rule in self._rules)]
        if not paths:
            return
        try:
            await self._tell(await run(self._ledger.accounts, paths), refused)
        except BudgeteerError:
            self._spent |= touched
            self._refused |= refused
            raise

    async def _tell(self, state: core.State, refused: set[Refusal]) -> None:
        for rule in self._rules:
            for level in levels(rule, state, wall_clock(), refused):
                for channel in rule.channels:
                    await self._see(level, channel)

    async def _see(self, level: Level, channel: Channel) -> None:
        """Claim and send an alert whose share is reached, if no other replica has it."""
        name = f"{channel.name} {level.name}"
        until, spent = self._known.get(name, (0, 0))
        if level.limit.window is None and until and level.spent < spent:  # its account was reset: it may come again
            del self._known[name]
            await run(self._store.mark, name, None)
            until = 0
        if not level.reached or until > level.at:
            return
        if len(self._tasks) >= _MOST:
            self._spent.add(level.path)
            return
        holds = await run(self._store.claim, name, level.at, level.at + LEASE)
        if holds is not None:
            self._know(name, holds, level.spent)
            if holds < level.until:  # another replica is about to send it; should it die, this one looks again
                wait = max(0, holds - level.at) / 1000
                asyncio.get_running_loop().call_later(wait, self.spent, level.path)
            return
        self._know(name, level.until, level.spent)
        task = asyncio.ensure_future(self._deliver(level, channel, name))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _know(self, name: str, until: int, spent: int) -> None:
        if len(self._known) >= _KNOWN:
            self._known.clear()
        self._known[name] = until, spent

    async def _deliver(self, level: Level, channel: Channel, name: str) -> None:
        """Send an alert, again and again until it is taken, and say that it is done."""
        began = wall_clock()
        label = await self._label(level.path)
        for again in itertools.count():
            try:
                async with self._few:
                    await self._sender.send(channel, level, label)
                self._count(level.rule, channel.name, "sent")
                break
            except NotDelivered as error:
                self._count(level.rule, channel.name, "failed")
                wait = max(AGAIN[min(again, len(AGAIN) - 1)], min(error.wait or 0.0, AGAIN[-1]))
                now = wall_clock()
                if now + wait * 1000 > min(level.resets or now + _GIVEN_UP, began + _GIVEN_UP):
                    self._count(level.rule, channel.name, "given up")
                    _LOG.error("alert %s by %s is given up: %s: %s", level.rule, channel.name, level.text(label), error)
                    break
                _LOG.warning("alert %s by %s is not delivered, next attempt in %g s: %s",
                             level.rule, channel.name, wait, error)  # fmt: skip
                with contextlib.suppress(BudgeteerError):
                    await run(self._store.mark, name, now + int(wait * 1000) + LEASE)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._ends.wait(), wait)
                if self._ends.is_set():  # whoever looks next may have it at once
                    with contextlib.suppress(BudgeteerError):
                        await run(self._store.mark, name, None)
                    return
        with contextlib.suppress(BudgeteerError):  # it is sent; at worst once more when the lease has ended
            await run(self._store.mark, name, level.until)

    async def _label(self, path: str) -> str:
        """A path as people call it: keys by their names."""
        scopes = path.split("/")
        for n, scope in enumerate(scopes):
            with contextlib.suppress(BudgeteerError):
                text = await run(self._store.get_key, scope)
                key = None if text is None else decode(text)
                if key is not None and key.name:
                    scopes[n] = "".join(letter if letter.isprintable() else " " for letter in key.name)
        return "/".join(scopes)

    async def stop(self, seconds: float) -> None:
        """Look once more, and let what is under way end, at most so long; what then waits for another attempt is left
        to the replica that looks next."""
        await self._guarded(self.look)
        self._ends.set()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=seconds)
        left = list(self._tasks)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        await self._sender.close()
