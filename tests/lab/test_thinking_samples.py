"""Evidence on samples of the thinking model: the replay says what counting the stored samples says."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from budgeteer.lab.evidence import thinking_samples as samples
from budgeteer.strategies import adaptive_vote, best_of_n, self_consistency
from budgeteer.strategies.scorer import programmatic


@pytest.fixture(scope="module")
def stored():
    return samples.traces()


def test_the_file_holds_every_trace_once(stored):
    shape = (300, samples.SEEDS, samples.SAMPLES + 1)
    assert stored.answers.shape == stored.tokens.shape == stored.logprobs.shape == stored.holds.shape == shape
    assert 1 <= stored.tokens.min() <= stored.tokens.max() == samples.CAP
    assert (stored.logprobs <= 0).all()
    known = stored.holds[~np.isnan(stored.holds)]
    assert 0 <= known.min() < known.max() == 1
    greedy = stored.answers[:, :, -1]
    assert (greedy == greedy[:, :1]).all()  # one greedy trace, whatever the seed
    assert (np.sort(stored.answers[..., :-1].reshape(300, -1), 1)[:, 0] < samples.NONE).all()


def right(stored, question, answer):
    return answer != samples.NONE and bool(stored.right[question, answer])


def test_votes_and_greedy_decoding_are_what_counting_says(stored):
    seed, votes = 1, []
    for question in range(300):
        drawn = [a for a in stored.answers[question, seed, :-1].tolist() if a != samples.NONE]
        votes.append(right(stored, question, Counter(drawn).most_common(1)[0][0]) if drawn else False)
    played = samples.play(self_consistency(samples.SAMPLES, max_tokens=samples.CAP), seed)
    assert played.accuracy == pytest.approx(np.mean(votes))
    output = stored.tokens[:, seed, :-1].sum(1).mean()
    assert (played.output, played.all) == pytest.approx((output, output + stored.read.mean()))
    greedy = samples.play(self_consistency(1, max_tokens=samples.CAP, temperature=0.0), seed)
    assert greedy.accuracy == np.mean([right(stored, q, stored.answers[q, seed, -1]) for q in range(300)])
    assert greedy.all == pytest.approx((stored.tokens[:, seed, -1] + stored.read.astype(float)).mean())


def test_the_check_sees_what_is_stored_and_rounds_read_the_prompt_again(stored):
    seed = 0
    played = samples.play(best_of_n(programmatic(samples.checked), 4, max_tokens=samples.CAP), seed)
    expected = []
    for question in range(300):
        answers, holds = (c[question, seed, :4].tolist() for c in (stored.answers, stored.holds))
        answered = [(a, h) for a, h in zip(answers, holds, strict=True) if a != samples.NONE]
        known = [(a, h) for a, h in answered if h == h] or [(a, 1.0) for a, _ in answered]
        often = Counter(a for a, _ in known)  # of equal scores the more frequent answer, then the first
        best = max(known, key=lambda pair: (pair[1], often[pair[0]]), default=(samples.NONE, 0.0))
        expected.append(right(stored, question, best[0]))
    assert played.accuracy == pytest.approx(np.mean(expected))
    votes = samples.play(adaptive_vote(samples.SAMPLES, max_tokens=samples.CAP), seed)
    assert votes.all - votes.output > played.all - played.output == pytest.approx(stored.read.mean())
