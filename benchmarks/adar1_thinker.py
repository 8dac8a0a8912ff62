"""AdaR1 as a training run on the thinking model: a short model, the merged model, pairs of two levels, and TRL's DPO.

    python benchmarks/adar1_thinker.py                 # resumable: a file a run
    python benchmarks/adar1_thinker.py --summary       # run nothing, rewrite results and page
    python benchmarks/adar1_thinker.py --quick         # smoke test: writes nothing without --out

The long model is the embedded thinking model, asked at high effort. The short one is the same after TRL's SFTTrainer on
right traces of its own that it wrote at low effort, learnt as answers to the prompt of high effort. ``merge`` makes
the hybrid (0.8 of the long one), the builder ``adar1`` the pairs, of traces of the long and the short model, and TRL's
DPOTrainer trains the hybrid on them: on all, or on those of one level, for as many steps. ``drawn`` of a run are the
tokens that its data took: the short traces, right or not, and the bill of the builder, input too.

Held-out problems, prompts and draws are those of ``rewards_thinker.py``, one sample each at temperature 1, asked at
high effort; the untrained model, also asked for less, is in the results of that benchmark, from where it is taken.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import logging
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import DPOConfig, DPOTrainer

from budgeteer.core.usage import Usage
from budgeteer.lab import results
from budgeteer.lab.posttrain.problems import Asked, Grader
from budgeteer.models.merge import merge
from budgeteer.models.model import Choice, Finish, Request, Response
from budgeteer.models.thinker import THINKER
from budgeteer.models.transformers import Transformers
from budgeteer.solve import Question
from budgeteer.solve.runner import Settings
from budgeteer.solve.runner import run as solved
from budgeteer.tuning import adar1, as_strategy
from pages import Place, interval, published
from rewards_report import START
from rewards_thinker import BRIEFER, measured
from runs import Runs
from thinker_brief import BRIEF, HIGH, TOGETHER, brief, problems, trained
from thinker_pool import Drawer

ROOT = Path(__file__).resolve().parents[1]
TARGET = ROOT / "benchmarks" / "results" / "adar1_thinker.json"
UNTRAINED = ROOT / "benchmarks" / "results" / "rewards_thinker.json"
MARKS = "<!-- written by benchmarks/adar1_thinker.py -->\n", "<!-- end of adar1_thinker -->"
SHORT, MERGED, ADAR1 = "short model", "merged, no DPO", "AdaR1"
LEVELS = {
    ADAR1: ("group", "instance"),
    "AdaR1, group pairs only": ("group",),
    "AdaR1, instance pairs only": ("instance",),
}
ARMS = (SHORT, MERGED, *LEVELS)
FIRST_SEED, WEIGHT = 500, 0.8
"""Of the held-out problems, as in rewards_thinker.py; of the long model in the hybrid."""
SHARED = (
    "train", "problems", "heldout", "max_tokens", "brief", "samples", "epochs", "sft_lr", "steps", "batch",
    "lr", "beta",
)  # fmt: skip


class Together(Transformers):
    """The model of a folder; requests that come at the same time are drawn together by ``thinker_pool.Drawer``."""

    def __init__(self, folder: Path, name: str) -> None:
        super().__init__(folder, name=name)
        self._drawer = Drawer(folder, torch.float32)
        self._open: list[tuple[Request, asyncio.Future[Response]]] = []

    async def generate(self, request: Request) -> Response:
        """All choices of a request."""
        future: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
        self._open.append((request, future))
        if len(self._open) == 1:
            asyncio.get_running_loop().call_later(0.2, self._draw)
        return await future

    def _draw(self) -> None:
        waiting, self._open = self._open, []
        prompts = [self._encoded(request.prompt) for request, _ in waiting]
        rows: list[list[list[int]]] = [[] for _ in waiting]
        order = [i for i in sorted(range(len(waiting)), key=lambda i: len(prompts[i])) for _ in range(waiting[i][0].n)]
        for first in range(0, len(order), TOGETHER):
            part = order[first : first + TOGETHER]
            one = waiting[part[0]][0]  # a builder asks all of its questions with the same cap and temperature
            seed = (one.seed or 0) % 2**31
            drawn = self._drawer.tokens([prompts[i] for i in part], one.temperature, seed, one.max_tokens)
            for i, (tokens, _) in zip(part, drawn, strict=True):
                rows[i].append(tokens)
        for (_, future), prompt, made in zip(waiting, prompts, rows, strict=True):
            usage = Usage(input=len(prompt), output=sum(map(len, made)))
            future.set_result(Response(tuple(map(self._choice, made)), usage))

    def _choice(self, tokens: list[int]) -> Choice:
        ended = tokens[-1] == self._drawer.end
        return Choice(self.text(tokens[:-1] if ended else tokens), len(tokens), Finish.STOP if ended else Finish.LENGTH)


class Made(NamedTuple):
    """What the arms of a seed train on: the folders of the short model and of the hybrid, the pairs, and the tokens
    that were drawn for the short model, and for the pairs."""

    short: Path
    hybrid: Path
    pairs: list[dict[str, Any]]
    drawn: tuple[int, int]


def made(seed: int, asked: Asked, args: argparse.Namespace) -> Made:
    """The short model, the hybrid and the pairs of a seed, from its folder or made now."""
    folder = args.folder / "made" / str(seed)
    hybrid, file, short = folder / "hybrid", folder / "pairs.json", brief(seed, folder, args)
    if not hybrid.exists():
        merge(THINKER, short.folder, hybrid, WEIGHT)
    if not file.exists():
        results.write_text(json.dumps(paired(seed, asked, short.folder, folder, args)), file)
    content = json.loads(file.read_text())
    return Made(short.folder, hybrid, content["pairs"], (short.drawn, content["drawn"]))


def paired(seed: int, asked: Asked, short: Path, folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    """The pairs of the training problems, by the builder, and what they took."""
    long, quick = Together(THINKER, "long"), Together(short, "short")
    items = {item.key: item for item in asked.train[: args.problems]}
    strategy = as_strategy(adar1(args.samples, max_tokens=args.max_tokens, short=quick))
    work = folder / "work"
    shutil.rmtree(work, ignore_errors=True)
    settings = Settings(
        seed=seed, concurrency=len(items), timeout=None, check=lambda q, a: asked.score(items[q.id], a),
        out=work / "rows.jsonl", durable=False, traces=True,
    )  # fmt: skip
    ample = 4 * args.samples * (args.max_tokens + 512)  # of each question: more than it can take
    questions = [Question(key, item.prompt) for key, item in items.items()]
    done = asyncio.run(solved(questions, strategy, long, asked.style, str(ample), settings))
    lines = (work / "rows.jsonl.run" / "traces.jsonl").read_text().splitlines()
    pairs = [json.loads(line) for row in map(json.loads, lines) for line in row["traces"]]
    return {"pairs": pairs, "drawn": sum(done.spent.values()), "questions": len(questions)}


def run(arm: str, seed: int, args: argparse.Namespace) -> dict[str, Any]:
    """Train an arm and measure it."""
    begin = time.perf_counter()
    tokenizer: Any = AutoTokenizer.from_pretrained(THINKER)
    asked = problems(seed, tokenizer, args, HIGH)
    there = made(seed, asked, args)
    folder = there.short if arm == SHORT else there.hybrid
    drawn = (there.drawn[0], there.drawn[1] if arm in LEVELS else 0)
    counts = {level: sum(pair["level"] == level for pair in there.pairs) for level in LEVELS[ADAR1]}
    last: dict[str, float] = {}
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    if arm in LEVELS:
        pairs = [pair for pair in there.pairs if pair["level"] in LEVELS[arm]]
        trainer = trained(
            DPOTrainer, DPOConfig, folder, pairs, tokenizer, seed, args, lr=args.lr, steps=args.steps, beta=args.beta
        )
        model = trainer.model
        last = {
            key: row[key]
            for row in trainer.state.log_history
            if "loss" in row
            for key in ("loss", "rewards/accuracies")
        }
    drawer = Drawer(THINKER, torch.float32)
    drawer.take(model.eval())
    middle = time.perf_counter()
    grader = Grader(asked, lambda ids: str(tokenizer.decode(ids)), frozenset({drawer.end}), print)
    found = measured(drawer, tokenizer, asked, grader, args.max_tokens, seed)
    asked.close()
    gc.collect()
    return {
        "arm": arm, "seed": seed, **found, "drawn": {"short": drawn[0], "pairs": drawn[1]}, "pairs": counts,
        "last step": last, "seconds": {"training": middle - begin, "measuring": time.perf_counter() - middle},
    }  # fmt: skip


def untrained(config: Mapping[str, Any], seeds: Sequence[int]) -> list[dict[str, Any]]:
    """What the untrained model does with these problems and draws, measured by rewards_thinker.py.

    Raises:
        SystemExit: it has measured others.
    """
    there = json.loads(UNTRAINED.read_text())
    same = {key: there["config"][key] == config[key] for key in ("train", "heldout", "max_tokens")}
    rows = [row for row in there["runs"] if row["reward"] in (START, *BRIEFER) and row["seed"] in seeds]
    if not all(same.values()) or len(rows) < (1 + len(BRIEFER)) * len(seeds):
        raise SystemExit(f"{UNTRAINED.name} has not the rows of seeds {seeds} with {config}; run rewards_thinker.py")
    return [{"arm": row["reward"], "seed": row["seed"], **row["asks"][0], "drawn": {}} for row in rows]


def shown(values: Sequence[float], scale: float = 1.0, sign: str = "") -> str:
    """A mean with its 95 % interval over seeds."""
    of = interval([scale * value for value in values])
    ends = f" [{of['low']:{sign}.1f}, {of['high']:{sign}.1f}]" if len(values) > 1 else ""
    return f"{of['mean']:{sign}.1f}{ends}"


def summary(content: Mapping[str, Any]) -> str:
    """The table, as Markdown: differences are to the start asked at high effort, paired by seed."""
    config = content["config"]
    found: dict[str, dict[int, Any]] = {}
    for row in content["untrained"] + content["runs"]:
        found.setdefault(row["arm"], {})[row["seed"]] = row
    lines = [
        f"**AdaR1 on the thinking model**: {config['samples']} long and {config['samples']} short traces of each of "
        f"{config['problems']} problems, {config['steps']} steps of {config['batch']} pairs, {config['heldout']} "
        "held-out problems a seed.",
        "",
        "| arm | seeds | accuracy | minus `start` | tokens | minus `start` | cut | tokens drawn for its data |",
        "|---" * 8 + "|",
    ]
    start = found.get(START, {})
    for arm, mine in found.items():
        rows, both = list(mine.values()), sorted(mine.keys() & start.keys())
        less = [
            shown([scale * (mine[s][key] - start[s][key]) for s in both], sign="+") if both and arm != START else ""
            for key, scale in (("accuracy", 100), ("tokens", 1))
        ]
        drawn = sum(sum(row["drawn"].values()) for row in rows) / len(rows)
        cut = 100 * sum(row["cut"] for row in rows) / len(rows)
        lines.append(
            f"| {arm} | {len(rows)} | {shown([row['accuracy'] for row in rows], 100)} | {less[0]} | "
            f"{shown([row['tokens'] for row in rows])} | {less[1]} | {cut:.0f} % | {drawn:,.0f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> int:
    """Run what is missing, then write and print the summary of all that is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arms", nargs="*", default=list(ARMS), choices=ARMS, metavar="NAME", help="default: all")
    parser.add_argument("--seeds", type=int, default=3, help="default: %(default)s")
    parser.add_argument("--first-seed", type=int, default=FIRST_SEED, help="default: %(default)s")
    parser.add_argument("--train", type=int, default=512, help="problems not held out (default: %(default)s)")
    parser.add_argument("--problems", type=int, help="of them, trained on (default: %(default)s)")
    parser.add_argument("--heldout", type=int, default=192, help="held-out problems (default: %(default)s)")
    parser.add_argument("--max-tokens", type=int, default=512, help="of a trace (default: %(default)s)")
    parser.add_argument("--brief", type=int, help="traces of a problem at low effort (default: %(default)s)")
    parser.add_argument("--samples", type=int, default=3, help="traces of each model (default: %(default)s)")
    parser.add_argument("--epochs", type=int, help="of the short model (default: %(default)s)")
    parser.add_argument("--sft-lr", type=float, help="of the short model (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=32, help="of DPO (default: %(default)s)")
    parser.add_argument("--batch", type=int, help="examples or pairs of a step (default: %(default)s)")
    parser.add_argument("--lr", type=float, default=5e-4, help="of DPO (default: %(default)s)")
    parser.add_argument("--beta", type=float, default=0.1, help="of DPO (default: %(default)s)")
    parser.add_argument("--folder", type=Path, default=ROOT / "runs" / "adar1-thinker", help="default: %(default)s")
    parser.add_argument("--quick", action="store_true", help="few problems, one seed: means nothing")
    parser.add_argument("--summary", action="store_true", help="run nothing")
    parser.add_argument("--out", type=Path, help=f"default: {TARGET.name} among the results; none if quick")
    parser.set_defaults(**BRIEF)
    args = parser.parse_args()
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    if args.quick:
        args.arms, args.seeds, args.folder = list(ARMS[:3]), 1, args.folder / "quick"
        args.train, args.heldout, args.max_tokens, args.steps, args.samples, args.brief = 8, 8, 256, 2, 2, 2
    out = args.out or (None if args.quick else TARGET)
    runs = Runs(args.folder, {key: getattr(args, key) for key in SHARED})
    for arm, seed in runs.missing(
        args.arms, range(args.first_seed, args.first_seed + (0 if args.summary else args.seeds))
    ):
        runs.keep(row := run(arm, seed, args))
        print(time.strftime("%H:%M"), json.dumps(results.to_json(row)), file=sys.stderr, flush=True)
    content: dict[str, Any] = {"config": runs.config, "runs": runs.with_those_of(out, ARMS)}
    seeds = sorted({row["seed"] for row in content["runs"]})
    content["untrained"] = [] if args.quick else untrained(runs.config, seeds)
    content["versions"] = results.versions() | results.installed(("trl", "accelerate"))
    published(content, summary(content), out, Place(TARGET, ROOT / "docs" / "rewards-measured.md", MARKS))
    return 0


if __name__ == "__main__":
    sys.exit(main())
