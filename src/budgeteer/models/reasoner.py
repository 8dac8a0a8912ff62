"""The embedded reasoner as a Model: requests that run at the same time share decode batches.

One thread runs the batch (:mod:`budgeteer.models.requests`). Requests join it as they arrive and rows leave it as they
end, so a step costs what its live rows cost. A row's text depends on its prompt, its seed and its index alone: it draws
from its own stream of random numbers, prompts are prefilled one by one, and batches have sizes at which the matrix
products give each row the same bits as any other size does.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any

import torch

from budgeteer.core.errors import InvalidInput, ModelError
from budgeteer.core.steer import Internals, Need, require_offered
from budgeteer.engine.decoder import streams
from budgeteer.engine.table import Marks, marks_of_text
from budgeteer.models.chat import Prompt
from budgeteer.models.model import INTERNALS, LOGPROBS, PREFIX, SEED, Chunk, Request, Response
from budgeteer.models.policy import LlamaPolicy, load_policy
from budgeteer.models.requests import Job, Requests

_IDLE = 5.0
"""Seconds without work after which the thread ends; the next request starts another."""
_LOG = logging.getLogger(__name__)


class Reasoner:
    """The embedded reasoner, or any Llama folder that :func:`budgeteer.models.policy.load_policy` reads.

    Prompts are raw text and may end inside a trace. Log-probabilities are those of the model at temperature 1, whatever
    the temperature of the request. A stream that is closed, or a call that is cancelled, frees its rows at the next
    step.

    It decodes in one thread on one core, whatever torch's setting is, since its matrix products are small.

    Args:
        policy: weights and tokenizer; None = the embedded ones.
        slots: rows decoded at once; further choices wait.
        name: for reports and prices.
    """

    capabilities = frozenset({PREFIX, LOGPROBS, SEED, INTERNALS})

    def __init__(self, policy: LlamaPolicy | None = None, slots: int = 256, *, name: str = "reasoner") -> None:
        if slots < 1:
            raise InvalidInput(f"slots is {slots}; give at least 1")
        self.name, self.policy, self.slots = name, policy or load_policy(), slots
        self.folder = self.policy.folder
        self.context = self.policy.model.config.max_position_embeddings
        self._wake = threading.Condition()
        self._inbox: list[tuple[Job, bool]] = []
        self._thread: threading.Thread | None = None
        self._closed = False
        self._out: dict[asyncio.AbstractEventLoop, list[tuple[Callable[[Any], None], Any]]] = {}
        self._encoded = lru_cache(4096)(lambda text: self.policy.encode([text])[0])
        self._marks = lru_cache(64)(self._marks_of)
        self.inside = Internals(
            self.policy.model.embed.detach(),
            tuple(self._pieces()),
            self.policy.markers.eos,
            lambda text: list(self.policy.tokenizer.encode(text, add_special_tokens=False).ids),
        )

    def count(self, prompt: Prompt) -> int:
        """Input tokens of a prompt, with the beginning-of-sequence token."""
        if not isinstance(prompt, str):
            raise InvalidInput(
                f"{self.name} continues raw text; give the prompt as a string, not as messages (a style of "
                "raw text, such as reasoner or few-shot)"
            )
        return len(self._encoded(prompt))

    async def generate(self, request: Request) -> Response:
        """All choices of a request.

        Raises:
            InvalidInput: the prompt is messages, or prompt and cap exceed the model's positions.
            ModelError: the model was closed, or its engine failed.
        """
        future = asyncio.get_running_loop().create_future()

        def done(result: Chunk | Response | Exception) -> None:
            if future.done():
                return
            if isinstance(result, Exception):
                future.set_exception(result)
            else:
                future.set_result(result)

        job = self._submit(request, False, done)
        try:
            result: Response = await future
        finally:
            self._cancel(job)
        return result

    async def stream(self, request: Request) -> AsyncIterator[Chunk | Response]:
        """A Chunk for every token of every choice, then the Response.

        A token whose text is not whole, or may begin a stop text, has an empty Chunk; its text comes with a later one.
        """
        results: asyncio.Queue[Chunk | Response | Exception] = asyncio.Queue()
        job = self._submit(request, True, results.put_nowait)
        try:
            while True:
                result = await results.get()
                if isinstance(result, Exception):
                    raise result
                yield result
                if isinstance(result, Response):
                    return
        finally:
            self._cancel(job)

    async def aclose(self) -> None:
        """End the thread; requests that run fail with ModelError."""
        with self._wake:
            self._closed = True
            self._wake.notify()
            thread = self._thread
        if thread is not None:
            await asyncio.to_thread(thread.join)

    def _submit(self, request: Request, streamed: bool, tell: Callable[[Any], None]) -> Job:
        """Hand a request to the batch's thread; ``tell`` is called in the loop of the caller."""
        if self._closed:
            raise ModelError(f"{self.name} is closed; make a new one", billed=False)
        if request.steer is not None:
            require_offered(request.steer, frozenset(Need), self.name)
        read, config = self.count(request.prompt), self.policy.model.config
        positions = config.max_position_embeddings
        if read + request.max_tokens > positions:
            raise InvalidInput(
                f"prompt of {read} + max_tokens {request.max_tokens} exceeds the {positions} positions of {self.name}; "
                f"shorten one"
            )
        loop = asyncio.get_running_loop()
        seed = secrets.randbits(63) if request.seed is None else request.seed % 2**64
        job = Job(
            request,
            self._encoded(request.prompt),
            seed,
            streams(seed, request.n, positions, request.max_tokens),
            self._marks(request.close, request.stop),
            streamed,
            lambda result: self._out.setdefault(loop, []).append((tell, result)),
            [None] * request.n,
        )
        self._post(job, True)
        return job

    def _cancel(self, job: Job) -> None:
        if not job.over:
            self._post(job, False)

    def _post(self, job: Job, wanted: bool) -> None:
        with self._wake:
            if self._closed and wanted:
                raise ModelError(f"{self.name} is closed; make a new one", billed=False)
            self._inbox.append((job, wanted))
            if self._thread is None and wanted:
                self._thread = threading.Thread(target=self._run, name=f"{self.name}-batch", daemon=True)
                self._thread.start()
            self._wake.notify()

    def _marks_of(self, close: str, stop: tuple[str, ...]) -> Marks:
        return marks_of_text(self.inside, (self.inside.eos,), close, stop)

    def _pieces(self) -> list[str]:
        """Text of every token id, as it reads after a newline."""
        newline, vocab = self.policy.markers.answer_end, self.policy.model.config.vocab_size
        before = self.policy.decode([[newline]])[0]
        return [text[len(before) :] for text in self.policy.decode([[newline, i] for i in range(vocab)])]

    # the batch's thread

    def _run(self) -> None:
        batch: Requests | None = None
        _alone()
        with torch.inference_mode():
            while True:
                with self._wake:
                    if (batch is None or batch.idle) and not self._inbox and not self._closed:
                        self._wake.wait(_IDLE)
                        if not self._inbox and not self._closed:
                            self._thread = None
                            return
                    inbox, self._inbox = self._inbox, []
                    closed = self._closed
                try:
                    batch = batch or Requests(self.policy, self.slots, self.inside)
                    for job, wanted in inbox:
                        if wanted:
                            batch.waiting.append(job)
                        else:
                            batch.drop(job)
                    if not closed:
                        batch.step()
                except Exception as error:
                    _LOG.exception("the batch of %s failed", self.name)
                    failed = {id(j): j for j in (*(batch.jobs() if batch else ()), *(j for j, _ in inbox))}
                    self._fail(failed.values(), f"the engine of {self.name} failed: {error!r}")
                    batch = None
                if closed:
                    self._fail(batch.jobs() if batch else (), f"{self.name} was closed while a request ran")
                self._deliver()
                if closed:
                    return

    def _fail(self, jobs: Any, message: str) -> None:
        for job in jobs:
            if not job.over:
                job.over = True
                job.tell(ModelError(message, billed=True))

    def _deliver(self) -> None:
        """Hand the results of this step to the event loops of the callers, with one call for each loop."""
        out, self._out = self._out, {}
        for loop, results in out.items():
            try:
                loop.call_soon_threadsafe(_tell, results)
            except RuntimeError:  # the loop is closed: nobody waits any more
                continue


def _tell(results: Sequence[tuple[Callable[[Any], None], Any]]) -> None:
    for tell, result in results:
        tell(result)


def _alone() -> None:
    """Let torch and the kernels use no helper threads in this thread: waking one takes longer than a step, and on a
    busy machine waiting for one takes a hundred times as long."""
    before = torch.get_num_threads()
    with suppress(ImportError):
        import numba

        numba.set_num_threads(1)  # before torch: starting its threads sets OpenMP's number, which is torch's, too
    torch.set_num_threads(1)
    # that changed the number of this thread and of new threads; set it back, in another thread, for the latter
    restoring = threading.Thread(target=torch.set_num_threads, args=(before,))
    restoring.start()
    restoring.join()
