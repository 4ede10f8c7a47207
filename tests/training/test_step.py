"""Which trained tensors decay: told by their names and modules, not by their axes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from harness.training.step import parameter_groups
from tests.fixtures.tiny import TRAINED, adapted, trained_state

UNDECAYED = {
    "full": {
        f"model.layers.{i}.{name}_layernorm.weight"
        for i in range(4)
        for name in ("input", "post_attention")
    }
    | {"model.norm.weight"},
    "zero-init-nonlinear": {
        "base_model.model.model.generator.prompt_hidden.default.bias",
        "base_model.model.model.generator.prompt_output.default.bias",
    },
}
"""All trained tensors of the other methods decay."""


@pytest.mark.parametrize("name", TRAINED)
def test_biases_and_norms_do_not_decay_and_all_else_does(name: str) -> None:
    model, expected = adapted(name), UNDECAYED.get(name, set())
    names = {id(parameter): key for key, parameter in model.named_parameters()}
    decays: dict[str, object] = {}
    for group in parameter_groups(model, 0.02):
        parameters = group["params"]
        assert isinstance(parameters, list)
        decays |= {names[id(parameter)]: group["weight_decay"] for parameter in parameters}
    assert set(decays) == set(trained_state(model))
    assert {key for key, decay in decays.items() if decay == 0.0} == expected
    assert {decay for key, decay in decays.items() if key not in expected} == {0.02}


def test_flat_gate_decays() -> None:
    class Flat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gate = nn.Parameter(torch.zeros(4))

    (group,) = parameter_groups(Flat(), 0.02)
    assert group["weight_decay"] == 0.02


def test_gates_and_prompts_decay() -> None:
    model = adapted("zero-init-linear")
    (group,) = parameter_groups(model, 0.02)
    kinds = {name.split(".")[-2] for name in trained_state(model)}
    assert kinds == {"prompt_gate", "prompt_rows"}
    assert group["weight_decay"] == 0.02
