"""Watches limits in the background, once a second, and sends the alerts that are due."""

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
"""Milliseconds for which a replica keeps an alert beyond the time of its next attempt."""
_GIVEN_UP = 86_400_000
"""Milliseconds after which an alert that could not be delivered is given up."""
_AT_ONCE = 4
"""Messages that are sent at the same time."""
_MOST = 1000
"""Alerts that are being delivered, or wait for another attempt, at most; further ones are claimed later."""
_REMEMBERED = 100_000
_LOG = logging.getLogger(__name__)


class Alerts:
    """Looks at the limits of accounts that something was charged to, and sends each alert once.

    Before an alert is sent it is claimed in the store that the replicas share. Until the alert is delivered the claim
    expires soon, so that another replica sends it if this one dies.

    Args:
        rules: those of the configuration.
        ledger, store: those of the gateway.
        count: called with rule, channel and result of each attempt: "sent", "failed" or "given up".
    """

    def __init__(
        self, rules: Sequence[Rule], ledger: Ledger, store: Store, count: Callable[[str, str, str], None]
    ) -> None:
        self._rules, self._ledger, self._store, self._count = rules, ledger, store, count
        self._new = True
        self._spent: set[str] = set()
        self._refused: set[Refusal] = set()
        self._known: dict[str, tuple[int, int]] = {}
        """Alert by channel -> until when this process need not claim it, and the units that were spent then."""
        self._sender, self._few = Sender(), asyncio.Semaphore(_AT_ONCE)
        self._tasks: set[asyncio.Task[None]] = set()
        self._ends = asyncio.Event()

    # called by requests: both only remember what to look at

    def spent(self, path: str) -> None:
        """Remember that something was charged to an account."""
        if self._rules and path:
            self._spent.add(path)

    def refused(self, error: BudgetExceeded) -> None:
        """Remember that a limit refused a request, if the limit is used up: if it would admit the request with nothing
        spent, and does not with what is spent, whatever running requests have reserved."""
        if error.requested <= error.limit < error.used - error.held + error.requested and self._rules:
            self._refused.add((error.scope, error.kind, error.limit))
            self._spent.add(error.scope)

    # in the background

    async def keep_watching(self) -> None:
        """Look at all accounts when rules are new, then for ever at those that something was charged to."""
        while True:
            new, self._new = self._new and bool(self._rules), False
            await self._guarded(self._look_at_all if new else self.look)
            await asyncio.sleep(EVERY)

    def renew(self, rules: Sequence[Rule]) -> None:
        """Go by other rules; what is being delivered goes on."""
        self._new = rules != self._rules
        self._rules = rules

    async def _guarded(self, look: Callable[[], Awaitable[None]]) -> None:
        try:
            await look()
        except BudgeteerError as error:
            _LOG.error("alerts: %s", error)
        except Exception:  # watching has to go on
            _LOG.exception("alerts: a look at the limits failed")

    async def _look_at_all(self) -> None:
        """Look at every account: a process that has ended may have left alerts unsent."""
        _, state = await run(self._ledger.snapshot)
        await self._handle(state, set())

    async def look(self) -> None:
        """Look at the accounts that something was charged to since the last look, and at those above them."""
        charged, self._spent = self._spent, set()
        refused, self._refused = self._refused, set()
        scopes = {scope for path in charged for scope in check_path(path)}
        paths = [scope for scope in scopes if any(rule.covers(scope) for rule in self._rules)]
        if not paths:
            return
        try:
            await self._handle(await run(self._ledger.accounts, paths), refused)
        except BudgeteerError:
            self._spent |= charged
            self._refused |= refused
            raise

    async def _handle(self, state: core.State, refused: set[Refusal]) -> None:
        for rule in self._rules:
            for level in levels(rule, state, wall_clock(), refused):
                for channel in rule.channels:
                    await self._consider(level, channel)

    async def _consider(self, level: Level, channel: Channel) -> None:
        """Claim an alert that is due and start to deliver it, unless another replica has it."""
        name = f"{channel.name} {level.name}"
        until, spent = self._known.get(name, (0, 0))
        if level.limit.window is None and until and level.spent < spent:  # the account was reset
            del self._known[name]
            await run(self._store.mark, name, None)
            until = 0
        if not level.reached or until > level.at:
            return
        if len(self._tasks) >= _MOST:
            self._spent.add(level.path)
            if level.refused:
                self._refused.add((level.path, level.limit.kind, level.limit.amount or 0))
            return
        claimed_until = await run(self._store.claim, name, level.at, level.at + LEASE)
        if claimed_until is not None:
            self._remember(name, claimed_until, level.spent)
            if claimed_until < level.until:  # another replica delivers it; look again in case that replica dies
                wait = max(0, claimed_until - level.at) / 1000
                asyncio.get_running_loop().call_later(wait, self.spent, level.path)
            return
        self._remember(name, level.until, level.spent)
        task = asyncio.ensure_future(self._deliver(level, channel, name))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _remember(self, name: str, until: int, spent: int) -> None:
        if len(self._known) >= _REMEMBERED:
            self._known.clear()
        self._known[name] = until, spent

    async def _deliver(self, level: Level, channel: Channel, name: str) -> None:
        """Send an alert until the receiver confirms it, then mark it as sent."""
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
                _LOG.warning(
                    "alert %s by %s is not delivered, next attempt in %g s: %s", level.rule, channel.name, wait, error
                )
                with contextlib.suppress(BudgeteerError):
                    await run(self._store.mark, name, now + int(wait * 1000) + LEASE)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._ends.wait(), wait)
                if self._ends.is_set():  # the next process that looks may claim it at once
                    with contextlib.suppress(BudgeteerError):
                        await run(self._store.mark, name, None)
                    return
        with contextlib.suppress(BudgeteerError):  # if this fails, it may be sent again when the claim expires
            await run(self._store.mark, name, level.until)

    async def _label(self, path: str) -> str:
        """A path with the names of keys instead of their ids."""
        scopes = path.split("/")
        for n, scope in enumerate(scopes):
            with contextlib.suppress(BudgeteerError):
                text = await run(self._store.get_key, scope)
                key = None if text is None else decode(text)
                if key is not None and key.name:
                    scopes[n] = "".join(letter if letter.isprintable() else " " for letter in key.name)
        return "/".join(scopes)

    async def stop(self, seconds: float) -> None:
        """Look once more, and wait at most so many seconds for messages that are being sent. Alerts that wait for
        another attempt are left to the next process that looks."""
        await self._guarded(self.look)
        self._ends.set()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=seconds)
        left = list(self._tasks)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        await self._sender.close()
