"""What a replay found: changes, and what was saved, in all, by key and by policy; as JSON and as tables for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from budgeteer.gateway.config import Config
from budgeteer.gateway.dashboard.amounts import amount, when
from budgeteer.gateway.keys import Key
from budgeteer.gateway.replay.read import Told
from budgeteer.gateway.replay.run import RAN, REFUSED, Today, then_of
from budgeteer.metering.outcome import Outcome

CHANGES = {
    "refused": "refused, that ran then",
    "admitted": "would run, that were refused then",
    "model": "served by another model",
    "shorter": "with a lower cap",
    "longer": "with a higher cap",
    "cached": "answered from the cache",
    "uncached": "would run, that the cache answered then",
}
_ALWAYS = (
    "Clients are taken to send the same requests again: what they would have done after another answer is not known.",
    "Limits begin unspent at the first record: what was spent before it is not in the file.",
    "A request that was tried several times is one reservation, and each is taken to have ended after its whole time.",
)


def report(config: Config, told: Sequence[Told], found: Sequence[Today], keys: Mapping[str, Key]) -> dict[str, Any]:
    """Everything that a replay found, as JSON has it; money is pico-dollars."""
    kinds = config.kinds
    changed = Counter(today.change for today in found if today.change)
    skipped = Counter(_why(one) for one in told if then_of(one.record) is None)
    then = {kind: sum(today.record.units.get(kind, 0) for today in found) for kind in kinds}
    now = {kind: sum(today.units.get(kind, 0) for today in found) for kind in kinds}
    return {
        "records": len(told),
        "from": told[0].record.at,
        "to": told[-1].record.at,
        "replayed": len(found),
        "not_replayed": dict(sorted(skipped.items())),
        "changes": {name: changed[name] for name in CHANGES},
        "charged_then": then,
        "charged_now": now,
        "saved": {kind: then[kind] - now[kind] for kind in kinds},
        "saved_tokens": sum(saving.tokens for today in found for saving in today.savings),
        "keys": _by_key(found, kinds, keys),
        "policies": _by_policy(found, kinds),
        "refusals": [
            {"id": today.record.id, "at": today.record.at, "key": today.record.key, "code": today.code, "by": today.by}
            for today in found
            if today.change == "refused"
        ],
        "not_known": _not_known(config, told, found, keys),
    }


def _why(told: Told) -> str:
    """Why nothing of a request can be replayed."""
    return told.record.reason or str(told.record.outcome)


def _by_key(found: Iterable[Today], kinds: Sequence[str], keys: Mapping[str, Key]) -> list[dict[str, Any]]:
    rows: dict[str, dict[str, Any]] = {}
    for today in found:
        record = today.record
        known = keys.get(record.key)
        row = rows.setdefault(record.key, {
            "key": record.key, "name": known.name if known else "", "path": known.path if known else "",
            "requests": 0, **dict.fromkeys(CHANGES, 0), "saved": dict.fromkeys(kinds, 0), "saved_tokens": 0,
        })  # fmt: skip
        row["requests"] += 1
        if today.change:
            row[today.change] += 1
        for kind in kinds:
            row["saved"][kind] += record.units.get(kind, 0) - today.units.get(kind, 0)
        row["saved_tokens"] += sum(saving.tokens for saving in today.savings)
    return sorted(rows.values(), key=lambda row: row["key"])


def _by_policy(found: Iterable[Today], kinds: Sequence[str]) -> list[dict[str, Any]]:
    rows: dict[str, dict[str, Any]] = {}
    for today in found:
        for saving in today.savings:
            row = rows.setdefault(saving.by, {
                "by": saving.by, "requests": 0, "refused": 0, "saved": dict.fromkeys(kinds, 0), "saved_tokens": 0,
            })  # fmt: skip
            row["requests"] += 1
            row["refused"] += today.now == REFUSED
            row["saved_tokens"] += saving.tokens
            for kind in kinds:
                row["saved"][kind] += saving.units.get(kind, 0)
    return sorted(rows.values(), key=lambda row: row["by"])


def _not_known(config: Config, told: Sequence[Told], found: Sequence[Today], keys: Mapping[str, Key]) -> list[str]:
    """What a replay of these records cannot know, in sentences."""
    lines = list(_ALWAYS)
    silent = sum(not one.asked for one in told)
    for name, does in (("cache", "whether the cache would have answered"), ("loop", "whether a loop was stopped")):
        if name in config.policies and silent:
            lines.append(f"Of {silent:,} requests the file does not say what was asked ([logging] prompts), so of them "
                         f"it is not known {does}; an answer of the cache then is one now.")  # fmt: skip
    if "schedule" in config.policies:
        lines.append("Efforts of reasoning are not in records: of [policies.schedule] only the caps are replayed.")
    old = sum(today.record.bound is None and today.then == RAN for today in found)
    if old:
        lines.append(f"{old:,} records are of a version that did not keep a request's bounds: limits are replayed for "
                     "them, policies are not.")  # fmt: skip
    unknown = sorted({today.record.key for today in found if today.record.key not in keys})
    if unknown:
        lines.append(f"{len(unknown):,} keys are not in the store of [ledger] url; they are taken to have [defaults]: "
                     f"{', '.join(unknown[:5])}{', ...' if len(unknown) > 5 else ''}.")  # fmt: skip
    guessed = sum(today.estimated for today in found)
    if guessed:
        lines.append(f"{guessed:,} requests never ran: what they would have used is taken to be the part of its "
                     "reservation that requests of this file used on the average.")  # fmt: skip
    longer = sum(
        today.change == "longer" and today.record.output >= (today.record.cap or 0) * (today.record.choices or 1)
        for today in found
    )
    if longer:
        lines.append(f"{longer:,} answers ended at a cap that is higher today: how long they would be is not known.")
    if any(today.record.outcome == Outcome.CUT for today in found):
        lines.append("Streams that were cut are taken to be cut again.")
    if any(today.change == "model" for today in found):
        lines.append("Another model is taken to answer with as many tokens.")
    return lines


def as_text(about: Mapping[str, Any]) -> str:
    """For people: what changes, tables by key and by policy, and what is not known."""
    lines = [
        f"{about['records']:,} records from {when(about['from'])} to {when(about['to'])} UTC, "
        f"{about['replayed']:,} replayed",
    ]
    if about["not_replayed"]:
        reasons = ", ".join(f"{name} {n:,}" for name, n in about["not_replayed"].items())
        lines.append(f"not replayed, since they never came to the budgets: {reasons}")
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
    lines += _table(head, rows)
    shown = [row for row in about["keys"] if any(row[name] for name in CHANGES) or any(row["saved"].values())]
    if shown:
        used = [name for name in CHANGES if about["changes"][name]]
        lines += ["", *_table(
            ["key", "requests", *used, *(f"saved {_named(kind)}" for kind in kinds)],
            [[_label(row), f"{row['requests']:,}", *(f"{row[name]:,}" for name in used),
              *(amount(kind, row["saved"][kind]) for kind in kinds)] for row in shown],
        )]  # fmt: skip
    if about["policies"]:
        lines += ["", *_table(
            ["by", "requests", "refused", *(f"saved {_named(kind)}" for kind in kinds)],
            [[row["by"], f"{row['requests']:,}", f"{row['refused']:,}",
              *(amount(kind, row["saved"][kind]) for kind in kinds)] for row in about["policies"]],
        )]  # fmt: skip
    lines += ["", "What a replay cannot know:", *(f"- {line}" for line in about["not_known"])]
    return "\n".join(lines) + "\n"


def _named(kind: str) -> str:
    return "tokens" if kind == "all" else kind


def _label(row: Mapping[str, Any]) -> str:
    scope = row["name"] or row["key"]
    return f"{row['path']}/{scope}" if row["path"] else scope


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Columns of text, the first to the left and the others to the right."""
    cells = [list(head), *map(list, rows)]
    widths = [max(len(row[n]) for row in cells) for n in range(len(head))]
    return [
        "  ".join(cell.ljust(width) if n == 0 else cell.rjust(width)
                  for n, (cell, width) in enumerate(zip(row, widths, strict=True))).rstrip()
        for row in cells
    ]  # fmt: skip
