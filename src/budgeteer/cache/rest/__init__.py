"""What becomes of the entries of a KV cache that are not kept: one a file."""

from __future__ import annotations

# Written by tools/exports.py.
from typing import TYPE_CHECKING

from budgeteer.core.lazy import lazy

if TYPE_CHECKING:
    from budgeteer.cache.rest._drop import drop
    from budgeteer.cache.rest._ema import ema
    from budgeteer.cache.rest._flexi_cache import flexi_cache
    from budgeteer.cache.rest._float8 import float8
    from budgeteer.cache.rest._matryoshka import matryoshka
    from budgeteer.cache.rest._merge import merge
    from budgeteer.cache.rest._offload import offload
    from budgeteer.cache.rest._quantise import quantise
    from budgeteer.cache.rest._rotate_kv import rotate_kv

__all__ = [
    "drop",
    "ema",
    "flexi_cache",
    "float8",
    "matryoshka",
    "merge",
    "offload",
    "quantise",
    "rotate_kv",
]

__getattr__ = lazy(
    __name__,
    {
        "drop": "_drop",
        "ema": "_ema",
        "flexi_cache": "_flexi_cache",
        "float8": "_float8",
        "matryoshka": "_matryoshka",
        "merge": "_merge",
        "offload": "_offload",
        "quantise": "_quantise",
        "rotate_kv": "_rotate_kv",
    },
)
