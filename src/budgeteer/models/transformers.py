"""A causal language model of Hugging Face's transformers as a Model.

The choices of a request are one batch: its prompt is read once, and its cache is copied for each choice. If a prompt
begins like the one before it, for example with the same worked examples, the common part is not read again: prompts
are read in blocks of a fixed size, so that a block's cache has the same bits whenever it was made. Requests run one
after the other in one thread, so that no request changes the answer of another; for many questions at a time the
reasoner and llama.cpp are faster.
"""

from __future__ import annotations

import asyncio
import copy
import importlib.util
import json
import secrets
import threading
from collections.abc import AsyncGenerator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from budgeteer.core.errors import CheckpointError, InvalidInput, MissingExtra, ModelError
from budgeteer.core.plan import ENDED, I64, RUNNING
from budgeteer.core.steer import Internals, Need, Rows, require_offered
from budgeteer.core.usage import Usage
from budgeteer.engine.decoder import streams
from budgeteer.engine.steering import Steering, Taken
from budgeteer.engine.table import Marks, Table, marks_of_text
from budgeteer.engine.text import whole
from budgeteer.models.chat import Prompt, Tags, reads, tags_of, template_options, written
from budgeteer.models.hub import require_there
from budgeteer.models.inside import argument_of, ends_of, internals, never_of, positions_of
from budgeteer.models.model import (
    CALLS,
    INTERNALS,
    LOGPROBS,
    PREFILL,
    PREFIX,
    SEED,
    Choice,
    Chunk,
    Request,
    Response,
    finish_of,
    last,
)

try:
    import transformers
    from jinja2 import TemplateError
    from transformers import DynamicCache
    from transformers.cache_utils import DynamicLayer
except ImportError as error:
    raise MissingExtra("transformers", "hf") from error


_BLOCK = 64
"""Tokens of a prompt that are read at once."""


def pretrained(path: str | Path, dtype: Any = "auto") -> tuple[Any, Any]:
    """The tokenizer and the model of a folder, a ``.gguf`` file (its weights are dequantised), or a name.

    Args:
        path: what transformers is to load.
        dtype: of the weights; ``"auto"`` = as they are stored.

    Raises:
        CheckpointError: there is no model, or transformers cannot load it.
        MissingExtra: a package that reads GGUF files is not installed.
    """
    path, options = Path(path), {}
    is_gguf = path.suffix == ".gguf"
    if is_gguf:
        for needed in ("gguf", "accelerate"):  # transformers reads such a file with them
            if importlib.util.find_spec(needed) is None:
                raise MissingExtra(needed, "hf")
        options = {"gguf_file": path.name}
    source = str(path.parent if is_gguf else path)
    require_there(path)
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(source, **options)
        return tokenizer, transformers.AutoModelForCausalLM.from_pretrained(source, dtype=dtype, **options)
    except Exception as error:  # transformers raises whatever its parts raise
        raise CheckpointError(f"transformers cannot load {path}: {error}") from error


def tags_in(tokenizer: Any) -> Tags | None:
    """The tags of thinking of a tokenizer's chat template; None: it has no template, or the template has no tags."""
    template = tokenizer.chat_template
    return None if template is None else tags_of(template, frozenset(tokenizer.get_added_vocab()))


class Transformers:
    """A model and its tokenizer from a folder, a GGUF file or by name. Messages need a chat template in the tokenizer.

    Log-probabilities are those of the model at temperature 1, whatever the temperature of the request. A stream that is
    closed, or a call that is cancelled, stops at the next token. Steers get single-precision tensors on the CPU,
    whatever the device.

    Args:
        path: a folder, a ``.gguf`` file (its weights are dequantised), or a name that transformers can resolve.
        device: such as ``"cpu"`` or ``"cuda"``.
        name: for reports and prices; None = the last part of the path.

    Raises:
        CheckpointError: transformers cannot load it.
        MissingExtra: a package that reads GGUF files is not installed.
    """

    capabilities = frozenset({PREFIX, LOGPROBS, SEED, INTERNALS})

    def __init__(self, path: str | Path, *, device: str = "cpu", name: str | None = None) -> None:
        self.tokenizer, model = pretrained(path)
        path, is_gguf = Path(path), Path(path).suffix == ".gguf"
        self.model = model.eval().to(device)
        self.name = name or (path.stem if is_gguf else path.name)
        self.tags = tags_in(self.tokenizer)
        template = self.tokenizer.chat_template
        if template is not None:
            self.capabilities |= {PREFILL, CALLS} if reads(template, "tools") else {PREFILL}
        self.folder = path if path.is_dir() else path.parent if is_gguf else None
        self.ends, self.never = ends_of(self.model), never_of(self.model)
        self._cache = argument_of(self.model)
        self.context = getattr(self.model.config, "max_position_embeddings", None)
        self._worker = ThreadPoolExecutor(1, thread_name_prefix=f"{self.name}-decode")
        self._encoded = lru_cache(4096)(self._encode)
        self._marks_of = lru_cache(64)(self._marks_with)
        self._closed = False
        self._read: tuple[list[int], DynamicCache] = [], DynamicCache()

    def count(self, prompt: Prompt) -> int:
        """Input tokens of a prompt, including those that the tokenizer or its chat template adds."""
        return len(self._encoded(prompt))

    def _encode(self, prompt: Prompt) -> list[int]:
        if isinstance(prompt, str):
            ids: list[int] = self.tokenizer(prompt)["input_ids"]
            # some tokenizers close what they encode, and what is at its end has no continuation
            return ids[:-1] if len(ids) > 1 and ids[-1] in self.ends else ids
        template = self.tokenizer.chat_template
        if template is None:
            raise InvalidInput(f"the tokenizer of {self.name} has no chat template; give the prompt as raw text")
        options = template_options(prompt.thinking, template, self.name)
        tools = [json.loads(tool) for tool in prompt.tools] or None
        messages = [message._asdict() for message in prompt.messages]
        try:
            text: Any = self.tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True, tools=tools, **options
            )
        except TemplateError as error:  # its own refusal, such as Gemma's of a system message, or a fault in it
            raise InvalidInput(
                f"the chat template of {self.name} does not write this chat ({error}); take another style, or mend it"
            ) from error
        return list(self.tokenizer(written(text, prompt.begun, self.tags), add_special_tokens=False)["input_ids"])

    @cached_property
    def inside(self) -> Internals:
        """What steers are told about the model. Made when the first one runs: the vocabulary may be large."""
        return internals(self.model, self.tokenizer, self.ends)

    def text(self, tokens: Sequence[int]) -> str:
        """The text of token ids, special tokens included."""
        return str(self.tokenizer.decode(list(tokens), skip_special_tokens=False))

    async def generate(self, request: Request) -> Response:
        """All choices of a request.

        Raises:
            InvalidInput: messages without a chat template, or prompt and cap exceed the model's positions.
            ModelError: the model was closed, or decoding failed.
        """
        return await last(self.stream(request))

    async def stream(self, request: Request) -> AsyncGenerator[Chunk | Response, None]:
        """A Chunk for every token of every choice, then the Response.

        A token whose text is not whole, or may begin a stop text, has an empty Chunk; its text comes with a later one.
        """
        if self._closed:
            raise ModelError(f"{self.name} is closed; make a new one", billed=False)
        if request.steer is not None:
            require_offered(request.steer, frozenset(Need), self.name)
        prompt = self._encoded(request.prompt)
        if self.context is not None and len(prompt) + request.max_tokens > self.context:
            raise InvalidInput(
                f"prompt of {len(prompt)} + max_tokens {request.max_tokens} exceeds the {self.context} positions of "
                f"{self.name}; shorten one"
            )
        loop, gone = asyncio.get_running_loop(), threading.Event()
        results: asyncio.Queue[list[Chunk] | Response | Exception] = asyncio.Queue()

        def tell(result: list[Chunk] | Response | Exception) -> None:
            if not gone.is_set():
                loop.call_soon_threadsafe(results.put_nowait, result)

        def work() -> None:
            try:
                self._decode(request, prompt, gone, tell)
            except Exception as error:
                failure = ModelError(f"{self.name} failed: {error!r}", billed=True)
                failure.__cause__ = error
                tell(failure)

        self._worker.submit(work)
        try:
            while True:
                result = await results.get()
                if isinstance(result, Exception):
                    raise result
                if isinstance(result, Response):
                    yield result
                    return
                for chunk in result:
                    yield chunk
        finally:
            gone.set()

    @torch.inference_mode()
    def _decode(self, request: Request, prompt: Sequence[int], gone: threading.Event, tell: Any) -> None:
        rows = _Choices(self, request)
        steering, table = rows.steering, rows.table
        begun, kept = self._begin(prompt)
        live, cache = np.arange(request.n), cast(Any, kept)
        fed = {"input_ids": torch.tensor([prompt[begun:]], device=self.model.device)}
        first = True
        while len(live) and not gone.is_set():
            steering.before(live)
            here = np.flatnonzero(table.status[live] == RUNNING)
            chunks = rows.ended(np.setdiff1d(live, live[here]))
            if steering.failures:
                tell(steering.failures[0][0])
                return
            if len(here) < len(live):
                tell(chunks)
                chunks = []
                live = live[here]
                if not len(live):
                    break
                if not first:
                    at = torch.from_numpy(here).to(self.model.device)
                    cache.batch_select_indices(at)
                    fed = {name: values[at] for name, values in fed.items()}
            watched = steering.wants_hidden(live)
            held = {self._cache: cache}
            out = self.model(**fed, **held, use_cache=True, logits_to_keep=1, output_hidden_states=watched)
            cache, logits = getattr(out, self._cache), out.logits[:, -1].float().cpu()
            states = torch.stack([s[:, -1].float().cpu() for s in out.hidden_states], 1) if watched else None
            if first:  # after the prompt: one copy for each choice
                logits = logits.expand(len(live), -1)
                states = None if states is None else states.expand(len(live), -1, -1)
                cache.batch_repeat_interleave(len(live))
                first = False
            taken = steering.take(live, logits.contiguous(), states)
            if steering.failures:
                tell(steering.failures[0][0])
                return
            took = live[taken.at]
            chunks += rows.ended(np.setdiff1d(live, took))
            chunks += rows.advanced(took)
            tell(chunks)
            stays = np.flatnonzero(table.status[took] == RUNNING)
            if len(stays) and len(stays) < len(live):
                cache.batch_select_indices(torch.from_numpy(taken.at[stays]).to(self.model.device))
            live = took[stays]
            fed = self._feed(taken, stays) if len(live) else {}
        if not gone.is_set():
            choices = rows.choices()
            used = Usage(input=len(prompt), output=sum(choice.tokens or 0 for choice in choices))
            tell(Response(choices, used))

    def _begin(self, prompt: Sequence[int]) -> tuple[int, DynamicCache | None]:
        """Read the whole blocks of a prompt; returns (number of tokens read, their cache).

        It returns (0, None) if the model's cache cannot be cropped, like that of a sliding window.
        """
        whole = (len(prompt) - 1) // _BLOCK * _BLOCK
        before, kept = self._read
        differ = next((i for i, (a, b) in enumerate(zip(before, prompt, strict=False)) if a != b), len(before))
        same = min(differ, whole) // _BLOCK * _BLOCK
        self._read = [], DynamicCache()  # until it is whole again
        cache = kept if same else None
        if 0 < same < len(before):
            kept.crop(same - len(before))
        for begin in range(same, whole, _BLOCK):
            block = torch.tensor([prompt[begin : begin + _BLOCK]], device=self.model.device)
            out = self.model(input_ids=block, **{self._cache: cache}, use_cache=True, logits_to_keep=1)
            cache = getattr(out, self._cache)
            if not all(type(layer) is DynamicLayer for layer in getattr(cache, "layers", [None])):
                return 0, None
        if cache is None:
            return 0, None
        self._read = list(prompt[:whole]), cache
        return whole, copy.deepcopy(cache)

    def _feed(self, taken: Taken, stays: I64) -> dict[str, Tensor]:
        """The next input of the rows that go on, ``stays`` [k] of those that took a token: the token, or the embedding
        that the steer gives instead of it."""
        device = self.model.device
        tokens = torch.from_numpy(taken.token[stays])[:, None].to(device)
        if taken.embeddings is None or taken.soft is None:
            return {"input_ids": tokens}
        embedded = self.model.get_input_embeddings()(tokens)
        soft = torch.from_numpy(taken.soft[stays]).to(device)[:, None, None]
        steered = taken.embeddings[torch.from_numpy(stays)][:, None]
        return {"inputs_embeds": torch.where(soft, steered.to(embedded), embedded)}

    def marks(self, request: Request) -> Marks:
        """What each token means for the choices of a request."""
        if request.steer is None:  # computing the texts of all tokens takes time
            return Marks(np.zeros(self.model.get_input_embeddings().num_embeddings, np.uint8), ())
        return self._marks_of(request.close)

    def _marks_with(self, close: str) -> Marks:
        return marks_of_text(self.inside, sorted(self.ends), close, ())

    async def aclose(self) -> None:
        """Finish the requests that run or wait, and end the thread."""
        self._closed = True
        await asyncio.to_thread(self._worker.shutdown)


class _Choices:
    """The choices of one request while they are decoded: rows 0, 1, ... of a table, and the text of each."""

    def __init__(self, model: Transformers, request: Request) -> None:
        self.model, self.request = model, request
        n, cap = request.n, request.max_tokens
        seed = secrets.randbits(63) if request.seed is None else request.seed % 2**64
        pieces = () if request.steer is None else model.inside.pieces
        self.table = Table(n, cap, [model.marks(request)], pieces)
        every = np.arange(n)
        self.table.reset(every, cap, request.temperature, scored=request.logprobs)
        # as in the other engines, so that a choice draws the same numbers in each of them
        self.table.uniform = streams(seed, n, positions_of(model.model, cap), cap)
        inside = Internals(None, (), -1, _no_text, model.never) if request.steer is None else model.inside
        self.steering = Steering(self.table, inside, False)
        self.ticket = None
        if request.steer is not None:
            self.ticket = self.steering.join(request.steer, Rows(tuple(map(str, range(n))), self.table.cap, seed))
            self.steering.start(self.ticket, 0, every)
        self.texts, self.shown = [""] * n, [0] * n

    def ended(self, rows: I64) -> list[Chunk]:
        """The text that was held back of rows that a steer ended before their next token."""
        return [self._show(row, self.model.text(self.tokens(row)), 0) for row in rows.tolist()]

    def advanced(self, rows: I64) -> list[Chunk]:
        """The new text of rows that took a token; rows at a stop text or at the end of the sequence end."""
        chunks = []
        for row in rows.tolist():
            tokens = self.tokens(row)
            if tokens[-1] in self.model.ends:
                self.table.status[row] = ENDED
                tokens.pop()
            text = self.table.before_stop(row, self.model.text(tokens), self.request.stop)
            if self.table.status[row] == RUNNING:
                text = text[: whole(text, self.request.stop)]
            chunks.append(self._show(row, text, 1))
        return chunks

    def choices(self) -> tuple[Choice, ...]:
        """All choices, once they have ended."""
        table, steer = self.table, self.request.steer
        notes: list[Any] = [None] * self.request.n
        if steer is not None and steer.report is not None and self.ticket is not None:
            notes = steer.report(self.steering.leave(self.ticket))
        return tuple(
            Choice(
                self.texts[row],
                int(table.length[row]),
                finish_of(int(table.status[row])),
                tuple(table.logprob[row, : table.length[row]].tolist()) if self.request.logprobs else None,
                int(table.forced[row].sum()),
                notes[row],
            )
            for row in range(self.request.n)
        )

    def tokens(self, row: int) -> list[int]:
        """Token ids of a row so far."""
        return list(self.table.tokens[row, : self.table.length[row]].tolist())

    def _show(self, row: int, text: str, tokens: int) -> Chunk:
        self.texts[row], shown = text, self.shown[row]
        self.shown[row] = max(shown, len(text))
        return Chunk(row, text[shown:], tokens)


def _no_text(text: str) -> list[int]:
    raise InvalidInput("there is no steer here that could ask for the tokens of a text")
