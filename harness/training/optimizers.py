"""Makes the optimizer of training settings: torch's own class, or Muon and AdamW together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from harness.training.optimizer_options import REST_RATE, signature
from harness.training.spec import TrainSpec


def takes_muon(model: nn.Module, name: str, parameter: nn.Parameter) -> bool:
    """Whether Muon trains a tensor: a matrix of a hidden layer, no embedding and no head."""
    module = model.get_submodule(name.rpartition(".")[0])
    heads = getattr(model, "get_output_embeddings", lambda: None)()
    return parameter.ndim == 2 and not isinstance(module, nn.Embedding) and module is not heads


class PairedOptimizer:
    """Two optimizers that step together, each with tensors of its own."""

    def __init__(self, *parts: torch.optim.Optimizer) -> None:
        self.parts = parts
        self._part_of = {
            parameter: part
            for part in parts
            for group in part.param_groups
            for parameter in group["params"]
        }

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The groups of both."""
        return [group for part in self.parts for group in part.param_groups]

    @property
    def state(self) -> Mapping[Any, dict[str, Any]]:
        """What either keeps of each tensor; what is put into it is kept."""
        return {parameter: part.state[parameter] for parameter, part in self._part_of.items()}

    def step(self) -> None:
        """Takes a step with each."""
        for part in self.parts:
            part.step()

    def zero_grad(self, *, set_to_none: bool = True) -> None:
        """Clears the gradients."""
        for part in self.parts:
            part.zero_grad(set_to_none=set_to_none)


def make_optimizer(
    groups: list[dict[str, Any]], model: nn.Module, spec: TrainSpec, device: torch.device
) -> torch.optim.Optimizer | PairedOptimizer:
    """The optimizer of training settings for parameter groups, on a device.

    Only AdamW takes a fused step; no other takes one of several tensors at once, so that its bits
    are the same wherever it is resumed.
    """
    options = dict(spec.optimizer or {"name": "AdamW"})
    name = options.pop("name")
    options = {key: tuple(value) if isinstance(value, list) else value
               for key, value in options.items()}  # fmt: skip
    if name == "AdamW":
        return _adamw(groups, spec, device, **options)
    rest_rate = options.pop(REST_RATE, None)
    known = signature(name)
    settings = {"lr": spec.peak_learning_rate, **options}
    if "betas" in known:
        settings |= {"betas": (spec.beta1, spec.beta2), "eps": spec.epsilon}
    if "foreach" in known:
        settings["foreach"] = False
    if "fused" in known:
        settings["fused"] = False
    kind = getattr(torch.optim, name)
    if name != "Muon":
        made: torch.optim.Optimizer = kind(groups, **settings)
        return made
    names = {parameter: key for key, parameter in model.named_parameters()}
    matrices, others = (
        [
            {**group, "params": kept}
            for group in groups
            if (kept := [one for one in group["params"]
                         if takes_muon(model, names[one], one) == wanted])
        ]
        for wanted in (True, False)
    )  # fmt: skip
    ratio = 1.0 if rest_rate is None else rest_rate / spec.peak_learning_rate
    others = [{"rate_ratio": ratio, **group} for group in others]
    parts = [kind(matrices, **settings)] if matrices else []
    parts += [_adamw(others, spec, device)] if others else []
    return PairedOptimizer(*parts)


def _adamw(
    groups: list[dict[str, Any]], spec: TrainSpec, device: torch.device, **options: Any
) -> torch.optim.Optimizer:
    return torch.optim.AdamW(
        groups,
        lr=spec.peak_learning_rate,
        betas=(spec.beta1, spec.beta2),
        eps=spec.epsilon,
        fused=device.type in ("cpu", "cuda") or None,
        **options,
    )
