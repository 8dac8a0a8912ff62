"""Run a module with FSDP2 over gloo: accelerate, which shards on GPUs alone, is told that each process has one.

python -m torch.distributed.run ... -m helpers.sharded_cpu MODULE ARGUMENTS
"""

from __future__ import annotations

import os
import runpy
import sys
from typing import Any

import torch
from accelerate.state import PartialState
from accelerate.utils import DistributedType

ENVIRONMENT = {
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
    "FSDP_CPU_RAM_EFFICIENT_LOADING": "true",
}
"""What `accelerate launch --use_fsdp --fsdp_version 2` sets."""


def main() -> None:
    """Run the module."""
    made = PartialState.__init__

    def sharding(self: Any, *args: Any, **kwargs: Any) -> None:
        made(self, *args, **kwargs)
        if self.distributed_type == DistributedType.MULTI_CPU:
            PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU

    state: Any = PartialState
    state.__init__ = sharding
    state.wait_for_everyone = lambda self: torch.distributed.barrier()  # accelerate's names the GPU
    os.environ.update(ENVIRONMENT)
    sys.argv = sys.argv[1:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
