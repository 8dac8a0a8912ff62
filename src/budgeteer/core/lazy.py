"""Names of a package that are imported on first use, so that nobody waits for what is not used."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any


def lazy(package: str, home: Mapping[str, str]) -> Callable[[str], Any]:
    """A ``__getattr__`` for a package's ``__init__.py``.

    Args:
        package: its ``__name__``.
        home: name -> module that defines it, relative to the package (``"_neyman"``, ``"core.plan"``).
    """

    def find(name: str) -> Any:
        if name not in home:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(f"{package}.{home[name]}"), name)
        setattr(sys.modules[package], name, value)
        return value

    return find
