"""budgeteer profile: how fast a model is on this machine, and how often it is right at which length."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    from budgeteer.cli._options import add_reading
    from budgeteer.lab.tasks.named import HELP

    commands = parser.add_subparsers(dest="what", required=True, metavar="ACTION")
    device = commands.add_parser("device", help="time calls of a model here, and fit prefill and decode times")
    device.add_argument("--model", default="reasoner", help="as in budgeteer solve (default %(default)s)")
    device.add_argument("--out", type=Path, required=True, metavar="FILE.json", help="the profile to write")
    device.add_argument(
        "--prompts", default="16,64,128,256", metavar="N,...", help="lengths of prompts in tokens (default %(default)s)"
    )
    device.add_argument(
        "--tokens", default="16,64", metavar="N,...", help="lengths of answers in tokens (default %(default)s)"
    )
    device.add_argument("--parallel", default="1,4", metavar="N,...", help="choices at once (default %(default)s)")
    device.add_argument("--repeats", type=int, default=3, help="of each call; the median counts (default %(default)s)")
    device.add_argument("--seed", type=int, default=0, help="of the prompts (default %(default)s)")
    power = device.add_mutually_exclusive_group()
    power.add_argument("--watts", type=float, default=None, help="power of the machine under load, if you know it")
    power.add_argument("--energy", action="store_true", help="read the processor's energy counters (RAPL)")
    device.add_argument(
        "--gpus",
        metavar="all|N,...",
        default=None,
        help="read the energy counters of these NVIDIA GPUs (NVML), with --energy beside the processor's",
    )
    accuracy = commands.add_parser("accuracy", help="add accuracy by length and number of samples to a profile")
    accuracy.add_argument("source", metavar="FILE|TASK|-", help=HELP)
    accuracy.add_argument(
        "--profile", type=Path, required=True, metavar="FILE.json", help="of budgeteer profile device"
    )
    accuracy.add_argument("--tokens", default="16,32,64,128,256", metavar="N,...", help="caps (default %(default)s)")
    accuracy.add_argument("--samples", type=int, default=8, help="drawn a question, for votes (default %(default)s)")
    accuracy.add_argument("--style", default=None, metavar="NAME", help="how the model is asked, as in budgeteer solve")
    accuracy.add_argument("--limit", type=int, default=None, metavar="N", help="the first N questions")
    add_reading(accuracy)
    accuracy.add_argument("--task-seed", type=int, default=0, help="seed of a task's questions (default %(default)s)")
    accuracy.add_argument("--seed", type=int, default=0, help="of the samples (default %(default)s)")
    accuracy.add_argument("--concurrency", type=int, default=8, help="questions at once (default %(default)s)")
    energy = commands.add_parser("energy", help="joules per token from readings, and the budget to write with them")
    energy.add_argument(
        "readings",
        metavar="FILE",
        help="rows with input, output, joules and perhaps cached (JSON lines, CSV, Parquet), a profile of budgeteer "
        "profile device with power (.json)",
    )
    energy.add_argument(
        "--watts", type=float, default=None, help="power of the machine: how many tokens a second it buys"
    )


def run(args: argparse.Namespace) -> int:
    """Measure, write the profile, and say what was found."""
    return {"device": _device, "accuracy": _accuracy, "energy": _energy}[args.what](args)


def _energy(args: argparse.Namespace) -> int:
    from budgeteer.core import rows
    from budgeteer.core.errors import InvalidInput
    from budgeteer.models import device, energy

    if args.readings.endswith(".json"):
        found = energy.readings_of(device.load(Path(args.readings)), (16, 128, 512, 2048), (16, 64, 256, 1024))
    else:
        found = []
        for place, row in rows.read(args.readings):
            try:
                cached = float(row.get("cached") or 0)
                reading = energy.Reading(float(row["input"]) - cached, float(row["output"]), float(row["joules"]))
            except (AttributeError, KeyError, TypeError, ValueError) as error:
                where = f"{rows.where(args.readings)}, {place}"
                raise InvalidInput(f"{where}: give numbers for input, output and joules ({error!r})") from error
            found.append(reading)
    fitted = energy.fit(found)
    lines = [
        f"{'prefill':10} {fitted.prefill:.4g} J a token of input that was not cached",
        f"{'decode':10} {fitted.decode:.4g} J a token of output",
        f"{'error':10} {fitted.error:.1%} of a reading, predicted from the others; with one rate {fitted.alike:.1%}",
        f"{'budget':10} --budget '{fitted.kind}:500' is 500 J, each call rounded up to whole joules",
    ]
    if args.watts is not None:
        for phase, rate in (("input", fitted.prefill), ("output", fitted.decode)):
            if rate > 0:
                lines.append(f"{'at most':10} {args.watts / rate:,.0f} tokens of {phase} a second at {args.watts:g} W")
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


def numbers(given: str, option: str) -> list[int]:
    """Whole numbers of 1 or more from ``1,2,3``, each once, the smallest first.

    Raises:
        InvalidInput: something else.
    """
    from budgeteer.core.errors import InvalidInput

    try:
        counts = sorted({int(part) for part in given.split(",")})
    except ValueError:
        counts = [0]
    if counts[0] < 1 or counts[-1] > 1_000_000:
        raise InvalidInput(f"{option} {given!r} are no numbers from 1 to 1,000,000; write 16,64")
    return counts


def _device(args: argparse.Namespace) -> int:
    import asyncio

    from budgeteer.core.errors import InvalidInput
    from budgeteer.models import device, latency, timing
    from budgeteer.models.load import load_model

    prompts, tokens, parallel = (
        numbers(getattr(args, name), f"--{name}") for name in ("prompts", "tokens", "parallel")
    )
    if len(prompts) < 3 or max(tokens) < 2:
        raise InvalidInput("the curves need 3 lengths of --prompts and --tokens above 1")
    joules = _counters(args)
    model = load_model(args.model)

    def tell(done: int, total: int) -> None:
        if done % 10 == 0 or done == total:
            sys.stderr.write(f"{done} of {total} calls\n")

    async def work() -> timing.Measured:
        try:
            return await timing.measure(
                model,
                prompts=prompts,
                tokens=tokens,
                parallel=parallel,
                repeats=args.repeats,
                seed=args.seed,
                joules=joules,
                on_call=tell,
            )
        finally:
            await model.aclose()

    measured = asyncio.run(work())
    fitted = latency.fit(measured.calls)
    watts = measured.watts if args.watts is None else (args.watts, args.watts)
    made = device.Device(args.model, fitted, watts)
    device.save(made, args.out)
    sys.stdout.write(_speed(made, latency.mean_error(fitted, measured.calls), prompts[-1]) + f"\nwritten: {args.out}\n")
    return 0


def _counters(args: argparse.Namespace) -> Callable[[], float] | None:
    """What counts joules while calls are timed; None: nothing does."""
    from budgeteer.core.errors import InvalidInput
    from budgeteer.models import power

    if args.gpus is not None and args.watts is not None:
        raise InvalidInput("--gpus reads the power that --watts gives; leave one of them out")
    read = [power.meter()] if args.energy else []
    if args.gpus is not None:
        given = args.gpus.split(",")
        if args.gpus != "all" and not all(number.strip().isdecimal() for number in given):
            raise InvalidInput(f"--gpus is {args.gpus!r}; write all, or numbers such as 0,1")
        read.append(power.gpu_meter(None if args.gpus == "all" else [int(number) for number in given]))
    return power.together(read) if read else None


def _speed(made: Any, error: float, prompt: int) -> str:
    latency = made.latency
    a, b, c = latency.prefill
    lines = [
        f"{'prefill':10} {a:.3g} p^2 + {b:.3g} p + {c:.3g} s, p = tokens of the prompt in multiples of {latency.pad}",
        *(
            f"{'decode':10} {entry.parallel} at once: {1e3 * entry.step:.3g} ms a token + {1e3 * entry.grows:.3g} ms a "
            f"token of context; {entry.parallel / (entry.step + entry.grows * prompt):,.0f} tokens/s behind {prompt}"
            for entry in latency.decode
            if entry.step + entry.grows * prompt > 0
        ),
        f"{'error':10} {error:.1%} in the mean, late by {latency.error:.1%} at most on calls held out",
    ]
    if made.watts is not None:
        for entry in latency.decode:
            each = made.joules(prompt, 65, entry.parallel) - made.joules(prompt, 1, entry.parallel)
            lines.append(
                f"{'energy':10} {entry.parallel} at once: {1e3 * each / (64 * entry.parallel):,.3g} mJ a token"
            )
    return "\n".join(lines)


def _accuracy(args: argparse.Namespace) -> int:
    import asyncio
    from dataclasses import replace

    from budgeteer.cli import _solving
    from budgeteer.core.errors import InvalidInput
    from budgeteer.lab import capped
    from budgeteer.models import device
    from budgeteer.models.load import load_model
    from budgeteer.solve import styles

    lengths = numbers(args.tokens, "--tokens")
    profile = device.load(args.profile)
    asked = _solving.questions_of(args)
    if set(asked.references) != {question.id for question in asked.questions}:
        raise InvalidInput(f"{args.source} has questions without an answer; accuracy needs one for each")
    model = load_model(profile.model)
    parallel = [e.parallel for e in profile.latency.decode if e.parallel == 1 or e.parallel <= args.samples]

    def tell(done: int) -> None:
        if done % 20 == 0 or done == len(asked.questions):
            sys.stderr.write(f"{done} of {len(asked.questions)} questions\n")

    async def work() -> list[capped.Drawn]:
        try:
            name = styles.choose(model, asked.info) if args.style is None else args.style
            style = styles.style_of(name, asked.info.by(model))
            return await capped.draw(
                model,
                style,
                asked,
                tokens=lengths[-1],
                samples=args.samples if max(parallel) > 1 else 0,
                seed=args.seed,
                concurrency=args.concurrency,
                on_question=tell,
            )
        finally:
            await model.aclose()

    drawn = asyncio.run(work())
    points = capped.curves(drawn, lengths, parallel, lambda question, answer: asked.grade(question, answer) or 0.0)
    longest = max(question.prompt for question in drawn)
    device.save(replace(profile, accuracy=points, source=args.source, prompt=longest), args.profile)
    lines = [f"{'samples':>7} {'cap':>6} {'tokens used':>12}  right"]
    for point in points:
        share = f"{100 * point.right:.1f} % [{100 * point.low:.1f}, {100 * point.high:.1f}]"
        lines.append(f"{point.parallel:>7} {point.tokens:>6} {point.used:>12.1f}  {share}")
    sys.stdout.write("\n".join(lines) + f"\nwritten: {args.profile}\n")
    sys.stderr.write(_solving.unverified(asked))
    return 0
