"""The folder of the embedded thinking model, which transformers, TRL and vLLM can load.

Qwen3 architecture, chat template with ``<think>``, ``enable_thinking`` and ``reasoning_effort``, tool calls in Qwen's
format; made by ``budgeteer lab pretrain --model thinker``.
"""

from __future__ import annotations

from pathlib import Path

from budgeteer.core.errors import CheckpointError

THINKER = Path(__file__).parent / "assets" / "thinker"
"""Folder of the embedded thinking model in this package."""
FILES = ("config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
"""Names of the files in the folder of a thinking model."""


def thinker(folder: Path = THINKER) -> Path:
    """The folder of a thinking model, by default of the embedded one.

    Raises:
        CheckpointError: a file is missing.
    """
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        raise CheckpointError(
            f"{folder} has no {', '.join(missing)}; 'budgeteer lab pretrain --model thinker' makes such a folder"
        )
    return folder
