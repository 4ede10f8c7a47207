"""The pre-training script: the shipped tokenizer comes from it, and its steps repeat exactly."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
import torch

from harness.demo.world import CHECKPOINT
from scripts.demo_world.people import World, build_world
from scripts.pretrain_demo import (
    build_model,
    build_tokenizer,
    pretrain,
    save_checkpoint,
    token_rows,
    train_model,
)


@pytest.fixture(scope="module")
def world() -> World:
    return build_world()


def test_the_tokenizer_made_anew_is_the_shipped_one(world: World, tmp_path: Path) -> None:
    build_tokenizer(world).save_pretrained(tmp_path)
    made, shipped = (json.loads((f / "tokenizer.json").read_text()) for f in (tmp_path, CHECKPOINT))
    assert made == shipped


def test_a_few_steps_repeat_bit_for_bit_and_learn(world: World) -> None:
    torch.set_num_threads(1)
    tokenizer = build_tokenizer(world)
    runs = []
    for _ in range(2):
        model = build_model(world, tokenizer)
        rows = token_rows(world, tokenizer, 32)
        losses = train_model(model, rows, num_steps=25, batch_size=4)
        runs.append((losses, torch.cat([p.detach().flatten() for p in model.parameters()])))
    (losses, weights), (losses_again, weights_again) = runs
    assert losses == losses_again
    assert torch.equal(weights, weights_again)
    assert losses[-1] < losses[0] - 0.3


def test_the_untrained_model_ignores_the_global_generator(world: World) -> None:
    tokenizer = build_tokenizer(world)
    torch.manual_seed(1)
    first = build_model(world, tokenizer)
    state = torch.get_rng_state()
    torch.manual_seed(2)
    second = build_model(world, tokenizer)
    assert torch.equal(first.lm_head.weight, second.lm_head.weight)
    torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), state)


def test_rows_are_documents_end_to_end(world: World) -> None:
    tokenizer = build_tokenizer(world)
    rows = list(itertools.islice(token_rows(world, tokenizer, 64), 50))
    assert {len(row) for row in rows} == {64}
    flat = list(itertools.chain.from_iterable(rows))
    starts = [i for i, token in enumerate(flat) if token == tokenizer.bos_token_id]
    assert len(starts) > 20
    assert all(flat[i - 1] == tokenizer.eos_token_id for i in starts[1:])


def test_the_script_writes_the_files_that_ship(tmp_path: Path) -> None:
    pretrain(tmp_path, num_steps=1)
    assert {path.name for path in tmp_path.iterdir()} == {
        path.name for path in CHECKPOINT.iterdir()
    }


def test_the_checkpoint_is_saved_in_half_precision(world: World, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    tokenizer = build_tokenizer(world)
    save_checkpoint(build_model(world, tokenizer), tokenizer, tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {torch.bfloat16}
