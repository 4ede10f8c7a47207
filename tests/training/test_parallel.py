"""Training in two processes gives what one gives, for every method, and the same bits twice."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.data.instructions import Example
from harness.models.loading import trained_parameters
from harness.training.callback import OnStep
from harness.training.loop import fit
from harness.training.micro_batches import number_sequences
from harness.training.parallel import Ranks, gather, gather_trained, shard_of
from harness.training.progress import StepRecord
from harness.training.spec import TrainSpec
from harness.training.step import BatchTotals, TrainStep
from tests.fixtures.rank_processes import run_ranks
from tests.fixtures.tiny import TRAINED, adapted, random_examples, relative_distance, trained_state

pytestmark = pytest.mark.long

EXAMPLES = [*random_examples(21), Example(tuple(range(8)), 8)]
"""The last has no label."""
OPTIONS: dict[str, dict[str, object]] = {"lora": {"dropout": 0.3}}
HALF = ["zero-init-linear", "lora", "full"]
"""Trained on a base in half precision too."""
SETTINGS = {
    "learning_rate": 3e-3,
    "epochs": 2,
    "batch_size": 7,
    "token_budget": 32,
    "weight_decay": 0.02,
    "max_gradient_norm": 1.0,
}
"""Batches of 7, 7, 7 and 1 sequence: of the last, one of two ranks has none."""


@dataclass(frozen=True)
class Outcome:
    """What one process has of a training."""

    losses: tuple[float, ...]
    steps: list[tuple[int, float, int]]
    """Number, loss and tokens."""
    trained: dict[str, torch.Tensor]
    metrics: dict[str, float]
    local_elements: int
    """Of the trained tensors, those that lie here."""


def train(
    name: str, precision: str = "fp32", *, overflows: bool = False, **changes: Any
) -> Outcome:
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    model = adapted(name, moved=True, dtype=dtype, **OPTIONS.get(name, {}))
    if overflows:
        infinite = iter([math.inf])
        model.get_decoder().norm.register_full_backward_hook(
            lambda _, gradients, __: (gradients[0] * next(infinite, 1.0),)
        )
    steps: list[StepRecord] = []
    result = fit(
        model,
        changes.pop("examples", EXAMPLES),
        TrainSpec.model_validate(SETTINGS | changes),
        seed=3,
        device="cpu",
        precision=precision,
        pad_token_id=0,
        callbacks=[OnStep(steps.append)],
    )
    gathered = gather_trained(model)
    local = [getattr(p, "_local_tensor", p) for p in model.parameters() if p.requires_grad]
    return Outcome(
        losses=result.epoch_losses,
        steps=[(record.step, record.loss, record.tokens) for record in steps],
        trained=trained_state(model) if gathered is None else gathered,
        metrics=dict(result.final_statistics),
        local_elements=sum(tensor.numel() for tensor in local),
    )


def train_all(rank: int, runs: Sequence[str]) -> dict[str, Outcome]:
    return {run: train(*run.split()) for run in runs}


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Outcome]]:
    """What each of two processes has, by method and precision."""
    runs = [*(f"{name} fp32" for name in TRAINED), *(f"{name} bf16" for name in HALF)]
    return run_ranks(train_all, tmp_path_factory.mktemp("two"), runs)


@pytest.mark.parametrize("name", TRAINED)
def test_two_processes_train_what_one_trains(name: str, two: list[dict[str, Outcome]]) -> None:
    one, both = train(name), two[0][f"{name} fp32"]
    assert both.losses == pytest.approx(one.losses, rel=1e-5)
    assert [step[0::2] for step in both.steps] == [step[0::2] for step in one.steps]
    assert [step[1] for step in both.steps] == pytest.approx([s[1] for s in one.steps], rel=1e-5)
    assert both.trained.keys() == one.trained.keys()
    for parameter, value in both.trained.items():
        assert relative_distance(value, one.trained[parameter]) < 1e-5, parameter


def train_cut(rank: int, name: str) -> list[Outcome]:
    """In steps: one and a half passes, and three passes over one example."""
    cut = train(name, epochs=None, max_steps=6)
    return [cut, train(name, epochs=None, max_steps=3, examples=EXAMPLES[:1])]


@pytest.mark.parametrize("name", ["lora", "full"])
def test_two_processes_end_a_training_in_steps_where_one_does(name: str, tmp_path: Path) -> None:
    both, _ = run_ranks(train_cut, tmp_path, name)
    for found, one, passes in zip(both, train_cut(0, name), (2, 3), strict=True):
        assert len(found.losses) == passes
        assert found.losses == pytest.approx(one.losses, rel=1e-5)
        assert [step[0::2] for step in found.steps] == [step[0::2] for step in one.steps]
    assert [len(one.steps) for one in both] == [6, 3]


@pytest.mark.parametrize("name", TRAINED)
def test_all_ranks_report_the_whole_batch(name: str, two: list[dict[str, Outcome]]) -> None:
    first, second = (outcomes[f"{name} fp32"] for outcomes in two)
    assert first.losses == second.losses
    assert first.steps == second.steps


@pytest.mark.parametrize("name", HALF)
def test_two_processes_train_on_a_bf16_base(name: str, two: list[dict[str, Outcome]]) -> None:
    exact, both = two[0][f"{name} fp32"], two[0][f"{name} bf16"]
    assert both.losses == pytest.approx(exact.losses, rel=1e-2)
    assert all(value.dtype == torch.float32 for value in both.trained.values())


def test_full_fine_tuning_is_sharded_and_gathered_on_rank_0_alone(
    two: list[dict[str, Outcome]],
) -> None:
    first, second = (outcomes["full fp32"] for outcomes in two)
    whole = sum(tensor.numel() for tensor in first.trained.values())
    assert first.local_elements + second.local_elements == whole
    assert abs(first.local_elements - whole / 2) < 0.01 * whole
    assert second.trained == {}


def test_adapters_lie_on_every_rank(two: list[dict[str, Outcome]]) -> None:
    first, second = (outcomes["lora fp32"] for outcomes in two)
    for parameter, value in first.trained.items():
        assert torch.equal(value, second.trained[parameter]), parameter


def test_two_processes_give_the_same_bits_twice(
    two: list[dict[str, Outcome]], tmp_path: Path
) -> None:
    runs = ["lora fp32", "zero-init-nonlinear fp32", "full fp32"]
    again = run_ranks(train_all, tmp_path, runs)[0]
    for run in runs:
        once, twice = two[0][run], again[run]
        assert once.losses == twice.losses
        for parameter, value in once.trained.items():
            assert torch.equal(value, twice.trained[parameter]), (run, parameter)


def count_passes(rank: int) -> list[tuple[str, float, bool]]:
    ranks = Ranks.joined(torch.device("cpu"))
    return list(ranks.lockstep([["a", "b", "c"], []][rank], lambda: "dummy_batch"))


def test_every_rank_takes_part_in_every_pass(tmp_path: Path) -> None:
    first, second = run_ranks(count_passes, tmp_path)
    assert first == [("a", 1.0, False), ("b", 1.0, False), ("c", 1.0, True)]
    assert second == [
        ("dummy_batch", 0.0, False),
        ("dummy_batch", 0.0, False),
        ("dummy_batch", 0.0, True),
    ]


def seen_examples(rank: int) -> list[list[tuple[int, ...]]]:
    """Returns the sequences of every optimizer step that this rank computes."""
    seen: list[list[tuple[int, ...]]] = []
    backward = TrainStep.backward

    def look(train_step: TrainStep, examples: Sequence[Example], dropout_seed: int) -> BatchTotals:
        shard = train_step.ranks.shard(number_sequences(examples))
        seen.append([one.token_ids for one in shard])
        return backward(train_step, examples, dropout_seed)

    TrainStep.backward = look  # type: ignore[method-assign]
    try:
        train("zero-init-linear")
    finally:
        TrainStep.backward = backward  # type: ignore[method-assign]
    return seen


def test_the_order_of_the_data_depends_on_the_seed_alone(tmp_path: Path) -> None:
    alone, (first, second) = seen_examples(0), run_ranks(seen_examples, tmp_path)
    assert len(alone) == 8
    for whole, mine, other in zip(alone, first, second, strict=True):
        assert sorted([*mine, *other]) == sorted(whole)


def there_and_back(rank: int) -> tuple[dict[str, torch.Tensor], list[bool], int]:
    """Shards the model, gathers its tensors, and shards them again."""
    train_step = TrainStep(
        adapted("full"), TrainSpec.model_validate(SETTINGS), device=torch.device("cpu"),
        precision="fp32", pad_token_id=0,
    )  # fmt: skip
    parts = trained_parameters(train_step.model)
    whole = trained_state(adapted("full"))
    same = [
        torch.equal(shard_of(whole[name], part)._local_tensor, part._local_tensor)  # type: ignore[attr-defined]
        for name, part in parts.items()
    ]
    return gather(parts), same, train_step.ranks.highest(rank)


def test_what_is_gathered_can_be_divided_again(tmp_path: Path) -> None:
    (first, same, highest), (second, also, other) = run_ranks(there_and_back, tmp_path)
    whole = trained_state(adapted("full"))
    assert first.keys() == whole.keys()
    assert all(torch.equal(value, whole[name]) for name, value in first.items())
    assert second == {}
    assert len(same) == len(whole)
    assert all([*same, *also])
    assert (highest, other) == (1, 1)


def test_of_one_process_everything_is_whole() -> None:
    model = adapted("lora")
    state = trained_state(model)
    assert gather_trained(model) is None
    assert all(torch.equal(value, state[name]) for name, value in gather(state).items())
    assert all(shard_of(value, value) is value for value in state.values())
