"""Folders of small transformers models with random weights, and the tokenizer of the thinking model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers

from budgeteer.models.thinker import THINKER

SIZES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
}
CONFIGS: dict[str, Any] = {
    "qwen3": transformers.Qwen3Config,
    "llama": transformers.LlamaConfig,
    "gemma": transformers.GemmaConfig,
    "gemma2": transformers.Gemma2Config,
}


def random_model(folder: Path, kind: str, *, rows: int = 1024, tied: bool = True, seed: int = 0) -> Path:
    """Write one of CONFIGS with this many vocabulary rows, of which 1,024 are tokens."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(THINKER)
    torch.manual_seed(seed)
    end = tokenizer.eos_token_id
    config = CONFIGS[kind](
        **SIZES, vocab_size=rows, tie_word_embeddings=tied, eos_token_id=end, pad_token_id=end, bos_token_id=None
    )
    model: Any = transformers.AutoModelForCausalLM
    model.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
