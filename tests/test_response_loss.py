"""The loss of a micro-batch: the responses' tokens and nothing else, however it is laid out."""

from __future__ import annotations

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import Gemma2Config, Gemma2ForCausalLM

from harness.data import Example
from harness.methods.virtual_tokens import (
    PrefixTuningOptions,
    PromptTuningOptions,
    apply_prefix_tuning,
    apply_prompt_tuning,
)
from harness.response_loss import ResponseLoss, micro_batches
from tests.tiny import TRAINED, adapted, random_examples, relative_distance, tiny_llama

CPU = torch.device("cpu")
EXAMPLES = random_examples(9)


def our_loss(model: nn.Module, examples: list[Example], size: int, pad: int = 0) -> torch.Tensor:
    loss = ResponseLoss(model)
    batches = micro_batches(examples, size, pad_token_id=pad, device=CPU)
    return torch.stack([loss(b.input_ids, b.positions, b.labels) for b in batches]).sum()


def transformers_loss(model: nn.Module, examples: list[Example]) -> torch.Tensor:
    """The sum over labels as transformers itself computes it, one sequence at a time."""
    total = torch.zeros(())
    for example in examples:
        ids = torch.tensor([example.token_ids])
        labels = ids.clone()
        labels[:, : example.num_prompt_tokens] = -100
        total = total + model(input_ids=ids, labels=labels).loss * example.num_labels
    return total


@pytest.mark.parametrize("name", TRAINED)
@pytest.mark.parametrize("size", [1, 4, 9])
def test_loss_and_gradients_are_transformers_own(name: str, size: int) -> None:
    options = {"rank": 4} if name == "dora" else {}  # its own is for larger layers
    model = adapted(name, moved=True, **options)
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    expected_loss = transformers_loss(model, EXAMPLES)
    expected = torch.autograd.grad(expected_loss, list(trained.values()))
    loss = our_loss(model, EXAMPLES, size)
    assert loss.item() == pytest.approx(expected_loss.item(), rel=1e-5)
    for parameter, gradient, other in zip(
        trained, torch.autograd.grad(loss, list(trained.values())), expected, strict=True
    ):
        assert other.norm() > 0, parameter
        assert relative_distance(gradient, other) < 1e-5, parameter


def test_peft_model_is_looked_into() -> None:
    model = get_peft_model(
        tiny_llama(), LoraConfig(r=4, target_modules=["q_proj"], init_lora_weights=False)
    ).eval()
    expected = transformers_loss(model, EXAMPLES)
    assert our_loss(model, EXAMPLES, 4).item() == pytest.approx(expected.item(), rel=1e-5)
    plain = transformers_loss(tiny_llama(), EXAMPLES)
    assert abs(expected.item() - plain.item()) > 1e-2  # the adapter was in it


def behind_prompts(name: str) -> nn.Module:
    if name == "prefix-tuning":
        return apply_prefix_tuning(tiny_llama(), PrefixTuningOptions(num_virtual_tokens=5), 3)
    return apply_prompt_tuning(tiny_llama(), PromptTuningOptions(num_virtual_tokens=7), 3)


@pytest.mark.parametrize("size", [1, 4, 9])
@pytest.mark.parametrize("name", ["prefix-tuning", "prompt-tuning"])
def test_virtual_tokens_stand_before_each_sequence(name: str, size: int) -> None:
    model = behind_prompts(name)
    (trained,) = [value for value in model.parameters() if value.requires_grad]
    expected_loss = transformers_loss(model, EXAMPLES)
    (expected,) = torch.autograd.grad(expected_loss, [trained])
    loss = our_loss(model, EXAMPLES, size)
    assert loss.item() == pytest.approx(expected_loss.item(), rel=1e-5)
    (found,) = torch.autograd.grad(loss, [trained])
    assert relative_distance(found, expected) < 1e-5
    assert abs(loss.item() - transformers_loss(tiny_llama(), EXAMPLES).item()) > 1e-2


@pytest.mark.parametrize("name", ["prefix-tuning", "prompt-tuning"])
def test_a_forward_pass_leaves_no_cache_behind(name: str) -> None:
    model = behind_prompts(name)
    first = our_loss(model, EXAMPLES, 4)
    assert torch.equal(our_loss(model, EXAMPLES, 4), first)
    assert model.config.use_cache is True


@pytest.mark.parametrize("name", ["prefix-tuning", "prompt-tuning"])
def test_behind_prompts_the_head_sees_columns_with_labels_only(name: str) -> None:
    model = behind_prompts(name)
    widths = []
    model.get_base_model().lm_head.register_forward_hook(
        lambda _module, inputs, _output: widths.append(inputs[0].shape[1])
    )
    our_loss(model, [Example(tuple(range(20)), 17), Example(tuple(range(9)), 6)], 2)
    assert widths == [3 + 3]  # before the labels: columns 16 to 18 and 5 to 7


def test_capped_logits_are_capped() -> None:
    sizes = {"vocab_size": 96, "hidden_size": 32, "intermediate_size": 48, "head_dim": 8}
    counts = {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    torch.manual_seed(0)
    config = Gemma2Config(**sizes, **counts, final_logit_softcapping=1.5, initializer_range=0.5)
    model = Gemma2ForCausalLM._from_config(config, attn_implementation="eager").eval()
    expected = transformers_loss(model, EXAMPLES)
    assert our_loss(model, EXAMPLES, 4).item() == pytest.approx(expected.item(), rel=1e-5)
    model.config.final_logit_softcapping = None
    assert abs(transformers_loss(model, EXAMPLES).item() - expected.item()) > 1


def test_labels_are_the_response_only() -> None:
    (batch,) = micro_batches([Example((1, 2, 3, 4, 5), 3)], 1, pad_token_id=0, device=CPU)
    assert batch.labels.tolist() == [4, 5]
    assert batch.positions.tolist() == [2, 3]  # of the tokens 3 and 4, which predict them


def test_micro_batches_are_padded_to_their_longest() -> None:
    examples = [Example((7,) * length, 1) for length in (3, 8, 2, 6, 5)]
    batches = list(micro_batches(examples, 2, pad_token_id=0, device=CPU))
    assert [tuple(batch.input_ids.shape) for batch in batches] == [(2, 8), (2, 5), (1, 2)]
    assert batches[0].input_ids[1].tolist() == [7] * 6 + [0, 0]


def test_padding_token_changes_no_bit() -> None:
    model = adapted("zero-init-linear", moved=True)
    losses = {our_loss(model, EXAMPLES, 9, pad).item() for pad in (0, 5, 95)}
    assert len(losses) == 1


def test_example_without_labels_is_left_out() -> None:
    unlearned = Example((1, 2, 3), 3)
    model = tiny_llama()
    assert torch.equal(our_loss(model, [*EXAMPLES, unlearned], 4), our_loss(model, EXAMPLES, 4))
    assert list(micro_batches([unlearned], 4, pad_token_id=0, device=CPU)) == []


def test_logits_are_computed_at_labels_only() -> None:
    model = tiny_llama()
    rows = []
    model.lm_head.register_forward_hook(
        lambda _module, inputs, _output: rows.append(inputs[0].shape)
    )
    our_loss(model, EXAMPLES, 9)
    assert rows == [(sum(example.num_labels for example in EXAMPLES), 32)]
