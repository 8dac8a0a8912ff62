"""The compiled kernels: their exponential function, and that they are read from the cache."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest

kernels = pytest.importorskip("budgeteer.engine.kernels")


def test_exp_kernel_agrees_with_numpy():
    x = np.concatenate([[0.0, -1e-7, -87.0], -np.geomspace(1e-6, 87, 50_001)]).astype(np.float32)
    got = x.copy()
    kernels.exp_inplace(got, np.empty(len(x), np.int32), len(x))
    want = np.exp(x.astype(np.float64))
    assert got[0] == 1.0
    near = x > -2
    np.testing.assert_allclose(got[near], want[near], rtol=1e-6)
    np.testing.assert_allclose(got, want, rtol=1e-5)  # the reduction's rounding grows with |x|
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-6)  # as a share of the largest term, which is 1


def test_exp_kernel_clamps_what_would_underflow():
    x = np.array([-88.0, -1000.0, -3e38], np.float32)
    kernels.exp_inplace(x, np.empty(3, np.int32), 3)
    assert np.all((x > 0) & (x < 2e-38))


def test_exp_kernel_leaves_the_rest_of_the_array_alone():
    x = np.full(8, -1.0, np.float32)
    kernels.exp_inplace(x, np.empty(8, np.int32), 5)
    assert x[5:].tolist() == [-1.0] * 3


KERNELS = """
import hashlib, json, sys
import numpy as np
from budgeteer.engine import kernels
from budgeteer.models.policy import REASONER, load_policy
from budgeteer.rl.sampler import sample
policy = load_policy(REASONER)
found, _ = sample(
    policy.model, ["a", "b"], policy.encode(["3 + 4 =", "12 + 9 ="]), np.array([6, 6]), max_tokens=32,
    markers=policy.markers, seed=1,
)
content = found.tokens.tobytes() + found.logprob.tobytes()
missed = [kernel.__name__ for kernel in kernels.SIGNATURES if kernel.stats.cache_misses]
print(json.dumps([hashlib.sha256(content).hexdigest(), missed]))
"""


def outcome(**environment: str) -> list:
    done = subprocess.run(
        [sys.executable, "-c", KERNELS], capture_output=True, text=True, timeout=290, env={**os.environ, **environment}
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_kernels_are_read_from_the_cache_with_the_types_they_are_called_with():
    pytest.importorskip("numba")
    _, missed = outcome()
    assert missed == []


@pytest.mark.slow
def test_the_first_run_after_an_installation_is_like_all_that_follow(tmp_path):
    pytest.importorskip("numba")
    first, again = (outcome(NUMBA_CACHE_DIR=str(tmp_path)) for _ in range(2))
    assert first == again
    assert first[1] == []
