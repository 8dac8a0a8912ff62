"""Billed tokens against estimates: sums by hand, false alarms and delays by simulation, counts that cannot be."""

from __future__ import annotations

import json

import numpy as np
import pytest

from budgeteer import cli
from budgeteer.core.errors import InvalidInput
from budgeteer.lab.audit import Seen, read, watch


def calls(n, changed=None, factor=1.0, seed=0, model="m"):
    rng = np.random.default_rng(seed)
    estimate = rng.integers(200, 2000, size=n)
    billed = estimate * 1.3 * np.exp(0.1 * rng.normal(size=n))
    if changed is not None:
        billed[changed:] *= factor
    return [Seen(model, float(b), float(e)) for b, e in zip(billed, estimate, strict=True)]


def test_the_sum_by_hand():
    """Calls without spread count as if they had one of 0.01, and one call counts 4 - 0.5 at most: 3.5, 7, 10.5 > 8."""
    own = [Seen("m", 99, 99)] * 12 + [Seen("m", 300, 99)] * 3
    (found,) = watch(own, baseline=10)
    assert (found.alarm, found.since, found.before) == (15, 13, 1)
    assert found.after == pytest.approx(301 / 100)
    assert watch(own[:14], baseline=10)[0].alarm is None
    assert watch([Seen("m", 99, 99)] * 12 + [Seen("m", 32, 99)] * 3, baseline=10)[0].alarm == 15


def test_the_first_steps_are_those_of_the_formula():
    rng = np.random.default_rng(3)
    logs = np.concatenate([0.1 * rng.normal(size=20), 0.25 + 0.1 * rng.normal(size=20)])
    own = [Seen("m", float(np.exp(r) * 100 - 1), 99) for r in logs]
    total, alarm = 0.0, None
    for i in range(20, 40):
        z = (logs[i] - np.mean(logs[:i])) / np.std(logs[:i], ddof=1) * np.sqrt(i / (i + 1))
        assert abs(z) < 4  # nothing is cut here
        total = max(0.0, total + z - 0.5)
        alarm = i + 1 if alarm is None and total > 8 else alarm
        if alarm:
            break
    assert alarm is not None
    assert watch(own, baseline=20)[0].alarm == alarm


def test_means_and_deviations_are_of_all_calls_before_with_what_was_cut():
    """Against the same sums with every mean computed anew; some calls lie far out, and are cut."""
    rng = np.random.default_rng(5)
    alarms = []
    for shift in (0.06, 0.1, 0.3, -0.2):
        logs = 0.1 * rng.standard_t(2, size=300)
        logs[150:] += shift
        own = [Seen("m", float(np.exp(r) * 100 - 1), 99) for r in logs]
        sums, begun, expected = [0.0, 0.0], [30, 30], (None, None)
        for i in range(30, 300):
            mean, deviation, scale = np.mean(logs[:i]), np.std(logs[:i], ddof=1), np.sqrt(i / (i + 1))
            z = np.clip((logs[i] - mean) / deviation * scale, -4, 4)
            logs[i] = mean + z * deviation / scale
            for side, sign in enumerate((1, -1)):
                sums[side] = max(0.0, sums[side] + sign * z - 0.5)
                begun[side] = begun[side] if sums[side] else i + 1
                if sums[side] > 8 and expected[0] is None:
                    expected = (i + 1, begun[side] + 1)
        found = watch(own, baseline=30)[0]
        assert (found.alarm, found.since) == expected
        alarms.append(found.alarm)
    assert any(alarms)


def test_a_steady_provider_hardly_gives_an_alarm_and_a_changed_one_soon_does():
    alarms = sum(watch(calls(500, seed=seed), baseline=100)[0].alarm is not None for seed in range(60))
    assert alarms <= 9  # 60 x 400 calls, one alarm in about 7,000
    changed = [watch(calls(500, 300, 1.25, seed), baseline=100)[0] for seed in range(20)]
    seen = [one for one in changed if one.alarm is not None and one.alarm > 300]
    assert len(seen) >= 17  # the others gave a false alarm before
    for found in seen:
        assert found.alarm <= 310
        assert abs(found.since - 301) <= 15
        assert found.after / found.before == pytest.approx(1.25, abs=0.08)


def test_a_known_miss_too_much_from_the_first_call_on():
    own = [Seen("m", 3 * call.billed, call.estimate) for call in calls(300)]
    assert watch(own)[0].alarm is None


def test_models_are_watched_by_themselves():
    mixed = [call for pair in zip(calls(200), calls(200, 100, 2.0, 1, "k"), strict=True) for call in pair]
    found = {one.model: one for one in watch(mixed)}
    assert found["m"].alarm is None
    assert found["k"].since in range(95, 103)


def test_too_few_calls_are_refused():
    with pytest.raises(InvalidInput, match="no model has more than 50"):
        watch(calls(50))
    with pytest.raises(InvalidInput):
        watch(calls(50), baseline=3)


def test_the_command_tells_changes_and_counts_that_cannot_be(tmp_path, capsys):
    rows = [
        {"model": "m", "billed": c.billed, "estimate": c.estimate, "said": "word " * 40} for c in calls(200, 150, 1.5)
    ]
    path = tmp_path / "calls.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert cli.main(["lab", "audit", str(path)]) == 1
    assert capsys.readouterr().out.splitlines()[2].split()[:2] == ["m", "200"]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows[:150]))
    assert cli.main(["lab", "audit", str(path), "--text", "said"]) == 0
    capsys.readouterr()
    rows[7] |= {"billed": 0, "said": "word " * 400}
    path.write_text("".join(json.dumps(row) + "\n" for row in rows[:150]))
    assert cli.main(["lab", "audit", str(path), "--text", "said", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)[0]["impossible"] == 1
    assert cli.main(["lab", "audit", str(path), "--billed", "tokens"]) == 2
    assert "has no tokens" in capsys.readouterr().err


def test_a_column_of_texts_that_is_not_there_is_no_text_that_fits(tmp_path):
    (tmp_path / "f.jsonl").write_text('{"model": "m", "billed": 1, "estimate": 2}\n')
    with pytest.raises(InvalidInput, match="has no said; it has model, billed, estimate"):
        read(str(tmp_path / "f.jsonl"), "model", "billed", "estimate", "said")
    (tmp_path / "f.jsonl").write_text("")
    with pytest.raises(InvalidInput, match="has no calls"):
        read(str(tmp_path / "f.jsonl"), "model", "billed", "estimate", None)
