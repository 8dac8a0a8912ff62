"""Recipes at equal budgets: runs every arm for every seed, one process a core, resumable at any point.

Budgets in percent are shares of what ``grpo@100%`` uses with the same seed: that run goes first and defines them.
Every finished run is a file of its own under ``OUT/runs``; calling again with the same settings does what is missing.
"""

from __future__ import annotations

import json
import multiprocessing as mp
import os
import signal
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from multiprocessing.synchronize import Event
from pathlib import Path

from budgeteer.budget import Budget
from budgeteer.errors import BudgeteerError, InvalidInput
from budgeteer.lab import results as records
from budgeteer.lab.report import CONTROL
from budgeteer.lab.run import RunSpec, execute, one_thread
from budgeteer.rl import recipes
from budgeteer.rl.trainer import Progress, TrainConfig

REFERENCE = "grpo@100%"
"""Budgets in percent are shares of its tokens."""
CONTROLS = (CONTROL, "uniform-stop", "grpo")
"""Arms at the same budget that every arm is compared with: GRPO that ends a rollout at its answer, the strongest plain
baseline, then DUET's stopping rule with uniform groups, and plain GRPO."""
_WORKER_ENVIRONMENT = {
    **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"),
    # glibc: keep freed memory instead of giving it back and faulting it in again at every operator
    "MALLOC_MMAP_THRESHOLD_": str(1 << 25),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 32),
    "MALLOC_TOP_PAD_": str(1 << 26),
}


@dataclass(frozen=True, slots=True)
class Arm:
    """A recipe with its budget.

    >>> Arm.parse("duet@50%")
    Arm(recipe='duet', budget='50%')
    """

    recipe: str
    budget: str

    @classmethod
    def parse(cls, text: str) -> Arm:
        """Read ``recipe@budget``; without a budget, 100 %, and 0 tokens for ``untrained``.

        Raises:
            UnknownName, InvalidInput: no such recipe; not a budget in tokens.
        """
        recipe, _, budget = text.partition("@")
        recipes.get(recipe)
        if recipe == recipes.UNTRAINED and budget not in ("", "0"):
            raise InvalidInput(f"{recipe} takes no training step and has no budget; write {recipe}")
        parsed = Budget.parse(budget or ("0" if recipe == recipes.UNTRAINED else "100%"))
        if parsed.kind not in ("all", "output"):
            raise InvalidInput(f"budget {budget!r} of {recipe} is in {parsed.kind}; training budgets are in tokens")
        return cls(recipe, str(parsed))

    @property
    def label(self) -> str:
        """``recipe@budget``, as in results.json."""
        return f"{self.recipe}@{self.budget}"


@dataclass(frozen=True, slots=True)
class Update:
    """News of a run: from a worker to whoever shows progress."""

    name: str
    step: int
    steps: int
    used: int
    tokens: int | None
    seconds: float
    accuracy: float
    state: str  # running, done, paused, failed


@dataclass(frozen=True, slots=True)
class _End:
    """A worker has ended a run: ``error`` says why when it failed, else it is finished or paused."""

    error: str | None


def _worker(link: Connection, folder: Path, pause: Event) -> None:
    """Body of a worker process: takes specifications from ``link`` and sends news back until it is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides when to pause
    one_thread()
    while True:
        try:
            spec: RunSpec = link.recv()
        except EOFError:
            return
        try:
            _work(spec, folder, link, pause)
            link.send(_End(None))
        except BudgeteerError as error:
            link.send(_End(f"{spec.name}: {error}"))
        except Exception:
            link.send(_End(f"{spec.name}: {traceback.format_exc()}"))


def _work(spec: RunSpec, folder: Path, link: Connection, pause: Event) -> None:
    """One run; the result goes to a file, news to ``link``."""

    def tell(progress: Progress | None, state: str) -> None:
        last = progress.curve[-1]["accuracy"] if progress and progress.curve else float("nan")
        step, used, seconds = (progress.step, progress.used, progress.seconds) if progress else (0, 0, 0.0)
        link.send(Update(spec.name, step, spec.config.steps, used, spec.tokens, seconds, last, state))

    def on_step(progress: Progress, config: TrainConfig) -> bool:
        tell(progress, "running")
        return not pause.is_set()

    run = execute(spec, folder / "checkpoints" / spec.name, on_step)
    if run is None:
        tell(None, "paused")
        return
    run["digest"] = spec.digest()
    records.write_text(json.dumps(records.to_json(run)), folder / "runs" / f"{spec.name}.json")
    (folder / "checkpoints" / spec.name / "checkpoint.pt").unlink(missing_ok=True)
    tell(None, "done")


def _finished(spec: RunSpec, folder: Path) -> records.Run | None:
    path = folder / "runs" / f"{spec.name}.json"
    if not path.exists():
        return None
    try:
        run = json.loads(path.read_text())
    except ValueError:
        return None  # written atomically, so a damaged file was damaged later: run again
    return run if run.get("digest") == spec.digest() else None


def compare(
    arms: Sequence[Arm],
    seeds: Sequence[int],
    base: RunSpec,
    folder: Path,
    *,
    workers: int | None = None,
    on_update: Callable[[Update], None] | None = None,
) -> records.Results:
    """Run every arm for every seed and compare them pairwise over seeds.

    Args:
        arms: recipes with budgets; ``grpo@100%`` and ``untrained`` are added when a budget is in percent.
        seeds: of the runs.
        base: settings that all runs share.
        folder: gets ``runs/``, ``checkpoints/`` and ``results.json``.
        workers: processes at once; None = one a core.
        on_update: called with news of the runs.

    Returns:
        The content of ``results.json``, also written there.

    Raises:
        KeyboardInterrupt: after a clean pause; calling again continues.
        BudgeteerError: of the first run that failed; the others' results are kept.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidInput(f"cannot make {folder} ({error.strerror}); choose another --out") from error
    if not os.access(folder, os.W_OK):
        raise InvalidInput(f"{folder} is not writable; choose another --out")
    reference = Arm.parse(REFERENCE)
    arms = with_references(arms)

    def spec(arm: Arm, seed: int, total: int | None) -> RunSpec:
        config = replace(base.config, seed=seed)
        # every seed has problems of its own, so that intervals cover the choice of problems too
        problems = base.pool_seed + seed
        return replace(base, recipe=arm.recipe, budget=arm.budget, tokens=total, config=config, pool_seed=problems)

    waiting: list[tuple[Arm, int]] = [(arm, seed) for arm in arms for seed in seeds]
    waiting.sort(key=lambda job: job[0] != reference)
    done: dict[tuple[Arm, int], records.Run] = {}
    workers_of: dict[Connection, SpawnProcess] = {}
    busy: dict[Connection, tuple[Arm, int, RunSpec]] = {}
    context = mp.get_context("spawn")
    pause = context.Event()
    limit = workers or os.cpu_count() or 1
    failure: str | None = None
    interrupted = False

    def cap(arm: Arm, seed: int) -> int | bool | None:
        """Tokens of a run; True = not known before the reference has finished."""
        budget = Budget.parse(arm.budget)
        if arm == reference:
            return None
        if budget.amount is not None:
            return budget.amount
        ref = done.get((reference, seed))
        return True if ref is None else budget.of(int(ref["tokens"]["used"]))

    def start() -> Connection:
        ours, theirs = context.Pipe()
        process = context.Process(target=_worker, args=(theirs, folder, pause), daemon=True)
        # BLAS libraries and the allocator read these when a process starts: set them for the child alone
        before = {name: os.environ.get(name) for name in _WORKER_ENVIRONMENT}
        os.environ.update(_WORKER_ENVIRONMENT)
        process.start()
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
        theirs.close()
        workers_of[ours] = process
        return ours

    def assign() -> None:
        for job in list(waiting):
            idle = [link for link in workers_of if link not in busy]
            if failure or interrupted or (not idle and len(workers_of) >= limit):
                return
            total = cap(*job)
            if total is True:
                continue
            waiting.remove(job)
            one = spec(*job, total)
            old = _finished(one, folder)
            if old is not None:
                done[job] = old
                continue
            link = idle[0] if idle else start()
            busy[link] = (*job, one)
            link.send(one)

    def listen() -> str | None:
        """Take one message of every worker that has one; returns why a run failed."""
        reason: str | None = None
        for link in wait(list(workers_of), timeout=0.2) if workers_of else []:
            assert isinstance(link, Connection)
            try:
                message = link.recv()
            except (EOFError, OSError):  # the process died without a word: killed, or out of memory
                process = workers_of.pop(link)
                process.join()
                if link in busy:
                    reason = f"{busy.pop(link)[2].name} ended with code {process.exitcode}"
                continue
            if isinstance(message, _End):
                arm, seed, one = busy.pop(link)
                reason = reason or message.error
                run = _finished(one, folder)
                if run is not None:
                    done[arm, seed] = run
            elif on_update is not None:
                on_update(message)
        return reason

    while (waiting and not failure and not interrupted) or busy:
        try:
            assign()
            failure = failure or listen()
            if failure:
                pause.set()
        except KeyboardInterrupt:
            interrupted = True
            pause.set()
    for link, process in workers_of.items():
        link.close()
        process.join()
    if failure:
        raise BudgeteerError(f"{failure}\nfinished runs are kept in {folder / 'runs'}; the same command continues")
    if interrupted:
        raise KeyboardInterrupt
    runs = [{k: v for k, v in done[arm, seed].items() if k != "digest"} for arm in arms for seed in seeds]
    config = {**asdict(base), "seeds": list(seeds), "arms": [arm.label for arm in arms]}
    for name in ("recipe", "budget", "tokens"):
        config.pop(name)
    config["model"] = Path(base.model).name
    found = {
        "schema": records.SCHEMA,
        "runs": runs,
        "comparisons": records.compare(runs, pairs(arms)),
        "config": config,
        "versions": records.versions(),
    }
    records.write(found, folder / "results.json")
    return found


def with_references(arms: Sequence[Arm]) -> list[Arm]:
    """The arms, each once; where a budget is in percent, after the two that give it a meaning: ``grpo@100%``, whose
    tokens are the 100 %, and ``untrained``, which says how much there was to gain."""
    found = list(dict.fromkeys(arms))
    if any(Budget.parse(arm.budget).fraction for arm in found):
        found = list(dict.fromkeys([Arm.parse(REFERENCE), Arm.parse(recipes.UNTRAINED), *found]))
    return found


def pairs(arms: Sequence[Arm]) -> list[tuple[str, str]]:
    """Which differences are shown: every arm against the reference, and against the controls at its own budget."""
    labels = [arm.label for arm in arms]
    found = [(label, REFERENCE) for label in labels if label != REFERENCE and REFERENCE in labels]
    for arm in arms:
        for control in CONTROLS:
            other = f"{control}@{arm.budget}"
            if other in labels and other != arm.label and (arm.label, other) not in found:
                found.append((arm.label, other))
    return found
