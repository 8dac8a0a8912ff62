"""Scores of the entries of a KV cache: one a file."""

from __future__ import annotations

# Written by tools/exports.py.
from typing import TYPE_CHECKING

from budgeteer.core.lazy import lazy

if TYPE_CHECKING:
    from budgeteer.cache.score._adamas import adamas
    from budgeteer.cache.score._arkv import arkv
    from budgeteer.cache.score._compactor import compactor
    from budgeteer.cache.score._defensive import defensive
    from budgeteer.cache.score._ems import ems
    from budgeteer.cache.score._epi_cache import epi_cache
    from budgeteer.cache.score._expected_attention import expected_attention
    from budgeteer.cache.score._gui_kv import gui_kv
    from budgeteer.cache.score._h2o import h2o
    from budgeteer.cache.score._keydiff import keydiff
    from budgeteer.cache.score._knorm import knorm
    from budgeteer.cache.score._kvzap import kvzap
    from budgeteer.cache.score._kvzip import kvzip
    from budgeteer.cache.score._prefix_kv import prefix_kv
    from budgeteer.cache.score._prompt_distill import prompt_distill
    from budgeteer.cache.score._quest import quest
    from budgeteer.cache.score._random import random
    from budgeteer.cache.score._recent import recent
    from budgeteer.cache.score._snapkv import snapkv
    from budgeteer.cache.score._streaming_llm import streaming_llm
    from budgeteer.cache.score._tca_attention import tca_attention
    from budgeteer.cache.score._token_select import token_select
    from budgeteer.cache.score._tova import tova
    from budgeteer.cache.score._tri_attention import tri_attention
    from budgeteer.cache.score._trim_kv import trim_kv

__all__ = [
    "adamas",
    "arkv",
    "compactor",
    "defensive",
    "ems",
    "epi_cache",
    "expected_attention",
    "gui_kv",
    "h2o",
    "keydiff",
    "knorm",
    "kvzap",
    "kvzip",
    "prefix_kv",
    "prompt_distill",
    "quest",
    "random",
    "recent",
    "snapkv",
    "streaming_llm",
    "tca_attention",
    "token_select",
    "tova",
    "tri_attention",
    "trim_kv",
]

__getattr__ = lazy(
    __name__,
    {
        "adamas": "_adamas",
        "arkv": "_arkv",
        "compactor": "_compactor",
        "defensive": "_defensive",
        "ems": "_ems",
        "epi_cache": "_epi_cache",
        "expected_attention": "_expected_attention",
        "gui_kv": "_gui_kv",
        "h2o": "_h2o",
        "keydiff": "_keydiff",
        "knorm": "_knorm",
        "kvzap": "_kvzap",
        "kvzip": "_kvzip",
        "prefix_kv": "_prefix_kv",
        "prompt_distill": "_prompt_distill",
        "quest": "_quest",
        "random": "_random",
        "recent": "_recent",
        "snapkv": "_snapkv",
        "streaming_llm": "_streaming_llm",
        "tca_attention": "_tca_attention",
        "token_select": "_token_select",
        "tova": "_tova",
        "tri_attention": "_tri_attention",
        "trim_kv": "_trim_kv",
    },
)
