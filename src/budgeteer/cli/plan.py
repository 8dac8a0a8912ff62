"""budgeteer plan: which model, length and number of samples fit a deadline or an amount of energy."""

from __future__ import annotations

import argparse
import json
import math
import sys
from typing import Any


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument(
        "profiles",
        nargs="+",
        metavar="PROFILE",
        help="files of budgeteer profile device, or published ones: jetson-orin-1.5b, jetson-orin-8b, jetson-orin-14b",
    )
    parser.add_argument("--deadline", required=True, metavar="TIME", help="of an answer, such as 500ms, 5s or 2min")
    parser.add_argument("--joules", type=float, default=math.inf, help="most energy of an answer (default: no limit)")
    parser.add_argument(
        "--prompt-tokens", type=int, default=None, metavar="N", help="of a prompt (default: the longest measured one)"
    )
    parser.add_argument("--json", action="store_true", help="all that fits as JSON, the best first")


def run(args: argparse.Namespace) -> int:
    """Print what fits, the best first, and the command that runs the best; exit code 1 if nothing fits."""
    from budgeteer.core.errors import InvalidInput
    from budgeteer.models.device import PUBLISHED, configurations, device_of

    seconds = duration(args.deadline)
    devices = [(name, device_of("plan", name)) for name in args.profiles]
    known = {id(device): name for name, device in devices}
    if args.joules != math.inf and any(device.watts is None for _, device in devices):
        missing = next(name for name, device in devices if device.watts is None)
        raise InvalidInput(f"{missing} does not know its power; profile it with --watts or --energy, or drop --joules")
    fitting = configurations((device for _, device in devices), seconds, prompt=args.prompt_tokens, joules=args.joules)
    if args.json:
        sys.stdout.write(json.dumps([_row(known[id(option.device)], option) for option in fitting], indent=1) + "\n")
        return int(not fitting)
    if not fitting:
        sys.stderr.write(f"error: nothing answers within {seconds:g} s here, the error of the fit included\n")
        return 1
    width = max(len(name) for name in known.values())
    lines = [f"{'profile':{width}}  {'samples':>7} {'cap':>7} {'seconds':>8} {'joules':>8}  right"]
    for option in fitting:
        row = _row(known[id(option.device)], option)
        energy = "-" if row["joules"] is None else f"{option.joules:.3g}"
        share = "not measured"
        if option.right is not None:
            share = f"{100 * option.right.right:.1f} % [{100 * option.right.low:.1f}, {100 * option.right.high:.1f}]"
        lines.append(
            f"{row['profile']:{width}}  {option.parallel:>7} {option.tokens:>7} {option.seconds:>8.3g} {energy:>8}  "
            f"{share}"
        )
    lines += ["", "seconds: of the longest answer, with the margin of the fit's error"]
    best = fitting[0]
    if best.device.model in PUBLISHED:
        lines.append("a published profile is of a machine that is not here: budgeteer profile device makes this one's")
    elif best.right is None and len(fitting) > 1:
        lines.append("which of them is right more often is not measured: budgeteer profile accuracy")
    else:
        lines.append(
            f"to use it: budgeteer solve {best.device.source or 'TASK'} --model {best.device.model} --strategy "
            f"deadline:device={known[id(best.device)]},seconds={seconds:g} --concurrency 1 --budget ..."
        )
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


def _row(name: str, option: Any) -> dict[str, Any]:
    return {
        "profile": name,
        "model": option.device.model,
        "samples": option.parallel,
        "tokens": option.tokens,
        "seconds": option.seconds,
        "joules": None if math.isnan(option.joules) else option.joules,
        "right": None if option.right is None else option.right.right,
    }


def duration(text: str) -> float:
    """Seconds of ``500ms``, ``5s``, ``2min`` or a bare number of seconds.

    >>> duration("500ms"), duration("5s"), duration("2min"), duration("3")
    (0.5, 5.0, 120.0, 3.0)

    Raises:
        InvalidInput: something else.
    """
    from budgeteer.core.errors import InvalidInput

    for unit, factor in (("ms", 1e-3), ("min", 60.0), ("s", 1.0), ("", 1.0)):
        if text.endswith(unit):
            try:
                seconds = float(text.removesuffix(unit)) * factor
            except ValueError:
                break
            if 0 < seconds < 1e9:
                return seconds
            break
    raise InvalidInput(f"{text!r} is no time above 0; write 500ms, 5s or 2min")
