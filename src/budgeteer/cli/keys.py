"""budgeteer keys: virtual keys of the gateway."""

from __future__ import annotations

import argparse
import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from budgeteer.gateway.changes import Author
    from budgeteer.gateway.config import Config
    from budgeteer.gateway.keys import Key
    from budgeteer.gateway.store import Store


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")

    def action(name: str, text: str) -> argparse.ArgumentParser:
        sub = actions.add_parser(name, help=text, description=text)
        sub.add_argument("--config", type=Path, default=Path("gateway.toml"), help="TOML file (default gateway.toml)")
        sub.add_argument("--json", action="store_true", help="as JSON")
        return sub

    sub = action("create", "make a key; its secret is shown this once")
    sub.add_argument("path", nargs="?", default="", help="the scopes above it, such as org/team")
    sub.add_argument("--name", default="", help="for people")
    for option, limited in (
        ("--limit", "of the key: $5/day, 1m, requests:60/60s, parallel:8"),
        ("--per-user", "of each user"),
        ("--per-session", "of each session"),
        ("--per-tag", "of each tag"),
    ):
        sub.add_argument(option, action="append", metavar="LIMIT", help=f"{limited}; may be repeated")
    sub.add_argument(
        "--per-model",
        action="append",
        metavar="NAME=LIMIT",
        help="of one model, or of a group of [groups]: gpt-4o=$5/day",
    )
    sub.add_argument("--model", action="append", help="that it may call (default: all); may be repeated")
    for side in ("input", "output", "reasoning"):
        sub.add_argument(f"--max-{side}", type=int, metavar="N", help=f"tokens of {side} of one request")
    sub.add_argument("--expires", metavar="DATE", help="such as 2027-01-31 or 2027-01-31T12:00 (UTC)")
    action("list", "all keys, without secrets")
    sub = action("revoke", "end a key for good")
    sub.add_argument("id", help="of the key, as budgeteer keys list shows it")
    sub = action("rotate", "give a key a new secret; its account and limits stay")
    sub.add_argument("id", help="of the key, as budgeteer keys list shows it")
    sub.add_argument(
        "--overlap",
        default="24h",
        metavar="TIME",
        help="for which the old secret works too: 90m, 24h, 7d, 0 (default 24h)",
    )
    sub = action("top-up", "raise a key's limit")
    sub.add_argument("id", help="of the key, as budgeteer keys list shows it")
    sub.add_argument("amount", help="$5 or 500k; with a window, $5/day, the limit of that window is raised")


def run(args: argparse.Namespace) -> int:
    """Carry out one action."""
    from budgeteer.gateway.config import load
    from budgeteer.gateway.stores import connect

    config = load(args.config)
    if config.ledger == "memory:":
        from budgeteer.core.errors import InvalidInput

        raise InvalidInput("[ledger] url is memory:, whose keys only the gateway itself can make: use its admin API")
    store = connect(config.ledger, config.keep)
    try:
        actions = {"create": _create, "list": _list, "revoke": _revoke, "top-up": _top_up, "rotate": _rotate}
        return actions[args.action](store, config, args)
    finally:
        store.close()


def _create(store: Store, config: Config, args: argparse.Namespace) -> int:
    from budgeteer.gateway import changes, keys
    from budgeteer.ledger.protocol import wall_clock

    now = wall_clock()
    given = {
        "limits": args.limit,
        "per_user": args.per_user,
        "per_session": args.per_session,
        "per_tag": args.per_tag,
        "models": args.model,
        "max_input": args.max_input,
        "max_output": args.max_output,
        "max_reasoning": args.max_reasoning,
        "expires": None if args.expires is None else _date(args.expires),
    }
    if args.per_model:
        given["per_model"] = _per_model(args.per_model)
    about = {"path": args.path, "name": args.name, **{name: each for name, each in given.items() if each is not None}}
    key, token = keys.make(about, config.defaults, config.counted, now, config.groups)
    changes.add(store, key, _author(), now)
    if args.json:
        sys.stdout.write(json.dumps({"key": keys.public(key), "secret": token}, indent=1) + "\n")
    else:
        sys.stdout.write(f"{token}\n")
        sys.stderr.write(f"key {key.id} at {key.scope}; the line above is its secret and is shown this once\n")
    return 0


def _list(store: Store, config: Config, args: argparse.Namespace) -> int:
    from budgeteer.gateway import keys

    listed = sorted((keys.decode(text) for text in store.all_keys()), key=lambda key: (key.scope, key.created))
    if args.json:
        sys.stdout.write(json.dumps([keys.public(key) for key in listed], indent=1) + "\n")
        return 0
    rows = [["id", "path", "name", "limits", "models", "state"]]
    rows += [
        [key.id, key.path, key.name, ", ".join(map(str, key.all_limits)) or "-", ", ".join(key.models), _state(key)]
        for key in listed
    ]
    widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
    for row in rows:
        sys.stdout.write("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() + "\n")
    return 0


def _state(key: Key) -> str:
    if key.revoked:
        return "revoked"
    if key.expires is None:
        return "valid"
    until = datetime.fromtimestamp(key.expires / 1000, UTC)
    return f"{'valid until' if until > datetime.now(UTC) else 'expired'} {until:%Y-%m-%d %H:%M}"


def _revoke(store: Store, config: Config, args: argparse.Namespace) -> int:
    from budgeteer.gateway import changes, keys

    return _change(store, args, changes.REVOKED, lambda key: keys.changed(key, {"revoked": True}, ()))


def _per_model(pairs: list[str]) -> dict[str, list[str]]:
    """The limits of each model or group in texts such as ``gpt-4o=$5/day``."""
    from budgeteer.core.errors import InvalidInput

    limits: dict[str, list[str]] = {}
    for pair in pairs:
        name, equals, limit = pair.rpartition("=")
        if not (name and equals and limit):
            raise InvalidInput(f"--per-model {pair!r} is not NAME=LIMIT; write gpt-4o=$5/day")
        limits.setdefault(name, []).append(limit)
    return limits


def _rotate(store: Store, config: Config, args: argparse.Namespace) -> int:
    from budgeteer.gateway import changes, keys
    from budgeteer.ledger.protocol import wall_clock

    overlap, now, token = keys.overlap_of(args.overlap), wall_clock(), ""

    def rotate(key: Key) -> Key:
        nonlocal token
        key, token = keys.rotated(key, overlap, now)
        return key

    key, _ = changes.alter(store, args.id, _author(), changes.ROTATED, rotate, now)
    if args.json:
        sys.stdout.write(json.dumps({"key": keys.public(key), "secret": token}, indent=1) + "\n")
    else:
        sys.stdout.write(f"{token}\n")
        old = f"the old one works for {args.overlap} more" if overlap else "the old one has ended"
        sys.stderr.write(f"key {key.id} at {key.scope}; the line above is its new secret, shown this once; {old}\n")
    return 0


def _top_up(store: Store, config: Config, args: argparse.Namespace) -> int:
    from budgeteer.gateway import changes, keys

    return _change(store, args, changes.TOPPED_UP, lambda key: keys.topped_up(key, args.amount))


def _author() -> Author:
    """The user of this machine who changes a key."""
    import getpass
    import socket

    from budgeteer.gateway.changes import Author

    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a container's user may have no name
        user = "somebody"
    return Author(f"{user}@{socket.gethostname()}", "command line")


def _change(store: Store, args: argparse.Namespace, action: str, change: Callable[[Key], Key]) -> int:
    from budgeteer.gateway import changes, keys
    from budgeteer.ledger.protocol import wall_clock

    key, _ = changes.alter(store, args.id, _author(), action, change, wall_clock())
    if args.json:
        sys.stdout.write(json.dumps(keys.public(key), indent=1) + "\n")
    else:
        limits = ", ".join(map(str, key.limits)) or "no limits of its own"
        sys.stdout.write(f"key {key.id}: {_state(key)}, {limits}; the gateway sees it within a second\n")
    return 0


def _date(text: str) -> int:
    from budgeteer.core.errors import InvalidInput

    try:
        at = datetime.fromisoformat(text)
    except ValueError as error:
        raise InvalidInput(f"--expires {text!r} is no date: {error}") from None
    return int((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1000)
