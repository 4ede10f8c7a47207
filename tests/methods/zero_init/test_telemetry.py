"""What is told of a training: the gates themselves, the gradients that were taken, and its bits."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from harness.methods.zero_init.probe import attention_shares, prompts_of
from harness.methods.zero_init.telemetry import (
    GATES_FILE,
    SHARES_FILE,
    PromptTelemetry,
    gate_statistics,
)
from harness.records.results import TrainResult
from harness.training.callback import OnStep
from harness.training.loop import fit
from harness.training.method_statistics import MethodStatistics
from harness.training.progress import StepRecord
from harness.training.spec import TrainSpec
from tests.fixtures.pictures import looking, picture_features, with_pictures
from tests.fixtures.tiny import adapted, random_examples, trained_state

METHODS = ["random-init", "zero-init-linear", "zero-init-nonlinear"]
GATED = ["zero-init-linear", "zero-init-nonlinear"]
EXAMPLES = random_examples(22)
READ = [1, 10, 12]
"""Of twelve steps."""


def train(
    model: nn.Module, telemetry: PromptTelemetry | None, records: list[StepRecord] | None = None
) -> TrainResult:
    spec = {"learning_rate": 3e-2, "epochs": 4, "batch_size": 8, "weight_decay": 0.02}
    return fit(
        model,
        EXAMPLES,
        TrainSpec.model_validate(spec),
        seed=0,
        device="cpu",
        precision="fp32",
        pad_token_id=0,
        callbacks=[
            MethodStatistics(None, telemetry),
            OnStep((records if records is not None else []).append),
        ],
    )


@pytest.fixture
def norms() -> Iterator[list[tuple[float, float]]]:
    """Of every step that is taken: the norms of the gradients of prompts, and of gates.

    Gates are told by their shape: no other tensor of a prompt method has three axes.
    """
    seen: list[tuple[float, float]] = []

    def look(optimizer: torch.optim.Optimizer, *_: object) -> None:
        tensors = [p for group in optimizer.param_groups for p in group["params"]]
        squares = [0.0, 0.0]
        for tensor in tensors:
            squares[tensor.ndim == 3] += tensor.grad.double().square().sum().item()
        seen.append((squares[0] ** 0.5, squares[1] ** 0.5))

    handle = register_optimizer_step_pre_hook(look)
    yield seen
    handle.remove()


@pytest.mark.parametrize("name", METHODS)
def test_a_training_has_the_same_bits_with_telemetry(name: str) -> None:
    plain, followed = adapted(name), adapted(name)
    untold = train(plain, None)
    generator = torch.get_rng_state()
    told = train(followed, PromptTelemetry(followed))
    assert told.epoch_losses == untold.epoch_losses
    for parameter, value in trained_state(followed).items():
        assert torch.equal(value, trained_state(plain)[parameter]), parameter
    assert torch.equal(torch.get_rng_state(), generator)
    assert not any(module._forward_hooks for module in followed.modules())
    assert not followed.training


@pytest.mark.parametrize("name", GATED)
@pytest.mark.parametrize("activation", ["tanh", "identity"])
def test_the_course_holds_every_gate_of_the_steps_that_were_read(
    name: str, activation: str
) -> None:
    model = adapted(name, gate_activation=activation)
    telemetry = PromptTelemetry(model)
    train(model, telemetry)
    course = telemetry.frames()[GATES_FILE]
    assert list(course.columns) == ["step", "layer", "head", "strength"]
    assert list(course.groupby("step").size().items()) == [(step, 8) for step in READ]
    last = course[course["step"] == 12].set_index(["layer", "head"])["strength"]
    for prompt in prompts_of(model):
        gates = prompt.gate.detach().flatten()
        expected = gates.tanh() if activation == "tanh" else gates
        assert last[prompt.layer_index].tolist() == pytest.approx(expected.tolist(), rel=1e-6)
    assert last.min() < 0 < last.max()
    assert course.memory_usage(index=False).sum() <= 12 * len(course)


@pytest.mark.parametrize("name", METHODS)
def test_gradient_norms_are_those_that_the_optimizer_took(
    name: str, norms: list[tuple[float, float]]
) -> None:
    model = adapted(name)
    records: list[StepRecord] = []
    train(model, PromptTelemetry(model), records)
    assert [record.step for record in records if record.statistics] == READ
    for record in records:
        if record.statistics:
            prompt, gate = norms[record.step - 1]
            told = record.statistics
            assert told["prompt/gradient_norm"] == pytest.approx(prompt, rel=1e-5)
            assert told.get("gate/gradient_norm", 0.0) == pytest.approx(gate, rel=1e-5)
            assert ("gate/gradient_norm" in told) == (name in GATED)


@pytest.mark.parametrize("name", GATED)
def test_at_the_first_step_only_the_gates_have_a_gradient(name: str) -> None:
    model = adapted(name)
    records: list[StepRecord] = []
    train(model, PromptTelemetry(model), records)
    assert records[0].statistics["prompt/gradient_norm"] == 0.0
    assert records[0].statistics["gate/gradient_norm"] > 0.0
    assert records[-1].statistics["prompt/gradient_norm"] > 0.0


@pytest.mark.parametrize("name", METHODS)
def test_shares_are_those_before_and_after(name: str) -> None:
    model = adapted(name)
    texts = [example.token_ids for example in EXAMPLES]
    before = attention_shares(model, texts)
    telemetry = PromptTelemetry(model)
    result = train(model, telemetry)
    frame = telemetry.frames()[SHARES_FILE]
    parts = {when: part.drop(columns="when").reset_index(drop=True)
             for when, part in frame.groupby("when")}  # fmt: skip
    assert parts["before"].equals(before)
    assert parts["after"].equals(attention_shares(model, texts))
    assert not parts["after"].equals(before)
    for measure in ("mass", "norm"):
        for when, part in parts.items():
            told = result.final_statistics[f"probe/prompt_{measure}_share/{when}"]
            assert told == pytest.approx(part[f"{measure}_share"].mean())


@pytest.mark.parametrize("name", GATED)
def test_final_figures_are_the_last_ones_told_and_the_models_own(name: str) -> None:
    model = adapted(name)
    records: list[StepRecord] = []
    result = train(model, PromptTelemetry(model), records)
    assert records[-1].statistics.items() <= result.final_statistics.items()
    own = gate_statistics(model)
    assert own["gate/max_abs"] > 1e-3
    assert own == {key: result.final_statistics[key] for key in own}
    assert {"gate/layer_02/mean_abs", "gate/layer_03/max_abs"} <= set(own)


def test_statistics_are_means_and_maxima_over_heads() -> None:
    model = adapted("zero-init-linear")
    prompts = prompts_of(model)
    with torch.no_grad():
        prompts[0].gate.copy_(torch.tensor([0.0, 0.5, -1.0, 0.0]).view(4, 1, 1))
    found = gate_statistics(model)
    strengths = [0.0, torch.tensor(0.5).tanh().item(), torch.tensor(1.0).tanh().item(), 0.0]
    assert found["gate/layer_02/mean_abs"] == pytest.approx(sum(strengths) / 4)
    assert found["gate/layer_02/max_abs"] == pytest.approx(strengths[2])
    assert found["gate/layer_03/max_abs"] == 0.0
    assert found["gate/mean_abs"] == pytest.approx(sum(strengths) / 8)


def test_one_softmax_has_no_gates_to_tell_of() -> None:
    model = adapted("random-init")
    telemetry = PromptTelemetry(model)
    result = train(model, telemetry)
    assert list(telemetry.frames()) == [SHARES_FILE]
    assert gate_statistics(model) == {}
    assert not any(name.startswith("gate/") for name in result.final_statistics)
    assert result.final_statistics["prompt/gradient_norm"] > 0


@pytest.mark.parametrize("name", METHODS)
def test_the_projection_of_pictures_has_a_norm_of_its_own(name: str) -> None:
    model = looking(name)
    records: list[StepRecord] = []
    fit(
        model, with_pictures(EXAMPLES), TrainSpec(learning_rate=1e-3, batch_size=8, epochs=1),
        seed=0, device="cpu", precision="fp32", pad_token_id=0, pictures=picture_features(),
        callbacks=[MethodStatistics(None, PromptTelemetry(model)), OnStep(records.append)],
    )  # fmt: skip
    found = {n for n in records[0].statistics if n.endswith("gradient_norm")}
    gates = {"gate/gradient_norm"} if name in GATED else set()
    assert found == {"prompt/gradient_norm", "prompt/image_gradient_norm"} | gates
    assert records[0].statistics["prompt/image_gradient_norm"] > 0
