"""Whether a provider counts as before: billed tokens against an estimate of one's own, watched over time.

For counts of hidden reasoning nobody outside has the text (see :mod:`budgeteer.metering.commitment`), but a change of
the ratio between what is billed and what is seen shows. Cumulative sums of the logarithm of that ratio (Page 1954),
each model against its own calls before (self-starting, Hawkins 1987), so that nothing has to be known of it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from budgeteer.core import rows
from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import F64

SLACK, LIMIT, MOST = 0.5, 8.0, 4.0
"""In standard deviations of a call: what a step must be above to count, the sum that is an alarm, and the most that one
call counts. Where nothing changes, there is an alarm in about 7,000 calls (simulated, normal logarithms)."""
BASELINE = 50
"""First calls of a model, which are not judged."""


class Seen(NamedTuple):
    """A call: its model, the tokens that were billed, one's own estimate of them, the text that was shown, if any."""

    model: str
    billed: float
    estimate: float
    text: str | None = None


class Finding(NamedTuple):
    """What was found about a model.

    Attributes:
        model: its name.
        calls: that were looked at.
        impossible: calls billed for fewer tokens than their text takes at the very least, which means a count that is
            not of this text. None = no texts were given.
        before: median of billed / estimate over the first calls.
        alarm: the first call after which the sum is an alarm, from 1 on; None = none.
        since: the call at which the change began, as the sum tells it.
        after: median of billed / estimate from there on.
    """

    model: str
    calls: int
    impossible: int | None
    before: float
    alarm: int | None
    since: int | None
    after: float | None


def read(source: str, model: str, billed: str, estimate: str, text: str | None) -> list[Seen]:
    """Read a file with a row a call, in the order of time.

    Args:
        source: JSON lines, CSV or Parquet.
        model, billed, estimate, text: columns. An estimate may be anything that grows with the tokens, such as
            characters; the ratio is compared with itself only.

    Raises:
        InvalidInput: a column is missing, or has no number from 0; names the row.
    """
    found = []
    for place, row in rows.read(source):
        where = f"{rows.where(source)}, {place}"
        if not isinstance(row, Mapping):
            raise InvalidInput(f"{where}: give an object a call")
        if missing := [c for c in (model, billed, estimate, *([] if text is None else [text])) if c not in row]:
            raise InvalidInput(f"{where} has no {missing[0]}; it has {', '.join(row) or 'nothing'}: name the columns")
        try:
            counted, own = float(row[billed]), float(row[estimate])
        except (TypeError, ValueError):
            counted = own = math.nan
        if not (0 <= counted < math.inf and 0 <= own < math.inf):
            raise InvalidInput(
                f"{where}: {billed} and {estimate} are {row[billed]!r}, {row[estimate]!r}; give numbers from 0"
            )
        found.append(Seen(str(row[model]), counted, own, None if text is None else str(row[text] or "")))
    if not found:
        raise InvalidInput(f"{rows.where(source)} has no calls; give a row for each call of a model")
    return found


def watch(
    calls: Sequence[Seen], *, baseline: int = BASELINE, slack: float = SLACK, limit: float = LIMIT
) -> list[Finding]:
    """Look at each model by itself.

    Formula: with r = ln((billed + 1) / (estimate + 1)), and mean and deviation (0.01 at least) of the n calls before,
    z = (r - mean) / deviation * sqrt(n / (n + 1)), cut at +-4; S = max(0, S + z - slack), the same for -z, and an alarm
    where S > limit. The change began where S was last 0. What was cut counts as cut in later means, too.

    Misses: a provider that counted too much from the first call on; hidden tokens that always are the same multiple of
    the visible ones. A change of one's own prompts is an alarm, too.

    Raises:
        InvalidInput: a baseline of fewer than 10 calls, or no model has more calls than that.
    """
    if baseline < 10 or not slack >= 0 or not limit > 0:
        raise InvalidInput(
            f"a baseline of {baseline} calls, slack {slack}, limit {limit}; give 10 or more, 0 or more, above 0"
        )
    by_model: dict[str, list[Seen]] = {}
    for call in calls:
        by_model.setdefault(call.model, []).append(call)
    if not any(len(own) > baseline for own in by_model.values()):
        raise InvalidInput(f"no model has more than {baseline} calls, the first of which are not judged")
    return [_watched(name, own, baseline, slack, limit) for name, own in by_model.items()]


def _watched(name: str, own: Sequence[Seen], baseline: int, slack: float, limit: float) -> Finding:
    ratio: F64 = np.array([(call.billed + 1) / (call.estimate + 1) for call in own])
    logs = np.log(ratio).tolist()
    texts = [call for call in own if call.text is not None]
    impossible = sum(call.billed < _least(call.text or "") for call in texts) if texts else None
    sums, begun = [0.0, 0.0], [baseline, baseline]
    before = float(np.median(ratio[:baseline]))
    mean = float(np.mean(logs[:baseline]))
    squares = float(np.square(np.array(logs[:baseline]) - mean).sum())  # of the distances from the mean so far
    for i in range(baseline, len(own)):
        deviation, scale = max(0.01, math.sqrt(squares / (i - 1))), math.sqrt(i / (i + 1))
        z = min(MOST, max(-MOST, (logs[i] - mean) / deviation * scale))
        step = z * deviation / scale
        mean, squares = mean + step / (i + 1), squares + step * step * i / (i + 1)
        for side, sign in enumerate((1.0, -1.0)):
            sums[side] = max(0.0, sums[side] + sign * z - slack)
            if not sums[side]:
                begun[side] = i + 1
            if sums[side] > limit:
                after = float(np.median(ratio[begun[side] :]))
                return Finding(name, len(own), impossible, before, i + 1, begun[side] + 1, after)
    return Finding(name, len(own), impossible, before, None, None, None)


def _least(text: str) -> int:
    from budgeteer.metering.estimate import least_tokens

    return least_tokens(text)
