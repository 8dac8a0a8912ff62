"""Recipes at equal budgets: runs every arm for every seed, one process a core, resumable at any point.

Budgets in percent are shares of what ``grpo@100%`` uses with the same seed: that run goes first and defines them.
Every finished run is a file of its own under ``OUT/runs``; calling again with the same settings does what is missing,
calling with others is refused. Trained policies are not kept.
"""

from __future__ import annotations

import json
import multiprocessing as mp
import os
import signal
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

from budgeteer.core.budget import Budget
from budgeteer.core.errors import BudgeteerError, InvalidInput
from budgeteer.lab import results as records
from budgeteer.lab.report import CONTROL
from budgeteer.lab.run import REFERENCE, RunSpec, execute, one_thread, prepare
from budgeteer.rl import recipes
from budgeteer.rl.checkpoint import same_run
from budgeteer.rl.config import TrainConfig
from budgeteer.rl.identity import differences
from budgeteer.rl.step import Progress
from budgeteer.rl.trainer import choose_device

PER_RUN = {"recipe", "parts of the recipe", "budget", "tokens", "seed", "pool_seed", "problems"}
"""What may differ between the runs of one folder."""
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
            if not pause.is_set():
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
    run["identity"] = spec.identity()
    records.write_text(json.dumps(records.to_json(run)), folder / "runs" / f"{spec.name}.json")
    (folder / "checkpoints" / spec.name / "checkpoint.pt").unlink(missing_ok=True)
    tell(None, "done")


def _stored(path: Path) -> dict[str, Any] | None:
    try:
        run: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError):
        return None  # none yet; or damaged later, for it was written whole: run again
    return run


def _finished(spec: RunSpec, folder: Path) -> records.Run | None:
    """The run's result if it is there.

    Raises:
        InvalidInput: it is there, of other settings.
    """
    path = folder / "runs" / f"{spec.name}.json"
    run = _stored(path)
    if run is not None:
        _same(path, records.to_json(spec.identity()), run.get("identity", {}))
    return run


def _same(path: Path, mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> None:
    found = differences(mine, theirs)
    if found:
        raise InvalidInput(f"{path} is the result of other settings ({found}); choose another --out, or delete it")


def _check(specs: Sequence[RunSpec], folder: Path) -> None:
    """Refuse what can be seen before any process is started: settings that cannot run, and a folder of other settings.

    Args:
        specs: of all runs; the tokens of those in percent are not known yet and are None.
    """
    for spec in {spec.recipe + spec.budget: spec for spec in reversed(specs)}.values():
        choose_device(spec.config.device)
        prepare(replace(spec, config=replace(spec.config, device="cpu")))  # leaves an accelerator to the workers
    named = {f"{spec.name}.json": records.to_json(spec.identity()) for spec in specs}
    shared = {k: v for k, v in next(iter(named.values()), {}).items() if k not in PER_RUN}
    for path in sorted((folder / "runs").glob("*.json")):
        run = _stored(path)
        if run is not None:
            mine = named.get(path.name, shared)
            theirs = run.get("identity", {})
            # what a run in percent may use is looked at when its reference is known
            skip = {"tokens"} if mine.get("tokens") is None else set()
            _same(path, _without(mine, skip), {k: theirs.get(k) for k in _without(mine, skip)})
    for spec in specs:
        path = folder / "checkpoints" / spec.name / "checkpoint.pt"
        if path.exists():
            mine = named[f"{spec.name}.json"]
            same_run(path, _without(mine, {"tokens"} if spec.tokens is None else set()))


def _without(identity: Mapping[str, Any], names: set[str]) -> dict[str, Any]:
    return {name: value for name, value in identity.items() if name not in names}


@contextmanager
def _interrupts() -> Iterator[list[int]]:
    """Count Ctrl-C: the first asks for a pause, the second raises KeyboardInterrupt wherever the process is."""
    seen: list[int] = []
    if threading.current_thread() is not threading.main_thread():  # signals go to the main thread
        yield seen
        return

    def interrupt(number: int, frame: Any) -> None:
        seen.append(number)
        if len(seen) > 1:
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield seen
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _unheard() -> Iterator[None]:
    """A process started in here does not hear Ctrl-C, from its first instruction on; this one hears it after."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def compare(
    arms: Sequence[Arm],
    seeds: Sequence[int],
    base: RunSpec,
    folder: Path,
    *,
    workers: int | None = None,
    on_update: Callable[[Update], None] | None = None,
    on_pause: Callable[[str], None] | None = None,
) -> records.Results:
    """Run every arm for every seed and compare them pairwise over seeds.

    Args:
        arms: recipes with budgets; ``grpo@100%`` and ``untrained`` are added when a budget is in percent.
        seeds: of the runs.
        base: settings that all runs share.
        folder: gets ``runs/``, ``checkpoints/`` and ``results.json``.
        workers: processes at once; None = one a core.
        on_update: called with news of the runs.
        on_pause: called with the reason when the running ones are asked to pause at the end of their step.

    Returns:
        The content of ``results.json``, also written there.

    Raises:
        KeyboardInterrupt: after a clean pause, or at once at the second Ctrl-C; calling again continues.
        BudgeteerError: before anything is started, for settings that cannot run and for a folder with runs of other
            settings; later, of the first run that failed, after the others have paused. Finished runs are kept.
    """
    if workers is not None and workers < 1:
        raise InvalidInput(f"{workers} workers asked; give 1 or more")
    records.require_writable(folder)
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
        with _unheard():
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
            if not idle and len(workers_of) >= limit:
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
            with suppress(OSError):  # a worker that died while it waited: listening finds out
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
                run = None if message.error else _finished(one, folder)
                if run is not None:
                    done[arm, seed] = run
                elif message.error:
                    reason = reason or message.error
                    tell(Update(one.name, 0, one.config.steps, 0, one.tokens, 0.0, float("nan"), "failed"))
            else:
                tell(message)
        return reason

    def tell(update: Update) -> None:
        if on_update is not None:
            on_update(update)

    _check([spec(*job, None if (known := cap(*job)) is True else known) for job in waiting], folder)
    with _interrupts() as interrupts:
        try:
            while busy or (waiting and not failure and not interrupts):
                if (failure or interrupts) and not pause.is_set():
                    pause.set()
                    if on_pause is not None:
                        on_pause(failure or "Ctrl-C")
                if not pause.is_set():
                    try:
                        assign()
                    except BudgeteerError as error:
                        failure = str(error)
                news = listen()  # even after a failure: the others are waited for
                failure = failure or news
        finally:
            for link, process in workers_of.items():
                link.close()  # one that waits for work ends
                if link in busy:
                    process.terminate()
                process.join()
    if failure:
        raise BudgeteerError(
            f"{failure}\nfinished runs are kept in {folder / 'runs'}, the other runs have paused; once the cause is "
            "mended, the same command continues"
        )
    if interrupts:
        raise KeyboardInterrupt
    runs = [{k: v for k, v in done[arm, seed].items() if k != "identity"} for arm in arms for seed in seeds]
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
