"""One model out of two of a kind: weights between those of one that thinks long and one that thinks short.

Papers: the hybrid model of "AdaR1: From Long-CoT to Hybrid-CoT via Bi-Level Adaptive Reasoning Optimization", arXiv
2504.21659, and the average of "Unlocking Efficient Long-to-Short LLM Reasoning with Model Merging", arXiv 2503.20641.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from budgeteer.core.errors import CheckpointError, InvalidInput

if TYPE_CHECKING:
    from torch import Tensor

WEIGHTS = "model.safetensors"
INDEX = f"{WEIGHTS}.index.json"
"""Says which shard has which tensor, where a folder has several."""
_TEXTS = (".json", ".txt", ".model", ".jinja")
"""Ends of the files beside the weights that the merged folder takes over: configuration, tokenizer, template."""
_LEFT = (INDEX, "trainer_state.json", "merge.json")
_NOT_ARCHITECTURE = ("_name_or_path", "transformers_version", "dtype", "use_cache", "architectures")
"""What a configuration says about files and their use."""
_SHOWN = 3


class Report(NamedTuple):
    """What was written.

    Attributes:
        tensors: how many.
        numbers: in all of them.
        files: that hold them.
    """

    tensors: int
    numbers: int
    files: int


def mixed(long: Tensor, short: Tensor, weight: float) -> Tensor:
    """``weight * long + (1 - weight) * short``, computed in float32 or wider, in the type of ``long``.

    Args:
        long, short: of one shape.
        weight: of ``long``, 0 to 1.
    """
    import torch

    wide = torch.promote_types(torch.promote_types(long.dtype, short.dtype), torch.float32)
    return (long.to(wide) * weight + short.to(wide) * (1 - weight)).to(long.dtype)


def merge(long: Path, short: Path, out: Path, weight: float = 0.8) -> Report:
    """Write a folder for transformers whose weights are ``weight * long + (1 - weight) * short``, tensor by tensor.

    Shards, types of numbers, configuration, tokenizer and chat template are those of ``long``. One of its shards is in
    memory at a time, and one tensor of ``short``. ``out`` appears when all is written; what a run that was killed
    leaves behind, ``.NAME.part`` beside it, the next one replaces. Tied embeddings stay tied, whether or not a folder
    stores both.

    When it helps: one of the two was trained from the other, or both from one base. When not: between models that were
    trained apart there is no model.

    Args:
        long, short: folders with weights in safetensors, of one architecture and tokenizer.
        out: folder to write; may be there if it is empty.
        weight: of ``long``, 0 to 1. AdaR1 has 0.8.

    Raises:
        InvalidInput: a weight outside these, a folder that is not empty, or two models that do not fit together.
        CheckpointError: a folder has no such model, or its files cannot be read.
    """
    from safetensors.torch import save_file

    if not 0 <= weight <= 1:
        raise InvalidInput(f"the weight of the long model is {weight}; give a number from 0 to 1")
    if out.is_dir() and any(out.iterdir()):
        raise InvalidInput(f"--out {out} is not empty; choose another folder")
    first, second = _Weights(long), _Weights(short)
    tied = _refuse_configurations(_configuration(long), _configuration(short))
    _refuse_tokenizers(long, short)
    names = _common(first, second, tied)
    part = out.absolute().with_name(f".{out.absolute().name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    files, size = {name: first.file_of[name] for name in names}, 0
    report = Report(len(names), sum(math.prod(first.shapes[name]) for name in names), len({*files.values()}))
    try:
        for file in dict.fromkeys(files.values()):
            inside = [name for name in names if files[name] == file]
            made = {name: _mixed(name, first.tensor(name), second.tensor(name), weight) for name in inside}
            save_file(made, part / file, metadata={"format": "pt"})
            size += sum(tensor.nbytes for tensor in made.values())
        if (long / INDEX).is_file():
            index = {"metadata": {"total_size": size}, "weight_map": files}
            (part / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
        for path in sorted(long.iterdir()):
            if path.is_file() and path.suffix in _TEXTS and path.name not in _LEFT:
                shutil.copyfile(path, part / path.name)
        about = {"long": str(long), "short": str(short), "weight": weight, **report._asdict()}
        (part / "merge.json").write_text(json.dumps(about) + "\n", encoding="utf-8")
        if out.is_dir():
            out.rmdir()
        part.rename(out)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    return report


class _Weights:
    """The tensors of a folder.

    Attributes:
        folder: where they are.
        file_of: name -> file that holds it.
        shapes: name -> its shape.
    """

    def __init__(self, folder: Path) -> None:
        from safetensors import SafetensorError, safe_open

        self.folder = folder
        index = folder / INDEX
        try:
            listed = json.loads(index.read_text(encoding="utf-8"))["weight_map"] if index.is_file() else None
            files = [WEIGHTS] if listed is None else sorted({*listed.values()})
            if missing := [file for file in files if not (folder / file).is_file()]:
                raise CheckpointError(
                    f"{folder} has no {missing[0]}; give a folder with all of its weights in safetensors: load another "
                    "format with transformers and save it again, and merge an adapter into its base first"
                )
            self._open: dict[str, Any] = {file: safe_open(folder / file, framework="pt") for file in files}
        except (OSError, ValueError, KeyError, AttributeError, SafetensorError) as error:
            raise CheckpointError(f"the weights in {folder} cannot be read: {error}") from error
        self.file_of = {name: file for file in files for name in self._open[file].keys()}  # noqa: SIM118
        self.shapes = {n: tuple(self._open[file].get_slice(n).get_shape()) for n, file in self.file_of.items()}
        if listed is not None and {*listed} != {*self.file_of}:
            name = min({*listed} ^ {*self.file_of})
            raise CheckpointError(f"{index} does not agree with its files about {name}; copy the folder again")

    def tensor(self, name: str) -> Tensor:
        """One tensor, read from its file."""
        found: Tensor = self._open[self.file_of[name]].get_tensor(name)
        return found


def _common(first: _Weights, second: _Weights, tied: bool) -> list[str]:
    """The tensors that both have, in the order of the first; refuses two that differ in more than a tied copy."""
    names = [name for name in first.shapes if name in second.shapes]
    for of, other in ((first, second), (second, first)):
        alone = [name for name in of.shapes if name not in other.shapes]
        if strange := [name for name in alone if not (tied and _is_copy(of, name, names))]:
            raise InvalidInput(
                f"{of.folder} has {len(strange)} tensors that {other.folder} has not, such as {_few(strange)}; give "
                "two models of one architecture, such as a model and what was trained from it"
            )
    if differing := [name for name in names if first.shapes[name] != second.shapes[name]]:
        name = differing[0]
        raise InvalidInput(
            f"{name} has the shape {first.shapes[name]} in {first.folder} and {second.shapes[name]} in "
            f"{second.folder}; give two models of one size and vocabulary"
        )
    return names


def _is_copy(of: _Weights, name: str, names: list[str]) -> bool:
    """Whether a tensor equals one of these, as an output layer does that is stored beside its tied embeddings."""
    own = of.tensor(name)
    return any(of.shapes[n] == of.shapes[name] and own.equal(of.tensor(n)) for n in names)


def _mixed(name: str, long: Tensor, short: Tensor, weight: float) -> Tensor:
    """As :func:`mixed`; numbers that are no fractions have to be equal."""
    if long.is_floating_point() and short.is_floating_point():
        return mixed(long, short, weight)
    if long.dtype != short.dtype or not long.equal(short):
        raise InvalidInput(
            f"{name} holds {long.dtype} and {short.dtype}, which have no mean; give models whose weights are not "
            "quantised"
        )
    return long


def _configuration(folder: Path) -> Mapping[str, Any]:
    """What a folder's configuration says, defaults included.

    Raises:
        CheckpointError: there is none, or transformers does not know it.
    """
    import transformers

    try:
        config: Mapping[str, Any] = transformers.AutoConfig.from_pretrained(folder, local_files_only=True).to_dict()
    except Exception as error:  # transformers raises whatever its parts raise
        why = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise CheckpointError(f"transformers cannot read the configuration of {folder}: {why}") from error
    return config


def _refuse_configurations(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    """Refuse two architectures; else whether the output layer is tied to the embeddings."""
    for config in (first, second):
        if config.get("quantization_config") is not None:
            raise InvalidInput("quantised weights have no mean; give models in float32, bfloat16 or float16")
    ignored = {*_NOT_ARCHITECTURE, *(name for name in {*first, *second} if name.endswith("_token_id"))}
    differing = sorted(name for name in {*first, *second} - ignored if first.get(name) != second.get(name))
    if differing:
        said = "; ".join(f"{name} is {first.get(name)} and {second.get(name)}" for name in differing[:_SHOWN])
        raise InvalidInput(
            f"the two models are not of one architecture: {said}; give a model and what was trained from it"
        )
    return bool(first.get("tie_word_embeddings"))


def _refuse_tokenizers(long: Path, short: Path) -> None:
    """Refuse two models that do not read the same tokens."""
    import transformers

    both = []
    for folder in (long, short):
        try:
            both.append(transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True))
        except Exception as error:  # transformers raises whatever its parts raise
            why = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise CheckpointError(f"transformers cannot load a tokenizer from {folder}: {why}") from error
    first, second = (tokenizer.get_vocab() for tokenizer in both)
    if first != second:
        tokens = sorted(token for token in {*first, *second} if first.get(token) != second.get(token))
        raise InvalidInput(
            f"the tokenizers differ in {len(tokens):,} tokens, such as {_few(tokens)}; give two models of one "
            "vocabulary (budgeteer lab transplant gives a model another tokenizer)"
        )
    if _pipeline(both[0]) != _pipeline(both[1]):
        raise InvalidInput(
            f"the tokenizers of {long} and {short} have the same tokens and cut texts differently; give two models of "
            "one tokenizer"
        )


def _pipeline(tokenizer: Any) -> Any:
    """How a tokenizer cuts texts; None for one that does not say so."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return None
    said = json.loads(backend.to_str())
    return {part: said.get(part) for part in ("normalizer", "pre_tokenizer", "model")}


def _few(names: list[str]) -> str:
    return ", ".join(map(repr, names[:_SHOWN]))
