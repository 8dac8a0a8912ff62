"""What budgets of the KV cache cost: every method at four budgets, on texts with something to find.

    python benchmarks/cache.py                      # answers, then writes benchmarks/results/cache.json
    python benchmarks/cache.py --quick              # smoke test: few texts, writes nothing without --out
    python benchmarks/cache.py --table              # writes tables of docs/cache.md from cache.json, no more

Texts are those of ``budgeteer cache eval`` (in the manner of RULER): one needle, four needles that differ in their
key (and, with --tasks, a chain of variables); five seeds of them. A prompt is read once for all methods and budgets.
An answer is right where greedy decoding would write it. Each text is asked twice: the question *known* when the choice
is made, and *unknown*, coming after it. Baselines are the full cache, the newest entries (``recent``) and entries at
random.

The second table of SmolLM2 is of fewer texts, those that have answers at all of these budgets, with nothing computed
and the other tables of the file kept; its answers are in smollm2_other_budgets.jsonl:

    python benchmarks/cache.py --stored --keep --models smollm2_other_budgets \\
        --methods recent random tova snapkv h2o defensive

A third one is of all four budgets with the question known, on twenty texts; its answers are in cache_rows, and this
goes on with them or, with --stored, only writes the table:

    python benchmarks/cache.py --keep --models smollm2_640=smollm2 --tasks single --question known --each 4 \\
        --folder benchmarks/results/cache_rows --methods recent random streaming-llm knorm tova snapkv h2o ems \\
        snapkv:split=ada-kv prefix-kv keydiff arkv arkv:layers=false defensive defensive:split=layers kvzip compactor \\
        tri-attention expected-attention 'recent:every=0,rest="quantise:bits=4,full=0"' \\
        tca-attention tca-attention:split=profile:sizes=runs/gates/smollm2/gates/tca-attention.json \\
        {snapkv,keydiff}:split=profile:sizes=runs/gates/smollm2/gates/{epi-cache,prefix}.json \\
        prefix-kv:split=profile:sizes=runs/gates/smollm2/gates/prefix.json \\
        kvzap:gates=runs/gates/smollm2 trim-kv:gates=runs/gates/smollm2

Sizes of heads and layers were found on 8 texts of 560 tokens, sentences of 2WikiMultihopQA, gates trained on 25 texts
of 256 tokens of them. FILE has the distinct sentences one behind the other:

    python -c "import gzip, json, sys; rows = map(json.loads, gzip.open(sys.argv[1])); print(' '.join( \\
        dict.fromkeys(s for row in rows for s in row['candidate_sentences'])))" questions.jsonl.gz > FILE

    budgeteer cache train tca-attention smollm2 --texts FILE --length 560 --limit 8 \\
        --out runs/gates/smollm2/gates/tca-attention.json
    budgeteer cache train epi-cache smollm2 --texts FILE --length 560 --limit 8 \\
        --out runs/gates/smollm2/gates/epi-cache.json                            # and prefix
    budgeteer cache train kvzap smollm2 --texts FILE --length 256 --limit 25 --steps 300 \\
        --out runs/gates/smollm2/gates/kvzap.safetensors                  # and trim-kv, --steps 60

One of two hundred texts at a quarter of the cache, so that two points can be told:

    python benchmarks/cache.py --keep --models smollm2_quarter=smollm2 --tasks single --question known --each 40 \\
        --budgets 25% --folder benchmarks/results/cache_rows --methods recent random tova snapkv keydiff kvzip \\
        kvzap:gates=runs/gates/smollm2 'recent:every=0,rest="quantise:bits=4,full=0"'

One of the second task, where four numbers differ in their key:

    python benchmarks/cache.py --keep --models smollm2_multikey=smollm2 --tasks multikey --question known --each 4 \\
        --folder benchmarks/results/cache_rows --methods recent random knorm tova snapkv h2o keydiff compactor \\
        defensive defensive:split=layers kvzip expected-attention 'recent:every=0,rest="quantise:bits=4,full=0"'

Seven further tasks, at a quarter:

    python benchmarks/cache.py --keep --models smollm2_tasks=smollm2 --tasks multivalue multiquery variables \\
        instructions episodes common frequent --question known --budgets 25% --folder benchmarks/results/cache_rows \\
        --methods recent random tova snapkv keydiff kvzip knorm compactor defensive:split=layers h2o \\
        expected-attention 'recent:every=0,rest="quantise:bits=4,full=0"'

The five of all nine of which the full cache answers some, ten texts each:

    python benchmarks/cache.py --keep --models smollm2_average=smollm2 --tasks single multikey multivalue multiquery \\
        instructions --each 2 --question known --budgets 25% --folder benchmarks/results/cache_rows \\
        --methods recent random tova snapkv keydiff kvzip knorm compactor defensive:split=layers \\
        'recent:every=0,rest="quantise:bits=4,full=0"'

One of texts of 7,900 tokens, next to the 8,192 that the model reads; ``kvzip``, which reads a text twice, has no room:

    python benchmarks/cache.py --keep --models smollm2_long=smollm2 --tasks single --question known --each 2 \\
        --folder benchmarks/results/cache_rows --methods recent random streaming-llm knorm tova snapkv keydiff \\
        compactor defensive defensive:split=layers expected-attention kvzap:gates=runs/gates/smollm2 \\
        'recent:every=0,rest="quantise:bits=4,full=0"'

The rests and the scores that read some for each token, which a sixteenth is too little for, at a half and a quarter of
the third table's texts; projections were trained for 100 updates on 40 texts of 128 tokens:

    budgeteer cache train matryoshka smollm2 --texts FILE --length 128 --limit 50 --steps 100 \\
        --out runs/gates/smollm2/gates/matryoshka.safetensors
    python benchmarks/cache.py --keep --models smollm2_halves=smollm2 --tasks single --question known --each 4 \\
        --budgets 50% 25% --folder benchmarks/results/cache_rows --methods recent random tova snapkv keydiff kvzip \\
        'recent:every=0,rest="quantise:bits=4,full=0"' 'recent:every=0,rest="quantise:bits=2,full=0"' \\
        recent:every=0,rest=rotate-kv recent:every=0,rest=matryoshka:projections=runs/gates/smollm2 \\
        snapkv:rest=merge prompt-distill token-select token-select:rest=flexi-cache quest adamas

Generation of half a text, number by number, where everything has to be read again:

    python benchmarks/cache.py --keep --models smollm2_generation=smollm2 --tasks generation --question known \\
        --budgets 50% 25% --folder benchmarks/results/cache_rows --methods recent random tova h2o snapkv:every=64 \\
        keydiff keydiff:every=64 kvzip compactor 'recent:every=0,rest="quantise:bits=4,full=0"'

That of Gemma 3 270M, whose layers slide but for three (its weights: ``benchmarks/gemma3.py``):

    python benchmarks/cache.py --keep --models gemma3_270m=hf:FOLDER --tasks single --question known --each 4 \\
        --folder benchmarks/results/cache_rows --methods recent random streaming-llm knorm tova snapkv h2o keydiff \\
        compactor tri-attention expected-attention defensive prefix-kv ems snapkv:split=ada-kv arkv:layers=false \\
        tca-attention 'recent:every=0,rest="quantise:bits=4,full=0"'

One JSON line an answer is kept in ``--folder`` (runs/cache), a file for each model. A run that was stopped, kill -9
included, goes on where it was; a method that is named later is added to the texts that are there, the others are not
computed again. A line knows its text by (length, task, seed, number).

Gates belong to a model: train them first. Those of the thinking model's table were trained on sentences of
2WikiMultihopQA, 80 texts of 512 tokens:

    budgeteer cache train kvzap thinker --texts FILE --length 512 --limit 80 \\
        --out runs/gates/thinker/gates/kvzap.safetensors                        # and trim-kv
    python benchmarks/cache.py --models thinker --methods kvzap:gates=runs/gates/thinker ...

``gui-kv`` without slots of pictures is ``snapkv``.

About an hour on one core for SmolLM2-135M with 768 tokens; the embedded thinking model takes a tenth of that. It was
not trained to find anything in a text, so that for it only the loss of log-probability means something.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

from budgeteer.cache import selection
from budgeteer.core.errors import InvalidInput
from budgeteer.lab import cache_eval
from budgeteer.lab.cache_answers import Answered
from budgeteer.lab.cache_report import FULL
from budgeteer.lab.needles import TASKS, Sample, samples
from budgeteer.lab.results import installed, machine, to_json, write_text
from pages import between

OUT = Path(__file__).parent / "results" / "cache.json"
PAGE = Path(__file__).parents[1] / "docs" / "cache.md"
TABLES = (
    "smollm2_640",
    "smollm2_quarter",
    "smollm2_multikey",
    "smollm2_tasks",
    "smollm2_average",
    "smollm2_long",
    "gemma3_270m",
)
"""Those of the page that are written by a command."""
METHODS = (
    "recent", "random", "streaming-llm", "knorm", "tova", "snapkv", "h2o", "expected-attention", "prefix-kv", "kvzip",
    "keydiff", "compactor", "tri-attention",
    "defensive", "defensive:split=layers", "kvzip:split=uniform", "snapkv:split=pyramid", "snapkv:split=ada-kv",
)  # fmt: skip
BUDGETS = ("50%", "25%", "12.5%", "6.25%")
MODELS = {
    "smollm2": 768, "thinker": 640, "smollm2_640": 640, "smollm2_quarter": 640, "smollm2_multikey": 640,
    "smollm2_long": 7900, "smollm2_generation": 640, "smollm2_halves": 640,
}  # fmt: skip
"""Name -> tokens of a text."""
STANDARD = ("smollm2", "thinker")
"""Names that need no MODEL."""
LENGTH = 768
"""Of a text for other models."""
ASKED = ("single", "multikey")
"""Tasks; SmolLM2-135M does not follow a chain of variables with a full cache either."""


ASKS = {"known": (True,), "unknown": (False,), "both": (True, False)}
"""Whether the question is known when the choice is made."""


class Text(NamedTuple):
    """A text, and what names it.

    Attributes:
        name: (length, task, seed, number).
        sample: it.
    """

    name: tuple[int, str, int, int]
    sample: Sample


class Rows:
    """Answers of one model in a file, one a line, found by text, whether the question is known, method and budget."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.answers: dict[tuple[Any, ...], Answered] = {}
        if path.exists():
            for line in path.read_bytes().split(b"\n")[:-1]:  # the last one was cut, or is empty
                row = json.loads(line)
                row |= {"parts": tuple(row.get("parts", ())), "heads": (), "places": ()}
                self._hold(tuple(row.pop("text")), Answered(**row))

    def _hold(self, text: tuple[Any, ...], answer: Answered) -> None:
        self.answers[text, answer.known, answer.method, answer.budget] = answer

    def cut(self) -> None:
        """Drop what a stopped run left of its last line."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        whole = self.path.read_bytes() if self.path.exists() else b""
        self.path.write_bytes(whole[: whole.rfind(b"\n") + 1])

    def add(self, text: tuple[Any, ...], answer: Answered) -> None:
        """Keep an answer, on disk first, without what was held where."""
        answer = replace(answer, heads=(), places=())
        if (text, answer.known, answer.method, answer.budget) in self.answers:
            return
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"text": text, **asdict(answer)}) + "\n")
        self._hold(text, answer)

    def missing(self, text: tuple[Any, ...], known: bool, methods: Sequence[str], budgets: Sequence[str]) -> list[str]:
        """The methods that lack an answer."""
        return [m for m in methods if any((text, known, m, budget) not in self.answers for budget in budgets)]


def texts(length: int, args: argparse.Namespace, size: Callable[[str], int]) -> list[Text]:
    """``--each`` texts a task and seed; all tasks of the first number of every seed come first."""
    seeds = range(args.seeds)
    made = {(task, seed): samples(task, args.each, length, size, seed=seed) for task in args.tasks for seed in seeds}
    return [
        Text((length, task, seed, number), made[task, seed][number])
        for number in range(args.each)
        for seed in seeds
        for task in args.tasks
    ]


def answer(name: str, spec: str, length: int, args: argparse.Namespace) -> list[Answered]:
    """All answers of a model, those that are missing computed now; methods that it cannot have are left out."""
    cache_eval.check(args.methods, args.budgets, length)
    model, encode = cache_eval.opened(spec)
    possible = cache_eval.possible(model, args.methods, length)
    wanted = texts(length, args, lambda text: len(encode(text, True)))
    rows = Rows(args.folder / f"{name}.jsonl")
    rows.cut()
    for place, text in enumerate(wanted):
        for known in args.known:
            methods = rows.missing(text.name, known, possible, args.budgets)
            if not methods:
                continue
            given = [text.sample]
            for each in cache_eval.evaluate(
                model, encode, given, methods, args.budgets, known=(known,), seed=text.name[2], timed=False
            ):
                rows.add(text.name, each)
        sys.stderr.write(f"{name}: {place + 1} of {len(wanted)} texts\n")
    arms = [(FULL, "100%"), *((method, budget) for method in possible for budget in args.budgets)]
    return [rows.answers[text.name, known, *arm] for text in wanted for known in args.known for arm in arms]


def stored(name: str, length: int, args: argparse.Namespace) -> list[Answered]:
    """All answers of the texts of a model that have one for each method and budget; the question known, or not."""
    rows = Rows(args.folder / f"{name}.jsonl")
    arms = [(FULL, "100%"), *((method, budget) for method in args.methods for budget in args.budgets)]
    names = dict.fromkeys(text for text, *_ in rows.answers if text[0] == length and text[1] in args.tasks)
    found = [
        rows.answers[text, known, *arm]
        for text in names
        for known in args.known
        if all((text, known, *arm) in rows.answers for arm in arms)
        for arm in arms
    ]
    if not found:
        raise InvalidInput(f"{rows.path} has no text with all of these answers; run without --stored")
    return found


def printed(spec: str, rows: Sequence[dict[str, Any]]) -> str:
    """The results of a model for people, best first within a budget."""
    lines = [
        f"{spec}: right, points below the full cache, log p lost in nats a token, with 95 % intervals; entries kept"
    ]
    for row in sorted(rows, key=lambda row: (not row["known"], row["budget"], row["lost"]["mean"])):
        right, fewer, lost = row["right"], row["fewer"], row["lost"]
        said = f"{'known' if row['known'] else 'unknown':8}{row['budget']:>7}  {row['method']:26}"
        lines.append(
            f"{said} {right['mean']:5.0%} [{right['low']:4.0%}, {right['high']:4.0%}]  "
            f"{100 * fewer['mean']:5.1f} [{100 * fewer['low']:5.1f}, {100 * fewer['high']:5.1f}]  "
            f"{lost['mean']:6.2f} [{lost['low']:5.2f}, {lost['high']:5.2f}]  {row['kept']:.1%}"
        )
    return "\n".join(lines)


def shortened(method: str) -> str:
    """A method without the folders of its files.

    >>> shortened("a:gates=runs/x/y"), shortened("b:split=profile:sizes=runs/x/epi-cache.json")
    ('a:gates=FILE', 'b:split=profile:sizes=epi-cache.json')
    """
    return re.sub(r'=runs/[^,:"]*?([\w-]+\.json)?(?=[,:"]|$)', lambda found: f"={found[1] or 'FILE'}", method)


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows of a model as Markdown, the methods by what they lose at a quarter of the cache, or at the one budget."""
    (full,), others = [row for row in rows if row["method"] == FULL], [row for row in rows if row["method"] != FULL]
    found = {(row["method"], row["budget"]): row for row in others}
    budgets = sorted({row["budget"] for row in others}, key=lambda budget: -float(budget.rstrip("%")))
    by = "25%" if "25%" in budgets else budgets[0]
    methods = sorted({row["method"] for row in others}, key=lambda name: (found[name, by]["lost"]["mean"], name))
    if len(full["tasks"]) > 1:
        return by_task(full, [found[name, by] for name in methods])
    n, (task,) = full["samples"], full["tasks"]
    parts = any(row["tasks"][task] != row["right"]["mean"] for row in rows)

    def share(row: Mapping[str, Any]) -> str:
        """Right answers, or the share of their parts that are right, where answers have parts."""
        return f"{100 * row['tasks'][task]:.0f} %" if parts else f"{round(row['right']['mean'] * n)}"

    def cells(row: Mapping[str, Any]) -> list[str]:
        right, lost = share(row), "{mean:z.2f} [{low:z.2f}, {high:z.2f}]".format(**row["lost"])
        if len(budgets) > 1:
            return [f"{right}, {lost}"]
        fewer = "{:z.1f} [{:z.1f}, {:z.1f}]".format(*(100 * row["fewer"][name] for name in ("mean", "low", "high")))
        return [right, fewer, lost]

    heads = [budget.replace("%", " %") for budget in budgets]
    if len(budgets) == 1:
        heads = [f"right at {heads[0]}", "points below the full cache", "log p lost"]
    lines = [f"| {n} texts, full cache {share(full)} | {' | '.join(heads)} |"]
    lines.append("|---" * (1 + len(heads)) + "|")
    for name in methods:
        shown = [cell for budget in budgets for cell in cells(found[name, budget])]
        lines.append(f"| `{shortened(name)}` | {' | '.join(shown)} |")
    return "\n\n" + "\n".join(lines) + "\n\n"


def by_task(full: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows of several tasks as Markdown: the share of the parts of an answer that are right, and log p lost."""
    tasks = list(full["tasks"])
    heads = [*(f"`{task}`" for task in tasks), "points below in all", "log p lost in all"]
    lines = [f"| {full['samples']} texts | {' | '.join(heads)} |", "|---" * (1 + len(heads)) + "|"]
    whole = " | ".join(f"{100 * share:.0f} %" for share in full["tasks"].values())
    lines.append(f"| full cache | {whole} | | |")
    for row in rows:
        each = " | ".join(f"{100 * row['tasks'][task]:.0f} %, {row['losses'][task]:z.2f}" for task in tasks)
        below = "{:z.0f} [{:z.0f}, {:z.0f}]".format(*(100 * row["below"][name] for name in ("mean", "low", "high")))
        lost = "{mean:z.2f} [{low:z.2f}, {high:z.2f}]".format(**row["lost"])
        lines.append(f"| `{shortened(row['method'])}` | {each} | {below} | {lost} |")
    return "\n\n" + "\n".join(lines) + "\n\n"


def write_tables(found: Mapping[str, Any]) -> None:
    """Those of the page whose models are there."""
    page = PAGE.read_text(encoding="utf-8")
    for name in TABLES:
        if name in found:
            begin, end = f"<!-- written by benchmarks/cache.py --table: {name} -->", f"<!-- end of {name} -->"
            page = between(page, table(found[name]["rows"]), begin, end)
    write_text(page, PAGE)


def main(argv: Sequence[str] | None = None) -> int:
    """Answer, print the tables, write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(STANDARD), help="smollm2, thinker or NAME=MODEL")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), help="scores with options and split")
    parser.add_argument("--budgets", nargs="+", default=list(BUDGETS), help="shares of the cache")
    parser.add_argument("--tasks", nargs="+", default=list(ASKED), choices=TASKS, help="what is hidden in the texts")
    parser.add_argument("--seeds", type=int, default=5, help="of the texts (default %(default)s)")
    parser.add_argument("--each", type=int, default=1, help="texts a task and seed (default %(default)s)")
    parser.add_argument("--folder", type=Path, default=Path("runs/cache"), help="of the answers (default %(default)s)")
    parser.add_argument("--stored", action="store_true", help="compute nothing; take texts that have all answers")
    parser.add_argument("--keep", action="store_true", help="keep the other models of the results file")
    parser.add_argument("--table", action="store_true", help="write tables of the page from --out, no more")
    parser.add_argument("--quick", action="store_true", help="smoke test: two texts a task of the thinking model")
    parser.add_argument("--out", type=Path, help=f"results file (default: {OUT.name} beside this file; none if quick)")
    parser.add_argument("--question", choices=ASKS, default="both", help="when the choice is made (default both)")
    args = parser.parse_args(argv)
    if args.table:
        write_tables(json.loads((args.out or OUT).read_text(encoding="utf-8"))["models"])
        return 0
    args.known = ASKS[args.question]
    if not args.stored:  # stored answers need no gates, and have the names of methods as they were
        args.methods = [selection(method).name for method in args.methods]
    if args.quick:
        args.models, args.seeds, args.each = ["thinker"], 2, 1
    found = {}
    for name, _, spec in (each.partition("=") for each in args.models):
        if not spec and name not in STANDARD and not args.stored:
            raise InvalidInput(f"no model {name!r} here; give smollm2, thinker or NAME=MODEL, such as NAME=hf:FOLDER")
        length = MODELS.get(name, LENGTH)
        answers = stored(name, length, args) if args.stored else answer(name, spec or name, length, args)
        rows = cache_eval.table(answers)
        for row in rows:
            del row["heads"], row["places"]  # of which the answers have none
        found[name] = {"length": length, "rows": rows}
        if not args.stored:  # of what was stored nobody knows where it was computed
            found[name] |= {"machine": machine(), "versions": installed(("torch", "transformers", "numpy"))}
            found[name]["settings"] = {"seeds": args.seeds, "each": args.each, "tasks": args.tasks}
        sys.stdout.write(printed(name, rows) + "\n")
    out = args.out or (None if args.quick else OUT)
    kept = json.loads(out.read_text(encoding="utf-8"))["models"] if args.keep and out and out.exists() else {}
    results = {"quick": args.quick, "models": {**kept, **found}}
    if out is not None:
        write_text(json.dumps(to_json(results), indent=1) + "\n", out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
