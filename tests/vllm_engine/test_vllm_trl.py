"""TRL's trainers with the real vLLM on the CPU and the thinking model, two steps each: ``make test-vllm``.

Each trainer is a process of its own. On a CPU vLLM does two things otherwise than on a GPU, and both are undone here:
it packs the weights of its layers anew, so that TRL could not load others into them, and its server takes weights over
NCCL alone, so that here it keeps those that it was started with.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

QUESTIONS = [(7, 5), (18, 10), (3, 9), (20, 4), (5, 5), (8, 1)]
CAP, BUDGET = 40, 500


def right(completions, answer, **columns):
    """Whether the answer is in the last words."""
    return [float(a in c[0]["content"][-20:]) for c, a in zip(completions, answer, strict=True)]


def data():
    """Sums."""
    from datasets import Dataset

    rows = [
        {"prompt": [{"role": "user", "content": f"Take {a}. Add {b}. What is the result?"}], "answer": str(a + b)}
        for a, b in QUESTIONS
    ]
    return Dataset.from_list(rows)


def trained(folder: str, out: str, url: str) -> dict:
    """Two steps with the engine at this address, or with one in this process; what was counted, and by the engine."""
    import torch
    from trl import GRPOConfig
    from trl.generation import vllm_client
    from vllm import LLM
    from vllm.model_executor.layers import utils

    from budgeteer.adapters.trl import BudgetedGRPOTrainer

    def plain(layer, remove_weight):
        layer.cpu_linear = torch.nn.functional.linear

    utils.dispatch_cpu_unquantized_gemm = plain
    given = 0
    begin = LLM.__init__
    # compiling takes minutes; of its own accord vLLM halves the precision of weights in float32
    LLM.__init__ = lambda self, *args, **more: begin(self, *args, **{**more, "enforce_eager": True, "dtype": "float32"})
    generate, post, client = LLM.generate, vllm_client.VLLMClient._post, vllm_client.VLLMClient

    def counted(self, *args, **more):
        nonlocal given
        made = generate(self, *args, **more)
        given += sum(len(each.token_ids) for output in made for each in output.outputs)
        return made

    def posted(self, address, **more):
        nonlocal given
        answer = post(self, address, **more)
        given += sum(len(choice["token_ids"]) for choice in answer.get("choices", ()))
        return answer

    LLM.generate, client._post = counted, posted
    client.init_communicator = lambda self, device=0: None
    client.update_named_params = lambda self, metadata, params: [None for _ in params]
    mode = {"vllm_mode": "server", "vllm_server_base_url": url} if url else {"vllm_mode": "colocate"}
    args = GRPOConfig(
        out, per_device_train_batch_size=4, num_generations=2, max_completion_length=CAP, max_steps=2, use_cpu=True,
        bf16=False, report_to=[], use_vllm=True, vllm_max_model_length=512, save_strategy="no", logging_steps=1,
        learning_rate=0.0 if url else 1e-4, **mode,
    )  # fmt: skip
    trainer = BudgetedGRPOTrainer(
        folder, reward_funcs=right, args=args, train_dataset=data(), recipe="duet", budget=BUDGET
    )
    trainer.train()
    name = "sampling/sampling_logp_difference/max"
    apart = [row[name] for row in trainer.state.log_history if name in row]
    return {"used": trainer.spending.progress.used, "given": given, "apart": apart}


def worked(folder: str, url: str) -> dict:
    """Two steps of the worker for ``AsyncGRPOTrainer``; how far its log-probabilities are from the model's own."""
    import queue

    import torch
    import transformers

    from budgeteer.adapters.trl.async_worker import BudgetedRolloutWorker, VLLMServer
    from helpers.vllm_served import NAME

    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    worker = BudgetedRolloutWorker(
        data(), right, tokenizer, VLLMServer(url, NAME), recipe="duet", budget=BUDGET, steps=2, prompts=2,
        num_generations=4, max_tokens=CAP,
    )  # fmt: skip
    worker.start()
    samples = []
    while not (worker.ended.is_set() and worker.rollout_buffer.empty()):
        try:
            samples.append(worker.rollout_buffer.get(timeout=0.1))
        except queue.Empty:
            continue
    worker.stop()
    if worker.error is not None:
        raise worker.error
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    apart = []
    for sample in samples:
        ids = torch.from_numpy(sample.input_ids)
        with torch.no_grad():
            own = model(ids[None]).logits[0, :-1].log_softmax(-1).gather(1, ids[1:, None])[:, 0]
        learnt = torch.from_numpy(sample.completion_mask[1:] == 1)
        apart.append(float((own - torch.from_numpy(sample.old_log_probs[1:]))[learnt].abs().max()))
    return {"used": worker.spending.progress.used, "samples": len(samples), "apart": apart}


if __name__ == "__main__":
    sys.modules["numba"] = None  # type: ignore[assignment]  # the worker of vLLM 0.32 fails at a module of it
    what, model, place, address = sys.argv[1:]
    made = worked(model, address) if what == "worker" else trained(model, place, address)
    Path(place, "said.json").write_text(json.dumps(made))
    sys.exit()

pytestmark = pytest.mark.vllm
pytest.importorskip("vllm")
pytest.importorskip("trl")


def child(what: str, folder: Path, out: Path, url: str = "") -> dict:
    environment = {"VLLM_CPU_KVCACHE_SPACE": "1", **os.environ, "VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
    environment["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])
    out.mkdir()
    subprocess.run([sys.executable, __file__, what, str(folder), str(out), url], check=True, env=environment)
    said: dict = json.loads((out / "said.json").read_text())
    return said


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The thinking model in single precision: TRL starts vLLM with the type of the folder."""
    import torch
    import transformers

    from budgeteer.models.thinker import THINKER

    path = tmp_path_factory.mktemp("thinker")
    transformers.AutoModelForCausalLM.from_pretrained(THINKER, dtype=torch.float32).save_pretrained(path)
    transformers.AutoTokenizer.from_pretrained(THINKER).save_pretrained(path)
    return path


def test_in_the_trainers_process_the_bill_and_the_weights_are_right(folder, tmp_path) -> None:
    """The second step has the weights of the first update: vLLM's log-probabilities are the trainer's."""
    made = child("colocate", folder, tmp_path / "out")
    assert 0 < made["used"] <= BUDGET
    assert made["used"] >= made["given"]  # tokens that a steer forces are counted, and nobody generated them
    assert len(made["apart"]) == 2
    assert max(made["apart"]) < 1e-3


def test_on_a_server_the_bill_and_the_log_probabilities_are_right(folder, tmp_path) -> None:
    from helpers.vllm_served import served

    settings = ("--logprobs-mode", "processed_logprobs", "--max-logprobs", "-1")
    with served(tmp_path, *settings) as url:
        made = child("server", folder, tmp_path / "out", url)
        other = child("worker", folder, tmp_path / "worker", url)
    assert 0 < made["given"] <= made["used"] <= BUDGET
    assert len(made["apart"]) == 2
    assert max(made["apart"]) < 1e-3
    assert other["samples"] > 0
    assert 0 < other["used"] <= BUDGET
    assert max(other["apart"]) < 1e-3
