"""Questions about paragraphs from rows of a file: what a text has and has not, and what is refused."""

from __future__ import annotations

import json

import pytest

from budgeteer.core.errors import InvalidInput
from budgeteer.lab.paragraphs import read_questions, samples_of

ROWS = [
    {
        "question": "Where was\nAda born?",
        "answers": ["London", "London town"],
        "paragraphs": [f"Filler {i} of the first row." for i in range(3)] + ["Ada was born in  London."],
    },
    {
        "question": "Are both films old?",
        "answer": "yes",
        "candidate_sentences": ["One is of 1920.", "A film of London.", "The other is of 1921.", "One is of 1920."],
        "gold_sentences": ["One is of 1920.", "The other is of 1921."],
    },
    {"question": "Who wrote it?", "answers": ["Bo"], "paragraphs": ["Bo wrote it, " + "at length, " * 60 + "in 1930."]},
]


def words(text: str) -> int:
    return len(text.split())


def written(path, rows) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def test_a_row_says_what_is_needed_or_it_is_where_an_answer_stands(tmp_path) -> None:
    first, second, third = read_questions(written(tmp_path / "rows.jsonl", ROWS))
    assert first.question == "Where was Ada born?"
    assert (first.answer, first.gold) == ("London", ("Ada was born in London.",))
    assert first.others == tuple(f"Filler {i} of the first row." for i in range(3))
    assert (second.gold, second.others) == (("One is of 1920.", "The other is of 1921."), ("A film of London.",))
    assert (third.answer, len(third.gold), third.others) == ("Bo", 1, ())


def test_texts_have_the_needed_paragraphs_and_none_of_another_row_with_the_answer(tmp_path) -> None:
    questions = read_questions(written(tmp_path / "rows.jsonl", ROWS))
    for seed in range(6):
        made = samples_of(questions[:2], 2, 60, words, seed=seed)
        assert made == samples_of(questions[:2], 2, 60, words, seed=seed)
        assert {each.answer for each in made} == {" London", " yes"}
        for each in made:
            lines = each.context.split("\n")[1:]
            assert len(lines) == len(set(lines))
            assert words(each.context + each.question) <= 60
            if each.answer == " London":
                assert each.question == "\nQuestion: Where was Ada born?\nAnswer:"
                assert sorted(lines) == sorted([*questions[0].gold, *questions[0].others, *questions[1].gold])
            else:
                assert set(lines) >= set(questions[1].gold)
    places = {
        samples_of(questions[:1], 1, 60, words, seed=seed)[0].context.split("\n").index("Ada was born in London.")
        for seed in range(30)
    }
    assert places == {1, 2, 3, 4}  # anywhere


def test_a_shorter_text_drops_what_is_not_needed(tmp_path) -> None:
    questions = read_questions(written(tmp_path / "rows.jsonl", ROWS))
    (short,) = samples_of(questions[:1], 1, 24, words)
    assert "Ada was born in London." in short.context
    assert short.context.count("\n") == 1
    with pytest.raises(InvalidInput, match=r"2 of 3 questions fit into 60 tokens.*at most 2 samples"):
        samples_of(questions, 3, 60, words)  # the third row's paragraph is longer than that
    with pytest.raises(InvalidInput, match=r"0 of 3 questions fit into 5 tokens.*; give a larger length, or more rows"):
        samples_of(questions, 2, 5, words)


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ([1], "line 1: no object"),
        ({"answers": ["a"], "paragraphs": ["a"]}, "question is missing"),
        ({"question": "q", "paragraphs": ["a"]}, "answers is missing or no list of texts"),
        ({"question": "q", "answers": ["a"]}, "paragraphs is missing"),
        ({"question": "q", "answers": ["a"], "paragraphs": "a"}, "paragraphs is missing or no list"),
        ({"question": "q", "answers": ["a", 1], "paragraphs": ["a"]}, "answers is missing or no list of texts"),
        ({"question": "q", "answers": ["yes"], "paragraphs": ["b"]}, "'yes' stands in no paragraph.*field 'gold'"),
        ({"question": "q", "answers": ["a"], "paragraphs": ["a"], "gold": []}, "gold is missing or no list"),
        ({"question": "\ud800", "answers": ["a"], "paragraphs": ["a"]}, "question is missing or no text"),
        ({"question": "q", "answers": ["a"], "paragraphs": ["a", "\ud800"]}, "paragraphs is missing or no list"),
    ],
)
def test_a_row_that_lacks_something_is_refused_by_its_line(tmp_path, row, says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        read_questions(written(tmp_path / "rows.jsonl", [row]))


def test_an_empty_file_is_refused(tmp_path) -> None:
    with pytest.raises(InvalidInput, match="holds no questions"):
        read_questions(written(tmp_path / "rows.jsonl", []))
