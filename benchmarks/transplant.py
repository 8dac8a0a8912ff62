"""A model with another tokenizer, before any training: bits per byte of a held-out text, by how tokens are embedded.

    python benchmarks/transplant.py DATA.jsonl.gz --model FOLDER --encoder FOLDER    # resumable, a row a way
    python benchmarks/transplant.py DATA.jsonl.gz --quick                            # smoke test: the thinking model

DATA has rows with candidate_sentences (2WikiMultihopQA, Apache 2.0); a row is a text. Supertokens are trained on the
first 70 rows, in chunks of one word and of three; the texts that are measured are the beginnings of later rows. A text
is read behind the model's separator, so that all of its bytes count. ``bits`` is a mean over texts of bits per byte,
with its interval, ``minus_pieces`` the paired difference to the mean of a token's pieces. ``random`` has several seeds,
and a text's value is the mean over them.
"""

from __future__ import annotations

import argparse
import copy
import gzip
import json
import math
import resource
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from budgeteer.lab.results import installed, machine
from budgeteer.lab.stats import mean_ci, paired
from budgeteer.models.embedder import Embed, embedder
from budgeteer.models.supertokens import END, supertokens
from budgeteer.models.thinker import THINKER
from budgeteer.models.transformers import pretrained
from budgeteer.models.transplant import transplant

OUT = Path(__file__).parent / "results" / "transplant.json"
WAYS = ("pieces", "tokenadapt", "mean", "random", "tokenadapt, encoder")
SEEDS = 5
"""Of the random draws."""
PACKAGES = ("torch", "transformers", "tokenizers", "numpy")


def texts_in(path: Path) -> list[str]:
    """A text a row, a sentence a line."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return ["\n".join(" ".join(s.split()) for s in json.loads(line)["candidate_sentences"]) for line in file]


def bits_per_byte(model: Any, tokenizer: Any, text: str) -> tuple[float, int]:
    """Bits of a byte of a text behind the separator, and the text's tokens."""
    import torch

    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    first = tokenizer.convert_tokens_to_ids(END)
    row = torch.tensor([[first, *ids]])
    with torch.no_grad():
        logits = model(row[:, :-1]).logits[0].float()
    chances = torch.log_softmax(logits, -1).gather(1, row[0, 1:, None])
    return -float(chances.sum()) / math.log(2) / len(text.encode()), len(ids)


def remembered(embed: Embed) -> Embed:
    """An encoder that reads each text once."""
    known: dict[str, Any] = {}

    def read(texts: Sequence[str]) -> Any:
        new = [text for text in texts if text not in known]
        known.update(zip(new, embed(new), strict=True))
        return np.array([known[text] for text in texts])

    return read


def main() -> None:
    """Run what is missing, and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default=str(THINKER), help="folder of a causal model with a byte-level tokenizer")
    parser.add_argument("--encoder", default=None, help="folder of a sentence encoder")
    parser.add_argument("--size", type=int, default=8192, help="of the vocabulary of supertokens")
    parser.add_argument("--texts", type=int, default=10)
    parser.add_argument("--length", type=int, default=600, help="characters of a text")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args()
    texts = texts_in(args.data)
    size, number, seeds = (400, 2, 2) if args.quick else (args.size, args.texts, SEEDS)
    held = [text[: args.length] for text in texts[70 : 70 + number]]
    embed = None if args.encoder is None else remembered(embedder(args.encoder))
    known = json.loads(args.out.read_text())["rows"] if args.out.exists() and not args.quick else []
    done = {(row["tokenizer"], row["way"]) for row in known}

    def measured(new: Any, way: str, seed: int) -> tuple[list[float], dict[str, Any]]:
        old, model = pretrained(args.model, "float32")
        began, report = time.process_time(), {}
        if new is not None:
            kind, _, encoder = way.partition(", ")
            report = transplant(model, old, new, kind, embed if encoder else None, seed=seed)._asdict()
        took = time.process_time() - began
        found = [bits_per_byte(model.eval(), new or old, text) for text in held]
        share = sum(len(text.encode()) for text in held) / sum(tokens for _, tokens in found)
        return [bits for bits, _ in found], {**report, "seconds": took, "bytes_per_token": share}

    made: dict[str, Callable[[], Any]] = {
        "its own": lambda: None,
        "three words": lambda: supertokens(texts[: 5 if args.quick else 70], size, 3),
        "one word": lambda: supertokens(texts[: 5 if args.quick else 70], size, 1),
        "thinker": lambda: pretrained(THINKER)[0],
    }
    for name, make in made.items():
        new = make()
        ways = ("none",) if name == "its own" else WAYS if name == "three words" else ("pieces", "tokenadapt", "mean")
        for way in ways:
            if (name, way) in done or ("encoder" in way and embed is None):
                continue
            each = [measured(copy.deepcopy(new), way, seed) for seed in range(seeds if way == "random" else 1)]
            bits = np.mean([values for values, _ in each], axis=0)
            mean = mean_ci(bits)
            row = {"tokenizer": name, "way": way, **each[0][1], "bits": [mean.mean, mean.low, mean.high]}
            row["each"] = [round(float(value), 4) for value in bits]
            rival = next((one for one in known if (one["tokenizer"], one["way"]) == (name, "pieces")), None)
            if rival is not None:
                less = paired(row["each"], rival["each"])
                row["minus_pieces"] = [less.mean, less.low, less.high]
            known.append(row)
            print({key: value for key, value in row.items() if key != "each"}, flush=True)
            if not args.quick:
                peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
                about = {"model": Path(args.model).name, "texts": number, "characters": args.length, "peak_mib": peak}
                about |= {"machine": machine(), "packages": installed(PACKAGES)}
                args.out.write_text(json.dumps({"about": about, "rows": known}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
