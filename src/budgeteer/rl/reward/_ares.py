"""As many hesitations as the prompt's difficulty is worth, measured by entropy (ARES, arXiv 2510.08457)."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import F64, I64, right
from budgeteer.rl.reward.counted import pattern
from budgeteer.rl.reward.kit import HARD, MEDIUM, band, pass_rate, sigmoid
from budgeteer.rl.reward.protocol import Columns, Reward, of_terms

SLACK, BEND, SOFT, CAP, GAIN = (
    np.array(row) for row in ((0.15, 0.25, 0.35), (2.0, 3.0, 4.0), (2.0, 2.5, 3.0), (1.0, 1.0, 1.2), (0.6, 0.8, 1.0))
)
"""For easy, medium and hard prompts: tolerance as a share of the target, bend of the penalty, softness of the bonus,
scale of the cap, share of it for wrong rows."""
TURN = np.array((1.0, 1.0, -1.0))
"""For the same: whether the cap grows with too many hesitations, or with too few."""


@dataclass(frozen=True, slots=True)
class Hesitations:
    """Moving means over the steps; NaN before there was anything.

    Attributes:
        threshold: entropy in nats from which a window is a hesitation.
        target: [3] hesitations of a rollout, for easy, medium and hard prompts.
        strength: [3] most that the term may be.
    """

    threshold: float
    target: F64
    strength: F64


def ares(window: int = 4, strength: float = 0.5, keep: float = 0.9, words: str = "") -> Reward:
    """The score, and a term for the hesitations of a rollout: fewer on easy prompts, more on hard ones.

    A hesitation is a window of ``window`` tokens whose mean entropy is the threshold or more: the moving mean (keeps
    0.99) of the steps' mean 95th percentile of a row's entropies. With N the row's hesitations, T the target of the
    prompt's difficulty (bands of its own pass rate, 2/3 and 1/3), d = N - T, a tolerance m = max(1, share * T), and
    h(x) = x^2 / 2k up to k, then x - k / 2: a right row loses h(d - m) on an easy prompt, h(abs(d) - m) on a medium
    one, and half of h(-d - m) on a hard one, each over (m + k), times the cap and the cap at most; a right row of a
    hard prompt with d >= -m gets sigmoid((d + m) / softness) of the cap, and a wrong row tanh((d - m) / 2 softness) of
    its share, where d > m. The cap of a band moves by 0.05 (mean N - T) a step, within 0 and 2; that of hard prompts by
    0.05 (T - mean N), so that too few hesitations there make the term larger.

    From the paper's code (its text has another sign), with two differences: a target is the moving mean of its band's
    hesitations instead of the step's own mean, which it would equal by definition; and wrong rows without additional
    hesitations get nothing, where sigmoid(0) gives them half of the cap. The code counts windows behind listed words
    only: with ``words`` the windows are the ``window`` tokens behind each of them, where there are as many, and the
    threshold is of the percentiles of the means over the tokens behind every token, as there; without, every window
    counts. A word that is several tokens, which the code does not find, ends at its last one. In the first step the
    step's own numbers stand in.

    Args:
        window: tokens, 1 or more.
        strength: cap at the start, in [0, 2].
        keep: how much the targets keep at a step, in [0, 1).
        words: file with the words behind which a window begins: a JSON list, such as
            ``data/crucial_token_final_version.json`` of the authors' repository, or one a line; ``""`` = windows
            anywhere.

    Raises:
        InvalidInput: a value outside these, or a file that cannot be read or has no word.

    >>> rows = Columns([1, 1], [12, 12], [0, 0], [99, 99], [1, 1], entropy=[[1.0] * 12, [0.0] * 12])
    >>> ares().score(Hesitations(0.5, np.zeros(3), np.full(3, 0.5)), rows).round(4).tolist()
    [0.8333, 1.0]
    """
    if not (window >= 1 and 0 <= strength <= 2 and 0 <= keep < 1):
        raise InvalidInput(
            f"ares(window={window}, strength={strength}, keep={keep}); give 1 or more tokens, 0 to 2, and 0 or more "
            "and less than 1"
        )

    listed = pattern(_listed(words)) if words else None

    def own_threshold(rows: Columns) -> float:
        """Of this step alone."""
        return _threshold(rows) if listed is None else _percentile(_means_behind(rows, window))

    def counted(state: Hesitations, rows: Columns) -> tuple[float, I64]:
        """The threshold, and [n] hesitations of each row."""
        entropy, known = _known(rows)
        threshold = own_threshold(rows) if np.isnan(state.threshold) else state.threshold
        if listed is not None:
            behind, at = _means_behind(rows, window), _ends_of(listed, rows)
            found = [int((row[i] >= threshold).sum()) for row, i in zip(behind, at, strict=True)]
            return threshold, np.array(found, np.int64)
        block = min(window, max(entropy.shape[1], 1))
        size = -(-entropy.shape[1] // block) * block
        pad = ((0, 0), (0, size - entropy.shape[1]))
        blocks = np.pad(np.where(known, entropy, 0.0), pad).reshape(len(rows), size // block, block).sum(axis=2)
        tokens = np.pad(known, pad).reshape(len(rows), size // block, block).sum(axis=2)
        return threshold, ((tokens > 0) & (blocks >= threshold * tokens)).sum(axis=1)

    def targets(state: Hesitations, level: I64, count: I64) -> tuple[F64, F64]:
        """[3] the targets, with the step's own means where there are none, and [3] those means."""
        own = np.array([count[level == d].mean() if np.any(level == d) else np.nan for d in range(3)], np.float64)
        return np.where(np.isnan(state.target), own, state.target), own

    def terms(state: Hesitations, rows: Columns) -> dict[str, F64]:
        level, good = band(pass_rate(rows)), right(rows.correct)
        _, count = counted(state, rows)
        target = targets(state, level, count)[0][level]
        over, slack, bend = count - target, np.maximum(1.0, SLACK[level] * target), BEND[level]
        cap = (state.strength * CAP)[level]

        def lost(beyond: F64) -> F64:
            x = np.maximum(beyond - slack, 0.0)
            huber = np.where(x <= bend, x * x / (2 * bend), x - bend / 2)
            return np.asarray(np.where(level == HARD, 0.5, 1.0) * huber / (slack + bend) * cap, np.float64)

        beyond = np.where(level == HARD, -over, np.where(level == MEDIUM, np.abs(over), over))
        more = (level == HARD) & (over >= -slack)
        of_right = np.where(more, sigmoid((over + slack) / SOFT[level]) * cap, -np.minimum(cap, lost(beyond)))
        of_wrong = np.tanh(np.maximum(over - slack, 0.0) / (2 * SOFT[level])) * cap * GAIN[level]
        return {"correct": rows.correct, "hesitations": np.where(good, of_right, of_wrong)}

    def observe(state: Hesitations, rows: Columns) -> Hesitations:
        if not len(rows):
            return state
        threshold, count = counted(state, rows)
        old, own = targets(state, band(pass_rate(rows)), count)
        moved = np.where(np.isnan(own), old, keep * old + (1 - keep) * own)
        change = np.nan_to_num(TURN * 0.05 * (own - old))
        threshold = 0.99 * threshold + 0.01 * own_threshold(rows)
        return Hesitations(threshold, moved, np.clip(state.strength + change, 0.0, 2.0))

    needs = ("entropy", "text", "offsets") if words else ("entropy",)
    return of_terms(terms, lambda: Hesitations(np.nan, np.full(3, np.nan), np.full(3, strength)), observe, needs)


def _known(rows: Columns) -> tuple[F64, NDArray[np.bool_]]:
    """[n, t] entropies, and where they are known."""
    entropy = rows.column("entropy", "ares")
    return entropy, (np.arange(entropy.shape[1]) < rows.length[:, None]) & np.isfinite(entropy)


def _threshold(rows: Columns) -> float:
    """Mean over the rows of the 95th percentile of their known entropies; 0 without any."""
    return _percentile([row[there] for row, there in zip(*_known(rows), strict=True)])


def _percentile(rows: Sequence[F64]) -> float:
    """Mean over the rows of the 95th percentile of their numbers, those that are not known left out; 0 without any."""
    tops = [np.quantile(known, 0.95) for row in rows if len(known := row[np.isfinite(row)])]
    return float(np.mean(tops)) if tops else 0.0


def _means_behind(rows: Columns, window: int) -> list[F64]:
    """For each row [length] the mean entropy of the ``window`` tokens behind each token; NaN where there are fewer, or
    one is not known."""
    made = []
    for entropy, length in zip(rows.column("entropy", "ares"), rows.length.tolist(), strict=True):
        means = np.full(length, np.nan)
        if length > window:
            means[: length - window] = np.lib.stride_tricks.sliding_window_view(entropy[1:length], window).mean(axis=1)
        made.append(means)
    return made


def _ends_of(listed: re.Pattern[str], rows: Columns) -> list[I64]:
    """For each row the places of the tokens with which listed words end."""
    offsets = rows.column("offsets", "ares")
    return [
        np.minimum(np.searchsorted(ends[:length], [found.end() for found in listed.finditer(text)]), length - 1)
        for text, ends, length in zip(rows.column("text", "ares"), offsets, rows.length.tolist(), strict=True)
    ]


def _listed(path: str) -> tuple[str, ...]:
    """The words of a file: a JSON list of texts, or one a line.

    Raises:
        InvalidInput: it cannot be read, or has none.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
        found = json.loads(text) if text.lstrip().startswith("[") else text.splitlines()
    except (OSError, ValueError) as error:
        raise InvalidInput(f"ares(words={path!r}) cannot be read ({error}); give a file of words") from error
    words = tuple(word.strip() for word in found if isinstance(word, str) and word.strip())
    if not words:
        raise InvalidInput(f"ares(words={path!r}) has no word; give a JSON list of texts, or a word a line")
    return words
