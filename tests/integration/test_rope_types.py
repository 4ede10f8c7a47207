"""For every rotary type of the installed transformers: numbers are those of one text at a time.

Some types take other frequencies where any sequence of a forward pass is long. Packing, shared
prefixes and batched generation must not show it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models
from torch import nn
from torch.nn.functional import log_softmax
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from harness.data.instructions import Example
from harness.evaluation.benchmark import Decoding
from harness.evaluation.lm_eval_session import lm_eval_session
from harness.evaluation.paper.cache_check import plain_logits, reason_against_cache
from harness.evaluation.paper.generator import Generator, Prompt, Response
from harness.evaluation.scorer import Scorer
from harness.methods.prompt_tuning import (
    PrefixTuningOptions,
    PromptTuningOptions,
    apply_prefix_tuning,
    apply_prompt_tuning,
)
from harness.models.positions import (
    FIXED_TYPES,
    SCALED_TYPES,
    forget_longer_passes,
    pass_dependence,
)
from harness.training.loss import ResponseLoss
from harness.training.micro_batches import number_sequences

VOCABULARY, POSITIONS, ORIGINAL = 61, 40, 12
LENGTHS = (4, 9, 13, 14, 30, 12)
"""Below, at and beyond ORIGINAL; all within the positions."""
LONGER = (*LENGTHS, 41, 40, 55, 42)
"""Also beyond the model's positions: the lengths at which `dynamic` grows."""
TYPES = ["default", *ROPE_INIT_FUNCTIONS]
CPU = torch.device("cpu")


def parameters(kind: str, *, heads: int = 4) -> dict[str, Any]:
    """Rotary settings of a type under which long sequences differ much from short ones."""
    stated: dict[str, Any] = {"rope_type": kind, "rope_theta": 100.0}
    if kind not in ("default", "proportional"):
        stated |= {"factor": 8.0}
    if kind in ("yarn", "longrope", "llama3"):
        stated["original_max_position_embeddings"] = ORIGINAL
    if kind == "longrope":
        stated |= {"short_factor": [1.0] * heads, "long_factor": [2.0 + n for n in range(heads)]}
    if kind == "llama3":
        stated |= {"low_freq_factor": 1.0, "high_freq_factor": 4.0}
    return stated


def make(kind: str, family: str = "llama", **sizes: Any) -> Any:
    """A random model with rotary settings of a type."""
    rope = parameters(kind)
    if family == "gemma3_text":  # one setting for each type of layer
        rope = {"full_attention": rope, "sliding_attention": parameters("default")}
    config = AutoConfig.for_model(
        family,
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=POSITIONS,
        rope_parameters=rope,
        **sizes,
    )
    model = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")
    random = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.normal_(std=1.5 * parameter.shape[1] ** -0.5, generator=random)
    forget_longer_passes(model)
    return model.eval()


def texts(lengths: Sequence[int] = LONGER) -> list[list[int]]:
    """Token ids that begin alike, so that there is something to share."""
    random = torch.Generator().manual_seed(5)
    common = torch.randint(3, VOCABULARY, (100,), generator=random).tolist()
    own = [torch.randint(3, VOCABULARY, (n,), generator=random).tolist() for n in lengths]
    return [[*common[: n // 2], *one[n // 2 :]] for n, one in zip(lengths, own, strict=True)]


def alone(model: Any, ids: list[int], first: int) -> torch.Tensor:
    """The log-likelihood of a text's tokens from `first` on, the text alone in the model."""
    logits = model(input_ids=torch.tensor([ids[:-1]]), use_cache=False).logits
    logs = log_softmax(logits[0, first - 1 :].float(), -1)
    return logs.gather(1, torch.tensor(ids[first:])[:, None]).sum()


def test_the_types_are_those_of_transformers() -> None:
    assert set(SCALED_TYPES) == {"default", *ROPE_INIT_FUNCTIONS}
    assert set(TYPES) >= FIXED_TYPES


def losses(model: nn.Module, lengths: Sequence[int], budget: int) -> torch.Tensor:
    examples = [Example(tuple(ids), 2) for ids in texts(lengths)]
    loss = ResponseLoss(model)
    parts = loss.micro_batches(
        number_sequences(examples), token_budget=budget, pad_token_id=0, device=CPU
    )
    return torch.stack([loss(part) for part in parts]).sum()


@pytest.mark.parametrize("kind", TYPES)
def test_no_token_budget_changes_the_loss_or_its_gradient(kind: str) -> None:
    model = make(kind)
    weight = model.model.layers[0].self_attn.q_proj.weight
    expected = -torch.stack([alone(model, ids, 2) for ids in texts()]).sum()
    (gradient,) = torch.autograd.grad(expected, [weight])
    for budget in (60, 150, 1000):
        found = losses(model, LONGER, budget)
        assert found.item() == pytest.approx(expected.item(), rel=1e-5), budget
        (other,) = torch.autograd.grad(found, [weight])
        assert torch.allclose(other, gradient, rtol=1e-3, atol=1e-3 * float(gradient.abs().max()))


@pytest.mark.parametrize("kind", ["dynamic", "longrope"])
@pytest.mark.parametrize("method", ["prompt", "prefix"])
def test_no_token_budget_changes_the_loss_after_virtual_tokens(kind: str, method: str) -> None:
    model = make(kind)
    if method == "prompt":
        model = apply_prompt_tuning(model, PromptTuningOptions(num_virtual_tokens=3), 3)
    else:
        model = apply_prefix_tuning(model, PrefixTuningOptions(num_virtual_tokens=3), 3)
    one_by_one = losses(model.eval(), LONGER, max(LONGER))
    assert losses(model, LONGER, 1000).item() == pytest.approx(one_by_one.item(), rel=1e-5)


@pytest.mark.parametrize(
    ("family", "sizes"),
    [
        ("gemma3_text", {"head_dim": 8, "sliding_window": 64}),
        ("phi3", {"pad_token_id": 0, "original_max_position_embeddings": ORIGINAL}),
    ],
)
def test_layers_with_frequencies_of_their_own(family: str, sizes: dict[str, Any]) -> None:
    model = make("longrope", family, **sizes)
    assert pass_dependence(model) is not None
    with torch.no_grad():
        expected = -sum(float(alone(model, ids, 2)) for ids in texts(LENGTHS))
    for budget in (40, 1000):
        assert losses(model, LENGTHS, budget).item() == pytest.approx(expected, rel=1e-5)


def test_a_short_pass_does_not_remember_a_long_one() -> None:
    model, (exact, longer) = make("dynamic"), texts((POSITIONS + 1, POSITIONS + 20))
    with torch.no_grad():
        fresh = alone(model, exact, 2)
        alone(model, longer, 2)
        assert torch.equal(alone(model, exact, 2), fresh)


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    words = {"<unk>": 0, "<s>": 1, "</s>": 2} | {f"w{n}": n for n in range(3, VOCABULARY)}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="<unk>")),
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
    )


@pytest.mark.parametrize("kind", TYPES)
def test_scores_are_those_of_one_request_at_a_time(
    kind: str, tokenizer: PreTrainedTokenizerFast
) -> None:
    model, requests = make(kind), []
    for ids in texts():  # two answers behind each context
        requests += [(("", ""), ids[:-2], ids[-2:]), (("", ""), ids[:-2], [5, 6])]
    with lm_eval_session(model, tokenizer):
        scorer = Scorer(model, tokenizer)
        scorer._task_names = ["task"] * len(requests)
        scorer._picture_names = [None] * len(requests)
        found = scorer._loglikelihood_tokens(requests)
    for (_, context, answer), (value, _) in zip(requests, found, strict=True):
        whole = [*context, *answer][-(POSITIONS + 1) :]
        with torch.no_grad():
            expected = float(alone(model, whole, len(whole) - len(answer)))
        assert value == pytest.approx(expected, abs=2e-4), len(whole)


@pytest.mark.parametrize("kind", TYPES)
def test_responses_are_those_of_one_prompt_at_a_time(kind: str) -> None:
    model, steps = make(kind), 6
    prompts = [Prompt(tuple(ids), str(n), "group") for n, ids in enumerate(texts(LENGTHS))]
    reason = reason_against_cache(
        model, [one.tokens for one in prompts], None, max_new_tokens=steps
    )
    assert (reason is not None) == (kind == "longrope")
    found: dict[int, Response] = {}
    decoding = Decoding(temperature=0.0, top_p=1.0, max_new_tokens=steps, seed=0)
    Generator(
        model, decoding, end_tokens=frozenset(), num_rows=3, reason_against_cache=reason
    ).generate(prompts, found.__setitem__)
    for number, prompt in enumerate(prompts):
        row = list(prompt.tokens)
        for _ in range(steps):
            row.append(int(plain_logits(model, [row])[0].argmax()))
        assert found[number].tokens == tuple(row[len(prompt.tokens) :])
