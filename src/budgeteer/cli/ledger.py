"""budgeteer ledger: open accounts, see what is spent, check the journal."""

from __future__ import annotations

import argparse
import csv
import io
import json
import os
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from budgeteer.ledger import Ledger
    from budgeteer.ledger.tree import Node

DEFAULT = "budgeteer-ledger.db"


_LOOK = ("show", "top", "spend", "tree", "export", "verify")
"""Actions that write nothing to the ledger."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")

    def action(name: str, text: str, *, rows: bool = False) -> argparse.ArgumentParser:
        sub = actions.add_parser(name, help=text, description=text)
        sub.add_argument(
            "--ledger",
            default=os.environ.get("BUDGETEER_LEDGER", DEFAULT),
            help=f"SQLite file, postgresql:// or redis:// URL (default: $BUDGETEER_LEDGER, else {DEFAULT})",
        )
        if rows:
            form = sub.add_mutually_exclusive_group()
            form.add_argument("--json", action="store_true", help="as JSON")
            form.add_argument("--csv", action="store_true", help="as CSV")
        return sub

    action("init", "make a ledger; one that is there is left as it is")
    sub = action("open", "open an account, or change its limits")
    sub.add_argument("path", help="org/team/key; the parents have to be open")
    sub.add_argument(
        "--limit",
        action="append",
        default=[],
        metavar="LIMIT",
        help="500k, output:1m/hour, $5/day, $5/day@Europe/Berlin, all:9k/90s, all:unlimited",
    )
    sub = action("show", "limits and balances of accounts", rows=True)
    sub.add_argument("path", nargs="?", default="", help="only this account and those below")
    sub = action("top", "the accounts nearest to a limit", rows=True)
    sub.add_argument("-n", type=int, default=10, help="how many (default 10)")
    sub = action("spend", "what was spent, by scope, model or stage, and per run", rows=True)
    sub.add_argument("path", nargs="?", default="", help="only this account and those below")
    sub.add_argument(
        "--by", choices=("scope", "model", "stage"), default="scope", help="one row for each (default scope)"
    )
    sub.add_argument("--kind", default="all", help="kind of units (default all)")
    sub.add_argument("--runs", action="store_true", help="quantiles over runs (tag 'run', else path) instead")
    sub.add_argument("--forecast", metavar="RUN", help="what this run will have used when it ends, from the other runs")
    sub = action("tree", "which agent was given, spent and holds what, as a tree", rows=True)
    sub.add_argument("path", nargs="?", default="", help="only this account and those below")
    sub.add_argument("--kind", default="all", help="kind of units (default all)")
    sub.add_argument("--out", type=Path, default=None, help="file of a picture: .svg, or .html for a page")
    sub.add_argument(
        "--watch",
        type=float,
        default=None,
        metavar="SECONDS",
        help="write the page of --out anew every so often, until Ctrl-C; it reloads itself in a browser",
    )
    sub = action("export", "the journal, one JSON object a line with text and hash, or as CSV")
    sub.add_argument("--csv", action="store_true", help="settlements as CSV")
    sub.add_argument("--out", type=Path, default=None, help="file (default: standard output)")
    sub = action("verify", "check the journal's hash chain and rebuild the balances")
    sub.add_argument("--head", default=None, help="a head noted earlier, which has to be in the chain")
    sub.add_argument("--journal", type=Path, default=None, help="check an exported journal instead of a ledger")
    sub.add_argument("--json", action="store_true", help="as JSON")
    sub = action("reset", "let an account's spending start at 0; the journal keeps what was")
    sub.add_argument("path", help="of the account")


def run(args: argparse.Namespace) -> int:
    """Carry out one action."""
    if args.action == "verify" and args.journal is not None:
        return _verify_file(args)
    with _connect(args.ledger, create=args.action == "init", look=args.action in _LOOK) as ledger:
        actions = {
            "init": _init,
            "open": _open,
            "show": _show,
            "top": _top,
            "spend": _spend,
            "tree": _tree,
            "export": _export,
            "verify": _verify,
            "reset": _reset,
        }
        return actions[args.action](ledger, args)


def _connect(where: str, *, create: bool, look: bool) -> Ledger:
    from budgeteer.core.errors import InvalidInput
    from budgeteer.ledger import address

    kind = address.kind_of(where)
    if kind == address.MEMORY:
        raise InvalidInput(
            "--ledger memory: is one of the gateway's, which ends with it; give a file, redis:// or postgresql://"
        )
    return address.connect(where, create=create, **({"read_only": look} if kind == address.SQLITE else {}))


def _init(ledger: Ledger, args: argparse.Namespace) -> int:
    from budgeteer.core.urls import without_password

    count, state = ledger.snapshot()
    sys.stdout.write(f"{without_password(args.ledger)}: {len(state.accounts)} accounts, {count:,} journal entries\n")
    return 0


def _open(ledger: Ledger, args: argparse.Namespace) -> int:
    from budgeteer.ledger.limit import Limit

    ledger.open(args.path, [Limit.parse(text) for text in args.limit] if args.limit else None)
    args.json = args.csv = False
    return _show(ledger, args)


def _reset(ledger: Ledger, args: argparse.Namespace) -> int:
    ledger.reset(args.path)
    args.json = args.csv = False
    return _show(ledger, args)


def _show(ledger: Ledger, args: argparse.Namespace) -> int:
    _emit(list(_balances(ledger, args.path)), args)
    return 0


def _top(ledger: Ledger, args: argparse.Namespace) -> int:
    rows = [row for row in _balances(ledger, "") if row["limit"] is not None]
    rows.sort(key=lambda row: (-(row["limit"] - row["left"]) / max(1, row["limit"]), row["path"]))
    for row in rows:
        row["used"] = round((row["limit"] - row["left"]) / row["limit"], 4) if row["limit"] else 1.0
    _emit(rows[: args.n], args)
    return 0


def _balances(ledger: Ledger, path: str) -> Iterator[dict[str, Any]]:
    """One row for each limit, or for a kind without any."""
    from budgeteer.core.errors import UnknownAccount
    from budgeteer.ledger import core, report
    from budgeteer.ledger.protocol import wall_clock

    _, state = ledger.snapshot()
    if path and path not in state.accounts:
        raise UnknownAccount(core.no_account(path, path))
    for row in report.balances(state, path, wall_clock()):
        yield {**row, "resets": "" if row["resets"] is None else _utc(row["resets"])}


def _spend(ledger: Ledger, args: argparse.Namespace) -> int:
    from budgeteer.core.errors import InvalidInput
    from budgeteer.ledger import report

    prefix = args.path + "/" if args.path else ""
    charges = [charge for charge in report.charges(ledger.lines()) if (charge.scope + "/").startswith(prefix)]
    kinds = sorted({kind for charge in charges for kind in charge.actual})
    if charges and args.kind not in kinds:
        raise InvalidInput(f"nothing of the kind {args.kind!r} was settled; --kind is one of {', '.join(kinds)}")
    runs = report.runs(charges, args.kind)
    if args.forecast is not None:
        if args.forecast not in runs:
            raise InvalidInput(
                f"no run {args.forecast!r} has settled anything yet; a run is the tag 'run', else the path"
            )
        so_far = runs.pop(args.forecast)
        ends = report.forecast(runs, so_far)
        _emit([{"run": args.forecast, "kind": args.kind, "so_far": sum(so_far), **_whole(ends)}], args)
    elif args.runs:
        _emit([{"kind": args.kind, **_whole(report.quantiles(runs))}], args)
    else:
        rows = report.spend(charges, args.by, args.kind)
        if not args.json and not args.csv and rows:
            total = {
                name: sum(row[name] for row in rows)
                for name in ("calls", "units", "reserved", "overshoot", "estimated")
            }
            rows.append({args.by: "total", "kind": args.kind, **total, "share": 1.0, "mean_share": 1.0})
        _emit(rows, args)
    return 0


def _tree(ledger: Ledger, args: argparse.Namespace) -> int:
    from budgeteer.core.errors import InvalidInput
    from budgeteer.ledger.tree import kinds

    if args.watch is not None and (args.out is None or args.out.suffix != ".html"):
        raise InvalidInput("--watch writes a page; give it a name, such as --out tree.html")
    if args.out is not None and args.out.suffix not in (".svg", ".html"):
        raise InvalidInput(f"--out {args.out}: the tree is drawn as .svg or as a page, .html; name one of these")
    found = _nodes(ledger, args)
    while args.watch is not None:
        _draw(found, args)
        try:
            time.sleep(args.watch)
        except KeyboardInterrupt:
            break
        found = _nodes(ledger, args)
    if args.path and not found:
        reserved = kinds(ledger.lines(), args.path)
        other = f"--kind is one of {', '.join(reserved)}" if reserved else "ledger show lists the accounts"
        raise InvalidInput(f"nothing of the kind {args.kind!r} was reserved at {args.path!r}; {other}")
    if args.out is not None:
        _draw(found, args)
    told = args.json or args.csv
    rows = [
        {
            "agent": node.path if told else "  " * depth + node.path.rpartition("/")[2], "kind": args.kind,
            "parts": node.parts, "calls": node.calls, "given": node.given, "spent": node.spent, "held": node.held,
            "back": node.back,
        }
        for node, depth in found
    ]  # fmt: skip
    _emit(rows, args)
    return 0


def _nodes(ledger: Ledger, args: argparse.Namespace) -> list[tuple[Node, int]]:
    """The accounts at the path and below it, each with its depth."""
    from budgeteer.ledger.tree import below, tree

    return below(tree(ledger.lines(), args.kind), args.path or "")


def _draw(found: list[tuple[Node, int]], args: argparse.Namespace) -> None:
    """Write the picture, or the page with it."""
    from budgeteer.core.files import write_text
    from budgeteer.draw.tree import Branch, tree_chart, tree_page

    row = {"kind": args.kind}
    branches = [
        Branch(
            node.path.rpartition("/")[2], depth, (node.spent, node.held, node.back or 0),
            _cell("spent", node.spent, row) + (f" of {_cell('given', node.given, row)}" if node.parts else ""),
        )
        for node, depth in found
    ]  # fmt: skip
    title = f"{args.path or 'all accounts'}: {args.kind}"
    chart = tree_chart(branches, title)
    note = f"as of {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC"
    write_text(chart if args.out.suffix != ".html" else tree_page(chart, title, note, args.watch), args.out)


def _export(ledger: Ledger, args: argparse.Namespace) -> int:
    from budgeteer.ledger import report

    out = sys.stdout if args.out is None else args.out.open("w", encoding="utf-8", newline="")
    try:
        if args.csv:
            names = ["at", "scope", "run", "model", "stage", "kind", "reserved", "actual", "overshoot", "estimated"]
            table = csv.writer(out, lineterminator="\n")
            table.writerow(names)
            for charge in report.charges(ledger.lines()):
                for kind, units in charge.actual.items():
                    over = charge.overshoot.get(kind, 0)
                    row = [
                        _utc(charge.at),
                        charge.scope,
                        charge.run,
                        charge.model,
                        charge.stage,
                        kind,
                        charge.reserved[kind],
                        units,
                        over,
                    ]
                    table.writerow([*row, int(charge.estimated)])
        else:
            for line, digest in ledger.lines():
                out.write(json.dumps({"hash": digest, "line": line}) + "\n")
    finally:
        if args.out is not None:
            out.close()
    return 0


def _verify(ledger: Ledger, args: argparse.Namespace) -> int:
    return _verified(ledger.verify(args.head), args, "the balances are those of the journal")


def _verify_file(args: argparse.Namespace) -> int:
    from budgeteer.core.errors import InvalidInput
    from budgeteer.ledger import journal

    def lines() -> Iterator[tuple[str, str]]:
        try:
            with args.journal.open(encoding="utf-8") as file:
                for text in file:
                    row = json.loads(text)
                    yield _text(row["line"]), _text(row["hash"])
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise InvalidInput(f"cannot read the export {str(args.journal)!r}: {error!r}") from error

    def _text(value: object) -> str:
        if not isinstance(value, str):
            raise TypeError(f"{value!r} is no text")
        return value

    first = next(lines(), ("", ""))
    verified, _ = journal.replay(lines(), "sha1" if len(first[1]) == 40 else "sha256", args.head)
    return _verified(verified, args, "an export; compare its head with the ledger's")


def _verified(verified: Any, args: argparse.Namespace, note: str) -> int:
    if args.json:
        summary = {"entries": verified.entries, "head": verified.head, "spent": verified.spent}
        sys.stdout.write(json.dumps(summary, indent=1) + "\n")
    else:
        sys.stdout.write(f"ok: {verified.entries:,} entries, {note}\nhead {verified.head}\n")
    return 0


def _whole(amounts: dict[str, float]) -> dict[str, int]:
    return {name: round(units) for name, units in amounts.items()}


def _utc(at: int) -> str:
    return f"{datetime.fromtimestamp(at / 1000, UTC):%Y-%m-%d %H:%M:%S}"


def _emit(rows: list[dict[str, Any]], args: argparse.Namespace) -> None:
    if args.json:
        sys.stdout.write(json.dumps(rows, indent=1) + "\n")
    elif not rows:
        if not args.csv:
            sys.stdout.write("nothing yet\n")
    elif args.csv:
        out = io.StringIO()
        table = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
        sys.stdout.write(out.getvalue())
    else:
        shown = [{name: _cell(name, value, row) for name, value in row.items()} for row in rows]
        widths = {name: max(len(name), *(len(row[name]) for row in shown)) for name in shown[0]}
        numbers = {name for name in widths if all(isinstance(row[name], int | float | None) for row in rows)}
        for row in [{name: name for name in widths}, *shown]:
            cells = [row[name].rjust(w) if name in numbers else row[name].ljust(w) for name, w in widths.items()]
            sys.stdout.write("  ".join(cells).rstrip() + "\n")


def _cell(name: str, value: Any, row: dict[str, Any]) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.1%}"
    if isinstance(value, int):
        counts = ("calls", "estimated", "parts", "runs")
        return _money(value) if row.get("kind") == "money" and name not in counts else f"{value:,}"
    return str(value)


def _money(units: int) -> str:
    from budgeteer.core.budget import Budget

    return ("-" if units < 0 else "") + str(Budget("money", abs(units)))
