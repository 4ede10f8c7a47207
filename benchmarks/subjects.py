"""What the speed measurements run: models of known shapes, real requests, and the two scorers."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lm_eval.models.huggingface import HFLM
from transformers import LlamaConfig, LlamaForCausalLM

from harness.evaluation.loading import load_benchmark
from harness.evaluation.scorer import Scorer
from harness.evaluation.tasks import TaskSpec

TASKS = {
    "arc_easy": ("arc_easy",),
    "arc_challenge": ("arc_challenge",),
    "mmlu": ("mmlu",),
    "hellaswag": ("hellaswag",),
    "truthfulqa": ("truthfulqa_mc1", "truthfulqa_mc2"),
}
"""Benchmarks that are scored together, at their own number of shots: hellaswag at 10."""
SUBJECTS = 57
"""Of mmlu."""
SHAPES = {  # width, width of the MLP, layers, heads
    "tiny": (64, 176, 4, 4),
    "15M": (288, 768, 6, 6),
    "110M": (768, 2048, 12, 12),
    "7B/2": (4096, 11008, 2, 32),
    "7B": (4096, 11008, 32, 32),
}
"""`7B/2` is two layers of 7B's width."""


def load_model(
    name: str, *, device: str | None = None, dtype: torch.dtype | None = None
) -> LlamaForCausalLM:
    """Returns a random LLaMA of a shape.

    Args:
        name: a key of SHAPES.
        device: where it is made; None for the GPU if there is one.
        dtype: of its weights; None for bf16 on a GPU, else fp32.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    dtype = dtype or (torch.bfloat16 if device.startswith("cuda") else torch.float32)
    width, mlp, layers, heads = SHAPES[name]
    config = LlamaConfig(
        vocab_size=32000,
        hidden_size=width,
        intermediate_size=mlp,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        max_position_embeddings=2048,
        use_cache=False,
    )
    torch.manual_seed(0)
    with torch.device(device):
        torch.set_default_dtype(dtype)
        try:
            return LlamaForCausalLM(config).eval()
        finally:
            torch.set_default_dtype(torch.float32)


def requests_of(task: str, items: int, root: Path) -> list[list[Any]]:
    """Returns the requests of the first items of each benchmark of a task.

    Of mmlu, each of its 57 subjects gives as many, and the last subjects none where that is enough.
    """
    found = []
    limit = -(-items // SUBJECTS) if task == "mmlu" else items
    for name in TASKS[task]:
        loaded = load_benchmark(TaskSpec(name=name, limit=limit), root)
        loaded.build_requests()
        everything = [one for member in loaded.tasks.values() for one in member.instances]
        kept = set(list(dict.fromkeys((one.task_name, one.doc_id) for one in everything))[:items])
        found.append([one for one in everything if (one.task_name, one.doc_id) in kept])
    return found


def score_ours(model: Any, tokenizer: Any, requests: Sequence[list[Any]], budget: int) -> Any:
    """Returns the answers to all requests, together."""
    scorer = Scorer(model, tokenizer, token_budget=budget)
    answers = scorer.loglikelihood([one for benchmark in requests for one in benchmark])
    assert scorer.batching.fallback is None, scorer.batching
    return answers


def score_hflm(model: Any, tokenizer: Any, requests: Sequence[list[Any]], size: int) -> Any:
    """Returns the answers to all requests, benchmark by benchmark, as lm-eval's users get them."""
    answers = []
    for benchmark in requests:
        peer = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=size, softmax_dtype="float32")
        answers += peer.loglikelihood(benchmark, disable_tqdm=True)
    return answers


def count_tokens(model: Any, tokenizer: Any, requests: Sequence[list[Any]]) -> tuple[int, int]:
    """Returns the tokens that HFLM feeds without padding, and those of the trie."""
    counter, fed, everything = Scorer(model, tokenizer), 0, set()
    for benchmark in requests:
        queries: set[tuple[int, ...]] = set()
        for context, answer in (one.args for one in benchmark):
            tokens = sum(counter._encode_pair(context, answer), [])
            queries.add(tuple(tokens[-(counter.max_length + 1) :][:-1]))
        # HFLM runs requests that differ in the last token of the answer once.
        fed += sum(len(query) for query in queries)
        everything |= queries
    nodes, before = 0, ()
    for query in sorted(everything):
        shared = next(
            (i for i, pair in enumerate(zip(before, query, strict=False)) if pair[0] != pair[1]),
            min(len(before), len(query)),
        )
        nodes, before = nodes + len(query) - shared, query
    return fed, nodes


def matrix_peak(dtype: torch.dtype) -> float:
    """Returns the operations per second that one large matrix product reaches on the GPU."""
    size = 8192
    left = torch.randn(size, size, device="cuda", dtype=dtype)
    right = torch.randn(size, size, device="cuda", dtype=dtype)
    for _ in range(3):
        left @ right
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(20):
        left @ right
    torch.cuda.synchronize()
    return 20 * 2 * size**3 / (time.perf_counter() - start)
