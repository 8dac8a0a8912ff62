"""The sampler: the same distribution as transformers, rows that do not depend on each other, tokens all counted."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from budgeteer.core.errors import CheckpointError, InvalidInput
from budgeteer.core.plan import ABORTED, CUT, ENDED, FINISHED, RUNNING
from budgeteer.core.steer import ABORT, CONTINUE, FINISH, Need
from budgeteer.engine import llama
from budgeteer.engine.decoder import Decoder
from budgeteer.lab import pool
from budgeteer.models.policy import REASONER, load_policy
from budgeteer.rl.rollouts import Role, Rollouts
from budgeteer.rl.sampler import sample
from budgeteer.steer import answered
from helpers.toys import MARKERS, VOCAB, scripted, toy_model

kernels = pytest.importorskip("budgeteer.engine.kernels")

KEYS = ("a", "b", "c", "d", "e")
PROMPTS = ((0, 5), (0, 7, 8, 9, 10, 11, 12), (0,), (0, 20, 21), (0, 6, 6, 6, 13))
UNITS = np.array([3, 0, 7, 1, 5])


@pytest.fixture(scope="module")
def model():
    return toy_model()


@pytest.fixture(scope="module")
def hf_model(model, tmp_path_factory):
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("toy")
    llama.save(model, folder)
    loaded = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    assert type(loaded).__name__ == "LlamaForCausalLM"
    return loaded.eval()


def draw(model, units=UNITS, *, keys=KEYS, prompts=PROMPTS, max_tokens=20, markers=MARKERS, seed=0, **options):
    return sample(model, keys, prompts, np.asarray(units), max_tokens=max_tokens, markers=markers, seed=seed, **options)


def rows_of(rollouts: Rollouts) -> list[list[int]]:
    return [t[:n].tolist() for t, n in zip(rollouts.tokens, rollouts.length, strict=True)]


def assert_same(a: Rollouts, b: Rollouts) -> None:
    assert rows_of(a) == rows_of(b)
    for name in ("group", "length", "status", "closed", "answered"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)
    np.testing.assert_allclose(a.logprob, b.logprob, atol=2e-4)


def hf_logprobs(hf_model, rollouts: Rollouts, temperature: float) -> list[np.ndarray]:
    found = []
    for group, row in zip(rollouts.group, rows_of(rollouts), strict=True):
        prompt = rollouts.prompts[group]
        with torch.no_grad():
            logits = hf_model(torch.tensor([[*prompt, *row]])).logits[0]
        logp = torch.log_softmax(logits[len(prompt) - 1 : -1].double() / temperature, -1)
        found.append(logp[torch.arange(len(row)), torch.tensor(row)].numpy())
    return found


# -- the distribution -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("compiled", [True, False])
def test_logprobs_are_those_of_transformers(model, hf_model, compiled, temperature):
    rollouts, _ = draw(model, compiled=compiled, temperature=temperature, slots=6)
    assert len(rollouts) == UNITS.sum()
    expected = hf_logprobs(hf_model, rollouts, temperature)
    for got, length, want in zip(rollouts.logprob, rollouts.length, expected, strict=True):
        np.testing.assert_allclose(got[:length], want, atol=1e-4)


def test_a_model_saved_by_transformers_loads_the_same(model, hf_model, tmp_path):
    hf_model.save_pretrained(tmp_path)
    again = llama.load(tmp_path)
    tokens = torch.tensor([[0, 5, 7, 9]])
    with torch.no_grad():
        torch.testing.assert_close(again.logits(again(tokens)), model.logits(model(tokens)))
        torch.testing.assert_close(again.logits(again(tokens)), hf_model(tokens).logits, atol=1e-5, rtol=1e-5)


def test_a_damaged_model_folder_is_refused(model, tmp_path):
    with pytest.raises(CheckpointError, match="cannot read a Llama model"):
        llama.load(tmp_path)
    llama.save(model, tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(CheckpointError, match="cannot read a Llama model"):
        llama.load(tmp_path)
    llama.save(toy_model(layers=1), tmp_path)
    (tmp_path / "config.json").write_text(
        (tmp_path / "config.json").read_text().replace('"num_hidden_layers": 1', '"num_hidden_layers": 2')
    )
    with pytest.raises(CheckpointError, match="do not fit the config"):
        llama.load(tmp_path)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_compiled_kernels_and_torch_draw_the_same_tokens(model, temperature):
    a, _ = draw(model, compiled=True, temperature=temperature)
    b, _ = draw(model, compiled=False, temperature=temperature)
    assert_same(a, b)


@pytest.mark.parametrize("compiled", [True, False])
def test_first_tokens_follow_the_softmax(model, hf_model, compiled):
    n, prompt = 20_000, (0, 7, 8)
    rollouts, _ = draw(model, [n], keys=("a",), prompts=(prompt,), max_tokens=1, slots=n, compiled=compiled)
    with torch.no_grad():
        p = hf_model(torch.tensor([prompt])).logits[0, -1].double().softmax(-1).numpy()
    observed, expected = np.bincount(rollouts.tokens[:, 0], minlength=VOCAB), n * p
    rare = expected < 5
    observed = np.append(observed[~rare], observed[rare].sum())
    expected = np.append(expected[~rare], expected[rare].sum())
    assert len(observed) > 8
    assert scipy.stats.chisquare(observed[expected > 0], expected[expected > 0]).pvalue > 1e-3


def test_second_tokens_follow_the_softmax_given_the_first(model, hf_model):
    n, prompt = 20_000, (0, 7, 8)
    rollouts, _ = draw(model, [n], keys=("a",), prompts=(prompt,), max_tokens=2, slots=n)
    first = int(np.argmax(np.bincount(rollouts.tokens[rollouts.length == 2, 0])))
    second = rollouts.tokens[(rollouts.length == 2) & (rollouts.tokens[:, 0] == first), 1]
    with torch.no_grad():
        p = hf_model(torch.tensor([[*prompt, first]])).logits[0, -1].double().softmax(-1).numpy()
    observed, expected = np.bincount(second, minlength=VOCAB), len(second) * p
    rare = expected < 5
    observed = np.append(observed[~rare], observed[rare].sum())
    expected = np.append(expected[~rare], expected[rare].sum())
    assert scipy.stats.chisquare(observed, expected).pvalue > 1e-3


def test_margin_is_the_gap_of_the_two_largest_probabilities(model, hf_model):
    seen = []
    steer = scripted(lambda e: seen.append((e.row.copy(), e.length.copy(), np.array(e.margin()))))
    for compiled in (True, False):
        seen.clear()
        rollouts, _ = draw(model, [2, 0, 1, 0, 0], max_tokens=5, steer=steer, compiled=compiled)
        assert seen
        for rows, lengths, margins in seen:
            for row, length, margin in zip(rows, lengths, margins, strict=True):
                if not length:
                    assert np.isnan(margin)
                    continue
                context = [*rollouts.prompts[rollouts.group[row]], *rollouts.tokens[row, : length - 1].tolist()]
                with torch.no_grad():
                    p = hf_model(torch.tensor([context])).logits[0, -1].softmax(-1)
                top = p.topk(2).values
                assert margin == pytest.approx(float(top[0] - top[1]), abs=1e-4)


# -- rows are independent of the batch --------------------------------------------------------------------------------


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("slots", [1, 2, 5, 15])
def test_slots_do_not_change_the_rollouts(model, slots, compiled):
    whole, _ = draw(model, compiled=compiled)
    assert_same(draw(model, slots=slots, compiled=compiled)[0], whole)


@pytest.mark.parametrize("compiled", [True, False])
def test_short_prompts_before_long_ones_and_few_slots(model, compiled):
    # the cache is shifted while only short rows run; then the long prompts must still fit before the column
    keys, prompts = ("short", "long"), ((0,), (0, *range(5, 24), *range(5, 24), *range(5, 17)))
    options = {"keys": keys, "prompts": prompts, "max_tokens": 4, "compiled": compiled}
    whole, _ = draw(model, [120, 6], **options)
    assert_same(draw(model, [120, 6], slots=2, **options)[0], whole)


def test_ragged_units_with_zeros_give_rows_in_order(model):
    rollouts, state = draw(model)
    assert state == ()
    assert rollouts.group.tolist() == np.repeat(np.arange(5), UNITS).tolist()
    assert rollouts.counts.tolist() == UNITS.tolist()
    assert rollouts.prefill_tokens == sum(len(p) for p, u in zip(PROMPTS, UNITS, strict=True) if u)
    assert rollouts.used == rollouts.length.sum()
    assert rollouts.length.min() >= 1
    assert np.isnan(rollouts.reward).all()  # until somebody has scored them
    assert np.all(rollouts.weight == 1)
    padding = np.arange(rollouts.tokens.shape[1]) >= rollouts.length[:, None]
    assert not rollouts.tokens[padding].any()
    assert np.isnan(rollouts.logprob[padding]).all()


def test_no_units_at_all_give_no_rows(model):
    rollouts, _ = draw(model, np.zeros(5, np.int64))
    assert len(rollouts) == 0
    assert rollouts.used == 0
    assert rollouts.prefill_tokens == 0
    assert rollouts.counts.tolist() == [0] * 5


def test_the_seed_decides_the_rollouts(model):
    a, b, c = draw(model, seed=3)[0], draw(model, seed=3)[0], draw(model, seed=4)[0]
    assert rows_of(a) == rows_of(b)
    assert np.array_equal(a.logprob, b.logprob, equal_nan=True)
    assert rows_of(a) != rows_of(c)


def test_rows_of_one_prompt_differ(model):
    rollouts, _ = draw(model, [8], keys=("a",), prompts=(PROMPTS[1],))
    assert len({tuple(row) for row in rows_of(rollouts)}) > 4


@pytest.mark.parametrize("slots", [4, 256])
@pytest.mark.parametrize("compiled", [True, False])
def test_stopping_one_row_leaves_the_others_alone(model, compiled, slots):
    whole, _ = draw(model, compiled=compiled)
    victim = int(np.flatnonzero(whole.length > 8)[1])
    steer = scripted(lambda e: np.where((e.row == victim) & (e.length >= 5), ABORT, CONTINUE))
    stopped, _ = draw(model, compiled=compiled, steer=steer, slots=slots)
    for i, (a, b) in enumerate(zip(rows_of(stopped), rows_of(whole), strict=True)):
        assert a == (b[:5] if i == victim else b)
    assert stopped.status[victim] == ABORTED
    assert stopped.length[victim] == 5
    np.testing.assert_array_equal(np.delete(stopped.status, victim), np.delete(whole.status, victim))


def test_a_steer_sees_lengths_and_markers_as_they_are(model):
    whole, _ = draw(model, max_tokens=40)

    def look(now):
        for row, length, closed, complete in zip(now.row, now.length, now.closed, now.answered, strict=True):
            so_far = whole.tokens[row, :length].tolist()
            assert closed == (so_far.index(3) + 1 if 3 in so_far else -1)
            after = [i for i, t in enumerate(so_far) if t in (1, 4) and 0 < closed <= i]
            assert complete == (after[0] + 1 if after else -1)

    draw(model, max_tokens=40, steer=scripted(look), slots=7)
    assert (whole.answered >= 0).any()


def test_the_steer_is_told_keys_and_caps_of_every_row(model):
    seen = []
    draw(model, max_tokens=np.array([4, 5, 6, 7, 8]), seed=9, steer=scripted(lambda e: None, seen=seen))
    (rows,) = seen
    assert rows.keys == tuple(np.repeat(KEYS, UNITS).tolist())
    assert rows.max_tokens.tolist() == np.repeat([4, 5, 6, 7, 8], UNITS).tolist()
    assert rows.seed == 9


def test_a_steer_is_asked_every_so_many_tokens(model):
    lengths = []
    draw(model, [4, 0, 0, 0, 0], steer=scripted(lambda e: lengths.append(int(e.length[0])), every=3), max_tokens=12)
    assert lengths[:3] == [0, 3, 6]


# -- what is computed and counted -------------------------------------------------------------------------------------


@pytest.mark.parametrize("compiled", [True, False])
def test_a_stopped_token_is_a_token_not_computed(model, compiled, monkeypatch):
    computed = []
    original = Decoder.step

    def counted(self, token, *rest):
        computed.append(len(token))
        return original(self, token, *rest)

    monkeypatch.setattr(Decoder, "step", counted)
    units = [40, 0, 40, 0, 0]
    whole, _ = draw(model, units, compiled=compiled)
    full, steps = sum(computed), len(computed)
    # the first token of a row comes from the prefill; at most one slot in eight holds an ended row
    assert whole.used - len(whole) <= full <= (whole.used - len(whole)) * 8 / 7 + steps
    computed.clear()
    steer = scripted(lambda e: np.where(e.length >= 4, ABORT, CONTINUE))
    stopped, _ = draw(model, units, compiled=compiled, steer=steer)
    assert stopped.length.max() == 4
    assert len(computed) == 3
    assert sum(computed) <= (stopped.used - len(stopped)) * 8 / 7 + 3 < full / 2


@pytest.mark.parametrize("slots", [1, 3, 32])
def test_the_budget_cuts_and_never_overruns(model, slots):
    whole, _ = draw(model)
    for budget in (1, 2, 15, 16, 17, 60, whole.used - 1, whole.used, whole.used + 100):
        part, _ = draw(model, budget=budget, slots=slots)
        assert part.used <= budget
        if budget >= whole.used + 16:
            assert_same(part, whole)


@settings(max_examples=60, deadline=None)
@given(
    units=st.lists(st.integers(0, 6), min_size=5, max_size=5),
    budget=st.integers(0, 150),
    slots=st.integers(1, 24),
    compiled=st.booleans(),
)
def test_budgets_hold_for_any_units_and_slots(units, budget, slots, compiled):
    model = MODEL
    part, _ = draw(model, units, budget=budget, slots=slots, compiled=compiled, max_tokens=9)
    whole, _ = draw(model, units, compiled=compiled, max_tokens=9)
    assert part.used <= budget
    assert len(part) <= min(budget, sum(units))
    assert np.all(part.counts <= units)
    assert len(part) == 0 or part.length.min() >= 1
    assert np.all(part.status != RUNNING)
    # rows that started are the first ones, and each is a prefix of itself without a budget
    assert part.group.tolist() == whole.group[: len(part)].tolist()
    for a, b, status in zip(rows_of(part), rows_of(whole), part.status, strict=False):
        assert a == b[: len(a)]
        assert (len(a) == len(b)) or status == CUT
    if budget >= whole.used + sum(units):
        assert_same(part, whole)


MODEL = toy_model()


def test_max_tokens_is_per_prompt(model):
    caps = np.array([2, 1, 9, 4, 1])
    rollouts, _ = draw(model, [5, 5, 5, 5, 5], max_tokens=caps)
    assert np.all(rollouts.length <= caps[rollouts.group])
    cut = rollouts.status == CUT
    assert cut.any()
    assert np.all(rollouts.length[cut] == caps[rollouts.group][cut])
    assert np.all(rollouts.length[rollouts.group == 1] == 1)


def test_statuses_say_how_a_row_ended(model):
    rollouts, _ = draw(model, [40, 0, 40, 0, 0], max_tokens=25)
    assert {ENDED, CUT} == set(rollouts.status.tolist())
    for row, status in zip(rows_of(rollouts), rollouts.status, strict=True):
        assert 1 not in row[:-1]
        assert (row[-1] == 1) == (status == ENDED)
        assert status == ENDED or len(row) == 25


def test_answered_rows_are_finished_at_their_answer(model):
    whole, _ = draw(model, [60, 0, 60, 0, 0], max_tokens=40)
    stopped, _ = draw(model, [60, 0, 60, 0, 0], max_tokens=40, steer=answered())
    done = (whole.answered >= 0) & (whole.answered < whole.length)
    assert done.any()
    assert np.all(stopped.status[done] == FINISHED)
    np.testing.assert_array_equal(stopped.length[done], whole.answered[done])
    np.testing.assert_array_equal(stopped.status[~done], whole.status[~done])
    assert not (stopped.role == Role.FORCED).any()


@pytest.mark.parametrize("compiled", [True, False])
def test_finish_before_the_thinking_closed_forces_the_marker(model, compiled):
    whole, _ = draw(model, compiled=compiled)
    steer = scripted(lambda e: np.where(e.length >= 5, FINISH, CONTINUE))
    forced, _ = draw(model, compiled=compiled, steer=steer)
    open_at_5 = (whole.length > 5) & ((whole.closed < 0) | (whole.closed > 5))
    assert open_at_5.sum() > 4
    want = np.zeros(forced.role.shape, np.bool_)
    want[open_at_5, 5] = True
    np.testing.assert_array_equal(forced.role == Role.FORCED, want)
    assert np.all(forced.tokens[open_at_5, 5] == MARKERS.think_end)
    assert np.isnan(forced.logprob[open_at_5, 5]).all()
    assert np.all(forced.closed[open_at_5] == 6)
    for a, b, opened in zip(rows_of(forced), rows_of(whole), open_at_5, strict=True):
        assert a[:5] == b[:5] or not opened
    assert set(forced.status[forced.answered >= 0].tolist()) <= {ENDED, FINISHED, CUT}


def test_forced_rows_go_on_under_the_model(model, hf_model):
    steer = scripted(lambda e: np.where((e.length >= 5) & (e.closed < 0), FINISH, CONTINUE))
    rollouts, _ = draw(model, steer=steer, slots=6)
    for row, want in enumerate(hf_logprobs(hf_model, rollouts, 1.0)):
        free = ~(rollouts.role == Role.FORCED)[row, : rollouts.length[row]]
        np.testing.assert_allclose(rollouts.logprob[row, : len(want)][free], want[free], atol=1e-4)


# -- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompts": ((0,), (), (0,), (0,), (0,))}, "no tokens"),
        ({"max_tokens": 124}, "128 positions"),
        ({"max_tokens": 0}, "at least 1"),
        ({"max_tokens": np.array([4, 1, 0, 4, 4])}, "at least 1"),
        ({"temperature": 0.0}, "temperature is 0"),
        ({"temperature": -1.0}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"units": [1, 1]}, "2 units"),
        ({"prompts": PROMPTS[:2]}, "2 prompts"),
    ],
)
def test_bad_arguments_are_refused_with_what_to_do(model, change, message):
    with pytest.raises(InvalidInput, match=message):
        draw(model, **change)


def test_a_cap_of_zero_is_fine_for_a_prompt_without_units(model):
    assert len(draw(model, max_tokens=np.array([4, 0, 4, 4, 4]))[0]) == UNITS.sum()


def test_a_prompt_without_units_may_be_too_long(model):
    prompts = (PROMPTS[0], tuple([5] * 127), *PROMPTS[2:])
    assert len(draw(model, prompts=prompts)[0]) == UNITS.sum()


# -- rounds, and the embedded reasoner --------------------------------------------------------------------------------


def test_rounds_join_by_key(model):
    a, _ = draw(model, [2, 0, 1, 0, 0], max_tokens=6)
    b, _ = draw(model, [0, 2, 1, 0, 0], seed=1, max_tokens=9)
    b = replace(b, keys=("b", "a", "c", "d", "e"), prompts=(PROMPTS[1], PROMPTS[0], *PROMPTS[2:]))
    both = Rollouts.concatenate([a, b])
    assert [both.keys[g] for g in both.group] == ["a", "a", "c", "a", "a", "c"]
    assert rows_of(both) == rows_of(a) + rows_of(b)
    assert both.used == a.used + b.used
    assert both.prefill_tokens == a.prefill_tokens + b.prefill_tokens
    assert all(both.prompts[both.keys.index(k)] == PROMPTS[KEYS.index(k)] for k in KEYS)


@pytest.fixture(scope="module")
def policy():
    if not (REASONER / "model.safetensors").exists():
        pytest.skip("no embedded reasoner yet")
    return load_policy()


def test_auto_tokenizer_reads_the_embedded_reasoner_the_same(policy):
    transformers = pytest.importorskip("transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(REASONER)
    prompts = [item.prompt for item in pool.build("real", 0, 60, 20).train]
    assert tokenizer.eos_token_id == policy.markers.eos
    assert tokenizer.bos_token_id == policy.bos
    assert tokenizer.convert_tokens_to_ids("</think>") == policy.markers.think_end
    encoded = policy.encode(prompts)
    assert [[policy.bos, *ids] for ids in tokenizer(prompts, add_special_tokens=False)["input_ids"]] == encoded
    texts = ["7+5=1;?7+5=1;</think>1\n?7+5=1;", "-3%2=1;</think>['-4', '12']", "a  b"]
    rows = tokenizer(texts, add_special_tokens=False)["input_ids"]
    assert policy.decode([[*row, policy.markers.eos] for row in rows]) == texts
    assert tokenizer.batch_decode(rows, skip_special_tokens=False) == texts


def test_the_embedded_reasoner_samples_as_transformers_computes(policy):
    transformers = pytest.importorskip("transformers")
    hf_model = transformers.AutoModelForCausalLM.from_pretrained(REASONER, dtype=torch.float32).eval()
    items = pool.build("real", 0, 60, 20).train[:6]
    prompts = policy.encode([item.prompt for item in items])
    rollouts, _ = draw(
        policy.model, np.full(6, 2), keys=[i.key for i in items], prompts=prompts, max_tokens=48, markers=policy.markers
    )
    for got, length, want in zip(rollouts.logprob, rollouts.length, hf_logprobs(hf_model, rollouts, 1.0), strict=True):
        np.testing.assert_allclose(got[:length], want, atol=2e-4)
    assert (rollouts.status == ENDED).any()
    assert (rollouts.closed > 0).any()


@pytest.mark.parametrize("slots", [2, 5])
def test_a_steer_that_is_asked_seldom_decides_the_same_in_any_slots(model, slots):
    """It is asked by the row's own length: when the row was let in makes no difference."""
    steer = scripted(lambda now: np.where(now.length >= 5, ABORT, CONTINUE), every=3)
    whole, _ = draw(model, steer=steer)
    assert_same(draw(model, steer=steer, slots=slots)[0], whole)
    assert set(whole.length[whole.status == ABORTED].tolist()) == {6}


def test_what_training_does_not_offer_is_refused(model):
    steer = answered()._replace(needs=frozenset({Need.TEXT, Need.EMBEDDINGS}))
    with pytest.raises(InvalidInput, match="embeddings, text, which training does not offer"):
        draw(model, steer=steer)


def test_an_error_of_a_steer_fails_the_step(model):
    def broken(now):
        raise ValueError("broken on purpose")

    with pytest.raises(ValueError, match="broken on purpose"):
        draw(model, steer=scripted(broken))
