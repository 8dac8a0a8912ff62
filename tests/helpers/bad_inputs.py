"""The files that the command lines of ``data/bad_inputs.tsv`` name."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

from budgeteer.lab import results
from budgeteer.ledger import SqliteLedger
from helpers.results_fixture import make

TABLE = Path(__file__).parents[1] / "data" / "bad_inputs.tsv"
GATEWAY = """[ledger]
url = "{tmp}/keys.db"
kinds = ["all"]
[[upstreams]]
name = "here"
base_url = "http://127.0.0.1:9/v1"
[[upstreams.models]]
name = "m"
"""
ROUTES = "prompt,score:a,score:b,cost:a,cost:b\n" + "".join(f"p{i},{i % 2},1,1,4\n" for i in range(1, 25))
"""A table of scores and costs."""


def write_files(tmp: Path) -> None:
    """Good and bad files, by names that say what is wrong with them."""
    lines: dict[str, list[Any]] = {
        "items": [{"key": "a", "cost": 40, "std": 0.5}, {"key": "b", "cost": 20, "std": 0.1}],
        "mixed": [{"key": "a", "cost": 40}, {"key": "b", "std": 0.1}],
        "nancost": [{"key": "a", "cost": float("nan"), "std": 0.5}],
        "negative": [{"key": "a", "cost": -3, "std": 0.5}],
        "twicekey": [{"key": "a", "cost": 1, "std": 1}, {"key": "a", "cost": 1, "std": 1}],
        "menuonly": [{"key": "a", "cost": [1, 2], "value": [0.5, 0.6]}],
        "qa": [{"question": "1 + 1", "answer": "2"}, {"question": "2 + 2", "answer": "4"}],
        "agentruns": [{"id": 1, "correct": True, "tokens": 9}, {"id": 2, "correct": False, "tokens": 9}],
        "noscore": [{"id": 1, "tokens": 9}],
        "timedruns": [{"task": "a", "seconds": 2}, {"task": "b", "seconds": 1.5}],
        "badseconds": [{"task": "a", "seconds": 2}, {"task": "b", "seconds": -1}],
        "hugeseconds": [{"task": "a", "seconds": int("9" * 400)}],
        "badscore": [{"id": 1, "score": 7, "tokens": 9}],
        "teamruns": [{"id": 1, "correct": True, "tokens": 9, "agents": 3}],
        "noanswer": [{"question": "1 + 1"}],
        "noquestion": [{"prompt": "1 + 1"}],
        "twice": [{"id": 1, "question": "a"}, {"id": 1, "question": "b"}],
        "list": [[1, 2]],
        "nokey": [{"key": None, "cost": 1, "std": 1}],
        "listkey": [{"key": [1], "cost": 1, "std": 1}],
        "emptykey": [{"key": "", "cost": 1, "std": 1}],
        "nullquestion": [{"question": None, "answer": "2"}],
        "\x1b[31mred": [{"key": "a", "cost": -1, "std": 1}],
    }
    for name, rows in lines.items():
        (tmp / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    texts = {
        "exits.py": "raise SystemExit(3)\n", "empty.jsonl": "", "blank.jsonl": "\n\n", "text.jsonl": "hello\n",
        "deep.jsonl": "[" * 100_000 + "\n",
        "file": "a file\n", "text.txt": "not mine\n", "emptyobject.json": "{}", "notgz.jsonl.gz": "plain\n",
        "bad.toml": "this is = = no toml\n", "empty.toml": "", "gateway.toml": GATEWAY.replace("{tmp}", str(tmp)),
        "badurl.toml": GATEWAY.replace("{tmp}", str(tmp)).replace("127.0.0.1:9", "[::1"),
        "badport.toml": GATEWAY.replace("{tmp}", str(tmp)).replace("127.0.0.1:9", "x:99999"),
        "mysql.toml": '[ledger]\nurl = "mysql://x"\n', "nan.toml": "[server]\nreceive_seconds = nan\n",
        "turns.csv": "run,cost_usd\n" + "".join(f"r{i % 9},{1 + i}\n" for i in range(27)),
        "routes.csv": ROUTES, "badroutes.csv": ROUTES.replace(",1,1,1,4", ",x,1,1,4", 1),
        "head.csv": "key,cost,std\n", "textcost.csv": "key,cost,std\na,ten,1\n",
        "badlimit.toml": GATEWAY.replace("{tmp}", str(tmp)) + '[scopes."a"]\nlimits = ["x"]\n',
    }  # fmt: skip
    for name, text in texts.items():
        (tmp / name).write_text(text)
    (tmp / "binary.jsonl").write_bytes(bytes(range(256)) * 4)
    (tmp / "cut.jsonl.gz").write_bytes(gzip.compress(json.dumps(lines["qa"][0]).encode() * 50)[:-12])
    for name in ("folder.jsonl", "emptyfolder", "badmodel"):
        (tmp / name).mkdir()
    (tmp / "badmodel" / "config.json").write_text('{"vocab_size": "many"}')
    results.write(make(1), tmp / "results.json")
    with SqliteLedger(tmp / "l.db") as ledger:
        ledger.open("acme")
