"""budgeteer data: examples of the embedded reasoner's own traces, under a budget, stopped and gone on with."""

from __future__ import annotations

import asyncio
import contextlib
import json

import pytest

from budgeteer import cli
from budgeteer.cli.data import gathered
from budgeteer.lab.results import write_text
from budgeteer.solve.lines import Lines
from budgeteer.tuning.protocol import Builder, Built, as_strategy

torch = pytest.importorskip("torch")

ARGS = ["--model", "reasoner", "--questions", "chains", "--limit", "6", "--budget", "8k"]


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def rows(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_examples_are_right_and_the_same_command_changes_nothing(tmp_path, capsys) -> None:
    out = tmp_path / "braked.jsonl"
    command = ["data", "self-braking:n=4,max_tokens=60", *ARGS, "--out", str(out)]
    assert cli.main(command) == 0
    said = capsys.readouterr().out
    made = rows(out)
    assert f"{len(made)} of kind sft, of {len({row['id'] for row in made})} of 6 questions" in said
    assert {*made[0]} == {"id", "prompt", "completion", "masked", "braked"}
    assert "spent" in said
    before = out.read_bytes()
    out.unlink()  # what was paid for is kept beside it
    assert cli.main(command) == 0
    assert out.read_bytes() == before
    assert "calls       6" in capsys.readouterr().out


def test_a_run_that_was_stopped_goes_on_and_ends_as_one_that_was_not(tmp_path, capsys, monkeypatch) -> None:
    name = "self-braking:n=2,max_tokens=60"
    whole, halves = tmp_path / "whole.jsonl", tmp_path / "halves.jsonl"
    assert cli.main(["data", name, *ARGS, "--concurrency", "1", "--out", str(whole)]) == 0
    from budgeteer.solve import books

    kept, keep = [], books.Books.keep

    def dying(self, question, row, answer):
        if len(kept) == 3:
            raise KeyboardInterrupt
        kept.append(question.id)
        keep(self, question, row, answer)

    with monkeypatch.context() as patch:
        patch.setattr(books.Books, "keep", dying)
        assert cli.main(["data", name, *ARGS, "--concurrency", "1", "--out", str(halves)]) == 130
    assert not halves.exists()
    assert len(rows(tmp_path / "halves.jsonl.work" / "questions.jsonl")) == 3
    assert cli.main(["data", name, *ARGS, "--concurrency", "1", "--out", str(halves)]) == 0
    assert halves.read_bytes() == whole.read_bytes()


def test_what_makes_no_example_says_why(tmp_path, capsys) -> None:
    out = str(tmp_path / "none.jsonl")
    assert cli.main(["data", "adar1", "--model", "reasoner", "--questions", "chains", "--limit", "2",
                     "--budget", "90", "--out", out]) == 1  # fmt: skip
    assert "not one trace of full length fits into a question's share" in capsys.readouterr().err
    out = str(tmp_path / "hard.jsonl")
    assert cli.main(["data", "adacot:n=1,max_tokens=4", *ARGS, "--out", out]) == 1
    assert "no question has the traces that an example takes" in capsys.readouterr().err


def test_questions_without_references_are_refused(tmp_path, capsys) -> None:
    file = tmp_path / "open.jsonl"
    file.write_text('{"question": "Why?"}\n')
    out = str(tmp_path / "x.jsonl")
    assert (
        cli.main(["data", "adar1", "--model", "reasoner", "--questions", str(file), "--budget", "9k", "--out", out])
        == 2
    )
    assert "no reference answer" in capsys.readouterr().err
    assert not (tmp_path / "x.jsonl").exists()


def test_what_a_model_writes_never_breaks_a_line_of_the_file(tmp_path) -> None:
    odd = "one\u2028two\x85three"
    example = {"id": "q", "prompt": odd, "completion": odd + "\ud83d"}  # half of an emoji, as some servers cut it
    solve = as_strategy(Builder(lambda task: done(Built((example,), "4")))).solve
    lines = list(asyncio.run(solve(None)).traces)
    kept = tmp_path / "traces.jsonl"
    with contextlib.closing(Lines(kept, sync=False)) as file:
        file.append({"id": "q", "traces": lines})
    (line,) = gathered(kept, ["q"])
    write_text(line + "\n", tmp_path / "out.jsonl")
    (row,) = map(json.loads, (tmp_path / "out.jsonl").open(encoding="utf-8"))
    assert row == example


async def done(value):
    return value
