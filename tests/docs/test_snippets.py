"""What README and the documents show works: Python runs against a scripted provider, command lines are understood."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from budgeteer import cli
from budgeteer.cli import _numbers

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FRAMEWORKS = ("langchain_openai", "litellm")
AGENTS = (
    "ag2",
    "agents",
    "autogen_agentchat",
    "claude_agent_sdk",
    "crewai",
    "dspy",
    "inspect_ai",
    "langchain",
    "langgraph",
    "llama_index.core",
    "mcp",
    "pydantic_ai",
    "smolagents",
)
NEEDS = ("openai", "transformers", "trl", *FRAMEWORKS, *AGENTS)
"""Modules that a snippet may import and that are not installed everywhere; it is skipped without."""
PRICES = '[models."gpt-4o-mini"]\ninput = 0.15\noutput = 0.60\n'


def blocks(page: Path, *languages: str) -> list[str]:
    return [text for language, text in BLOCK.findall(page.read_text(encoding="utf-8")) if language in languages]


def installed(name: str) -> bool:
    """Whether a module is there; a folder of its name on the path is none."""
    try:
        spec = importlib.util.find_spec(name)
    except ModuleNotFoundError:
        return False
    return spec is not None and spec.origin is not None


def command_lines() -> list[tuple[str, str]]:
    """(page, line) of every ``budgeteer`` command in a block of shell or of plain text."""
    found = []
    for page in PAGES:
        for text in blocks(page, "sh", ""):
            for line in text.replace("\\\n", " ").splitlines():
                parts = re.split(r" && | \| | > ", re.split(r"\s{2,}#|\s# ", line.strip().removeprefix("$ "))[0])
                found += [
                    (str(page.relative_to(ROOT)), part)
                    for part in parts
                    if part.startswith("budgeteer ") and _whole(part)
                ]
    return found


def _whole(line: str) -> bool:
    """Whether it is a command, and no form of one with parts to fill in."""
    return not any(mark in line for mark in ("[", "|", "...", "NAME"))


def test_every_command_line_of_the_documents_is_understood() -> None:
    lines = command_lines()
    assert len(lines) > 20
    starts = {page for page, _ in lines if page.startswith("docs/start/")}
    assert len(starts) == 4  # every persona has commands to run
    for page, line in lines:
        words = shlex.split(line)[1:]
        assert words[0] in cli.COMMANDS, f"{page}: {line}"
        parser = argparse.ArgumentParser()
        importlib.import_module(cli.COMMANDS[words[0]][0]).add_arguments(parser)
        try:
            _numbers.check(parser.parse_args(words[1:]))
        except SystemExit as end:
            raise AssertionError(f"{page}: {line}") from end


@pytest.mark.parametrize(
    "page", [page for page in PAGES if blocks(page, "python")], ids=lambda page: str(page.relative_to(ROOT))
)
def test_the_python_of_a_page_runs_in_its_order(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("openai")
    from helpers.answers import chat, used
    from helpers.upstream import Upstream

    monkeypatch.chdir(tmp_path)
    (tmp_path / "prices.toml").write_text(PRICES)
    with Upstream(chat(usage=used(9, 5))) as provider:
        monkeypatch.setenv("OPENAI_BASE_URL", provider.url)
        monkeypatch.setenv("OPENAI_API_BASE", provider.url)
        monkeypatch.setenv("OPENAI_API_KEY", "none")
        names: dict[str, Any] = {"OpenAI": importlib.import_module("openai").OpenAI}
        for number, text in enumerate(blocks(page, "python"), 1):
            missing = [name for name in NEEDS if re.search(rf"\b{name}\b", text) and not installed(name)]
            if missing:
                continue
            asked = len(provider.requests)
            exec(compile(text, f"{page.name}, snippet {number}", "exec"), names)
            if ".create(" in text or any(name in text for name in FRAMEWORKS):
                assert len(provider.requests) == asked + 1
                assert names["allowance"].remaining["output"] == 100_000 - 5 * (asked + 1)


def test_readme_says_what_it_is_how_to_install_it_and_shows_lines_that_run_before_any_figure() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 75
    assert text.count("![") == 1
    places = [
        text.index(part) for part in ("# budgeteer", "pip install .", "```python", "make run", "![", "## Read on")
    ]
    assert places == sorted(places)
    assert "\n|" not in text  # tables of results stand in docs/
