"""Budget guidance on SmolLM2-135M through transformers, with a Gamma head that is trained here on its own traces.

    python benchmarks/smollm2_guidance.py            # writes benchmarks/results/smollm2_guidance.json
    python benchmarks/smollm2_guidance.py --quick    # smoke test: few questions, writes nothing without --out

The task is sums without a carry of a number of two digits and one of one digit, after worked examples that name the
numbers first, or one of them, or calculate at once; so the model itself varies, for a reason that can be seen at the
beginning of a sentence. Asked to answer without the sentence that calculates, it is hardly ever right.

A head is trained on free traces of problems that are not evaluated. How well it tells the tokens of thinking still to
come is measured on the last fifth of these problems, which it is not trained on, against a Gamma of all lengths and
against Gammas by the number of tokens so far. The evaluation asks other problems, each at two budgets of sampled
tokens, answer included, in these ways, all at temperature 0.7:

- ``truncation``: until the tokens are gone.
- ``forcing``: thinking is closed and the answer asked for when only the room for it is left.
- ``guidance``: the library's, which does that, too.
- ``constant``: guidance by a head that says the same everywhere: what drawing the first token of a sentence at
  temperature 1, as the method has it, does by itself.

Many questions are choices of one request: its prompt is the worked examples, and a steer forces each choice through its
own question before that choice's own steer takes over. A run that was stopped, kill -9 included, goes on where it was:
``--folder`` (runs/smollm2_guidance) holds the traces, the head and the answers of every batch that was whole.

Intervals are percentile bootstraps that draw questions and seeds, paired by question.

A batch of 64 traces takes half a minute on a busy machine of 2 cores, a batch of 2 questions as long; the figures in
the repository are of ``--problems 192 --questions 100``.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy.stats import gamma, spearmanr

from budgeteer.core.errors import InvalidInput
from budgeteer.core.steer import CONTINUE, STOP, Action, Need, Rows, Snapshot, State, Steer
from budgeteer.engine.head import Head, load_head, save_head
from budgeteer.lab.heads.guidance import log_density, train_guidance
from budgeteer.lab.stats import Paired, crossed, crossed_weights
from budgeteer.models.model import Request
from budgeteer.models.smollm2 import smollm2
from budgeteer.models.transformers import Transformers
from budgeteer.solve.lines import Lines
from budgeteer.solve.styles import Example, TaskInfo, few_shot
from budgeteer.steer import budget_forcing, budget_guidance
from budgeteer.steer.kit import combine

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "benchmarks" / "results" / "smollm2_guidance.json"
TEMPERATURE, CAP, TRACES, SEEDS, ROWS = 0.7, 60, 2, 4, 64
BUDGETS = (22, 30)
"""A trace that calculates at once has 19 tokens with its answer, one that names a number first 27, both numbers 35."""
SIDES = ("truncation", "forcing", "guidance", "constant")
STEPS, BATCH, OFTEN, RESERVED = 300, 512, 20, 150
"""The first RESERVED problems are for the evaluation alone."""


def worked(a: int, b: int, first: bool, second: bool) -> Example:
    """A sum, with its numbers named before or not."""
    named = [f"The first number is {a}."] * first + [f"The second number is {b}."] * second
    return Example(f"{a} + {b} =", " ".join([*named, f"{a} + {b} = {a + b}."]), str(a + b))


EXAMPLES = (
    worked(34, 5, True, True), worked(7, 62, False, False), worked(51, 8, True, False), worked(6, 43, True, True),
    worked(83, 4, False, False), worked(25, 2, False, True),
)  # fmt: skip
STYLE = replace(few_shot(TaskInfo("sums", True, EXAMPLES)), answer_tokens=7)


def problems() -> list[tuple[str, str]]:
    """All (question, answer) that are not among the examples, shuffled."""
    pairs = [(10 * t + u, b) for t in range(1, 10) for u in range(1, 9) for b in range(1, 10 - u)]
    questions = [(f"{a} + {b} =", str(a + b)) for x, y in pairs for a, b in ((x, y), (y, x))]
    shown = {example.question for example in EXAMPLES}
    questions = [item for item in questions if item[0] not in shown]
    random.Random(0).shuffle(questions)
    return questions


@dataclass(frozen=True)
class Cell:
    """One choice of a batch: a question, the tokens that it may have, and the steer that it is decoded with."""

    question: str
    budget: int
    steer: Steer | None = None


@dataclass(frozen=True, eq=False)
class Seen:
    """Of each choice: the tokens after its question that others follow, and the states before each of them."""

    tokens: dict[int, list[int]] = field(default_factory=dict)
    states: dict[int, list[torch.Tensor]] = field(default_factory=dict)


def together(cells: Sequence[Cell], asked: Sequence[list[int]], seen: Seen | None) -> Steer:
    """Forces every choice through its own question, then hands it to its own steer, whose row begins there.

    Args:
        cells: of the choices.
        asked: tokens of each cell's question, after the prompt that all share.
        seen: is filled, if given.
    """

    def init(rows: Rows) -> State:
        return [cell.steer and cell.steer.init(Rows(("0",), np.array([cell.budget]), rows.seed)) for cell in cells]

    def step(state: State, now: Snapshot) -> tuple[Action, State]:
        state, m = list(state), len(now.row)
        decision, force = np.full(m, CONTINUE, np.int8), np.full(m, -1)
        logits, drawn = None, np.zeros(m, np.bool_)
        for i, row in enumerate(now.row.tolist()):
            cell, said = cells[row], len(asked[row])
            length = int(now.length[i]) - said
            if length < 0:
                force[i] = asked[row][now.length[i]]
                continue
            if seen is not None:
                seen.tokens[row] = now.tokens(i)[said:].tolist()
                seen.states.setdefault(row, []).append(now.hidden[i].half())
            if length >= cell.budget:
                decision[i] = STOP
            elif cell.steer is not None:
                own = replace(
                    now,
                    row=np.zeros(1, np.int64),
                    length=np.array([length]),
                    cap=np.array([cell.budget]),
                    closed=np.where(now.closed[i : i + 1] < 0, -1, now.closed[i : i + 1] - said),
                    answered=now.answered[i : i + 1] - said,
                    last=np.array([now.last[i] if length else -1]),
                    forced=now.forced[i : i + 1],
                    temperature=now.temperature[i : i + 1],
                    group=np.zeros(1, np.int64),
                    tokens=lambda _, i=i, said=said: now.tokens(i)[said:],
                    close=lambda _, i=i: now.close(i),
                    logits=now.logits[i : i + 1],
                    hidden=now.hidden[i : i + 1],
                )
                action, state[row] = cell.steer.step(state[row], own)
                if action.decision is not None:
                    decision[i] = action.decision[0]
                if action.logits is not None and (action.drawn is None or action.drawn[0]):
                    logits = now.logits.clone() if logits is None else logits
                    logits[i], drawn[i] = action.logits[0], True
        return Action(decision, force, logits, drawn if logits is not None else None), state

    return Steer(init, step, frozenset(Need) - {Need.MARGIN, Need.EMBEDDINGS})


def batch(model: Transformers, cells: Sequence[Cell], seed: int, keep: bool = False) -> tuple[list[Any], Seen]:
    """(text, sampled tokens) of every cell, and what was seen of them."""
    shots = STYLE.prompt("|").partition(" |")[0]  # up to a token's end, and with no stop text behind it
    prompt = model.inside.encode(shots)
    asked = [model.inside.encode(STYLE.prompt(cell.question)) for cell in cells]
    if any(ids[: len(prompt)] != prompt for ids in asked):
        raise InvalidInput("a question's tokens do not begin with those of the examples")
    tokens = [ids[len(prompt) :] for ids in asked]
    seen = Seen()
    steer = together(cells, tokens, seen if keep else None)
    # one more than any row may have: its steer ends it, and has seen all of its tokens then
    most = 1 + max(len(ids) + cell.budget for ids, cell in zip(tokens, cells, strict=True))
    request = Request(shots, most, len(cells), TEMPERATURE, STYLE.stop, seed=seed, steer=steer, close=STYLE.close)
    response = asyncio.run(model.generate(request))
    return [
        (choice.text.partition("\nReasoning:")[2], (choice.tokens or 0) - len(ids))
        for choice, ids in zip(response.choices, tokens, strict=True)
    ], seen


def progress(what: str, done: int, total: int, begin: float, before: int) -> None:
    left = (time.monotonic() - begin) * (total - done) / max(done - before, 1) / 60
    print(f"\r{what}: {done}/{total}, {left:.1f} min left   ", end="\n" * (done == total), file=sys.stderr, flush=True)


def traces(model: Transformers, asked: Sequence[tuple[str, str]], folder: Path) -> list[dict[str, Any]]:
    """Free traces, with the states before every token of their thinking; a file for each batch.

    A trace whose thinking did not close counts as closing at the cap.
    """
    per, begin = ROWS // TRACES, time.monotonic()
    files = [folder / f"traces-{k:03d}.pt" for k in range(-(-len(asked) // per))]
    before = sum(file.exists() for file in files)
    for k, file in enumerate(files):
        if file.exists():
            continue
        cells = [Cell(question, CAP) for question, _ in asked[k * per : (k + 1) * per] for _ in range(TRACES)]
        answers, seen = batch(model, cells, 1000 + k, keep=True)
        rows = []
        for i, ((text, count), cell) in enumerate(zip(answers, cells, strict=True)):
            tokens = seen.tokens[i]
            said = accumulate(model.inside.pieces[token] for token in tokens)
            closed = next((n for n, so_far in enumerate(said, 1) if STYLE.close in so_far), None)
            n = closed or len(
                tokens
            )  # the last token of a row that ended by itself is seen by no step: nothing follows it
            states = torch.stack(seen.states[i])
            rows.append({
                "question": cell.question, "text": text, "count": count, "closed": closed is not None,
                "token": np.array(tokens[:n], np.int64), "left": (closed or CAP) - np.arange(n),
                "states": states[:n].clone(),
            })  # fmt: skip
        torch.save(rows, file.with_suffix(".part"))
        file.with_suffix(".part").replace(file)
        progress("traces", k + 1, len(files), begin, before)
    return [row for file in files for row in torch.load(file, weights_only=False)]


def density(head: Head, rows: Sequence[dict[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
    """(log-density of log(L + 1), its predicted mean) at every position, given the token that came next."""
    vocab, pairs = head.settings["vocab"], []
    for row in rows:
        token = torch.from_numpy(row["token"])
        both = F.softplus(head(row["states"])) + 1e-4
        shape, rate = (both[:, s : s + vocab].gather(1, token[:, None])[:, 0] for s in (0, vocab))
        ell = torch.from_numpy(np.log(row["left"] + 1.0))
        pairs.append((log_density(shape, rate, ell).numpy(), (shape / rate).numpy()))
    return np.concatenate([a for a, _ in pairs]), np.concatenate([b for _, b in pairs])


def likeliest(ell: np.ndarray) -> tuple[float, float]:
    """Shape and rate of the Gamma under which these are likeliest."""
    shape, _, scale = gamma.fit(ell, floc=0)
    return float(shape), 1 / float(scale)


def prediction(
    head: Head, pieces: Sequence[str], trained: Sequence[dict[str, Any]], held: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """How well remaining lengths of traces that were not trained on are predicted, by the head and by less."""
    ell, own = (np.concatenate([np.log(row["left"] + 1.0) for row in rows]) for rows in (held, trained))
    at, before = (np.concatenate([np.arange(len(row["left"])) // 4 for row in rows]) for rows in (held, trained))
    start = np.concatenate([[True, *(pieces[t].endswith(".") for t in row["token"][:-1])] for row in held])
    constant = np.tile(likeliest(own), (len(ell), 1))
    bins = {k: likeliest(own[before == k] if (before == k).sum() >= OFTEN else own) for k in set(at.tolist())}
    so_far = np.array([bins[k] for k in at.tolist()])
    values, guess = density(head, held)
    guesses = {"head": (values, guess)}
    for name, both in (("constant", constant), ("tokens so far", so_far)):
        shape, rate = torch.from_numpy(both).unbind(1)
        guesses[name] = log_density(shape, rate, torch.from_numpy(ell)).numpy(), both[:, 0] / both[:, 1]
    report: dict[str, Any] = {"traces": len(held), "positions": len(ell), "sentence_starts": int(start.sum())}
    for where, mask in (("all positions", np.ones(len(ell), np.bool_)), ("sentence starts", start)):
        report[where] = {
            name: {
                "log_likelihood": float(value[mask].mean()),
                "correlation": None if name == "constant" else float(np.corrcoef(mean[mask], ell[mask])[0, 1]),
                # one position whose rate is near 0 moves the correlation, and not that of the ranks
                "rank_correlation": None if name == "constant" else float(spearmanr(mean[mask], ell[mask]).statistic),
            }
            for name, (value, mean) in guesses.items()
        }
    return report


def trained_head(model: Transformers, rows: Sequence[dict[str, Any]], folder: Path) -> Head:
    """The Gamma head of these traces; trained once for each number of them."""
    name = f"head-{len(rows)}"
    if not (folder / f"{name}.safetensors").exists():
        head = train_guidance(
            torch.cat([row["states"] for row in rows]),
            np.concatenate([row["token"] for row in rows]),
            np.concatenate([row["left"] for row in rows]),
            vocab=len(model.inside.embed),
            fingerprint=model.inside.fingerprint,
            line_ends=(".",),
            steps=STEPS,
            seed=0,
            batch=BATCH,
            often=OFTEN,
        )
        save_head(head, folder / f"{name}.safetensors")
    return load_head(name, folder)


def same_everywhere(head: Head, rows: Sequence[dict[str, Any]]) -> Head:
    """A head that knows the Gamma of all lengths and nothing else."""
    shape, rate = likeliest(np.concatenate([np.log(row["left"] + 1.0) for row in rows]))
    bias = torch.tensor([shape, rate]).double().repeat_interleave(head.settings["vocab"])
    weights = {name: torch.zeros_like(tensor) for name, tensor in head.weights.items() if name != "columns"}
    weights |= {
        "scale": head.weights["scale"],
        "w2": torch.zeros(len(weights["w2"]), len(bias), dtype=bias.dtype),
        "b2": torch.log(torch.expm1(bias - 1e-4)),
    }
    return replace(head, weights=weights)


def evaluate(
    model: Transformers, head: Head, constant: Head, asked: Sequence[tuple[str, str]], path: Path
) -> list[list[Any]]:
    """[questions][budget][side][seed] -> (text, tokens); batches that ``path`` has are not run again.

    Raises:
        InvalidInput: it has answers of other settings.
    """
    lines, begin = Lines(path, sync=False), time.monotonic()
    per = max(ROWS // (len(BUDGETS) * len(SIDES) * SEEDS), 1)
    batches = {row["batch"]: row for row in lines.earlier}
    before, total = len(batches), -(-len(asked) // per)
    for k in range(total):
        questions = [text for text, _ in asked[k * per : (k + 1) * per]]
        about = [questions, BUDGETS, SIDES, SEEDS, TEMPERATURE]
        if k in batches:
            if batches[k]["about"] != json.loads(json.dumps(about)):
                raise InvalidInput(f"{path} holds answers of other settings; give another folder with --folder")
            continue
        cells = []
        for question in questions:
            for budget in BUDGETS:
                for side in SIDES:
                    own = {"guidance": head, "constant": constant}.get(side)
                    steer = budget_forcing(reserve=STYLE.answer_tokens)
                    if own is not None:
                        steer = combine(steer, budget_guidance(own, reserve=STYLE.answer_tokens))
                    cells += [Cell(question, budget, None if side == "truncation" else steer)] * SEEDS
        answers, _ = batch(model, cells, 2000 + k)
        shape = (len(questions), len(BUDGETS), len(SIDES), SEEDS, 2)
        row = {"batch": k, "about": about, "answers": np.array(answers, object).reshape(shape).tolist()}
        lines.append(row)
        batches[k] = row
        progress("questions", k + 1, total, begin, before)
    lines.close()
    return [answers for k in range(total) for answers in batches[k]["answers"]]


def shown(ci: Paired) -> dict[str, float]:
    """As JSON."""
    return {"mean": ci.mean, "low": ci.low, "high": ci.high}


def analyse(asked: Sequence[tuple[str, str]], answers: Sequence[Any]) -> list[dict[str, Any]]:
    """A row for each budget and side; differences are guidance minus that side."""
    right, tokens, whole = (
        np.array([
            [[[value(said, want) for said in seeds] for seeds in sides] for sides in budgets]
            for budgets, (_, want) in zip(answers, asked, strict=True)
        ])
        for value in (
            lambda said, want: float(STYLE.read(said[0]) == want),
            lambda said, want: float(said[1]),
            lambda said, want: float(STYLE.close in said[0]),
        )
    )  # fmt: skip
    weights, table, best = crossed_weights(len(asked), SEEDS), [], SIDES.index("guidance")
    for b, budget in enumerate(BUDGETS):
        for s, side in enumerate(SIDES):
            table.append({
                "budget": budget, "side": side, "tokens": float(tokens[:, b, s].mean()),
                "closed": float(whole[:, b, s].mean()), "accuracy": shown(crossed(right[:, b, s].T, weights)),
                "guidance_minus": shown(crossed((right[:, b, best] - right[:, b, s]).T, weights)),
                "tokens_guidance_minus": shown(crossed((tokens[:, b, best] - tokens[:, b, s]).T, weights)),
            })  # fmt: skip
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two questions, a head of two batches of traces")
    parser.add_argument("--problems", type=int, default=320, help="that the head is trained and measured on")
    parser.add_argument("--questions", type=int, default=120, help="that are evaluated")
    parser.add_argument("--folder", type=Path, help="runs/smollm2_guidance, with --quick smollm2_guidance-quick")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    size, evaluated = (2 * ROWS // TRACES, 2) if args.quick else (args.problems, args.questions)
    folder = args.folder or ROOT / "runs" / ("smollm2_guidance-quick" if args.quick else "smollm2_guidance")
    folder.mkdir(parents=True, exist_ok=True)
    every = problems()
    asked, tuned = every[:evaluated], every[RESERVED : RESERVED + size]
    model = Transformers(smollm2())
    rows = traces(model, tuned, folder)
    cut = size * 4 // 5 * TRACES
    head = trained_head(model, rows[:cut], folder)
    answers = evaluate(model, head, same_everywhere(head, rows[:cut]), asked, folder / f"answers-{cut}.jsonl")
    asyncio.run(model.aclose())
    answer = dict(tuned)
    free = [(STYLE.read(row["text"]) == answer[row["question"]], row["count"]) for row in rows]
    result = {
        "model": "SmolLM2-135M-Instruct Q4_1, dequantised, transformers", "temperature": TEMPERATURE,
        "problems": {"trained": cut // TRACES, "held out": size - cut // TRACES, "traces of each": TRACES},
        "free traces": {
            "right": float(np.mean([r for r, _ in free])),
            "tokens": np.quantile([n for _, n in free], [0.1, 0.25, 0.5, 0.75, 0.9]).tolist(),
        },
        "prediction": prediction(head, model.inside.pieces, rows[:cut], rows[cut:]),
        "questions": evaluated, "seeds": SEEDS, "table": analyse(asked, answers),
    }  # fmt: skip
    for where in ("all positions", "sentence starts"):
        print(where, result["prediction"][where])
    for row in result["table"]:
        acc, less = row["accuracy"], row["guidance_minus"]
        print(
            f"{row['budget']:3} tokens  {row['side']:10}  used {row['tokens']:5.1f}  closed {row['closed']:.2f}  "
            f"right {acc['mean']:.3f} [{acc['low']:.3f}, {acc['high']:.3f}]  guidance minus this "
            f"{less['mean']:+.3f} [{less['low']:+.3f}, {less['high']:+.3f}]"
        )
    out = args.out or (None if args.quick else OUT)
    if out is not None:
        out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    torch.set_num_threads(2)  # of this process, so not where tests call main()
    main()
