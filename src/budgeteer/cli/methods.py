"""budgeteer methods: the registry as a table, and its methods through the checks of their parts."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from budgeteer.core.method import Method
    from budgeteer.core.registry import Broken


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument(
        "name",
        nargs="?",
        metavar="PART|NAME|PART/NAME",
        help="list only the methods of this part, such as allocator; or explain the one of this name, such as neyman, "
        "or policy/schedule: its options, the columns it reads, when it helps, and how it is run",
    )
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--json", action="store_true", help="as JSON")
    how.add_argument("--markdown", action="store_true", help="those of this package as a page, docs/methods.md")
    how.add_argument(
        "--check",
        action="store_true",
        help="run them through the check of their part, those of other installed packages where no NAME is given, and "
        "print a line for each: ok, or which rule is broken and how; exit code 1 unless all are ok",
    )


def run(args: argparse.Namespace) -> int:
    """Print every method with its part, paper, decision and verdicts, or what its check says."""
    if args.markdown:
        if args.name is not None:
            from budgeteer.core.errors import InvalidInput

            raise InvalidInput("--markdown prints the whole catalogue; leave out the name")
        sys.stdout.write(page())
        return 0
    from budgeteer.core import registry
    from budgeteer.core.method import PARTS

    chosen = _chosen(args.name, others=args.check)
    faults = registry.broken() if args.name is None or not args.check else ()
    if args.check:
        return _check(chosen, faults)
    for fault in faults:
        sys.stderr.write(f"left out: {fault.error}\n")
    if args.name is None or args.name in PARTS:
        return _list(chosen, as_json=args.json)
    return _explain(chosen, as_json=args.json)


def _chosen(name: str | None, *, others: bool) -> list[Method]:
    """The methods of a part or of a name; without one all, or only those of other packages."""
    from budgeteer.core import registry
    from budgeteer.core.errors import UnknownName
    from budgeteer.core.method import PARTS
    from budgeteer.core.methods import METHODS

    known = registry.methods()
    if name is None:
        return [method for method in known if not others or method not in METHODS]
    if name in PARTS:
        return [method for method in known if method.part == name]
    part, _, rest = name.rpartition("/")
    chosen = [method for method in known if method.name == rest and part in ("", method.part)]
    if not chosen:
        names = [method.name for method in known]
        raise UnknownName(
            "part or method", name, [*PARTS, *names, *(f"{method.part}/{method.name}" for method in known)]
        )
    return chosen


def _check(methods: Sequence[Method], faults: Sequence[Broken]) -> int:
    """One line a method; 1 unless all are ok."""
    from budgeteer.check import CheckFailed, check_method
    from budgeteer.check._method import CHECKS
    from budgeteer.core.errors import MissingExtra

    for fault in faults:
        sys.stdout.write(f"entry point {fault.entry}: broken: {' '.join(str(fault.error).split())}\n")
    if not methods and not faults:
        sys.stdout.write(
            "no other package registers a method; give NAME, a part or a method, to check those of this one\n"
        )
    every = not faults
    for method in methods:
        said = "ok"
        try:
            if method.part in CHECKS:
                check_method(method)
                if lost := _no_evidence(method):
                    said = f"broken: {lost}"
            else:
                said = f"not checked: there is no check of a {method.part}"
        except CheckFailed as error:
            said = f"broken: {error}"
        except MissingExtra as error:
            said = f"not checked: {error}"
        except Exception as error:  # whatever a method of somebody else raises
            said = f"broken: it raised {type(error).__name__}: {error}"
        every = every and said == "ok"
        sys.stdout.write(f"{method.part} {method.name}: {' '.join(said.split())}\n")
        sys.stdout.flush()
    return 0 if every else 1


def _no_evidence(method: Method) -> str:
    """Why the evidence that a method names cannot be run, "" where it can or none is named."""
    from budgeteer.core.errors import InvalidInput, UnknownName
    from budgeteer.lab import evidence

    if method.evidence is None or method.evidence in evidence.names():
        return ""
    try:
        evidence.module_of(method.evidence)
    except (InvalidInput, UnknownName) as error:
        return f"its evidence {method.evidence!r} leads nowhere: {error}"
    return ""


def _list(methods: Sequence[Method], *, as_json: bool) -> int:
    rows = [_row(method) for method in methods]
    if as_json:
        sys.stdout.write(json.dumps(rows, indent=1) + "\n")
        return 0
    width = max(len(str(row["name"])) for row in rows)
    for row in rows:
        paper = f"arXiv {row['arxiv']}" if row["arxiv"] else ""
        classes = f" [{', '.join(row['classes'])}]" if row["classes"] else ""
        sys.stdout.write(f"{row['name']:{width}}  {row['part']:10} {paper:17} {row['decides']}{classes}\n")
        if row["verdict"]:
            sys.stdout.write(f"{'':{width}}  evidence: {row['verdict']}\n")
    return 0


def _row(method: Method) -> dict[str, Any]:
    from budgeteer.lab.verdicts import verdicts

    title, arxiv = method.citation or ("", "")
    return {
        "name": method.name,
        "part": method.part,
        "path": method.path,
        "decides": method.decides,
        "paper": title,
        "arxiv": arxiv,
        "evidence": method.evidence,
        "verdict": verdicts(method.evidence),
        "classes": list(method.classes),
    }


def _explain(methods: Sequence[Method], *, as_json: bool) -> int:
    """All that is known of the methods of one name."""
    from budgeteer.core import registry
    from budgeteer.core.method import CLASSES, PARTS, SLOTS
    from budgeteer.core.run import run_of

    rows = []
    for method in methods:
        try:
            rows.append(_row(method) | registry.explained(method) | {"run": run_of(method)})
        except ImportError as error:  # an extra that is not installed: the entry is known, its code is not
            rows.append(
                _row(method) | {"run": "", "about": f"Options are not known: {error}", "columns": [], "options": None}
            )
    for row in rows:
        row["slots"] = SLOTS.get(row["part"], {})
    if as_json:
        sys.stdout.write(json.dumps(rows, indent=1) + "\n")
        return 0
    for row in rows:
        said = [f"{row['part']} {row['name']}: {row['decides']}", f"part      {PARTS[row['part']]}"]
        said += [f"path      {row['path']}"]
        said += [f"paper     {row['paper']}, arXiv {row['arxiv']}"] if row["arxiv"] else []
        said += [f"class     {name}: {CLASSES[name]}" for name in row["classes"] if name in CLASSES]
        if row["evidence"]:
            said.append(f"evidence  {row['verdict'] or 'none published'}; budgeteer evidence {row['name']}")
        said += [f"columns   {', '.join(row['columns'])}"] if row["columns"] else []
        said += ["", *row["about"].splitlines()] if row["about"] else []
        if row["options"] is not None:
            said += ["", "options:" if row["options"] else "no options"]
        for option in row["options"] or ():
            default = "must be given" if option["required"] else f"default {_word(option['default'])}"
            meaning = f": {option['meaning']}" if option["meaning"] else ""
            said.append(f"  {option['name']}  {option['takes']}, {default}{meaning}")
        if row["slots"]:
            said += ["", "slots, each filled by the name of a method:"]
            said += [f"  {slot}  name: {part}" for slot, part in row["slots"].items()]
        said += ["", "run:", *(f"  {line}" for line in row["run"].splitlines())] if row["run"] else []
        sys.stdout.write("\n".join(said) + "\n\n")
    return 0


def _word(default: Any) -> str:
    """A default as a command line takes it."""
    return "none" if default is None else str(default).lower() if isinstance(default, bool) else str(default)


def page() -> str:
    """The methods of this package as Markdown, normally ``docs/methods.md``; those of other packages are not on it."""
    from budgeteer.core.method import PARTS
    from budgeteer.core.methods import METHODS
    from budgeteer.lab.verdicts import verdicts

    lines = [
        "# Methods",
        "",
        "Generated by `budgeteer methods --markdown`; do not edit. For whoever looks for a method to use: what each",
        "part does, what each method of it decides, its paper, and what its stored evidence says. How the verdicts are",
        "made: [evidence](evidence/README.md). How to add a method: [add a method](add/index.md).",
    ]
    for part, does in PARTS.items():
        lines += ["", f"## {part}", "", f"{does[0].upper()}{does[1:]}.", ""]
        lines += ["| method | decides | paper | evidence |", "|---|---|---|---|"]
        for method in METHODS:
            if method.part != part:
                continue
            title, arxiv = method.citation or ("", "")
            link = f" [{arxiv}](https://arxiv.org/abs/{arxiv})" if arxiv else ""
            verdict = verdicts(method.evidence)
            if verdict:
                verdict = f"[`{method.evidence}`](evidence/README.md#{method.evidence}): {verdict}"
            cells = [f"`{method.name}`", method.decides, title + link, verdict]
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join([*lines, *_by_class()]) + "\n"


def _by_class() -> list[str]:
    """The methods of a KV cache by their classes."""
    from budgeteer.core.method import CLASSES
    from budgeteer.core.methods import METHODS
    from budgeteer.core.papers import paper

    survey = paper("KV-survey")
    lines = [
        "", "## KV cache by class", "",
        f"Scores, splits and rests in the order of a survey: {survey.title} "
        f"[{survey.arxiv}](https://arxiv.org/abs/{survey.arxiv}).", "",
        "| class | level and what its methods do | methods |", "|---|---|---|",
    ]  # fmt: skip
    for name, does in CLASSES.items():
        theirs = ", ".join(f"`{each.name}` ({each.part})" for each in METHODS if name in each.classes)
        lines.append(f"| {name} | {does} | {theirs} |")
    return lines
