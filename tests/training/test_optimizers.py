"""Optimizers by torch's names: options, bits on resuming, and a plain loop of torch beside them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from harness.grid.schema import Cell
from harness.spec import describe_faults
from harness.training.optimizer_options import signature, state_bytes
from harness.training.spec import TrainSpec
from harness.training.step import TrainStep, parameter_groups
from tests.fixtures.pictures import image_tensors, looking, picture_features, with_pictures
from tests.fixtures.tiny import adapted, random_examples, trained_state

CPU = torch.device("cpu")
NAMES = ("SGD", "Adam", "AdamW", "Adafactor", "RAdam", "NAdam", "RMSprop", "Adagrad", "Adamax",
         "Adadelta", "ASGD", "Muon")  # fmt: skip


def spec(**settings: Any) -> TrainSpec:
    return TrainSpec(**{"learning_rate": 0.01, "batch_size": 6, "token_budget": 60, **settings})


def step_of(settings: TrainSpec, method: str = "dora") -> TrainStep:
    model = adapted(method, moved=True)
    return TrainStep(model, settings, device=CPU, precision="fp32", pad_token_id=0)


def take(train_step: TrainStep, steps: range, rate: float = 0.01) -> None:
    for step in steps:
        train_step.backward(random_examples(6, seed=step), dropout_seed=step)
        train_step.update(rate)


@pytest.mark.parametrize("optimizer", [
    "muon", {"name": "muon", "momentum": 0.9, "adamw_learning_rate": 1e-3}, "sgd",
    {"name": "sgd", "momentum": 0.9, "nesterov": True}, *NAMES[1:-1],
])  # fmt: skip
def test_resumed_it_ends_with_the_same_bits(optimizer: Any) -> None:
    settings = spec(optimizer=optimizer, weight_decay=0.1)
    whole, first, second = step_of(settings), step_of(settings), step_of(settings)
    take(whole, range(6))
    take(first, range(3))
    second.load_state(first.state())
    take(second, range(3, 6))
    expected = trained_state(whole.model)
    for name, value in trained_state(second.model).items():
        assert torch.equal(value, expected[name]), name
    for key, value in whole.state().items():
        assert torch.equal(value, second.state()[key]), key


def test_a_plain_loop_of_torch_gives_the_same_losses_with_muon_and_wsd() -> None:
    settings = spec(
        optimizer={"name": "muon", "adamw_learning_rate": 2e-3}, weight_decay=0.1, schedule="wsd",
        decay_ratio=0.5, warmup_steps=2, epochs=8, max_gradient_norm=1.0,
    )  # fmt: skip
    ours, model = step_of(settings), adapted("dora", moved=True).train()
    matrices = [value for value in model.parameters() if value.requires_grad and value.ndim == 2]
    vectors = [value for value in model.parameters() if value.requires_grad and value.ndim != 2]
    assert matrices
    assert vectors
    muon = torch.optim.Muon(matrices, lr=1.0, weight_decay=0.1)
    adamw = torch.optim.AdamW(vectors, lr=1.0, weight_decay=0.1)
    examples = random_examples(6)
    for step in range(1, 9):
        rate = 0.01 * min((step - 1) / 2, 1.0, (8 - (step - 1)) / 4)
        assert settings.learning_rate_at(step, 6) == pytest.approx(rate)
        total = torch.zeros(())
        for one in examples:
            ids = torch.tensor([one.token_ids])
            logits = model(input_ids=ids).logits[0, one.num_prompt_tokens - 1 : -1]
            total = total + nn.functional.cross_entropy(
                logits, ids[0, one.num_prompt_tokens :], reduction="sum"
            )
        num_labels = sum(one.num_labels for one in examples)
        found = ours.backward(examples, dropout_seed=step)
        assert found.loss_sum == pytest.approx(float(total.detach()), rel=1e-4)
        (total / num_labels).backward()
        nn.utils.clip_grad_norm_([*matrices, *vectors], 1.0)
        muon.param_groups[0]["lr"], adamw.param_groups[0]["lr"] = rate, rate * 0.2
        for part in (muon, adamw):
            part.step()
            part.zero_grad()
        ours.update(settings.learning_rate_at(step, 6))


def test_muon_takes_matrices_of_hidden_layers_alone() -> None:
    train_step = step_of(spec(optimizer="muon", weight_decay=0.1), "full")
    names = {value: name for name, value in train_step.model.named_parameters()}
    muon, adamw = (
        {names[value] for group in part.param_groups for value in group["params"]}
        for part in train_step.optimizer.parts  # type: ignore[union-attr]
    )
    assert "model.layers.0.mlp.up_proj.weight" in muon
    assert {"model.embed_tokens.weight", "lm_head.weight", "model.norm.weight"} <= adamw
    assert not muon & adamw
    assert len(muon | adamw) == len(list(train_step.model.parameters()))


def test_adamw_is_what_it_was() -> None:
    for written in (None, "adamw", {"name": "AdamW"}, {"name": "adamw", "amsgrad": False}):
        settings = spec(optimizer=written)
        assert settings.optimizer is None
        assert "optimizer" not in settings.model_dump()
    train_step = step_of(spec(weight_decay=0.1))
    assert type(train_step.optimizer) is torch.optim.AdamW
    assert train_step.optimizer.param_groups[0]["fused"] is True
    assert len(parameter_groups(train_step.model, 0.1)) == len(train_step.optimizer.param_groups)


@pytest.mark.parametrize("optimizer", [None, "muon", "sgd"])
def test_the_projection_of_pictures_has_a_rate_of_its_own(optimizer: Any) -> None:
    model = looking()
    settings = spec(optimizer=optimizer, image_learning_rate=0.002, weight_decay=0.1)
    train_step = TrainStep(
        model, settings, device=CPU, precision="fp32", pad_token_id=0, pictures=picture_features()
    )
    names = {value: name for name, value in model.named_parameters()}
    examples = with_pictures(random_examples(6))
    assert any(one.picture for one in examples)
    train_step.backward(examples, dropout_seed=1)
    train_step.update(0.005)  # half of the peak
    rates = {
        names[value]: group["lr"]
        for group in train_step.optimizer.param_groups
        for value in group["params"]
    }
    assert rates.keys() == trained_state(model).keys()
    images = [rates.pop(name) for name in image_tensors(model)]
    assert images == pytest.approx([0.001] * 2)
    assert set(rates.values()) == {0.005}


def test_with_a_rate_of_its_own_it_ends_with_the_same_bits_when_resumed() -> None:
    settings = spec(image_learning_rate=0.002, weight_decay=0.1)

    def new() -> TrainStep:
        return TrainStep(
            looking(), settings, device=CPU, precision="fp32", pad_token_id=0,
            pictures=picture_features(),
        )  # fmt: skip

    def go(train_step: TrainStep, steps: range) -> None:
        for step in steps:
            train_step.backward(with_pictures(random_examples(6, seed=step)), dropout_seed=step)
            train_step.update(0.01)

    whole, first, second = new(), new(), new()
    go(whole, range(4))
    go(first, range(2))
    second.load_state(first.state())
    go(second, range(2, 4))
    for key, value in whole.state().items():
        assert torch.equal(value, second.state()[key]), key


@pytest.mark.parametrize("rate", [None, 0.01])
def test_without_a_rate_of_its_own_the_projection_has_that_of_the_others(
    rate: float | None,
) -> None:
    bits = []
    for stated in (rate, None):
        model = looking()
        train_step = TrainStep(
            model, spec(image_learning_rate=stated), device=CPU, precision="fp32", pad_token_id=0,
            pictures=picture_features(),
        )  # fmt: skip
        train_step.backward(with_pictures(random_examples(6)), dropout_seed=1)
        train_step.update(0.005)
        bits.append(trained_state(model))
    assert all(torch.equal(value, bits[1][name]) for name, value in bits[0].items())


def test_canonical_form_leaves_out_defaults() -> None:
    written = {"name": "muon", "momentum": 0.95, "nesterov": True, "ns_steps": 6}
    assert spec(optimizer=written).optimizer == {"name": "Muon", "ns_steps": 6}
    again = TrainSpec.model_validate(spec(optimizer=written).model_dump())
    assert again.optimizer == {"name": "Muon", "ns_steps": 6}


@pytest.mark.parametrize("name", NAMES)
def test_the_signature_read_from_the_source_is_the_classes_own(name: str) -> None:
    import inspect

    found = inspect.signature(getattr(torch.optim, name).__init__).parameters
    own = {key: value.default for key, value in found.items() if key not in ("self", "params")}
    assert dict(signature(name)) == own


@pytest.mark.parametrize(
    ("written", "line"),
    [
        ("moun", "optimizer: torch.optim has no 'moun'; did you mean 'muon'?"),
        ("lion", "optimizer: lion is not in torch.optim; adamw and muon are"),
        ("lbfgs", "optimizer: lbfgs calls the loss again within a step"),
        (3, "optimizer: must be an optimizer's name such as muon, or a mapping with its `name`"),
        ({"name": "sgd", "momentun": 1}, "optimizer.momentun: SGD has no such option; did you me"),
        ({"name": "sgd", "momentum": "x"}, "optimizer.momentum: must be a number (got x)"),
        ({"name": "sgd", "nesterov": 1}, "optimizer.nesterov: must be true or false (got 1)"),
        ({"name": "muon", "lr": 1}, "optimizer.lr: set train.learning_rate"),
        ({"name": "adam", "betas": [0, 1]}, "optimizer.betas: set train.beta1 and train.beta2"),
        ({"name": "adam", "fused": True}, "optimizer.fused: zbench sets it; leave it out"),
        ({"name": "muon", "ns_coefficients": 3}, "optimizer.ns_coefficients: must be a list of 3"),
    ],
)  # fmt: skip
def test_a_wrong_optimizer_is_one_line_with_its_place(written: Any, line: str) -> None:
    with pytest.raises(ValidationError) as found:
        spec(optimizer=written)
    (said,) = describe_faults(found.value, "", TrainSpec)
    assert said.removeprefix(": ").startswith(line)


def test_what_an_optimizer_keeps_is_counted() -> None:
    for name in NAMES:
        written = {"name": name, "momentum": 0.9} if name == "SGD" else name
        settings = spec(optimizer=written)
        if name == "Muon":
            continue  # of matrices alone
        train_step = step_of(settings, "lora")
        take(train_step, range(1))
        sizes = {value: value.numel() for value in train_step.parameters}
        kept = sum(
            value.numel()
            for parameter in sizes
            for value in train_step.optimizer.state[parameter].values()
            if value.shape == parameter.shape
        )
        assert state_bytes(settings.optimizer) == 4 * kept / sum(sizes.values()), name


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"decay_ratio": 0.2}, "set schedule: wsd"),
        ({"schedule": "wsd", "decay_ratio": 0.2, "decay_steps": 3}, "at most one of decay_ratio"),
        ({"schedule": "wds"}, "must be one of"),
    ],
)
def test_a_wrong_decay_is_told(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError) as found:
        spec(**settings)
    assert said in describe_faults(found.value, "", TrainSpec)[0]


def test_wsd_rises_stays_and_falls() -> None:
    settings = spec(schedule="wsd", warmup_steps=4, batch_size=1, epochs=1)
    rates = [settings.learning_rate_at(step, 20) / 0.01 for step in range(1, 21)]
    assert rates == pytest.approx([0, 0.25, 0.5, 0.75, *[1.0] * 15, 0.5])
    long = spec(schedule="wsd", decay_steps=100, warmup_steps=10, batch_size=1, epochs=1)
    assert long.learning_rate_at(11, 20) == pytest.approx(0.01)
    assert long.learning_rate_at(20, 20) == pytest.approx(0.001)


def test_settings_that_torch_has_taken_once_need_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys; from harness.training.spec import TrainSpec\n"
        "TrainSpec(learning_rate=1, optimizer={options})\n"
        "print('torch' in sys.modules)"
    )
    told = [
        subprocess.run(
            [sys.executable, "-c", code.replace("{options}", options)],
            capture_output=True, text=True, check=True,
            env={"XDG_CACHE_HOME": str(tmp_path), "PYTHONPATH": ":".join(sys.path)},
        ).stdout.strip()
        for options in ("'muon'", *["{'name': 'muon', 'momentum': 0.9}"] * 2)
    ]  # fmt: skip
    assert told == ["False", "True", "False"]


def test_cells_have_ids_of_their_own_where_an_optimizer_is_stated() -> None:
    assert "optimizer" not in Cell.model_fields  # it stands in `train`
    assert spec(optimizer="muon").model_dump()["optimizer"] == {"name": "Muon"}
    assert "decay_ratio" not in spec().model_dump()
