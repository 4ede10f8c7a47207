"""The loss of a micro-batch: the responses' tokens and nothing else, however it is laid out."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import Gemma2Config, Gemma2ForCausalLM

from harness.data.instructions import Example, label_runs, tokenize
from harness.data.rows import Completion, Conversation, Instruction, Text, Turn
from harness.methods.prompt_tuning import (
    PrefixTuningOptions,
    PromptTuningOptions,
    apply_prefix_tuning,
    apply_prompt_tuning,
)
from harness.training.loss import MicroBatch, PaddedBatch, ResponseLoss, padded_batches
from harness.training.micro_batches import number_sequences
from harness.training.packing import PackedRow
from tests.fixtures.chat_models import chat_model, chat_tokenizer
from tests.fixtures.tiny import TRAINED, adapted, random_examples, relative_distance, tiny_llama

CPU = torch.device("cpu")
EXAMPLES = random_examples(9)
CONVERSATIONS = [
    replace(one, holes=((one.num_prompt_tokens + 1, one.num_prompt_tokens + 3),))
    for one in random_examples(6, seed=4)
]
"""With a turn that is not in the loss; the last two go on as the first does."""
CONVERSATIONS += [
    Example((*CONVERSATIONS[0].token_ids[:6], *range(20, 20 + size)), 2, ((3, 5), (7, 9)))
    for size in (4, 9)
]

BUDGETS = [30, 90, 1000]


def batches_of(
    loss: ResponseLoss, examples: list[Example], budget: int = 1000, *, pad: int = 0
) -> list[MicroBatch]:
    sequences = number_sequences(examples)
    return list(loss.micro_batches(sequences, token_budget=budget, pad_token_id=pad, device=CPU))


def our_loss(
    model: nn.Module, examples: list[Example], budget: int = 1000, pad: int = 0
) -> torch.Tensor:
    loss = ResponseLoss(model)
    batches = batches_of(loss, examples, budget, pad=pad)
    return torch.stack([loss(batch) for batch in batches]).sum()


def padded(examples: list[Example], budget: int = 1000, pad: int = 0) -> list[PaddedBatch]:
    sequences = number_sequences(examples)
    return list(padded_batches(sequences, budget, pad_token_id=pad, device=CPU))


def transformers_loss(model: nn.Module, examples: list[Example]) -> torch.Tensor:
    """The sum over labels as transformers itself computes it, one sequence at a time."""
    total = torch.zeros(())
    for example in examples:
        ids = torch.tensor([example.token_ids])
        labels = ids.clone()
        for start, end in ((0, example.num_prompt_tokens), *example.holes):
            labels[:, start:end] = -100
        total = total + model(input_ids=ids, labels=labels).loss * example.num_labels
    return total


@pytest.mark.parametrize("name", TRAINED)
@pytest.mark.parametrize("budget", BUDGETS)
def test_loss_and_gradients_are_transformers_own(name: str, budget: int) -> None:
    options = {"rank": 4} if name == "dora" else {}  # its own is for larger layers
    model = adapted(name, moved=True, **options)
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    expected_loss = transformers_loss(model, EXAMPLES)
    expected = torch.autograd.grad(expected_loss, list(trained.values()))
    loss = our_loss(model, EXAMPLES, budget)
    assert loss.item() == pytest.approx(expected_loss.item(), rel=1e-5)
    for parameter, gradient, other in zip(
        trained, torch.autograd.grad(loss, list(trained.values())), expected, strict=True
    ):
        assert other.norm() > 0, parameter
        assert relative_distance(gradient, other) < 1e-5, parameter


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("kind", ["qwen3", "llama3", "mistral"])
def test_turns_between_are_context_alone(kind: str, share: bool) -> None:
    model = chat_model(kind).train()
    trained = list(model.parameters())
    expected_loss = transformers_loss(model, CONVERSATIONS)
    expected = torch.autograd.grad(expected_loss, trained)
    loss, sequences = ResponseLoss(model), number_sequences(CONVERSATIONS)
    for budget in BUDGETS:
        batches = loss.micro_batches(
            sequences, token_budget=budget, pad_token_id=0, device=CPU, share=share
        )
        total = torch.stack([loss(batch) for batch in batches]).sum()
        assert total.item() == pytest.approx(expected_loss.item(), rel=1e-5)
        for gradient, other in zip(torch.autograd.grad(total, trained), expected, strict=True):
            assert relative_distance(gradient, other) < 1e-5


def test_padded_batches_leave_the_turns_between_out() -> None:
    model = tiny_llama()
    expected = transformers_loss(model, CONVERSATIONS).item()
    for budget in BUDGETS:
        loss = ResponseLoss(model)
        found = sum(loss(batch).item() for batch in padded(CONVERSATIONS, budget))
        assert found == pytest.approx(expected, rel=1e-5)


def test_label_runs_are_what_the_holes_leave() -> None:
    example = Example(tuple(range(10)), 2, ((2, 3), (5, 7), (9, 10)))
    assert list(label_runs(example)) == [(3, 5), (7, 9)]
    assert example.num_labels == 4
    assert list(label_runs(Example((1, 2, 3), 3))) == []


def test_peft_model_is_looked_into() -> None:
    model = get_peft_model(
        tiny_llama(), LoraConfig(r=4, target_modules=["q_proj"], init_lora_weights=False)
    ).eval()
    expected = transformers_loss(model, EXAMPLES)
    assert our_loss(model, EXAMPLES, 90).item() == pytest.approx(expected.item(), rel=1e-5)
    plain = transformers_loss(tiny_llama(), EXAMPLES)
    assert abs(expected.item() - plain.item()) > 1e-2  # the adapter was in it


def with_prompts(name: str) -> nn.Module:
    if name == "prefix-tuning":
        return apply_prefix_tuning(tiny_llama(), PrefixTuningOptions(num_virtual_tokens=5), 3)
    return apply_prompt_tuning(tiny_llama(), PromptTuningOptions(num_virtual_tokens=7), 3)


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("name", ["prefix-tuning", "prompt-tuning"])
def test_virtual_tokens_stand_before_each_sequence(name: str, budget: int) -> None:
    model = with_prompts(name)
    (trained,) = [value for value in model.parameters() if value.requires_grad]
    expected_loss = transformers_loss(model, EXAMPLES)
    (expected,) = torch.autograd.grad(expected_loss, [trained])
    loss = our_loss(model, EXAMPLES, budget)
    assert loss.item() == pytest.approx(expected_loss.item(), rel=1e-5)
    (found,) = torch.autograd.grad(loss, [trained])
    assert relative_distance(found, expected) < 1e-5
    assert abs(loss.item() - transformers_loss(tiny_llama(), EXAMPLES).item()) > 1e-2


@pytest.mark.parametrize("name", ["prefix-tuning", "prompt-tuning"])
def test_a_forward_pass_leaves_no_cache_behind(name: str) -> None:
    model = with_prompts(name)
    first = our_loss(model, EXAMPLES, 90)
    assert torch.equal(our_loss(model, EXAMPLES, 90), first)
    assert model.config.use_cache is True


@pytest.mark.parametrize("name", ["prefix-tuning", "prompt-tuning"])
def test_with_prompts_the_head_sees_columns_with_labels_only(name: str) -> None:
    model = with_prompts(name)
    widths = []
    model.get_base_model().lm_head.register_forward_hook(
        lambda _module, inputs, _output: widths.append(inputs[0].shape[1])
    )
    our_loss(model, [Example(tuple(range(20)), 17), Example(tuple(range(9)), 6)])
    assert widths == [3 + 3]  # before the labels: columns 16 to 18 and 5 to 7


def test_capped_logits_are_capped() -> None:
    sizes = {"vocab_size": 96, "hidden_size": 32, "intermediate_size": 48, "head_dim": 8}
    counts = {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    torch.manual_seed(0)
    config = Gemma2Config(**sizes, **counts, final_logit_softcapping=1.5, initializer_range=0.5)
    model = Gemma2ForCausalLM._from_config(config, attn_implementation="eager").eval()
    expected = transformers_loss(model, EXAMPLES)
    assert our_loss(model, EXAMPLES, 90).item() == pytest.approx(expected.item(), rel=1e-5)
    model.config.final_logit_softcapping = None
    assert abs(transformers_loss(model, EXAMPLES).item() - expected.item()) > 1


def test_labels_are_the_response_only() -> None:
    (batch,) = batches_of(ResponseLoss(tiny_llama()), [Example((1, 2, 3, 4, 5), 3)])
    assert batch.labels.tolist() == [4, 5]
    assert batch.positions.tolist() == [2, 3]  # of the tokens 3 and 4, which predict them
    (batch,) = padded([Example((1, 2, 3, 4, 5), 3)])
    assert batch.labels.tolist() == [4, 5]
    assert batch.positions.tolist() == [2, 3]


def test_padded_batches_are_as_wide_as_their_longest_and_keep_the_budget() -> None:
    examples = [Example((7,) * length, 1) for length in (3, 8, 2, 6, 5)]
    batches = padded(examples, 16)
    assert [tuple(b.input_ids_BT.shape) for b in batches] == [(2, 8), (3, 5)]
    assert batches[0].input_ids_BT[1].tolist() == [7] * 6 + [0, 0]
    assert batches[0].columns.tolist() == [0, 1, 2, 3, 4, 5, 6]  # before the labels of the longest


def test_columns_before_labels_are_told_once() -> None:
    (batch,) = padded([Example(tuple(range(9)), 6), Example(tuple(range(5)), 3)])
    assert batch.columns.tolist() == [2, 3, 5, 6, 7]


def test_a_model_that_is_padded_says_why(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="harness.training.loss"):
        loss = ResponseLoss(with_prompts("prompt-tuning"))
    assert "virtual tokens are prepended to each sequence" in caplog.text
    assert isinstance(batches_of(loss, EXAMPLES)[0], PaddedBatch)


def test_padding_token_changes_no_bit() -> None:
    model = with_prompts("prefix-tuning")
    losses = {our_loss(model, EXAMPLES, 1000, pad).item() for pad in (0, 5, 95)}
    assert len(losses) == 1


def test_example_without_labels_is_left_out() -> None:
    unlearned = Example((1, 2, 3), 3)
    model = tiny_llama()
    assert torch.equal(our_loss(model, [*EXAMPLES, unlearned], 90), our_loss(model, EXAMPLES, 90))
    assert batches_of(ResponseLoss(model), [unlearned]) == []


def test_the_attention_is_the_models_own_again_afterwards() -> None:
    model = adapted("zero-init-linear")
    before = model.get_base_model().config._attn_implementation
    our_loss(model, EXAMPLES)
    assert model.get_base_model().config._attn_implementation == before
    with pytest.raises(IndexError):  # a token that the model does not have
        our_loss(model, [Example((1, 2, 10**6, 4), 2)])
    assert model.get_base_model().config._attn_implementation == before


def test_below_the_first_adapted_layer_nothing_is_kept_for_the_backward_pass() -> None:
    model = adapted("zero-init-linear", moved=True, num_layers=2)
    outputs = {}
    for index, layer in enumerate(model.get_base_model().model.layers):
        layer.register_forward_hook(
            lambda _layer, _inputs, output, index=index: outputs.update({index: output})
        )
    our_loss(model, EXAMPLES).backward()
    assert [outputs[index].requires_grad for index in range(4)] == [False, False, True, True]


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("kind", ["qwen3", "llama3"])
def test_rows_of_every_form_give_the_loss_of_transformers(kind: str, share: bool) -> None:
    turns = (Turn("user", "Hi"), Turn("assistant", "Hello."))
    more = (*turns, Turn("user", "More?"), Turn("assistant", "No, it is all."))
    rows = [Conversation(turns), Conversation(more), Conversation((*more, *turns))]
    tokenizer = chat_tokenizer(kind)
    examples = tokenize(rows, tokenizer, 4096)
    examples += tokenize([Text("Apples are left."), Text("")], tokenizer, 4096)
    examples += tokenize([Completion("1 + 1 =", " 2"), Completion("", "3")], tokenizer, 4096)
    examples += tokenize([Instruction("Add.", "1, 2", "3")], tokenizer, 4096, template="chat")
    labelled = [example for example in examples if example.num_labels]
    assert len(examples) - len(labelled) == (kind == "qwen3")  # EOS alone, which nothing predicts
    model = chat_model(kind).train()
    trained = list(model.parameters())
    expected_loss = transformers_loss(model, labelled)
    expected = torch.autograd.grad(expected_loss, trained)
    loss = ResponseLoss(model)
    batches = list(
        loss.micro_batches(
            number_sequences(examples), token_budget=600, pad_token_id=0, device=CPU, share=share
        )
    )
    total = torch.stack([loss(batch) for batch in batches]).sum()
    assert total.item() == pytest.approx(expected_loss.item(), rel=1e-5)
    for gradient, other in zip(torch.autograd.grad(total, trained), expected, strict=True):
        assert relative_distance(gradient, other) < 1e-5
    nodes = sum(batch.num_tokens for batch in batches if isinstance(batch, PackedRow))
    whole = sum(len(example.token_ids) - 1 for example in labelled)
    assert nodes < whole if share else nodes == whole
