"""The embedded reasoner as a Model: requests that run at the same time share decode batches.

One thread runs the batch. Requests join it as they arrive and rows leave it as they end, so a step costs what its live
rows cost. A row's text depends on its prompt, its seed and its index alone: it draws from its own stream of random
numbers, prompts are prefilled one by one, and batches have sizes at which the matrix products give each row the same
bits as any other size does.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from budgeteer.core.errors import InvalidInput, ModelError
from budgeteer.core.plan import I64
from budgeteer.core.usage import Usage
from budgeteer.engine.decoder import Decoder, compiles, draw, streams
from budgeteer.engine.hook import Effect, Internals, Row, call_hooks
from budgeteer.models.model import (
    INTERNALS,
    LENGTH,
    LOGPROBS,
    PREFIX,
    SEED,
    STOP,
    Choice,
    Chunk,
    Message,
    Request,
    Response,
)
from budgeteer.models.policy import Policy, load_policy

_IDLE = 5.0
"""Seconds without work after which the thread ends; the next request starts another."""
_LOG = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _Job:
    """A request on its way.

    Attributes:
        watched: [V] tokens after which a row has to be looked at: it may have ended.
        tell: called in the batch's thread with each Chunk of a stream, then with the Response or the error.
        place: of its prompt in the decoder; -1 = not prefilled yet.
        first: logits after its prompt [1, V] and the states there.
    """

    request: Request
    prompt: list[int]
    uniform: NDArray[np.float32]
    watched: NDArray[np.bool_]
    streamed: bool
    tell: Callable[[Chunk | Response | Exception], None]
    choices: list[Choice | None]
    place: int = -1
    first: tuple[Tensor, Tensor] | None = None
    started: int = 0
    over: bool = False


@dataclass(slots=True, eq=False)
class _Row:
    """A choice in the batch.

    Attributes:
        tokens: sampled so far, kept here only while the row is streamed.
        text: of the tokens before ``read``; ``shown`` characters of it were handed out.
        since: tokens before it are not needed to decode those from ``read`` on.
        hooked: what the request's hook is shown of it; None without a hook.
    """

    job: _Job
    choice: int
    tokens: list[int] = field(default_factory=list)
    text: str = ""
    shown: int = 0
    since: int = 0
    read: int = 0
    hooked: Row | None = None


class _Batch:
    """The rows that are decoded now, and those that wait for a slot. Lives in one thread."""

    def __init__(self, policy: Policy, slots: int, inside: Internals) -> None:
        self.policy, model, self.inside = policy, policy.model, inside
        c = model.config
        self.positions, self.eos = c.max_position_embeddings, policy.markers.eos
        self.compiled = compiles(model)
        # With fewer than 4 rows the BLAS takes another path, whose last bits differ.
        self.granule = 4
        slots = -(-slots // self.granule) * self.granule
        self.slots = slots
        # No row is older than the model has positions, so 64 steps at least lie between two shifts.
        self.decoder = Decoder(model, slots, self.positions + 64, self.compiled)
        self.waiting: deque[_Job] = deque()
        # by slot
        self.live = np.zeros(slots, np.bool_)
        self.record, self.token, self.position, self.start, self.group = (np.zeros(slots, np.int64) for _ in range(5))
        self.used, self.column = 0, 0
        self.soft, self.fed = np.zeros(slots, np.bool_), torch.zeros(slots, c.hidden_size, device=model.device)
        # by record: what a row keeps when it moves to another slot
        self.rows: list[_Row | None] = [None] * slots
        self.free, self.places, self.place_count = list(range(slots)), list[int](), 0
        self.length, self.cap = np.zeros(slots, np.int64), np.zeros(slots, np.int64)
        self.temperature = np.ones(slots)
        self.greedy, self.streamed, self.scored, self.hooked = (np.zeros(slots, np.bool_) for _ in range(4))
        self.watched = np.zeros((slots, c.vocab_size), np.bool_)
        self.uniform = np.zeros((slots, self.positions), np.float32)
        self.tokens = np.zeros((slots, self.positions), np.int64)
        self.logprobs = np.zeros((slots, self.positions), np.float32)

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do."""
        return not self.waiting and not self.live.any()

    def jobs(self) -> list[_Job]:
        """Those that are not over."""
        rows = (self.rows[r] for r in self.record[self.live].tolist())
        return list({id(j): j for j in (*self.waiting, *(row.job for row in rows if row is not None))}.values())

    def drop(self, job: _Job) -> None:
        """Forget a job: its rows leave at once."""
        if job.over:
            return
        job.over = True
        if job in self.waiting:
            self.waiting.remove(job)
        for slot in np.flatnonzero(self.live).tolist():
            row = self.rows[self.record[slot]]
            if row is not None and row.job is job:
                self._leave(slot)
        if job.place >= 0:
            self.places.append(job.place)

    def _leave(self, slot: int) -> None:
        record = int(self.record[slot])
        self.live[slot], self.rows[record] = False, None
        self.free.append(record)

    def step(self) -> None:
        """Let in what fits, then a token for every live row."""
        while self.waiting and self.free:
            self._admit()
        self._close_up()
        n = self.used
        if not n:
            return
        live = self.live[:n]
        if self.column == self.decoder.columns:
            by = int(self.start[:n][live].min())
            self.decoder.shift(by, n)
            self.column -= by
            self.start[:n] -= by
        m = min(self.slots, -(-n // self.granule) * self.granule)
        # ended rows and padding attend to their own new column only, and stay in range
        self.start[:m][~self.live[:m]] = self.column
        c, states, fed = self.policy.model.config, None, None
        if self.hooked[self.record[:n][live]].any():
            states = self.fed.new_empty((m, c.num_hidden_layers + 1, c.hidden_size))
            soft = self.soft[:m] & self.live[:m]
            fed = (soft, self.fed[:m]) if soft.any() else None
        logits = self.decoder.step(
            self.token[:m], self.position[:m], self.start[:m], self.group[:m], self.column, states, fed
        )  # fmt: skip
        self.column += 1
        self.position[:n] += live
        self._take(np.flatnonzero(live), logits, states)

    def _admit(self) -> None:
        """Start choices of the first job that waits, in slots of rows that ended and behind the last one."""
        job = self.waiting[0]
        if job.place < 0:
            if not self.places:
                self.places.append(self.place_count)
                self.place_count += 1
            job.place = self.places.pop()
            job.first = self.decoder.insert(job.place, job.prompt)
        assert job.first is not None
        request, count = job.request, min(job.request.n - job.started, len(self.free))
        holes = np.flatnonzero(~self.live[: self.used])[:count]
        slots = np.concatenate([holes, np.arange(self.used, self.used + count - len(holes))])
        self.used += count - len(holes)
        records = [self.free.pop() for _ in range(count)]
        for choice, record in enumerate(records, job.started):
            hooked = None if request.hook is None else Row(request, choice, job.prompt)
            self.rows[record] = _Row(job, choice, hooked=hooked)
        self.live[slots], self.record[slots] = True, records
        self.position[slots], self.start[slots], self.group[slots] = len(job.prompt), self.column, job.place
        self.length[records], self.cap[records] = 0, request.max_tokens
        self.greedy[records], self.temperature[records] = request.temperature == 0, request.temperature or 1.0
        self.streamed[records], self.scored[records] = job.streamed, request.logprobs
        self.watched[records], self.hooked[records] = job.watched, request.hook is not None
        self.uniform[records, : request.max_tokens] = job.uniform[job.started : job.started + count]
        job.started += count
        if job.started == request.n:
            self.waiting.popleft()
        logits, states = job.first
        self._take(slots, logits.expand(count, -1), states.expand(count, -1, -1))

    def _close_up(self) -> None:
        """Fill the holes of ended rows with the last live ones when they are many, so that the batch is short."""
        live = self.live[: self.used]
        count = int(live.sum())
        if count == 0:
            self.used = self.column = 0
        if (self.used - count) * 8 <= self.used:
            return
        holes, movers = np.flatnonzero(~live[:count]), count + np.flatnonzero(live[count:])
        if len(holes):
            self.decoder.move(holes, movers, int(self.start[movers].min()), self.column)
            self.fed[holes] = self.fed[movers]
        for a in (self.record, self.token, self.position, self.start, self.group, self.soft):
            a[holes] = a[movers]
        self.live[:count], self.live[count : self.used] = True, False
        self.used = count

    def _take(self, slots: I64, logits: Tensor, states: Tensor | None) -> None:
        """The next token of the rows in these slots, from the logits [>= n, V] of the batch's slots, and the states."""
        rows = logits if len(logits) == len(slots) else logits[torch.from_numpy(slots).to(logits.device)]
        rows, effect = rows.contiguous(), None
        if self.hooked[self.record[slots]].any():
            assert states is not None
            effect, going = self._hooks(slots, rows, states if len(states) == len(slots) else states[slots])
            slots, rows = slots[going], rows[going]
            if not len(slots):
                return
        record = self.record[slots]
        at = self.length[record]
        token, _, _ = draw(rows, self.temperature[record], self.uniform[record, at], self.compiled)
        greedy = self.greedy[record]
        if greedy.any():
            token[greedy] = rows[torch.from_numpy(greedy)].argmax(1).cpu().numpy()
        if effect is not None:
            self._follow(effect, slots, token, at)
        scored = np.flatnonzero(self.scored[record])
        if len(scored):
            logp = F.log_softmax(rows[torch.from_numpy(scored)].float(), -1).cpu().numpy()
            self.logprobs[record[scored], at[scored]] = logp[np.arange(len(scored)), token[scored]]
        self.tokens[record, at] = token
        self.length[record] = at + 1
        self.token[slots] = token
        looked = self.watched[record, token] | (at + 1 >= self.cap[record])
        for i in np.flatnonzero(looked | self.streamed[record]).tolist():
            self._look(int(slots[i]), bool(looked[i]))

    def _hooks(self, slots: I64, rows: Tensor, states: Tensor) -> tuple[Effect, NDArray[np.bool_]]:
        """Ask the hooks; end the rows that they end, and fail the jobs of those that raise.

        Returns:
            The effect on the rows that take a token now, and which these are.
        """
        shown = [self.rows[r] for r in self.record[slots].tolist()]
        hooked = np.array([row is not None and row.hooked is not None for row in shown])
        asked = [row.hooked for row in shown if row is not None and row.hooked is not None]
        effect = call_hooks(self.inside, asked, rows[hooked], states[hooked])
        where, going = np.flatnonzero(hooked), np.ones(len(slots), np.bool_)
        for i, error in effect.failed.items():
            row = shown[where[i]]
            assert row is not None
            if not row.job.over:
                self.drop(row.job)
                row.job.tell(error)
        for i in np.flatnonzero(effect.end).tolist():
            row = shown[where[i]]
            if row is not None and not row.job.over:
                self._end(int(slots[where[i]]), STOP)
        going = self.live[slots]
        return effect.among(hooked, going), going

    def _follow(self, effect: Effect, slots: I64, token: I64, at: I64) -> None:
        """Draw, force and feed as the hooks want; the tokens [n] drawn from the model's own logits are changed."""
        record = self.record[slots]
        some = np.flatnonzero(effect.tempered)
        if len(some):
            # in torch's operators: a token that is excluded has a probability of exactly 0 there
            changed = effect.logits[some]
            drawn, _, _ = draw(changed, np.ones(len(some)), self.uniform[record[some], at[some]], False)
            token[some] = np.where(self.greedy[record[some]], changed.argmax(1).cpu().numpy(), drawn)
        forced = effect.force >= 0
        token[forced] = effect.force[forced]
        self.soft[slots] = effect.soft
        if effect.embeddings is not None:
            self.fed[slots] = effect.embeddings.to(self.fed)
        for r, taken in zip(record.tolist(), token.tolist(), strict=True):
            row = self.rows[r]
            if row is not None and row.hooked is not None:
                row.hooked.tokens.append(taken)

    def _end(self, slot: int, finish: str) -> None:
        """End a row before its next token."""
        record = int(self.record[slot])
        row, n = self.rows[record], int(self.length[record])
        assert row is not None
        job = row.job
        text, _ = _until(self.policy.decode([self.tokens[record, :n].tolist()])[0], job.request.stop)
        if job.streamed:
            job.tell(Chunk(row.choice, text[row.shown :], 0))
        logprobs = tuple(self.logprobs[record, :n].tolist()) if job.request.logprobs else None
        job.choices[row.choice] = Choice(text, n, finish, logprobs)
        self._leave(slot)
        self._complete(job)

    def _look(self, slot: int, may_end: bool) -> None:
        """Show what is new of a streamed row, and end a row that is at its end."""
        record = int(self.record[slot])
        row = self.rows[record]
        assert row is not None
        job, n = row.job, int(self.length[record])
        last = int(self.tokens[record, n - 1])
        finish = None
        if may_end:
            tokens = self.tokens[record, :n].tolist()
            text, stopped = _until(self.policy.decode([tokens])[0], job.request.stop)
            finish = STOP if stopped or last == self.eos else LENGTH if n >= job.request.max_tokens else None
        if finish is not None:
            if job.streamed:
                job.tell(Chunk(row.choice, text[row.shown :]))
            logprobs = tuple(self.logprobs[record, :n].tolist()) if job.request.logprobs else None
            job.choices[row.choice] = Choice(text, n, finish, logprobs)
            self._leave(slot)
            self._complete(job)
        elif job.streamed:
            row.tokens.append(last)
            job.tell(Chunk(row.choice, self._news(row)))

    def _news(self, row: _Row) -> str:
        """Text of a row that can be shown now: whole characters that cannot be the beginning of a stop text."""
        before, after = self.policy.decode([row.tokens[row.since : row.read], row.tokens[row.since :]])
        if not after.endswith("\ufffd"):
            row.text += after[len(before) :]
            row.since, row.read = row.read, len(row.tokens)
        end = len(row.text)
        for stop in row.job.request.stop:
            held = min(len(stop) - 1, len(row.text) - row.shown)
            end = min(end, next((len(row.text) - k for k in range(held, 0, -1) if row.text.endswith(stop[:k])), end))
        new = row.text[row.shown : end]
        row.shown += len(new)
        return new

    def _complete(self, job: _Job) -> None:
        """Answer a job whose choices are all there."""
        choices = [choice for choice in job.choices if choice is not None]
        if len(choices) < job.request.n:
            return
        job.over = True
        self.places.append(job.place)
        output = sum(choice.tokens or 0 for choice in choices)
        job.tell(Response(tuple(choices), Usage(input=len(job.prompt), output=output)))


def _until(text: str, stops: Sequence[str]) -> tuple[str, bool]:
    """(the text before the first stop text, whether there is one)."""
    found = [at for stop in stops if (at := text.find(stop)) >= 0]
    return (text[: min(found)], True) if found else (text, False)


class Reasoner:
    """The embedded reasoner, or any Llama folder that :func:`budgeteer.models.policy.load_policy` reads.

    Prompts are raw text and may end inside a trace. Log-probabilities are the model's own: at temperature 1, whatever
    the request's. A stream that is closed, or a call that is cancelled, frees its rows at the next step.

    It decodes in one thread of one core, whatever torch's setting is: its matrix products are small.

    Args:
        policy: weights and tokenizer; None = those of the package.
        slots: rows decoded at once; more wait.
        name: for reports and prices.
    """

    capabilities = frozenset({PREFIX, LOGPROBS, SEED, INTERNALS})

    def __init__(self, policy: Policy | None = None, slots: int = 256, *, name: str = "reasoner") -> None:
        if slots < 1:
            raise InvalidInput(f"slots is {slots}; give at least 1")
        self.name, self.policy, self.slots = name, policy or load_policy(), slots
        self.context = self.policy.model.config.max_position_embeddings
        self._wake = threading.Condition()
        self._inbox: list[tuple[_Job, bool]] = []
        self._thread: threading.Thread | None = None
        self._closed = False
        self._out: dict[asyncio.AbstractEventLoop, list[tuple[Callable[[Any], None], Any]]] = {}
        self._encoded = lru_cache(4096)(lambda text: self.policy.encode([text])[0])
        self._watched = lru_cache(64)(self._watch)
        self.inside = Internals(
            self.policy.model.embed.detach(),
            tuple(self._pieces()),
            self.policy.markers.eos,
            lambda text: list(self.policy.tokenizer.encode(text, add_special_tokens=False).ids),
        )

    def count(self, prompt: str | tuple[Message, ...]) -> int:
        """Input tokens of a prompt, with the beginning-of-sequence token."""
        if not isinstance(prompt, str):
            raise InvalidInput(f"{self.name} continues raw text; give the prompt as a string, not as messages")
        return len(self._encoded(prompt))

    async def generate(self, request: Request) -> Response:
        """All choices of a request.

        Raises:
            InvalidInput: messages, or a prompt and a cap beyond the model's positions.
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
        """End the thread; what runs fails with ModelError."""
        with self._wake:
            self._closed = True
            self._wake.notify()
            thread = self._thread
        if thread is not None:
            await asyncio.to_thread(thread.join)

    def _submit(self, request: Request, streamed: bool, tell: Callable[[Any], None]) -> _Job:
        """Hand a request to the batch's thread; ``tell`` is called in the loop of the caller."""
        if self._closed:
            raise ModelError(f"{self.name} is closed; make a new one", billed=False)
        read, config = self.count(request.prompt), self.policy.model.config
        positions = config.max_position_embeddings
        if read + request.max_tokens > positions:
            raise InvalidInput(
                f"prompt of {read} + max_tokens {request.max_tokens} exceeds the {positions} positions of {self.name}; "
                f"shorten one"
            )
        loop = asyncio.get_running_loop()
        seed = secrets.randbits(63) if request.seed is None else request.seed % 2**64
        job = _Job(
            request,
            self._encoded(request.prompt),
            streams(seed, request.n, positions, request.max_tokens),
            self._watched(request.stop),
            streamed,
            lambda result: self._out.setdefault(loop, []).append((tell, result)),
            [None] * request.n,
        )
        self._post(job, True)
        return job

    def _cancel(self, job: _Job) -> None:
        if not job.over:
            self._post(job, False)

    def _post(self, job: _Job, wanted: bool) -> None:
        with self._wake:
            if self._closed and wanted:
                raise ModelError(f"{self.name} is closed; make a new one", billed=False)
            self._inbox.append((job, wanted))
            if self._thread is None and wanted:
                self._thread = threading.Thread(target=self._run, name=f"{self.name}-batch", daemon=True)
                self._thread.start()
            self._wake.notify()

    def _watch(self, stops: tuple[str, ...]) -> NDArray[np.bool_]:
        """[V] tokens that can end a row: end of sequence, and those that can hold the last character of a stop text."""
        pieces = self._pieces()
        ends = {stop[-1] for stop in stops if stop}
        if len(stops) > sum(map(bool, stops)):
            raise InvalidInput("a stop text is empty; leave it out")
        watched = np.array([bool(stops) and ("\ufffd" in p or not ends.isdisjoint(p)) for p in pieces], np.bool_)
        watched[self.policy.markers.eos] = True
        return watched

    def _pieces(self) -> list[str]:
        """Text of every token id, as it reads after a newline."""
        newline, vocab = self.policy.markers.answer_end, self.policy.model.config.vocab_size
        before = self.policy.decode([[newline]])[0]
        return [text[len(before) :] for text in self.policy.decode([[newline, i] for i in range(vocab)])]

    # the batch's thread

    def _run(self) -> None:
        batch: _Batch | None = None
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
                    batch = batch or _Batch(self.policy, self.slots, self.inside)
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
        """Hand what was told at this step to the loops of the callers, in one go for each."""
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
    """Torch and the kernels without helpers in this thread: a step is so short that waking one takes longer than it,
    and beside other work waiting for one takes a hundred times as long."""
    before = torch.get_num_threads()
    with suppress(ImportError):
        import numba

        numba.set_num_threads(1)  # before torch: starting its threads sets OpenMP's number, which is torch's, too
    torch.set_num_threads(1)
    # that was for this thread and for those that are new; another thread makes it what it was for the latter
    other = threading.Thread(target=torch.set_num_threads, args=(before,))
    other.start()
    other.join()
