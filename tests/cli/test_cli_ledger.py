"""budgeteer ledger: accounts, balances, spending, journal, errors in one line."""

from __future__ import annotations

import contextlib
import csv
import json
import random
import re
import shutil
import sqlite3
from pathlib import Path

import numpy as np
import pytest

from budgeteer import cli
from budgeteer.core.errors import InvalidInput, LedgerUnavailable
from budgeteer.ledger import Limit, MemoryLedger, SqliteLedger, report
from budgeteer.ledger.address import connect
from helpers import servers


@pytest.fixture
def store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> str:
    path = str(tmp_path / "l.db")
    assert cli.main(["ledger", "init", "--ledger", path]) == 0
    assert cli.main(["ledger", "open", "acme", "--ledger", path, "--limit", "$5/day", "--limit", "1m"]) == 0
    assert cli.main(["ledger", "open", "acme/bot", "--ledger", path, "--limit", "1k/90s"]) == 0
    with SqliteLedger(path) as ledger:
        for run, (plan, review, untagged) in {"a": (100, 300, 0), "b": (100, 0, 100)}.items():
            for stage, units in (("plan", plan), ("review", review), ("", untagged)):
                held = ledger.reserve("acme/bot", {"all": 300, "money": 10**12})
                tags = {"run": run, "model": "m"} | ({"stage": stage} if stage else {})
                ledger.settle(held.id, {"all": units, "money": units * 10**9}, tags=tags)
        ledger.reserve("acme/bot", {"all": 50, "money": 0})
    capsys.readouterr()
    return path


def rows(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict]:
    assert cli.main(["ledger", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_show_and_top(store: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = rows(capsys, "show", "--ledger", store)
    by = {(row["path"], row["kind"], row["window"]): row for row in found}
    assert by["acme", "all", ""]["settled"] == 600
    assert by["acme", "all", ""]["reserved"] == 50
    assert by["acme", "all", ""]["left"] == 10**6 - 650
    assert by["acme", "money", "day"]["limit"] == 5 * 10**12
    assert by["acme/bot", "money", ""]["limit"] is None
    (first,) = rows(capsys, "top", "-n", "1", "--ledger", store)
    assert (first["path"], first["used"]) == ("acme/bot", 0.65)
    assert cli.main(["ledger", "show", "acme/bot", "--ledger", store]) == 0
    text = capsys.readouterr().out
    assert "90 s" in text
    assert "$0.6" in text
    assert "\nacme " not in text


@pytest.mark.parametrize("limit", ["$0,50", "1,5k", "1000,000"])
def test_a_comma_for_a_point_opens_no_account(store: str, capsys: pytest.CaptureFixture[str], limit: str) -> None:
    assert cli.main(["ledger", "open", "eu", "--ledger", store, "--limit", limit]) != 0
    assert "write $0.50" in capsys.readouterr().err
    assert "eu" not in {row["path"] for row in rows(capsys, "show", "--ledger", store)}


def test_spend_by_stage_shows_both_shares_and_the_unknown(store: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = {row["stage"]: row for row in rows(capsys, "spend", "--by", "stage", "--ledger", store)}
    assert sum(row["units"] for row in found.values()) == 600
    assert {name: row["units"] for name, row in found.items()} == {"review": 300, "plan": 200, "unknown": 100}
    assert found["review"]["share"] == 0.5  # 300 of 600
    assert found["review"]["mean_share"] == pytest.approx(0.375)  # mean of 300 / 400 and 0 / 200
    assert found["plan"]["mean_share"] == pytest.approx(0.375)  # mean of 1 / 4 and 1 / 2
    assert sum(row["mean_share"] for row in found.values()) == pytest.approx(1)
    assert cli.main(["ledger", "spend", "--by", "model", "--kind", "money", "--csv", "--ledger", store]) == 0
    (row,) = csv.DictReader(capsys.readouterr().out.splitlines())
    assert (row["model"], row["calls"], row["units"]) == ("m", "6", str(600 * 10**9))
    assert cli.main(["ledger", "spend", "--ledger", store]) == 0
    assert "total" in capsys.readouterr().out


def test_runs_and_forecast(store: str, capsys: pytest.CaptureFixture[str]) -> None:
    (row,) = rows(capsys, "spend", "--runs", "--ledger", store)
    assert (row["runs"], row["mean"], row["p50"], row["max"]) == (2, 300, 300, 400)
    (row,) = rows(capsys, "spend", "--forecast", "a", "--ledger", store)
    assert row["so_far"] == 400
    assert row["p50"] == 400  # the only other run ended at 200, but this one is past that


def test_a_forecast_from_early_calls_beats_one_from_past_totals_alone() -> None:
    """The card's simulation: the history is sent again every turn, runs differ in turns and in growth."""
    rng = random.Random(3)

    def simulate() -> list[int]:
        growth = rng.lognormvariate(5, 1)
        turns = 5 + min(int(rng.expovariate(0.3)), 40)
        history, calls = 500.0, []
        for _ in range(turns):
            history += growth * rng.lognormvariate(0, 0.3)
            calls.append(int(history))
        return calls

    past = {f"p{i}": simulate() for i in range(200)}
    tests = [simulate() for _ in range(200)]
    totals = np.array([sum(calls) for calls in tests])
    prior = np.array([report.forecast(past, [])["p50"] for _ in tests])
    early = np.array([report.forecast(past, calls[:4])["p50"] for calls in tests])
    errors = [np.median(np.abs(np.log(guess / totals))) for guess in (prior, early)]
    assert errors[1] < 0.8 * errors[0]
    cover = np.mean([sum(c) <= report.forecast(past, c[:4])["p90"] for c in tests])
    assert 0.82 < cover < 0.97  # a 90 % quantile covers about 90 %
    # worked by hand: one past run of 10, 20, 30; this one began with 5: six times as much
    assert report.forecast({"x": [10, 20, 30]}, [5])["p50"] == 30
    assert report.forecast({"x": [10]}, [50, 50])["p90"] == 100
    with pytest.raises(InvalidInput, match="no run"):
        report.quantiles({})


def test_export_and_verify(store: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["ledger", "verify", "--json", "--ledger", store]) == 0
    verified = json.loads(capsys.readouterr().out)
    assert verified["entries"] == 15
    out = tmp_path / "journal.jsonl"
    assert cli.main(["ledger", "export", "--out", str(out), "--ledger", store]) == 0
    assert cli.main(["ledger", "verify", "--journal", str(out), "--head", verified["head"]]) == 0
    assert f"head {verified['head']}" in capsys.readouterr().out
    lines = out.read_text().splitlines()
    out.write_text("\n".join([*lines[:7], *lines[8:]]) + "\n")
    assert cli.main(["ledger", "verify", "--journal", str(out)]) == 2
    assert "journal line 7" in capsys.readouterr().err
    assert cli.main(["ledger", "export", "--csv", "--ledger", store]) == 0
    table = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert sum(int(row["actual"]) for row in table if row["kind"] == "all") == 600
    with sqlite3.connect(store) as db:
        db.execute("UPDATE journal SET line = replace(line, 'all 300', 'all 30') WHERE seq = 6")
    assert cli.main(["ledger", "verify", "--ledger", store]) == 2
    error = capsys.readouterr().err
    assert "journal line 6" in error
    assert error.count("\n") == 1


def test_reset(store: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["ledger", "reset", "acme/bot", "--ledger", store]) == 0
    capsys.readouterr()
    row = rows(capsys, "show", "acme/bot", "--ledger", store)[0]
    assert (row["settled"], row["reserved"]) == (0, 50)
    assert cli.main(["ledger", "verify", "--ledger", store]) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["show", "--ledger", "{tmp}/none.db"], "budgeteer ledger init"),
        (["show", "nobody"], "no account 'nobody'"),
        (["open", "x/y", "--limit", "5"], "open it first"),
        (["open", "acme", "--limit", "50%"], "a ledger's limit is absolute"),
        (["open", "a b"], "scopes are 1 to 128"),
        (["spend", "--kind", "output"], "--kind is one of all, money"),
        (["spend", "--forecast", "z"], "no run 'z'"),
        (["verify", "--head", "abc"], "noted head"),
        (["verify", "--journal", "{tmp}/none"], "cannot read the export"),
        (["show", "--ledger", "redis://127.0.0.1:1/0"], "did not answer"),
    ],
)
def test_errors_are_one_line(
    store: str, tmp_path: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [argument.format(tmp=tmp_path) for argument in arguments]
    assert cli.main(["ledger", *given, *([] if "--ledger" in given else ["--ledger", store])]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("server_url", servers.KINDS, indirect=True)
def test_the_same_on_a_server(server_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    url = server_url
    assert cli.main(["ledger", "show", "--ledger", url]) == 2
    assert "ledger init" in capsys.readouterr().err
    assert cli.main(["ledger", "init", "--ledger", url]) == 0
    assert "0 accounts, 0 journal entries" in (said := capsys.readouterr().out)
    assert "secret" not in said
    assert cli.main(["ledger", "open", "acme", "--limit", "9k", "--ledger", url]) == 0
    capsys.readouterr()
    assert rows(capsys, "show", "--ledger", url)[0]["limit"] == 9000
    assert rows(capsys, "spend", "--ledger", url) == []
    with connect(url) as ledger:
        ledger.settle(ledger.reserve("acme", {"all": 70}).id, {"all": 50}, tags={"stage": "plan"})
    (row,) = rows(capsys, "spend", "--by", "stage", "--ledger", url)
    assert (row["stage"], row["units"], row["reserved"]) == ("plan", 50, 70)
    assert rows(capsys, "top", "--ledger", url)[0]["left"] == 8950
    assert cli.main(["ledger", "export", "--ledger", url]) == 0
    assert capsys.readouterr().out.count("\n") == 3
    assert cli.main(["ledger", "verify", "--ledger", url]) == 0
    assert cli.main(["ledger", "reset", "acme", "--ledger", url]) == 0
    capsys.readouterr()
    assert rows(capsys, "show", "--ledger", url)[0]["settled"] == 0


def test_nothing_of_a_kind_is_dropped_from_a_report() -> None:
    ledger = MemoryLedger()
    ledger.open("a", [Limit("all", None)])
    ledger.open("a/b", [Limit("output", 9)])
    ledger.settle(ledger.reserve("a", {"all": 5}).id, {"all": 7})
    ledger.settle(ledger.reserve("a/b", {"all": 5, "output": 2}).id)
    found = report.charges(ledger.lines())
    assert sum(row["units"] for row in report.spend(found, "scope", "all")) == 12
    assert report.spend(found, "scope", "all")[0] == {
        "scope": "a", "kind": "all", "calls": 1, "units": 7, "reserved": 5, "overshoot": 2, "estimated": 0,
        "share": 7 / 12, "mean_share": 0.5,
    }  # fmt: skip
    assert [row["units"] for row in report.spend(found, "scope", "output")] == [2]
    with pytest.raises(InvalidInput, match="no spend by"):
        report.spend(found, "day", "all")


@pytest.mark.parametrize("log", [False, True])
def test_a_read_only_folder_can_be_looked_at(tmp_path, monkeypatch, capsys, log):
    """SQLite cannot make its index beside the file there; with a log that was left by a kill, what is in it counts."""
    path = tmp_path / "made" / "l.db"
    path.parent.mkdir()
    with SqliteLedger(path) as ledger:
        ledger.open("acme", [Limit("all", 100)])
        ledger.settle(ledger.reserve("acme", {"all": 30}).id)
        folder = tmp_path / "read-only"
        folder.mkdir()
        if log:
            for file in (path, path.with_name("l.db-wal")):
                shutil.copyfile(file, folder / file.name)
            assert (folder / "l.db-wal").stat().st_size
    if not log:
        shutil.copyfile(path, folder / "l.db")
    real = sqlite3.connect

    def connect(name, **named):
        """As for a user who may not write there: root may, whatever the permissions say."""
        if str(folder) in str(name) and "immutable" not in str(name):
            raise sqlite3.OperationalError("unable to open database file")
        return real(name, **named)

    monkeypatch.setattr(sqlite3, "connect", connect)
    before = sorted(file.name for file in folder.iterdir())
    for action in (["show", "--json"], ["top"], ["spend"], ["export"], ["verify"]):
        assert cli.main(["ledger", action[0], "--ledger", str(folder / "l.db"), *action[1:]]) == 0
        said = capsys.readouterr().out
        if action[0] == "show":
            assert json.loads(said)[0]["settled"] == 30
    assert sorted(file.name for file in folder.iterdir()) == before
    assert cli.main(["ledger", "reset", "acme", "--ledger", str(folder / "l.db")]) == 2


def test_a_ledger_that_is_looked_at_refuses_to_book(tmp_path):
    path = tmp_path / "l.db"
    with SqliteLedger(path) as ledger:
        ledger.open("acme", [Limit("all", 100)])
    (tmp_path / "l.db.lock").unlink()
    with SqliteLedger(path, read_only=True) as ledger, pytest.raises(LedgerUnavailable, match="opened only to look at"):
        ledger.reserve("acme", {"all": 1})
    assert not (tmp_path / "l.db.lock").exists()
    (tmp_path / "other").write_text("no database, but longer than the header of one" * 10)
    with pytest.raises(LedgerUnavailable, match="cannot read"):
        SqliteLedger(tmp_path / "other", read_only=True)


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """A closed ledger with accounts, windows, open and settled reservations."""
    path = tmp_path_factory.mktemp("filled") / "l.db"
    with SqliteLedger(path) as ledger:
        ledger.open("acme", [Limit.parse("5k"), Limit.parse("1k/hour")])
        ledger.open("acme/team", [Limit.parse("2k/day")])
        for number in range(6):
            held = ledger.reserve("acme/team", {"all": 10})
            if number % 2:
                ledger.settle(held.id, {"all": 7}, tags={"run": f"r{number}"})
    return path.read_bytes()


LOOKS = (["show"], ["show", "--json"], ["top"], ["spend"], ["spend", "--by", "model"], ["verify"], ["export"],
         ["export", "--csv"])  # fmt: skip


def looked(path, capsys):
    """(action, exit code, error) of every action."""
    found = []
    for action in (*LOOKS, ["open", "acme", "--limit", "6k"], ["reset", "acme/team"]):
        code = cli.main(["ledger", *action, "--ledger", str(path)])
        found.append((action[0], code, capsys.readouterr().err))
    return found


@pytest.mark.parametrize("step", [1999, pytest.param(331, marks=pytest.mark.slow)])
def test_a_damaged_ledger_is_named_as_damaged(filled, tmp_path, capsys, step):
    """Garbage anywhere in the file: each action works on what it reads, or says what is wrong; none is at fault."""
    damaged = 0
    for number, at in enumerate(range(100, len(filled) - 14, step)):
        path = tmp_path / f"{number}.db"
        path.write_bytes(filled[:at] + b"garbagegarbage" + filled[at + 14 :])
        for action, code, said in looked(path, capsys):
            assert code in (0, 2), f"{action} with garbage at {at}: {said}"
            assert code == 0 or said.startswith("error: "), said
            damaged += "is damaged" in said
    assert damaged > 6000 / step


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (
            "DROP TABLE meta; CREATE TABLE meta (seq, head, now); INSERT INTO meta VALUES (NULL, NULL, NULL)",
            "its state is",
        ),
        ("UPDATE meta SET seq = 'x'", "its state is"),
        ("UPDATE meta SET now = 9223372036854775807", "its state is"),
        ("DELETE FROM meta", "its state is None"),
        ("DROP TABLE accounts", "no such table: accounts"),
        ("UPDATE accounts SET books = 'x'", "account 'acme' cannot be read"),
        ("UPDATE accounts SET books = x'ff'", "account 'acme' cannot be read"),
        ("""UPDATE accounts SET books = '{"all": [null, 0, 0, {}]}'""", "account 'acme' cannot be read"),
        ("UPDATE accounts SET limits = 'all'", "account 'acme' cannot be read"),
        ("UPDATE accounts SET limits = 'all -5 -'", "account 'acme' cannot be read"),
        ("UPDATE reservations SET amounts = 'all' WHERE status = 'open'", "reservation .* cannot be read"),
        ("UPDATE reservations SET expires = 'x' WHERE status = 'open'", "reservation .* cannot be read"),
        ("UPDATE reservations SET detail = x'ff' WHERE status = 'open'", "reservation .* cannot be read"),
    ],
)
def test_a_row_that_no_ledger_wrote_is_damage(filled, tmp_path, capsys, change, part):
    path = tmp_path / "l.db"
    path.write_bytes(filled)
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.executescript(change)
        db.commit()
    for action in ("show", "top", "verify"):
        assert cli.main(["ledger", action, "--ledger", str(path)]) == 2
        said = capsys.readouterr().err
        assert re.search(rf"the ledger '.*l.db' is damaged \(.*{part}.*\): do not spend", said), said
        assert "restore it from a backup; budgeteer ledger export" in said
    if "open" not in change:
        with pytest.raises(LedgerUnavailable, match="is damaged"), SqliteLedger(path) as ledger:
            ledger.reserve("acme", {"all": 1})


def test_a_line_of_the_journal_that_no_ledger_wrote(filled, tmp_path, capsys):
    path = tmp_path / "l.db"
    path.write_bytes(filled)
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("UPDATE journal SET line = 'x' WHERE seq = 3")
        db.commit()
    for action, part in (
        ("spend", "journal line 3 cannot be read"),
        ("verify", "journal line 3 does not have the hash"),
    ):
        assert cli.main(["ledger", action, "--ledger", str(path)]) == 2
        assert part in capsys.readouterr().err
    assert cli.main(["ledger", "export", "--ledger", str(path)]) == 0
    assert len(capsys.readouterr().out.splitlines()) > 3
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("UPDATE journal SET line = x'ff' WHERE seq = 3")
        db.commit()
    for action in ("spend", "verify", "export"):
        assert cli.main(["ledger", action, "--ledger", str(path)]) == 2
        assert "is damaged (a line of the journal is no text)" in capsys.readouterr().err


def test_who_looks_leaves_nothing_beside_the_ledger(filled, tmp_path, capsys):
    path = tmp_path / "l.db"
    path.write_bytes(filled)
    for action in LOOKS:
        assert cli.main(["ledger", *action, "--ledger", str(path)]) == 0
        assert [one.name for one in tmp_path.iterdir()] == ["l.db"]
    assert path.read_bytes() == filled
    with SqliteLedger(path) as ledger:  # and takes nothing away from who uses it
        before = {one.name for one in tmp_path.iterdir()}
        assert cli.main(["ledger", "show", "--ledger", str(path)]) == 0
        assert {one.name for one in tmp_path.iterdir()} == before
        ledger.reserve("acme", {"all": 1})


@pytest.mark.parametrize("action", [["init"], ["show"], ["open", "a"]])
@pytest.mark.parametrize("url", ["mysql://u:pw@x/y", "sqlite:///x", "file:x?mode=ro", "memory:", "HTTP://x"])
def test_an_address_that_is_no_ledgers_makes_no_file(tmp_path, monkeypatch, capsys, action, url):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["ledger", *action, "--ledger", url]) == 2
    said = capsys.readouterr().err
    assert "redis://" in said
    assert "pw" not in said
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "url",
    [
        "redis://me:pa55@127.0.0.1:1/0", "redis://127.0.0.1:1/0?password=pa55",
        "postgresql://me:pa55@127.0.0.1:1/x", "postgres://127.0.0.1:1/x?user=me&password=pa55",
        "postgresql://127.0.0.1:1/x?sslpassword=pa55", "postgresql://127.0.0.1:1/x?passwd=pa55",
        "postgresql://me:pa55%zz@127.0.0.1:1/x",
        "postgresql://me:pa55 pa55@127.0.0.1:1/x", "postgresql://me:x@pa55/pa55@127.0.0.1:1/x",
        "postgresql://me:pa55@127.0.0.1:port/x", "postgresql://me:pa55#pa55@127.0.0.1:1/x",
    ],
)  # fmt: skip
def test_the_password_of_a_ledger_is_not_shown(capsys, url):
    pytest.importorskip("redis" if url.startswith("redis") else "psycopg")
    for action in ("show", "init"):
        assert cli.main(["ledger", action, "--ledger", url]) == 2
        said = capsys.readouterr().err
        assert any(part in said for part in ("did not answer", "cannot be found: the address", "cannot be used"))
        assert "pa55" not in said


@pytest.mark.parametrize("row", ['{"line": 5, "hash": "x"}', '{"line": "x", "hash": null}', "[" * 100_000])
def test_an_export_that_is_none(tmp_path, capsys, row):
    (tmp_path / "j").write_text(row + "\n")
    assert cli.main(["ledger", "verify", "--journal", str(tmp_path / "j")]) == 2
    assert "cannot read the export" in capsys.readouterr().err


def test_tree_shows_who_was_given_spent_and_holds_what(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from budgeteer.metering.agents import AgentBudget

    path, picture = str(tmp_path / "l.db"), tmp_path / "run.svg"
    with SqliteLedger(path) as ledger:
        text, parts = "50k, tool:search:20", {"scout": "8k, tool:search:5"}
        budget = AgentBudget.parse(text, ledger=ledger, path="acme/run-1", parts=parts)
        for _ in range(2):
            budget.use("scout", lambda: budget.use("search", lambda: "found"))
    found = rows(capsys, "tree", "--ledger", path, "--kind", "tool:search")
    assert [(row["agent"], row["parts"], row["given"], row["spent"], row["back"]) for row in found] == [
        ("acme", 0, None, 2, None), ("acme/run-1", 1, 20, 2, 18), ("acme/run-1/scout", 2, 10, 2, 8),
    ]  # fmt: skip
    assert cli.main(["ledger", "tree", "acme/run-1", "--ledger", path, "--out", str(picture)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["agent", "run-1", "scout"]
    assert lines[2].startswith("  scout ")
    assert picture.read_text().startswith("<svg")
    assert cli.main(["ledger", "tree", "acme/run-1", "--ledger", path, "--out", str(picture.with_suffix(".pdf"))]) == 2
    assert not picture.with_suffix(".pdf").exists()  # it would have held SVG
    assert cli.main(["ledger", "tree", "nobody", "--ledger", path]) == 2
    assert "nothing of the kind 'all' was reserved at 'nobody'; ledger show lists" in capsys.readouterr().err
    assert cli.main(["ledger", "tree", "acme", "--ledger", path, "--kind", "bytes"]) == 2
    assert "--kind is one of all, tool:search\n" in capsys.readouterr().err
    assert cli.main(["ledger", "tree", "--ledger", path, "--kind", "money"]) == 0
    assert capsys.readouterr().out == "nothing yet\n"


def test_a_watched_tree_is_a_page_that_follows_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from budgeteer.metering.agents import AgentBudget

    path, page = str(tmp_path / "l.db"), tmp_path / "run.html"
    with SqliteLedger(path) as ledger:
        budget = AgentBudget.parse("tool:search:20", ledger=ledger, path="run")
        seen = []

        def sleep(seconds: float) -> None:
            seen.append((seconds, page.read_text()))
            if len(seen) == 3:
                raise KeyboardInterrupt
            budget.use("search", lambda: "found")

        monkeypatch.setattr("time.sleep", sleep)
        command = ["ledger", "tree", "run", "--ledger", path, "--kind", "tool:search"]
        assert cli.main([*command, "--out", str(page), "--watch", "2"]) == 0
    assert [seconds for seconds, _ in seen] == [2.0] * 3
    assert ["run: 1 spent" in text for _, text in seen] == [False, True, False]
    assert "run: 2 spent" in seen[2][1]
    assert all('<meta http-equiv="refresh" content="2">' in text for _, text in seen)
    assert capsys.readouterr().out.splitlines()[1].split()[:5] == ["run", "tool:search", "1", "2", "20"]
    assert cli.main([*command, "--out", str(page)]) == 0
    assert "refresh" not in page.read_text()  # a page that nobody writes anew
