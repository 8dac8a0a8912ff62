"""Steers in ``model.generate`` of Hugging Face's transformers, batched and left-padded.

    steering = steered(model, tokenizer, answered(), max_tokens=256)
    output = model.generate(**tokenizer(prompts, padding=True, return_tensors="pt"), **steering.kwargs)
    steering.status, steering.length

With the same seed and weights a steer decides as it does in the engines of this package: each row draws here from its
own stream of random numbers, and ``generate`` takes the token that was drawn.
"""

from __future__ import annotations

import secrets
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from budgeteer.core.errors import InvalidInput, MissingExtra
from budgeteer.core.plan import ENDED, I64, RUNNING
from budgeteer.core.steer import Mask, Need, Rows, Steer, require_offered
from budgeteer.engine.decoder import streams
from budgeteer.engine.steering import Steering, Ticket
from budgeteer.engine.table import Table, marks_of_text
from budgeteer.models.inside import ends_of, internals, positions_of

try:
    from transformers import LogitsProcessor, LogitsProcessorList, StoppingCriteria, StoppingCriteriaList
except ImportError as error:
    raise MissingExtra("transformers", "hf") from error

OFFERED = frozenset(Need)
"""What a steer may need here: everything."""


def steered(
    model: Any,
    tokenizer: Any,
    steer: Steer,
    *,
    max_tokens: int,
    temperature: float = 1.0,
    seed: int | None = None,
    close: str = "</think>",
) -> Steered:
    """Prepare one call of ``model.generate`` in which a steer decides about the rows.

    Args:
        model: a causal language model.
        tokenizer: the model's.
        steer: ends rows, forces tokens or changes logits.
        max_tokens: cap of new tokens for each row, >= 1.
        temperature: of the draws; 0 is greedy. Other ways to choose a token (``top_p``, beams) are not offered: they
            would change what a steer decided.
        seed: row r draws from the random stream (seed, r); None = a random seed.
        close: text that closes the thinking; ``""`` = there is no thinking.

    Raises:
        InvalidInput: the steer needs what ``generate`` does not offer, or a cap below 1.
    """
    require_offered(steer, OFFERED, "generate")
    if max_tokens < 1 or not 0 <= temperature < float("inf"):
        raise InvalidInput(f"max_tokens={max_tokens}, temperature={temperature}; give at least 1, and 0 or more")
    seed = secrets.randbits(63) if seed is None else seed % 2**64
    return Steered(model, tokenizer, steer, max_tokens, temperature, seed, close)


class Steered:
    """A steer in one call of ``generate``.

    Attributes:
        kwargs: keyword arguments for ``generate``. Other stopping criteria, or logits processors to run before the
            steer, may be added to the lists in it.
    """

    def __init__(
        self, model: Any, tokenizer: Any, steer: Steer, max_tokens: int, temperature: float, seed: int, close: str
    ) -> None:
        self.steer, self.max_tokens, self.temperature, self.seed = steer, max_tokens, temperature, seed
        self._model, ends = model, ends_of(model)
        self._inside = internals(model, tokenizer, ends)
        self._marks = marks_of_text(self._inside, sorted(ends), close, ())
        pad = model.generation_config.pad_token_id
        self._padding = pad if pad is not None else max(self._inside.eos, 0)
        self._begun: tuple[Steering, Ticket] | None = None
        self._over = False
        self._hidden: Tensor | None = None
        self._fed: tuple[Mask, Tensor] | None = None
        self._handles = self._watch()
        self.kwargs: dict[str, Any] = {
            "logits_processor": LogitsProcessorList([_Processor(self)]),
            "stopping_criteria": StoppingCriteriaList([_Criteria(self)]),
            "max_new_tokens": max_tokens,
            "pad_token_id": self._padding,
            # several rows a prompt are only allowed with draws; the one token that is left is drawn for certain
            "do_sample": True,
            "temperature": 1.0,
            "top_k": 0,
            "top_p": 1.0,
            "num_beams": 1,
            "suppress_tokens": None,  # the steer sees their logits; they are excluded here afterwards
        }

    @property
    def length(self) -> I64:
        """[rows] number of new tokens of each row; what ``generate`` returns after them is padding."""
        return self._rows()[0].table.length

    @property
    def status(self) -> NDArray[np.int8]:
        """[rows] how each row stands or ended, a :class:`budgeteer.core.plan.Status`."""
        return self._rows()[0].table.status

    @property
    def forced(self) -> Mask:
        """[rows, max_tokens] which tokens the steer forced, instead of a draw."""
        return self._rows()[0].table.forced

    @property
    def notes(self) -> list[Any] | None:
        """What the steer reports about each row; None if it reports nothing."""
        state = self._rows()[1].group.state
        return None if self.steer.report is None else self.steer.report(state)

    def take(self, input_ids: Tensor, scores: Tensor) -> I64:
        """[rows] the next token of every row, padding where a row has ended.

        Args:
            input_ids: [rows, t] tokens so far, prompts included.
            scores: [rows, V] the logits of the next token.
        """
        if self._over:
            raise InvalidInput("all rows of this steering have ended; call steered(...) once for each call of generate")
        steering, _ = self._begun or self._begin(input_ids.cpu().numpy())
        running = np.flatnonzero(steering.table.status == RUNNING)
        token = np.full(len(scores), self._padding)
        if not len(running):  # ended before their first token
            return token
        where = torch.from_numpy(running)
        hidden = None if self._hidden is None else self._hidden[where]
        taken = steering.take(running, scores.detach().float().cpu()[where].contiguous(), hidden)
        self._raise(steering)
        took = running[taken.at]
        token[took] = taken.token
        if taken.embeddings is not None and taken.soft is not None:
            soft, fed = (
                np.zeros(len(scores), np.bool_),
                taken.embeddings.new_zeros(len(scores), taken.embeddings.shape[1]),
            )
            soft[took], fed[torch.from_numpy(took)] = taken.soft, taken.embeddings
            self._fed = soft, fed
        return token

    def ended(self, last: I64) -> Mask:
        """[rows] whether a row has ended, after the tokens ``last`` [rows] that ``generate`` appended."""
        steering, _ = self._rows()
        table = steering.table
        # a row that another stopping criterion ended was given padding instead of its token
        lost = np.flatnonzero((table.status == RUNNING) & (last != table.last))
        table.length[lost] -= 1
        table.status[lost] = ENDED
        steering.before(np.flatnonzero(table.status == RUNNING))
        self._raise(steering)
        over: Mask = table.status != RUNNING
        if over.all():
            self._over = True
            self.close()
        return over

    def close(self) -> None:
        """Remove the hooks from the model. This happens by itself when all rows have ended; call it if ``generate`` was
        interrupted and the steer needs hidden states or embeddings."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _rows(self) -> tuple[Steering, Ticket]:
        if self._begun is None:
            raise InvalidInput("nothing has been generated yet; call model.generate(**inputs, **steering.kwargs)")
        return self._begun

    def _begin(self, prompts: NDArray[Any]) -> tuple[Steering, Ticket]:
        """Make the table of the rows, now that the batch is known; rows of equal prompts are one group."""
        rows = len(prompts)
        table = Table(rows, self.max_tokens, [self._marks], self._inside.pieces)
        every, names = np.arange(rows), tuple(map(str, range(rows)))
        table.reset(every, self.max_tokens, self.temperature)
        table.uniform = streams(self.seed, rows, positions_of(self._model, self.max_tokens), self.max_tokens)
        steering = Steering(table, self._inside, False)
        group = np.unique(prompts, axis=0, return_inverse=True)[1].reshape(-1)
        ticket = steering.join(self.steer, Rows(names, table.cap.copy(), self.seed), group)
        steering.start(ticket, 0, every)
        self._begun = steering, ticket
        steering.before(every)
        self._raise(steering)
        return self._begun

    def _raise(self, steering: Steering) -> None:
        for error, _ in steering.failures:
            self.close()
            raise error

    def _watch(self) -> list[Any]:
        """Hook the forward pass so that it shows hidden states and takes embeddings, as far as the steer needs them;
        returns the handles that remove the hooks."""
        handles = []
        if Need.HIDDEN in self.steer.needs:

            def ask(module: Any, args: Any, kwargs: dict[str, Any]) -> Any:
                return args, {**kwargs, "output_hidden_states": True}

            def keep(module: Any, args: Any, output: Any) -> None:
                self._hidden = torch.stack([state[:, -1].detach().float().cpu() for state in output.hidden_states], 1)

            handles += [
                self._model.register_forward_pre_hook(ask, with_kwargs=True),
                self._model.register_forward_hook(keep),
            ]
        if Need.EMBEDDINGS in self.steer.needs:

            def feed(module: Any, args: Any, output: Tensor) -> Tensor:
                if self._fed is None:
                    return output
                (soft, fed), self._fed = self._fed, None
                where = torch.from_numpy(soft).to(output.device)[:, None, None]
                return torch.where(where, fed[:, None].to(output), output)

            handles.append(self._model.get_input_embeddings().register_forward_hook(feed))
        return handles


class _Processor(LogitsProcessor):
    """Makes the next token of every row the only possible one."""

    def __init__(self, steered: Steered) -> None:
        self.steered = steered

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        token = torch.from_numpy(self.steered.take(input_ids, scores)).to(scores.device)
        return torch.full_like(scores, -torch.inf).scatter(1, token[:, None], 0.0)


class _Criteria(StoppingCriteria):
    """Ends the rows that the steer, their cap or the end of the sequence ended."""

    def __init__(self, steered: Steered) -> None:
        self.steered = steered

    def __call__(self, input_ids: Tensor, scores: Tensor, **kwargs: Any) -> Tensor:
        return torch.from_numpy(self.steered.ended(input_ids[:, -1].cpu().numpy())).to(input_ids.device)
