"""The training loop: its laws for every method, its optimizer against the formula, its faults."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from harness.data.instructions import Example, epoch_batches
from harness.errors import TrainingError
from harness.methods import METHODS
from harness.methods.method import TelemetryCallback
from harness.records.results import TrainResult
from harness.training.callback import OnStep
from harness.training.loop import fit
from harness.training.method_statistics import MethodStatistics
from harness.training.progress import StepRecord
from harness.training.spec import TrainSpec
from harness.training.step import parameter_groups
from tests.fixtures.tiny import (
    TRAINED,
    VOCAB_SIZE,
    adapted,
    random_examples,
    relative_distance,
    trained_state,
)

EXAMPLES = random_examples(22)
PROMPT_METHODS = ["random-init", "zero-init-linear", "zero-init-nonlinear"]


def spec(**changes: object) -> TrainSpec:
    settings = {"learning_rate": 3e-3, "epochs": 2, "batch_size": 8, "weight_decay": 0.02}
    return TrainSpec.model_validate(settings | changes)


def train(
    model: nn.Module,
    training: TrainSpec | None = None,
    examples: list[Example] = EXAMPLES,
    *,
    seed: int = 0,
    pad_token_id: int = 0,
    on_step: Callable[[StepRecord], object] = lambda record: None,
    statistics: Callable[[nn.Module], dict[str, float]] | None = None,
    telemetry: TelemetryCallback | None = None,
    **others: Any,
) -> TrainResult:
    return fit(
        model,
        examples,
        training or spec(),
        seed=seed,
        device="cpu",
        pad_token_id=pad_token_id,
        callbacks=[MethodStatistics(statistics, telemetry), OnStep(on_step)],
        **{"precision": "fp32"} | others,
    )


@pytest.fixture
def gradients() -> Iterator[list[list[torch.Tensor]]]:
    """The gradients of every optimizer step that is taken, in the order of the groups."""
    seen: list[list[torch.Tensor]] = []

    def look(optimizer: torch.optim.Optimizer, *_: object) -> None:
        groups = optimizer.param_groups
        seen.append([p.grad.clone() for group in groups for p in group["params"]])

    handle = register_optimizer_step_pre_hook(look)
    yield seen
    handle.remove()


# Laws for every method


@pytest.mark.parametrize("name", TRAINED)
def test_the_token_budget_changes_nothing(name: str, gradients: list[list[torch.Tensor]]) -> None:
    options = {"dropout": 0.3} if name == "lora" else {}
    finals = []
    for budget in (30, 70, None):
        model = adapted(name, moved=True, **options)
        # Adam would scale a gradient that is mere rounding up to the full rate.
        train(model, spec(token_budget=budget, epsilon=1e-6))
        finals.append(trained_state(model))
    steps = len(gradients) // 3
    assert steps == 6
    for run in (1, 2):
        for gradient, reference in zip(gradients[run * steps], gradients[0], strict=True):
            assert relative_distance(gradient, reference) < 1e-5
        for parameter, value in finals[run].items():
            assert relative_distance(value, finals[0][parameter]) < 1e-5, parameter


@pytest.mark.parametrize("name", TRAINED)
def test_only_the_methods_tensors_change(name: str) -> None:
    model = adapted(name)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    trained = set(trained_state(model))
    train(model, spec(epochs=3))
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key]) == (key not in trained), key


@pytest.mark.parametrize("name", TRAINED)
def test_same_call_gives_the_same_bits(name: str) -> None:
    options = {"dropout": 0.3} if name == "lora" else {}
    finals = []
    for outside in (1, 2):
        torch.manual_seed(outside)  # the global generator decides nothing
        model = adapted(name, **options)
        losses = train(model).epoch_losses
        finals.append((losses, trained_state(model)))
    assert finals[0][0] == finals[1][0]
    for parameter, value in finals[0][1].items():
        assert torch.equal(value, finals[1][1][parameter]), parameter


@pytest.mark.parametrize("name", TRAINED)
def test_training_lowers_the_loss(name: str) -> None:
    rate = 3e-2 if name in [*PROMPT_METHODS, "adaption-prompt"] else 3e-3
    losses = train(adapted(name), spec(epochs=8, learning_rate=rate)).epoch_losses
    assert losses[-1] < losses[0] - 0.02


@pytest.mark.parametrize("name", TRAINED)
def test_bf16_base_trains_fp32_tensors(name: str) -> None:
    exact = train(adapted(name)).epoch_losses
    model = adapted(name, dtype=torch.bfloat16)
    start = trained_state(model)
    losses = train(model, precision="bf16").epoch_losses
    assert losses == pytest.approx(exact, rel=1e-2)
    for parameter, value in trained_state(model).items():
        assert value.dtype == torch.float32
        assert not torch.equal(value, start[parameter]), parameter


def test_bf16_multiplies_fp32_masters_in_bf16() -> None:
    model = adapted("full", dtype=torch.bfloat16)
    seen = set()
    projection = model.get_decoder().layers[1].self_attn.q_proj
    projection.register_forward_hook(lambda _module, _inputs, output: seen.add(output.dtype))
    train(model, spec(epochs=1), precision="bf16")
    assert seen == {torch.bfloat16}
    assert projection.weight.dtype == torch.float32


def test_dropout_is_drawn_from_the_seed(gradients: list[list[torch.Tensor]]) -> None:
    for dropout in (0.0, 0.5):
        train(adapted("lora", moved=True, dropout=dropout), spec(epochs=1, batch_size=22))
    still, dropped = gradients[0], gradients[1]
    assert any(relative_distance(a, b) > 0.1 for a, b in zip(dropped, still, strict=True))


def test_seed_decides_the_order() -> None:
    finals = []
    for seed in (0, 1):
        model = adapted("full")
        train(model, seed=seed)
        finals.append(trained_state(model)["lm_head.weight"])
    assert not torch.equal(*finals)


def test_global_generator_is_left_alone() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    train(adapted("lora", dropout=0.3))
    assert torch.equal(torch.get_rng_state(), before)


def test_padding_token_changes_no_bit() -> None:
    finals = []
    for pad in (0, VOCAB_SIZE - 1):
        model = adapted("prompt-tuning", moved=True)  # it is trained on padded batches
        train(model, spec(), pad_token_id=pad)
        finals.append(trained_state(model))
    for parameter, value in finals[0].items():
        assert torch.equal(value, finals[1][parameter]), parameter


# The optimizer


def test_weights_follow_adamw_at_the_scheduled_rates(
    gradients: list[list[torch.Tensor]],
) -> None:
    training = spec(epochs=3, warmup_epochs=1.0, beta1=0.8, beta2=0.95, weight_decay=0.1)
    model = adapted("zero-init-nonlinear", moved=True)
    groups = parameter_groups(model, training.weight_decay)
    decays = [group["weight_decay"] for group in groups for _ in group["params"]]  # type: ignore[attr-defined]
    parameters = [p for group in groups for p in group["params"]]  # type: ignore[attr-defined]
    expected = [parameter.detach().double() for parameter in parameters]
    train(model, training)
    first = [torch.zeros_like(value) for value in expected]
    second = [torch.zeros_like(value) for value in expected]
    assert len(gradients) == training.total_steps(len(EXAMPLES)) == 9
    for step, taken in enumerate(gradients, start=1):
        rate = training.learning_rate_at(step, len(EXAMPLES))
        for index, gradient in enumerate(taken):
            first[index] = 0.8 * first[index] + 0.2 * gradient.double()
            second[index] = 0.95 * second[index] + 0.05 * gradient.double() ** 2
            direction = (first[index] / (1 - 0.8**step)) / (
                (second[index] / (1 - 0.95**step)).sqrt() + training.epsilon
            )
            expected[index] = expected[index] * (1 - rate * decays[index]) - rate * direction
    for parameter, value in zip(parameters, expected, strict=True):
        assert relative_distance(parameter.detach().double(), value) < 1e-5


def test_each_step_has_its_own_gradient(gradients: list[list[torch.Tensor]]) -> None:
    train(adapted("full"), spec(batch_size=22, learning_rate=1e-30, weight_decay=0))
    first, second = gradients
    for early, late in zip(first, second, strict=True):
        assert relative_distance(late, early) < 1e-5


def test_gradients_are_clipped_to_the_norm(gradients: list[list[torch.Tensor]]) -> None:
    train(adapted("full"), spec(epochs=1))
    train(adapted("full"), spec(epochs=1, max_gradient_norm=0.01))
    norms = [torch.cat([g.flatten() for g in step]).norm().item() for step in gradients]
    assert min(norms[:3]) > 0.1
    assert norms[3:] == pytest.approx([0.01] * 3, rel=1e-3)


# What is reported


def test_every_step_is_reported() -> None:
    records: list[StepRecord] = []
    training = spec(epochs=4, warmup_epochs=1.0)
    result = train(adapted("lora"), training, on_step=records.append)
    assert [record.step for record in records] == list(range(1, 13))
    assert [record.epoch for record in records] == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert [r.learning_rate for r in records] == [
        training.learning_rate_at(step, len(EXAMPLES)) for step in range(1, 13)
    ]
    per_epoch = sum(len(example.token_ids) for example in EXAMPLES)
    assert [sum(r.tokens for r in records if r.epoch == epoch) for epoch in range(4)] == [
        per_epoch
    ] * 4
    assert (result.steps, result.examples, result.tokens) == (12, 22, 4 * per_epoch)
    assert [r.seconds for r in records] == sorted(r.seconds for r in records)
    assert result.seconds >= records[-1].seconds > 0
    assert result.tokens_per_second == pytest.approx(result.tokens / result.seconds)
    assert result.peak_memory_bytes > 50e6  # a process with torch is larger than that


def test_epoch_loss_is_the_mean_over_its_labels() -> None:
    records: list[StepRecord] = []
    result = train(adapted("full"), on_step=records.append, seed=4)
    for epoch in range(2):
        batches = epoch_batches(len(EXAMPLES), 8, seed=4, epoch=epoch)
        labels = [sum(EXAMPLES[row].num_labels for row in batch) for batch in batches]
        losses = [record.loss for record in records if record.epoch == epoch]
        total = sum(loss * count for loss, count in zip(losses, labels, strict=True))
        assert result.epoch_losses[epoch] == pytest.approx(total / sum(labels), rel=1e-12)


def test_result_names_what_was_done() -> None:
    model = adapted("zero-init-linear")
    result = train(model, spec(learning_rate=None, base_learning_rate=0.064))
    assert result.peak_learning_rate == pytest.approx(0.002)
    assert (result.precision, result.device) == ("fp32", "cpu")
    assert result.trainable_parameters == 2 * 10 * 32 + 2 * 4
    assert result.total_parameters == sum(p.numel() for p in model.parameters())
    assert not model.training
    assert all(parameter.grad is None for parameter in model.parameters())


# Faults


def poison_loss(model: nn.Module) -> None:
    with torch.no_grad():
        model.get_output_embeddings().weight[3] = math.nan  # type: ignore[operator]


def poison_gradient(model: nn.Module) -> None:
    gate = next(p for name, p in model.named_parameters() if "prompt_gate" in name)
    gate.register_hook(lambda gradient: gradient * math.inf)


@pytest.mark.parametrize(
    ("poison", "said"),
    [
        (poison_loss, "step 1: the loss is nan and the gradient's norm nan"),
        (poison_gradient, "step 1: the loss is "),
    ],
)
def test_what_is_not_finite_stops_before_it_spoils(
    poison: Callable[[nn.Module], None], said: str
) -> None:
    model = adapted("zero-init-linear", moved=True)
    poison(model)
    before = trained_state(model)
    records: list[StepRecord] = []
    with pytest.raises(TrainingError) as caught:
        train(model, statistics=METHODS["zero-init-linear"].statistics, on_step=records.append)
    message = str(caught.value)
    assert message.startswith(said)
    assert "(learning rate 0.003); " in message
    assert "; the largest gate is 0." in message
    assert len(message.splitlines()) == 1
    assert records == []
    for parameter, value in trained_state(model).items():
        assert torch.equal(value, before[parameter])


def test_loss_that_explodes_later_names_its_step() -> None:
    model = adapted("full")

    def spoil(record: StepRecord) -> None:
        if record.step == 4:
            poison_loss(model)

    with pytest.raises(TrainingError, match=r"^step 5: the loss is nan"):
        train(model, on_step=spoil)


def test_interrupt_passes_between_steps() -> None:
    model = adapted("full")
    steps = []

    def interrupt(record: StepRecord) -> None:
        steps.append(record.step)
        if record.step == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(model, on_step=interrupt)
    assert steps == [1, 2]


def test_batch_without_labels_takes_no_step() -> None:
    unlearned = Example((1, 2, 3), 3)
    examples = [EXAMPLES[0], unlearned, EXAMPLES[1]]
    records: list[StepRecord] = []
    result = train(adapted("full"), spec(batch_size=1, epochs=1), examples, on_step=records.append)
    order = [row for (row,) in epoch_batches(3, 1, seed=0, epoch=0)]
    assert [record.step for record in records] == [
        place for place, row in enumerate(order, start=1) if row != 1
    ]
    assert result.tokens == len(EXAMPLES[0].token_ids) + len(EXAMPLES[1].token_ids)
    assert (result.steps, result.examples, result.lost_examples) == (2, 2, 1)
    assert result.note is not None
    assert result.note.startswith("1 of 3 examples have a prompt that fills max_length")
    assert all(math.isfinite(loss) for loss in result.epoch_losses)


def test_a_length_in_steps_takes_those_of_the_epochs_one_after_the_other() -> None:
    def losses(**length: object) -> tuple[list[tuple[int, int, float]], TrainResult]:
        steps: list[tuple[int, int, float]] = []
        result = train(
            adapted("lora"), spec(schedule="constant", **length),
            on_step=lambda one: steps.append((one.step, one.epoch, one.loss)),
        )  # fmt: skip
        return steps, result

    (whole, _), (cut, result) = losses(epochs=3), losses(max_steps=7, epochs=None)
    assert cut == whole[:7]
    assert [epoch for _, epoch, _ in cut] == [0, 0, 0, 1, 1, 1, 2]
    assert len(result.epoch_losses) == 3
    assert result.epoch_losses[2] == pytest.approx(cut[-1][2])
    assert result.steps == 7


def test_steps_that_meet_no_label_are_told_or_left_out() -> None:
    unlearned = Example((1, 2, 3), 3)
    order = [row for (row,) in epoch_batches(3, 1, seed=0, epoch=0)]
    again = [row for (row,) in epoch_batches(3, 1, seed=0, epoch=1)]
    first = [unlearned if row == order[0] else one for row, one in enumerate(EXAMPLES[:3])]
    with pytest.raises(TrainingError, match="of the first 1 steps has a response"):
        train(adapted("full"), spec(batch_size=1, epochs=None, max_steps=1), first)
    cut = [unlearned if row == again[0] else one for row, one in enumerate(EXAMPLES[:3])]
    result = train(adapted("full"), spec(batch_size=1, epochs=None, max_steps=4), cut)
    assert (result.steps, len(result.epoch_losses)) == (2, 1)


def test_data_without_labels_is_refused() -> None:
    with pytest.raises(TrainingError, match="none of 2 examples has a response within max_length"):
        train(adapted("full"), examples=[Example((1, 2, 3), 3)] * 2)


def test_warmup_without_a_peak_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    train(adapted("full"), spec(warmup_steps=100))
    assert "never reaches its peak of 0.003" in caplog.text


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", TRAINED)
def test_cuda_agrees_with_the_cpu(name: str) -> None:
    exact = train(adapted(name)).epoch_losses
    model = adapted(name, dtype=torch.bfloat16).cuda()
    result = fit(
        model,
        EXAMPLES,
        spec(),
        seed=0,
        device="cuda",
        precision="bf16",
        pad_token_id=0,
        data_sha256="of the rows",
    )
    assert result.epoch_losses == pytest.approx(exact, rel=1e-2)
    assert 0 < result.peak_memory_bytes < 1e9
