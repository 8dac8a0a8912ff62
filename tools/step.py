"""Run one step of an installation: say what it does, for how long it has run, and how long it took.

python tools/step.py TEXT COMMAND...: on a terminal one line that counts the seconds, elsewhere a line every 15 s.
"""

from __future__ import annotations

import subprocess
import sys
import time


def main(text: str, *command: str) -> int:
    """Run the command and return its exit status."""
    start, terminal = time.monotonic(), sys.stdout.isatty()

    def say(state: str) -> None:
        line = f"{text}: {state}, {time.monotonic() - start:.0f} s"
        print(f"\r{line}" if terminal else line, end="" if terminal and state == "running" else "\n", flush=True)

    with subprocess.Popen(command) as process:
        while True:
            say("running")
            try:
                status = process.wait(1 if terminal else 15)
            except subprocess.TimeoutExpired:
                continue
            except KeyboardInterrupt:  # the command has it, too
                status = process.wait() or 130
            say("failed" if status else "done   ")
            return status


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
