"""A random Llama of two layers, a data set and reward functions for tests of the trainer for TRL, and a run to kill.

python -m helpers.trl_tiny FOLDER RECIPE STEPS OUT ACCUMULATION [BUDGET]

RECIPE is a name, or ``ragged``: one prompt of a step has one rollout and the other seven.
"""

from __future__ import annotations

import logging
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
import trl
from datasets import Dataset
from trl import GRPOConfig

import budgeteer.models
from budgeteer.adapters.trl import BudgetedGRPOTrainer
from budgeteer.core.allocator import stateless
from budgeteer.core.plan import Plan
from budgeteer.rl import recipes
from budgeteer.rl.recipe import Recipe

THINKER = Path(budgeteer.models.__file__).parent / "assets" / "thinker"
TEMPLATE = (Path(trl.__file__).parent / "chat_templates" / "qwen3.jinja").read_text()
"""A chat template with tools, whose calls TRL can read."""
DATA = Dataset.from_list([{"prompt": f"What is {a} plus {b}?", "n": a} for a in range(4) for b in range(3)])


def tiny(folder: Path, positions: int = 256) -> Path:
    """A model that ends after about nine tokens, with the tokenizer of the thinking model."""
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=1024, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=positions, eos_token_id=1017, pad_token_id=1015,
        bos_token_id=None, initializer_range=0.3,
    )  # fmt: skip
    model = transformers.LlamaForCausalLM(config)
    model.generation_config.eos_token_id = [1017, *range(0, 1000, 9)]
    model.save_pretrained(folder)
    transformers.AutoTokenizer.from_pretrained(THINKER).save_pretrained(folder)
    return folder


def scripted(
    texts: list[str],
    tokenizer: Any,
    eos: int,
    input_ids: Any,
    generation_config: Any = None,
    stopping_criteria: Any = (),
    **more: Any,
) -> Any:
    """``generate`` of a model that says one of these texts, drawn by torch's random numbers; criteria end rows."""
    ids = [tokenizer(f"{text}<|im_end|>", add_special_tokens=False)["input_ids"] + [eos] for text in texts]
    rows = [ids[i] for i in torch.randint(len(ids), (len(input_ids),)).tolist()]
    done = torch.zeros(len(rows), dtype=torch.bool)
    for t in range(generation_config.max_new_tokens):
        last = torch.tensor([row[t] if t < len(row) else tokenizer.pad_token_id for row in rows])
        last[done] = tokenizer.pad_token_id
        input_ids = torch.cat([input_ids, last[:, None]], 1)
        done |= last == eos
        for criterion in stopping_criteria:
            done |= criterion(input_ids, None)
        if done.all():
            break
    return input_ids


def letters(completions: list[Any], **columns: Any) -> list[float]:
    """A reward of a text, in [0, 0.8]."""
    return [len(set(text)) % 5 / 5 for text in completions]


def odd(completion_ids: list[list[int]], n: list[int], **columns: Any) -> list[float | None]:
    """Whether the first token is odd; None for every third one."""
    return [None if ids[0] % 3 == 0 else float(ids[0] % 2) for ids in completion_ids]


def even(completion_ids: list[list[int]], **columns: Any) -> list[float]:
    """Whether the sum of the tokens is even."""
    return [float(sum(ids) % 2 == 0) for ids in completion_ids]


def config(out: Path, **settings: Any) -> GRPOConfig:
    """A short run on the CPU."""
    given = {
        "per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, "num_generations": 4, "max_steps": 3,
        "max_completion_length": 12, "learning_rate": 1e-3, "save_strategy": "no", "seed": 0, "logging_steps": 1,
    }  # fmt: skip
    fixed = {"report_to": [], "bf16": False, "use_cpu": True, "disable_tqdm": True, "gradient_checkpointing": False}
    return GRPOConfig(output_dir=str(out), **fixed, **given | settings)


def trained(model: Any, args: GRPOConfig, *, kind: Any = BudgetedGRPOTrainer, resume: Any = None, **more: Any) -> Any:
    """A trainer that has trained."""
    logging.disable(logging.WARNING)
    folder = model if isinstance(model, Path) else THINKER
    given = {"reward_funcs": [letters, odd], "train_dataset": DATA}
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    made = kind(
        str(model) if isinstance(model, Path) else model, args=args, **{"processing_class": tokenizer} | given | more
    )
    made.train(resume_from_checkpoint=resume)
    return made


def weights(trainer: Any) -> torch.Tensor:
    """All weights in one row."""
    return torch.cat([p.detach().flatten() for p in trainer.accelerator.unwrap_model(trainer.model).parameters()])


def ragged(*units: int, of: str = "grpo", **more: Any) -> Recipe:
    """The recipe of a name with these rollouts of the step's prompts."""

    def allocate(budget: int, items: Any) -> Plan:
        given = np.resize(np.array(units), len(items))
        return Plan(items.keys, given, items.spend(given))

    return replace(recipes.get(of), allocator=stateless(allocate), **more)


class Watched(BudgetedGRPOTrainer):
    """Keeps the advantages of each step's rows, those of all processes."""

    def _batch(self, drawn: Any, rows: Any, advantage: Any, loss_tokens: int) -> Any:
        self.advantages = [*getattr(self, "advantages", []), advantage.tolist()]
        return super()._batch(drawn, rows, advantage, loss_tokens)


def main() -> None:
    """Train, with a checkpoint after each step; go on from the last one if there is one."""
    folder, name, steps, out = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), Path(sys.argv[4])
    recipe = ragged(1, 7, of="uniform-stop") if name == "ragged" else name
    complete = [path.parent for path in out.glob("checkpoint-*/trainer_state.json")]
    last = max(complete, key=lambda path: int(path.name.partition("-")[2]), default=None)
    settings = {"max_steps": steps, "save_strategy": "steps", "save_steps": 1, "num_iterations": 2}
    settings["gradient_accumulation_steps"] = int(sys.argv[5])
    budget = sys.argv[6] if len(sys.argv) > 6 else None
    resume = str(last) if last else None
    made = trained(folder, config(out, **settings), kind=Watched, recipe=recipe, budget=budget, resume=resume)
    if made.accelerator.is_main_process:
        kept = {"weights": weights(made), "log": made.spending.progress.steps_log, "advantages": made.advantages}
        torch.save(kept, out / "end.pt")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
