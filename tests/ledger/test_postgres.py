"""What is PostgreSQL's own: one lock for all replicas, errors that say what to do, names of all kinds."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from budgeteer.core import errors
from budgeteer.ledger import Limit
from helpers import servers
from helpers.postgres_server import PASSWORD, USER

psycopg = pytest.importorskip("psycopg")
if why := servers.why_not("postgres"):
    pytest.skip(why, allow_module_level=True)
from budgeteer.ledger import PostgresLedger, postgres, postgres_link  # noqa: E402

SECOND = 1000
NAMES = [f"name-{i}" for i in range(100)]


@pytest.fixture
def url(postgres_process: str) -> str:
    return servers.shared("postgres")


@pytest.fixture
def db(url: str) -> Iterator[psycopg.Connection]:
    """A connection of somebody else, to look at tables and to change them."""
    with psycopg.connect(url, autocommit=True) as connection:
        yield connection


def opened(url: str, **options: object) -> PostgresLedger:
    ledger = PostgresLedger(url, **options)
    ledger.open("org", [Limit("all", 1000)])
    return ledger


def test_a_batch_takes_two_round_trips_however_many_commands_it_has(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(url, clock=lambda: 10**12) as ledger:
        commands = [("reserve", f"c{i}", "org", (("all", 1),), 600_000, "") for i in range(100)]
        ledger.run_batch(commands[:1])
        statements: list[str] = []

        execute, end = postgres_link.Connection.execute, psycopg.Pipeline._enqueue_sync

        def asked(self, query, *more):
            statements.append((query.decode() if isinstance(query, bytes) else query).split()[0])
            return execute(self, query, *more)

        def answered(self):
            statements.append("answers")
            return end(self)

        monkeypatch.setattr(postgres_link.Connection, "execute", asked)
        monkeypatch.setattr(psycopg.Pipeline, "_enqueue_sync", answered)
        ledger.run_batch(commands)
        ledger.run_batch([("settle", f"c{i}", (("all", 1),), "") for i in range(100)])
        # begin, lock, reservations, accounts; then all changes and commit: as for one command
        assert statements == ["BEGIN", "SELECT", "WITH", "SELECT", "answers", "WITH", "COMMIT", "answers"] * 2
        assert ledger.remaining("org") == {"all": 900}


@pytest.mark.parametrize(
    ("statement", "values"), [("_READ", (None, NAMES, 1000)), ("_ACCOUNTS", (NAMES,)), ("_FORGET", (5,))]
)
def test_what_is_planned_while_the_tables_are_empty_reads_no_whole_table_later(
    url: str, statement: str, values: tuple[object, ...]
) -> None:
    """The server plans a prepared statement once; a plan for an empty table would read all of a full one."""
    with opened(url) as ledger:
        query = b"EXPLAIN " + ledger._sql(getattr(postgres, statement))
        plan = ledger._link.run(lambda connection: connection.execute(query, values).fetchall())
    assert "Index" in str(plan)
    assert "Seq Scan on reservations" not in str(plan)
    assert "Seq Scan on accounts" not in str(plan)


def test_a_replica_that_stands_still_in_a_transaction_holds_up_no_other_for_long(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(url, timeout=0.6) as one, PostgresLedger(url, timeout=10) as other:
        write, stands = one._write, threading.Event()

        def wait(*arguments: object) -> None:
            stands.set()
            time.sleep(2)
            write(*arguments)

        monkeypatch.setattr(one, "_write", wait)
        with ThreadPoolExecutor(1) as pool:
            held = pool.submit(one.reserve, "org", {"all": 600}, id="x")
            stands.wait(10)
            assert other.reserve("org", {"all": 600}, id="y").status == "open"
            with pytest.raises(errors.BudgetExceeded):  # done again with what the other has left
                held.result()
        other.verify()


def test_replicas_that_begin_at_once_make_one_ledger(url: str) -> None:
    def begin(number: int) -> str:
        with PostgresLedger(url) as ledger:
            ledger.open("org", [Limit("all", 1000)])
            return ledger.reserve("org", {"all": 1}, id=f"r{number}").status

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(begin, range(8))) == {"open"}
    with PostgresLedger(url, create=False) as ledger:
        assert ledger.remaining("org") == {"all": 992}
        ledger.verify()


def test_what_another_process_has_reserved_is_settled_and_expires_here(url: str) -> None:
    now = [10**12]
    with opened(url, clock=lambda: now[0]) as one, PostgresLedger(url, clock=lambda: now[0]) as other:
        one.open("org/team", [Limit("all", 500)])
        one.reserve("org/team", {"all": 100}, id="a", ttl=60)
        one.reserve("org/team", {"all": 50}, id="b", ttl=60)
        assert other.settle("a", {"all": 70}).status == "settled"
        now[0] += 60 * SECOND
        assert other.remaining("org") == {"all": 1000 - 70 - 50}
        with pytest.raises(errors.ReservationClosed):
            one.release("b")
        other.verify()


def test_a_reservation_made_after_the_clock_went_back_expires_in_its_time(url: str) -> None:
    """What is due is looked for from where the last sweep ended; a reset puts that back, too."""
    now = [10**12]
    with opened(url, clock=lambda: now[0]) as ledger:
        ledger.reserve("org", {"all": 100}, id="a", ttl=10)
        now[0] += 3600 * SECOND
        ledger.settle(ledger.reserve("org", {"all": 1}).id)
        now[0] = 10**12
        ledger.reset("org")
        ledger.reserve("org", {"all": 200}, id="b", ttl=10, on_abandon="release")
        now[0] += 10 * SECOND
        assert ledger.remaining("org") == {"all": 1000}
        ledger.verify()


def test_more_reservations_than_one_sweep_takes_expire_one_sweep_after_the_other(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("budgeteer.ledger.core.SWEEP", 3)
    now = [10**12]
    with opened(url, clock=lambda: now[0]) as ledger:
        for i in range(8):
            ledger.reserve("org", {"all": 10}, id=f"r{i}", ttl=10 + i, on_abandon="release")
        now[0] += 60 * SECOND
        assert [ledger.remaining("org")["all"] for _ in range(3)] == [950, 980, 1000]
        ledger.verify()


def test_forgotten_reservations_leave_the_table(url: str, db: psycopg.Connection) -> None:
    now = [10**12]
    with opened(url, clock=lambda: now[0], remember=60) as ledger:
        for _ in range(5):
            ledger.settle(ledger.reserve("org", {"all": 1}).id)
        ledger.reserve("org", {"all": 1}, id="open", ttl=900)
        now[0] += 60 * SECOND
        ledger.reserve("org", {"all": 1}, id="new")
        assert db.execute("SELECT id FROM budgeteer.reservations ORDER BY id").fetchall() == [("new",), ("open",)]


def test_names_of_all_letters_and_lengths_are_told_apart(url: str) -> None:
    """An index takes 2,700 bytes; a path may have 8,000, and these differ in the last one only."""
    rng = random.Random(1)  # no index can compress it
    scopes = ["".join(chr(rng.randint(0x20000, 0x2A000)) for _ in range(128)) for _ in range(15)]
    deep = ["/".join(scopes[:depth]) for depth in range(1, 16)]
    with PostgresLedger(url) as ledger:
        ledger.open(deep[0], [Limit("all", 1000)])
        for path in deep[1:]:
            ledger.open(path)
        for last in "xy":
            ledger.open(f"{deep[-1]}/{last}", [Limit("all", 10)])
            ledger.settle(ledger.reserve(f"{deep[-1]}/{last}", {"all": 7}, id=(scopes[0] + scopes[1])[:255] + last).id)
            assert ledger.remaining(f"{deep[-1]}/{last}") == {"all": 3}
        assert ledger.remaining(deep[0]) == {"all": 986}
        assert len(ledger.snapshot()[1].accounts) == 17
        ledger.verify()


def test_an_id_that_no_text_can_hold_stops_nobody_else(url: str) -> None:
    with opened(url) as ledger:
        held = ledger.reserve("org", {"all": 10})
        found = ledger.run_batch([("settle", "a\0b", None, ""), ("settle", held.id, None, "")])
        assert isinstance(found[0], errors.UnknownReservation)
        assert found[1][4] == "settled"


def test_a_ledger_that_lost_entries_refuses_until_connected_anew(url: str, db: psycopg.Connection) -> None:
    with opened(url) as ledger:
        ledger.settle(ledger.reserve("org", {"all": 100}).id)
        db.execute("UPDATE budgeteer.meta SET seq = 1")
        with pytest.raises(errors.LedgerUnavailable, match="lost entries: 3 were written, 1 are there"):
            ledger.reserve("org", {"all": 1})
        db.execute("DROP SCHEMA budgeteer CASCADE")
        with pytest.raises(errors.LedgerUnavailable, match="is not there any more"):
            ledger.reserve("org", {"all": 1})
    with pytest.raises(errors.LedgerUnavailable, match="ledger init"):
        PostgresLedger(url, create=False)


@pytest.mark.parametrize("read", ["snapshot", "accounts"])
def test_what_is_written_while_the_ledger_is_read_is_not_lost(
    url: str, read: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(url) as ledger:
        run = ledger._reader.run

        def slowly(work):
            answer = run(work)
            ledger.reserve("org", {"all": 1})
            return answer

        monkeypatch.setattr(ledger._reader, "run", slowly)
        state = ledger.snapshot()[1] if read == "snapshot" else ledger.accounts(["org"])
        assert state.accounts["org"].books["all"].held == 0
        assert ledger.remaining("org") == {"all": 999}


def at(url: str, **parts: object) -> str:
    """The address with other parts: user, password, port, database."""
    given = {
        "user": USER,
        "password": PASSWORD,
        "port": url.rpartition(":")[2].partition("/")[0],
        "database": "postgres",
    }
    return "postgresql://{user}:{password}@127.0.0.1:{port}/{database}".format(**{**given, **parts})


def poor(db: psycopg.Connection) -> str:
    """A new user who may do nothing; its name is its password."""
    name = f"poor{db.info.backend_pid}"
    db.execute(f"DROP ROLE IF EXISTS {name}")
    db.execute(f"CREATE ROLE {name} LOGIN PASSWORD '{name}'")
    return name


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"password": "wrong"}, "did not answer .*password authentication failed.*give the right user and password"),
        ({"user": "nobody"}, "did not answer .*password authentication failed"),
        ({"database": "none"}, 'did not answer .*database "none" does not exist.*make it first'),
        ({"port": 1}, "did not answer .*refused"),
    ],
)
def test_a_server_that_lets_nobody_in_says_why(url: str, parts: dict[str, object], said: str) -> None:
    with pytest.raises(errors.LedgerUnavailable, match=said) as caught:
        PostgresLedger(at(url, **parts), timeout=2)
    assert PASSWORD not in str(caught.value)
    assert "wrong" not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith("do not spend")


def test_a_user_without_rights_is_told_so(url: str, db: psycopg.Connection) -> None:
    name = poor(db)
    here = at(url, user=name, password=name)
    with pytest.raises(errors.LedgerUnavailable, match=r"is not for this user .*permission denied for database"):
        PostgresLedger(here)
    PostgresLedger(url).close()
    with pytest.raises(errors.LedgerUnavailable, match=r"is not for this user .*permission denied for schema"):
        PostgresLedger(here)
    db.execute(f"GRANT USAGE ON SCHEMA budgeteer TO {name}")
    db.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA budgeteer TO {name}")
    with PostgresLedger(here) as ledger:  # may look
        assert ledger.verify().entries == 0
        with pytest.raises(errors.LedgerUnavailable, match=r"is not for this user .*permission denied for table"):
            ledger.open("org", [Limit("all", 1)])
    db.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA budgeteer TO {name}")  # as the docs say
    with opened(here) as ledger:
        assert ledger.remaining("org") == {"all": 1000}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("UPDATE budgeteer.meta SET format = 2", r"of another version of budgeteer \(its format is 2, not 1\)"),
        ("ALTER TABLE budgeteer.meta DROP COLUMN format", "of another version of budgeteer .*format"),
        ("ALTER TABLE budgeteer.reservations DROP COLUMN over", "of another version of budgeteer"),
        ("DROP TABLE budgeteer.journal", "is not there any more .*journal"),
        ("DELETE FROM budgeteer.meta", r"is damaged \(its state is None\): do not spend"),
        ("UPDATE budgeteer.meta SET seq = -5", r"is damaged \(its state is"),
        ("UPDATE budgeteer.accounts SET books = '{'", r"is damaged \(account 'org' cannot be read"),
        ("UPDATE budgeteer.reservations SET amounts = 'all'", r"is damaged \(reservation 'x' cannot be read"),
    ],
)
def test_tables_that_are_not_ours_are_told_apart_from_damage(
    url: str, db: psycopg.Connection, change: str, said: str
) -> None:
    with opened(url) as ledger:
        ledger.reserve("org", {"all": 1}, id="x")
    db.execute(change)
    with pytest.raises(errors.LedgerUnavailable, match=said), PostgresLedger(url) as ledger:
        ledger.settle("x", {"all": 1})


def test_a_standby_can_be_looked_at_and_is_refused_otherwise() -> None:
    server = servers.own("postgres")
    try:
        with opened(server.url) as ledger:
            server.end()
            (server.folder / "data" / "standby.signal").touch()
            server.start()
            with pytest.raises(errors.LedgerUnavailable, match=r"can only be read .*target_session_attrs=read-write"):
                ledger.reserve("org", {"all": 1})
            assert ledger.verify().entries == 1
        with pytest.raises(errors.LedgerUnavailable, match="can only be read"):
            PostgresLedger(server.url, name="other")
    finally:
        server.stop()


def test_a_database_that_does_not_hold_all_letters_is_refused(url: str, db: psycopg.Connection) -> None:
    db.execute("DROP DATABASE IF EXISTS latin")
    db.execute("CREATE DATABASE latin ENCODING LATIN1 LOCALE 'C' TEMPLATE template0")
    with pytest.raises(errors.LedgerUnavailable, match=r"the database is in LATIN1.*createdb --encoding UTF8"):
        PostgresLedger(at(url, database="latin"))


def test_a_connection_that_died_while_idle_is_made_anew(url: str, db: psycopg.Connection) -> None:
    with opened(url) as ledger:
        ledger.reserve("org", {"all": 1}, id="x")
        db.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'budgeteer'")
        assert ledger.settle("x", {"all": 1}).status == "settled"
        ledger.verify()


def test_ledgers_of_several_names_are_apart(url: str, db: psycopg.Connection) -> None:
    db.execute('DROP SCHEMA IF EXISTS "order" CASCADE')
    with opened(url) as one, PostgresLedger(url, name="order") as other:  # a word of SQL
        one.reserve("org", {"all": 1})
        with pytest.raises(errors.UnknownAccount):
            other.reserve("org", {"all": 1})
        assert (one.verify().entries, other.verify().entries) == (2, 0)
    db.execute('DROP SCHEMA "order" CASCADE')


def test_a_server_that_is_too_old_is_named(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres_link, "OLDEST", 99)
    with pytest.raises(errors.LedgerUnavailable, match=r"is in PostgreSQL \d+; 99 or newer is needed"):
        PostgresLedger(url)


def test_without_the_package_its_extra_is_named() -> None:
    import subprocess
    import sys

    code = (
        "import sys; sys.modules['psycopg'] = None\n"
        "from budgeteer.ledger.address import connect\n"
        "from budgeteer.core.errors import MissingExtra\n"
        "try: connect('postgresql://127.0.0.1/x')\n"
        "except MissingExtra as error: print(error)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "budgeteer[postgres]" in said


def test_the_journal_is_read_in_pages_and_gaps_show(
    url: str, db: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "_PAGE", 3)
    with opened(url) as ledger:
        for _ in range(5):
            ledger.settle(ledger.reserve("org", {"all": 1}).id)
        assert ledger.verify().entries == len(list(ledger.lines())) == 11
        assert list(ledger.lines(2, 7)) == list(ledger.lines())[2:7]
        db.execute("DELETE FROM budgeteer.journal WHERE seq BETWEEN 2 AND 8")
        assert len(list(ledger.lines())) == 4
        with pytest.raises(errors.JournalBroken, match="journal line 2"):
            ledger.verify()
