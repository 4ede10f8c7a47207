from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tokenizers import processors
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from harness.errors import EvaluationError, ModelError
from harness.evaluation.loading import load_benchmark
from harness.evaluation.scores import TaskOutcome
from harness.evaluation.scoring import score_benchmarks
from harness.evaluation.tasks import TaskSpec


def run(
    name: str,
    root: Path,
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    precision: str = "fp32",
    **task: int,
) -> TaskOutcome:
    loaded = load_benchmark(TaskSpec(name=name, **task), root)  # type: ignore[arg-type]
    (outcome,) = score_benchmarks([loaded], model, tokenizer, precision=precision, token_budget=512)
    return outcome


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
    outcome = run("hellaswag", shared_root, model, tokenizer, shots=2, limit=6)
    cut = sum(length - 1 > middle for length in lengths)
    assert 0 < cut < len(lengths)
    for score in outcome.scores:
        assert (
            f"{cut} of {len(lengths)} requests are longer than the model's {middle} positions and "
            "lost their beginning"
        ) in (score.note or "")


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
        with pytest.raises(ModelError, match="appends EOS"):
            run("arc_easy", shared_root, model, tokenizer, limit=2)
    finally:
        tokenizer.backend_tokenizer.post_processor = before


def test_bf16_scores_are_computed_in_bf16_also_with_fp32_weights(
    shared_root: Path, model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> None:
    dtypes = set()
    hook = model.lm_head.register_forward_hook(lambda _m, _i, logits: dtypes.add(logits.dtype))
    done = run("arc_easy", shared_root, model, tokenizer, precision="bf16", limit=2)
    hook.remove()
    assert model.dtype == torch.float32
    assert dtypes == {torch.bfloat16}
    sums = [value for item in done.items["choices_loglikelihoods"] for value in item]
    assert sums
    coarse = [value for value in sums if value == torch.tensor(value).bfloat16().item()]
    assert len(coarse) < len(sums) / 2  # a softmax in bf16 would round every one of them
