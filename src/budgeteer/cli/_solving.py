"""Shared by the commands that solve questions: the model, live progress, a clean pause, the summary."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from budgeteer.cli._options import add_reading, task_of

if TYPE_CHECKING:
    from budgeteer.lab.questions import QuestionSet
    from budgeteer.models.model import Model
    from budgeteer.prices import PriceTable
    from budgeteer.solve import Question
    from budgeteer.solve.runner import Pause, Progress, Row, Run

T = TypeVar("T")


def add_solving(parser: argparse.ArgumentParser) -> None:
    """Add the options that name the model and say how it is asked."""
    parser.add_argument(
        "--model",
        default="reasoner",
        help="reasoner, thinker, smollm2, gguf:PATH, hf:FOLDER, http://HOST/v1#NAME or anthropic:NAME "
        "(default %(default)s)",
    )
    parser.add_argument(
        "--style",
        default=None,
        metavar="NAME[:key=value,...]",
        help="how the model is asked: reasoner, few-shot, direct, chat or another one of budgeteer methods style "
        "(default: what fits the model and the task)",
    )
    parser.add_argument(
        "--dialect",
        default=None,
        metavar="NAME",
        help="of an endpoint, for how to think: vllm, sglang, llama.cpp, ollama, nim, openrouter, deepseek, dashscope "
        "(default openai)",
    )
    parser.add_argument(
        "--probe",
        action="store_true",
        help="first ask an endpoint what it can do: two calls of a token, not budgeted",
    )
    parser.add_argument(
        "--limit", type=int, default=None, metavar="N", help="the first N questions; of a task, N of it"
    )
    add_reading(parser)
    parser.add_argument(
        "--pass-at",
        type=int,
        default=1,
        metavar="K",
        help="a question counts as right if one of the first K candidates of the strategy is (default %(default)s)",
    )
    parser.add_argument("--task-seed", type=int, default=0, help="seed of a task's questions (default %(default)s)")
    parser.add_argument("--concurrency", type=int, default=8, help="questions at once (default %(default)s)")
    parser.add_argument("--timeout", type=float, default=600.0, help="seconds a question (default %(default)g)")
    parser.add_argument(
        "--prices", default=None, metavar="FILE", help="TOML, LiteLLM's JSON, or genai (the shipped ones)"
    )


def questions_of(args: argparse.Namespace) -> QuestionSet:
    """The questions that the arguments name."""
    from budgeteer.lab import questions

    return questions.load(task_of(args, args.source), limit=args.limit, seed=args.task_seed)


def prices_of(given: str | None, *, money: bool) -> PriceTable | None:
    """The price table that the arguments name; for a money budget without one, the shipped table."""
    from budgeteer.prices import genai, litellm, user

    if given is None and not money:
        return None
    if given is None or given == "genai":
        return genai.load()
    return user.load(given) if Path(given).suffix == ".toml" else litellm.load(given)


def billed(model: str) -> bool:
    """Whether a model's calls are billed; those of models that run on this machine are not."""
    return endpoint(model) or model.startswith("anthropic:")


def durable(model: str, *strategies: object, asked: QuestionSet | None = None) -> bool:
    """Whether some calls of a run are billed: those of its model, those of another one that a strategy asks, or those
    of a tool that its questions have."""
    from budgeteer.solve import Strategy

    if billed(model):
        return True
    if asked is not None and asked.tools is not None and any(tool.cost for tool in asked.tools(asked.questions[0])):
        return True
    others = [other for strategy in strategies if isinstance(strategy, Strategy) for other in strategy.models]
    if not others:
        return False
    return any(_is(other, "openai.OpenAI") or _is(other, "anthropic.Anthropic") for other in others)


def _is(model: Model, kind: str) -> bool:
    """Whether a model is of a class of ``budgeteer.models``, which is not imported for it: it may need a package that
    is not installed, and then no model is of it."""
    module, _, name = kind.partition(".")
    loaded = sys.modules.get(f"budgeteer.models.{module}")
    return loaded is not None and isinstance(model, getattr(loaded, name))


async def close(model: Model, *strategies: object) -> None:
    """Close a run's model and the others that its strategies ask."""
    from budgeteer.solve import Strategy

    await model.aclose()
    for strategy in strategies:
        for other in strategy.models if isinstance(strategy, Strategy) else ():
            await other.aclose()


def endpoint(model: str) -> bool:
    """Whether a model is an OpenAI-compatible endpoint."""
    return model.startswith(("http://", "https://"))


def model_of(args: argparse.Namespace) -> Model:
    """The model that the arguments name. An endpoint that is asked in messages, or probed, declares no capability."""
    from budgeteer.core.errors import InvalidInput
    from budgeteer.models.load import load_model

    if args.probe and not endpoint(args.model):
        raise InvalidInput(f"--probe asks an endpoint what it can do; {args.model} says so itself")
    if args.dialect is not None and not endpoint(args.model):
        raise InvalidInput(f"--dialect says how an endpoint is told to think; {args.model} is none, leave it out")
    bare = endpoint(args.model) and (args.probe or (args.style or "").partition(":")[0] in ("chat", "think"))
    dialect = {} if args.dialect is None else {"dialect": args.dialect}
    return load_model(args.model, **dialect, **({"capabilities": frozenset()} if bare else {}))


async def probed(args: argparse.Namespace, model: Model) -> None:
    """Probe an endpoint's capabilities, if the arguments say so, and print the result and what it cost."""
    if args.probe and _is(model, "openai.OpenAI"):
        asked: Any = model
        used = await asked.probe()
        abilities = ", ".join(sorted(model.capabilities)) or "chat only"
        sys.stderr.write(f"{model.name}: {abilities}; found out with {used.input} tokens in, {used.output} out\n")


class Live:
    """One line of progress, redrawn on a terminal, every ten seconds elsewhere.

    Args:
        name: of what runs, or ``""``.
    """

    def __init__(self, name: str = "") -> None:
        self.name, self.live, self.last, self.drawn = name, sys.stderr.isatty(), time.monotonic(), False

    def __call__(self, row: Row, progress: Progress) -> None:
        """Take news of a question."""
        now = time.monotonic()
        if now - self.last >= (0.1 if self.live else 10):
            self.last = now
            self.draw(line(progress, self.name))

    def draw(self, text: str) -> None:
        """Show one line."""
        if self.live:
            sys.stderr.write("\r\x1b[K" + text[: shutil.get_terminal_size().columns - 1])
            self.drawn = True
        else:
            sys.stderr.write(text + "\n")
        sys.stderr.flush()

    def close(self) -> None:
        """Remove the line."""
        if self.drawn:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()


def line(progress: Progress, name: str = "") -> str:
    """Progress in one line: answers, how many are right, tokens, cost, time left."""
    from budgeteer.draw.svg import compact, percent

    parts = [f"{progress.done} of {progress.total}", f"{progress.answered} answered"]
    if progress.graded:
        parts.append(f"{percent(progress.correct / progress.graded)} right")
    tokens = progress.tokens
    parts.append(f"{compact(tokens['input'])} tokens in, {compact(tokens['output'])} out")
    parts += [f"{amount(kind, n)} of {amount(kind, progress.limit[kind])}" for kind, n in progress.units.items()]
    if progress.cost is not None and "money" not in progress.units:
        parts.append(f"${progress.cost:.4f}")
    if progress.left is not None:
        left = progress.left
        parts.append(f"{left:.0f} s left" if left < 120 else f"{left / 60:.0f} min left")
    return (f"{name}: " if name else "") + ", ".join(parts)


def amount(kind: str, units: int) -> str:
    """Units for people: dollars for money, else a short number and its kind."""
    from budgeteer.draw.svg import compact

    return f"${units / 10**12:.4f}" if kind == "money" else f"{compact(units)} {kind}"


def summary(run: Run, pass_at: int = 1) -> str:
    """The table at the end of a command: one line for each figure.

    Args:
        pass_at: k of Pass@k, by which the rows were graded.
    """
    from budgeteer.draw.svg import compact, percent
    from budgeteer.lab.stats import wilson
    from budgeteer.solve import StoppedBy

    rows, n = run.rows, max(1, len(run.rows))
    graded = [row for row in rows if row["correct"] is not None]
    lines = [("questions", f"{len(rows)}, {sum(row['answer'] is not None for row in rows)} with an answer")]
    if graded:
        share = wilson(sum(row["correct"] for row in graded), len(graded))
        measure = "accuracy" if pass_at == 1 else f"pass@{pass_at}"
        lines.append((measure, f"{percent(share.mean)} [{percent(share.low)}, {percent(share.high)}]"))
    tokens = {name: sum(row["tokens"][name] for row in rows) for name in ("input", "output", "reasoning")}
    reasoning = f", {compact(tokens['reasoning'])} of it reasoning" if tokens["reasoning"] else ""
    lines.append(("tokens", f"{compact(tokens['input'])} in, {compact(tokens['output'])} out{reasoning}"))
    lines.append(("calls", f"{sum(row['calls'] for row in rows):,}"))
    for kind, limit in run.limit.items():
        spent, over = run.spent[kind], run.overshoot[kind]
        wasted = sum(row["wasted"][kind] for row in rows)
        text = f"{amount(kind, spent)} of {amount(kind, limit)}, {amount(kind, spent // n)} a question"
        lines.append(("spent", text))
        lines.append(("overshoot", amount(kind, over)))
        lines.append(("wasted", f"{amount(kind, wasted)}, on calls that brought no answer"))
    if any("cost" in row for row in rows) and "money" not in run.limit:
        lines.append(("cost", f"${sum(row['cost'] for row in rows):.4f}"))
    ends = Counter(StoppedBy.ERROR if failed(row) else row["stopped_by"] for row in rows)
    lines.append(("stopped by", ", ".join(f"{word} {count}" for word, count in ends.most_common())))
    errors = Counter(row["stopped_by"] for row in rows if failed(row))
    if errors:
        lines.append(("error", errors.most_common(1)[0][0].removeprefix(f"{StoppedBy.ERROR}: ")))
    lines.append(("seconds", f"{run.seconds:.1f}"))
    return "\n".join(f"{name:<11} {text}" for name, text in lines)


def unverified(asked: QuestionSet) -> str:
    """A line about the calls of the verifier that failed, ``""`` if none did."""
    if not asked.failures:
        return ""
    return f"the verifier failed {len(asked.failures)} times, which counts as wrong; the first: {asked.failures[0]}\n"


def failed(row: Row) -> bool:
    """Whether an error ended the answer of a question."""
    from budgeteer.solve import StoppedBy

    return bool(row["stopped_by"].startswith(StoppedBy.ERROR))


def unasked(row: Row) -> bool:
    """Whether the model was never called for a question, since no call fitted into its budget."""
    return row["answer"] is None and not row["calls"] and not failed(row)


async def not_one_fits(rows: Sequence[Row], questions: Sequence[Question], **how: Any) -> str:
    """A sentence about the first of the rows without a call: the budget of its question, and what a call needs.

    Args:
        how: arguments of :func:`budgeteer.solve.least.least`.
    """
    from budgeteer.solve.least import least

    row = rows[0]
    question = next(asked for asked in questions if asked.id == row["id"])
    given: Mapping[str, int] = row["budget"]
    needs = []
    for kind, units in given.items():
        need = await least(kind, question, given=given, **how)
        if need is None:
            return f"not one call fits for question {row['id']!r}, however much it is given"
        if need > units:
            needs.append(f"{exactly(kind, need)} instead of {exactly(kind, units)}")
    more = " and ".join(needs) or "more of several kinds at once"
    return f"not one call fits: to ask question {row['id']!r} at all it needs {more}"


def exactly(kind: str, units: int) -> str:
    """Units in the notation of a budget; money is rounded up to what can be written."""
    from budgeteer.core.budget import Budget

    return str(Budget(kind, units)) if kind == "money" else f"{units} {kind}"


def all_failed(rows: Sequence[Row]) -> bool:
    """Whether no question has an answer and at least one failed: then the command has failed, too."""
    return not any(row["answer"] is not None for row in rows) and any(map(failed, rows))


def why_failed(rows: Sequence[Row]) -> str:
    """The reason of the first question that failed; ``""`` if none did."""
    return next((str(row["stopped_by"]).removeprefix("error: ") for row in rows if failed(row)), "")


def pausable(work: Callable[[Pause], Awaitable[T]], live: Live) -> T | None:
    """Run a coroutine; the first Ctrl-C lets the questions under way end, the second one interrupts them.

    None, with a line on standard error, where the endpoint does not answer.
    """
    from budgeteer.core.errors import EndpointDown
    from budgeteer.solve.runner import Pause

    async def main() -> T:
        pause, loop = Pause(), asyncio.get_running_loop()

        def interrupt() -> None:
            if pause.soft.is_set():
                pause.hard.set()
            else:
                pause.soft.set()
                live.draw("pausing: questions under way are ended first; once more to break them off")

        with contextlib.suppress(NotImplementedError, ValueError, RuntimeError):  # not here, or not the main thread
            loop.add_signal_handler(signal.SIGINT, interrupt)
        try:
            return await work(pause)
        finally:
            with contextlib.suppress(NotImplementedError, ValueError, RuntimeError):
                loop.remove_signal_handler(signal.SIGINT)

    try:
        return asyncio.run(main())
    except EndpointDown as error:
        live.close()
        sys.stderr.write(f"error: {error}\n")
        return None
    finally:
        live.close()


def command(name: str, positional: list[str], options: Mapping[str, object]) -> str:
    """The command line that resumes this run."""
    import shlex

    words = ["budgeteer", name, *positional]
    for option, value in options.items():
        if value is True:
            words.append(option)
        elif value is not None and value is not False:
            words += [option, f"{value:g}" if isinstance(value, float) else str(value)]
    return shlex.join(words)


def given(args: argparse.Namespace) -> dict[str, object]:
    """The options of :func:`add_solving` that differ from their defaults, as they were written."""
    parser = argparse.ArgumentParser()
    add_solving(parser)
    changed = {}
    for name, default in vars(parser.parse_args([])).items():
        if getattr(args, name) != default:
            changed["--" + name.replace("_", "-")] = getattr(args, name)
    return changed
