"""A supervised start from which the thinking model's length follows what is asked for, as L1 says it: in tokens.

    python benchmarks/dials_thinker.py                 # resumable: a file a run
    python benchmarks/dials_thinker.py --summary       # run nothing, rewrite results and page
    python benchmarks/dials_thinker.py --quick         # smoke test: writes nothing without --out

The model writes its own traces of each training problem at low, usual and high effort. Of a problem whose longest right
trace thinks at least twice as long as its shortest one come three examples: the shortest, the longest, and the one
nearest to their geometric mean, each with the number of its thinking tokens, rounded. So the same question has traces
that differ from the end of their first pass on, and only the number says which. It is said in one of two places
(``DESIGNS``). The control says the numbers of the other examples, shuffled. Every run takes the same examples, steps
and learning rate; the traces are drawn once.

Held-out problems are asked each of ``ASKS``, one sample each at temperature 1, without a word of effort.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from transformers import AutoModelForCausalLM, AutoTokenizer

from budgeteer.core.environment import Item
from budgeteer.core.plan import F64
from budgeteer.lab import results
from budgeteer.lab.posttrain.problems import Asked, Grader, asked
from budgeteer.lab.posttrain.settings import Settings
from budgeteer.models.thinker import THINKER
from pages import Place, published
from rewards_report import DIALS_MARKS, dials_summary
from runs import Runs
from thinker_pool import Drawer

ROOT = Path(__file__).resolve().parents[1]
TARGET = ROOT / "benchmarks" / "results" / "dials_thinker.json"
DESIGNS = {"question": "\nThink for {tokens} tokens.", "thinking": "{tokens} tokens.\n"}
"""What is said, by where: behind the question, or at the head of the thinking, which the model then goes on with."""
START, SHUFFLED = "start", ", numbers shuffled"
ASKS = (48, 96, 160, 256)
EFFORTS: tuple[dict[str, str], ...] = ({"reasoning_effort": "low"}, {}, {"reasoning_effort": "high"})
SAMPLES, ROUND, RATIO, PROBLEMS, FIRST_SEED = 3, 16, 2.0, 7950, 600
"""Traces of a problem at an effort; numbers are multiples of ROUND; least longest trace over the shortest one."""


class Trace(NamedTuple):
    """A right trace: its token ids, the end of the turn included, and how many of them think."""

    tokens: list[int]
    thinking: int


class Example(NamedTuple):
    """A problem's number, a trace of it, and the number of tokens that is said."""

    problem: int
    tokens: list[int]
    said: int


def rounded(tokens: float) -> int:
    """The number that is said for a length.

    >>> rounded(100), rounded(3)
    (96, 16)
    """
    return max(round(tokens / ROUND), 1) * ROUND


def chosen(traces: Sequence[Trace]) -> list[Trace]:
    """The shortest and the longest trace and, where there is another one, that nearest to their geometric mean; none
    where the longest is not RATIO times the shortest."""
    order = sorted(traces, key=lambda trace: trace.thinking)
    if len(order) < 2 or order[0].thinking < 1 or order[-1].thinking < RATIO * order[0].thinking:
        return []
    middle = float(np.sqrt(order[0].thinking * order[-1].thinking))
    between_them = sorted(order[1:-1], key=lambda trace: abs(trace.thinking - middle))[:1]
    return [order[0], *between_them, order[-1]]


def examples(traces: Sequence[Sequence[Trace]], shuffle: int | None = None) -> list[Example]:
    """The examples of all problems.

    Args:
        traces: right ones of each problem.
        shuffle: a seed: the numbers are those of other examples, at random.
    """
    made = [Example(i, t.tokens, rounded(t.thinking)) for i, own in enumerate(traces) for t in chosen(own)]
    if shuffle is None:
        return made
    order = np.random.default_rng(shuffle).permutation(len(made)).tolist()
    return [example._replace(said=made[other].said) for example, other in zip(made, order, strict=True)]


class Lab:
    """The problems of a run, and how they are asked.

    Args:
        args: of the command.
        seed: of the held-out problems.
    """

    def __init__(self, args: argparse.Namespace, seed: int) -> None:
        self.tokenizer: Any = AutoTokenizer.from_pretrained(THINKER)
        self.made: Asked = asked(
            Settings(str(THINKER), "grpo", "", None, "thinking", PROBLEMS, args.train, args.pool, style="think"),
            self.tokenizer,
        )
        drawn = np.random.default_rng(seed).permutation(len(self.made.heldout))[: args.heldout]
        self.heldout = [self.made.heldout[i] for i in drawn.tolist()]
        self.cap, self.opened = args.max_tokens, self.ids("<think>\n")

    def grader(self, drawer: Drawer) -> Grader:
        """Who grades completions."""
        return Grader(self.made, lambda ids: str(self.tokenizer.decode(ids)), frozenset({drawer.end}), print)

    def prompt(self, item: Item, design: str = "", said: int = 0, **options: Any) -> list[int]:
        """Token ids of a problem's prompt; with a design what it says is in it, or at the head of the answer."""
        messages: Any = self.made.prompt(item)
        words = DESIGNS[design].format(tokens=said) if design else ""
        if design == "question":
            messages = [*messages[:-1], {**messages[-1], "content": messages[-1]["content"] + words}]
        text = self.tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True, **self.made.template, **options
        )
        return [*self.ids(text), *(self.opened + self.ids(words) if design == "thinking" else [])]

    def ids(self, text: str) -> list[int]:
        """Token ids of a text."""
        return list(self.tokenizer(text, add_special_tokens=False).input_ids)

    def thinking(self, row: Sequence[int]) -> int:
        """Tokens of a completion up to the end of its thinking; all, where it has none."""
        close = self.ids(self.made.style.close)[0]
        return row.index(close) if close in row else len(row)


def drawn(drawer: Drawer, prompts: Sequence[Sequence[int]], cap: int, seed: int, together: int) -> list[list[int]]:
    """Token ids of a completion of each prompt, in batches of prompts of like length."""
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    rows: list[list[int]] = [[]] * len(prompts)
    for first in range(0, len(order), together):
        part = order[first : first + together]
        made = drawer.tokens([prompts[i] for i in part], 1.0, seed * 1_000 + first, cap)
        for i, (tokens, _) in zip(part, made, strict=True):
            rows[i] = tokens
    return rows


def own_traces(lab: Lab, args: argparse.Namespace) -> list[list[Trace]]:
    """The right traces of each training problem that ended by themselves, kept in a file for each effort."""
    found: list[list[Trace]] = [[] for _ in lab.made.train]
    drawer: Drawer | None = None
    for number, effort in enumerate(EFFORTS):
        path = args.folder / "traces" / f"{number}.json"
        if not path.exists():
            drawer = drawer or Drawer(THINKER, torch.float32)
            grader = lab.grader(drawer)
            of = [i for i in range(len(lab.made.train)) for _ in range(SAMPLES)]
            prompts = [lab.prompt(lab.made.train[i], **effort) for i in of]
            rows = drawn(drawer, prompts, lab.cap, 7_700 + number, args.together)
            kept = [
                (i, row, lab.thinking(row))
                for i, row in zip(of, rows, strict=True)
                if row[: len(lab.opened)] == lab.opened
                and row[-1] == drawer.end
                and grader.score(lab.made.train[i], row) > 0.5
            ]
            results.write_text(json.dumps(kept), path)
        for i, tokens, thinking in json.loads(path.read_text()):
            found[i].append(Trace(tokens, thinking))
    return found


def batch(lab: Lab, part: Sequence[Example], design: str) -> tuple[torch.Tensor, torch.Tensor]:
    """(tokens [b, t], weights [b, t - 1]): what is said and asked is read, the trace is learnt."""
    rows = []
    for example in part:
        prompt = lab.prompt(lab.made.train[example.problem], design, example.said)
        rows.append((prompt, example.tokens[len(lab.opened) if design == "thinking" else 0 :]))
    width = max(len(prompt) + len(trace) for prompt, trace in rows)
    tokens, weight = torch.zeros(len(rows), width, dtype=torch.long), torch.zeros(len(rows), width - 1)
    for i, (prompt, trace) in enumerate(rows):
        tokens[i, : len(prompt) + len(trace)] = torch.tensor([*prompt, *trace])
        weight[i, len(prompt) - 1 : len(prompt) + len(trace) - 1] = 1
    return tokens, weight


def fit(model: Any, lab: Lab, made: Sequence[Example], design: str, seed: int, args: argparse.Namespace) -> None:
    """Train on the examples, in epochs of a random order, with a rate that falls to 0 in a straight line."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=args.lr, betas=(0.9, 0.95))
    order = np.concatenate([np.random.default_rng([seed, e]).permutation(len(made)) for e in range(args.epochs)])
    parts = [order[first : first + args.batch] for first in range(0, len(order), args.batch)]
    model.train()
    for step, part in enumerate(parts):
        optimiser.param_groups[0]["lr"] = args.lr * (1 - step / len(parts))
        tokens, weight = batch(lab, [made[i] for i in part.tolist()], design)
        states = model.model(tokens[:, :-1]).last_hidden_state[weight > 0]
        optimiser.zero_grad()
        F.cross_entropy(model.lm_head(states), tokens[:, 1:][weight > 0]).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
    model.eval()


def correlation(asked_for: F64, measured: F64) -> float:
    """Pearson's, of what was asked and measured, both less the mean of their problem: [problems, asks] each."""
    a, b = (values - values.mean(1, keepdims=True) for values in (asked_for, measured))
    scale = float(np.sqrt((a**2).sum() * (b**2).sum()))
    return float((a * b).sum()) / scale if scale else 0.0


def run(arm: str, seed: int, args: argparse.Namespace) -> dict[str, Any]:
    """Train an arm and measure it."""
    begin = time.perf_counter()
    lab, of = Lab(args, seed), plain(arm)
    model: Any = AutoModelForCausalLM.from_pretrained(THINKER, dtype=torch.float32)
    count = 0
    if not arm.startswith(START):
        made = examples(own_traces(lab, args), seed if arm.endswith(SHUFFLED) else None)
        fit(model, lab, made, of, seed, args)
        count = len(made)
    drawer = Drawer(THINKER, torch.float32)
    drawer.take(model.eval())
    grader, asks = lab.grader(drawer), ASKS
    prompts = [lab.prompt(item, of, said) for item in lab.heldout for said in asks]
    head = lab.opened if of == "thinking" else []
    rows = [head + row for row in drawn(drawer, prompts, lab.cap, seed, args.together)]
    thinking = np.array([lab.thinking(row) for row in rows], float).reshape(-1, len(asks))
    good = np.array([grader.score(item, row) > 0.5 for item, row in zip(
        [item for item in lab.heldout for _ in asks], rows, strict=True
    )]).reshape(-1, len(asks))  # fmt: skip
    wanted = np.broadcast_to(np.array(asks, float), thinking.shape)
    lab.made.close()
    return {
        "arm": arm, "seed": seed, "examples": count, "asks": list(asks),
        "thinking": thinking.mean(0).tolist(), "accuracy": good.mean(0).tolist(),
        "error": float(np.abs(thinking - wanted).mean()),
        "error if numbers were drawn": float(np.mean([np.abs(thinking - ask).mean() for ask in asks])),
        "correlation": correlation(wanted, thinking),
        "seconds": time.perf_counter() - begin,
    }  # fmt: skip


def plain(arm: str) -> str:
    """The design of an arm."""
    return arm.removesuffix(SHUFFLED).removeprefix(f"{START}, ")


ARMS = tuple(arm for design in DESIGNS for arm in (design, f"{design}{SHUFFLED}", f"{START}, {design}"))


def main() -> int:
    """Run what is missing, then write and print the summary of all that is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arms", nargs="*", default=list(ARMS), choices=ARMS, metavar="NAME", help="default: all")
    parser.add_argument("--seeds", type=int, default=3, help="default: %(default)s")
    parser.add_argument("--train", type=int, default=240, help="training problems (default: %(default)s)")
    parser.add_argument("--pool", type=int, default=384, help="problems that are held out (default: %(default)s)")
    parser.add_argument("--heldout", type=int, default=64, help="of them, of a seed (default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=2, help="default: %(default)s")
    parser.add_argument("--batch", type=int, default=16, help="examples of a step (default: %(default)s)")
    parser.add_argument("--lr", type=float, default=1e-3, help="default: %(default)s")
    parser.add_argument("--max-tokens", type=int, default=512, help="of a trace (default: %(default)s)")
    parser.add_argument(
        "--together", type=int, default=128, help="traces that are drawn at once (default: %(default)s)"
    )
    parser.add_argument("--folder", type=Path, default=ROOT / "runs" / "dials-thinker", help="default: %(default)s")
    parser.add_argument("--quick", action="store_true", help="few problems, one design: means nothing")
    parser.add_argument("--summary", action="store_true", help="run nothing")
    parser.add_argument("--out", type=Path, help=f"default: {TARGET.name} among the results; none if quick")
    args = parser.parse_args()
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    if args.quick:
        args.arms, args.seeds, args.folder = list(ARMS[3:]), 1, args.folder / "quick"
        args.train, args.pool, args.heldout, args.epochs, args.max_tokens = 12, 8, 4, 1, 128
    out = args.out or (None if args.quick else TARGET)
    names = ("train", "pool", "heldout", "epochs", "batch", "lr", "max_tokens")
    runs = Runs(args.folder, {key: getattr(args, key) for key in names})
    for arm, seed in runs.missing(args.arms, range(FIRST_SEED, FIRST_SEED + (0 if args.summary else args.seeds))):
        runs.keep(row := run(arm, seed, args))
        print(time.strftime("%H:%M"), json.dumps(row), file=sys.stderr, flush=True)
    content = {"config": runs.config, "runs": runs.with_those_of(out, ARMS), "versions": results.versions()}
    published(content, dials_summary(content), out, Place(TARGET, ROOT / "docs" / "rewards-measured.md", DIALS_MARKS))
    return 0


if __name__ == "__main__":
    sys.exit(main())
