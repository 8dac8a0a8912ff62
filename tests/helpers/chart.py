"""The manifests of the Helm chart: by helm where there is one, else by a reader of what its templates use.

``plain`` knows ``{{ }}`` with fields, ``if [not]``, ``with``, and pipes of default, quote, toYaml, nindent, sha256sum
and required. Anything else is an error, so that no template passes because it was not understood.
"""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

CHART = Path(__file__).parents[2] / "deploy" / "helm" / "budgeteer"
_TOKEN = re.compile(r"\{\{(-?)\s*(.*?)\s*(-?)\}\}", re.S)
_WORD = re.compile(r'"[^"]*"|[^\s|]+|\|')


def by_helm(values: Path) -> list[Any]:
    """What ``helm template`` makes of the chart, once ``helm lint`` has passed."""
    subprocess.run(["helm", "lint", "--strict", str(CHART), "-f", str(values)], check=True, capture_output=True)
    made = subprocess.run(
        ["helm", "template", "release", str(CHART), "-f", str(values)], check=True, capture_output=True
    )
    return [document for document in yaml.safe_load_all(made.stdout) if document]


def plain(values: Path) -> list[Any]:
    """The same without helm."""
    about = yaml.safe_load((CHART / "Chart.yaml").read_text())
    root = {
        "Values": _merged(yaml.safe_load((CHART / "values.yaml").read_text()), yaml.safe_load(values.read_text())),
        "Release": {"Name": "release"},
        "Chart": {"Name": about["name"], "AppVersion": about["appVersion"]},
    }
    texts = [_rendered(path.read_text(), root) for path in sorted((CHART / "templates").glob("*.yaml"))]
    return [document for text in texts for document in yaml.safe_load_all(text) if document]


def _merged(default: Any, given: Any) -> Any:
    if not (isinstance(default, dict) and isinstance(given, dict)):
        return given
    return {**default, **{name: _merged(default.get(name), value) for name, value in given.items()}}


def _rendered(text: str, root: dict[str, Any]) -> str:
    out: list[str] = []
    blocks: list[tuple[bool, Any]] = [(True, root)]
    end, trims = 0, False
    for token in [*_TOKEN.finditer(text), None]:
        between = text[end : token.start() if token else len(text)]
        between = between.lstrip() if trims else between
        between = between.rstrip() if token and token[1] else between
        shown, dot = blocks[-1]
        if shown:
            out.append(between)
        if token is None:
            break
        end, trims, words = token.end(), bool(token[3]), _WORD.findall(token[2])
        if words[0] in ("if", "with"):
            wanted = words[1:] if words[1] != "not" else words[2:]
            value = _value(wanted, root, dot) if shown else None
            blocks.append((shown and bool(value) != (words[1] == "not"), value if words[0] == "with" else dot))
        elif words == ["end"]:
            blocks.pop()
        elif shown:
            out.append(str(_value(words, root, dot)))
    assert len(blocks) == 1, "a block has no end"
    return "".join(out)


def _value(words: list[str], root: dict[str, Any], dot: Any) -> Any:
    """The value of a pipe: ``FUNCTION argument | FUNCTION argument``, the last value as the last argument."""
    value: Any = None
    stages = " ".join(words).split(" | ")
    for n, stage in enumerate(stages):
        name, *rest = _WORD.findall(stage)
        if name.startswith((".", '"')):
            assert n == 0
            assert not rest
            value = _operand(name, root, dot)
            continue
        arguments = [_operand(word, root, dot) for word in rest] + ([value] if n else [])
        value = _FUNCTIONS[name](*arguments)
    return value


def _operand(word: str, root: dict[str, Any], dot: Any) -> Any:
    if word == ".":
        return dot
    if word.startswith("."):
        found = root
        for part in word[1:].split("."):
            found = found[part]  # an unknown value is an error
        return found
    return json.loads(word)


def _required(why: str, value: Any) -> Any:
    assert value not in (None, ""), why
    return value


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "default": lambda other, value: value or other,
    "quote": lambda value: json.dumps(str(value)),
    "toYaml": lambda value: yaml.safe_dump(value).rstrip("\n"),
    "nindent": lambda n, text: "\n" + "\n".join(" " * n + line if line else "" for line in text.split("\n")),
    "sha256sum": lambda text: hashlib.sha256(text.encode()).hexdigest(),
    "required": _required,
}
