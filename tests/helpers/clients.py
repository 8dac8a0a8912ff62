"""Real clients against a real gateway: their environments, the programs in ``tests/clients``, and what each case cost.

A program reads the name of a case from its input, does it, and writes what came of it as one line of JSON. So what the
gateway charged and what the scripted upstream billed can be told case by case.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from helpers.assistant import GREETING, MODEL, PERSON, Assistant
from helpers.gateway_fixture import ADMIN, toml
from helpers.theirs import serving
from helpers.upstream import Step, Upstream

ROOT = Path(__file__).parents[2]
PROGRAMS = ROOT / "tests" / "clients"
ENVIRONMENTS = ROOT / ".venv-clients"
UV = ENVIRONMENTS / "uv" / "bin" / "uv"
LIMIT, POOR = 1_000_000, 10_000
"""Tokens of a key's account; of that whose budget gets spent."""
PATIENCE = 300.0
"""Seconds that a case may take, imports included."""


@dataclass(frozen=True)
class Client:
    """A client, and what is its own.

    Attributes:
        name: of its folder in ``tests/clients``.
        package: whose version is told.
        title: for the documentation.
        error: the class that it raises when the budget is spent.
        more: cases beyond those of every client.
        own: case -> what comes of it, where that is not what it is elsewhere.
        again: cases that are refused once, and asked again in another way by the client itself.
    """

    name: str
    package: str
    title: str
    error: str
    more: tuple[str, ...] = ()
    own: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    again: tuple[str, ...] = ()

    @property
    def node(self) -> bool:
        """Whether it runs on Node, else on Python."""
        return (PROGRAMS / self.name / "package.json").exists()

    @property
    def version(self) -> str:
        """The pinned version of its package."""
        folder = PROGRAMS / self.name
        if self.node:
            return str(json.loads((folder / "package.json").read_text())["dependencies"][self.package])
        pinned = re.search(rf"^{self.package}==([^\s;]+)", (folder / "requirements.txt").read_text(), re.MULTILINE)
        assert pinned, f"{self.name}: requirements.txt pins no {self.package}"
        return pinned[1]


CASES: dict[str, Mapping[str, Any]] = {
    "chat": {"text": GREETING},
    "stream": {"text": GREETING, "several": True},
    "tools": {"text": "It is 5.", "called": [[2, 3]]},
    "structured": PERSON,
    "spent": {"status": 402, "says": True},
    "responses": {"text": GREETING, "several": True},
    "turns": {"texts": ["It is 3.", "It is 7.", "It is 11."], "called": [[1, 2], [3, 4], [5, 6]]},
}
"""What comes of each case: five of every client, then the Responses API, and three turns with tools."""
COMMON = ("chat", "stream", "tools", "structured", "spent")
CLIENTS = (
    Client("openai", "openai", "OpenAI, Python", "openai.APIStatusError", ("responses", "turns")),
    Client("openai-node", "openai", "OpenAI, Node", "APIError", ("responses", "turns")),
    Client("anthropic", "anthropic", "Anthropic, Python", "anthropic.PaymentRequiredError", again=("tools",)),
    Client("anthropic-node", "@anthropic-ai/sdk", "Anthropic, Node", "PaymentRequiredError", again=("tools",)),
    Client("vercel-ai", "ai", "Vercel AI SDK", "AI_APICallError", ("turns",)),
    Client("langchain", "langchain-openai", "LangChain", "openai.APIStatusError", ("turns",)),
    Client("langgraph", "langgraph", "LangGraph", "openai.APIStatusError", ("turns",)),
    Client("llamaindex", "llama-index-core", "LlamaIndex", "openai.APIStatusError"),
    Client(
        "instructor",
        "instructor",
        "instructor",
        "instructor.v2.core.errors.InstructorRetryException",
        own={"stream": {**PERSON, "several": True}},
    ),
    Client("dspy", "dspy", "DSPy", "dspy.utils.exceptions.LMBillingError"),
    Client("smolagents", "smolagents", "smolagents", "openai.APIStatusError"),
    Client(
        "pydantic-ai", "pydantic-ai-slim", "pydantic-ai", "pydantic_ai.exceptions.ModelQuotaExceededError", ("turns",)
    ),
    Client("openai-agents", "openai-agents", "OpenAI Agents", "openai.APIStatusError", ("turns",)),
    Client("litellm", "litellm", "LiteLLM SDK", "litellm.exceptions.APIError"),
)


# environments


def install(client: Client) -> list[str]:
    """Make the client's environment unless it is there as pinned; the command that runs its program.

    Needs uv at ``UV``, or npm. Packages come from wherever these are set up to look.
    """
    source, folder = PROGRAMS / client.name, ENVIRONMENTS / client.name
    if not client.node:
        return [str(environment(source / "requirements.txt", folder)), str(source / "run.py")]
    pins, done = source / "package-lock.json", folder / ".done"
    if not done.exists() or done.read_text() != pins.read_text():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for file in ("package.json", "package-lock.json"):
            shutil.copy(source / file, folder)
        # the one package whose script has to run brings the Node that the others need
        _do(["npm", "ci", "--no-audit", "--no-fund", "--loglevel=error"], folder)
        done.write_text(pins.read_text())
    # modules are looked for beside the file that imports them
    for module in (source / "run.mjs", PROGRAMS / "cases.mjs"):
        shutil.copy(module, folder)
    return [str(folder / "node_modules/.bin/node"), str(folder / "run.mjs")]


def environment(pins: Path, folder: Path) -> Path:
    """The interpreter of an environment with these packages, which is made unless it is there as pinned."""
    done, interpreter = folder / ".done", folder / "bin" / "python"
    if not done.exists() or done.read_text() != pins.read_text():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        _do([str(UV), "venv", "-q", "--clear", "--python", sys.executable, str(folder)], ROOT)
        _do([str(UV), "pip", "sync", "-q", "--python", str(interpreter), str(pins)], ROOT)
        done.write_text(pins.read_text())
    return interpreter


def _do(command: list[str], folder: Path) -> None:
    got = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=1200)
    assert got.returncode == 0, f"{' '.join(command)}: {got.stderr[-2000:]}"


# running


def lines_of(process: subprocess.Popen[str]) -> queue.Queue[str]:
    """The lines that a program prints, as they come; an empty one when it has ended."""
    lines: queue.Queue[str] = queue.Queue()

    def read() -> None:
        assert process.stdout
        for line in process.stdout:
            lines.put(line)
        lines.put("")

    threading.Thread(target=read, daemon=True).start()
    return lines


class Bench:
    """A gateway in a process of its own before a scripted upstream; use as a context manager.

    Args:
        step: what answers for the upstream; None = the assistant.
        model: that it serves.
        extra: further lines of the gateway's file, such as a policy.
    """

    def __init__(self, step: Step | None = None, model: str = MODEL, extra: str = "") -> None:
        self._step, self._model, self._extra = step, model, extra

    def __enter__(self) -> Bench:
        self._stack = contextlib.ExitStack()
        folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory()))
        self.upstream = self._stack.enter_context(Upstream(self._step or Assistant()))
        text = toml([("one", self.upstream.url, [self._model], "")], cap=4096, extra=self._extra)
        (folder / "gateway.toml").write_text(text)
        self.root = self._stack.enter_context(serving(folder, folder / "gateway.toml"))
        self.marker, self.marks = self.key("mark", LIMIT), 0
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def ask(self, path: str, key: str = ADMIN, body: Any = None) -> tuple[int, Any]:
        """(status, JSON) of a request."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.root + path, data, {"authorization": f"Bearer {key}"})
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                return response.status, json.load(response)
        except urllib.error.HTTPError as refused:
            return refused.code, json.load(refused)

    def key(self, path: str, tokens: int) -> str:
        """A new key whose account may spend so many tokens."""
        status, made = self.ask("/admin/api/keys", body={"path": path, "limits": [f"all:{tokens}"]})
        assert status < 300, made
        return str(made["secret"])

    def spend(self, key: str) -> None:
        """Ask with a key until its budget is spent."""
        for words in (1000, 200, 1):
            messages = [{"role": "user", "content": "word " * words}]
            while (
                self.ask("/v1/chat/completions", key, {"model": MODEL, "messages": messages, "max_tokens": 4})[0] == 200
            ):
                pass

    def counts(self, path: str) -> Counts:
        """What was charged and served so far, once nothing is held or under way."""
        self.mark()
        deadline = time.monotonic() + 20
        while True:
            live = self.ask("/admin/api/live")[1]["live"]
            rows = self.ask("/admin/api/balances")[1]["balances"]
            books = {row["kind"]: row for row in rows if row["path"] == path}
            if not live and not any(book["reserved"] for book in books.values()):
                break
            assert time.monotonic() < deadline, (live, books)
            time.sleep(0.02)
        settled = {kind: book["settled"] for kind, book in books.items()}
        refused = len(self.records(path, "&outcome=refused"))
        return Counts(self.upstream.billed, settled.get("all", 0), settled.get("requests", 0), refused)

    def records(self, path: str, more: str = "") -> list[Any]:
        """Records of the requests at a path and below it."""
        found: list[Any] = self.ask(f"/admin/api/requests?limit=1000&path={path}{more}")[1]["requests"]
        return found

    def mark(self) -> None:
        """Wait until the records of all requests so far are written: that of one more, which is refused, is."""
        self.marks += 1
        self.ask("/v1/chat/completions", self.marker, {"model": "none", "messages": []})
        deadline = time.monotonic() + 20
        while len(self.records("mark")) < self.marks:
            assert time.monotonic() < deadline, "no record was written"
            time.sleep(0.05)


@dataclass(frozen=True)
class Counts:
    """Tokens that the upstream billed and that an account was charged; its requests that were served and refused."""

    billed: int
    charged: int
    served: int
    refused: int

    def since(self, before: Counts) -> Counts:
        """What came since then."""
        return Counts(
            self.billed - before.billed, self.charged - before.charged, self.served - before.served,
            self.refused - before.refused,
        )  # fmt: skip


@dataclass(frozen=True)
class Row:
    """What came of a case.

    Attributes:
        client, case: of which it is.
        found: what the program said.
        cost: what was billed, charged, served and refused for it.
    """

    client: Client
    case: str
    found: dict[str, Any]
    cost: Counts

    @property
    def fault(self) -> str:
        """What is wrong; "" = nothing."""
        if "failed" in self.found:
            return str(self.found["failed"])
        wanted = dict(self.client.own.get(self.case, CASES[self.case]))
        if self.case == "spent":
            wanted["error"] = self.client.error
        found = {name: self.found.get(name) for name in wanted}
        if found != wanted:
            return f"{self.found} is not {wanted}"
        cost = self.cost
        if cost.charged != cost.billed:
            return f"charged {cost.charged}, billed {cost.billed}"
        refused = self.case == "spent" or self.case in self.client.again
        if cost.refused != refused or (cost.served == 0) != (self.case == "spent"):
            return f"{cost.served} requests were served and {cost.refused} refused"
        return ""


class Program:
    """A client's program in its environment; use as a context manager."""

    def __init__(self, bench: Bench, client: Client) -> None:
        self.bench, self.client = bench, client
        self.path, self.poor = f"clients/{client.name}", f"spent/{client.name}"

    def __enter__(self) -> Program:
        command = install(self.client)
        key, poor = self.bench.key(self.path, LIMIT), self.bench.key(self.poor, POOR)
        self.bench.spend(poor)
        self._home = tempfile.TemporaryDirectory()
        environment = {
            "PATH": os.environ["PATH"], "HOME": self._home.name, "PYTHONPATH": str(PROGRAMS), "OMP_NUM_THREADS": "1",
            "BASE_URL": f"{self.bench.root}/v1", "KEY": key, "SPENT_KEY": poor, "MODEL": MODEL,
        }  # fmt: skip
        self.errors = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(
            command, env=environment, cwd=self._home.name, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=self.errors, text=True,
        )  # fmt: skip
        self._lines = lines_of(self.process)
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()  # type: ignore[union-attr]
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
        self.errors.close()
        self._home.cleanup()

    def do(self, case: str) -> Row:
        """Run a case."""
        path = self.poor if case == "spent" else self.path
        before = self.bench.counts(path)
        assert self.process.stdin
        self.process.stdin.write(case + "\n")
        self.process.stdin.flush()
        try:
            line = self._lines.get(timeout=PATIENCE)
        except queue.Empty:
            line = ""
        if line:
            found = json.loads(line)
        else:
            self.errors.seek(0)
            found = {"failed": f"no answer; {self.errors.read()[-2000:]}"}
        return Row(self.client, case, found, self.bench.counts(path).since(before))


def rows(client: Client, bench: Bench) -> Iterator[Row]:
    """All cases of a client."""
    with Program(bench, client) as program:
        for case in (*COMMON, *client.more):
            yield program.do(case)
