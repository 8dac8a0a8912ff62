"""Spread a limit over its whole window: output caps are lowered while spending is ahead of the clock.

The policy is dual mirror descent (``budgeteer.online._dual_descent``, arXiv 2011.10124), and the shares of the cap are
its options. The share s of the cap has the value sqrt(s), since the first tokens of an answer are worth most, and the
cost that calls with this share have had so far (a moving average). The price of a unit rises while spending is ahead of
the window's time, and a higher price favours shorter caps. The policy never refuses a request; that is left to the
ledger.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from budgeteer.core.online import Online
from budgeteer.core.option import options
from budgeteer.gateway.ask import Ask
from budgeteer.gateway.live import Live
from budgeteer.gateway.policies.options import number, numbers, text, whole
from budgeteer.gateway.policies.protocol import Serving
from budgeteer.ledger.windows import bucket, start, unit_of
from budgeteer.online import dual_descent

_MEMORY = 0.1
"""Weight of the latest call in the moving averages."""


@dataclass(slots=True)
class _Track:
    """One paced limit in one window; ``at`` is when its latest request came (seconds since 1970), ``mean`` the average
    units of a call by share."""

    window: str
    index: int
    online: Online
    state: Any
    at: float
    mean: list[float] = field(default_factory=list)


@dataclass(slots=True)
class Pace:
    """Paces limits; the attributes are those of the TOML table.

    Attributes:
        window, kind: the limits that are paced, those of windows in time zones included.
        requests: requests that are expected in a window.
        shares: shares of the cap, from 1 downwards.
        share: share of the limit that this replica paces.
        tracks: path of an account -> the state of its paced limit.
    """

    window: str
    kind: str
    requests: int
    shares: tuple[float, ...]
    share: float
    tracks: dict[str, _Track] = field(default_factory=dict)

    def track(self, ask: Ask, now: int) -> tuple[str, _Track] | None:
        """The account and state of the limit that paces a request; None if no limit is paced.

        A new window keeps the price and the averages of the one before.

        Args:
            ask: the request.
            now: milliseconds since 1970 (UTC).
        """
        for path, limits in ask.chain:
            for limit in limits or ():
                window = limit.window
                if (
                    limit.kind == self.kind
                    and isinstance(window, str)
                    and unit_of(window) == self.window
                    and limit.amount
                ):
                    index = bucket(window, now)
                    track = self.tracks.get(path)
                    if track is None or (track.window, track.index) != (window, index):
                        price = None if track is None else track.state.price
                        budget = limit.amount * self.share
                        online = dual_descent((budget,), self.requests, price=price)
                        begin = start(window, index) / 1000
                        at = max(begin, now / 1000 - _seconds(window, index) / self.requests)
                        mean = [] if track is None else track.mean
                        track = self.tracks[path] = _Track(window, index, online, online.init(), at, mean)
                        if not track.mean:
                            track.mean = [budget / self.requests * share for share in self.shares]
                    return path, track
        return None

    async def before(self, ask: Ask, serving: Serving) -> None:
        """Choose the share of the cap that the request gets."""
        now = serving.now()
        paced = self.track(ask, now)
        if paced is None or ask.operation == "embeddings":
            return
        path, track = paced
        passed = max(0.0, now / 1000 - track.at) / _seconds(track.window, track.index)
        track.at = now / 1000
        values = [math.sqrt(share) for share in self.shares]
        option, track.state = track.online.step(track.state, values, [(mean,) for mean in track.mean], share=passed)
        planned = track.mean[option] if option >= 0 else 0.0
        option = option if option >= 0 else len(self.shares) - 1
        ask.memo["pace"] = (path, option, planned)
        if self.shares[option] < 1:
            largest = min(
                [model.bounds.max_output or 1 for model in serving.models(ask)]
                + [cap for cap in (ask.key.max_output, ask.cap) if cap is not None]
            )
            given = [
                ask.body[name]
                for name in ("max_completion_tokens", "max_tokens", "max_output_tokens")
                if isinstance(ask.body.get(name), int)
            ]
            cap = max(1, int(min([largest, *given]) * self.shares[option]))
            ask.lower(cap)
            ask.notes.append(f"pace={self.shares[option]:g}")

    def after(self, ask: Ask, content: bytes | None, live: Live) -> None:
        """Update the price and the average by what the request used."""
        path, option, planned = ask.memo.get("pace", ("", 0, 0.0))
        track = self.tracks.get(path)
        if track is not None:
            used = float(live.units.get(self.kind, 0))
            track.state = track.online.observe(track.state, (planned,), (used,))
            if used or content is not None:  # what never ran says nothing of what calls use
                track.mean[option] += _MEMORY * (used - track.mean[option])


def _seconds(window: str, index: int) -> float:
    return (start(window, index + 1) - start(window, index)) / 1000


def _fall(shares: tuple[float, ...]) -> bool:
    return bool(shares) and all(0 < share <= 1 for share in shares) and sorted(shares, reverse=True) == list(shares)


@options(
    text(
        "window",
        "day",
        "the outermost limit of this window, in any time zone, and kind is paced",
        among=("hour", "day", "month"),
    ),
    text("kind", "all", "of the paced limit, such as all or money"),
    whole("requests", 10_000, "requests that are expected in a window", least=1),
    numbers(
        "shares",
        (1.0, 0.5, 0.25),
        "shares of its cap that a request may be given",
        takes="shares of the cap, from 1 downwards",
        fits=_fall,
    ),
    number("share", 1.0, "share of the limit that this replica paces", least=1e-6, most=1.0),
)
def pace(*, window: str, kind: str, requests: int, shares: tuple[float, ...], share: float) -> Pace:
    """Spread a limit over its whole window: output caps are lowered while spending is ahead of the clock.

    Helps when traffic would use a limit up early; does not when a limit is never reached.
    """
    return Pace(window, kind, requests, shares, share)
