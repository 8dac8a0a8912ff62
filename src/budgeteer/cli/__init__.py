"""The budgeteer command: one file a command, imported only when it is called, so that help is instant."""

from __future__ import annotations

import argparse
import contextlib
import errno
import importlib
import os
import re
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

from budgeteer.cli._printed import printable
from budgeteer.core.errors import BudgeteerError, InvalidInput, UnknownName

COMMANDS: dict[str, tuple[str, str]] = {
    "compare": ("budgeteer.cli.compare", "train several recipes at equal token budgets and compare them over seeds"),
    "train": ("budgeteer.cli.train", "train with one recipe under a hard token budget"),
    "solve": ("budgeteer.cli.solve", "answer the questions of a file or a task under a hard token or money budget"),
    "frontier": ("budgeteer.cli.frontier", "accuracy against tokens for several strategies, with a report"),
    "probe": ("budgeteer.cli.probe", "what an endpoint honours, ignores or breaks: budgets of thinking, usage, seeds"),
    "heads": ("budgeteer.cli.heads", "train small heads on a model: for guidance, ZIP-RC and difficulty"),
    "data": ("budgeteer.cli.data", "training examples out of a model's own traces, for TRL's trainers"),
    "profile": ("budgeteer.cli.profile", "how fast a model is on this machine, and how often right at which length"),
    "plan": ("budgeteer.cli.plan", "model, length and number of samples for a deadline or an amount of energy"),
    "stages": ("budgeteer.cli.stages", "model and number of samples of each stage of a pipeline, within a budget"),
    "allocate": ("budgeteer.cli.allocate", "split a budget over the items of a file, and say why"),
    "report": ("budgeteer.cli.report", "render a results.json as a page that stands alone"),
    "ledger": ("budgeteer.cli.ledger", "budgets that cannot be overspent: accounts, balances, spending, the journal"),
    "serve": ("budgeteer.cli.serve", "the gateway: budgets in front of OpenAI-compatible and Anthropic endpoints"),
    "keys": ("budgeteer.cli.keys", "virtual keys of the gateway: create, list, revoke, top up"),
    "methods": ("budgeteer.cli.methods", "all methods: part, paper, what each decides, verdict so far"),
    "papers": ("budgeteer.cli.papers", "the papers this is about, and how much of each is here"),
    "evidence": ("budgeteer.cli.evidence", "run the experiments behind a method's claims"),
    "route": ("budgeteer.cli.route", "which model answers a request: learn it from a table of scores and costs"),
    "agent": ("budgeteer.cli.agent", "one agent, many or none: what pays, from your own runs"),
    "cache": ("budgeteer.cli.cache", "budgets of the KV cache: what they cost in quality and free in bytes"),
    "bench": ("budgeteer.cli.bench", "published benchmarks, built anew: overflow, schedules, a vending machine"),
    "lab": ("budgeteer.cli.lab", "where agents' tokens go, forecasts, audits; rebuild the embedded models"),
}
"""Name -> module and one line of help. A module has ``add_arguments(parser)`` and ``run(args) -> int``."""

_FORMAT = warnings.formatwarning
_DISK = (
    errno.EACCES,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EIO,
    errno.EISDIR,
    errno.ENAMETOOLONG,
    errno.ENOENT,
    errno.ENOSPC,
    errno.ENOTDIR,
    errno.EPERM,
    errno.EROFS,
)
"""What files and disks refuse, and the user can change."""

_DESCRIPTION = """\
Spend language-model token budgets where they buy most: rollouts in training, thinking and samples
in answering, calls behind a gateway; each method measured against its baseline at the same budget."""


def _overview() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {text}" for name, (_, text) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: budgeteer [-h] [--version] COMMAND ...",
            "",
            _DESCRIPTION,
            "",
            "commands:",
            *lines,
            "",
            "examples:",
            "  budgeteer compare uniform-answer-stop@50% duet@50% prompt-selection@50% --seeds 2",
            "  budgeteer train duet --budget 200k --out runs/duet",
            "  budgeteer solve chains --strategy self-consistency:n=8 --budget 1k --out answers.jsonl",
            "  budgeteer allocate --method menu-knapsack --budget 50k items.jsonl --explain",
            "  budgeteer ledger init && budgeteer ledger open acme --limit '$5/day'",
            "",
            "budgeteer COMMAND --help shows a command's options. A budget is written 500k, 1m, 50% or '$5'.",
        ]
    )


def _remark(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    """A warning of this package as one line for its user; one of other packages with the place where it arose."""
    own = Path(filename).is_relative_to(Path(__file__).parents[1]) and category is UserWarning
    return f"note: {message}\n" if own else _FORMAT(message, category, filename, lineno, line)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; errors are one line on standard error and exit code 2.

    A fault of this package is one line and exit code 70; with the environment variable BUDGETEER_TRACEBACK set, its
    traceback.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    name = arguments[0] if arguments else ""
    _keep_numbers()
    warnings.formatwarning = _remark
    if sys.stderr is None:  # closed: nobody wants to read errors
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    if sys.stdout is None:
        _say("standard output is closed; send it to a file, or to /dev/null where nobody reads it")
        return 2
    try:
        try:
            return _run(name, arguments)
        finally:
            sys.stdout.flush()  # here, where a reader that has left or a full disk is handled, and not at exit
    except BudgeteerError as error:
        _say(str(error))
        return 2
    except ModuleNotFoundError as error:
        if error.name and error.name.split(".")[0] in ("torch", "tokenizers", "safetensors", "numba"):
            _say(f"{name} needs {error.name!r}: pip install 'budgeteer[lab]'")
            return 2
        raise
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; the same command continues from the last checkpoint\n")
        return 130
    except BrokenPipeError:
        _close_stdout()
        return 0
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _DISK:
            _say(_of_disk(error))
            _close_stdout()
            return 2
        if os.environ.get("BUDGETEER_TRACEBACK"):
            raise
        said = " ".join(f"{type(error).__name__}: {error}".split())[:500]
        _say(f"a fault of {_owner(error)}, please report it: {said} (BUDGETEER_TRACEBACK=1 shows where it came from)")
        return 70


def _owner(error: Exception) -> str:
    """Whose fault it is: that of another package whose method was running, or budgeteer's."""
    from traceback import walk_tb

    from budgeteer.core import registry
    from budgeteer.core.methods import METHODS

    theirs = {re.split("[.:]", method.path)[0] for method in registry.methods()[len(METHODS) :]}
    ran = [str(frame.f_globals.get("__name__")) for frame, _ in walk_tb(error.__traceback__)]
    return next((f"{name} (not budgeteer's)" for name in reversed(ran) if name.split(".")[0] in theirs), "budgeteer")


def _run(name: str, arguments: list[str]) -> int:
    if name in ("", "-h", "--help", "help"):
        sys.stdout.write(_overview() + "\n")
        return 0 if arguments else 2
    if name == "--version":
        from budgeteer import __version__

        sys.stdout.write(f"budgeteer {__version__}\n")
        return 0
    if name not in COMMANDS:
        raise UnknownName("command", name, COMMANDS)
    from budgeteer.cli import _numbers, _outputs  # here, as the commands are: help does without

    module_name, text = COMMANDS[name]
    module = importlib.import_module(module_name)
    parser = argparse.ArgumentParser(prog=f"budgeteer {name}", description=text)
    module.add_arguments(parser)
    _describe(parser)
    if not arguments[1:] and parser._subparsers is not None:
        parser.print_help(sys.stderr)
        raise InvalidInput(f"budgeteer {name} needs one of the actions above")
    args = parser.parse_args(arguments[1:])
    _numbers.check(args)
    _outputs.check(name, args)
    return int(module.run(args))


def _describe(parser: argparse.ArgumentParser) -> None:
    """Let the help of an action begin with the line that the list of actions has for it, where it says no more."""
    for each in parser._actions:
        if isinstance(each, argparse._SubParsersAction):
            for listed in each._choices_actions:
                action = each.choices[listed.dest]
                action.description = action.description or listed.help


def _say(error: str) -> None:
    """An error on standard error; what it quotes of files and arguments does not reach the terminal as control."""
    sys.stderr.write(f"error: {printable(error, keep=chr(10))}\n")


def _keep_numbers() -> None:
    """Let the numbers of standard streams that are closed go to no file: what is printed to them would be in it."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def _of_disk(error: OSError) -> str:
    if error.filename is None:  # a write to what is open: standard output, or a file that was tried before
        return f"an output cannot be written ({error.strerror}); free space, or send it elsewhere"
    return f"cannot use {os.fsdecode(error.filename)!r} ({error.strerror}); choose another place"


def _close_stdout() -> None:
    """Let what is still buffered go nowhere: it would fail again at exit."""
    with contextlib.suppress(OSError, ValueError):  # no file, as in a test
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
