"""One way to name a task: the same grammar, items, errors and verifiers for training and for solving."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import sys

import pytest

from budgeteer import cli
from budgeteer.core.errors import InvalidInput, UnknownName, VerifierError
from budgeteer.lab import pool, questions
from budgeteer.lab.tasks import named
from budgeteer.lab.tasks.base import score
from budgeteer.lab.tasks.named import load, parse, stamp, with_options
from helpers import needs

ROWS = [{"question": f"{i} plus {i}?", "answer": f"so\n#### {2 * i}"} for i in range(40)]

PYTHON = """
from budgeteer.core.environment import Item

class Doubles:
    name = "doubles"

    def __init__(self, size=40, seed=0, by=2):
        self.items = [Item(f"double:{i}", f"{by} times {i + seed}?", str(by * (i + seed))) for i in range(size)]

    def verify(self, item, answer):
        return 0.5 if answer == "half" else float(answer == item.answer)

READY = Doubles(30)
NUMBER = 5
def broken(size):
    raise ZeroDivisionError("no")
"""


@pytest.fixture
def python(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(PYTHON)
    return path


def write(path, rows=ROWS):
    """The rows in the format of the path's name."""
    if path.suffix == ".parquet":
        pytest.importorskip("polars").DataFrame(rows).write_parquet(path)
        return path
    lines = [list(rows[0]), *(row.values() for row in rows)]
    quoted = [",".join('"' + str(cell).replace('"', '""') + '"' for cell in line) for line in lines]
    text = {
        ".jsonl": "\n".join(map(json.dumps, rows)) + "\n",
        ".json": json.dumps(rows, indent=1),
        ".csv": "\r\n".join(quoted) + "\r\n",
    }["." + path.name.split(".")[1]]
    content = b"\xef\xbb\xbf" + text.encode() if "bom" in path.name else text.encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


# names


@pytest.mark.parametrize(
    ("text", "source", "options", "verifier"),
    [
        ("real", "real", {}, None),
        ("gym:lcm", "gym:lcm", {}, None),
        ("chains:min_steps=4,max_steps=6", "chains", {"min_steps": "4", "max_steps": "6"}, None),
        ("gym:chain_sum:min_terms=2,max_terms=3", "gym:chain_sum", {"min_terms": "2", "max_terms": "3"}, None),
        ("gym:a:b=[1,2],c=x", "gym:a", {"b": "[1,2]", "c": "x"}, None),
        ("x.csv:question=q,verifier=python:v.py:f", "x.csv", {"question": "q"}, "python:v.py:f"),
        ("python:a.py:NAME:size=3", "python:a.py:NAME", {"size": "3"}, None),
        ("a, b.csv:question=q", "a, b.csv", {"question": "q"}, None),
    ],
)
def test_a_name_is_taken_apart_and_put_together(text, source, options, verifier):
    spec, chosen = parse(text)
    assert (spec.name, dict(spec.options), chosen) == (source, options, verifier)
    assert str(spec.given(verifier=chosen)) == text


def test_options_are_part_of_the_name():
    assert with_options("x.csv:answer=a", question="q", answer=None, verifier="math") == (
        "x.csv:answer=a,question=q,verifier=math"
    )
    assert with_options("real", question=None, answer=None, verifier=None) == "real"
    with pytest.raises(InvalidInput, match="--answer-field names a field of a file; 'real' is none"):
        with_options("real", question=None, answer="a", verifier=None)
    with pytest.raises(InvalidInput, match="gives question twice"):
        parse("x.csv:question=a,question=b")


def test_a_field_may_have_commas_and_look_like_a_number(tmp_path):
    path = write(tmp_path / "x.csv", [{"What, exactly?": "Why?", "1.50": "so"}])
    task = with_options(str(path), question="What, exactly?", answer="1.50", verifier="exact")
    assert task == f'{path}:question="What, exactly?",answer=1.50,verifier=exact'
    (item,) = load(task, size=1).items
    assert (item.prompt, item.answer) == ("Why?", "so")


# named pools are what they were when benchmarks/results/rlvr.json was made


@pytest.mark.parametrize(
    ("task", "seed", "train", "heldout", "digest"),
    [
        ("real", 0, 512, 1024, "54be316a221b8ff3"),
        ("real", 3, 60, 90, "8345f2c2126bd73d"),
        ("hard", 0, 512, 1024, "c39e3f4119e09137"),
        ("homogeneous", 0, 512, 1024, "7681b83ae444918b"),
        ("chains", 3, 60, 90, "4e4a7ad41a9dfd02"),
        ("gym:gcd", 3, 60, 90, "319f0830a4bd9ab7"),
        ("gym:chain_sum", 3, 60, 90, "2740362632a0faab"),
        ("gym:number_filtering", 3, 60, 90, "0234ff6c8bb49e7b"),
    ],
)
def test_pools_hold_the_problems_that_the_results_were_made_with(task, seed, train, heldout, digest):
    needs.reasoning_gym()
    made = pool.build(task, seed, train, heldout)
    rows = [[[i.key, i.prompt, i.answer, i.level] for i in part] for part in (made.train, made.heldout)]
    assert hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:16] == digest


@pytest.mark.parametrize(
    ("task", "digest"),
    [
        ("chains:min_steps=1,max_steps=8", "2eaa9c85ab45653c"),
        ("gym:chain_sum:min_terms=2,max_terms=3", "8db0a725692c3651"),
        ("gym:basic_arithmetic", "817013e3ea8a5db5"),
    ],
)
def test_questions_are_what_they_were(task, digest):
    needs.reasoning_gym()
    asked = questions.load(task, limit=40, seed=77)
    rows = [[q.id, q.text, asked.references[q.id]] for q in asked.questions] + [list(map(list, asked.info.examples))]
    assert hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:16] == digest


# every kind of task, for training and for solving


@pytest.mark.parametrize(
    "task", ["real", "hard", "chains:min_steps=5", "gym:lcm", "gym:chain_sum:min_terms=2,max_terms=3"]
)
def test_generated_tasks_train_and_are_asked(task):
    needs.reasoning_gym()
    made = pool.build(task, 1, 30, 20)
    asked = questions.load(task, limit=20, seed=1)
    for item in (*made.train, *made.heldout):
        assert score(made.environment, item, f"</think>{item.answer}") == 1.0
    assert abs(len(asked.questions) - 20) <= 3
    for question in asked.questions:
        assert asked.grade(question, asked.references[question.id]) == 1.0
        assert asked.grade(question, None) == 0.0


@pytest.mark.parametrize("name", ["x.jsonl", "x.json", "x.csv", "x.parquet", "x.jsonl.gz", "x.csv.gz", "x.json.gz"])
@pytest.mark.parametrize("bom", ["", "bom_"])
def test_files_of_all_formats_hold_the_same(tmp_path, name, bom):
    path = str(write(tmp_path / (bom + name)))
    asked = questions.load(path)
    assert [q.text for q in asked.questions] == [row["question"] for row in ROWS]
    assert list(asked.references.values()) == [str(2 * i) for i in range(40)]
    assert asked.info.numeric
    assert [q.id for q in asked.questions][:2] == [f"{bom}x:1", f"{bom}x:2"]
    made = pool.build(path, 0, 30, 10)
    assert (len(made.train), len(made.heldout)) == (30, 10)
    assert not {i.prompt for i in made.train} & {i.prompt for i in made.heldout}
    assert made.digest() == pool.build(path, 0, 30, 10).digest()


def test_other_fields_ids_and_a_verifier(tmp_path):
    path = write(tmp_path / "mc.csv", [{"id": f"n{i}", "q": f"Which {i}?", "letter": "AB"[i % 2]} for i in range(8)])
    task = with_options(str(path), question="q", answer="letter", verifier="choice")
    asked = questions.load(task)
    assert [q.id for q in asked.questions][:2] == ["n0", "n1"]
    assert asked.grade(asked.questions[1], "(b) Paris") == 1.0
    assert asked.grade(asked.questions[1], "A") == 0.0
    made = pool.build(task, 0, 5, 3)
    assert {score(made.environment, item, f"</think>{item.answer.lower()})") for item in made.train} == {1.0}


def test_training_and_solving_grade_alike(tmp_path):
    pairs = [("3/4", "1/4"), ("A1", "B1"), ("May 5, 1990", "June 3, 1990"), ("30", "12:30"), ("123", "1,2,3"),
             ("3/4", "0.75"), ("100000", "1e5"), ("Paris", "paris.")]  # fmt: skip
    path = str(write(tmp_path / "g.jsonl", [{"question": f"q{n}", "answer": r} for n, (r, _) in enumerate(pairs)]))
    asked, made = questions.load(path), pool.build(path, 0, 4, 4)
    solved = {q.text: asked.grade(q, pairs[n][1]) for n, q in enumerate(asked.questions)}
    trained = {
        i.prompt: score(made.environment, i, f"</think>{pairs[int(i.prompt[1:])][1]}")
        for i in (*made.train, *made.heldout)
    }
    assert solved == trained == {f"q{n}": float(n > 4) for n in range(8)}


def test_standard_input_is_for_solving(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO('\ufeff{"q": "Why?", "answer": "so"}\n'))
    asked = questions.load(with_options("-", question="q", answer=None, verifier=None))
    assert asked.grade(asked.questions[0], "so") == 1.0
    with pytest.raises(InvalidInput, match="write standard input to a file"):
        pool.build("-", 0, 3, 3)


def test_an_environment_of_a_file(python):
    task = f"python:{python}:Doubles"
    made = pool.build(task, 4, 20, 10)
    assert len(made.train) == 20
    assert {score(made.environment, item, f"</think>{item.answer}") for item in made.train} == {1.0}
    assert score(made.environment, made.train[0], "</think>half") == 0.5  # partial credit stays
    asked = questions.load(f"{task}:by=3", limit=7, seed=5)
    assert [q.text for q in asked.questions][:2] == ["3 times 5?", "3 times 6?"]
    assert len(asked.questions) == 7
    assert len(questions.load(f"python:{python}:READY", limit=9).questions) == 9
    other = questions.load(f"{task}:verifier=number", limit=7)
    assert other.grade(other.questions[1], "2.0") == 1.0
    assert other.grade(other.questions[1], "half") == 0.0


def test_an_environment_of_a_package(tmp_path, monkeypatch):
    (tmp_path / "some_package_of_tasks.py").write_text(PYTHON)
    monkeypatch.syspath_prepend(tmp_path)
    made = pool.build("some_package_of_tasks:READY", 0, 20, 10)
    assert made.environment.name == "doubles"
    assert len(questions.load("some_package_of_tasks:Doubles", limit=3).questions) == 3


def test_a_verifier_of_a_file_grades_any_task(tmp_path):
    path = tmp_path / "v.py"
    path.write_text("def verify(answer, reference):\n    return 0.25\n")
    task = f"chains:max_steps=3,verifier=python:{path}"
    made, asked = pool.build(task, 0, 5, 5), questions.load(task, limit=5)
    assert score(made.environment, made.train[0], "</think>x") == 0.25
    assert asked.grade(asked.questions[0], "x") == 0.25
    path.write_text("def verify(answer, reference):\n    return 5\n")
    with pytest.raises(VerifierError, match="returned 5, not 0 to 1, on reference"):
        score(pool.build(task, 0, 5, 5).environment, made.train[0], "</think>x")


def test_a_verifier_that_fails_costs_one_answer_and_not_those_before_it(tmp_path, capsys):
    (tmp_path / "v.py").write_text("def verify(answer, reference):\n    return 1 / (int(reference) - 4)\n")
    path = write(
        tmp_path / "x.jsonl", [{"question": "1 plus 1?", "answer": "5"}, {"question": "2 plus 2?", "answer": "4"}]
    )
    out = tmp_path / "out.jsonl"
    command = ["solve", str(path), "--strategy", "direct:max_tokens=4", "--budget", "2k", "--style", "direct"]
    with pytest.warns(UserWarning, match="raised ZeroDivisionError"):
        assert cli.main([*command, "--verifier", f"python:{tmp_path}/v.py", "--out", str(out)]) == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert {row["id"]: row["correct"] for row in rows} == {"x:1": True, "x:2": False}
    assert "the verifier failed 1 times, which counts as wrong; the first: verifier 'python:" in capsys.readouterr().err


# identity


def test_a_digest_covers_prompts_answers_verifier_and_settings(tmp_path, python):
    path = tmp_path / "x.jsonl"
    rows = [dict(row) for row in ROWS]

    def digests(task):
        return load(task, size=40).digest(), pool.build(task, 0, 30, 10).digest()

    seen = [digests(str(write(path, rows)))]
    assert digests(str(path)) == seen[0]
    seen.append(digests(f"{path}:verifier=number"))
    for field, text in (("answer", "7"), ("question", "other?")):
        rows[3][field] = text
        before = stamp(str(path))
        seen.append(digests(str(write(path, rows))))
        assert stamp(str(path)) != before
    verifier = tmp_path / "v.py"
    for content in ("def verify(a, r):\n    return 1\n", "def verify(a, r):\n    return 0\n"):
        verifier.write_text(content)
        seen.append(digests(f"{path}:verifier=python:{verifier}"))
    seen += [digests(f"python:{python}:Doubles"), digests(f"python:{python}:Doubles:by=3")]
    python.write_text(PYTHON + "\n# other\n")
    seen.append(digests(f"python:{python}:Doubles"))
    assert len({one for one, _ in seen}) == len({both for _, both in seen}) == len(seen)
    assert pool.build(str(path), 0, 30, 10).digest() != pool.build(str(path), 1, 30, 10).digest()
    assert [part[0] for part in stamp(f"{path}:verifier=python:{verifier}:f")] == [str(path), str(verifier)]


# errors


@pytest.mark.parametrize("ask", [lambda task: pool.build(task, 0, 30, 10), lambda task: questions.load(task, limit=40)])
@pytest.mark.parametrize(
    ("task", "error", "match"),
    [
        ("chain", UnknownName, "'chains'"),
        ("reel", UnknownName, "'real'"),
        ("gcd", UnknownName, "'gym:gcd'"),
        ("gmy:gcd", UnknownName, "'gym:gcd'"),
        ("gym:lmc", UnknownName, "'lcm'"),
        ("gym", InvalidInput, "names no family; write gym:FAMILY, such as gym:chain_sum"),
        ("gym:gcd:4", InvalidInput, "'4' is no option; write NAME:key=value"),
        ("chains:4", InvalidInput, "'4' is no option; write NAME:key=value"),
        ("real:4", InvalidInput, "'4' is no option; write NAME:key=value"),
        ("", InvalidInput, "task '' is empty"),
        ("chains:most=4", UnknownName, "unknown option of chains 'most'"),
        ("chains:size=4", UnknownName, "unknown option of chains 'size'"),
        ("chains:min_steps=9,max_steps=2", InvalidInput, "min_steps=9, max_steps=2; give whole numbers"),
        (
            "chains:min_steps=x",
            InvalidInput,
            r"min_steps is a whole number \(fewest steps of a chain, from 1 to max_steps\)",
        ),
        ("gym:lcm:min_numbers=5,max_numbers=2", InvalidInput, "task 'gym:lcm:min_numbers=5,max_numbers=2'"),
        ("real:min_steps=3", InvalidInput, "real has no options; min_steps is an option of chains"),
        ("real:verifier=numbers", UnknownName, "'number'"),
        ("none.jsonl", InvalidInput, "cannot read none.jsonl"),
        ("none.csv", InvalidInput, "cannot read none.csv"),
        ("none.parquet", InvalidInput, "cannot read none.parquet"),
        ("none.csv:query=q", UnknownName, "unknown option of the file none.csv 'query'; did you mean 'question'"),
        ("python:none.py:X", InvalidInput, "cannot read none.py"),
        ("python:none.py", InvalidInput, "write python:FILE.py:NAME"),
    ],
)
def test_bad_names_are_refused_alike_everywhere(ask, task, error, match):
    needs.reasoning_gym()
    with pytest.raises(error, match=match):
        ask(task)


@pytest.mark.parametrize(
    ("name", "error", "match"),
    [
        ("Double", UnknownName, "'Doubles'"),
        ("NUMBER", InvalidInput, r"NUMBER is int and no Environment \(name, items, verify\)"),
        ("broken", InvalidInput, "broken raised ZeroDivisionError"),
        ("READY:by=3", InvalidInput, "takes no options"),
        ("Doubles:to=3", InvalidInput, "unexpected keyword argument 'to'"),
    ],
)
def test_bad_names_in_a_file_are_refused(python, name, error, match):
    with pytest.raises(error, match=match):
        load(f"python:{python}:{name}", size=5)


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("x.jsonl", b'{"question": "a"}\n{"question": "b"', r"x\.jsonl, line 2: not JSON"),
        ("x.jsonl", b"\xff\xfe\x00", "not UTF-8"),
        ("x.json", b"[1, 2]", r"row 1: not an object with fields but 1"),
        ("x.json", b"[{", "not a JSON array"),
        ("x.jsonl.gz", b"no gzip", "cannot read"),
        ("x.jsonl.gz", gzip.compress(b"{}" * 999, mtime=0)[:-9], "cannot read"),
        ("x.csv", b"question,answer\na,b,c\n", "line 2: not as many fields"),
        (
            "x.csv",
            b"prompt,answer\na,b\n",
            "no field 'question'; it has 'prompt', 'answer'; name yours with --question-field",
        ),
        ("x.csv", b"question,answer\n", "holds no questions"),
        ("x.parquet", b"no parquet", "as Parquet"),
    ],
)
def test_bad_files_say_where(tmp_path, name, content, match):
    if name.endswith("parquet"):
        pytest.importorskip("polars")
    (tmp_path / name).write_bytes(content)
    for ask in (lambda task: pool.build(task, 0, 1, 1), questions.load):
        with pytest.raises(InvalidInput, match=match):
            ask(str(tmp_path / name))


def test_what_is_missing_or_too_few_names_the_option(tmp_path):
    path = write(tmp_path / "x.csv", [{"question": f"q{i}", "label": i} for i in range(40)])
    with pytest.raises(InvalidInput, match=r"40 of 40 problems .* 'question', 'label'; .*--answer-field"):
        pool.build(str(path), 0, 30, 10)
    with pytest.raises(InvalidInput, match=r"no row has a field 'lable'; they have 'question', 'label'"):
        pool.build(f"{path}:answer=lable", 0, 30, 10)
    with pytest.raises(InvalidInput, match=r"40 distinct problems, 60 asked.*lower --train-items or --heldout-items"):
        pool.build(f"{path}:answer=label", 0, 50, 10)
    with pytest.raises(InvalidInput, match="--heldout-items is 0"):
        pool.build(f"{path}:answer=label", 0, 50, 0)
    with pytest.raises(InvalidInput, match="there are 330 chains of 1 steps and 600 are needed"):
        questions.load("chains:min_steps=1,max_steps=1", limit=600)


# the commands


def test_commands_take_the_same_tasks(tmp_path, capsys, python):
    pytest.importorskip("torch")
    rows = [{"q": f"Modulo 11, from left to right: {i} + 1 =", "a": str(i + 1)} for i in range(9)]
    path = str(write(tmp_path / "chains.csv", rows))
    fields = ["--question-field", "q", "--answer-field", "a", "--verifier", "number"]
    solve = ["--strategy", "direct", "--budget", "200", "--limit", "3"]
    assert cli.main(["solve", path, *solve, *fields]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3
    assert cli.main(["lab", "profile", "--task", path, "--items", "4", "--rollouts", "2", *fields]) == 0
    assert "4 prompts x 2 rollouts" in capsys.readouterr().out
    assert cli.main(["solve", path, *solve]) == 2
    assert "it has 'q', 'a'; name yours with --question-field" in capsys.readouterr().err
    for command in (["train", "grpo", "--steps", "1"], ["compare", "grpo@50%", "--workers", "1"]):
        again = [*command, "--out", str(tmp_path / "out"), "--task", path, *fields]
        assert cli.main(again) == 2
        assert "9 distinct problems, 1536 asked" in capsys.readouterr().err
    tiny = ["--steps", "1", "--prompts", "2", "--group", "2", "--train-items", "6", "--heldout-items", "3"]
    for command, name in (
        (["train", "grpo"], "train"),
        (["compare", "grpo@50%", "--seeds", "1", "--workers", "1"], "compare"),
    ):
        again = [*command, *tiny, "--max-tokens", "16", "--out", str(tmp_path / name), "--task", path, *fields]
        assert cli.main(again) == 0
        assert "accuracy" in capsys.readouterr().out
        assert list((tmp_path / name).iterdir())
    assert cli.main(["lab", "profile", "--task", path, "--items", "100", "--rollouts", "1", *fields]) == 0
    assert f"--items is 100, but {path} has 9: all of them were taken" in capsys.readouterr().err
    for command in ("train", "compare", "solve", "frontier", "lab profile"):
        with pytest.raises(SystemExit):
            cli.main([*command.split(), "--help"])
        shown = " ".join(capsys.readouterr().out.split())
        assert "--question-field" in shown
        assert "gym:FAMILY" in shown
        assert named.HELP.split(",")[0] in shown
