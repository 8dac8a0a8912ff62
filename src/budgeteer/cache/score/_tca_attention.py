"""TCA-Attention: a head keeps a few entries of most blocks and many of the blocks that are read widely.

Paper: "Training-free Context-adaptive Attention for Efficient Long Context Modeling", arXiv 2512.09238 (its formulas
from a third party's notes on the whole text).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from budgeteer.cache.kit import attention, of_groups, ranks
from budgeteer.cache.protocol import Cells, Score
from budgeteer.core.errors import InvalidInput

if TYPE_CHECKING:
    from torch import Tensor

_HALVINGS = 60
"""Of the interval in which a centre is looked for."""


def tca_attention(
    block: int = 128, balance: float = 0.5, width: float = 1.0, recent: int = 32, every: int = 128
) -> Score:
    """Keep the most read entries of each block: many in blocks with much and spread attention, few in the others.

    Formula: with s_i = mean over the query heads of a[h, last, i], and blocks of ``block`` slots, counted back from the
    ``recent`` newest entries, which are always kept: a block is worth
    h = (1 - balance) sum of s + balance (1 - sum of s^2 / (sum of s)^2). A head with the centre m gives a share p_k of
    its blocks k entries each, p_k in proportion to exp(-(log2 k - m)^2 / (2 width^2)) for k = 1, 2, 4, ..., block; the
    blocks with the highest h get most, and of each block the entries with the highest s are kept. A larger m takes
    nothing away; so an entry's score is the order in which entries come in when m rises, and the head's size says how
    far it rises. Entries that come in together are ordered by s.
    Helps when what will be read is spread over the text: each block keeps something. The paper gives each head a size
    of its own, found on texts beforehand: ``split="profile:sizes=FILE"`` of ``budgeteer cache train tca-attention``.
    Its sparse attention while the prompt is read is not here. While decoding it chooses in the newest block alone; here
    all entries compete again.

    Args:
        block: slots of a block, a power of two >= 2.
        balance: weight of how spread the attention in a block is, against how much it is, 0 to 1.
        width: how much the counts of a head differ, > 0; the paper has 14 pairs of centre and width and does not say
            which.
        recent: newest entries that are always kept, >= 1; 4,096 in the paper, for texts of up to 128k.
        every: 0 = choose after prompts only; k = after every k generated tokens, too, by their last query.
    """
    if block < 2 or block & (block - 1) or recent < 1:
        raise InvalidInput(f"tca-attention: block={block}, recent={recent}; give a power of two >= 2, and 1 or more")
    if not 0 <= balance <= 1 or not (0 < width < math.inf):
        raise InvalidInput(f"tca-attention: balance={balance}, width={width}; give 0 to 1, and more than 0")

    def score(cells: Cells, memory: Tensor) -> Tensor:
        read = of_groups(attention(cells)[:, :, -1], cells.keys.shape[1]).mean(2).double()
        back = int(cells.query_slots[-1]) - recent - cells.slots
        there = cells.valid & (back >= 0)
        read = read.masked_fill(~there, 0.0)
        of = torch.where(there, back, 0) // block
        worth, known = _worth(read, there, of, balance)
        place = (ranks(worth) + 0.5) / known.sum(-1, keepdim=True).clamp(min=1)  # of each block, 0 = the first
        counts = 2 ** torch.arange(block.bit_length() - 1, device=of.device)
        level = (_within(read, there, of)[..., None] > counts).sum(-1)  # of 1, 2, 3, 4, 5: 0, 1, 2, 2, 3
        centres = _centres(place, len(counts), width)
        centre = centres.flatten(2).gather(2, of * centres.shape[-1] + level)
        return -_order(centre, read).to(torch.float32)

    return Score(score, window=1, recent=recent, every=every)


def _worth(read: Tensor, there: Tensor, of: Tensor, balance: float) -> tuple[Tensor, Tensor]:
    """[B, K, blocks] h of each block, -inf where a head has no entry of it, and whether it has one."""
    blocks = int(of.max()) + 1
    zeros = read.new_zeros(*read.shape[:2], blocks)
    mass, squares = zeros.scatter_add(2, of, read), zeros.scatter_add(2, of, read**2)
    known = zeros.scatter_add(2, of, there.to(read.dtype)) > 0
    spread = 1 - squares / (mass**2).clamp(min=1e-300)
    spread = spread.masked_fill(mass**2 < 1e-300, 0.0)
    return ((1 - balance) * mass + balance * spread).masked_fill(~known, float("-inf")), known


def _within(read: Tensor, there: Tensor, of: Tensor) -> Tensor:
    """[B, K, n] the place of an entry in its block, the most read one 1."""
    first = read.masked_fill(~there, -1.0).argsort(dim=-1, descending=True, stable=True)
    order = first.gather(-1, of.gather(-1, first).argsort(dim=-1, stable=True))
    block = of.gather(-1, order)
    counted = torch.arange(of.shape[-1], device=of.device).expand_as(of)
    starts = torch.where(block != block.roll(1, -1), counted, 0)
    starts[..., 0] = 0
    inside = counted - starts.cummax(-1).values + 1
    return torch.zeros_like(of).scatter_(-1, order, inside)


def _centres(place: Tensor, most: int, width: float) -> Tensor:
    """[B, K, blocks, most + 1]: the centre from which on a block gives more than 2^(level - 1) entries.

    A block in the place u of the order gives at least 2^c where the share of blocks that do is above u.
    """
    levels = torch.arange(most + 1, dtype=torch.float64, device=place.device)
    wanted = place[..., None].expand(*place.shape, most)
    reach = most + 1 + 30 * width**2
    low, high = torch.full_like(wanted, -reach), torch.full_like(wanted, most + reach)
    above = levels[:, None] >= levels[1:]  # [level of a count, level asked for]
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        weights = torch.softmax(-((levels - middle[..., None]) ** 2) / (2 * width**2), dim=-1)
        enough = (weights * above.T).sum(-1) > wanted
        low, high = torch.where(enough, low, middle), torch.where(enough, middle, high)
    return torch.cat([torch.full_like(wanted[..., :1], -2 * reach), high], dim=-1)


def _order(centre: Tensor, read: Tensor) -> Tensor:
    """[B, K, n]: the place of each entry by rising centre, and for one centre by falling attention."""
    first = read.argsort(dim=-1, descending=True, stable=True)
    order = first.gather(-1, centre.gather(-1, first).argsort(dim=-1, stable=True))
    counted = torch.arange(read.shape[-1], device=read.device).expand_as(order)
    return torch.zeros_like(order).scatter_(-1, order, counted)
