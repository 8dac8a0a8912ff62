"""SkyRL with advantages that are right for groups of any size. Not run on GPUs by this project.

    python examples/skyrl_ragged.py trainer.algorithm.advantage_estimator=budgeteer_grpo ...

It is SkyRL's own entry point with one line more, after its example of a custom estimator.
"""

import sys

import ray
from skyrl.train.config import SkyRLTrainConfig
from skyrl.train.entrypoints.main_base import BasePPOExp, validate_cfg
from skyrl.train.utils import initialize_ray

from budgeteer.adapters.skyrl import register


@ray.remote(num_cpus=1)
def run(cfg: SkyRLTrainConfig) -> None:
    """The run, in a process of its own, which has a registry of its own."""
    register()
    BasePPOExp(cfg).run()


if __name__ == "__main__":
    register()  # before the configuration is validated
    settings = SkyRLTrainConfig.from_cli_overrides(sys.argv[1:])
    validate_cfg(settings)
    initialize_ray(settings)
    ray.get(run.remote(settings))
