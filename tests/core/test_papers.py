"""The catalogue claims nothing that the registry does not run, and its page and titles agree with it."""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from budgeteer import cli
from budgeteer.cli import agent, bench, cache, lab
from budgeteer.core import registry
from budgeteer.core.errors import UnknownName
from budgeteer.core.papers import LEVELS, Paper, matching, page, paper, papers
from budgeteer.lab import evidence

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "src" / "budgeteer").rglob("*.py"))


def tools() -> set[str]:
    """The tools of a few commands: they carry papers that decide nothing while they run."""
    found = set()
    for name, command in (("lab", lab), ("agent", agent), ("bench", bench), ("cache", cache)):
        parser = argparse.ArgumentParser()
        command.add_arguments(parser)
        (commands,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
        found |= {f"{name}:{choice}" for choice in commands.choices}
    return found


TOOLS = tools()


def faults(one: Paper) -> list[str]:
    """What is wrong with a row of the catalogue."""
    found = []
    if one.level not in LEVELS:
        found.append(f"level {one.level}")
    if (one.level == "open") != (not one.methods):
        found.append(f"{one.level} with methods {one.methods}")
    if (one.level == "open") != (not one.here) or (one.level in ("whole", "open")) != (not one.missing):
        found.append(f"{one.level}, here: {one.here!r}, missing: {one.missing!r}")
    carrying = [method for method in registry.METHODS if method.name in one.methods]
    citing = {m.name for m in registry.METHODS if m.citation and m.citation.title == one.title}
    run = {method.name for method in carrying if callable(registry.load(method))}
    run |= TOOLS & set(one.methods)
    if run != set(one.methods):
        found.append(f"the registry does not run {set(one.methods) - run}")
    if not citing <= set(one.methods):
        found.append(f"methods that cite it are missing: {citing - set(one.methods)}")
    if not {method.evidence for method in carrying if method.evidence} <= set(one.evidence):
        found.append(f"evidence of its methods is missing from {one.evidence}")
    found += [e for e in one.evidence if e not in evidence.names() and not (ROOT / e).is_file()]
    return found


@pytest.mark.parametrize("one", papers(), ids=lambda one: str(one.number))
def test_every_row_is_true(one: Paper) -> None:
    assert faults(one) == []
    assert one.title
    assert re.fullmatch(r"|\d{4}\.\d{5}", one.arxiv)


def test_rows_that_claim_too_much_are_refused() -> None:
    open_one, whole = paper("Llama-MTSK"), paper("Mirostat")
    assert faults(replace(open_one, level="whole", here="all of it"))  # without a method
    assert faults(replace(open_one, level="part", here="a part", missing="the rest"))
    assert faults(replace(open_one, level="whole", here="all of it", methods=("heavy-hitters",)))  # nobody runs it
    assert faults(replace(open_one, methods=("mirostat",)))  # open, and yet carried
    assert faults(replace(paper("AllForOne"), methods=("lab:no-such-tool",)))
    assert faults(replace(whole, methods=("mirostat", "no-such-method")))
    assert faults(replace(whole, missing="something"))
    assert faults(replace(whole, level="part"))  # and does not say what is missing
    assert faults(replace(whole, evidence=()))
    assert faults(replace(whole, evidence=("mirostat", "no_such_evidence")))
    assert faults(replace(paper("DUET"), methods=("duet",)))  # others cite it, too


def test_numbers_names_and_ids_are_unique() -> None:
    assert [one.number for one in papers()] == list(range(186))
    assert len({one.name for one in papers()}) == 186
    ids = [one.arxiv for one in papers() if one.arxiv]
    assert len(set(ids)) == len(ids) == 172


def test_the_registry_takes_titles_from_the_catalogue() -> None:
    by_id = {one.arxiv: one.title for one in papers() if one.arxiv}
    cited = [method.citation for method in registry.METHODS if method.citation and method.citation.arxiv in by_id]
    assert len(cited) > 20
    assert all(citation.title == by_id[citation.arxiv] for citation in cited)
    code = (ROOT / "src" / "budgeteer" / "core" / "methods.py").read_text()
    assert [one.name for one in papers() if one.title in code or (one.arxiv and one.arxiv in code)] == []


def test_one_arxiv_id_has_one_title_everywhere() -> None:
    titles = {one.arxiv: one.title for one in papers() if one.arxiv}
    titles |= {m.citation.arxiv: m.citation.title for m in registry.METHODS if m.citation}
    wrong = []
    for path in SOURCES:
        for title, arxiv in re.findall(r'"([^"]{10,200})"\s*,?\s*\(?arXiv (\d{4}\.\d{5})', path.read_text()):
            short = re.sub(r"\s+", " ", title).strip()
            if not titles.get(arxiv, short).startswith(short):
                wrong.append((path.name, arxiv, title))
    assert wrong == []


def test_the_page_is_generated() -> None:
    assert (ROOT / "docs" / "papers.md").read_text() == page(), "run: budgeteer papers --markdown > docs/papers.md"


def test_matching() -> None:
    assert [one.name for one in matching("DUET")] == ["DUET", "DuetServe"]
    assert [one.number for one in matching("2506.13752")] == [7]
    assert [one.number for one in matching("2009.99999")] == []
    assert [one.number for one in matching("value-tree")] == [22]
    with pytest.raises(UnknownName, match="Mirostat"):
        paper("Mirostatt")


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["papers", "mirostat"]) == 0
    text = capsys.readouterr().out
    assert "106  whole" in text
    assert "methods: mirostat" in text
    assert cli.main(["papers", "vision", "--open", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {row["level"] for row in rows} == {"open"}
    assert "Llama-MTSK" in {row["name"] for row in rows}
    assert cli.main(["papers", "--markdown"]) == 0
    assert capsys.readouterr().out == page()
    assert cli.main(["papers", "duet", "--markdown"]) == 2
    assert "leave out" in capsys.readouterr().err


def test_the_command_starts_without_heavy_imports() -> None:
    code = "import sys; from budgeteer.cli import main; main(['papers']); sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL, check=False).returncode == 0


def test_what_the_package_says_of_itself_is_there() -> None:
    """A part of the catalogue of which nothing is here is not advertised."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    text = " ".join([project["description"], *project["keywords"], *(text for _, text in cli.COMMANDS.values())])
    words = set(re.findall(r"[a-z]+", text.lower()))
    parts = {one.part for one in papers()} - {one.part for one in papers() if one.level != "open"}
    assert "decode" in parts
    assert words & {form for part in parts for form in (part, f"{part}s")} <= {"serve"}  # the gateway's command
