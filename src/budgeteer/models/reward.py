"""Reward models: how good an answer, or each step of it, is: classifiers of Hugging Face, or an endpoint."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from budgeteer.core.errors import CheckpointError, InvalidInput, MissingExtra
from budgeteer.core.urls import check_http, without_password

Rewards = Callable[[str, Sequence[Sequence[str]]], Awaitable[list[list[float] | None]]]
"""(question, steps of each trace) -> the reward of each step, in the same shape; None for a trace that got none."""


def rewards_of(model: str, *, steps: bool, separator: str) -> Rewards:
    """The reward model that a text names: ``hf:FOLDER`` or ``http://HOST:PORT#NAME``.

    Args:
        model: where it is.
        steps: whether it rates each step (a process reward model), or a whole answer.
        separator: what it was trained to see behind each step.

    Raises:
        InvalidInput: the text has neither form.
        MissingExtra, CheckpointError: it cannot be loaded.
    """
    if model.startswith(("http://", "https://")):
        url, _, name = model.partition("#")
        if not name:
            raise InvalidInput(
                f"{without_password(model)!r} does not say which model of the endpoint; give ADDRESS#NAME"
            )
        return EndpointRewards(url, name, separator=separator, steps=steps)
    if not model.startswith("hf:") or model == "hf:":
        raise InvalidInput(f"the reward model is {model!r}; give hf:FOLDER, or http://HOST:PORT#NAME")
    return ClassifierRewards(model.removeprefix("hf:"), separator=separator, steps=steps)


class ClassifierRewards:
    """A classifier of Hugging Face: of tokens (a process reward model, as TRL trains them) or of whole answers.

    A token classifier reads the question and the steps, each followed by the separator; the reward of a step is the
    chance of the last label at the last token of its separator. A classifier of sequences reads question and answer
    as a chat if its tokenizer has a chat template, else one behind the other; the reward is the chance of the last
    label. With a single label the chance is its logistic function.

    Models with code of their own (``trust_remote_code``) are not loaded: serve them, and give the address.

    Args:
        name: a folder, or a name that transformers loads.
        separator: behind the question and behind each step.
        steps: whether it is a token classifier.
    """

    def __init__(self, name: str, *, separator: str = "\n", steps: bool = True) -> None:
        try:
            import transformers
        except ImportError as error:
            raise MissingExtra("transformers", "hf") from error
        self.separator, self.steps = separator, steps
        kind: Any = (
            transformers.AutoModelForTokenClassification if steps else transformers.AutoModelForSequenceClassification
        )
        try:
            self.tokenizer: Any = transformers.AutoTokenizer.from_pretrained(name)
            self.model: Any = kind.from_pretrained(name).eval()
        except (OSError, ValueError) as error:
            raise CheckpointError(f"cannot load {name!r} as a reward model: {str(error).splitlines()[0]}") from error
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="rewards")

    async def __call__(self, question: str, traces: Sequence[Sequence[str]]) -> list[list[float] | None]:
        """The rewards, computed in a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._worker, self._rate, question, traces)

    def _rate(self, question: str, traces: Sequence[Sequence[str]]) -> list[list[float] | None]:
        import torch

        rated: list[list[float] | None] = []
        for steps in traces:  # one by one: padding changes what some models say
            ids, ends = self._encoded(question, steps)
            with torch.no_grad():
                logits = self.model(torch.tensor([ids])).logits[0].double()
            logits = logits if self.steps else logits[None]
            chance = torch.sigmoid(logits[:, 0]) if logits.shape[1] == 1 else torch.softmax(logits, -1)[:, -1]
            rated.append([float(chance[end]) for end in ends])
        return rated

    def _encoded(self, question: str, steps: Sequence[str]) -> tuple[list[int], list[int]]:
        """Token ids, and the positions that hold the rewards."""
        tokenizer = self.tokenizer
        if not self.steps:
            answer = self.separator.join(steps)
            if tokenizer.chat_template:
                chat = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
                text = tokenizer.apply_chat_template(chat, tokenize=False)
                return tokenizer(text, add_special_tokens=False)["input_ids"], [0]
            return tokenizer(f"{question}{self.separator}{answer}")["input_ids"], [0]

        def plain(text: str) -> list[int]:
            return list(tokenizer(text, add_special_tokens=False)["input_ids"])

        between = plain(self.separator)
        if not between:
            raise InvalidInput(f"the separator {self.separator!r} has no token in this model's vocabulary")
        ids = [*([tokenizer.bos_token_id] if tokenizer.bos_token_id is not None else []), *plain(question), *between]
        ends = []
        for step in steps:
            ids += plain(step) + between
            ends.append(len(ids) - 1)
        return ids, ends


class EndpointRewards:
    """A reward model behind vLLM's ``/pooling``, which is sent a chat: the question, and the steps as its answer.

    A process reward model has to answer with one row a step (a step pooler, as vLLM has for Qwen2.5-Math-PRM), any
    other one with one row; the last number of a row is the reward. A call that fails gives no reward: the first one
    is said in a warning, and the strategy goes on without.

    Args:
        url: address of the server, with or without ``/v1``.
        name: of the model there.
        separator: behind each step.
        steps: whether there is a row a step.
        timeout: seconds of one call.
    """

    def __init__(
        self, url: str, name: str, *, separator: str = "<extra_0>", steps: bool = True, timeout: float = 60.0
    ) -> None:
        try:
            import httpx2
        except ImportError as error:
            raise MissingExtra("httpx2", "openai") from error
        check_http(url, f"the reward model {name!r}")
        self.url, self.name, self.separator, self.steps = url.rstrip("/").removesuffix("/v1"), name, separator, steps
        self.timeout, self._http, self._warned = timeout, httpx2, False

    async def __call__(self, question: str, traces: Sequence[Sequence[str]]) -> list[list[float] | None]:
        """The rewards, one call a trace."""
        async with self._http.AsyncClient(timeout=self.timeout) as client:
            return list(await asyncio.gather(*(self._rewards(client, question, steps) for steps in traces)))

    async def _rewards(self, client: Any, question: str, steps: Sequence[str]) -> list[float] | None:
        answer = "".join(step + self.separator for step in steps) if self.steps else self.separator.join(steps)
        chat = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        try:
            response = await client.post(f"{self.url}/pooling", json={"model": self.name, "messages": chat})
            response.raise_for_status()
            rows = response.json()["data"][0]["data"]
            rewards = [float(row[-1] if isinstance(row, list) else row) for row in rows]
            if self.steps and len(rewards) != len(steps):
                raise ValueError(f"{len(rewards)} rows for {len(steps)} steps; serve it with a step pooler")
            return rewards if self.steps else rewards[-1:]
        except (self._http.HTTPError, KeyError, IndexError, TypeError, ValueError) as error:
            if not self._warned:
                self._warned = True
                said = f"the reward model at {without_password(self.url)} gave no reward: {error!r}"
                warnings.warn(said[:300], stacklevel=2)
            return None
