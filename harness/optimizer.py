"""One optimizer batch: its gradient, summed over micro-batches, and the step that follows it.

Precision. Trained tensors, their gradients and the optimizer's state are fp32, so nothing needs a
loss scale. The frozen base is fp32 or bf16; with bf16 the forward pass runs under autocast, so that
fp32 matrices (LoRA's, and all of `full`'s) are multiplied in bf16 while AdamW steps their fp32
masters. Frozen bf16 matrices are multiplied as they are.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from torch import nn

from harness.data import Example
from harness.errors import ModelError
from harness.methods.row_dropout import drawing
from harness.models import trained_parameters
from harness.packing.batches import number_sequences, resolve_budget
from harness.recipe import TrainSpec
from harness.response_loss import ResponseLoss, draws_of


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Returns the trained tensors for AdamW: those that decay, and those that do not.

    Weight matrices, embeddings, prompts and gates decay; biases and the weights of norms do not.
    The tensor's name and its module's class decide, not its number of axes, by which a flat gate
    would pass for a bias.
    """
    decaying: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in trained_parameters(model).items():
        path, _, leaf = name.rpartition(".")
        is_norm = type(model.get_submodule(path)).__name__.endswith("Norm")
        (others if is_norm or leaf == "bias" else decaying).append(parameter)
    groups = ((decaying, weight_decay), (others, 0.0))
    return [{"params": list(kind), "weight_decay": decay} for kind, decay in groups if kind]


@dataclass(frozen=True)
class BatchTotals:
    """What one optimizer batch gave."""

    loss: float
    """Sum over the labels."""
    labels: int
    tokens: int
    gradient_norm: float
    """Of the mean loss, before clipping."""


class Trainer:
    """The model with its optimizer, and what stays the same from step to step."""

    def __init__(
        self,
        model: nn.Module,
        spec: TrainSpec,
        *,
        device: torch.device,
        precision: str,
        pad_token_id: int,
        token_budget: int | None = None,
    ) -> None:
        self.model, self.spec, self.device = model, spec, device
        self.token_budget = spec.token_budget if token_budget is None else token_budget
        self.pad_token_id = pad_token_id
        self.autocast = precision == "bf16"
        self.parameters = list(trained_parameters(model).values())
        assert all(tensor.dtype == torch.float32 for tensor in self.parameters)
        optimizer = torch.optim.AdamW(
            parameter_groups(model, spec.weight_decay),
            lr=spec.peak_learning_rate,
            betas=(spec.beta1, spec.beta2),
            eps=spec.epsilon,
            fused=device.type in ("cpu", "cuda") or None,
        )
        # The model lies on its device and autocasts here: accelerate's own precision is one for
        # the whole process, while the cells of a process may differ.
        self.accelerator = Accelerator(mixed_precision="no", device_placement=False)
        self.loss = ResponseLoss(model)
        self.module, self.optimizer = self.accelerator.prepare(self.loss, optimizer)

    def precision(self) -> torch.autocast:
        """Returns the context in which the model runs."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocast)

    def gradients(self, examples: Sequence[Example], key: int) -> BatchTotals:
        """Computes the gradient of the mean loss over all labels of an optimizer batch.

        The sum over the labels is divided by their number in the whole batch, so that the split
        into micro-batches changes nothing. `key` decides the draws of dropout.
        """
        labels = sum(example.num_labels for example in examples)
        budget = resolve_budget(self.token_budget, examples, self.device)
        sequences = number_sequences(examples)
        batches = list(
            self.loss.micro_batches(
                sequences,
                token_budget=budget,
                pad_token_id=self.pad_token_id,
                device=self.device,
            )
        )
        losses = []
        for index, batch in enumerate(batches):
            last = index == len(batches) - 1
            with contextlib.nullcontext() if last else self.accelerator.no_sync(self.module):
                with self.precision(), drawing(draws_of(batch, key)):
                    loss = self.module(batch)
                self.accelerator.backward(loss / labels)
            losses.append(loss.detach())
        norm = self.accelerator.clip_grad_norm_(
            self.parameters, self.spec.max_gradient_norm or math.inf
        )
        *sums, gradient_norm = torch.stack([*losses, norm]).tolist()  # the step's one wait
        tokens = sum(len(example.token_ids) for example in examples if example.num_labels)
        return BatchTotals(math.fsum(sums), labels, tokens, gradient_norm)

    def update(self, learning_rate: float) -> None:
        """Takes the optimizer's step and forgets the gradients."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def state(self) -> dict[str, torch.Tensor]:
        """Returns the trained tensors and AdamW's state, by kind and parameter's name.

        `parameter/<name>`, and once a step is taken `exp_avg/<name>`, `exp_avg_sq/<name>` and
        `step/<name>`. The tensors are those that the next step changes; copy what is to stay.
        """
        found: dict[str, torch.Tensor] = {}
        for name, parameter in trained_parameters(self.model).items():
            found[f"parameter/{name}"] = parameter.detach()
            for kind, value in self.optimizer.state.get(parameter, {}).items():
                found[f"{kind}/{name}"] = value
        return found

    def load_state(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Puts back what `state` gave.

        Raises:
            ModelError: names or shapes are those of another model; nothing is changed.
        """
        parameters = trained_parameters(self.model)
        stored = {key.partition("/")[2] for key in tensors}
        shapes = {name: tensors.get(f"parameter/{name}") for name in parameters}
        if stored != set(parameters) or any(
            value is None or value.shape != parameters[name].shape for name, value in shapes.items()
        ):
            raise ModelError("the trained tensors are not those of this model and method")
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter.copy_(tensors[f"parameter/{name}"])
        for key, value in tensors.items():
            kind, _, name = key.partition("/")
            if kind != "parameter":
                moments = self.optimizer.state[parameters[name]]
                moments[kind] = value.to(self.device, copy=True)
