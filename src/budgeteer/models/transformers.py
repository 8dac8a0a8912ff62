"""A causal language model of Hugging Face's transformers as a Model.

The choices of a request are one batch: its prompt is read once and its cache is shared out. Requests run one after the
other in a thread of their own, so that what else is asked changes no answer; for many questions at a time the reasoner
and llama.cpp are the faster engines.
"""

from __future__ import annotations

import asyncio
import secrets
import threading
from collections.abc import AsyncGenerator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from budgeteer.errors import CheckpointError, InvalidInput, MissingExtra, ModelError
from budgeteer.models.decoder import draw
from budgeteer.models.model import (
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
from budgeteer.usage import Usage

try:
    import transformers
except ImportError as error:
    raise MissingExtra("transformers", "hf") from error


class Transformers:
    """A model and its tokenizer from a folder or by name. Messages need a chat template in the tokenizer.

    Log-probabilities are the model's own: at temperature 1, whatever the request's. A stream that is closed, or a call
    that is cancelled, stops at the next token.

    Args:
        path: a folder, or a name that transformers can resolve.
        device: such as ``"cpu"`` or ``"cuda"``.
        name: for reports and prices; None = the last part of the path.

    Raises:
        CheckpointError: it cannot be loaded.
    """

    capabilities = frozenset({PREFIX, LOGPROBS, SEED})

    def __init__(self, path: str | Path, *, device: str = "cpu", name: str | None = None) -> None:
        try:
            self.tokenizer = transformers.AutoTokenizer.from_pretrained(path)
            model: Any = transformers.AutoModelForCausalLM.from_pretrained(path, dtype="auto")
        except Exception as error:  # transformers raises whatever its parts raise
            raise CheckpointError(f"transformers cannot load {path}: {error}") from error
        self.model = model.eval().to(device)
        self.name = name or Path(path).name
        ends = self.model.generation_config.eos_token_id
        self._ends = frozenset(ends if isinstance(ends, list) else [] if ends is None else [ends])
        self.context = getattr(self.model.config, "max_position_embeddings", None)
        self._worker = ThreadPoolExecutor(1, thread_name_prefix=f"{self.name}-decode")
        self._encoded = lru_cache(4096)(self._encode)
        self._closed = False

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

    async def generate(self, request: Request) -> Response:
        """All choices of a request.

        Raises:
            InvalidInput: a hook, messages without a chat template, or a sequence beyond the model's positions.
            ModelError: the model was closed, or decoding failed.
        """
        return await last(self.stream(request))

    async def stream(self, request: Request) -> AsyncGenerator[Chunk | Response, None]:
        """A Chunk for every token of every choice, then the Response.

        A token whose text is not whole, or may begin a stop text, has an empty Chunk; its text comes with a later one.
        """
        if self._closed:
            raise ModelError(f"{self.name} is closed; make a new one", billed=False)
        if request.hook is not None:
            raise InvalidInput(f"{self.name} runs no hooks; choose a strategy that needs no internals")
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
        device = self.model.device
        rows = [_Row(i) for i in range(n)]
        live = list(rows)
        fed, cache = torch.tensor([prompt], device=device), None
        while live and not gone.is_set():
            out = self.model(input_ids=fed, past_key_values=cache, use_cache=True, logits_to_keep=1)
            cache, logits = out.past_key_values, out.logits[:, -1].float().cpu()
            if len(live[0].tokens) == 0:  # after the prompt: one copy for each choice
                logits = logits.expand(len(live), -1)
                cache.batch_repeat_interleave(len(live))
            logits = logits.contiguous()
            at = np.array([row.choice for row in live])
            if request.temperature == 0:
                token = logits.argmax(1).numpy()
            else:
                token, _, _ = draw(logits, request.temperature, uniform[at, len(live[0].tokens)].copy(), False)
            logp = F.log_softmax(logits, -1).gather(1, torch.from_numpy(token)[:, None])[:, 0].tolist()
            chunks, stays = [], []
            for k, row in enumerate(live):
                row.tokens.append(int(token[k]))
                row.logprobs.append(logp[k])
                chunks.append(self._advance(request, row))
                if row.finish is None:
                    stays.append(k)
            tell(chunks)
            if not stays:
                break
            if len(stays) < len(live):
                cache.batch_select_indices(torch.tensor(stays, device=device))
                live = [live[k] for k in stays]
            fed = torch.tensor([[row.tokens[-1]] for row in live], device=device)
        if not gone.is_set():
            choices = tuple(
                Choice(r.text, len(r.tokens), r.finish or LENGTH, tuple(r.logprobs) if request.logprobs else None)
                for r in rows
            )
            used = Usage(input=len(prompt), output=sum(len(row.tokens) for row in rows))
            tell(Response(choices, used))

    def _advance(self, request: Request, row: _Row) -> Chunk:
        """What is new of a row after its last token, and whether it is at its end."""
        ended = row.tokens[-1] in self._ends
        text = str(self.tokenizer.decode(row.tokens[:-1] if ended else row.tokens, skip_special_tokens=False))
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
