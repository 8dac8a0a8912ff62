"""Requests to vLLM's own server, for the rollouts of an asynchronous trainer."""

from __future__ import annotations

import http.client
import json
import math
import secrets
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from budgeteer.core.errors import ModelError

BUSY = frozenset({429, 500, 502, 503, 504})
"""Codes of HTTP after which a request is sent again."""


class _Gone(Exception):
    """The server gave no answer, and may give one later."""


class Completed(NamedTuple):
    """What a request gave.

    Attributes:
        tokens: ids, the end of the sequence included.
        logprobs: of each under the distribution that it was drawn from.
        margins: p(1st) - p(2nd) of each of these distributions; NaN where nobody told.
        ended: whether the sequence has ended, be it by a token that the worker does not know as its end.
    """

    tokens: list[int]
    logprobs: list[float]
    margins: list[float]
    ended: bool


class VLLMServer:
    """Requests to ``vllm serve --logprobs-mode processed_logprobs``, as TRL's own worker makes them.

    Args:
        url: of the server.
        model: its name there.
        temperature: of the draws.
        timeout: seconds that a request may take.
        patience: seconds for which a request is sent again when the connection fails or the server answers that it is
            not able to just now. The tokens of an answer that was lost on its way are in no count.
    """

    def __init__(
        self, url: str, model: str, temperature: float = 1.0, timeout: float = 600.0, patience: float = 120.0
    ) -> None:
        self.url, self.model, self.temperature = url.rstrip("/"), model, temperature
        self.timeout, self.patience = timeout, patience

    def context(self) -> int | None:
        """Most tokens of a request, prompt and completion together; None = the server does not say.

        Raises:
            ModelError: as of a request.
        """
        models = self._patiently(lambda: self._answered("models", None)["data"])
        return next((each.get("max_model_len") for each in models if each["id"] == self.model), None)

    def __call__(self, prompt: Sequence[int], most: int) -> Completed:
        """At most ``most`` tokens behind the prompt.

        Raises:
            ModelError: the server refused the request, with what it said, or it was gone for longer than the patience.
        """
        body = {
            "model": self.model, "prompt": list(prompt), "max_tokens": most, "temperature": self.temperature, "n": 1,
            "top_p": 1.0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0, "logprobs": 2, "return_token_ids": True,
            "return_tokens_as_token_ids": True,
            # as in TRL: engines of a data-parallel server would otherwise draw alike
            "seed": secrets.randbits(63),
        }  # fmt: skip
        (choice,) = self._patiently(lambda: self._answered("completions", json.dumps(body).encode())["choices"])
        told = choice["logprobs"]
        tops = [sorted((math.exp(value) for value in top.values()), reverse=True) for top in told["top_logprobs"]]
        margins = [top[0] - top[1] if len(top) > 1 else math.nan for top in tops]
        return Completed(choice["token_ids"], told["token_logprobs"], margins, choice["finish_reason"] == "stop")

    def _patiently(self, ask: Callable[[], Any]) -> Any:
        """What ``ask`` gives once the server answers.

        Raises:
            ModelError: it did not for longer than the patience.
        """
        begin, pause = time.monotonic(), 1.0
        while True:
            try:
                return ask()
            except _Gone as gone:
                if time.monotonic() - begin + pause > self.patience:
                    raise ModelError(
                        f"{gone}, for {time.monotonic() - begin:.0f} s; start the server again and resume the training "
                        "from its last checkpoint: a new server has the weights that it was started with",
                        billed=False,
                    ) from gone
            time.sleep(pause)
            pause = min(2 * pause, 16.0)

    def _answered(self, path: str, body: bytes | None) -> Any:
        """An answer of the server.

        Raises:
            ModelError: the server refused the request.
            _Gone: another try may help.
        """
        request = urllib.request.Request(f"{self.url}/v1/{path}", body, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=self.timeout) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            said = f"{self.url} answered {error.code} {error.reason}: {error.read(500).decode(errors='replace')}"
            if error.code in BUSY:
                raise _Gone(said) from error
            raise ModelError(said, billed=False) from error
        except TimeoutError as error:
            raise ModelError(
                f"{self.url} gave no answer in {self.timeout:.0f} s; raise timeout, or look whether the server hangs",
                billed=False,
            ) from error
        except (OSError, http.client.HTTPException, json.JSONDecodeError) as error:  # refused, reset, cut short
            raise _Gone(f"{self.url} gave no answer ({error or type(error).__name__})") from error
