"""What an update costs without the padding of its batch, beside TRL's own: the same rollouts by both, in pairs.

    python benchmarks/trl_padding.py           # writes benchmarks/results/trl_padding.json
    python benchmarks/trl_padding.py --quick   # smoke test: writes nothing without --out

One generation of the embedded thinking model (Qwen3 architecture; 80 rollouts of ten problems, as long as they come,
capped at 512 tokens) is learnt from by TRL's trainer in micro-batches of a size: log-probabilities of all rows without
gradients, then forward and backward of each micro-batch. Rows are in random order, as TRL shuffles them. Generation is
not in it. Seconds are of the CPU, one thread; which of the two comes first changes from pair to pair; the interval is
that of the mean log ratio over pairs (t), each of which has another order of the rows.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import GRPOConfig

from budgeteer.adapters.trl import BudgetedGRPOTrainer
from budgeteer.lab.results import installed, machine
from budgeteer.models.thinker import THINKER
from pages import Place, published
from rewards_thinker import PLAIN, said
from thinker_brief import drawn_with, problems
from thinker_pool import Drawer
from trl_overhead import PACKAGES, interval

ROOT = Path(__file__).resolve().parents[1]
OUT, PAGE = ROOT / "benchmarks" / "results" / "trl_padding.json", ROOT / "docs" / "trl.md"
MARKS = ("<!-- written by benchmarks/trl_padding.py -->\n", "<!-- end of trl_padding -->")
SIZES = (1, 2, 4, 8, 20)
GROUP, SEED = 8, 0


def batch(prompts: int, cap: int) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Token ids and mask [n, p + t] of a generation, padded as TRL does, and t."""
    tokenizer = AutoTokenizer.from_pretrained(THINKER)
    made = problems(SEED, tokenizer, argparse.Namespace(train=prompts, heldout=1), "think:effort=high")
    chats = [said(made, item, PLAIN) for item in made.train for _ in range(GROUP)]
    made.close()
    texts = [
        tokenizer.apply_chat_template(c, tokenize=False, add_generation_prompt=True, **made.template) for c in chats
    ]
    before = [list(tokenizer(text, add_special_tokens=False).input_ids) for text in texts]
    behind = drawn_with(Drawer(THINKER, torch.float32), before, cap, SEED)
    p, t = max(map(len, before)), max(map(len, behind))
    ids, mask = torch.zeros(len(before), p + t, dtype=torch.long), torch.zeros(len(before), p + t, dtype=torch.long)
    for row, (left, right) in enumerate(zip(before, behind, strict=True)):
        at = slice(p - len(left), p + len(right))
        ids[row, at], mask[row, at] = torch.tensor(left + right), 1
    return ids, mask, t


def update(trainer: Any, ids: torch.Tensor, mask: torch.Tensor, width: int, size: int) -> tuple[float, float]:
    """CPU seconds of an update, and the sum of the log-probabilities."""
    begin, read, total = time.thread_time(), trainer._get_per_token_logps_and_entropies, 0.0
    with torch.no_grad():
        read(trainer.model, ids, mask, width, size)
    trainer.model.zero_grad()
    for rows in torch.arange(len(ids)).split(size):
        logprob, _, _ = read(trainer.model, ids[rows], mask[rows], width, compute_entropy=True)
        summed = (logprob * mask[rows, -width:]).sum()
        summed.backward()
        total += float(summed.detach())
    return time.thread_time() - begin, total


def table(content: Mapping[str, Any]) -> str:
    """A row of ratios, a column a size."""
    sizes = content["sizes"]
    shown = [each["percent beside TRL"] for each in sizes]
    cells = [f"{r['mean']:+.0f} % [{r['low']:+.0f}, {r['high']:+.0f}]" for r in shown]
    return "\n".join([
        f"{content['rollouts']} rollouts, {100 * content['padding']:.0f} % of the columns are padding:", "",
        "| rows of a micro-batch | " + " | ".join(str(each["rows"]) for each in sizes) + " |",
        "|---" * (len(sizes) + 1) + "|", "| seconds beside TRL | " + " | ".join(cells) + " |", "",
    ])  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=6, help="of a size (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="two prompts, short rollouts, two pairs")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    ids, mask, width = batch(*((2, 64) if args.quick else (10, 512)))
    rng, found = np.random.default_rng(SEED), []
    with tempfile.TemporaryDirectory() as out:
        trainer = BudgetedGRPOTrainer(
            AutoModelForCausalLM.from_pretrained(THINKER, dtype=torch.float32), lambda completions, **rest: [0.0],
            GRPOConfig(out, use_cpu=True, bf16=False, report_to=[], gradient_checkpointing=False),
            Dataset.from_dict({"prompt": ["1"] * 8}), processing_class=AutoTokenizer.from_pretrained(THINKER),
            recipe="duet", budget="1m",
        )  # fmt: skip
        for size in SIZES:
            pairs = []
            for pair in range(2 if args.quick else args.pairs):
                order, took = torch.from_numpy(rng.permutation(len(ids))), {}
                for trims in (bool(pair % 2), not pair % 2):
                    trainer.trims = trims
                    took["trimmed" if trims else "TRL"] = update(trainer, ids[order], mask[order], width, size)
                np.testing.assert_allclose(took["trimmed"][1], took["TRL"][1], rtol=1e-4)
                pairs.append({name: seconds for name, (seconds, _) in took.items()})
            ratio = interval([pair["trimmed"] / pair["TRL"] for pair in pairs])
            found.append({"rows": size, "pairs": pairs, "percent beside TRL": ratio})
            print(f"{size} rows a micro-batch:", {k: round(v, 1) for k, v in ratio.items()}, flush=True)
    content = {
        "rollouts": len(ids), "padding": 1 - float(mask.float().mean()), "sizes": found,
        "machine": machine(), "packages": installed(PACKAGES),
    }  # fmt: skip
    published(content, table(content), args.out or (None if args.quick else OUT), Place(OUT, PAGE, MARKS))


if __name__ == "__main__":
    sys.exit(main())
