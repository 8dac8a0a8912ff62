"""Evidence: experiments that compare a method with its baseline at an equal budget, and that can come out against it.

Each module of this package exports ``experiments() -> list[Evidence]``, and ``DECLARED``, which says what each row is:
a claim or a control that should show no gain, and on which data. A row has a region in which a measured quantity should
lie; the verdict follows from where the 95 % interval over seeds lies, and from nothing else.
"""

from __future__ import annotations

import importlib
import json
import math
import pkgutil
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, cast

from budgeteer.core.errors import InvalidInput, UnknownName
from budgeteer.core.plan import F64
from budgeteer.lab.stats import mean_ci
from budgeteer.lab.verdicts import count

Role = Literal["claim", "control", "must fail"]
"""What a row is for. A claim says what the method does. A control has nothing to gain (alike items, predictions that
say nothing, a case in which the method should lose), and its region is what no gain looks like. A row that must fail is
a control, too: a method that was broken on purpose, or a case outside its conditions, is held to the claim's region."""
Data = Literal["simulation", "embedded reasoner", "thinking model", "real model"]
"""What a row was measured on: numbers drawn by the experiment itself; the embedded reasoner of 0.15 million parameters
on made-up tasks; the embedded thinking model of 1.3 million; a language model that was not trained here."""
Verdict = Literal["shown", "not shown", "refuted here", "control holds", "control unclear", "control broken"]
Region = tuple[float, float]
BELOW_ONE: Region = (-math.inf, 1.0)
ABOVE_ONE: Region = (1.0, math.inf)
BELOW_ZERO: Region = (-math.inf, 0.0)
ABOVE_ZERO: Region = (0.0, math.inf)


@dataclass(frozen=True, slots=True)
class Row:
    """What a module declares about one of its rows."""

    role: Role
    data: Data


def declare(
    data: Data, *, claims: Sequence[str] = (), controls: Sequence[str] = (), must_fail: Sequence[str] = ()
) -> dict[str, Row]:
    """Rows by their names, all measured on the same data; ``|`` joins several.

    >>> declare("simulation", claims=["fewer tokens"], controls=["all alike"])["all alike"]
    Row(role='control', data='simulation')
    """
    roles: dict[Role, Sequence[str]] = {"claim": claims, "control": controls, "must fail": must_fail}
    return {name: Row(role, data) for role, some in roles.items() for name in some}


def judge(interval: tuple[float, float], region: Region, role: Role) -> Verdict:
    """The verdict of an interval inside, outside or across the border of a region.

    >>> judge((0.7, 0.9), BELOW_ONE, "claim"), judge((0.7, 1.1), BELOW_ONE, "claim")
    ('shown', 'not shown')
    >>> judge((0.99, 1.01), (0.95, 1.05), "control"), judge((1.2, 1.3), BELOW_ONE, "must fail")
    ('control holds', 'control holds')
    """
    (low, high), (left, right) = interval, region
    inside, outside = left < low and high < right, high <= left or right <= low
    if role == "claim":
        return "shown" if inside else "refuted here" if outside else "not shown"
    holds, breaks = (outside, inside) if role == "must fail" else (inside, outside)
    return "control holds" if holds else "control broken" if breaks else "control unclear"


@dataclass(frozen=True, slots=True)
class Evidence:
    """One claim or control and what was measured.

    Attributes:
        name: short name of the experiment, unique in its module.
        claim: what should hold, in one sentence, with the measured quantity.
        baseline: what the method is compared with.
        budget: what both sides spend.
        seeds: independent repetitions.
        estimate: mean of the measured quantity over seeds.
        interval: its 95 % t interval over seeds.
        region: (low, high), open: the claim says that the quantity lies in it.
        details: further figures, one dict a row.
        row: what the module declares about it; None until :func:`label`, and then it is judged as a claim.
    """

    name: str
    claim: str
    baseline: str
    budget: str
    seeds: int
    estimate: float
    interval: tuple[float, float]
    region: Region
    details: tuple[dict[str, Any], ...] = ()
    row: Row | None = None

    @property
    def verdict(self) -> Verdict:
        """By :func:`judge`.

        >>> Evidence("x", "", "", "", 5, 0.8, (0.7, 0.9), BELOW_ONE).verdict
        'shown'
        """
        return judge(self.interval, self.region, "claim" if self.row is None else self.row.role)


def measured(
    name: str,
    values: Sequence[float] | F64,
    region: Region,
    *,
    claim: str,
    baseline: str,
    budget: str,
    details: Iterable[dict[str, Any]] = (),
) -> Evidence:
    """Evidence from one value a seed."""
    over = mean_ci(values)
    return Evidence(name, claim, baseline, budget, over.n, over.mean, (over.low, over.high), region, tuple(details))


def names() -> list[str]:
    """The modules that hold experiments."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def module_of(name: str) -> ModuleType:
    """The module of a set of experiments: of this package, or, by its whole path, of another one.

    Args:
        name: such as ``"duet"``, or ``"my_package.evidence"``.

    Raises:
        UnknownName: there is no such module.
        InvalidInput: the module has no ``experiments`` or no ``DECLARED``.
    """
    path = f"{__name__}.{name}" if name in names() else name
    try:
        module = importlib.import_module(path)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{path}.".startswith(f"{error.name}."):
            raise  # the module is there, and what it imports is not
        raise UnknownName("evidence", name, names()) from error
    if not callable(getattr(module, "experiments", None)) or not hasattr(module, "DECLARED"):
        raise InvalidInput(
            f"module {path} holds no evidence; it needs experiments() -> list[Evidence] and DECLARED, as in "
            "templates/evidence.py"
        )
    return module


def label(results: Iterable[Evidence], declared: Mapping[str, Row]) -> list[Evidence]:
    """The results with what is declared about each.

    Raises:
        InvalidInput: a result is not declared, or a declared row is missing: neither may be published.
    """
    measured = list(results)
    _same_names([result.name for result in measured], declared, "experiments() measures")
    return [replace(result, row=declared[result.name]) for result in measured]


def _same_names(names: Sequence[str], declared: Mapping[str, Row], subject: str) -> None:
    twice = sorted(name for name, n in Counter(names).items() if n > 1)
    unknown, missing = sorted(set(names) - set(declared)), sorted(set(declared) - set(names))
    if twice or unknown or missing:
        raise InvalidInput(
            f"{subject} other rows than DECLARED says: not declared {unknown}, missing {missing}, twice {twice}; "
            "declare each row once, then run the experiments again"
        )


def rows_of(name: str) -> dict[str, Row]:
    """What a module declares about its rows, without running it."""
    return cast("dict[str, Row]", module_of(name).DECLARED)


def run(name: str) -> list[Evidence]:
    """Run all experiments of one module, such as ``"duet"`` or ``"my_package.evidence"``; seconds to minutes.

    Raises:
        UnknownName: there is no such module.
        InvalidInput: what it measures is not what it declares, or the module holds no evidence.
    """
    experiments = module_of(name).experiments
    return label(cast("Callable[[], list[Evidence]]", experiments)(), rows_of(name))


def write(name: str, folder: Path, results: Sequence[Evidence] | None = None) -> Path:
    """Write the results as ``folder/NAME.json`` and renew ``folder/README.md``.

    A module that has ``figure(rows) -> str`` draws ``folder/NAME.svg`` from the rows of the JSON file.

    Args:
        name: module of the experiments.
        folder: made if missing, normally ``docs/evidence``.
        results: what :func:`run` or :func:`label` returned; None runs it now.

    Raises:
        InvalidInput: a result is not labelled.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows = [_plain(result) for result in (run(name) if results is None else results)]
    target = folder / f"{name}.json"
    _dump(target, rows)
    # results may be of an experiment outside the package
    figure = getattr(importlib.import_module(f"{__name__}.{name}"), "figure", None) if name in names() else None
    if figure is not None:
        (folder / f"{name}.svg").write_text(figure(rows) + "\n", encoding="utf-8")
    (folder / "README.md").write_text(page(folder), encoding="utf-8")
    return target


def relabel(folder: Path) -> None:
    """Give stored rows the roles, data and verdicts that the code declares now, and renew ``folder/README.md``.

    Nothing is measured. Results of experiments outside the package keep their labels.

    Raises:
        InvalidInput: a stored row is not declared any more, or a declared one was never stored; nothing is written.
    """
    files = {path: _load(path) for path in sorted(folder.glob("*.json")) if path.stem in names()}
    for path, rows in files.items():
        _same_names([row["name"] for row in rows], rows_of(path.stem), f"{path} holds")
    for path, rows in files.items():
        of = rows_of(path.stem)
        _dump(path, [_relabelled(row, of[row["name"]]) for row in rows])
    (folder / "README.md").write_text(page(folder), encoding="utf-8")


def page(folder: Path) -> str:
    """The table of all results that lie in a folder, as Markdown."""
    files = {path.stem: _load(path) for path in sorted(folder.glob("*.json"))}
    every = [row for rows in files.values() for row in rows]
    data = Counter(row["data"] for row in every)
    models = len(every) - data["simulation"]
    lines = [
        "# Evidence",
        "",
        "Generated by `budgeteer evidence`; do not edit. Each row is one claim or one control, measured at an equal",
        "budget. The verdict follows from the 95 % interval over seeds. A claim is *shown* when the interval lies",
        "inside the claimed region, *refuted here* when it lies outside, *not shown* when it crosses the border.",
        "",
        "A control is an experiment that should show no gain: items that are all alike, predictions that say nothing,",
        "a method that was broken on purpose, a case outside a method's conditions. Its text says what no gain looks",
        "like; a text after *must fail* is a claim that must not be met. A control *holds* when that is so, is",
        "*broken* when it is not, and *unclear* in between; then the claims beside it are to be read with care. The",
        "JSON files hold more.",
        "",
        f"{len(every)} rows. " + count(every) + ".",
        "",
        f"{models} of the {len(every)} rows use a language model: the embedded reasoner of 0.15 million parameters in"
        f" {data['embedded reasoner']}, the embedded thinking model of 1.3 million in {data['thinking model']}, a model"
        f" that was not trained here in {data['real model']}. The other {data['simulation']} are simulations: what they"
        " show, they show about a world that was made up for them.",
    ]
    for name, rows in files.items():
        lines += ["", f"## {name}", ""]
        if name in names():
            lines += [str(importlib.import_module(f"{__name__}.{name}").__doc__).strip(), ""]
        lines += [count(rows) + ".", ""]
        lines += [
            "| claim or control | against | budget | measured [95 %] | seeds | verdict |",
            "|---|---|---|---|---|---|",
        ]
        for row in rows:
            low, high = row["interval"]
            figure = f"{row['estimate']:.3g} [{low:.3g}, {high:.3g}]"
            text = ("*must fail*: " if row["role"] == "must fail" else "") + row["claim"]
            verdict = f"**{row['verdict']}** ({row['data']})"
            cells = [text, row["baseline"], row["budget"], figure, row["seeds"], verdict]
            lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines) + "\n"


def _plain(result: Evidence) -> dict[str, Any]:
    """As JSON data; an open end of a region is null."""
    if result.row is None:
        raise InvalidInput(f"{result.name!r} has no role and no data; label(results, DECLARED) before they are written")
    region = [None if math.isinf(edge) else edge for edge in result.region]
    plain = asdict(result) | {"region": region, "interval": list(result.interval)}
    del plain["row"]
    return plain | _labels(result.row, result.interval, result.region)


def _labels(row: Row, interval: tuple[float, float], region: Region) -> dict[str, str]:
    return {"role": row.role, "data": row.data, "verdict": judge(interval, region, row.role)}


def _relabelled(stored: dict[str, Any], row: Row) -> dict[str, Any]:
    low, high = stored["interval"]
    labels = _labels(row, (low, high), _region(stored["region"]))
    return {key: value for key, value in stored.items() if key not in labels} | labels


def _region(stored: Sequence[float | None]) -> Region:
    low, high = stored
    return -math.inf if low is None else low, math.inf if high is None else high


def _load(path: Path) -> list[dict[str, Any]]:
    return cast("list[dict[str, Any]]", json.loads(path.read_text(encoding="utf-8")))


def _dump(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    path.write_text(json.dumps(rows, indent=1, allow_nan=False) + "\n", encoding="utf-8")
