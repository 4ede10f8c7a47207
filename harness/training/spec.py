"""Hyper-parameters of a training run, and its learning rate schedule."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, NonNegativeFloat, PositiveFloat, model_validator

from harness.spec import Spec
from harness.training.optimizer_options import checked_optimizer

Count = Annotated[int, Field(ge=1, le=10**7)]

DEFAULT_TOKEN_BUDGET = {"cpu": 1024, "cuda": 8192}
"""Tokens of a forward pass. On a CPU more are hardly faster and take more memory: see
benchmarks/train_speed.py. On a GPU a batch of 64 of Alpaca then is one micro-batch as a rule, and
LLaMA-7B fits 80 GB with every adapter method."""


IF_STATED: Any = Field(default=None, exclude_if=lambda value: value is None)
"""A setting that stands in ids and records only where it is stated."""
IMAGE_RATE = "image_learning_rate"
"""The setting of pictures' projection alone."""
DEFAULT_DECAY_RATIO = 0.1
"""wsd's decay: a tenth of all steps, as in MiniCPM (Hu et al., 2024, arXiv 2404.06395)."""


class TrainSpec(Spec):
    """Training settings of a cell; a method's recipe gives the defaults, a grid overrides."""

    epochs: Annotated[int, Field(ge=1, le=100_000)] | None = 5
    """Passes over the chosen fraction of the data; None where `max_steps` is set."""
    max_steps: Annotated[int, Field(ge=1, le=10**7)] | None = IF_STATED
    """The length in optimizer steps, instead of `epochs`: the data are passed as often as that
    needs, and the last pass is cut."""
    batch_size: Count = 64
    """Sequences per optimizer step, over all devices and micro-batches."""
    token_budget: Count | None = None
    """Tokens per forward pass; None: as many as suit the device. It decides time and memory, never
    the result, so it is not part of a cell's id."""
    gradient_checkpointing: bool = Field(default=False, exclude_if=lambda value: not value)
    """Computes each decoder layer again in the backward pass, so that its input alone is kept of
    it: less memory for a fifth to a half more products, and the same gradients, so that it is not
    part of a cell's id."""
    learning_rate: PositiveFloat | None = None
    """Peak learning rate. Exactly one of this and `base_learning_rate` is set."""
    base_learning_rate: PositiveFloat | None = None
    """Peak learning rate at a batch of 256; the resolved one is this times batch_size / 256."""
    image_learning_rate: PositiveFloat | None = IF_STATED
    """Peak learning rate of the projection of pictures, on the same schedule, of a prompt method
    with an `image_encoder`; None: that of the prompts, which may be too high for it: pictures then
    change nothing."""
    schedule: Literal["cosine", "linear", "constant", "wsd"] = "cosine"
    """Learning rate after the warm-up: half a cosine to 0, linear to 0, the peak throughout, or
    the peak and then a line to 0 (warm-up, stable, decay)."""
    decay_ratio: Annotated[float, Field(gt=0, le=1)] | None = Field(
        default=None, exclude_if=lambda value: value in (None, DEFAULT_DECAY_RATIO)
    )
    """Length of wsd's decay as a share of all steps, rounded up to a whole step; 0.1 where neither
    this nor `decay_steps` is set."""
    decay_steps: Annotated[int, Field(ge=1, le=10**12)] | None = IF_STATED
    """Length of wsd's decay in optimizer steps."""
    warmup_epochs: Annotated[float, Field(ge=0, le=100_000)] | None = None
    """Length of the linear warm-up in epochs."""
    warmup_ratio: Annotated[float, Field(ge=0, le=1)] | None = None
    """Length of the linear warm-up as a share of all steps, rounded up to a whole step."""
    warmup_steps: Annotated[int, Field(ge=0, le=10**12)] | None = None
    """Length of the linear warm-up in optimizer steps."""
    optimizer: Annotated[
        dict[str, Any] | None,
        BeforeValidator(checked_optimizer, json_schema_input_type=str | dict[str, Any] | None),
    ] = IF_STATED
    """The optimizer, by its name in torch.optim, or a mapping of `name` and its options; None is
    AdamW. Muon trains matrices, AdamW the other tensors."""
    weight_decay: Annotated[float, Field(ge=0, le=1000)] = 0.0
    """Weight decay on every trained tensor but biases and norms: decoupled in AdamW and Muon,
    elsewhere as torch's class has it."""
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.999
    epsilon: Annotated[float, Field(gt=0, le=1)] = 1e-8
    """AdamW's epsilon."""
    max_gradient_norm: PositiveFloat | None = None
    """Gradients are clipped to this norm; None clips nothing."""
    max_length: Annotated[int, Field(ge=2, le=10**7)] = 512
    """A sequence is cut after this many tokens, BOS and EOS included."""
    precision: Literal["auto", "bf16", "fp16", "fp32"] = "auto"
    """Compute precision (autocast dtype), also the storage dtype of frozen weights; trained
    parameters are fp32. auto: bf16 on CUDA, fp32 on CPU. fp16, with loss scaling, is for GPUs
    without bf16."""
    base_quantization: Literal["int8", "nf4"] | None = None
    """Quantization of the frozen base's matrices, 8 or 4 bits through bitsandbytes; they are
    multiplied in `precision`."""
    checkpoint_minutes: NonNegativeFloat = 10.0
    """Minutes between two checkpoints, 0 for one after every step; not part of a cell's id: a
    run that resumes from one gives the same result."""

    keep: Literal["last", "best"] = Field(default="last", exclude_if=lambda value: value == "last")
    """The weights that are saved and scored: after the last epoch, or after the one with the lowest
    loss on the validation rows (`validation` of the data). Part of the id only where it is set."""

    @model_validator(mode="before")
    @classmethod
    def _steps_instead_of_epochs(cls, raw: Any) -> Any:
        if isinstance(raw, Mapping) and raw.get("max_steps") is not None and "epochs" not in raw:
            return {**raw, "epochs": None}
        return raw

    @model_validator(mode="after")
    def _one_rate_one_warmup(self) -> Self:
        if (self.epochs is None) == (self.max_steps is None):
            raise ValueError("set exactly one of epochs and max_steps")
        if (self.learning_rate is None) == (self.base_learning_rate is None):
            raise ValueError("set exactly one of learning_rate and base_learning_rate")
        warmups = (self.warmup_epochs, self.warmup_ratio, self.warmup_steps)
        if sum(value is not None for value in warmups) > 1:
            raise ValueError("set at most one of warmup_epochs, warmup_ratio and warmup_steps")
        decays = (self.decay_ratio, self.decay_steps)
        if all(value is not None for value in decays):
            raise ValueError("set at most one of decay_ratio and decay_steps")
        if self.schedule != "wsd" and any(value is not None for value in decays):
            raise ValueError("decay_ratio and decay_steps are wsd's; set schedule: wsd")
        return self

    @property
    def peak_learning_rate(self) -> float:
        """The resolved learning rate: base_learning_rate · batch_size / 256, or as given."""
        if self.learning_rate is not None:
            return self.learning_rate
        assert self.base_learning_rate is not None
        return self.base_learning_rate * self.batch_size / 256

    @property
    def image_rate_ratio(self) -> float | None:
        """The projection's learning rate as a multiple of the others'; None where none is set."""
        if self.image_learning_rate is None:
            return None
        return self.image_learning_rate / self.peak_learning_rate

    def steps_per_epoch(self, num_examples: int) -> int:
        """Optimizer steps of one epoch; the last batch may be smaller."""
        return -(-num_examples // self.batch_size)

    def total_steps(self, num_examples: int) -> int:
        """Optimizer steps of the whole training."""
        if self.max_steps is not None:
            return self.max_steps
        assert self.epochs is not None  # one of both is set
        return self.epochs * self.steps_per_epoch(num_examples)

    def num_epochs(self, num_examples: int) -> int:
        """Passes over the data, a last one that is cut included."""
        return -(-self.total_steps(num_examples) // self.steps_per_epoch(num_examples))

    def num_passed(self, num_examples: int) -> int:
        """Examples that go through the model, one of several passes counted in each."""
        passes, rest = divmod(self.total_steps(num_examples), self.steps_per_epoch(num_examples))
        return passes * num_examples + rest * self.batch_size

    def warmup(self, num_examples: int) -> float:
        """Length of the warm-up in optimizer steps (it may be fractional)."""
        if self.warmup_steps is not None:
            return float(self.warmup_steps)
        if self.warmup_epochs is not None:
            return self.warmup_epochs * self.steps_per_epoch(num_examples)
        # Rounded up like the transformers Trainer, whose setting this is.
        return float(math.ceil((self.warmup_ratio or 0.0) * self.total_steps(num_examples)))

    def decay(self, num_examples: int) -> int:
        """Length of wsd's decay in optimizer steps."""
        if self.decay_steps is not None:
            return self.decay_steps
        ratio = DEFAULT_DECAY_RATIO if self.decay_ratio is None else self.decay_ratio
        return math.ceil(round(ratio * self.total_steps(num_examples), 6))  # 0.1 · 70 is above 7

    def learning_rate_at(self, step: int, num_examples: int) -> float:
        """Learning rate of an optimizer step, counted from 1.

        With s steps done before this one, w steps of warm-up and n steps in all:

            s < w: peak · s / w
            cosine: peak · (1 + cos(pi · (s - w) / (n - w))) / 2
            linear: peak · (n - s) / (n - w)
            wsd: peak · min(1, (n - s) / d), with d steps of decay, at most n - w

        So the first of several warm-up steps has rate 0, and the last step a rate just above 0.
        LLaMA-Adapter's schedule is this (its epoch is s / steps_per_epoch, a fraction), and so
        are the schedules of transformers that Alpaca-LoRA and Stanford Alpaca use.
        """
        done, peak = step - 1, self.peak_learning_rate
        warmup, total = self.warmup(num_examples), self.total_steps(num_examples)
        if done < warmup:
            return peak * done / warmup
        match self.schedule:
            case "cosine":
                return peak * (1 + math.cos(math.pi * (done - warmup) / (total - warmup))) / 2
            case "linear":
                return peak * (total - done) / (total - warmup)
            case "constant":
                return peak
            case "wsd":
                length = min(self.decay(num_examples), total - warmup)
                return peak * min(1.0, (total - done) / length)
