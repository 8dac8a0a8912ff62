"""A user's verifier in a process of its own: what it does wrong costs one score, and the next one is right again."""

from __future__ import annotations

import os
import time

import pytest

from budgeteer.core.errors import InvalidInput, VerifierError
from budgeteer.verify.sandbox import Sandbox

pytest.importorskip("resource")

FILE = """
import os, subprocess, sys, time
calls = 0
def verify(answer, reference):
    global calls
    calls += 1
    if answer == "hang":
        print("x" * 1_000_000)
        subprocess.run(["sleep", "60"])
    if answer == "memory":
        return len(bytearray(1 << 40))
    if answer == "die":
        os._exit(3)
    if answer == "exit":
        sys.exit("bye")
    if answer == "file":
        with open("large", "wb") as file:
            for _ in range(64):
                file.write(bytes(1 << 20))
    if answer == "key":
        return float("SECRET_KEY" in os.environ)
    if answer == "calls":
        return calls / 100
    if answer == "run":  # what a model wrote, as a program
        done = subprocess.run([sys.executable, "-c", reference], capture_output=True, text=True)
        return float(done.stdout == "42\\n")
    return {"nan": float("nan"), "none": None, "two": 2}.get(answer, float(answer == reference))
def other(answer, reference):
    return 0.5
"""


@pytest.fixture
def box(tmp_path, monkeypatch):
    monkeypatch.setenv("SECRET_KEY", "sk")
    (tmp_path / "mine.py").write_text(FILE)
    made = Sandbox(f"python:{tmp_path / 'mine.py'}", seconds=1.5, memory=2 << 30)
    yield made
    made.close()


def test_scores_and_what_is_kept_between_calls(box, tmp_path) -> None:
    assert [box("7", "7"), box("8", "7"), box(None, "7"), box("7" * 200_000, "7")] == [1, 0, 0, 0]
    assert box("calls", "") == 0.05
    assert box("key", "") == 0  # keys of the environment are not there
    assert box("run", "print(6 * 7)") == 1
    assert box("run", "print(" + "[0] * (1 << 40))") == 0  # a program of a model has the memory limit, too
    named = Sandbox(f"python:{tmp_path / 'mine.py'}:other")
    assert named("7", "8") == 0.5
    named.close()


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ("hang", "took more than 1.5 s"),
        ("memory", "raised MemoryError"),
        ("die", "ended its process"),
        ("exit", "raised SystemExit"),
        ("file", "raised OSError"),
        ("nan", "returned nan"),
        ("none", "returned None, not 0 to 1"),
        ("two", "returned 2, not 0 to 1"),
    ],
)
def test_what_goes_wrong_is_an_error_and_the_next_call_is_right(box, answer, message) -> None:
    with pytest.raises(VerifierError, match=message):
        box(answer, "7")
    assert box("7", "7") == 1


def test_what_hung_is_ended_with_all_that_it_started(box) -> None:
    box("7", "7")
    group = box._held.process.pid
    with pytest.raises(VerifierError):
        box("hang", "7")
    until = time.monotonic() + 10
    while time.monotonic() < until:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.01)
    raise AssertionError("the process that slept is still there")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot read"),
        ("def other(answer, reference): return 1", "has no function verify"),
        ("raise ValueError('at the head')", "cannot be loaded: ValueError: at the head"),
        ("def verify(answer reference): pass", "cannot be loaded: SyntaxError: invalid syntax"),
        ("import os; os._exit(1)", "ended its process"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_at_once(tmp_path, content, message) -> None:
    path = tmp_path / "mine.py"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InvalidInput, match=message):
        Sandbox(f"python:{path}")


def test_a_fork_has_a_process_of_its_own_and_ends_no_other(box) -> None:
    box("7", "7")
    child = os.fork()
    if not child:
        own = [box("calls", ""), box("7", "7")]  # not the second call of the other's process
        box.close()
        os._exit(0 if own == [0.01, 1] else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert box("calls", "") == 0.02
