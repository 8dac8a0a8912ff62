"""Router-R1 with the models of this package: the thinking model learns in TRL which other model to ask.

Questions are sums modulo 11, which the embedded reasoner answers (cheap), and arithmetic in words, which the thinking
model answers when it may think (dear). The policy is the thinking model without its thinking. It has never seen such
tools, so it is shown calls first, of a model at random; that is what "before" means. Then TRL trains it with the
paper's reward. Both are measured on held-out questions by the agent ``react`` with the same tools.

    python examples/trl_router_r1.py --out runs/router

needs the extras ``trl`` and ``lab``. It writes ``before``, ``after`` and ``found.json`` into the folder, and goes on
from ``before`` where that is there already.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import trl.chat_template_utils
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import GRPOConfig

from budgeteer.adapters.trl import BudgetedGRPOTrainer
from budgeteer.adapters.trl.pool import Pool
from budgeteer.agent import react
from budgeteer.agent.pool import Helper, tools_of
from budgeteer.lab.tasks import chains
from budgeteer.lab.thinker import arithmetic
from budgeteer.models.chat import Chat, Message, Thinking, call_of
from budgeteer.models.load import load_model
from budgeteer.models.thinker import THINKER
from budgeteer.solve import Question, Style
from budgeteer.solve.runner import Settings, run
from budgeteer.solve.styles import stated

SUM = re.compile(r"Modulo 11, from left to right: .* =")


@dataclass(frozen=True)
class Asked:
    """A question, its answer, and whether it is a sum modulo 11."""

    text: str
    answer: str
    modular: bool


def questions(count: int, seed: int) -> list[Asked]:
    """Half of each kind; another seed gives other questions."""
    rng, found = random.Random(seed), []
    for i in range(count):
        if i % 2:
            problem = arithmetic.draw(rng, rng.choice((2, 3)))
            found.append(Asked(problem.question, problem.answer, False))
        else:
            start, steps = chains.draw(rng, 2)
            found.append(Asked(chains.prompt_of(start, steps), str(chains.worked(start, steps)[1]), True))
    return found


def answer_of(text: str) -> str:
    """A helper's answer as the caller reads it."""
    said = re.findall(r"\d+", stated(text.split("</think>")[-1]) or "")
    return f"The answer is {said[-1]}." if said else "I do not know."


def helpers() -> tuple[Helper, Helper]:
    """The cheap model, which knows sums modulo 11 alone, and the dear one, which thinks."""

    def as_sum(query: str) -> str:
        found = SUM.search(query)
        return found[0] if found else query

    def as_chat(query: str) -> Chat:
        return Chat((Message("user", query),), Thinking(on=True, effort="low"))

    return (
        Helper("sums", load_model("reasoner"), "modulo 11", 100_000, 64, ask=as_sum, read=answer_of),
        Helper("words", load_model("thinker"), "slow", 1_000_000, 96, ask=as_chat, read=answer_of),
    )


def shown(
    tokenizer: Any, asked: Sequence[Asked], tools: list[Any], rng: random.Random
) -> list[tuple[list[int], list[int]]]:
    """Turns to imitate, as (what is read, what is written): a call of a helper at random, and its answer repeated."""
    turns = []
    for one in asked:
        call = call_of(rng.choice(("sums", "words")), json.dumps({"query": one.text}))
        said = f"The answer is {rng.choice((one.answer, str(rng.randint(0, 99))))}."
        talk: list[dict[str, Any]] = [{"role": "user", "content": one.text}]
        for written in (call, said):
            text = tokenizer.apply_chat_template(
                talk, tools=tools, add_generation_prompt=True, enable_thinking=False, tokenize=False
            )
            read, write = (
                tokenizer(part, add_special_tokens=False)["input_ids"] for part in (text, f"{written}<|im_end|>")
            )
            turns.append((read, write))
            talk += [{"role": "assistant", "content": call}, {"role": "tool", "content": said}]
    return turns


def imitated(model: Any, turns: list[tuple[list[int], list[int]]], steps: int, rng: random.Random) -> None:
    """Supervised training on what is written in these turns."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.05, steps)
    for step in range(steps):
        batch = rng.sample(turns, 8)
        width = max(len(read) + len(write) for read, write in batch)
        ids = torch.zeros((len(batch), width), dtype=torch.long)
        labels = torch.full_like(ids, -100)
        for row, (read, write) in enumerate(batch):
            ids[row, : len(read) + len(write)] = torch.tensor(read + write)
            labels[row, len(read) : len(read) + len(write)] = torch.tensor(write)
        loss = model(input_ids=ids, labels=labels).loss  # padding stands behind, so that no row sees it
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        if step % 50 == 0 or step == steps - 1:
            print(f"imitation {step:4}  loss {float(loss):.3f}", flush=True)


def measured(folder: Path, asked: Sequence[Asked]) -> dict[str, float]:
    """What the policy of a folder does on questions, by an agent with the same tools; dollars are of the helpers."""
    small, large = helpers()
    style = Style(
        lambda text: Chat((Message("user", text),), Thinking(on=False)),
        lambda text: (re.findall(r"\d+", stated(text.split("</think>")[-1]) or "") or [None])[-1],
        "",
        answer_tokens=16,
    )
    references = {str(i): one.answer for i, one in enumerate(asked)}
    settings = Settings(
        per_question=True,
        tools=lambda question: tools_of([small, large]),
        grade=lambda question, answer: float(answer == references[question.id]),
    )
    policy = load_model(f"hf:{folder}")
    given = [Question(str(i), one.text) for i, one in enumerate(asked)]
    done = asyncio.run(run(given, react(turns=3, step_tokens=128), policy, style, "6k, tool:3", settings))
    rows = {row["id"]: row for row in done.rows}
    found = {
        "right": sum(bool(row["correct"]) for row in rows.values()) / len(rows),
        "dollars": (small.cost + large.cost) / len(rows) / 1e12,
        "tokens": sum(row["tokens"]["input"] + row["tokens"]["output"] for row in rows.values()) / len(rows),
    }
    for kind, modular in (("modulo 11", True), ("in words", False)):
        part = [rows[str(i)] for i, one in enumerate(asked) if one.modular is modular]
        for name in ("sums", "words"):
            found[f"{name}, {kind}"] = sum(row["tools"].get(name, 0) for row in part) / len(part)
    return found


def main() -> None:
    """Show calls, measure, train, measure again."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--imitation", type=int, default=300, help="steps in which calls are shown (default %(default)s)"
    )
    parser.add_argument("--steps", type=int, default=100, help="of TRL (default %(default)s)")
    parser.add_argument("--weight", type=float, default=0.3, help="of cheapness in the reward (default %(default)s)")
    parser.add_argument("--heldout", type=int, default=100, help="questions (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    rng, before, after = random.Random(args.seed), args.out / "before", args.out / "after"
    tokenizer = AutoTokenizer.from_pretrained(THINKER)
    tokenizer.response_template = trl.chat_template_utils.qwen3_template  # its calls are written as Qwen's
    pool = Pool(helpers(), "5m", calls=2)
    heldout = questions(args.heldout, args.seed + 1_000_000)
    if not (before / "config.json").exists():
        model = AutoModelForCausalLM.from_pretrained(THINKER, dtype=torch.float32)
        tools = [one.tool().schema() for one in pool.helpers]
        imitated(model, shown(tokenizer, questions(2000, args.seed + 1), tools, rng), args.imitation, rng)
        model.save_pretrained(before)
        AutoTokenizer.from_pretrained(THINKER).save_pretrained(before)
    found = {"weight": args.weight, "seed": args.seed, "before": measured(before, heldout)}
    print(json.dumps(found["before"], indent=1), flush=True)
    data = [
        {"prompt": [{"role": "user", "content": one.text}], "answer": one.answer}
        for one in questions(4000, args.seed + 2)
    ]
    config = GRPOConfig(
        str(args.out / "trl"),
        max_steps=args.steps,
        per_device_train_batch_size=16,
        num_generations=8,
        max_completion_length=220,
        max_tool_calling_iterations=2,
        learning_rate=3e-4,
        chat_template_kwargs={"enable_thinking": False},
        use_cpu=True,
        bf16=False,
        save_strategy="no",
        logging_steps=5,
        report_to=[],
        seed=args.seed,
    )
    score = pool.reward(max_tokens=220, tokenizer=tokenizer, weight=args.weight)
    trainer = BudgetedGRPOTrainer(
        str(before), reward_funcs=score, args=config, train_dataset=Dataset.from_list(data), processing_class=tokenizer,
        environment_factory=pool, budget="2m",
    )  # fmt: skip
    trainer.train()
    trainer.save_model(str(after))
    AutoTokenizer.from_pretrained(THINKER).save_pretrained(after)
    found |= {"after": measured(after, heldout), "steps": args.steps, "trained": trainer.spending.progress.used}
    found["helpers"] = {"calls": pool.made, "tokens": 5_000_000 - pool.left["all"]}
    (args.out / "found.json").write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
