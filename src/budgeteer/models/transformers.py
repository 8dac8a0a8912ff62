"""A causal language model of Hugging Face's transformers as a Model.

The choices of a request are one batch: its prompt is read once and its cache is shared out. What the last prompt began
with is not read again, such as the worked examples that many questions share: prompts are read in blocks of a fixed
size, so that a block's cache has the same bits whenever it was made. Requests run one after the
other in a thread of their own, so that what else is asked changes no answer; for many questions at a time the reasoner
and llama.cpp are the faster engines.
"""

from __future__ import annotations

import asyncio
import copy
import importlib.util
import secrets
import threading
from collections.abc import AsyncGenerator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from budgeteer.core.errors import CheckpointError, InvalidInput, MissingExtra, ModelError
from budgeteer.core.plan import I64
from budgeteer.core.usage import Usage
from budgeteer.engine.decoder import draw
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
    last,
)

try:
    import transformers
    from transformers import DynamicCache
    from transformers.cache_utils import DynamicLayer
except ImportError as error:
    raise MissingExtra("transformers", "hf") from error


_BLOCK = 64
"""Tokens of a prompt that are read at once."""


class Transformers:
    """A model and its tokenizer from a folder, a GGUF file or by name. Messages need a chat template in the tokenizer.

    Log-probabilities are the model's own: at temperature 1, whatever the request's. A stream that is closed, or a call
    that is cancelled, stops at the next token. Hooks are shown single-precision tensors of the CPU, whatever the
    device.

    Args:
        path: a folder, a file ``.gguf`` (its weights are dequantised), or a name that transformers can resolve.
        device: such as ``"cpu"`` or ``"cuda"``.
        name: for reports and prices; None = the last part of the path.

    Raises:
        CheckpointError: it cannot be loaded.
        MissingExtra: a GGUF file without the packages that read it.
    """

    capabilities = frozenset({PREFIX, LOGPROBS, SEED, INTERNALS})

    def __init__(self, path: str | Path, *, device: str = "cpu", name: str | None = None) -> None:
        path, options = Path(path), {}
        is_gguf = path.suffix == ".gguf"
        if is_gguf:
            for needed in ("gguf", "accelerate"):  # transformers reads such a file with them
                if importlib.util.find_spec(needed) is None:
                    raise MissingExtra(needed, "hf")
            options = {"gguf_file": path.name}
        source = str(path.parent if is_gguf else path)
        try:
            self.tokenizer = transformers.AutoTokenizer.from_pretrained(source, **options)
            model: Any = transformers.AutoModelForCausalLM.from_pretrained(source, dtype="auto", **options)
        except Exception as error:  # transformers raises whatever its parts raise
            raise CheckpointError(f"transformers cannot load {path}: {error}") from error
        self.model = model.eval().to(device)
        self.name = name or (path.stem if is_gguf else path.name)
        ends = self.model.generation_config.eos_token_id
        self._ends = frozenset(ends if isinstance(ends, list) else [] if ends is None else [ends])
        self.context = getattr(self.model.config, "max_position_embeddings", None)
        self._worker = ThreadPoolExecutor(1, thread_name_prefix=f"{self.name}-decode")
        self._encoded = lru_cache(4096)(self._encode)
        self._closed = False
        self._read: tuple[list[int], DynamicCache] = [], DynamicCache()

    def count(self, prompt: str | tuple[Message, ...]) -> int:
        """Input tokens of a prompt, with those that the tokenizer or its chat template adds."""
        return len(self._encoded(prompt))

    def _encode(self, prompt: str | tuple[Message, ...]) -> list[int]:
        if isinstance(prompt, str):
            ids: list[int] = self.tokenizer(prompt)["input_ids"]
            # some tokenizers close what they encode, and what is at its end has no continuation
            return ids[:-1] if len(ids) > 1 and ids[-1] in self._ends else ids
        if self.tokenizer.chat_template is None:
            raise InvalidInput(f"the tokenizer of {self.name} has no chat template; give the prompt as raw text")
        text = self.tokenizer.apply_chat_template(
            [message._asdict() for message in prompt], tokenize=False, add_generation_prompt=True
        )
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    @cached_property
    def inside(self) -> Internals:
        """What hooks are told about the model. Made when the first one runs: the vocabulary may be large."""
        newline = self.tokenizer("\n", add_special_tokens=False)["input_ids"]
        before = len(self._text(newline))
        with torch.inference_mode():
            layer = self.model.get_input_embeddings()
            # what the layer says, since some scale what they hold
            embed = layer(torch.arange(layer.num_embeddings, device=self.model.device)).float().cpu()
        # as they read after a newline, since some tokenizers drop a space at the beginning
        pieces = tuple("" if i in self._ends else self._text([*newline, i])[before:] for i in range(len(embed)))
        # without an end of sequence there is nothing that a hook could mistake for it
        return Internals(
            embed,
            pieces,
            min(self._ends, default=-1),
            lambda text: list(self.tokenizer(text, add_special_tokens=False)["input_ids"]),
        )

    def _text(self, tokens: Sequence[int]) -> str:
        return str(self.tokenizer.decode(list(tokens), skip_special_tokens=False))

    async def generate(self, request: Request) -> Response:
        """All choices of a request.

        Raises:
            InvalidInput: messages without a chat template, or a sequence beyond the model's positions.
            ModelError: the model was closed, or decoding failed.
        """
        return await last(self.stream(request))

    async def stream(self, request: Request) -> AsyncGenerator[Chunk | Response, None]:
        """A Chunk for every token of every choice, then the Response.

        A token whose text is not whole, or may begin a stop text, has an empty Chunk; its text comes with a later one.
        """
        if self._closed:
            raise ModelError(f"{self.name} is closed; make a new one", billed=False)
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
        n, cap = request.n, request.max_tokens
        seed = secrets.randbits(63) if request.seed is None else request.seed % 2**64
        keys = (np.array([seed, i], np.uint64) for i in range(n))
        uniform = np.stack([np.random.Generator(np.random.Philox(key=k)).random(cap, np.float32) for k in keys])
        rows = [_Row(i) for i in range(n)]
        shown = [Row(request, row.choice, prompt, row.tokens) for row in rows]
        watched = request.hook is not None and request.hook.hidden
        live, (begun, cache) = list(rows), self._begin(prompt)
        fed = {"input_ids": torch.tensor([prompt[begun:]], device=self.model.device)}
        while live and not gone.is_set():
            out = self.model(
                **fed, past_key_values=cache, use_cache=True, logits_to_keep=1, output_hidden_states=watched
            )  # fmt: skip
            cache, logits = out.past_key_values, out.logits[:, -1].float().cpu()
            states = torch.stack([s[:, -1].float().cpu() for s in out.hidden_states], 1) if watched else None
            if not live[0].tokens:  # after the prompt: one copy for each choice
                logits = logits.expand(len(live), -1)
                states = None if states is None else states.expand(len(live), -1, -1)
                cache.batch_repeat_interleave(len(live))
            effect, chunks, here = None, list[Chunk](), np.arange(len(live))
            if request.hook is not None:
                effect = call_hooks(self.inside, [shown[row.choice] for row in live], logits, states)
                for error in effect.failed.values():
                    tell(error)
                    return
                chunks += [self._end(live[k]) for k in np.flatnonzero(effect.end)]
                here = np.flatnonzero(~effect.end)
                effect = effect.among(np.ones(len(live), np.bool_), ~effect.end)
            taking, logits = [live[k] for k in here], logits[torch.from_numpy(here)]
            token = self._take(request, taking, logits, effect, uniform)
            logp = F.log_softmax(logits, -1).gather(1, torch.from_numpy(token)[:, None])[:, 0].tolist()
            for k, row in enumerate(taking):
                row.tokens.append(int(token[k]))
                row.logprobs.append(logp[k])
                chunks.append(self._advance(request, row))
            tell(chunks)
            stays = np.array([k for k, row in enumerate(taking) if row.finish is None], np.int64)
            if len(stays) and len(stays) < len(live):
                cache.batch_select_indices(torch.from_numpy(here[stays]).to(self.model.device))
            live = [taking[k] for k in stays]
            fed = self._feed(live, effect, stays) if live else {}
        if not gone.is_set():
            choices = tuple(
                Choice(r.text, len(r.tokens), r.finish or LENGTH, tuple(r.logprobs) if request.logprobs else None)
                for r in rows
            )
            used = Usage(input=len(prompt), output=sum(len(row.tokens) for row in rows))
            tell(Response(choices, used))

    def _begin(self, prompt: Sequence[int]) -> tuple[int, DynamicCache | None]:
        """Read all of a prompt but the rest of its last block: (tokens read, their cache); (0, None) where a cache
        cannot be cut back, as that of a sliding window."""
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
            cache = self.model(input_ids=block, past_key_values=cache, use_cache=True, logits_to_keep=1).past_key_values
            if not all(type(layer) is DynamicLayer for layer in getattr(cache, "layers", [None])):
                return 0, None
        if cache is None:
            return 0, None
        self._read = list(prompt[:whole]), cache
        return whole, copy.deepcopy(cache)

    @staticmethod
    def _take(
        request: Request, rows: Sequence[_Row], logits: Tensor, effect: Effect | None, uniform: NDArray[np.float32]
    ) -> I64:
        """The next token [m] of each row, of the model's logits [m, V] or as the hook wants it."""
        if not rows:
            return np.zeros(0, np.int64)
        at = uniform[[row.choice for row in rows], [len(row.tokens) for row in rows]]

        def taken(logits: Tensor, temperature: float) -> I64:
            if request.temperature == 0:
                return np.asarray(logits.argmax(1).numpy(), np.int64)
            return draw(logits.contiguous(), temperature, at, False)[0]

        token = taken(logits, request.temperature)
        if effect is not None:
            if effect.tempered.any():
                token = np.where(effect.tempered, taken(effect.logits, 1.0), token)
            token = np.where(effect.force >= 0, effect.force, token)
        return token

    def _feed(self, rows: Sequence[_Row], effect: Effect | None, places: I64) -> dict[str, Tensor]:
        """The next input of each row: its last token, or what the hook wants fed instead; ``places`` [m] in it."""
        device = self.model.device
        tokens = torch.tensor([[row.tokens[-1]] for row in rows], device=device)
        if effect is None or effect.embeddings is None:
            return {"input_ids": tokens}
        embedded = self.model.get_input_embeddings()(tokens)
        soft = torch.from_numpy(effect.soft[places]).to(device)[:, None, None]
        other = effect.embeddings[torch.from_numpy(places)][:, None]
        return {"inputs_embeds": torch.where(soft, other.to(embedded), embedded)}

    def _end(self, row: _Row) -> Chunk:
        """Close a row before its next token; its Chunk has what was held back."""
        row.text, row.finish = self._text(row.tokens), STOP
        return Chunk(row.choice, row.text[row.shown :], 0)

    def _advance(self, request: Request, row: _Row) -> Chunk:
        """What is new of a row after its last token, and whether it is at its end."""
        ended = row.tokens[-1] in self._ends
        text = self._text(row.tokens[:-1] if ended else row.tokens)
        found = [at for stop in request.stop if stop and (at := text.find(stop)) >= 0]
        if found or ended:
            row.text, row.finish = text[: min(found)] if found else text, STOP
        elif len(row.tokens) >= request.max_tokens:
            row.text, row.finish = text, LENGTH
        else:
            row.text = text[: _whole(text, request.stop)]
        new, row.shown = row.text[row.shown :], max(row.shown, len(row.text))
        return Chunk(row.choice, new)

    async def aclose(self) -> None:
        """Finish what runs and let go of the thread."""
        self._closed = True
        await asyncio.to_thread(self._worker.shutdown)


class _Row:
    """A choice while it is decoded; ``shown`` characters of its text were handed out."""

    def __init__(self, choice: int) -> None:
        self.choice = choice
        self.tokens: list[int] = []
        self.logprobs: list[float] = []
        self.text = ""
        self.shown = 0
        self.finish: str | None = None


def _whole(text: str, stops: Sequence[str]) -> int:
    """Length of the text that can be shown: whole characters that cannot begin a stop text."""
    end = len(text.rstrip("\ufffd"))
    for stop in stops:
        begun = (len(text) - k for k in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:k]))
        end = min(end, next(begun, end))
    return end
