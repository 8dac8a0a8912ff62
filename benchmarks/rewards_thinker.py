"""Rewards on the thinking model through TRL: accuracy and tokens from one checkpoint under one budget.

    python benchmarks/rewards_thinker.py                       # resumable: a file a run
    python benchmarks/rewards_thinker.py --rewards none kimi --seeds 2
    python benchmarks/rewards_thinker.py --summary             # run nothing, rewrite results and page
    python benchmarks/rewards_thinker.py --quick               # smoke test: writes nothing without --out

The embedded thinking model (Qwen3 architecture, ``reasoning_effort`` high, where it thinks longest) is trained by
``BudgetedGRPOTrainer`` with the recipe ``grpo:reward=NAME``: all runs of a seed see the same problems in one order,
under the same budget of tokens and with as many generations. TRL's generation batch bounds the rollouts of one, so that
shorter ones buy more only where the budget binds: ``used`` of each run says what it took. All weights are trained.
Rollouts are drawn by ``thinker_pool.Drawer`` with the trainer's weights, several times as fast as ``generate``, and
steers are asked about each of their tokens afterwards, as where vLLM generates; loss, advantages and budget are the
adapter's and TRL's. Held-out problems are of the trained families and of none of the training's questions, one sample
each at temperature 1; an arm whose name ends with ``, greedy`` writes the likeliest tokens there. ``l1`` says a number
of tokens behind a question; rewards whose variant says something before it are asked as ``WITH`` has it; with ``, own
words`` efforts are drawn for each problem and said in the words of the chat template. A rollout of this model ends
behind its answer, so that there is nothing to save by a stop there.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import GRPOConfig

from budgeteer.adapters.trl import BudgetedGRPOTrainer
from budgeteer.adapters.trl.sampling import Row
from budgeteer.core.environment import Item
from budgeteer.core.plan import I64
from budgeteer.core.steer import Need
from budgeteer.lab import results
from budgeteer.lab.posttrain.problems import Asked, Grader
from budgeteer.lab.run import level_of
from budgeteer.models.chat import EFFORTS
from budgeteer.models.thinker import THINKER
from budgeteer.rl.step import Round
from pages import Place, published
from rewards_report import GREEDY, NONE, SHUFFLED, START, THINKER_MARKS, WHOLE, alike, plain_name, thinker_summary
from runs import Runs
from thinker_brief import BRIEF, brief, drawn_with, problems
from thinker_pool import Drawer

ROOT = Path(__file__).resolve().parents[1]
TARGET = ROOT / "benchmarks" / "results" / "rewards_thinker.json"
SMALL = ROOT / "benchmarks" / "results" / "rewards.json"
"""The same rewards on the small reasoner."""
BRIEFER = {f"{START}, usual effort": "think", f"{START}, low effort": "think:effort=low"}
"""The untrained model, asked for less thinking by its chat template: the first thing to try before any training."""
HIGH = "think:effort=high"
WHOLE_RECIPES = ("traac", "ares", "adaptive-deep", "rmt", "elastic", "budget-forcing", "dr-grpo", "dapo")
OWN = ", own words"
"""Behind the name of a reward: efforts are said in the words of the chat template, with which the model was trained."""
AFTER, AFTER_BRIEF = ", after brief", (START, NONE, "right-only", "kimi")
"""Behind the name of a reward: training begins from the model that learnt its own brief traces (``thinker_brief.py``),
whose tokens, input too, are taken from those of the training."""
ARMS = (
    START, *BRIEFER, NONE, "kimi", "o1-pruner", "alp", "l1:at_most=true", "laser", "overlong",
    "shorter-better", "arlcp", "traac", "cosine", "right-only", "repetition", "pear", "adathink-med", "ares", "hbpo",
    "triangular", "adaptive-deep", "e1", "thinkdial", "l1", "adacot", "visionthink", "adactrl",
    *(name + AFTER for name in AFTER_BRIEF), *(name + WHOLE for name in WHOLE_RECIPES), START + OWN,
    *(name + OWN + more for name in ("thinkdial", "e1") for more in ("", SHUFFLED)),
    *(name + GREEDY for name in (
        START, *BRIEFER, *(name + AFTER for name in AFTER_BRIEF), NONE, "right-only", "kimi", "o1-pruner", "overlong",
    )),
)  # fmt: skip
FIRST_SEED, GROUP, UPDATES = 500, 8, 4
SAYS = "\nThink for at most {tokens} tokens."
"""Behind the question, for ``l1:at_most=true``."""


class Ask(NamedTuple):
    """How held-out problems are asked.

    Attributes:
        name: as in the tables.
        before, behind: texts around the question.
        system: message of the system.
    """

    name: str = ""
    before: str = ""
    behind: str = ""
    system: str = ""


WITH: dict[str, tuple[str, tuple[Ask, ...]]] = {
    "e1": ("grpo:reward=e1,variant=effort", (Ask("25 %", "25%: "), Ask("100 %", "100%: "))),
    "thinkdial": ("grpo:reward=thinkdial,variant=effort-modes", (Ask("low", "low: "), Ask("high", "high: "))),
    "triangular": ("grpo:reward=triangular,variant=falling-budget", ()),
    "adaptive-deep": ("grpo:reward=adaptive-deep,variant=both-kinds", ()),
    "hbpo": ("hbpo", ()),
    # alone, repetition has no term for being right
    "repetition": ("grpo:reward=kimi:weight=0+repetition", ()),
}
"""Reward -> its recipe where that is more than the reward; and how the held-out problems are asked."""
PLAIN = Ask()
WORDS = tuple(Ask(word, system=f"Reasoning effort: {word}") for word in EFFORTS)
HARDER = 2
"""From this level on a problem is labelled to need thinking, for ``adacot``, which has a judge label its prompts."""
SHARED = ("tokens", "steps", "prompts", "lr", "max_tokens", "train", "heldout")
TARGETS, ASKS = (64, 320), 128
"""Numbers of tokens that training draws between, and that held-out problems are asked for."""


class Fast(BudgetedGRPOTrainer):
    """The trainer, whose rollouts another decoder draws with its weights."""

    drawer: Drawer
    rows_of_pass = 5

    def _generated(self, work: Round, group: I64, prompts: list[list[int]]) -> list[Row]:
        if work.steer is not None and work.steer.needs & {Need.LOGITS, Need.MARGIN}:  # the decoder does not tell them
            return super()._generated(work, group, prompts)
        self.drawer.take(self.accelerator.unwrap_model(self.model))
        numbers = np.arange(len(group))[: work.budget]
        slices = self._sampling.slices(prompts[: len(numbers)], work, group, numbers, work.budget)
        slices.pause = None
        seeds = np.random.default_rng(work.seed)
        while (wave := slices.next()) is not None:
            drawn = drawn_with(self.drawer, wave.prompts, int(wave.most.max()), int(seeds.integers(2**31)))
            rows = [tokens[:most] for tokens, most in zip(drawn, wave.most.tolist(), strict=True)]
            slices.add(wave, rows, [[0.0] * len(row) for row in rows])
            slices.lost[:] = 0  # a decoder that the steer watches would not have drawn them
        return [row._replace(logprob=None) for row in self._sampling.rows(slices, numbers, [])]


def run(name: str, seed: int, args: argparse.Namespace) -> dict[str, Any]:
    """Train an arm and measure it."""
    begin, arm = time.perf_counter(), name.removesuffix(GREEDY)
    tokenizer, folder, drawn = AutoTokenizer.from_pretrained(THINKER), THINKER, 0
    if arm.endswith(AFTER):
        made_for = argparse.Namespace(**{**BRIEF, **vars(args)})
        folder, drawn = brief(seed, args.folder / "made" / str(seed), made_for)
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    style = "think" if OWN in arm else BRIEFER.get(arm, HIGH)
    made, drawer = problems(seed, tokenizer, args, style), Drawer(THINKER, torch.float32)
    grader = Grader(made, lambda ids: str(tokenizer.decode(ids)), frozenset({drawer.end}), print)
    used, steps, rollouts = drawn, 0, 0
    if arm not in (START, START + OWN, START + AFTER, *BRIEFER):
        columns = columns_of(arm, made, np.random.default_rng(seed))
        trainer = trained(
            recipe_of(arm), seed, model, tokenizer, made, grader, drawer, args.tokens - drawn, args, columns
        )
        progress = trainer.spending.progress
        used, steps = drawn + progress.used, progress.step
        rollouts = sum(row["rollouts"] for row in progress.steps_log)
        model = trainer.accelerator.unwrap_model(trainer.model)
    middle = time.perf_counter()
    drawer.take(model.eval())
    found = [
        measured(drawer, tokenizer, made, grader, args.max_tokens, seed, ask, 0.0 if name != arm else 1.0)
        | {"ask": ask.name}
        for ask in asks_of(arm)
    ]
    made.close()
    return {
        "reward": name, "stop": False, "seed": seed, "asks": found,
        "used": used, "steps": steps, "rollouts": rollouts,
        "seconds": {"training": middle - begin, "measuring": time.perf_counter() - middle},
    }  # fmt: skip


def recipe_of(name: str) -> str:
    """The recipe that an arm is trained with."""
    if name.endswith(WHOLE):
        return plain_name(name)
    if name in WITH:
        return WITH[name][0]
    reward = name.removesuffix(AFTER).partition(OWN)[0]
    return "grpo" if reward == NONE else f"grpo:reward={reward}"


def asks_of(name: str) -> tuple[Ask, ...]:
    """How an arm's held-out problems are asked."""
    if OWN in name:
        return WORDS
    if name.startswith("l1"):
        return (Ask(f"{ASKS} tokens", behind=SAYS.format(tokens=ASKS)),)
    return WITH.get(plain_name(name), ("", ()))[1] or (PLAIN,)


def columns_of(name: str, made: Asked, rng: np.random.Generator) -> dict[str, list[Any]]:
    """What the data set of an arm says beside the problems: a number of tokens, or a word of effort, drawn for each."""
    count = len(made.train)
    if name.startswith("l1"):
        targets = rng.integers(*TARGETS, size=count)
        asks, columns = [Ask(behind=SAYS.format(tokens=n)) for n in targets], {"target": targets.astype(float).tolist()}
    elif OWN in name:
        words = rng.integers(len(WORDS), size=count)
        meant = rng.permutation(words) if name.endswith(SHUFFLED) else words
        asks, columns = [WORDS[i] for i in words], {"effort": np.array([*EFFORTS.values()])[meant].tolist()}
    else:
        return {}
    return {**columns, "prompt": [said(made, item, ask) for item, ask in zip(made.train, asks, strict=True)]}


def trained(
    recipe: str, seed: int, model: Any, tokenizer: Any, made: Asked, grader: Grader, drawer: Drawer,
    budget: int | None, args: argparse.Namespace, columns: Mapping[str, Sequence[Any]] | None = None,
    iterations: int = 1,
) -> Fast:  # fmt: skip
    """The trainer of a recipe, when its tokens are spent.

    Args:
        recipe: name.
        seed: of order and draws.
        model, tokenizer: that are trained.
        made, grader: the problems and who grades them.
        drawer: of the rollouts.
        budget: of tokens; None = no limit.
        args: of a generation and a rollout.
        columns: of the data set, beside what each problem has, or in the place of it; None = no others.
        iterations: passes over each generation.
    """
    items = {item.key: item for item in made.train}
    rows: dict[str, list[Any]] = {"key": [*items], "prompt": [made.prompt(item) for item in made.train]}
    rows["needs_thinking"] = [int(int(level_of(item).split()[-1]) >= HARDER) for item in made.train]
    rows |= {name: list(column) for name, column in (columns or {}).items()}

    def verified(completion_ids: list[list[int]], key: list[str], **columns: Any) -> list[float]:
        return [grader.score(items[k], ids) for k, ids in zip(key, completion_ids, strict=True)]

    with tempfile.TemporaryDirectory() as out:
        each = args.prompts * GROUP // UPDATES
        config = GRPOConfig(
            out, per_device_train_batch_size=each, gradient_accumulation_steps=1, steps_per_generation=UPDATES,
            num_generations=GROUP, max_completion_length=args.max_tokens, max_steps=args.steps * UPDATES * iterations,
            num_iterations=iterations,
            learning_rate=args.lr, lr_scheduler_type="constant", temperature=1.0, seed=seed, beta=0.0, use_cpu=True,
            bf16=False, gradient_checkpointing=False, report_to=[], save_strategy="no", disable_tqdm=True,
            chat_template_kwargs=dict(made.template),
        )  # fmt: skip
        trainer = Fast(
            model, verified, config, Dataset.from_dict(rows), processing_class=tokenizer,
            recipe=recipe, budget=budget, close=made.style.close,
        )  # fmt: skip
        trainer.drawer = drawer
        trainer.train()
    return trainer


def said(made: Asked, item: Item, ask: Ask) -> list[dict[str, str]]:
    """The prompt of a problem, asked so."""
    *before, last = made.prompt(item)
    system = [{"role": "system", "content": ask.system}] if ask.system else []
    return [*system, *before, {**last, "content": ask.before + last["content"] + ask.behind}]


def measured(
    drawer: Drawer, tokenizer: Any, made: Asked, grader: Grader, cap: int, seed: int, ask: Ask = PLAIN,
    temperature: float = 1.0,
) -> dict[str, Any]:  # fmt: skip
    """Accuracy and tokens of the held-out problems, by kind and level, too."""
    texts = [
        tokenizer.apply_chat_template(
            said(made, item, ask), tokenize=False, add_generation_prompt=True, **made.template
        )
        for item in made.heldout
    ]
    prompts = [list(tokenizer(text, add_special_tokens=False).input_ids) for text in texts]
    rows: list[list[int]] = []
    for first in range(0, len(prompts), 64):
        rows += drawn_with(drawer, prompts[first : first + 64], cap, 20_000 + seed + first, temperature)
    good = np.array([grader.score(item, ids) > 0.5 for item, ids in zip(made.heldout, rows, strict=True)])
    tokens = np.array([len(row) for row in rows])
    close = tokenizer.encode(made.style.close, add_special_tokens=False)[0]
    thinking = np.array([row.index(close) if close in row else len(row) for row in rows])
    level = np.array([level_of(item) for item in made.heldout])

    def means(at: Any) -> list[float]:
        return [float(good[at].mean()), float(tokens[at].mean()), float(thinking[at].mean())]

    return {
        "n": len(rows), "accuracy": float(good.mean()), "tokens": float(tokens.mean()),
        "thinking": float(thinking.mean()), "to answer": float(tokens.mean()),
        "cut": float((tokens >= cap).mean()), "levels": {k: means(level == k) for k in sorted(set(level.tolist()))},
    }  # fmt: skip


def add_training(parser: argparse.ArgumentParser, *, steps: int, prompts: int, max_tokens: int, heldout: int) -> None:
    """The options of a training on the thinking model, with these defaults."""
    parser.add_argument("--steps", type=int, default=steps, help="generations (default: %(default)s)")
    parser.add_argument("--prompts", type=int, default=prompts, help="of a generation (default: %(default)s)")
    parser.add_argument("--lr", type=float, default=5e-4, help="default: %(default)s")
    parser.add_argument("--max-tokens", type=int, default=max_tokens, help="of a rollout (default: %(default)s)")
    parser.add_argument("--train", type=int, default=512, help="training problems (default: %(default)s)")
    parser.add_argument("--heldout", type=int, default=heldout, help="held-out problems (default: %(default)s)")


def main() -> int:
    """Run what is missing, then write and print the summary of all that is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rewards", nargs="*", default=list(ARMS), choices=ARMS, metavar="NAME", help="default: all")
    parser.add_argument("--seeds", type=int, default=3, help="default: %(default)s")
    parser.add_argument("--first-seed", type=int, default=FIRST_SEED, help="default: %(default)s")
    parser.add_argument("--tokens", type=int, default=100_000, help="of training (default: %(default)s)")
    add_training(parser, steps=8, prompts=10, max_tokens=512, heldout=192)
    parser.add_argument("--folder", type=Path, default=ROOT / "runs" / "rewards-thinker", help="default: %(default)s")
    parser.add_argument("--quick", action="store_true", help="two arms, one seed, one generation: means nothing")
    parser.add_argument("--summary", action="store_true", help="run nothing")
    parser.add_argument("--out", type=Path, help=f"default: {TARGET.name} among the results; none if quick")
    args = parser.parse_args()
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    if args.quick:
        args.rewards, args.seeds, args.folder = [START, "kimi"], 1, args.folder / "quick"
        args.tokens, args.steps, args.prompts, args.train, args.heldout, args.max_tokens = 1_500, 1, 2, 16, 8, 64
    out = args.out or (None if args.quick else TARGET)
    runs = Runs(args.folder, {key: getattr(args, key) for key in SHARED}, "reward")
    seeds = range(args.first_seed, args.first_seed + (0 if args.summary else args.seeds))
    for name, seed in runs.missing(args.rewards, seeds):
        runs.keep(row := run(name, seed, args))
        ask = row["asks"][0]
        print(
            time.strftime("%H:%M"), name, seed, f"{100 * ask['accuracy']:.1f} %, {ask['tokens']:.0f} tokens,",
            row["used"], row["steps"], row["seconds"], file=sys.stderr, flush=True,
        )  # fmt: skip
    content: dict[str, Any] = {"config": runs.config, "runs": runs.with_those_of(out, ARMS)}
    if not args.quick:
        content["small reasoner"] = alike(json.loads(SMALL.read_text())["parts"]["main"]["runs"], content["runs"])
    content["versions"] = results.versions() | results.installed(("trl", "accelerate"))
    published(
        content, thinker_summary(content), out, Place(TARGET, ROOT / "docs" / "rewards-measured.md", THINKER_MARKS)
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
