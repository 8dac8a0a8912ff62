"""What a journal tells about spending: by scope, model and stage, per run, and what a run will need.

Stage shares follow Tokenomics (arXiv 2601.14470): the mean over runs of a stage's share of its run, beside its share of
the sum; calls without a tag are the stage "unknown", never dropped. Quantiles over runs and the forecast follow "How
Do AI Agents Spend Your Money?" (arXiv 2604.22750): the same task's runs differ up to thirtyfold, so a reservation
comes from a quantile of past runs, and from what a run has used so far, not from a guess of the model's.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from budgeteer.core.errors import InvalidInput
from budgeteer.ledger import core, journal
from budgeteer.ledger.windows import Window, bucket, start

UNKNOWN = "unknown"
KEYS = ("scope", "model", "stage")
QUANTILES = (0.1, 0.5, 0.9, 0.99)


@dataclass(frozen=True, slots=True)
class Charge:
    """One settlement.

    Attributes:
        at: milliseconds since 1970 (UTC).
        scope: the path charged.
        run: the tag "run", else the path.
        model, stage: tags, else "unknown".
        reserved, actual, overshoot: units per kind.
        estimated: the actual was not known, or nobody settled in time, so the reservation was charged.
    """

    at: int
    scope: str
    run: str
    model: str
    stage: str
    reserved: dict[str, int]
    actual: dict[str, int]
    overshoot: dict[str, int]
    estimated: bool


def balances(state: core.State, path: str, clock: int) -> Iterator[dict[str, Any]]:
    """One row for each limit of the accounts at ``path`` and below it; a kind without a limit has one row, too.

    Args:
        state: accounts and their balances.
        path: "" for all accounts.
        clock: milliseconds since 1970 (UTC).

    Yields:
        path, kind, limit (None if unlimited), window, settled (units that count in the window at ``clock``), reserved,
        left, overshoot (units), resets (millisecond at which a calendar window ends, else None).
    """
    now = max(state.now, clock)
    for scope in sorted(state.accounts):
        if path and not (scope + "/").startswith(path + "/"):
            continue
        for kind, book in sorted(state.accounts[scope].books.items()):
            windows: list[Window | None] = [*book.windows]
            if book.limit != core.UNLIMITED or not windows:
                windows.insert(0, None)
            for window in windows:
                used = book.spent if window is None else window.used(now)
                limit = window.limit if window else None if book.limit == core.UNLIMITED else book.limit
                calendar = window is not None and isinstance(window.name, str)
                yield {
                    "path": scope,
                    "kind": kind,
                    "limit": limit,
                    "window": "" if window is None else window.name if calendar else f"{window.name} s",
                    "settled": used,
                    "reserved": book.held,
                    "left": None if limit is None else limit - used - book.held,
                    "overshoot": book.over,
                    "resets": start(window.name, bucket(window.name, now) + 1) if window and calendar else None,
                }


def limit_window(row: Mapping[str, Any]) -> str | int:
    """The window of a row of :func:`balances` as limits have it: "" for none, a calendar window, or seconds.

    >>> limit_window({"window": "day"}), limit_window({"window": "90 s"})
    ('day', 90)
    """
    seconds = row["window"].removesuffix(" s")
    return int(seconds) if seconds.isdigit() else seconds


def charges(lines: Iterable[tuple[str, str]]) -> list[Charge]:
    """The settlements of a journal, in order; one that came after the call counted as abandoned replaces that charge.

    Args:
        lines: (line, hash) of the journal from its first line; hashes are not checked.

    Raises:
        JournalBroken: a line cannot be read.
    """
    settled: list[Charge] = []
    abandoned: dict[str, int] = {}
    for (name, path, held, _, status, _, actual, over, at, detail), tags in journal.entries(lines):
        if status == core.SETTLED:
            run, model, stage = tags.get("run") or path, tags.get("model") or UNKNOWN, tags.get("stage") or UNKNOWN
            estimated = tags.get("estimated") == "yes"
            charge = Charge(at, path, run, model, stage, dict(held), dict(actual), dict(over), estimated)
            if name in abandoned:  # settled after all, in place of what was charged before
                settled[abandoned.pop(name)] = charge
                continue
            if detail == core.ABANDONED:
                abandoned[name] = len(settled)
            settled.append(charge)
    return settled


def spend(of: Sequence[Charge], key: str, kind: str) -> list[dict[str, Any]]:
    """Rows by scope, model or stage, the largest first; ``units`` sum to the total exactly.

    Each has calls, units, share (of the sum), mean_share (over runs, of the run), reserved, overshoot, estimated calls.
    """
    if key not in KEYS:
        raise InvalidInput(f"no spend by {key!r}; choose one of {', '.join(KEYS)}")
    rows: dict[str, dict[str, Any]] = {}
    runs: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for charge in of:
        if kind not in charge.actual:
            continue
        name, units = getattr(charge, key), charge.actual[kind]
        row = rows.setdefault(
            name, {key: name, "kind": kind, "calls": 0, "units": 0, "reserved": 0, "overshoot": 0, "estimated": 0}
        )
        row["calls"] += 1
        row["units"] += units
        row["reserved"] += charge.reserved[kind]
        row["overshoot"] += charge.overshoot.get(kind, 0)
        row["estimated"] += charge.estimated
        runs[charge.run][name] += units
    total = sum(row["units"] for row in rows.values())
    paid = [run for run in runs.values() if sum(run.values())]
    for name, row in rows.items():
        row["share"] = row["units"] / total if total else 0.0
        row["mean_share"] = sum(run.get(name, 0) / sum(run.values()) for run in paid) / len(paid) if paid else 0.0
    return sorted(rows.values(), key=lambda row: (-row["units"], row[key]))


def runs(of: Sequence[Charge], kind: str) -> dict[str, list[int]]:
    """Run -> units of each of its calls, in order."""
    units: dict[str, list[int]] = {}
    for charge in of:
        if kind in charge.actual:
            units.setdefault(charge.run, []).append(charge.actual[kind])
    return units


def quantiles(past: dict[str, list[int]]) -> dict[str, float]:
    """Quantiles, mean and maximum of the units of a run, over past runs; ``runs`` is how many these are.

    Args:
        past: run -> units of each of its calls, as :func:`runs` returns it. A few runs give quantiles of little worth.

    Raises:
        InvalidInput: there is no run.
    """
    import numpy as np

    if not past:
        raise InvalidInput("there is no run to take quantiles of; settle calls first, with a tag 'run' or a path each")
    totals = [sum(calls) for calls in past.values()]
    by_quantile = {f"p{q * 100:g}": float(np.quantile(totals, q)) for q in QUANTILES}
    return {"runs": float(len(totals)), "mean": float(np.mean(totals)), **by_quantile, "max": float(max(totals))}


def forecast(past: dict[str, list[int]], so_far: Sequence[int]) -> dict[str, float]:
    """Quantiles of what a run will have used when it ends, given its calls so far.

    With k calls so far: each past run with more than k calls gives the factor ``total / units of its first k calls``,
    and quantiles of this factor are multiplied by what this run has used. With k = 0, or if no past run had more calls,
    these are the quantiles of past runs' totals, but at least what was used.

    Args:
        past: run -> units of each of its calls.
        so_far: units of this run's calls.
    """
    import numpy as np

    k, used = len(so_far), sum(so_far)
    factors = [sum(calls) / sum(calls[:k]) for calls in past.values() if k and len(calls) > k and sum(calls[:k])]
    if not factors or not used:
        return {name: max(float(used), units) for name, units in quantiles(past).items() if name.startswith("p")}
    return {f"p{q * 100:g}": used * float(np.quantile(factors, q)) for q in QUANTILES}
