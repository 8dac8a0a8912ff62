"""A tokenizer whose tokens may span words: supertokens.

Paper: "Achieving Tokenizer Flexibility in Language Models through Heuristic Adaptation and Supertoken Learning",
arXiv 2505.09738; of its supertokens only notes of others were read, so the chunks' lengths are drawn as chosen here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from budgeteer.core.errors import InvalidInput, MissingExtra

END = "<|endoftext|>"
"""The tokenizer's only special token."""
_CUT = "\ue000"
"""Stands between two chunks in training: a character of private use."""


def supertokens(texts: Iterable[str], size: int, words: int = 3, seed: int = 0) -> Any:
    """Train a byte-level BPE on chunks of one to several words, so that frequent phrases become single tokens.

    The words of GPT-2's pattern are joined to chunks of 1 to ``words`` words, each number equally likely; merges never
    cross the end of a chunk or of a line. When the tokenizer is used, only ends of lines are such borders. With one
    word it is ordinary BPE.

    Args:
        texts: to learn from.
        size: of the vocabulary, 257 or more: the bytes and the special token are always in it.
        words: most words of a chunk, 1 or more.
        seed: of the chunks.

    Returns:
        A fast tokenizer of transformers.

    Raises:
        InvalidInput: a size or a number of words out of range, or no text.
        MissingExtra: tokenizers or transformers is not installed.
    """
    try:
        from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
        from transformers import PreTrainedTokenizerFast
    except ImportError as error:
        raise MissingExtra("transformers", "hf") from error
    if size < 257 or words < 1:
        raise InvalidInput(f"size={size}, words={words}; give 257 tokens or more, and chunks of 1 word or more")
    texts = [text for text in texts if text.strip()]
    if not texts:
        raise InvalidInput("there is no text to learn tokens from")
    tokenizer = Tokenizer(models.BPE())
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    if words == 1:
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.train_from_iterator(texts, trainer)
    else:
        spelling = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(_CUT, "removed"), spelling])
        tokenizer.train_from_iterator(chunked(texts, words, seed), trainer)
        lines = pre_tokenizers.Split(Regex(r"\n+"), "isolated")
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([lines, spelling])
    tokenizer.decoder = decoders.ByteLevel()
    fast: Any = PreTrainedTokenizerFast
    return fast(tokenizer_object=tokenizer, eos_token=END, pad_token=END)


def chunked(texts: Iterable[str], words: int, seed: int) -> Iterator[str]:
    """Texts with a mark between chunks of 1 to ``words`` words; a word with a line's end in it stands alone."""
    from tokenizers import pre_tokenizers

    cut = pre_tokenizers.ByteLevel(add_prefix_space=False)
    rng = np.random.default_rng(seed)
    for text in texts:
        text = text.replace(_CUT, "")
        pieces: list[str] = []
        left = 0
        for _, (begin, end) in cut.pre_tokenize_str(text):
            word = text[begin:end]
            if left and "\n" not in word and "\n" not in pieces[-1]:
                pieces.append(word)
                left -= 1
            else:
                pieces += [_CUT, word] if pieces else [word]
                left = int(rng.integers(words))
        yield "".join(pieces)
