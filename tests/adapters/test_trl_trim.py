"""An update without the padding of its batch: the same numbers and gradients, from fewer columns."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("trl")

from trl import GRPOTrainer  # noqa: E402

from budgeteer.adapters.trl import BudgetedGRPOTrainer  # noqa: E402
from budgeteer.adapters.trl.trim import trimmed  # noqa: E402
from helpers.trl_tiny import config, tiny, trained, weights  # noqa: E402

LENGTHS = [(3, 6), (5, 1), (2, 0), (4, 3), (1, 2)]
"""Tokens of the prompt, and of the completion, of each row; the third only fills a batch up."""
PROMPT, WIDTH = 7, 9
"""Columns: a prompt and a completion that are longer than any."""


@pytest.fixture(scope="module")
def trainer(tmp_path_factory):
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("tiny")
    return trained(tiny(folder), config(folder), recipe="duet", budget="1m")


@pytest.fixture
def batch():
    ids = torch.randint(3, 40, (len(LENGTHS), PROMPT + WIDTH), generator=torch.Generator().manual_seed(0))
    column = torch.arange(PROMPT + WIDTH) - PROMPT
    mask = torch.stack([(column >= -before) & (column < behind) for before, behind in LENGTHS]).long()
    return ids * mask, mask


def read(trainer, batch, **more):
    """Log-probabilities and entropies of the completions' tokens, and the gradient of a sum of them."""
    model = trainer.accelerator.unwrap_model(trainer.model)
    model.zero_grad()
    within = batch[1][:, PROMPT:].bool()
    logprob, entropy, _ = trainer._get_per_token_logps_and_entropies(model, *batch, WIDTH, compute_entropy=True, **more)
    assert logprob.shape == entropy.shape == within.shape
    (logprob * torch.arange(WIDTH))[within].sum().backward()
    return logprob.detach()[within], entropy.detach()[within], torch.cat([p.grad.flatten() for p in model.parameters()])


@pytest.mark.parametrize("rows", [None, 1, 2, 5])
def test_numbers_and_gradients_are_those_of_whole_batches(trainer, batch, rows, monkeypatch) -> None:
    trainer.trims = False
    wanted = read(trainer, batch)
    trainer.trims = True
    monkeypatch.setattr(type(trainer), "rows_of_pass", rows)
    for got, want in zip(read(trainer, batch), wanted, strict=True):
        assert (got - want).abs().max() < 1e-5 * max(1.0, float(want.abs().max()))


def columns_read(batch, size, width=WIDTH):
    seen = []

    def alone(ids, mask, kept):
        seen.append((len(ids), ids.shape[1], kept))
        assert ids.shape == mask.shape
        return torch.ones(len(ids), kept), None, torch.tensor(float(len(ids)))

    made = trimmed(alone, *batch, width, size)
    return seen, made


def test_a_pass_has_the_columns_that_its_rows_use(batch) -> None:
    seen, (logprob, entropy, routers) = columns_read(batch, None)
    assert seen == [(5, 5 + 6, 6)]
    assert entropy is None
    assert logprob.sum(1).tolist() == [6.0] * 5
    assert routers == 5
    seen, (logprob, _, routers) = columns_read(batch, 2)
    # by length of the completion: the rows of 0 and 1 token, those of 2 and 3, that of 6
    assert seen == [(2, 5 + 1, 1), (2, 4 + 3, 3), (1, 3 + 6, 6)]
    assert logprob.sum(1).tolist() == [6.0, 1.0, 1.0, 3.0, 3.0]
    assert routers == pytest.approx(5 / 3)


def test_rows_without_a_token_keep_a_column_of_each(batch) -> None:
    nothing = batch[0], torch.zeros_like(batch[1])
    seen, _ = columns_read(nothing, None)
    assert seen == [(5, PROMPT + 1 - (PROMPT - 1), 1)]


def test_images_are_left_as_they_are(trainer, batch, monkeypatch) -> None:
    seen = []
    monkeypatch.setattr(GRPOTrainer, "_get_per_token_logps_and_entropies", lambda self, *a, **more: seen.append(a))
    more = {"pixel_values": torch.zeros(1), "compute_entropy": True}
    trainer._get_per_token_logps_and_entropies(trainer.model, *batch, WIDTH, 2, **more)
    assert [tuple(each.shape) for each in seen[0][1:3]] == [(5, PROMPT + WIDTH)] * 2
    assert seen[0][3:] == (WIDTH, 2)


def test_a_budgets_rollouts_are_learnt_from_without_their_padding(tmp_path, monkeypatch) -> None:
    """Only ``grpo`` without a budget reads as TRL does; else the weights are the same up to rounding."""
    count = SimpleNamespace(columns=0)
    whole = GRPOTrainer._get_per_token_logps_and_entropies

    def counted(self, model, ids, *args, **more):
        count.columns += ids.numel()
        return whole(self, model, ids, *args, **more)

    monkeypatch.setattr(GRPOTrainer, "_get_per_token_logps_and_entropies", counted)

    class Padded(BudgetedGRPOTrainer):
        trims = property(lambda self: False, lambda self, value: None)

    folder, made = tiny(tmp_path), {}
    for kind in (Padded, BudgetedGRPOTrainer):
        count.columns = 0
        args = config(tmp_path, steps_per_generation=4, gradient_accumulation_steps=1)
        made[kind] = weights(trained(folder, args, kind=kind, budget="1m")), count.columns
    (padded, all_columns), (got, columns) = made.values()
    assert torch.allclose(got, padded, atol=2e-3)
    assert columns < all_columns
