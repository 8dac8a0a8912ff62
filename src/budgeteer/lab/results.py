"""results.json: what a comparison measured, written atomically and checked field by field (docs/results.md)."""

from __future__ import annotations

import json
import math
import os
import platform
from collections.abc import Iterable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from budgeteer.core.errors import InvalidInput, UnknownName
from budgeteer.core.files import write_text as write_text
from budgeteer.core.plan import RUNNING, Status
from budgeteer.lab.stats import paired

SCHEMA = 1
STATUSES = tuple(status.word for status in Status if status != RUNNING)
"""How a traced rollout can have ended."""

GREEDY = "greedy_accuracy"
"""Field of a run: accuracy with the likeliest token each time, beside ``accuracy``, which is of drawn rollouts."""

Results = dict[str, Any]
Run = dict[str, Any]

# The schema as data. A name ending in "?" may be missing; "*" stands for any name; a list has one kind of entry;
# float admits null (a value that was not finite); a tuple lists the allowed texts; Any is not looked into.
_RUN = {
    "recipe": str,
    "budget": str,
    "seed": int,
    "accuracy": float,
    f"{GREEDY}?": float,
    "tokens": {"planned": float, "used": int, "trained": int, "wasted": int},
    "seconds": float,
    "curve": [{"tokens": int, "seconds": float, "accuracy": float}],
    "diagnostics?": {
        "tokens_by_level?": {"*": {"used": int, "wasted": int, "rollouts": int}},
        "rollouts_per_prompt?": [{"step": int, "counts": {"*": int}}],
        "steps?": int,
        "allocation_seconds?": float,
        "stopping_seconds?": float,
        "sampling_seconds?": float,
        "training_seconds?": float,
        "traces?": [{"prompt": str, "completion": str, "status": STATUSES, "reward": float, "tokens": int}],
    },
}
_COMPARISON = {"a": str, "b": str, "metric": str, "mean": float, "low": float, "high": float, "level": float, "n": int}
_RESULTS = {
    "schema": int,
    "runs": [_RUN],
    "comparisons?": [_COMPARISON],
    "config?": {"*": Any},
    "versions?": {"*": str},
}


def label(run: Run) -> str:
    """``recipe@budget``: what the runs of all seeds of one arm share.

    >>> label({"recipe": "duet", "budget": "50%"})
    'duet@50%'
    """
    return f"{run['recipe']}@{run['budget']}"


def labels(runs: Iterable[Run]) -> list[str]:
    """The distinct labels in order of first appearance."""
    return list(dict.fromkeys(map(label, runs)))


def by_seed(runs: Iterable[Run], name: str) -> dict[int, Run]:
    """The runs of one label by seed.

    Raises:
        UnknownName: no run has the label.
        InvalidInput: a seed appears twice, so that pairing by seed would have to guess.
    """
    runs = list(runs)
    chosen: dict[int, Run] = {}
    for run in runs:
        if label(run) == name:
            if run["seed"] in chosen:
                raise InvalidInput(f"{name} has two runs with seed {run['seed']}; keep one run a seed")
            chosen[run["seed"]] = run
    if not chosen:
        raise UnknownName("recipe@budget", name, labels(runs))
    return chosen


def compare(
    runs: Sequence[Run], pairs: Iterable[tuple[str, str]], *, level: float = 0.95, metric: str = "accuracy"
) -> list[dict[str, Any]]:
    """The ``comparisons`` of results.json: paired differences in final accuracy over the seeds both sides have.

    Args:
        runs: entries of ``results["runs"]``.
        pairs: (a, b) labels; each gives one interval of accuracy(a) - accuracy(b).
        level: coverage of the intervals.
        metric: ``accuracy`` of drawn rollouts, or :data:`GREEDY`.

    Raises:
        UnknownName: a label that no run has.
        InvalidInput: no seed has a finite accuracy on both sides.
    """
    comparisons = []
    for a, b in pairs:
        left, right = by_seed(runs, a), by_seed(runs, b)
        values = [
            (left[seed].get(metric), right[seed].get(metric))
            for seed in sorted(left.keys() & right.keys())
            if _is_finite(left[seed].get(metric)) and _is_finite(right[seed].get(metric))
        ]
        if not values:
            raise InvalidInput(f"{a} and {b} share no seed with a finite {metric}; run both on the same seeds")
        difference = paired(*np.array(values, dtype=np.float64).T, level=level)
        comparisons.append(
            {
                "a": a,
                "b": b,
                "metric": metric,
                "mean": difference.mean,
                "low": difference.low,
                "high": difference.high,
                "level": level,
                "n": difference.n,
            }
        )
    return comparisons


def installed(packages: Iterable[str]) -> dict[str, str]:
    """Version of each package that is installed; the others did not take part and are left out."""
    present = {}
    for name in packages:
        try:
            present[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return present


def versions() -> dict[str, str]:
    """Versions of what decides the numbers: budgeteer, Python, the platform, and the libraries that are installed."""
    platforms = {"python": platform.python_version(), "platform": platform.platform(terse=True)}
    return platforms | installed(("budgeteer", "numpy", "torch", "reasoning-gym", "transformers", "tokenizers"))


def machine() -> dict[str, Any]:
    """What a benchmark's numbers were measured on, and what else that machine was doing."""
    cpu, info = platform.processor() or platform.machine(), Path("/proc/cpuinfo")
    if info.exists():
        lines = (line for line in info.read_text().splitlines() if line.startswith("model name"))
        cpu = next(lines, f": {cpu}").partition(":")[2].strip()
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "load_before": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "system": platform.system(),
        "python": platform.python_version(),
    }


def write(results: Results, path: Path | str) -> Path:
    """Write results.json whole or not at all; numbers that are not finite become null.

    Results that do not fit the schema still hold hours of measurements, so they are kept beside the target under
    ``NAME.invalid.json`` before the error is raised.

    Raises:
        InvalidInput: the results do not fit the schema, or the folder cannot be written.
    """
    path = Path(path)
    data = to_json(results)
    try:
        validate(data)
    except InvalidInput as error:
        kept = path.with_suffix(".invalid.json")
        write_text(json.dumps(data, indent=1, allow_nan=False, default=repr), kept)
        raise InvalidInput(f"{error}; the measurements are kept in {kept}") from error
    return write_text(json.dumps(data, indent=1, allow_nan=False) + "\n", path)


def read(path: Path | str) -> Results:
    """Read and check a results.json; optional parts that are missing come back empty.

    Raises:
        InvalidInput: no such file, not JSON, or a field that does not fit; the message names it.
    """
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidInput(f"cannot read {path}: {error.strerror}; give a results.json from a comparison") from error
    except (ValueError, RecursionError) as error:  # thousands of brackets
        raise InvalidInput(f"{path} is not JSON ({error}); was it edited or cut off?") from error
    try:
        validate(data)
    except InvalidInput as error:
        raise InvalidInput(f"{path}: {error}") from error
    return {"comparisons": [], "config": {}, "versions": {}, **data}


def validate(results: Any) -> None:
    """Check results against the schema and the token accounts against each other.

    Raises:
        InvalidInput: names the first field that does not fit, such as ``runs[3].tokens.used``.
    """
    if isinstance(results, dict) and results.get("schema", SCHEMA) != SCHEMA:
        raise InvalidInput(f"schema is {results['schema']!r}; this version of budgeteer reads schema {SCHEMA}")
    _check(results, _RESULTS, "")
    for i, run in enumerate(results["runs"]):
        tokens = run["tokens"]
        if tokens["trained"] + tokens["wasted"] > tokens["used"]:
            raise InvalidInput(
                f"runs[{i}].tokens: trained {tokens['trained']:,} + wasted {tokens['wasted']:,} exceed "
                f"used {tokens['used']:,}; used counts every sampled token, aborted prefixes included"
            )
    for name in labels(results["runs"]):
        by_seed(results["runs"], name)


def to_json(value: Any) -> Any:
    """Plain JSON data: numpy scalars and arrays unpacked, names as text, numbers that are not finite as None.

    >>> to_json({"a": np.float64("nan"), 2: np.arange(2)})
    {'a': None, '2': [0, 1]}
    """
    if isinstance(value, dict):
        return {str(name): to_json(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(entry) for entry in value]
    if isinstance(value, np.ndarray | np.generic):
        return to_json(value.tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value


def require_writable(folder: Path) -> None:
    """Make a folder for results, before anything is spent on them.

    Raises:
        InvalidInput: it cannot be made, or not written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidInput(f"cannot make {folder} ({error.strerror}); choose another --out") from error
    if not os.access(folder, os.W_OK):
        raise InvalidInput(f"{folder} is not writable; choose another --out")


def _is_finite(value: Any) -> bool:
    return value is not None and math.isfinite(value)


def _check(value: Any, spec: Any, where: str) -> None:
    """Raise at the first part of value that does not fit spec; ``where`` is the path so far."""
    name = where or "the document"
    if spec is Any:
        return
    if isinstance(spec, dict):
        if not isinstance(value, dict):
            raise InvalidInput(f"{name} is {_short(value)}, expected an object")
        for key, part in spec.items():
            key, optional = key.removesuffix("?"), key.endswith("?")
            if key == "*":
                for other, entry in value.items():
                    _check(entry, part, f"{where}.{other}".lstrip("."))
            elif key in value:
                _check(value[key], part, f"{where}.{key}".lstrip("."))
            elif not optional:
                raise InvalidInput(f"{name} has no {key!r}; it holds {', '.join(map(repr, value)) or 'nothing'}")
    elif isinstance(spec, list):
        if not isinstance(value, list):
            raise InvalidInput(f"{name} is {_short(value)}, expected a list")
        for i, entry in enumerate(value):
            _check(entry, spec[0], f"{where}[{i}]")
    elif isinstance(spec, tuple):
        if value not in spec:
            raise InvalidInput(f"{name} is {_short(value)}, expected one of {', '.join(spec)}")
    elif spec is float:
        if value is not None and (not isinstance(value, int | float) or isinstance(value, bool)):
            raise InvalidInput(f"{name} is {_short(value)}, expected a number or null")
        if value is not None and not math.isfinite(value):
            raise InvalidInput(f"{name} is {value}, expected a finite number or null")
    elif not isinstance(value, spec) or (spec is int and isinstance(value, bool)):
        raise InvalidInput(f"{name} is {_short(value)}, expected {'a whole number' if spec is int else 'text'}")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."
