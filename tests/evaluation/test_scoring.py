from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import lm_eval.utils
import pytest
import torch
from tokenizers import processors
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from harness.errors import EvaluationError
from harness.evaluation.loading import load_benchmark
from harness.evaluation.scoring import Run, run_requests
from harness.evaluation.tasks import TaskSpec


def run(
    name: str, root: Path, model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, **task: int
) -> Run:
    return run_requests(
        [load_benchmark(TaskSpec(name=name, **task), root)],  # type: ignore[arg-type]
        model,
        tokenizer,
        tokenizer_sha256="of the tests",
        precision="fp32",
        token_budget=512,
        on_progress=None,
    )


def test_model_and_tokenizer_are_left_as_they_were(
    shared_root: Path, model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> None:
    model.train()
    model.model.layers[0].eval()
    model.config.use_cache = True
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    levels = logging.getLogger("lm_eval").level
    run("arc_easy", shared_root, model, tokenizer, limit=2)
    assert [module.training for module in model.modules()] == modes
    assert model.config.use_cache is True
    assert tokenizer.pad_token is None
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert logging.getLogger("lm_eval").level == levels
    assert "from_string" not in vars(lm_eval.utils.env)
    model.train()


def test_requests_longer_than_the_model_are_counted_by_task(
    shared_root: Path,
    make_model: Callable[..., LlamaForCausalLM],
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    # Independent count: a request of n tokens feeds n - 1 of them.
    loaded = load_benchmark(TaskSpec(name="hellaswag", shots=2, limit=6), shared_root)
    loaded.build_requests()
    lengths = [
        len(tokenizer.encode("".join(request.args)))
        for request in loaded.tasks["hellaswag"].instances
    ]
    middle = sorted(lengths)[len(lengths) // 2]
    model = make_model(max_length=middle)
    counted = run("hellaswag", shared_root, model, tokenizer, shots=2, limit=6)
    assert counted.max_length == middle
    assert counted.truncated["hellaswag"] == sum(length - 1 > middle for length in lengths) > 0


def test_an_answer_longer_than_the_model_is_named(
    shared_root: Path,
    make_model: Callable[..., LlamaForCausalLM],
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    with pytest.raises(EvaluationError, match=r"hellaswag: the answer '.*' is \d+ tokens long"):
        run("hellaswag", shared_root, make_model(max_length=4), tokenizer, shots=0)


def test_a_tokenizer_that_appends_eos_is_refused(
    shared_root: Path, model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> None:
    before = tokenizer.backend_tokenizer.post_processor
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    try:
        with pytest.raises(EvaluationError, match="appends EOS"):
            run("arc_easy", shared_root, model, tokenizer, limit=2)
    finally:
        tokenizer.backend_tokenizer.post_processor = before


def test_bf16_scores_are_computed_in_bf16_also_with_fp32_weights(
    shared_root: Path, model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> None:
    dtypes = set()
    hook = model.lm_head.register_forward_hook(lambda _m, _i, logits: dtypes.add(logits.dtype))
    done = run_requests(
        [load_benchmark(TaskSpec(name="arc_easy", limit=2), shared_root)],
        model,
        tokenizer,
        tokenizer_sha256="of the tests",
        precision="bf16",
        token_budget=512,
        on_progress=None,
    )
    hook.remove()
    assert model.dtype == torch.float32
    assert dtypes == {torch.bfloat16}
    samples = done.results["samples"]["arc_easy"]
    sums = [answer[0] for sample in samples for answer in sample["filtered_resps"]]
    assert sums
    coarse = [value for value in sums if value == torch.tensor(value).bfloat16().item()]
    assert len(coarse) < len(sums) / 2  # a softmax in bf16 would round every one of them
