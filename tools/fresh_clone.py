"""Install from a fresh clone on a machine without a compiler, collect the tests, and say how long each step takes.

    python tools/fresh_clone.py           # clones HEAD, uncommitted changes are left out; downloads about 1 GB
    python tools/fresh_clone.py --test    # and runs the tests

The programs that compile are taken off the path, and CC and CXX are the program that always fails, so that a dependency
that has no wheel ends the installation.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COMPILES = re.compile(r"(.*-)?(cc|gcc|g\+\+|c\+\+|cpp|clang(\+\+)?|ld|as|cmake|ninja|meson|rustc|cargo)(-[\d.]+)?")
"""Names of programs that a build would call."""


def tools(folder: Path) -> Path:
    """A folder of links to every program on the path, those that compile left out."""
    folder.mkdir()
    for place in os.get_exec_path():
        for program in Path(place).iterdir() if Path(place).is_dir() else ():
            link = folder / program.name
            if not COMPILES.fullmatch(program.name) and not link.is_symlink() and os.access(program, os.X_OK):
                link.symlink_to(program)
    return folder


def main() -> int:
    """Run the steps; 1 if one of them fails."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--test", action="store_true", help="run the tests, too")
    collect = [".venv/bin/python", "-m", "pytest", "--collect-only", "-qq"]
    steps = [["make", ".venv/.lab"], ["make", ".venv/.dev"], collect]
    if parser.parse_args().test:
        steps.append(["make", "test"])
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder, "budgeteer")
        subprocess.run(["git", "clone", "-q", str(ROOT), str(clone)], check=True)
        bare = {"PATH": str(tools(Path(folder, "bin"))), "CC": "false", "CXX": "false", "PYTHON": sys.executable}
        for step in steps:
            start = time.monotonic()
            quiet = subprocess.DEVNULL if step is collect else None
            status = subprocess.run(step, cwd=clone, env={**os.environ, **bare}, stdout=quiet).returncode
            print(f"== {' '.join(step)}: {time.monotonic() - start:.0f} s, status {status}", flush=True)
            if status:
                return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
