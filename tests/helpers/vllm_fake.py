"""The parts of vLLM that TRL calls, with a small model of transformers behind them: no engine, and no GPU.

``installed(monkeypatch)`` puts them where ``trl.generation.vllm_generation`` has vLLM's own, so that TRL's
``VLLMGeneration`` runs as it is. The server's part is TRL's own ``VLLMClient`` down to what it posts.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any, ClassVar

import torch
import transformers
from trl.generation import vllm_client, vllm_generation


class Engine:
    """A causal model that answers requests as vLLM does.

    Attributes:
        asked: (prompt, max_tokens) of all requests.
        calls: number of requests of each call.
        given: tokens that were generated.
        updates: how often the weights came.
        more: tokens that it generates beyond those asked for.
        context: most tokens of prompt and completion.
    """

    more, context = 0, 256

    def __init__(self, folder: str) -> None:
        self.model: Any = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        self.model.train(False)
        ends = self.model.generation_config.eos_token_id
        self.ends = ends if isinstance(ends, list) else [ends]
        self.random = torch.Generator().manual_seed(0)
        self.asked: list[tuple[list[int], int]] = []
        self.calls: list[int] = []
        self.given, self.updates = 0, 0

    def load(self, weights: Iterator[tuple[str, torch.Tensor]]) -> None:
        """Take new weights."""
        own = dict(self.model.named_parameters())
        with torch.no_grad():
            for name, tensor in weights:
                own[name].copy_(tensor)

    @torch.no_grad()
    def answer(
        self, prompt: list[int], max_tokens: int, temperature: float, top: int
    ) -> tuple[list[int], list[dict[int, float]]]:
        """Tokens, and the log-probabilities of each one and of the ``top`` most probable ones in its place."""
        if len(prompt) + max_tokens > self.context:  # as vLLM does, with a code of 400 on a server
            raise ValueError(f"{len(prompt)} tokens and max_tokens={max_tokens}: max_model_len={self.context}")
        self.asked.append((list(prompt), max_tokens))
        tokens: list[int] = []
        told = []
        for _ in range(max_tokens + self.more):
            logprobs = (self.model(torch.tensor([prompt + tokens])).logits[0, -1] / temperature).log_softmax(-1)
            token = int(torch.multinomial(logprobs.exp(), 1, generator=self.random))
            best = [token, *logprobs.topk(top).indices.tolist()] if top else [token]
            told.append({each: float(logprobs[each]) for each in best})
            tokens.append(token)
            if token in self.ends:
                break
        self.given += len(tokens)
        return tokens, told


class SamplingParams(SimpleNamespace):
    """``vllm.SamplingParams``."""

    def clone(self) -> SamplingParams:
        """A copy."""
        return copy.deepcopy(self)


class LLM:
    """``vllm.LLM`` as TRL makes and uses it."""

    made: ClassVar[list[LLM]] = []

    def __init__(self, model: str, **settings: Any) -> None:
        self.engine, self.settings = Engine(model), settings
        loader = SimpleNamespace(load_weights=self._load)
        runner = SimpleNamespace(model_runner=SimpleNamespace(model=loader))
        self.engine.context = settings.get("max_model_len") or Engine.context
        config = SimpleNamespace(max_model_len=self.engine.context)
        executor = SimpleNamespace(driver_worker=runner)
        self.llm_engine = SimpleNamespace(model_executor=executor, model_config=config)
        LLM.made.append(self)

    def _load(self, weights: list[tuple[str, torch.Tensor]]) -> None:
        self.engine.load(iter(weights))

    def reset_prefix_cache(self) -> None:
        """TRL calls it when all weights have come."""
        self.engine.updates += 1

    def generate(
        self, prompts: Sequence[dict[str, Any]], sampling_params: Any = None, *, use_tqdm: bool = True
    ) -> list[Any]:
        """One output a prompt; ``sampling_params`` are of all, or one of each."""
        several = isinstance(sampling_params, Sequence)
        params = list(sampling_params) if several else [sampling_params] * len(prompts)
        assert len(params) == len(prompts)
        self.engine.calls.append(len(prompts))
        made = []
        for prompt, own in zip(prompts, params, strict=True):
            assert own.n == 1
            ids = prompt["prompt_token_ids"]
            tokens, told = self.engine.answer(ids, own.max_tokens, own.temperature, own.logprobs)
            order = [sorted(each, key=lambda token: -each[token]) for each in told]
            logprobs = [
                {token: SimpleNamespace(logprob=each[token], rank=rank) for rank, token in enumerate(tokens_of, 1)}
                for each, tokens_of in zip(told, order, strict=True)
            ]
            made.append(
                SimpleNamespace(
                    prompt_token_ids=ids, outputs=[SimpleNamespace(token_ids=tuple(tokens), logprobs=logprobs)]
                )
            )
        return made


class Client(vllm_client.VLLMClient):  # type: ignore[misc, unused-ignore]
    """TRL's client, whose server is in this process."""

    made: ClassVar[list[Client]] = []
    folder = ""

    def check_server(self, total_timeout: float = 0.0, retry_interval: float = 2.0) -> None:
        self.engine = Engine(self.folder)
        Client.made.append(self)

    def init_communicator(self, device: Any = 0) -> None:
        """Weights go from hand to hand."""

    def update_named_params(self, metadata: Any, params: Iterator[tuple[str, torch.Tensor]]) -> None:
        self.engine.load((name, tensor) for (name, _, _), (_, tensor) in zip(metadata, params, strict=True))

    def reset_prefix_cache(self) -> None:
        self.engine.updates += 1

    def get_server_info(self) -> dict[str, Any]:
        return {"model_config": {"logprobs_mode": "processed_logprobs", "max_model_len": self.engine.context}}

    def _get(self, url: str, **more: Any) -> dict[str, Any]:
        assert url.endswith("/v1/models")
        return {"data": [{"id": "tiny"}]}

    def _post(self, url: str, **more: Any) -> dict[str, Any]:
        assert url.endswith("/v1/completions")
        body = more["json"]
        assert body["n"] == 1
        self.engine.calls.append(len(body["prompt"]))
        choices = []
        for prompt in body["prompt"]:
            tokens, told = self.engine.answer(prompt, body["max_tokens"], body["temperature"], body["logprobs"])
            logprobs = {
                "tokens": [f"token_id:{token}" for token in tokens],
                "token_logprobs": [each[token] for token, each in zip(tokens, told, strict=True)],
                "top_logprobs": [{f"token_id:{token}": value for token, value in each.items()} for each in told],
            }
            choices.append({"prompt_token_ids": prompt, "token_ids": tokens, "logprobs": logprobs})
        return {"choices": choices}


def installed(monkeypatch: Any, folder: Any) -> None:
    """Let TRL find these in the place of vLLM."""
    LLM.made, Client.made, Client.folder = [], [], str(folder)
    for module in (vllm_generation, vllm_client):
        monkeypatch.setattr(module, "is_vllm_available", lambda *args, **more: True)
    monkeypatch.setattr(vllm_generation, "VLLMClient", Client)
    monkeypatch.setattr(vllm_generation, "LLM", LLM, raising=False)
    monkeypatch.setattr(vllm_generation, "SamplingParams", SamplingParams, raising=False)
