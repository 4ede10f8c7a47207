"""One optimizer batch: its gradient, summed over micro-batches, and the step that follows it.

Precision. Trained tensors, their gradients and the optimizer's state are fp32. The frozen base is
fp32, bf16 or fp16; in half precision the forward pass runs under autocast. Autocast casts trained
fp32 weights; AdamW updates fp32 master weights. fp16 uses dynamic loss scaling.
"""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from harness.data.instructions import Example
from harness.errors import ModelError, TrainingError
from harness.methods.method import TrainingHook
from harness.methods.row_dropout import dropout_rng
from harness.models.loading import trained_parameters
from harness.models.pictures import PictureFeatures, is_of_projection
from harness.training.half_kernels import HalfKernels
from harness.training.loss import MicroBatch, ResponseLoss, dropout_key
from harness.training.loss_scale import LossScale
from harness.training.micro_batches import number_sequences, resolve_budget
from harness.training.optimizers import make_optimizer
from harness.training.parallel import (
    COMPUTE_DTYPES,
    Ranks,
    clip_gradients,
    gather,
    gradient_sync,
    parallelize,
    shard_of,
)
from harness.training.spec import TrainSpec

SCALE_PREFIX = "scale/"
"""Prefix of the names of fp16's loss scale in a checkpoint; stored files fix its value."""

logger = logging.getLogger(__name__)


def parameter_groups(
    model: nn.Module, weight_decay: float, image_rate_ratio: float | None = None
) -> list[dict[str, Any]]:
    """The trained tensors as AdamW's parameter groups: with weight decay, and without.

    Weight matrices, embeddings, prompts and gates decay; biases and the weights of norms do not.
    The tensor's name and its module's class decide.

    Args:
        model: a part of it is trained.
        weight_decay: of those that decay.
        image_rate_ratio: of the learning rate of the projection of pictures to that of the others:
            its tensors are groups of their own, with the key `rate_ratio`; None: they are not.
    """
    # Not ndim < 2, the usual rule: it would exempt 1-D gates (PEFT's adaption-prompt).
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in trained_parameters(model).items():
        path, _, leaf = name.rpartition(".")
        is_norm = type(model.get_submodule(path)).__name__.endswith("Norm")
        projects = image_rate_ratio is not None and is_of_projection(name)
        groups.setdefault((projects, is_norm or leaf == "bias"), []).append(parameter)
    return [
        {
            "params": groups[projects, exempt],
            "weight_decay": 0.0 if exempt else weight_decay,
            **({"rate_ratio": image_rate_ratio} if projects else {}),
        }
        for projects, exempt in sorted(groups)
    ]


@dataclass(frozen=True)
class BatchTotals:
    """Totals of one optimizer batch, over all ranks and micro-batches."""

    loss_sum: float
    """Sum of the cross-entropies of its labels, in nats."""
    num_labels: int
    """Number of label tokens."""
    num_tokens: int
    """Real tokens: a shared prefix counts once per sequence, examples without labels not at all."""
    gradient_norm: float
    """Norm of the mean loss' gradient, before clipping."""
    skipped: bool = False
    """The gradients overflowed in fp16: no step follows, and the loss scale is lower from now."""


class TrainStep:
    """A training step: the model, its optimizer, and what stays the same from step to step."""

    def __init__(
        self,
        model: nn.Module,
        spec: TrainSpec,
        *,
        device: torch.device,
        precision: str,
        pad_token_id: int,
        hook: TrainingHook | None = None,
        pictures: PictureFeatures | None = None,
    ) -> None:
        self.model, self.spec, self.device = model, spec, device
        self.hook = TrainingHook() if hook is None else hook
        self.pad_token_id = pad_token_id
        self.compute_dtype = COMPUTE_DTYPES.get(precision)
        self.ranks = Ranks.joined(device)
        if self.ranks.size > 1 and not self.hook.parallel:
            raise TrainingError(
                "the method changes its adapter between steps: one device trains it"
            )
        self.loss = ResponseLoss(
            model, pictures, gradient_checkpointing=spec.gradient_checkpointing
        )
        self.kernels = HalfKernels(self.loss, device, self.compute_dtype)
        layers = list(model.get_decoder().layers)  # type: ignore[operator]
        self.module = parallelize(self.loss, layers, self.ranks, precision)
        self.parameters = list(trained_parameters(model).values())
        assert all(tensor.dtype == torch.float32 for tensor in self.parameters)
        groups = parameter_groups(model, spec.weight_decay, spec.image_rate_ratio)
        self.optimizer = make_optimizer(groups, model, spec, device)
        self.loss_scale = LossScale(enabled=precision == "fp16")

    def autocast(self) -> torch.autocast:
        """The context in which the model runs."""
        return torch.autocast(
            self.device.type, self.compute_dtype, enabled=self.compute_dtype is not None
        )

    def backward(self, examples: Sequence[Example], dropout_seed: int) -> BatchTotals:
        """Computes the gradient of the mean loss over all labels of an optimizer batch, clipped.

        The sum over the labels is divided by their number in the whole batch, so that the split
        into ranks and micro-batches changes nothing. `dropout_seed` decides the dropout masks. The
        totals are those of the whole batch, the same on every rank.
        """
        num_labels = sum(example.num_labels for example in examples)
        batches, dummy_batch = self._micro_batches(examples)
        losses = []
        for batch, weight, last in self.ranks.lockstep(batches, dummy_batch):
            with gradient_sync(self.module, last=last):
                with self.autocast(), dropout_rng(dropout_key(batch, dropout_seed)):
                    loss = self.module(batch)
                # DDP and FSDP average over ranks; multiply by the world size to get the sum.
                (weight * self.loss_scale.factor * loss / num_labels * self.ranks.size).backward()
            losses.append(weight * loss.detach())
        if (penalty := self.hook.penalty()) is not None:
            (self.loss_scale.factor * penalty).backward()
        self.loss_scale.divide(self.parameters)
        norm = clip_gradients(self.parameters, self.spec.max_gradient_norm)
        # The single host-device sync of a step (with one process).
        *sums, gradient_norm = torch.stack([*losses, norm]).tolist()
        loss_sum = self.ranks.total(math.fsum(sums))
        skipped = math.isfinite(loss_sum) and self.loss_scale.overflowed(gradient_norm)
        if skipped:
            logger.warning(
                "gradients overflowed in fp16: the step is skipped, the loss is scaled by %g now",
                self.loss_scale.factor,
            )
        num_tokens = sum(len(example.token_ids) for example in examples if example.num_labels)
        return BatchTotals(loss_sum, num_labels, num_tokens, gradient_norm, skipped)

    def _micro_batches(
        self, examples: Sequence[Example]
    ) -> tuple[list[MicroBatch], Callable[[], MicroBatch]]:
        """This rank's part of an optimizer batch; and what makes a batch for a rank without one."""
        budget = resolve_budget(self.spec.token_budget, examples, self.device)
        sequences = number_sequences(examples)
        split = functools.partial(
            self.loss.micro_batches,
            token_budget=budget,
            pad_token_id=self.pad_token_id,
            device=self.device,
        )
        shortest = sequences[-1:]
        return list(split(self.ranks.shard(sequences))), lambda: next(iter(split(shortest)))

    def choose_kernels(self, examples: Sequence[Example], dropout_seed: int) -> list[str]:
        """Chooses the kernels of half precision on the first batch; see `HalfKernels.begin`."""

        def first_micro_batch() -> MicroBatch:
            batches, dummy_batch = self._micro_batches(examples)
            return batches[0] if batches else dummy_batch()

        def forward(batch: MicroBatch) -> None:
            key = dropout_key(batch, dropout_seed)
            with torch.no_grad(), self.autocast(), dropout_rng(key):
                self.module(batch)

        return self.kernels.begin(first_micro_batch, forward, self.ranks.highest)

    def update(self, learning_rate: float, *, skip: bool = False) -> None:
        """Takes the optimizer's step, unless `skip` (see BatchTotals), and clears the gradients."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate * group.get("rate_ratio", 1.0)
        if not skip:
            self.hook.change_gradients()
            self.optimizer.step()
            self.hook.after_step()
        self.optimizer.zero_grad(set_to_none=True)

    def metrics(self) -> dict[str, float]:
        """Metrics of fp16's loss scale for the result; nothing in other precisions."""
        if not self.loss_scale.enabled:
            return {}
        return {
            "fp16/skipped_steps": float(self.loss_scale.skipped_steps),
            "fp16/loss_scale": self.loss_scale.factor,
        }

    def state(self) -> dict[str, torch.Tensor]:
        """A copy of the trained tensors and the optimizer's state, by kind and parameter's name.

        `parameter/<name>`, and once a step is taken AdamW's `exp_avg/<name>`, `exp_avg_sq/<name>`
        and `step/<name>`, or what another optimizer keeps, under torch's names; in fp16 also
        `scale/<factor|good_steps|skipped_steps>`. All ranks call it; rank 0 alone gets the tensors,
        whole and on the CPU.
        """
        found: dict[str, torch.Tensor] = {}
        for name, parameter in trained_parameters(self.model).items():
            found[f"parameter/{name}"] = parameter.detach()
            for kind, value in self.optimizer.state.get(parameter, {}).items():
                found[f"{kind}/{name}"] = value
        found = gather(found)
        if self.loss_scale.enabled:
            for name, number in self.loss_scale.state().items():
                found[f"{SCALE_PREFIX}{name}"] = torch.tensor(number, dtype=torch.float64)
        return found

    def load_state(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Puts back what `state` gave; every rank takes its own shard of it.

        Raises:
            ModelError: names or shapes are those of another model; nothing is changed.
        """
        scale = {k: float(v) for k, v in tensors.items() if k.startswith(SCALE_PREFIX)}
        tensors = {k: v for k, v in tensors.items() if k not in scale}
        parameters = trained_parameters(self.model)
        stored = {key.partition("/")[2] for key in tensors}
        shapes = {name: tensors.get(f"parameter/{name}") for name in parameters}
        if stored != set(parameters) or any(
            value is None or value.shape != parameters[name].shape for name, value in shapes.items()
        ):
            raise ModelError("the trained tensors are not those of this model and method")
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter.copy_(shard_of(tensors[f"parameter/{name}"], parameter))
        states = self.optimizer.state
        for key, value in tensors.items():
            kind, _, name = key.partition("/")
            if kind != "parameter":
                parameter = parameters[name]
                own = shard_of(value, parameter) if value.shape == parameter.shape else value
                # Counters lie on the CPU, but those of AdamW's fused step.
                counter = own.ndim == 0 and self.spec.optimizer is not None
                device = torch.device("cpu") if counter else self.device
                states[parameter][kind] = own.to(device, copy=True)
        if scale and self.loss_scale.enabled:
            self.loss_scale.load_state({k.removeprefix(SCALE_PREFIX): v for k, v in scale.items()})
