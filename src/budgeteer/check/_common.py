"""Shared by the checks: the error of a broken rule, and comparisons that name the rule."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np


class CheckFailed(AssertionError):
    """A method broke a rule of its protocol; the message says which rule and how."""


def expect(actual: Any, wanted: Any, rule: str) -> None:
    if actual != wanted:
        raise CheckFailed(f"{rule}: expected {wanted}, found {actual}")


def refuses(error: type[Exception], rule: str, operation: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    try:
        actual = operation(*arguments, **named)
    except error as caught:
        return caught
    except Exception as other:
        raise CheckFailed(f"{rule}: expected {error.__name__}, got {type(other).__name__}: {other}") from other
    raise CheckFailed(f"{rule}: expected {error.__name__}, got {actual!r}")


def same(a: Any, b: Any) -> bool:
    """Equality of states: arrays and tensors by value and dtype, NaN equal to itself, containers part by part."""
    a, b = (value.numpy() if hasattr(value, "numpy") else value for value in (a, b))
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        if not (isinstance(a, np.ndarray) and isinstance(b, np.ndarray) and a.dtype == b.dtype):
            return False
        return np.array_equal(a, b, equal_nan=np.issubdtype(a.dtype, np.floating))
    if dataclasses.is_dataclass(a) and not isinstance(a, type):
        return type(a) is type(b) and all(same(getattr(a, f.name), getattr(b, f.name)) for f in dataclasses.fields(a))
    if isinstance(a, tuple | list):
        return type(a) is type(b) and len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    return bool(a == b or (a != a and b != b))
