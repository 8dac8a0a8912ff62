"""What a run has spent and written: its ledger, and its files beside the output, also those of an earlier process."""

from __future__ import annotations

import contextlib
import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from budgeteer.core.errors import InvalidInput
from budgeteer.ledger import Allowance, Ledger, Limit, MemoryLedger, SqliteLedger, core, journal
from budgeteer.ledger.protocol import MAX_SECONDS
from budgeteer.solve.folders import lock, same_settings
from budgeteer.solve.lines import Lines
from budgeteer.solve.record import Calls, numbered
from budgeteer.solve.settings import Row, Work
from budgeteer.solve.strategy import Answer, Question

ROOT = "run"


class Books:
    """Opens the files and the ledger of a run, and goes on from what an earlier process left there.

    Args:
        work: what the run has to do.
        durable: whether calls are recorded and the ledger is a file.
        identity: settings that have to be the same when the run is resumed, as texts by name.
        stack: closes files and ledger.

    Attributes:
        rows: id -> row, of the questions that have ended.
        limit: units per kind of the whole run.
        ledger, root: where units are reserved, and the right of this process to spend them.
        calls: the record of paid calls.
        shares: path -> units per kind, of questions that an earlier process began.
        used: stem of a call's name -> the first number under which no earlier process was charged.
        gone: path -> units that earlier processes were charged for calls that are not on record.
        total: sums over rows, for the progress.
    """

    def __init__(self, work: Work, durable: bool, identity: Mapping[str, str], stack: contextlib.ExitStack) -> None:
        self._work, self.limit = work, dict(work.limit)
        self.rows: dict[str, Row] = {}
        self.calls = Calls(None)
        self.shares: dict[str, dict[str, int]] = {}
        self.used: dict[str, int] = {}
        self.gone: dict[str, Counter[str]] = {}
        self.total: Counter[str] = Counter()
        self.ledger: Ledger
        self._output: Lines | None = None
        self._traces: Lines | None = None
        out = work.settings.out
        limits = [Limit(kind, units) for kind, units in self.limit.items()]
        if out is not None:
            folder = out.with_name(out.name + ".run")
            lock(folder, stack)
            settings = folder / "settings.json"
            if not settings.exists() and out.exists() and out.stat().st_size:
                raise InvalidInput(
                    f"{out} is not empty, and there is no {settings} with its settings and what was spent: choose "
                    f"another output, or put that back"
                )
            same_settings(settings, identity)  # first: opening cuts off a torn last line
            self._output = Lines(out, sync=True)
            stack.callback(self._output.close)
            known = {question.id for question in work.questions}
            for row in reversed(self._output.earlier):  # of two rows with the same id the first counts
                if not isinstance(row.get("id"), str) or "units" not in row:
                    raise InvalidInput(f"{out} holds {str(row)[:80]}, which is no row of a run; choose another output")
                if row["id"] in known:
                    self.rows[row["id"]] = self._counted(row, out)
            if work.settings.traces:
                self._traces = Lines(folder / "traces.jsonl", sync=False)
                stack.callback(self._traces.close)
        if out is not None and durable:
            self.calls = Calls(folder / "calls.jsonl")
            stack.callback(self.calls.close)
            self.ledger = stack.enter_context(SqliteLedger(folder / "ledger.db", remember=MAX_SECONDS))
            self.ledger.open(ROOT, limits)
            self.calls.begin({scope_of(name) for name in self.rows})
            self._recover()
        else:
            self.ledger = stack.enter_context(MemoryLedger())
            self.ledger.open(ROOT, limits)
            spent = self.spent(self.rows.values())
            if any(spent.values()):
                before = self.ledger.reserve(ROOT, {kind: min(n, self.limit[kind]) for kind, n in spent.items()})
                self.ledger.settle(before.id, spent)
        self.root = Allowance(self.ledger, ROOT, self._free())
        stack.callback(self.root.close)

    def _recover(self) -> None:
        """Charge calls in full that were under way at a kill, or are not on record after a power cut."""
        _, state = self.ledger.snapshot()
        for name in state.reservations:
            if self.calls.get(name) is None:
                self.ledger.settle(name)
        for path, account in state.accounts.items():
            if path != ROOT:
                self.shares[path] = {
                    kind: book.limit for kind, book in account.books.items() if book.limit != core.UNLIMITED
                }
        for line, _ in self.ledger.lines():
            _, (name, path, _, _, status, _, actual, _, _, _) = journal.decode(line)
            if status == core.SETTLED:
                stem, number = numbered(name)
                self.used[stem] = max(self.used.get(stem, 0), number + 1)
                if self.calls.get(name) is None:
                    self.gone.setdefault(path, Counter()).update(dict(actual))

    def _counted(self, row: Row, out: Path) -> Row:
        try:
            self._add(row)
        except (KeyError, TypeError, AttributeError) as error:
            raise InvalidInput(f"{out}: the line of {row['id']!r} is not of a run ({error!r}); remove it") from error
        return row

    def _add(self, row: Row) -> None:
        """Count a row towards the progress; cost in pico-dollars."""
        total = self.total
        for name in ("input", "output", "reasoning"):
            total[name] += row["tokens"][name]
        for kind, units in row["units"].items():
            total[f"units {kind}"] += units
        total["correct"] += bool(row["correct"])
        total["calls"] += row["calls"]
        total["graded"] += row["correct"] is not None
        total["answered"] += row["answer"] is not None
        total["cost"] += round(row.get("cost", 0.0) * 10**12)

    def spent(self, rows: Iterable[Row]) -> dict[str, int]:
        """Units per kind that these rows used."""
        return {kind: sum(row["units"][kind] for row in rows) for kind in self.limit}

    def _free(self) -> dict[str, int]:
        """Units that this process may use: all but those of finished questions. Earlier calls of open questions are
        within their shares."""
        free = dict(self.limit)
        _, state = self.ledger.snapshot()
        open_scopes = {path_of(q) for q in self._work.questions if q.id not in self.rows}
        held = dict.fromkeys(free, 0)
        for path in open_scopes & state.accounts.keys():
            for kind, book in state.accounts[path].books.items():
                held[kind] += book.spent + book.held
        for kind, book in state.accounts[ROOT].books.items():
            free[kind] = max(0, free[kind] - (book.spent + book.held - held[kind]))
        return free

    def within(self, share: Mapping[str, int]) -> dict[str, int]:
        """The share of a question, at most what is left of the whole budget."""
        left = self.root.remaining
        return {kind: max(0, min(units, left[kind])) for kind, units in share.items()}

    def keep(self, question: Question, row: Row, answer: Answer) -> None:
        """Write the row of a question that has ended, and its traces if the run keeps them."""
        if self._traces is not None:
            about = {key: row[key] for key in ("id", "answer", "correct", "stopped_by")}
            self._traces.append({**about, "question": question.text, "traces": list(answer.traces)})
        if self.calls.recording:
            self.calls.end(scope_of(question.id))
        if self._output is not None:
            self._output.append(row)
        self.rows[question.id] = row
        self._add(row)


def path_of(question: Question) -> str:
    """The path of a question's account."""
    return f"{ROOT}/{scope_of(question.id)}"


def scope_of(name: str) -> str:
    """The account's scope for a question's id: a digest, since ids may hold characters that scopes may not."""
    return "q-" + hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()
