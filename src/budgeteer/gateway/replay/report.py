"""The results of a replay: what changes and what it saves, in all, by key and by policy; as JSON and as tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from budgeteer.draw.text import columns
from budgeteer.gateway.config import Config
from budgeteer.gateway.dashboard.amounts import amount
from budgeteer.gateway.dashboard.times import when
from budgeteer.gateway.keys import Key
from budgeteer.gateway.replay.read import Logged
from budgeteer.gateway.replay.run import RAN, REFUSED, Result, then_of
from budgeteer.metering.outcome import Outcome
from budgeteer.metering.reading import CAPS

CHANGES = {
    "refused": "refused today, not refused then",
    "admitted": "admitted today, refused then",
    "model": "served by another model",
    "shorter": "sent with a lower cap",
    "longer": "sent with a higher cap",
    "cached": "answered from the cache today",
    "uncached": "answered from the cache then, not today",
}
_ALWAYS = (
    "Clients are assumed to send the same requests again, whatever they are answered.",
    "All limits are assumed to be unspent at the first record: what was spent before it is not in the file.",
    "A request that was tried several times is replayed as one reservation, which is settled when the request ended.",
    "Requests that came within a few milliseconds of each other may be replayed in another order.",
)


def report(
    config: Config, requests: Sequence[Logged], results: Sequence[Result], keys: Mapping[str, Key]
) -> dict[str, Any]:
    """The results of a replay as JSON; money is in pico-dollars, times are milliseconds since 1970 (UTC)."""
    kinds = config.kinds
    changed = Counter(result.change for result in results if result.change)
    skipped = Counter(_why(request) for request in requests if then_of(request.record) is None)
    then = {kind: sum(result.record.units.get(kind, 0) for result in results) for kind in kinds}
    now = {kind: sum(result.units.get(kind, 0) for result in results) for kind in kinds}
    return {
        "records": len(requests),
        "from": requests[0].record.at,
        "to": requests[-1].record.at,
        "replayed": len(results),
        "not_replayed": dict(sorted(skipped.items())),
        "changes": {name: changed[name] for name in CHANGES},
        "charged_then": then,
        "charged_now": now,
        "saved": {kind: then[kind] - now[kind] for kind in kinds},
        "saved_tokens": sum(saving.tokens for result in results for saving in result.savings),
        "keys": _by_key(results, kinds, keys),
        "policies": _by_policy(results, kinds),
        "refusals": [
            {
                "id": result.record.id,
                "at": result.record.at,
                "key": result.record.key,
                "code": result.code,
                "by": result.by,
            }
            for result in results
            if result.change == "refused"
        ],
        "not_known": _not_known(config, requests, results, keys),
    }


def _why(request: Logged) -> str:
    """Why a request cannot be replayed."""
    return request.record.reason or str(request.record.outcome)


def _by_key(results: Iterable[Result], kinds: Sequence[str], keys: Mapping[str, Key]) -> list[dict[str, Any]]:
    rows: dict[str, dict[str, Any]] = {}
    for result in results:
        record = result.record
        known = keys.get(record.key)
        row = rows.setdefault(
            record.key,
            {
                "key": record.key,
                "name": known.name if known else "",
                "path": known.path if known else "",
                "requests": 0,
                **dict.fromkeys(CHANGES, 0),
                "saved": dict.fromkeys(kinds, 0),
                "saved_tokens": 0,
            },
        )
        row["requests"] += 1
        if result.change:
            row[result.change] += 1
        for kind in kinds:
            row["saved"][kind] += record.units.get(kind, 0) - result.units.get(kind, 0)
        row["saved_tokens"] += sum(saving.tokens for saving in result.savings)
    return sorted(rows.values(), key=lambda row: row["key"])


def _by_policy(results: Iterable[Result], kinds: Sequence[str]) -> list[dict[str, Any]]:
    rows: dict[str, dict[str, Any]] = {}
    for result in results:
        for saving in result.savings:
            row = rows.setdefault(
                saving.by,
                {"by": saving.by, "requests": 0, "refused": 0, "saved": dict.fromkeys(kinds, 0), "saved_tokens": 0},
            )
            row["requests"] += 1
            row["refused"] += result.now == REFUSED
            row["saved_tokens"] += saving.tokens
            for kind in kinds:
                row["saved"][kind] += saving.units.get(kind, 0)
    return sorted(rows.values(), key=lambda row: row["by"])


def _not_known(
    config: Config, requests: Sequence[Logged], results: Sequence[Result], keys: Mapping[str, Key]
) -> list[str]:
    """What a replay of these records cannot know, and what it assumes instead: a sentence each."""
    lines = list(_ALWAYS)
    silent = sum(not request.asked for request in requests)
    for name, does in (
        ("cache", "which of them the cache would answer"),
        ("loop", "which of them the loop policy would stop"),
    ):
        if name in config.policies and silent:
            lines.append(
                f"{silent:,} requests are without their prompts ([logging] prompts), so it is not known "
                f"{does}; what the cache answered then, it is assumed to answer now."
            )
    if config.learnt:
        lines.append(
            "Learnt limits begin with worst cases, as nothing is known of what was learnt before the first "
            "record; and they hold what was learnt from a call's begin to its end: records do not say how "
            "streams grew."
        )
    if "schedule" in config.policies:
        lines.append("Efforts of reasoning are not in records: of [policies.schedule] only the caps are replayed.")
    old = sum(result.record.bound is None and result.then == RAN for result in results)
    if old:
        lines.append(
            f"{old:,} records were written by a version that did not record bounds: only limits and keys are "
            "replayed for them, not policies."
        )
    uses = sum(result.record.operation not in CAPS for result in results)
    if uses:
        lines.append(
            f"{uses:,} requests make no text (pictures, sound, moderations and the like): they are assumed to "
            "reserve and cost what they did then, whatever today's prices are."
        )
    unknown = sorted({result.record.key for result in results if result.record.key not in keys})
    if unknown:
        shown = ", ".join(unknown[:5]) + (", ..." if len(unknown) > 5 else "")
        lines.append(
            f"{len(unknown):,} keys are not in the store of [ledger] url; they are assumed to have the limits "
            f"of [defaults]: {shown}."
        )
    guessed = sum(result.estimated for result in results)
    if guessed:
        lines.append(
            f"{guessed:,} requests were refused then: they are assumed to use the average share of their "
            "reservation that the other requests used, in their average time."
        )
    longer = sum(
        result.change == "longer" and result.record.output >= (result.record.cap or 0) * (result.record.choices or 1)
        for result in results
    )
    if longer:
        lines.append(f"{longer:,} answers ended at a cap that is higher today; they are assumed to be no longer.")
    if any(result.record.outcome == Outcome.CUT for result in results):
        lines.append("Streams that were cut are assumed to be cut again.")
    if any(result.change == "model" for result in results):
        lines.append("Another model is assumed to answer with as many tokens.")
    return lines


def as_text(about: Mapping[str, Any]) -> str:
    """For people: what changes, tables by key and by policy, and what is not known."""
    lines = [
        f"{about['records']:,} records from {when(about['from'])} to {when(about['to'])} UTC, "
        f"{about['replayed']:,} replayed",
    ]
    if about["not_replayed"]:
        reasons = ", ".join(f"{name} {n:,}" for name, n in about["not_replayed"].items())
        lines.append(f"not replayed, because their records do not say what they would reserve: {reasons}")
    lines.append("")
    if not any(about["changes"].values()):
        lines.append("no changes")
    lines += [f"{n:>8,}  {CHANGES[name]}" for name, n in about["changes"].items() if n]
    lines.append("")
    kinds = list(about["saved"])
    head = ["", *(_named(kind) for kind in kinds)]
    rows = [
        [label, *(amount(kind, about[name][kind]) for kind in kinds)]
        for label, name in (("charged then", "charged_then"), ("charged now", "charged_now"), ("saved", "saved"))
    ]
    lines += columns([head, *rows])
    shown = [row for row in about["keys"] if any(row[name] for name in CHANGES) or any(row["saved"].values())]
    if shown:
        used = [name for name in CHANGES if about["changes"][name]]
        head = ["key", "requests", *used, *(f"saved {_named(kind)}" for kind in kinds)]
        rows = [
            [
                _label(row),
                f"{row['requests']:,}",
                *(f"{row[name]:,}" for name in used),
                *(amount(kind, row["saved"][kind]) for kind in kinds),
            ]
            for row in shown
        ]
        lines += ["", *columns([head, *rows])]
    if about["policies"]:
        head = ["by", "requests", "refused", *(f"saved {_named(kind)}" for kind in kinds)]
        rows = [
            [
                row["by"],
                f"{row['requests']:,}",
                f"{row['refused']:,}",
                *(amount(kind, row["saved"][kind]) for kind in kinds),
            ]
            for row in about["policies"]
        ]
        lines += ["", *columns([head, *rows])]
    lines += ["", "What a replay cannot know, and assumes:", *(f"- {line}" for line in about["not_known"])]
    return "\n".join(lines) + "\n"


def _named(kind: str) -> str:
    return "tokens" if kind == "all" else kind


def _label(row: Mapping[str, Any]) -> str:
    scope = row["name"] or row["key"]
    return f"{row['path']}/{scope}" if row["path"] else scope
