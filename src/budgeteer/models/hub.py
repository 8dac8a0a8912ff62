"""Whether Hugging Face's hub has a model, asked once before transformers asks for a minute."""

from __future__ import annotations

from pathlib import Path

from budgeteer.core.errors import CheckpointError, MissingExtra

try:
    from huggingface_hub import HfApi, try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError
except ImportError as error:
    raise MissingExtra("huggingface_hub", "hf") from error

_LINE = "\n"


_CONFIGURATIONS = ("config.json", "adapter_config.json")
"""A folder with a model has one of these."""


def require_there(path: Path) -> None:
    """Make sure that there is a model: a ``.gguf`` file, a folder with a configuration, or a name.

    Raises:
        CheckpointError: there is none.
    """
    is_gguf = path.suffix == ".gguf"
    if (path.is_absolute() or is_gguf) and not path.exists():  # transformers takes it for a name, and says so
        raise CheckpointError(f"{path} is not there; give a folder with a model, or a .gguf file")
    if not path.exists():
        require_known(str(path))
    elif not is_gguf and not any((path / name).is_file() for name in _CONFIGURATIONS):
        raise CheckpointError(f"{path} has no config.json; give a folder with a model, or a .gguf file")


def require_known(name: str) -> None:
    """Make sure that a name is that of a model, in the cache on this machine or on the hub.

    Args:
        name: as transformers takes it, ``OWNER/NAME``.

    Raises:
        CheckpointError: the hub has no such model, or is not to be reached.
    """
    try:
        if isinstance(try_to_load_from_cache(name, "config.json"), str):
            return
        HfApi().model_info(name, timeout=10)
    except HFValidationError as error:
        raise CheckpointError(f"{name} is not there; give a folder with a model, or a .gguf file") from error
    except Exception as error:  # whatever the hub's client and its connection raise
        raise CheckpointError(
            f"{name} is no folder here, and the hub does not give it: {str(error).strip().partition(_LINE)[0]}"
        ) from error
