"""A random Qwen3 of two layers with an untied head and no chat template, problems and a verifier, a run to kill.

python -m helpers.posttrain_tiny FOLDER OUT [BUDGET]
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
import transformers

from budgeteer.lab.posttrain.settings import Settings
from helpers.trl_tiny import THINKER

VERIFY = '''
import time
def verify(answer, reference):
    """How many of the digits of the reference are in the answer; some answers break it."""
    if answer.startswith("a"):
        raise ValueError("an a")
    if answer.startswith("b"):
        return float("nan")
    return sum(len(answer) % 3 == int(digit) % 3 for digit in reference) / len(reference)
'''


def qwen3(folder: Path, dtype: torch.dtype = torch.float32, *, tied: bool = False) -> Path:
    """The model, with a tokenizer that has neither a pad token nor a chat template."""
    torch.manual_seed(1)
    config = transformers.Qwen3Config(
        vocab_size=1024, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, head_dim=16,
        num_key_value_heads=1, max_position_embeddings=512, eos_token_id=1017, pad_token_id=None, bos_token_id=None,
        initializer_range=0.3, tie_word_embeddings=tied,
    )  # fmt: skip
    model: Any = transformers.Qwen3ForCausalLM(config)
    model.to(dtype).save_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(THINKER)
    tokenizer.pad_token, tokenizer.chat_template = None, None
    tokenizer.save_pretrained(folder)
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    return folder


def files(folder: Path, content: str = VERIFY) -> str:
    """A task of 30 problems, with a verifier of this content."""
    rows = [{"question": f"{a} and {b}?", "answer": f"{a}{b}"} for a in range(6) for b in range(5)]
    (folder / "my.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "verify.py").write_text(content)
    return f"{folder / 'my.jsonl'}:verifier=python:{folder / 'verify.py'}"


def settings(model: Path, task: str, **more: Any) -> Settings:
    """A short run on the CPU."""
    given: dict[str, Any] = {
        "recipe": "duet", "budget": "900", "tokens": 900, "heldout": 8, "steps": 4, "prompts": 4, "group": 4,
        "max_tokens": 12, "lr": 1e-2, "device": "cpu", "style": "direct",
    }  # fmt: skip
    return Settings(str(model), **{"task": task, **given, **more})


def main() -> None:
    """Train, with a checkpoint after each step; go on from the last one if there is one."""
    from budgeteer.lab.posttrain.run import posttrain

    model, out = Path(sys.argv[1]), Path(sys.argv[2])
    tokens = int(sys.argv[3]) if len(sys.argv) > 3 else 900
    run = settings(model, files(model), budget=str(tokens), tokens=tokens, steps=6)
    posttrain(run, out, out / "policy", save_every=1)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
