"""SmolLM2 on llama.cpp, as a process of its own: ``python -m budgeteer.gateway.demo.llama MODEL.gguf``.

Prints its address once it listens, and ends when its standard input does: with whoever started it, however that ended.
"""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Serve until the standard input ends."""
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"  # before the import: threads that spin starve everything on few cores
    import xllamacpp

    about = xllamacpp.CommonParams()
    about.model.path = sys.argv[1]
    about.n_parallel, about.n_ctx = 4, 4 * 512
    about.cpuparams.n_threads = about.cpuparams_batch.n_threads = max(1, min(4, (os.cpu_count() or 2) // 2))
    about.fit_params = about.ui = False
    about.cache_ram_mib, about.verbosity, about.port = 64, 0, 0
    server = xllamacpp.Server(about)
    sys.stdout.write(server.listening_address + "\n")
    sys.stdout.flush()
    sys.stdin.read()
    os._exit(0)  # an ordinary exit waits for generations under way


if __name__ == "__main__":
    main()
