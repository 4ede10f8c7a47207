"""Checkpoints of a sharded model: in host memory once, read in parts, for any number of ranks."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from harness.methods import METHODS
from harness.training import step as step_code
from harness.training.checkpoint import (
    TENSORS_FILE,
    TrainingState,
    checkpoint_folders,
    read_checkpoint,
    save_checkpoint,
)
from harness.training.parallel import gather, shard_of
from harness.training.progress import Progress
from harness.training.spec import TrainSpec
from harness.training.step import TrainStep
from harness.training.validation import mean_loss
from tests.fixtures.rank_processes import run_ranks
from tests.fixtures.tiny import random_examples

IDENTITY = {"cell_id": "0123456789ab"}
SPEC = TrainSpec(learning_rate=1e-3, batch_size=4)


def begun(num_ranks: int, dtype: torch.dtype = torch.float32) -> TrainStep:
    """Full fine-tuning of 4 million parameters; three ranks have uneven shards."""
    config = LlamaConfig(
        vocab_size=4000, hidden_size=256, intermediate_size=1024, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, attn_implementation="sdpa",
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model: Any = LlamaForCausalLM(config).to(dtype).eval()
    full = METHODS["full"]
    model = full.apply_on(num_ranks, model, full.options(), 0)
    precision = "fp32" if dtype == torch.float32 else "bf16"
    return TrainStep(model, SPEC, device=torch.device("cpu"), precision=precision, pad_token_id=0)


def step_on(train_step: TrainStep) -> dict[str, torch.Tensor]:
    """Takes a step; what rank 0 has of the state behind it."""
    train_step.backward(random_examples(4), 0)
    train_step.update(1e-3)
    return train_step.state()


def saved(rank: int, folder: Path) -> tuple[int, int]:
    """Saves the state after a step; returns its bytes, and those allocated to write it."""
    state = step_on(begun(2))
    if rank:
        assert not state
        return 0, 0
    tracemalloc.start()
    save_checkpoint(folder, TrainingState(Progress.begin(1), state), IDENTITY)
    _, peak = tracemalloc.get_traced_memory()
    return sum(value.nbytes for value in state.values()), peak


def resumed(rank: int, folder: Path, size: int) -> tuple[float, dict[str, torch.Tensor], int]:
    """The share of the file that resuming takes, the state after it, and tensors made whole."""
    (stored,) = checkpoint_folders(folder)
    state = read_checkpoint(stored, IDENTITY)
    train_step, taken, made_whole = begun(size), 0, 0

    def noted(whole: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        nonlocal taken, made_whole
        own = shard_of(whole, like)
        local: torch.Tensor = own._local_tensor if size > 1 else own  # type: ignore[attr-defined]
        taken += local.nbytes
        # Rows of the mapped file itself: what is not among them is not read.
        mapped = whole.untyped_storage().data_ptr() == local.untyped_storage().data_ptr()
        made_whole += not mapped
        return own

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(step_code, "shard_of", noted)
        train_step.load_state(state.tensors)
    state.close()
    share = taken / (stored / TENSORS_FILE).stat().st_size
    return share, gather(train_step.state()), made_whole


@pytest.mark.long
def test_a_rank_reads_its_shard_and_the_state_is_the_same_on_any_number_of_ranks(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "checkpoints"
    (num_bytes, allocated), _ = run_ranks(saved, tmp_path, folder)
    assert num_bytes > 45e6
    assert allocated < num_bytes / 10, "the state was copied to be written"
    (stored,) = checkpoint_folders(folder)
    expected = read_checkpoint(stored, IDENTITY).tensors
    answers = run_ranks(resumed, tmp_path, folder, 3, size=3)
    for share, _, made_whole in answers:
        assert abs(share - 1 / 3) < 0.01
        assert made_whole == 0
    check_same(answers[0][1], expected)
    _, alone, _ = resumed(0, folder, 1)
    check_same(alone, expected)


def check_same(found: Any, expected: Any) -> None:
    assert found.keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in found.items())


def trained(rank: int, size: int) -> list[dict[str, torch.Tensor]]:
    """The state after a step on a bf16 base that is made fp32 whole, and in shards."""
    return [step_on(begun(num, torch.bfloat16)) for num in (1, size)]


@pytest.mark.long
def test_shards_made_fp32_are_those_of_a_model_made_fp32(tmp_path: Path) -> None:
    (whole, in_shards), *_ = run_ranks(trained, tmp_path, 3, size=3)
    check_same(in_shards, whole)
    assert {value.dtype for value in whole.values()} == {torch.float32}


def before_and_after_validation(rank: int) -> list[dict[str, torch.Tensor]]:
    train_step = begun(2, torch.bfloat16)
    before = step_on(train_step)
    mean_loss(train_step, random_examples(4))
    return [before, train_step.state()]


@pytest.mark.long
def test_a_pass_without_a_gradient_leaves_the_state_as_it_is(tmp_path: Path) -> None:
    (before, after), _ = run_ranks(before_and_after_validation, tmp_path)
    check_same(after, before)
    assert {value.dtype for value in after.values()} == {torch.float32}


def test_the_file_is_read_once_it_is_asked_and_left_when_closed(tmp_path: Path) -> None:
    train_step = begun(1)
    state = TrainingState(Progress.begin(1), step_on(train_step))
    folder = save_checkpoint(tmp_path, state, IDENTITY)
    found = read_checkpoint(folder, IDENTITY)
    assert set(found.tensors) == set(state.tensors)
    assert len(found.tensors) == len(state.tensors)
    name = "parameter/model.norm.weight"
    assert torch.equal(found.tensors[name], state.tensors[name])
    found.close()
    if Path("/proc/self/maps").exists():
        assert str(folder) not in Path("/proc/self/maps").read_text(encoding="utf-8")
    assert torch.equal(found.tensors[name], state.tensors[name])
    with pytest.raises(KeyError):
        found.tensors["parameter/another"]
