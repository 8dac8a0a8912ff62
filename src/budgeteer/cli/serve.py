"""budgeteer serve: the gateway."""

from __future__ import annotations

import argparse
import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from budgeteer.core.errors import InvalidInput

if TYPE_CHECKING:
    from budgeteer.gateway.config import Config


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("--config", type=Path, default=Path("gateway.toml"), help="TOML file (default gateway.toml)")
    parser.add_argument("--host", help="instead of the file's")
    parser.add_argument("--port", type=int, help="instead of the file's")
    parser.add_argument(
        "--watch",
        action="store_true",
        help="read the file again when it or a price file has changed (SIGHUP does so at any time)",
    )
    parser.add_argument(
        "--check", action="store_true", help="check the file, the ledger, prices and upstreams, and end"
    )
    parser.add_argument(
        "--replay",
        metavar="FILE",
        help="report what this configuration's limits, keys and policies would do with the recorded requests of FILE, "
        "and end: the CSV or JSON of the admin API's requests, the log, LEDGER.gateway, or a store's address",
    )
    parser.add_argument("--json", action="store_true", help="the result of --replay as JSON")
    parser.add_argument(
        "--demo", action="store_true", help="look at it: a small model, three keys and callers; no file is needed"
    )


def run(args: argparse.Namespace) -> int:
    """Serve until a signal, or check."""
    import asyncio
    import gc

    if args.demo:
        from budgeteer.gateway import demo

        return demo.run(args.host, args.port, lambda line: sys.stderr.write(line + "\n"))
    from budgeteer.gateway.app import Gateway
    from budgeteer.gateway.reload import Reloader, read
    from budgeteer.gateway.server import check, server

    if args.json and args.replay is None:
        raise InvalidInput("--json is for the result of --replay; give --replay FILE, or leave it out")
    loaded = read(args.config)
    config = loaded.config
    if args.replay is not None:
        return _replay(config, args.replay, args.json)
    if args.check:
        well = asyncio.run(check(config, lambda line: sys.stdout.write(line + "\n")))
        return 0 if well else 1
    gateway = Gateway(config)
    reloader = Reloader(gateway, args.config, loaded, args.watch, lambda line: sys.stderr.write(f"budgeteer: {line}\n"))
    gateway.background.append(reloader.keep)
    serving = server(config, gateway=gateway, host=args.host, port=args.port)
    sys.stderr.write(f"budgeteer: http://{serving.config.host}:{serving.config.port}/v1\n")
    if not any(entry.digest for entry in config.admins.entries):
        sys.stderr.write("budgeteer: no admin key is set, so the admin API is off\n")
    if config.prompts:
        sys.stderr.write("budgeteer: the log below has what clients ask and are answered ([logging] prompts)\n")
    gc.collect()
    gc.freeze()  # what was made so far stays for ever
    # requests leave few cycles: looking for them took 7 % of the time. Small generations, since all wait for one
    gc.set_threshold(2_000, 100, 100)
    with contextlib.suppress(KeyboardInterrupt):  # raised again once all is booked
        serving.run()
    return 0 if serving.started else 1


def _replay(config: Config, place: str, as_json: bool) -> int:
    """Say what this configuration would have done with the requests of a file."""
    import json

    from budgeteer.cli._printed import printable
    from budgeteer.gateway.keys import decode
    from budgeteer.gateway.replay.read import keys_beside, read
    from budgeteer.gateway.replay.report import as_text, report
    from budgeteer.gateway.replay.run import replay

    requests, texts = read(place)
    keys = {key.id: key for key in map(decode, keys_beside(config.ledger) or texts)}
    about = report(config, requests, replay(config, requests, keys), keys)
    sys.stdout.write(json.dumps(about, indent=1) + "\n" if as_json else printable(as_text(about), keep="\n"))
    return 0
