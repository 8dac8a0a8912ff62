"""Runs of a benchmark, each in a file of its own: one that was stopped goes on, and processes may share a folder."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from budgeteer.lab import results

Row = Mapping[str, Any]


class Runs:
    """The runs of a folder that were made with these settings; files of other settings stay where they are.

    Args:
        folder: of the files.
        config: settings of all runs.
        name: field of a row that, with ``seed``, says which run it is of.
    """

    def __init__(self, folder: Path, config: Mapping[str, Any], name: str = "arm") -> None:
        self.folder, self.config, self.name = folder, dict(config), name
        kept = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
        self.rows: dict[tuple[str, int], Row] = {
            self._of(each["run"]): each["run"] for each in kept if each["config"] == self.config
        }

    def _of(self, row: Row) -> tuple[str, int]:
        return row[self.name], row["seed"]

    def _path(self, arm: str, seed: int) -> Path:
        return self.folder / f"{re.sub('[^A-Za-z0-9_.+]+', '-', arm).strip('-')}-{seed}.json"

    def missing(self, arms: Sequence[str], seeds: Iterable[int]) -> Iterator[tuple[str, int]]:
        """The runs that are not there yet, seed by seed, each looked for when its turn comes.

        Raises:
            SystemExit: a run's file is of other settings.
        """
        for seed in seeds:
            for arm in arms:
                path = self._path(arm, seed)
                if (arm, seed) in self.rows:
                    continue
                if path.exists():
                    other = json.loads(path.read_text())
                    if other["config"] != self.config:
                        raise SystemExit(f"{path} is of other settings ({other['config']}); give another --folder")
                    self.rows[arm, seed] = other["run"]  # of another process
                    continue
                yield arm, seed

    def keep(self, row: Row) -> None:
        """Add a run, on disk first."""
        content = json.dumps(results.to_json({"config": self.config, "run": row}))
        results.write_text(content + "\n", self._path(*self._of(row)))
        self.rows[self._of(row)] = row

    def with_those_of(self, out: Path | None, order: Sequence[str]) -> list[Row]:
        """All rows, and those that a file of results has beside them.

        Args:
            out: file with ``config`` and ``runs``; None, not there or of other settings = only those of the folder.
            order: of arms; others come behind.
        """
        old = json.loads(out.read_text()) if out and out.exists() else {"config": None}
        there = {self._of(row): row for row in old["runs"]} if old["config"] == self.config else {}
        places = {arm: place for place, arm in enumerate(order)}
        rows = (there | self.rows).values()
        return sorted(rows, key=lambda row: (places.get(row[self.name], len(places)), row[self.name], row["seed"]))
