"""One run: held-out problems before, training with checkpoints, held-out problems after, and the trained model."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from accelerate.utils import gather_object
from transformers import TrainerCallback

from budgeteer.adapters.trl.heldout import completions
from budgeteer.adapters.trl.sharded import gathered
from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import right
from budgeteer.lab import results
from budgeteer.lab.posttrain.build import SAVE_EVERY, Built, build
from budgeteer.lab.posttrain.settings import Settings
from budgeteer.lab.run import diagnostics, samples
from budgeteer.lab.runlog import RunLog, same_config
from budgeteer.lab.stats import paired
from budgeteer.rl.step import Progress

FAILURES = "verifier_failures"
"""Metric: answers of a step, or of an evaluation, whose verifier failed."""
BEFORE, AFTER = "before", "after"


def posttrain(
    settings: Settings,
    folder: Path,
    policy: Path,
    *,
    loggers: Sequence[str] = (),
    on_step: Callable[[Progress, float], bool] | None = None,
    say: Callable[[str], None] = lambda text: None,
    save_every: int = SAVE_EVERY,
) -> results.Results | None:
    """Train a model; the results, also in ``folder/results.json``. None: the run was paused, and its folder goes on.

    Args:
        settings: of the run.
        folder: of ``config.json``, ``metrics.jsonl``, ``samples.jsonl``, ``heldout.json``, checkpoints and results.
        policy: folder of the trained model; it is not there, or empty, before.
        loggers: names from :data:`budgeteer.lab.runlog.LOGGERS`.
        on_step: called after each step with the progress and the held-out accuracy before; returning False pauses.
        say: is told what the user should know.
        save_every: steps between checkpoints.

    Raises:
        BudgeteerError: what :func:`~budgeteer.lab.posttrain.build.build` raises, or a folder of another run, or
            a folder for the model that holds something else.
    """
    policy = policy.resolve()  # a link, or `.`, is no name of a folder to put in its place
    if policy == Path(settings.model).resolve():
        raise InvalidInput(f"{policy} is the folder of the model that is trained; choose another --save-model")
    built = build(settings, folder, say, save_every)
    log: RunLog | None = None
    try:
        identity = settings.identity(built.asked.identity, built.asked.name)
        done = folder / "results.json"
        if done.exists() and (policy / "config.json").exists():
            same_config(folder / "config.json", identity)
            return results.read(done)
        _room(policy, done)
        if built.main:
            log = RunLog(folder, settings.name, identity, loggers)
        return _run(settings, built, folder, policy, log, on_step)
    finally:
        built.asked.close()
        if log is not None:
            log.close()


def _run(
    settings: Settings,
    built: Built,
    folder: Path,
    policy: Path,
    log: RunLog | None,
    on_step: Callable[[Progress, float], bool] | None,
) -> results.Results | None:
    last = _last(folder / "checkpoints")
    steps = _Steps(built, log, folder, on_step)
    built.trainer.add_callback(steps)
    with suppress(_Ended):
        built.trainer.train(resume_from_checkpoint=None if last is None else str(last))
    if steps.paused:
        return None
    after = _evaluated(built, folder, AFTER)
    if log is None:
        _save(built, policy, settings)
        return None
    document = _document(settings, built, log, _evaluated(built, folder, BEFORE), after)
    results.write(document, folder / "results.json")  # before the model: what lies at its place is then of this run
    _save(built, policy, settings)
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    return document


def _room(policy: Path, done: Path) -> None:
    """Refuse a place of the trained model that holds something else, and a run whose model is elsewhere.

    Raises:
        InvalidInput: says what to do.
    """
    if policy.is_dir() and any(policy.iterdir()):
        raise InvalidInput(f"{policy} is not empty; choose another --save-model for the trained model, or delete it")
    if done.exists() and _last(done.parent / "checkpoints") is None:
        raise InvalidInput(
            f"{done} is of a run that has ended, and its model is not at {policy}: give the --save-model of that run, "
            "or another --out to train again"
        )


def _evaluated(built: Built, folder: Path, when: str) -> dict[str, Any]:
    """Scores of the held-out problems, one completion each at the cap of training; kept in ``heldout.json``."""
    path = folder / "heldout.json"
    try:
        kept: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # none yet: it is written whole
        kept = {}
    if when in kept:
        found: dict[str, Any] = kept[when]
        return found
    items = built.asked.heldout
    prompts, keys = [built.asked.prompt(item) for item in items], [item.key for item in items]
    made = completions(built.trainer, prompts, keys, seed=20_000)
    scores = [built.grader.score(item, ids) for item, ids in zip(items, made, strict=True)] if built.main else []
    kept[when] = {
        "keys": keys,
        "scores": scores,
        "tokens": [len(ids) for ids in made],
        FAILURES: built.grader.taken(),
    }
    if built.main:
        results.write_text(json.dumps(kept), path)
    return kept[when]  # type: ignore[no-any-return]


class _Ended(Exception):
    """A checkpoint at which nothing is left to do: TRL would go on with one more step."""


class _Steps(TrainerCallback):  # type: ignore[misc, unused-ignore]
    """Asks the held-out problems before the first step, when the weights are where they are trained, logs each step,
    asks whether to go on, and has a checkpoint written wherever the training ends.

    Several processes pause at the same step: where one is told to, all do. Each scores a part of the rollouts.
    """

    def __init__(
        self, built: Built, log: RunLog | None, folder: Path, on_step: Callable[[Progress, float], bool] | None
    ) -> None:
        self._built, self._log, self._folder, self._on_step = built, log, folder, on_step
        self._accuracy = math.nan
        self._items = {item.key: item for item in built.asked.train}
        self.paused = False

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Before the first step, or behind the last one of a checkpoint."""
        self._accuracy = _mean(_evaluated(self._built, self._folder, BEFORE)["scores"])
        if state.global_step >= state.max_steps or self._built.trainer.exhausted():
            raise _Ended

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        """After the trainer's own callbacks."""
        progress = self._built.trainer.spending.progress
        ends = control.should_training_stop or state.global_step >= state.max_steps
        go_on = gather_object([self._on_step is None or self._on_step(progress, self._accuracy)])
        self.paused = not all(go_on) and not ends
        if self.paused:
            control.should_training_stop = True
        if control.should_training_stop:
            control.should_save = True
        return control

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """A step's metrics; TRL's summary at the end is none."""
        if "loss" not in logs:
            return
        failures = sum(gather_object([self._built.grader.taken()]))
        if self._log is None:
            return
        metrics = {**logs, FAILURES: failures}
        progress = self._built.trainer.spending.progress
        written = samples(progress, _texts(self._built), self._items)
        self._log.step(state.global_step, metrics, written)


def _texts(built: Built) -> Callable[[list[list[int]]], list[str]]:
    return lambda rows: [built.grader.text(row) for row in rows]


def _last(folder: Path) -> Path | None:
    """The last checkpoint that was written to its end."""
    whole = [path.parent for path in folder.glob("checkpoint-*/trainer_state.json") if _whole(path)]
    return max(whole, key=lambda path: int(path.name.partition("-")[2]), default=None)


def _whole(path: Path) -> bool:
    try:
        json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # killed while it was written
        return False
    return True


def _save(built: Built, policy: Path, settings: Settings) -> None:
    """Write the trained model whole or not at all, as ``budgeteer solve --model hf:FOLDER`` reads it: an adapter is
    merged, and stands beside it."""
    trainer = built.trainer
    trainer.accelerator.wait_for_everyone()
    shared = gathered(trainer)
    if not built.main:
        return
    part = policy.with_name(f".{policy.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    model: Any = trainer.accelerator.unwrap_model(trainer.model) if shared is None else shared
    if settings.lora is not None:
        model.save_pretrained(policy.with_name(f"{policy.name}-adapter"))
        model = model.merge_and_unload()
    model.generation_config.eos_token_id = built.ends
    model.to(built.stored).save_pretrained(part)
    trainer.processing_class.save_pretrained(part)
    if policy.is_dir():
        policy.rmdir()  # empty, as it was at the start
    part.rename(policy)


def _document(
    settings: Settings, built: Built, log: RunLog, before: dict[str, Any], after: dict[str, Any]
) -> results.Results:
    """The content of ``results.json``."""
    p, rows = built.trainer.spending.progress, log.rows("metrics")
    seconds = sum(row.get("step_time") or 0.0 for row in rows)
    drawn = diagnostics(p, _texts(built), built.asked.train)
    run = {
        "recipe": settings.recipe,
        "budget": settings.budget,
        "seed": settings.seed,
        "accuracy": _mean(after["scores"]),
        "tokens": {"planned": p.planned, "used": p.used, "trained": p.trained, "wasted": p.wasted},
        "seconds": seconds,
        "curve": [
            {"tokens": 0, "seconds": 0.0, "accuracy": _mean(before["scores"])},
            {"tokens": p.used, "seconds": seconds, "accuracy": _mean(after["scores"])},
        ],
        # phases are not timed in TRL's trainer
        "diagnostics": {name: value for name, value in drawn.items() if not name.endswith("_seconds")}
        | {FAILURES: sum(row.get(FAILURES, 0) for row in rows)},
    }
    return {
        "schema": results.SCHEMA,
        "runs": [run],
        "comparisons": [],
        "config": settings.identity(built.asked.identity, built.asked.name),
        "versions": results.versions() | results.installed(("trl", "peft", "accelerate")),
    }


def summary(folder: Path) -> str:
    """What held-out problems say of a run, in two or three lines.

    Args:
        folder: of the run.
    """
    kept = json.loads((folder / "heldout.json").read_text(encoding="utf-8"))
    run = results.read(folder / "results.json")["runs"][0]
    before, after = (right(np.array(kept[when]["scores"])) for when in (BEFORE, AFTER))
    change = paired(after.astype(float), before.astype(float))
    tokens = [sum(kept[when]["tokens"]) / max(len(kept[when]["tokens"]), 1) for when in (BEFORE, AFTER)]
    failures = run["diagnostics"][FAILURES] + sum(kept[when][FAILURES] for when in (BEFORE, AFTER))
    lines = [
        f"held out: {100 * before.mean():.1f} % before, {100 * after.mean():.1f} % after: "
        f"{100 * change.mean:+.1f} [{100 * change.low:+.1f}, {100 * change.high:+.1f}] points, over "
        f"{len(before)} problems, one rollout each, at equal caps",
        f"tokens of a held-out rollout: {tokens[0]:.0f} before, {tokens[1]:.0f} after "
        f"({sum(sum(kept[when]['tokens']) for when in (BEFORE, AFTER)):,} in all, outside the budget of training)",
    ]
    if failures:
        lines.append(f"the verifier failed {failures:,} times; these answers counted 0")
    return "\n".join(lines)


def _mean(scores: Sequence[float]) -> float:
    """Share of right answers; NaN of none."""
    return float(right(np.array(scores)).mean()) if scores else float("nan")
