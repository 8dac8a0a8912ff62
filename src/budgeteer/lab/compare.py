"""Recipes at equal budgets: runs every arm for every seed, one process a core, resumable at any point.

Budgets in percent are shares of what ``grpo@100%`` uses with the same seed: that run goes first and defines them.
Every finished run is a file of its own under ``OUT/runs``; calling again with the same settings does what is missing,
calling with others is refused. Trained policies are not kept.
"""

from __future__ import annotations

import json
import multiprocessing as mp
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from functools import partial
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from budgeteer.core.budget import Budget
from budgeteer.core.errors import BudgeteerError, InvalidInput
from budgeteer.lab import results as records
from budgeteer.lab.arms import Arm, pairs, with_references
from budgeteer.lab.run import REFERENCE, RunSpec, prepare
from budgeteer.lab.workers import End, Pause, Start, Update, Worker, checkpoint_of, interrupts, start
from budgeteer.rl.checkpoint import same_run
from budgeteer.rl.device import choose_device
from budgeteer.rl.identity import differences

PER_RUN = {"recipe", "parts of the recipe", "budget", "tokens", "seed", "pool_seed", "problems"}
"""What may differ between the runs of one folder."""


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
    different = differences(mine, theirs)
    if different:
        raise InvalidInput(f"{path} is the result of other settings ({different}); choose another --out, or delete it")


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
        path = checkpoint_of(spec, folder)
        if path.exists():
            mine = named[f"{spec.name}.json"]
            same_run(path, _without(mine, {"tokens"} if spec.tokens is None else set()))


def _without(identity: Mapping[str, Any], names: set[str]) -> dict[str, Any]:
    return {name: value for name, value in identity.items() if name not in names}


def compare(
    arms: Sequence[Arm],
    seeds: Sequence[int],
    base: RunSpec,
    folder: Path,
    *,
    workers: int | None = None,
    on_update: Callable[[Update], None] | None = None,
    on_pause: Callable[[str], None] | None = None,
    elsewhere: Callable[[Path, Pause], Start] | None = None,
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
        elsewhere: (folder, pause) -> what starts a worker; None = workers are processes of this machine.

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
    workers_of: dict[Connection, Worker] = {}
    busy: dict[Connection, tuple[Arm, int, RunSpec]] = {}
    context = mp.get_context("spawn")
    pause = context.Event()
    limit = workers or os.cpu_count() or 1
    started = partial(start, context, folder, pause) if elsewhere is None else elsewhere(folder, pause)
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

    def begin() -> Connection:
        link, process = started()
        workers_of[link] = process
        return link

    def assign() -> None:
        for job in list(waiting):
            idle = [link for link in workers_of if link not in busy]
            if not idle and len(workers_of) >= limit:
                return
            total = cap(*job)
            if total is True:
                continue
            waiting.remove(job)
            run_spec = spec(*job, total)
            old = _finished(run_spec, folder)
            if old is not None:
                done[job] = old
                continue
            link = idle[0] if idle else begin()
            busy[link] = (*job, run_spec)
            with suppress(OSError):  # a worker that died while it waited: listening finds out
                link.send(run_spec)

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
            if isinstance(message, End):
                arm, seed, ended = busy.pop(link)
                run = None if message.error else _finished(ended, folder)
                if run is not None:
                    done[arm, seed] = run
                elif message.error:
                    reason = reason or message.error
                    tell(Update(ended.name, 0, ended.config.steps, 0, ended.tokens, 0.0, float("nan"), "failed"))
            else:
                tell(message)
        return reason

    def tell(update: Update) -> None:
        if on_update is not None:
            on_update(update)

    _check([spec(*job, None if (known := cap(*job)) is True else known) for job in waiting], folder)
    with interrupts() as signals:
        try:
            while busy or (waiting and not failure and not signals):
                if (failure or signals) and not pause.is_set():
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
    if signals:
        raise KeyboardInterrupt
    runs = [{k: v for k, v in done[arm, seed].items() if k != "identity"} for arm in arms for seed in seeds]
    config = {**asdict(base), "seeds": list(seeds), "arms": [arm.label for arm in arms]}
    for name in ("recipe", "budget", "tokens"):
        config.pop(name)
    config["model"] = Path(base.model).name
    results = {
        "schema": records.SCHEMA,
        "runs": runs,
        "comparisons": records.compare(runs, pairs(arms)),
        "config": config,
        "versions": records.versions(),
    }
    records.write(results, folder / "results.json")
    return results
