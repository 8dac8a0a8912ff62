"""Write the exports of the packages of methods: ``python tools/exports.py`` (``--check`` only compares).

A package exports the factories that the registry names in its files, and what a file lists in its own ``__all__``. The
docstring of its ``__init__.py`` stays; the rest of the file is written here.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))

from budgeteer.core.methods import METHODS  # noqa: E402

PACKAGES = (
    "agent",
    "allocate",
    "cache.rest",
    "cache.score",
    "cache.split",
    "context",
    "gateway.policies",
    "joint",
    "online",
    "rl.advantage",
    "rl.carry",
    "rl.importance",
    "rl.ratio",
    "rl.recipes",
    "rl.reward",
    "rl.schedule",
    "rl.stream",
    "rl.variant",
    "rl.weight",
    "route",
    "solve.styles",
    "steer",
    "strategies",
    "strategies.aggregator",
    "strategies.scorer",
    "tuning",
    "verify",
)
HEAD = "# Written by tools/exports.py."


def order(name: str) -> tuple[int, str]:
    """Constants, classes, functions, each by the alphabet: the order of ruff."""
    return (0 if name.isupper() else 1 if name[0].isupper() else 2), name


def exports(package: str) -> dict[str, str]:
    """Name -> file of a package, such as ``{"neyman": "_neyman"}``."""
    files = {}
    for method in METHODS:
        module, _, factory = method.path.partition(":")
        home, _, file = module.rpartition(".")
        if home == f"budgeteer.{package}":
            files[factory] = file
    for path in sorted((ROOT / "src/budgeteer" / package.replace(".", "/")).glob("*.py")):
        if path.name == "__init__.py":
            continue
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
                files |= dict.fromkeys(ast.literal_eval(node.value), path.stem)
    return {name: files[name] for name in sorted(files, key=order)}


def text(package: str) -> str:
    """What ``__init__.py`` of a package has to hold."""
    path = ROOT / "src/budgeteer" / package.replace(".", "/") / "__init__.py"
    doc = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")), clean=False)
    homes, names_of = exports(package), {}
    for name, file in homes.items():
        names_of.setdefault(file, []).append(name)
    imports = []
    for file, names in sorted(names_of.items()):
        imports.append(f"    from budgeteer.{package}.{file} import {', '.join(names)}")
    listed = [f'    "{name}",' for name in homes]
    home = [f'        "{name}": "{file}",' for name, file in homes.items()]
    return "\n".join([
        f'"""{doc}"""', "", "from __future__ import annotations", "", HEAD, "from typing import TYPE_CHECKING", "",
        "from budgeteer.core.lazy import lazy", "", "if TYPE_CHECKING:", *imports, "", "__all__ = [", *listed, "]", "",
        "__getattr__ = lazy(", "    __name__,", "    {", *home, "    },", ")", "",
    ])  # fmt: skip


def main() -> int:
    """Write or compare all; the number of packages whose exports differ."""
    stale = []
    for package in PACKAGES:
        path = ROOT / "src/budgeteer" / package.replace(".", "/") / "__init__.py"
        wanted = text(package)
        if path.read_text(encoding="utf-8") != wanted:
            stale.append(package)
            if "--check" not in sys.argv:
                path.write_text(wanted, encoding="utf-8")
    if stale:
        print("stale:" if "--check" in sys.argv else "written:", ", ".join(stale))
    return len(stale) if "--check" in sys.argv else 0


if __name__ == "__main__":
    sys.exit(main())
