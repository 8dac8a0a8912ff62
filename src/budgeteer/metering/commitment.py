"""Commitments to hidden reasoning: what a provider billed without showing it, tied to what it generated, and audited.

Paper: "CoIn: Counting the Invisible Reasoning Tokens in Commercial Opaque LLM APIs", arXiv 2505.13778. The abstract, a
summary of the method and public reviews were read. The provider embeds each hidden token and the block of tokens
around it by a public model, hashes both into a Merkle tree and publishes its root. An auditor opens leaves at random:
the count is tied to the root, and vectors that do not fit together show text that was put in.

What it cannot show: text that was written to fill the bill before the tree was made; reasoning that was copied, or
rambles on the topic; anything of a provider that does not take part. ``budgeteer lab audit`` needs no provider's help.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from numbers import Integral

import numpy as np
from numpy.typing import ArrayLike, NDArray

from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import F64

_LEAF, _EMPTY, _NODE, _ROOT = b"\0", b"\1", b"\2", b"\3"
SCALE = 127
"""Vectors of length 1 are hashed as whole numbers in -127 to 127, so that the last bits of floats do not matter."""


@dataclass(frozen=True, slots=True)
class Commitment:
    """What the provider publishes with the bill.

    Attributes:
        root: of the tree, in hexadecimal digits.
        count: number of hidden tokens; it is hashed into every leaf and into the root.
        block: tokens of a block; the last one may have fewer.

    Raises:
        InvalidInput: a count or a block that no trace has.
    """

    root: str
    count: int
    block: int

    def __post_init__(self) -> None:
        if not 0 <= self.count < 1 << 63 or self.block < 1:
            raise InvalidInput(
                f"{self.count} tokens in blocks of {self.block}; a commitment has 0 or more, in 1 or more"
            )


@dataclass(frozen=True, slots=True)
class Proof:
    """An opened leaf.

    Attributes:
        index: of the token, from 0.
        block_vector, token_vector: [d] quantised vectors of its block and of the token.
        path: hashes beside the way to the root, from below, in hexadecimal digits.
    """

    index: int
    block_vector: tuple[int, ...]
    token_vector: tuple[int, ...]
    path: tuple[str, ...]


def quantised(vectors: ArrayLike) -> NDArray[np.int8]:
    """Vectors [n, d] of length 1 after scaling, as whole numbers.

    Raises:
        InvalidInput: no vectors, or one that is 0 or not finite.
    """
    table = np.asarray(vectors, dtype=np.float64)
    size = np.linalg.norm(table, axis=-1, keepdims=True) if table.ndim == 2 else np.zeros(1)
    if table.ndim != 2 or not table.size or not np.isfinite(size).all() or not (size > 0).all():
        raise InvalidInput(f"vectors of shape {table.shape}; give [n, d] finite ones, none of them 0")
    return np.asarray(np.rint(SCALE * table / size), dtype=np.int8)


class Tree:
    """The provider's side: all hashes of one hidden trace.

    Args:
        blocks: [ceil(m / block), d] vectors of the blocks.
        tokens: [m, d] vectors of the tokens.
        block: tokens of a block.

    Raises:
        InvalidInput: numbers of blocks and tokens that do not fit.
    """

    def __init__(self, blocks: ArrayLike, tokens: ArrayLike, *, block: int = 256) -> None:
        self._blocks, self._tokens, self.block = quantised(blocks), quantised(tokens), block
        self.count = len(self._tokens)
        if block < 1 or len(self._blocks) != -(-self.count // block):
            raise InvalidInput(
                f"{len(self._blocks)} blocks of {block} for {self.count} tokens; give one for each, 1 or more"
            )

    @cached_property
    def _levels(self) -> list[list[bytes]]:
        leaves = [
            _leaf(self.count, i, self._blocks[i // self.block].tobytes(), self._tokens[i].tobytes())
            for i in range(self.count)
        ]
        levels = [leaves + [_hash(_EMPTY, _number(self.count))] * ((1 << _depth(self.count)) - self.count)]
        while len(levels[-1]) > 1:
            below = levels[-1]
            levels.append([_hash(_NODE, below[i] + below[i + 1]) for i in range(0, len(below), 2)])
        return levels

    @property
    def commitment(self) -> Commitment:
        """What is published."""
        return Commitment(_hash(_ROOT, _number(self.count) + self._levels[-1][0]).hex(), self.count, self.block)

    def prove(self, index: int) -> Proof:
        """Open a leaf.

        Raises:
            InvalidInput: there is no such token.
        """
        if not 0 <= index < self.count:
            raise InvalidInput(f"token {index} of {self.count}; give one from 0")
        path, at = [], index
        for level in self._levels[:-1]:
            path.append(level[at ^ 1].hex())
            at //= 2
        block, token = self._blocks[index // self.block].tolist(), self._tokens[index].tolist()
        return Proof(index, tuple(block), tuple(token), tuple(path))


def holds(commitment: Commitment, proof: Proof) -> bool:
    """The auditor's side: whether an opened leaf is in the tree, at its place, of as many leaves as are billed."""
    count = commitment.count
    try:
        if not 0 <= proof.index < count or len(proof.path) != _depth(count):
            return False
        if not all(isinstance(part, Integral) for part in (*proof.block_vector, *proof.token_vector)):
            return False  # 1.9 would be hashed as the 1 that was committed, and judged as 1.9
        vectors = [np.array(vector, dtype=np.int8).tobytes() for vector in (proof.block_vector, proof.token_vector)]
        beside = [bytes.fromhex(text) for text in proof.path]
    except (OverflowError, ValueError, TypeError):
        return False
    here, at = _leaf(count, proof.index, *vectors), proof.index
    for other in beside:
        here = _hash(_NODE, other + here if at & 1 else here + other)
        at //= 2
    return _hash(_ROOT, _number(count) + here).hex() == commitment.root


@dataclass(frozen=True, slots=True)
class Verdict:
    """What an audit found.

    Attributes:
        honest: no reason to doubt the count.
        opened: leaves that were opened.
        why: ``""``, or what was found.
        fit: mean chance that opened tokens belong to their blocks; NaN without a head.
    """

    honest: bool
    opened: int
    why: str
    fit: float


def audit(
    commitment: Commitment,
    prove: Callable[[int], Proof],
    rng: np.random.Generator,
    *,
    blocks: int = 4,
    tokens: int = 8,
    head: Head | None = None,
    answer: F64 | None = None,
    answer_head: Head | None = None,
    least: float = 0.5,
) -> Verdict:
    """Open tokens of random blocks, and judge.

    Quantity: each opened leaf must hold. Meaning, with heads: the mean of a block's opened tokens must fit the block's
    vector, and the block's vector the answer's; the verdict is by the mean chance over blocks, as the paper's verifier
    by rules. Tokens are drawn without replacement.

    Args:
        commitment: what was billed.
        prove: asks the provider to open a leaf; what is no Proof, such as None, is a refusal.
        rng: of the auditor alone; a provider that can foresee it can cheat.
        blocks, tokens: of the trace and of a block, that are opened at most.
        head: chance that tokens belong to a block, see :func:`fitted`.
        answer: [d] vector of the visible answer.
        answer_head: chance that a block leads to an answer.
        least: mean chance below which the trace is rejected.
    """
    whole = -(-commitment.count // commitment.block)
    opened, chances = 0, list[float]()
    for number in rng.choice(whole, size=min(blocks, whole), replace=False).tolist() if whole else ():
        first = number * commitment.block
        of = min(commitment.block, commitment.count - first)
        seen: list[Proof] = []
        for index in first + rng.choice(of, size=min(tokens, of), replace=False):
            proof = prove(int(index))
            opened += 1
            if not isinstance(proof, Proof):
                return Verdict(False, opened, f"the leaf of token {index} was not opened", math.nan)
            if proof.index != index or not holds(commitment, proof):
                return Verdict(False, opened, f"the leaf of token {index} does not hold", math.nan)
            if seen and proof.block_vector != seen[0].block_vector:
                return Verdict(False, opened, f"block {number} has two vectors", math.nan)
            seen.append(proof)
        block = np.array(seen[0].block_vector, dtype=np.float64)
        if head is not None:
            chances.append(head(np.mean([one.token_vector for one in seen], axis=0), block))
        if answer is not None and answer_head is not None:
            chances.append(answer_head(block, answer))
    fit = float(np.mean(chances)) if chances else math.nan
    if chances and fit < least:
        return Verdict(False, opened, f"tokens, blocks and answer fit each other with a chance of {fit:.2f} only", fit)
    return Verdict(True, opened, "", fit)


def caught(count: int, invented: int, opened: int) -> float:
    """Chance that at least one of the invented leaves is among those opened at random, without replacement.

    Formula: 1 - C(count - invented, opened) / C(count, opened). That an opened leaf shows to be invented is assumed.

    >>> caught(10, 10, 1), caught(10, 0, 5), round(caught(4, 1, 2), 3)
    (1.0, 0.0, 0.5)
    """
    if not 0 <= invented <= count or not 0 <= opened <= count:
        raise InvalidInput(f"{invented} invented and {opened} opened of {count} leaves; give 0 to {count} of each")
    return 1 - math.comb(count - invented, opened) / math.comb(count, opened)


@dataclass(frozen=True, slots=True)
class Head:
    """Chance that two vectors belong together: 1 / (1 + exp(-(weight * cosine + bias)))."""

    weight: float
    bias: float

    def __call__(self, a: F64, b: F64) -> float:
        """The chance, in [0, 1]."""
        z = self.weight * float(_cosine(np.atleast_2d(a), np.atleast_2d(b))[0]) + self.bias
        return 1 / (1 + math.exp(-max(-500.0, min(500.0, z))))


def fitted(a: F64, b: F64, match: Sequence[bool], *, focus: float = 2.0, steps: int = 500, rate: float = 0.5) -> Head:
    """Fit a head to pairs of which it is known whether they belong together, by gradient steps.

    Formula: the focal loss -(1 - p)^focus ln p of the right class, as in the paper; there the encoder is trained, too,
    and here the vectors are taken as they are.

    Args:
        a, b: [n, d] vectors.
        match: [n] whether they belong together, of both kinds.
        focus: 0 is the usual logistic loss.
        steps, rate: of the descent.

    Raises:
        InvalidInput: sizes that do not fit, or pairs of one kind only.
    """
    sign = np.where(np.asarray(match, dtype=bool), 1.0, -1.0)
    if a.shape != b.shape or len(a) != len(sign) or len(set(sign.tolist())) < 2:
        raise InvalidInput(
            f"{a.shape} and {b.shape} vectors with {len(sign)} marks; give as many of each, of both kinds"
        )
    x = np.stack([_cosine(a, b), np.ones(len(a))], axis=1)
    weights = np.zeros(2)
    for _ in range(steps):
        p = 1 / (1 + np.exp(-np.clip(sign * (x @ weights), -500, 500)))
        slope = (1 - p) ** focus * (focus * p * np.log(np.maximum(p, 1e-300)) - (1 - p))
        weights -= rate * 10 * (sign * slope) @ x / len(x)
    return Head(float(weights[0]), float(weights[1]))


def _cosine(a: F64, b: F64) -> F64:
    size = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return np.asarray((a * b).sum(axis=1) / np.maximum(size, 1e-12))


def _depth(count: int) -> int:
    return max(0, (count - 1).bit_length())


def _number(value: int) -> bytes:
    return value.to_bytes(8, "big")


def _hash(tag: bytes, data: bytes) -> bytes:
    return hashlib.sha256(tag + data).digest()


def _leaf(count: int, index: int, block: bytes, token: bytes) -> bytes:
    return _hash(_LEAF, _number(count) + _number(index) + _number(len(block)) + block + token)
