"""lm-eval's model class: prompts as `HFLM` encodes them with BOS, responses as they read on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from harness.errors import EvaluationError
from harness.evaluation.benchmark import Decoding
from harness.evaluation.loading import load_benchmark
from harness.evaluation.paper.model import GeneratingModel
from harness.evaluation.scorer import Scorer
from harness.evaluation.tasks import TaskSpec
from harness.models.devices import DTYPES
from tests.evaluation.conftest import Rows

PAPER_DECODING = Decoding(temperature=0.1, top_p=0.75, max_new_tokens=512)
GREEDY = replace(PAPER_DECODING, temperature=0.0, max_new_tokens=12)


def asked(texts: list[str], **settings: Any) -> list[Instance]:
    settings = {"until": [], "do_sample": False, "max_gen_toks": 12} | settings
    return [
        Instance("generate_until", doc={}, arguments=(text, dict(settings)), idx=0,
                 metadata=("ours", number, 1))
        for number, text in enumerate(texts)
    ]  # fmt: skip


def texts(count: int, low: int = 3, high: int = 30) -> list[str]:
    rows = Rows()
    return [f"Q: {rows.text(low, high)}\n### Response:" for _ in range(count)]


def test_greedy_text_is_that_of_hflm(
    make_model: Callable[..., Any], tokenizer: PreTrainedTokenizerFast
) -> None:
    model = make_model(3).eval()
    requests = asked(texts(9))
    expected = HFLM(
        pretrained=model, tokenizer=tokenizer, batch_size=4, add_bos_token=True
    ).generate_until(list(requests), disable_tqdm=True)
    speaker = GeneratingModel(model, tokenizer, decoding=GREEDY, num_rows=4)
    assert speaker.generate_until(requests) == expected
    assert len(set(expected)) > 3


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_generation_and_scoring_compute_in_the_precision(
    make_model: Callable[..., Any], tokenizer: PreTrainedTokenizerFast, precision: str
) -> None:
    """The weights are in fp32, as a model's that is trained in full."""
    model, found = make_model(3).eval(), set()
    model.lm_head.register_forward_hook(lambda _head, _inputs, logits: found.add(logits.dtype))
    decoding = replace(GREEDY, max_new_tokens=2)
    speaker = GeneratingModel(model, tokenizer, decoding=decoding, precision=precision)
    speaker.generate_until(asked(texts(2)))
    scorer = Scorer(model, tokenizer, precision=precision)
    scorer.loglikelihood([Instance("loglikelihood", doc={}, arguments=("river", " stone"), idx=0)])
    assert found == {getattr(torch, DTYPES[precision])}  # type: ignore[index]


def test_every_prompt_begins_with_one_bos(tokenizer: PreTrainedTokenizerFast, model: Any) -> None:
    speaker = GeneratingModel(model, tokenizer, decoding=GREEDY)
    tokens = speaker.encode_prompt("river stone")
    assert tokens[0] == tokenizer.bos_token_id
    assert tokens == tuple(tokenizer("river stone").input_ids)
    bare = type(tokenizer)(
        tokenizer_object=tokenizer.backend_tokenizer, bos_token="<s>", eos_token="</s>"
    )
    bare.backend_tokenizer.post_processor = None  # a tokenizer that adds none
    try:
        assert GeneratingModel(model, bare, decoding=GREEDY).encode_prompt("river stone") == tokens
    finally:
        tokenizer.backend_tokenizer.post_processor = speaker_processor(tokenizer)


def speaker_processor(tokenizer: PreTrainedTokenizerFast) -> Any:
    from tokenizers import processors

    return processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", tokenizer.bos_token_id)]
    )


def test_a_special_token_spelt_in_a_text_is_letters(
    tokenizer: PreTrainedTokenizerFast, model: Any
) -> None:
    tokens = GeneratingModel(model, tokenizer, decoding=GREEDY).encode_prompt("a </s> b")
    assert tokenizer.eos_token_id not in tokens


def test_a_prompt_that_is_too_long_loses_its_beginning_as_in_hflm(
    make_model: Callable[..., Any], tokenizer: PreTrainedTokenizerFast
) -> None:
    model = make_model(3, max_length=64).eval()
    rows = Rows()
    long = asked([f"{rows.text(80, 90)} ### Response:" for _ in range(3)])
    # Alone, so that HFLM cuts no more from one prompt than its own length asks for.
    peer = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=1, add_bos_token=True)
    expected = peer.generate_until(list(long), disable_tqdm=True)
    speaker = GeneratingModel(model, tokenizer, decoding=GREEDY)
    assert speaker.longest_prompt == 64 - 12
    assert speaker.generate_until(long + asked(texts(2, 2, 3)))[:3] == expected
    assert speaker.truncated == {"ours": 3}


def test_few_positions_are_shared_by_prompt_and_response(
    make_model: Callable[..., Any], tokenizer: PreTrainedTokenizerFast
) -> None:
    speaker = GeneratingModel(make_model(3, max_length=64), tokenizer, decoding=PAPER_DECODING)
    assert speaker.decoding.max_new_tokens == 32
    assert speaker.longest_prompt == 32
    large = GeneratingModel(make_model(3, max_length=2048), tokenizer, decoding=PAPER_DECODING)
    assert large.decoding.max_new_tokens == 512
    assert large.longest_prompt == 1536


def test_progress_is_told_for_each_response(model: Any, tokenizer: PreTrainedTokenizerFast) -> None:
    seen: list[tuple[int, int]] = []
    speaker = GeneratingModel(
        model.eval(), tokenizer, decoding=GREEDY, on_progress=lambda *told: seen.append(told)
    )
    speaker.generate_until(asked(texts(5)))
    assert seen == [(done, 5) for done in range(1, 6)]


def test_a_tokenizer_without_eos_is_refused(model: Any, tokenizer: PreTrainedTokenizerFast) -> None:
    bare = PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer, bos_token="<s>")
    with pytest.raises(EvaluationError, match="has no EOS token"):
        GeneratingModel(model, bare, decoding=GREEDY)


def test_bf16_runs_under_autocast(model: Any, tokenizer: PreTrainedTokenizerFast) -> None:
    speaker = GeneratingModel(model.eval(), tokenizer, decoding=GREEDY, precision="bf16")
    assert len(speaker.generate_until(asked(texts(3)))) == 3
    assert speaker.batching.fallback is None


@pytest.fixture(scope="module")
def llama_tokenizer(real_root: Path) -> Any:
    return AutoTokenizer.from_pretrained(real_root / "llama_tokenizer")


def test_llamas_responses_keep_their_first_space(model: Any, llama_tokenizer: Any) -> None:
    speaker = GeneratingModel(model, llama_tokenizer, decoding=GREEDY)
    prompt = speaker.encode_prompt("### Instruction:\nWhy?\n\n### Response:")
    for response in (" Because it is so.", "Because", "  two", "\nline", "é ü 漢", "-1"):
        ids = llama_tokenizer(f"### Response:{response}", add_special_tokens=False).input_ids
        mark = llama_tokenizer("### Response:", add_special_tokens=False).input_ids
        if ids[: len(mark)] != mark:
            continue  # the colon joined the response: no model that reads the prompt can say so
        assert speaker.decode_response(prompt, tuple(ids[len(mark) :])) == response


@pytest.mark.parametrize("name", ["paper_arc_challenge", "paper_mmlu", "paper_truthfulqa"])
def test_real_prompts_are_encoded_as_hflm_does(
    name: str, real_root: Path, llama_tokenizer: Any, model: Any
) -> None:
    loaded = load_benchmark(TaskSpec(name=name, limit=12), real_root)
    loaded.build_requests()
    peer = HFLM(pretrained=model, tokenizer=llama_tokenizer, add_bos_token=True)
    speaker = GeneratingModel(model, llama_tokenizer, decoding=PAPER_DECODING)
    for task in loaded.tasks.values():
        for request in task.instances:
            ids, _ = peer.tok_batch_encode([request.args[0]])
            assert speaker.encode_prompt(request.args[0]) == tuple(ids[0].tolist())


def test_sampled_text_on_real_items_is_the_same_for_any_number_of_rows(real_root: Path) -> None:
    """Low bits can move a draw near a boundary; of these 900 tokens none is so near."""
    folder = real_root / "stories260k_hf"
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    loaded = load_benchmark(TaskSpec(name="paper_arc_easy", limit=30), real_root)
    loaded.build_requests()
    requests = [one for task in loaded.tasks.values() for one in task.instances]
    decoding = replace(PAPER_DECODING, max_new_tokens=30)
    found = [
        GeneratingModel(model, tokenizer, decoding=decoding, num_rows=rows).generate_until(requests)
        for rows in (1, 7, 64)
    ]
    assert found[0] == found[1] == found[2]
    assert len(set(found[0])) > 25
