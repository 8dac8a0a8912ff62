"""Tokenizers that bound a prompt more tightly than its bytes: tiktoken's of OpenAI's models, or a tokenizer.json."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from budgeteer.core.errors import InvalidInput, MissingExtra


def load(name: str, folder: Path = Path()) -> Callable[[str], int]:
    """What counts the tokens of a text.

    The vocabulary is read now and never later. tiktoken fetches the vocabulary of an encoding when it is first used on
    a machine, and keeps it in the folder that the environment variable TIKTOKEN_CACHE_DIR names.

    Args:
        name: an encoding of tiktoken (``o200k_base``: gpt-4o and later; ``cl100k_base``: gpt-4), or a file of the
            package tokenizers (``tokenizer.json``, as models on the Hugging Face Hub have it).
        folder: what the name of a file is relative to.

    Raises:
        InvalidInput: there is no such encoding or file, or its vocabulary cannot be had.
        MissingExtra: the package is not installed.
    """
    return _of_file(str(folder / name)) if name.endswith(".json") else _of_tiktoken(name)


@lru_cache(maxsize=16)
def _of_file(path: str) -> Callable[[str], int]:
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise MissingExtra("tokenizers", "tokenizers") from error
    try:
        tokenizer = Tokenizer.from_file(path)
    except Exception as error:  # the package raises nothing more precise
        raise InvalidInput(f"{path} is no tokenizer that can be read: {error}") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)


@lru_cache(maxsize=16)
def _of_tiktoken(name: str) -> Callable[[str], int]:
    try:
        import tiktoken
    except ImportError as error:
        raise MissingExtra("tiktoken", "tokenizers") from error
    try:
        encoding = tiktoken.get_encoding(name)
    except ValueError as error:
        raise InvalidInput(f"tiktoken has no encoding {name!r}: {error}") from error
    except Exception as error:  # requests', or the file system's
        raise InvalidInput(
            f"the vocabulary of {name!r} cannot be had ({error}); fetch it once where there is a network, with "
            f"TIKTOKEN_CACHE_DIR=FOLDER python -c 'import tiktoken; tiktoken.get_encoding({name!r})', and set the same "
            "variable here"
        ) from error
    return lambda text: len(encoding.encode_ordinary(text))
