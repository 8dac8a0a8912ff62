"""SmolLM2 on llama.cpp, as a process of its own: ``python -m budgeteer.gateway.demo.llama MODEL.gguf``.

It prints its address once it listens, and ends when its standard input is closed: with the process that started it.
"""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Serve until the standard input is closed."""
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"  # before the import: spinning threads slow down all else on few cores
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
    os._exit(0)  # an ordinary exit would wait for running generations


if __name__ == "__main__":
    main()
