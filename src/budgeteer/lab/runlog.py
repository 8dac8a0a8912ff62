"""What a training run logs, and where: files in its folder, and TensorBoard, W&B or trackio by name.

The folder has ``config.json`` (all that decides the run), ``metrics.jsonl`` (a line a step) and ``samples.jsonl`` (some
rollouts of each step). A run that was killed goes on from a checkpoint, so some steps come again: their lines take the
place of the earlier ones.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from budgeteer.core.errors import InvalidInput, MissingExtra, UnknownName
from budgeteer.lab.results import to_json, write_text
from budgeteer.rl.identity import differences
from budgeteer.solve.lines import Lines

PROJECT = "budgeteer"
"""Name of the project at W&B and trackio."""


class Logger(NamedTuple):
    """Somebody else's place for metrics.

    Attributes:
        step: number of the step and its metrics -> it has them.
        close: nothing more comes.
    """

    step: Callable[[int, Mapping[str, float]], None]
    close: Callable[[], None]


def tensorboard(folder: Path, name: str, config: Mapping[str, Any]) -> Logger:
    """Event files in ``folder/tensorboard``; steps that come again hide the earlier ones.

    Raises:
        MissingExtra: TensorBoard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise MissingExtra("tensorboard", "log") from error
    writer: Any = None

    def step(number: int, metrics: Mapping[str, float]) -> None:
        nonlocal writer
        if writer is None:
            writer = SummaryWriter(str(folder / "tensorboard"), purge_step=number)
            writer.add_text("config", f"```json\n{json.dumps(to_json(config), indent=1)}\n```", number)
        for key, value in metrics.items():
            writer.add_scalar(key, value, number)
        writer.flush()

    return Logger(step, lambda: writer and writer.close())


def wandb(folder: Path, name: str, config: Mapping[str, Any]) -> Logger:
    """A run at Weights & Biases, resumed by the name of the folder; its variables, such as WANDB_MODE=offline, hold.

    Raises:
        MissingExtra: wandb is not installed.
    """
    try:
        import wandb as library
    except ImportError as error:
        raise MissingExtra("wandb", "log") from error
    given: dict[str, Any] = {"project": PROJECT, "name": name, "dir": str(folder), "config": to_json(config)}
    run: Any = library.init(**given, id=_id(folder), resume="allow")
    # steps that come again after a kill: W&B's own counter must not go back, a metric may
    run.define_metric("step")
    run.define_metric("*", step_metric="step")
    return Logger(lambda number, metrics: run.log({**metrics, "step": number}), run.finish)


def trackio(folder: Path, name: str, config: Mapping[str, Any]) -> Logger:
    """A run of trackio, resumed by the name of the folder; ``trackio show --project budgeteer`` shows it.

    Raises:
        MissingExtra: trackio is not installed.
    """
    try:
        import trackio as library
    except ImportError as error:
        raise MissingExtra("trackio", "log") from error
    run: Any = library.init(project=PROJECT, name=f"{name}-{_id(folder)}", config=to_json(config), resume="allow")
    return Logger(lambda number, metrics: run.log(dict(metrics), step=number), run.finish)


LOGGERS: dict[str, Callable[[Path, str, Mapping[str, Any]], Logger]] = {
    "tensorboard": tensorboard,
    "trackio": trackio,
    "wandb": wandb,
}
"""Name -> (folder of the run, name of the run, its settings) -> the logger."""


def names_of(text: str) -> list[str]:
    """The loggers in ``tensorboard,wandb``.

    Raises:
        UnknownName: no such logger.
    """
    names = list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    for name in names:
        if name not in LOGGERS:
            raise UnknownName("logger", name, LOGGERS)
    return names


def _id(folder: Path) -> str:
    """A name that the same folder has again."""
    import hashlib

    return hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:12]


class RunLog:
    """The log of one run.

    Args:
        folder: of the run.
        name: of the run, for loggers.
        config: all that decides the run.
        loggers: names from LOGGERS.

    Raises:
        InvalidInput: the folder is of another run.
        MissingExtra: a logger is not installed.
    """

    def __init__(self, folder: Path, name: str, config: Mapping[str, Any], loggers: Sequence[str] = ()) -> None:
        self.folder = folder
        path = folder / "config.json"
        if path.exists():  # before a logger begins: one of W&B sends the settings
            same_config(path, config)
        self.loggers = [LOGGERS[logger](folder, name, config) for logger in loggers]
        if not path.exists():
            write_text(json.dumps(to_json(config), indent=1) + "\n", path)
        self._files = {kind: _Numbered(folder / f"{kind}.jsonl") for kind in ("metrics", "samples")}

    def step(self, number: int, metrics: Mapping[str, float], samples: Sequence[Mapping[str, Any]]) -> None:
        """Log a step.

        Args:
            number: of the step, from 1.
            metrics: name -> value; those that are not finite are null in the file and left out elsewhere.
            samples: some of its rollouts.
        """
        plain = to_json(dict(metrics))
        self._files["metrics"].add(number, [plain])
        self._files["samples"].add(number, samples)
        known = {key: value for key, value in plain.items() if value is not None}
        for logger in self.loggers:
            logger.step(number, known)

    def rows(self, kind: str) -> list[dict[str, Any]]:
        """The lines of ``metrics`` or ``samples`` so far."""
        return self._files[kind].rows()

    def close(self) -> None:
        """Close all files and loggers."""
        for file in self._files.values():
            file.close()
        for logger in self.loggers:
            logger.close()


def same_config(path: Path, config: Mapping[str, Any]) -> None:
    """Refuse a folder of another run.

    Args:
        path: of its ``config.json``.
        config: of this run.

    Raises:
        InvalidInput: says what differs.
    """
    try:
        theirs = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidInput(f"cannot read {path} ({error}); choose another --out, or delete it") from error
    if different := differences(to_json(dict(config)), theirs):
        raise InvalidInput(f"{path} is of another run ({different}); choose another --out")


class _Numbered:
    """JSON lines, each with the step it is of; a step that comes again takes the place of all lines from there on."""

    def __init__(self, path: Path) -> None:
        self._path, self._file = path, Lines(path, sync=False)
        self._last = max((row["step"] for row in self._file.earlier), default=0)

    def add(self, step: int, rows: Sequence[Mapping[str, Any]]) -> None:
        if step <= self._last:
            kept = [row for row in self.rows() if row["step"] < step]
            self._file.close()
            write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in kept), self._path)
            self._file = Lines(self._path, sync=False)
        for row in rows:
            self._file.append({"step": step, **row})
        self._last = step

    def rows(self) -> list[dict[str, Any]]:
        with self._path.open(encoding="utf-8") as file:
            return [json.loads(line) for line in file]

    def close(self) -> None:
        self._file.close()
