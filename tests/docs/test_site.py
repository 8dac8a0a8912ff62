"""The documentation holds together without MkDocs: every page has its place, every link and anchor its target."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
PACKAGES = (
    "core", "allocate", "online", "joint", "steer", "strategies", "solve", "verify", "ledger", "metering", "prices",
    "models", "rl", "tuning", "check", "adapters", "cache", "context", "route", "agent",
)  # fmt: skip
INTERNAL = {
    "budgeteer.core.lazy", "budgeteer.core.rows", "budgeteer.core.urls", "budgeteer.ledger.postgres_link",
    "budgeteer.ledger.rows", "budgeteer.solve.books", "budgeteer.solve.loop", "budgeteer.solve.question",
}  # fmt: skip
"""Public by name, and yet nothing that a user calls."""


def places(nav: Any) -> Iterator[str]:
    """The pages of a navigation, in order."""
    if isinstance(nav, str):
        yield nav
        return
    for entry in nav.values() if isinstance(nav, dict) else nav:
        yield from places(entry)


def anchors(text: str) -> set[str]:
    """Ids of a page's headings, as MkDocs and the usual hosts make them; the second of a name ends in _1 or -1."""
    found: set[str] = set()
    for heading in re.findall(r"^#+ (.+)$", FENCE.sub("", text), re.MULTILINE):
        plain = re.sub(r"\]\([^)]*\)|[`\[\]*]", "", heading)
        found.add(re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", plain).strip().lower()))
    return found


def broken(page: Path, text: str) -> list[str]:
    """The links of a page that lead nowhere, and what MkDocs takes for a cross-reference ("[d][m]" outside of code)."""
    plain = FENCE.sub("", text)
    found = re.findall(r"\[[^\[\]\n]+\]\[[^\[\]\n]*\]", re.sub(r"`[^`\n]*`", "", plain))
    for link in LINK.findall(plain):
        if re.match(r"\w+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        if not target.exists() or (anchor and anchor not in anchors(target.read_text(encoding="utf-8"))):
            found.append(link)
        elif DOCS in page.parents and DOCS not in target.parents:
            found.append(f"{link} leaves docs/, so it is broken on the site")
    return found


def test_every_page_is_in_the_navigation_once() -> None:
    yaml = pytest.importorskip("yaml")
    nav = list(places(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]))
    assert sorted(nav) == sorted(str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_has_its_target(page: Path) -> None:
    assert broken(page, page.read_text(encoding="utf-8")) == []


def test_broken_links_are_found() -> None:
    page = DOCS / "start" / "train.md"
    assert broken(page, "[a](../rlvr.md) [b](../solve.md#verifiers) [c](https://example.org/x) `[d](x)`") == ["x"]
    assert broken(page, "[a](rlvr.md) [b](../solve.md#verifier) [c](#read)") == [
        "rlvr.md", "../solve.md#verifier", "#read",
    ]  # fmt: skip
    assert broken(page, "[a](../../Makefile)") == ["../../Makefile leaves docs/, so it is broken on the site"]
    assert broken(page, "```\n[a](nowhere.md)\n```\n") == []
    assert broken(page, "costs [d][m] of `[d][m]`") == ["[d][m]"]


@pytest.mark.parametrize("package", PACKAGES)
def test_the_reference_has_every_public_module(package: str) -> None:
    folder, listed = ROOT / "src" / "budgeteer" / package, set()
    for name in re.findall(r"^::: (\S+)$", (DOCS / "reference" / f"{package}.md").read_text(), re.MULTILINE):
        path = ROOT / "src" / name.replace(".", "/")
        assert path.is_dir() or path.with_suffix(".py").exists() or path.parent.with_suffix(".py").exists(), name
        listed.add(name)
    missing = []
    for path in folder.rglob("*.py"):
        parts = path.relative_to(ROOT / "src").with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        if any(part.startswith("_") for part in name.split(".")) or name in INTERNAL | listed:
            continue
        if f"from {name} import" not in (path.parent / "__init__.py").read_text():  # else its package exports it
            missing.append(name)
    assert missing == []


def test_the_reference_has_what_a_policy_sees() -> None:
    """Every class of the gateway that the protocol of policies names, how options are declared, and how one refuses."""
    listed = set(re.findall(r"^::: (\S+)$", (DOCS / "reference" / "gateway.md").read_text(), re.MULTILINE))
    protocol = (ROOT / "src/budgeteer/gateway/policies/protocol.py").read_text()
    seen = {f"{module}.{name}" for module, name in re.findall(r"from (budgeteer\.gateway\S+) import (\w+)", protocol)}
    assert len(seen) == 3
    policies = "budgeteer.gateway.policies"
    assert seen | {f"{policies}.protocol", f"{policies}.options", "budgeteer.gateway.refusal.Refused"} <= listed
    for name in listed:
        path, _, thing = name.rpartition(".")
        module = ROOT / "src" / path.replace(".", "/")
        assert f"class {thing}" in module.with_suffix(".py").read_text() if thing[0].isupper() else module.is_dir(), (
            name
        )


@pytest.fixture
def docstrings(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """tools/docstrings.py, with or without griffe."""
    griffe = ModuleType("griffe")
    griffe.Extension = griffe.Object = object  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "griffe", griffe)
    spec = importlib.util.spec_from_file_location("docstrings_of_the_site", ROOT / "tools" / "docstrings.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_docstrings_become_markdown(docstrings: ModuleType) -> None:
    text = "A :class:`~a.Plan`, [n] of ``x[0]``.\n\n    >>> f()\n    [1, 2]\n\nMore.\n\n>>> g()\n[3]"
    assert docstrings.markdown(text) == (
        "A `a.Plan`, \\[n] of ``x[0]``.\n\n    ```pycon\n    >>> f()\n    [1, 2]\n    ```\n\nMore.\n\n"
        "```pycon\n>>> g()\n[3]\n```"
    )


def test_the_first_paragraph_of_a_docstring_is_one_line(docstrings: ModuleType) -> None:
    assert docstrings.summed("Called once, also if\nall fails.\n\nArgs:\n    x: y.") == (
        "Called once, also if all fails.\n\nArgs:\n    x: y."
    )
    for text in ("One line.", "Either:\n- a\n- b\n\nMore.", "Text\n>>> f()\n1", ""):
        assert docstrings.summed(text) == text
