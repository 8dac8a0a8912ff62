"""OpenRLHF with advantages that are right for groups of any size. Not run on GPUs by this project.

    python examples/openrlhf_ragged.py --algo.advantage.estimator group_norm ...

The arguments are those of ``python -m openrlhf.cli.train_ppo_ray``, which runs here as it is, in a Ray whose processes
call ``install`` first.
"""

import runpy

import ray

if __name__ == "__main__":
    ray.init(runtime_env={"worker_process_setup_hook": "budgeteer.adapters.openrlhf.install"})
    runpy.run_module("openrlhf.cli.train_ppo_ray", run_name="__main__")
