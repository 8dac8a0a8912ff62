"""One thread for every numeric library: the models of the tests are too small for more, and results repeat."""

from __future__ import annotations

try:
    import torch

    torch.set_num_threads(1)
except ImportError:
    pass
try:
    import numba

    numba.set_num_threads(1)
except ImportError:
    pass
