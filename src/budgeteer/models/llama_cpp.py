"""A GGUF file through llama.cpp's server, as a child process of this one.

The server comes with xllamacpp. It ends when this process ends, in whatever way: it reads a pipe to which nothing is
written, and stops when the pipe closes. Its threads wait without spinning (OMP_WAIT_POLICY=PASSIVE): with the default
it becomes ten times slower on a busy machine.

Traps of the server that are taken care of:

- ``usage`` counts only one of several choices, so tokens are taken from the timings that come with every piece;
- a request that is not streamed cannot be cancelled, so every request is streamed;
- more choices than slots are refused, so the number of slots is the most choices of a request;
- its defaults truncate the distribution (top-k 40, top-p 0.95, min-p 0.05), so they are turned off;
- it promises to keep a connection after a stream, but closes it, so each call has a connection of its own.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from budgeteer.core.errors import CheckpointError, InvalidInput, MissingExtra, ModelError
from budgeteer.models.chat import Prompt, tags_of, template_options, written
from budgeteer.models.model import LOGPROBS, PREFILL, PREFIX, SEED, Chunk, Request, Response
from budgeteer.models.openai import OpenAI
from budgeteer.models.smollm2 import SMOLLM2, smollm2

try:
    import httpx2
except ImportError as error:
    raise MissingExtra("openai", "llama-cpp") from error

_SERVER = """
import json, sys
import xllamacpp
settings = json.loads(sys.argv[1])
p = xllamacpp.CommonParams()
p.model.path = settings["path"]
p.n_parallel = settings["slots"]
p.n_ctx = settings["context"] * settings["slots"]
p.cpuparams.n_threads = p.cpuparams_batch.n_threads = settings["threads"]
p.model_alias = {settings["name"]}
p.fit_params = False
p.ui = False
p.cache_ram_mib = 64
p.verbosity = 0
p.port = 0
server = xllamacpp.Server(p)
print(server.listening_address, flush=True)
sys.stdin.read()
"""
"""The program of the child process: it prints the server's address, and stops when its input closes."""


class LlamaCpp(OpenAI):
    """A GGUF file, served by a child process. Token counts are exact.

    The same seed gives the same text as long as the server's arithmetic does not depend on which requests share a
    batch. Choice i of seed s is choice 0 of seed s + i, so seeds of different calls should not be close to each other.

    Args:
        path: of the GGUF file; None = SmolLM2-135M-Instruct.
        slots: choices decoded at once; further calls wait, and a call with more choices is refused.
        context: the most tokens of a prompt and its continuation together.
        threads: number of threads of the server.
        start: seconds that the server has to load the file.
        options: of :class:`budgeteer.models.openai.OpenAI`.

    Raises:
        CheckpointError: there is no such file, or the server cannot load it.
        MissingExtra: xllamacpp, or the package with the weights of the default, is not installed.
    """

    def __init__(
        self,
        path: Path | None = None,
        *,
        slots: int = 8,
        context: int = 2048,
        threads: int = 2,
        start: float = 120.0,
        **options: Any,
    ) -> None:
        if importlib.util.find_spec("xllamacpp") is None:
            raise MissingExtra("xllamacpp", "llama-cpp")
        if min(slots, context, threads) < 1:
            raise InvalidInput(f"slots={slots}, context={context} and threads={threads} are all at least 1")
        path = smollm2() if path is None else path
        if not path.is_file():
            raise CheckpointError(f"there is no file {path}; give the path of a GGUF file")
        name = "smollm2" if path.name == SMOLLM2 else path.stem
        self.slots, self.context, self.choices = slots, context, slots
        settings = {"path": str(path), "slots": slots, "context": context, "threads": threads, "name": name}
        self._process = _start(settings)
        self._stopped = weakref.finalize(self, _stop, self._process)
        self._said: deque[str] = deque(maxlen=50)
        try:
            self.address = _address(self._process, path, start, self._said)
        except BaseException:
            self._stopped()
            raise
        extra = {"top_k": 0, "top_p": 1.0, "min_p": 0.0, "timings_per_token": True, **options.pop("extra", {})}
        options.setdefault("capabilities", frozenset({PREFIX, PREFILL, LOGPROBS, SEED}))
        options.setdefault("max_concurrency", 4 * slots)
        options |= {"api_key": "none", "extra": extra, "reuse": False, "dialect": "llama.cpp"}
        super().__init__(f"{self.address}/v1", name, **options)
        self._http = httpx2.Client(base_url=self.address, timeout=60.0, trust_env=False)
        self._lock = threading.Lock()
        self._counted, self._raw = lru_cache(4096)(self._count), lru_cache(4096)(self._rendered)
        self.template = str(self._ask("/props")["chat_template"])
        self.tags = tags_of(self.template)

    def count(self, prompt: Prompt) -> int:
        """Input tokens of a prompt, as the server counts them."""
        return self._counted(prompt)

    def _count(self, prompt: Prompt) -> int:
        return len(self._ask("/tokenize", {"content": self._raw(prompt), "add_special": True})["tokens"])

    async def stream(self, request: Request) -> AsyncGenerator[Chunk | Response, None]:
        """Chunks as they come, then the Response. A chat is sent as the raw text that its template makes of it, so that
        the thinking comes as it was written, and can be continued."""
        prompt = request.prompt
        if isinstance(prompt, str) or prompt.thinking.tokens is None:  # else the server itself limits the thinking
            request = replace(request, prompt=self._raw(prompt))
        async with aclosing(super().stream(request)) as pieces:
            async for piece in pieces:
                yield piece

    def _rendered(self, prompt: Prompt) -> str:
        if isinstance(prompt, str):
            return prompt
        messages = [message._asdict() for message in prompt.messages]
        options = template_options(replace(prompt.thinking, tokens=None), self.template, self.name)
        rendered = self._ask("/apply-template", {"messages": messages, "chat_template_kwargs": options})["prompt"]
        return written(str(rendered), prompt.begun, self.tags)

    def _ask(self, path: str, body: dict[str, Any] | None = None) -> Any:
        """The answer of the server to a question that samples nothing; GET without a body."""
        try:
            with self._lock:
                response = self._http.request("GET" if body is None else "POST", path, json=body)
            response.raise_for_status()
            return response.json()
        except httpx2.HTTPError as error:
            message = self._ended() or f"the server of {self.name} did not count tokens: {error!r}"
            raise ModelError(message, billed=False) from error

    def _failure(self, error: BaseException | None) -> ModelError:
        failure, ended = super()._failure(error), self._ended()
        return failure if ended is None else ModelError(ended, billed=failure.billed)

    def _ended(self) -> str | None:
        """Why no call can be answered any more; None while the server runs."""
        try:
            status = self._process.wait(0.2)  # a connection breaks a little before its process has gone
        except subprocess.TimeoutExpired:
            return None
        told = "".join(self._said).strip()[-500:]
        return f"the server of {self.name} ended with status {status}; make the model anew. {told}".rstrip()

    def _check(self, request: Request) -> None:
        super()._check(request)
        if request.n > self.slots:
            raise InvalidInput(
                f"n={request.n} choices exceed the {self.slots} slots of {self.name}; give it more slots"
            )
        read = self.count(request.prompt)
        if read + request.max_tokens > self.context:
            raise InvalidInput(
                f"prompt of {read} + max_tokens {request.max_tokens} exceeds the context of {self.context} tokens of "
                f"{self.name}; shorten one, or give it more context"
            )

    async def aclose(self) -> None:
        """Close the connections and stop the server."""
        await super().aclose()
        self._http.close()
        self._stopped()


def _start(settings: dict[str, Any]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", _SERVER, json.dumps(settings)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        env={**os.environ, "OMP_WAIT_POLICY": "PASSIVE"},
    )


def _address(process: subprocess.Popen[str], path: Path, patience: float, said: deque[str]) -> str:
    """The server's address once it is healthy; its errors are read all the time, or it would block on them."""
    lines: list[str] = []

    def drain() -> None:
        assert process.stderr is not None
        for line in process.stderr:
            said.append(line)

    def first() -> None:
        assert process.stdout is not None
        lines.append(process.stdout.readline().strip())
        for _ in process.stdout:
            pass

    for target in (drain, first):
        threading.Thread(target=target, daemon=True).start()
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        if lines and lines[0]:
            try:
                if httpx2.get(f"{lines[0]}/health", timeout=5.0, trust_env=False).status_code == 200:
                    return lines[0]
            except httpx2.HTTPError:
                pass
        elif process.poll() is not None:
            time.sleep(0.05)  # for the last words
            told = "".join(said).strip()[-500:] or f"exit status {process.returncode}"
            raise CheckpointError(f"llama.cpp cannot serve {path}: {told}")
        time.sleep(0.02)
    raise CheckpointError(f"llama.cpp did not serve {path} within {patience:g} s; give it more time with start=")


def _stop(process: subprocess.Popen[str]) -> None:
    """End the server: ask it to terminate, and kill it if it does not within 5 seconds."""
    process.terminate()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdin is not None:
        process.stdin.close()
