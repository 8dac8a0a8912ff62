"""Steers in ``model.generate`` of Hugging Face's transformers, batched and left-padded.

    steering = steered(model, tokenizer, answered(), max_tokens=256)
    output = model.generate(**tokenizer(prompts, padding=True, return_tensors="pt"), **steering.kwargs)
    steering.status, steering.length

With the same seed and weights a steer decides as it does in the engines of this package: each row draws here from its
own stream of random numbers, and ``generate`` takes the token that was drawn.
"""

from __future__ import annotations

import secrets
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from budgeteer.core.errors import InvalidInput, MissingExtra
from budgeteer.core.plan import CUT, ENDED, F64, I64, RUNNING
from budgeteer.core.steer import Internals, Mask, Need, Rows, Steer, require_offered
from budgeteer.engine.decoder import streams
from budgeteer.engine.steering import Steering, Ticket
from budgeteer.engine.table import Marks, Table, marks_of_text
from budgeteer.models.inside import ends_of, internals, positions_of

try:
    from transformers import LogitsProcessor, LogitsProcessorList, StoppingCriteria, StoppingCriteriaList
except ImportError as error:
    raise MissingExtra("transformers", "hf") from error

OFFERED = frozenset(Need)
"""What a steer may need here: everything."""


class Part(NamedTuple):
    """The rows of one call of ``generate``, as a part of all rows that a steer knows.

    Attributes:
        rows: all n rows.
        group: [n] for :attr:`budgeteer.core.steer.Snapshot.group`.
        first: number of the call's first row among them.
    """

    rows: Rows
    group: I64
    first: int


def steered(
    model: Any,
    tokenizer: Any,
    steer: Steer,
    *,
    max_tokens: int,
    temperature: float = 1.0,
    seed: int | None = None,
    close: str = "</think>",
    answer: str = "",
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
        answer: regular expression of a complete answer, such as ``</answer>``; ``""`` = a line is one.

    Raises:
        InvalidInput: the steer needs what ``generate`` does not offer, a cap below 1, or no regular expression.
    """
    require_offered(steer, OFFERED, "generate")
    if max_tokens < 1 or not 0 <= temperature < float("inf"):
        raise InvalidInput(f"max_tokens={max_tokens}, temperature={temperature}; give at least 1, and 0 or more")
    ends = ends_of(model)
    inside = internals(model, tokenizer, ends)
    marks = marks_of_text(inside, sorted(ends), close, (), answer)
    return Steered(model, steer, inside, marks, caps=np.array([max_tokens]), temperature=temperature, seed=seed)


class Steered:
    """A steer in one call of ``generate``.

    Args:
        model: a causal language model.
        steer: ends rows, forces tokens or changes logits.
        inside: what the steer is told about the model.
        marks: what tokens mean for a row.
        caps: cap of new tokens, [1] or one for each row.
        temperature: of the draws.
        seed: of the random streams; None = a random seed.
        budget: no more than this many tokens in all; rows that still run then are CUT. None = no limit.
        part: the call's rows among those that the steer knows; None = they are all.

    Attributes:
        kwargs: keyword arguments for ``generate``. Other stopping criteria, or logits processors to run before the
            steer, may be added to the lists in it.
    """

    def __init__(
        self,
        model: Any,
        steer: Steer,
        inside: Internals,
        marks: Marks,
        *,
        caps: I64,
        temperature: float,
        seed: int | None,
        budget: int | None = None,
        part: Part | None = None,
    ) -> None:
        self.steer, self.caps, self.temperature = steer, caps, temperature
        self.seed = secrets.randbits(63) if seed is None else seed % 2**64
        self._model, self._inside, self._marks = model, inside, marks
        self._budget, self._part = budget, part
        pad = model.generation_config.pad_token_id
        self._padding = pad if pad is not None else max(inside.eos, 0)
        self._begun: tuple[Steering, Ticket] | None = None
        self._over = False
        self._hidden: Tensor | None = None
        self._fed: tuple[Mask, Tensor] | None = None
        self._handles = self._watch()
        self.kwargs: dict[str, Any] = {
            "logits_processor": LogitsProcessorList([_Processor(self)]),
            "stopping_criteria": StoppingCriteriaList([_Criteria(self)]),
            "max_new_tokens": int(caps.max()),
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
    def table(self) -> Table:
        """What is known of each row: its tokens, marks and log-probabilities."""
        return self._rows()[0].table

    @property
    def weight(self) -> F64:
        """[rows] importance weight of each row, 1 unless the steer kept it by chance."""
        steering, ticket = self._rows()
        if self.steer.kept_weight is None:
            return np.ones(len(steering.table.length))
        return self.steer.kept_weight(ticket.group.state)[steering.place]

    @property
    def length(self) -> I64:
        """[rows] number of new tokens of each row; what ``generate`` returns after them is padding."""
        return self.table.length

    @property
    def status(self) -> NDArray[np.int8]:
        """[rows] how each row stands or ended, a :class:`budgeteer.core.plan.Status`."""
        return self.table.status

    @property
    def forced(self) -> Mask:
        """[rows, max_tokens] which tokens the steer forced, instead of a draw."""
        return self.table.forced

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
        self._spend(table)
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
        rows, width = len(prompts), int(self.caps.max())
        caps, every = np.broadcast_to(self.caps, rows).copy(), np.arange(rows)
        part = self._part
        if part is None:
            group = np.unique(prompts, axis=0, return_inverse=True)[1].reshape(-1)
            part = Part(Rows(tuple(map(str, range(rows))), caps.copy(), self.seed), group, 0)
        table = Table(rows, width, [self._marks], self._inside.pieces)
        table.reset(every, caps, self.temperature)
        numbers = streams(self.seed, part.first + rows, positions_of(self._model, width), width)
        table.uniform = numbers[part.first :]
        steering = Steering(table, self._inside, False)
        ticket = steering.join(self.steer, part.rows, part.group)
        steering.start(ticket, part.first, every)
        self._begun = steering, ticket
        steering.before(every)
        self._spend(table)
        self._raise(steering)
        return self._begun

    def _spend(self, table: Table) -> None:
        """Cut all running rows if the budget does not pay one more token for each."""
        running = table.status == RUNNING
        if self._budget is not None and int(table.length.sum() + running.sum()) > self._budget:
            table.status[running] = CUT

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
