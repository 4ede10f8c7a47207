"""Pictures in training: packed or not, a sequence is under its own picture and no other."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
import torch
from torch import nn

from harness.data.instructions import Example
from harness.training.loss import PaddedBatch, ResponseLoss, padded_batches
from harness.training.micro_batches import number_sequences, packed_rows
from harness.training.packing import PackedRow
from tests.fixtures.pictures import (
    PICTURES,
    PROMPTS,
    alike_but_in_their_pictures,
    image_tensors,
    looking,
    picture_features,
    with_pictures,
)
from tests.fixtures.tiny import adapted, random_examples, relative_distance

CPU = torch.device("cpu")


def rows_of(examples: list[Example], budget: int = 1000, *, share: bool = True) -> list[PackedRow]:
    sequences = number_sequences(examples)
    return list(packed_rows(sequences, token_budget=budget, share=share, device=CPU))


def gradients(model: nn.Module, losses: list[torch.Tensor]) -> dict[str, torch.Tensor]:
    model.zero_grad(set_to_none=True)
    torch.stack(losses).sum().backward()
    named = model.named_parameters()
    return {name: one.grad.clone() for name, one in named if one.grad is not None}


def one_by_one(loss: ResponseLoss, examples: list[Example]) -> list[torch.Tensor]:
    """The loss of each example, in a padded batch of its own."""
    return [
        loss(batch)
        for sequence in number_sequences(examples)
        for batch in padded_batches([sequence], 1000, pad_token_id=0, device=CPU)
    ]


@pytest.mark.parametrize("name", PROMPTS)
@pytest.mark.parametrize(("budget", "share"), [(40, True), (90, True), (1000, True), (90, False)])
def test_packed_is_one_by_one(name: str, budget: int, share: bool) -> None:
    model = looking(name)
    examples = [*with_pictures(random_examples(9)), *alike_but_in_their_pictures(3)]
    loss = ResponseLoss(model, picture_features())
    alone = one_by_one(loss, examples)
    expected = gradients(model, alone)
    packed = [loss(row) for row in rows_of(examples, budget, share=share)]
    assert sum(packed).item() == pytest.approx(sum(alone).item(), rel=1e-5)
    found = gradients(model, packed)
    assert found.keys() == expected.keys()
    for name, value in found.items():
        assert relative_distance(value, expected[name]) < 1e-5, name


@pytest.mark.parametrize("name", PROMPTS)
def test_padded_batches_of_several_are_one_by_one(name: str) -> None:
    model = looking(name)
    examples = with_pictures(random_examples(9))
    loss = ResponseLoss(model, picture_features())
    alone = one_by_one(loss, examples)
    expected = gradients(model, alone)
    batches = padded_batches(number_sequences(examples), 90, pad_token_id=0, device=CPU)
    found = gradients(model, [loss(batch) for batch in batches])
    for name, value in found.items():
        assert relative_distance(value, expected[name]) < 1e-5, name


def test_rows_that_differ_in_the_picture_alone_share_no_node() -> None:
    examples = alike_but_in_their_pictures(4)
    (row,) = rows_of(examples)
    assert row.num_tokens == sum(len(one.token_ids) - 1 for one in examples)
    (bare,) = rows_of([replace(one, picture=None) for one in examples])
    assert 3 * bare.num_tokens == row.num_tokens


def test_rows_of_one_picture_share_as_rows_without_pictures_do() -> None:
    texts = [replace(one, token_ids=(1, 2, 3, *one.token_ids)) for one in random_examples(7)]
    (bare,) = rows_of(texts)
    (row,) = rows_of([replace(one, picture="cat") for one in texts])
    assert torch.equal(row.input_ids_1N, bare.input_ids_1N)
    assert row.pictures == ("cat",)
    assert bare.pictures == ()
    assert bare.picture_rows is None
    assert bare.packing.picture_of_sequence_S is None


@pytest.mark.parametrize("share", [True, False])
def test_every_node_and_sequence_has_its_picture(share: bool) -> None:
    examples = [*with_pictures(random_examples(8)), *alike_but_in_their_pictures(3)]
    picture_of = {one.index: one.picture for one in number_sequences(examples)}
    for row in rows_of(examples, 90, share=share):
        names = [*row.pictures, None]
        found, of_sequence = row.picture_rows, row.packing.picture_of_sequence_S
        if found is None or of_sequence is None:  # a row of sequences without pictures
            assert {picture_of[one] for one in row.sequence_ids_1N[0].tolist()} == {None}
            assert (found, of_sequence) == (None, None)
            continue
        for node, sequence in enumerate(row.sequence_ids_1N[0].tolist()):
            assert names[found[node]] == picture_of[sequence]
        start = place = 0
        for bucket in row.packing.buckets:
            for _ in range(bucket.num_sequences):
                nodes = row.packing.node_of_slot_M[start : start + bucket.length]
                assert set(found[nodes].tolist()) == {int(of_sequence[place])}
                start, place = start + bucket.length, place + 1
        assert place == len(of_sequence)


def test_the_order_of_a_batch_does_not_matter() -> None:
    examples = [*with_pictures(random_examples(9)), *alike_but_in_their_pictures(2)]
    shuffled = random.Random(1).sample(examples, len(examples))
    loss = ResponseLoss(looking(), picture_features())
    first, second = (
        sum(loss(row) for row in rows_of(each, 90)).item() for each in (examples, shuffled)
    )
    assert first == pytest.approx(second, rel=1e-6)


def test_another_picture_gives_another_loss() -> None:
    loss = ResponseLoss(looking(), picture_features())
    examples = [replace(one, picture="cat") for one in random_examples(2)]
    others = [replace(one, picture="dog") for one in examples]
    (row,), (other,) = rows_of(examples), rows_of(others)
    assert abs(loss(row).item() - loss(other).item()) > 1e-3


@pytest.mark.parametrize("name", PROMPTS)
def test_a_micro_batch_without_pictures_gives_the_projection_a_gradient_of_zero(name: str) -> None:
    model = looking(name)
    loss = ResponseLoss(model, picture_features())
    (row,) = rows_of(random_examples(3))
    value = loss(row)
    found = gradients(model, [value])
    images = image_tensors(model)
    assert len(images) == 2
    assert not any(found.pop(one).any() for one in images)

    text_only = adapted(name)
    text_only.load_state_dict({k: v for k, v in model.state_dict().items() if k not in images})
    bare = ResponseLoss(text_only)(row)
    assert torch.equal(value, bare)
    for tensor, expected in gradients(text_only, [bare]).items():
        assert torch.equal(found[tensor], expected), tensor


def test_a_padded_batch_names_its_pictures() -> None:
    examples = with_pictures(random_examples(6))
    sequences = number_sequences(examples)
    (batch,) = padded_batches(sequences, 1000, pad_token_id=0, device=CPU)
    assert isinstance(batch, PaddedBatch)
    assert batch.picture_rows is not None
    names = [*batch.pictures, None]
    assert [names[place] for place in batch.picture_rows] == [one.picture for one in sequences]
    assert set(batch.pictures) <= set(PICTURES)
