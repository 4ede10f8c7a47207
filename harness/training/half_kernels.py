"""Which kernels of half precision a training runs on: chosen once, checked before its first step.

By the device, the precision and the family: variable-length attention (`models.varlen_attention`)
and fused norms (`models.fused_norms`). Neither has the low bits of what it stands for. So both are
compared with that on the training's own first batch, a checkpoint keeps what was chosen, and the
result names it. In fp32 and on the CPU there are none.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from harness.data.instructions import Example
from harness.methods.row_dropout import dropout_rng
from harness.models.fused_norms import FUSED, FusedNorms, may_fuse
from harness.models.kernel_check import KernelCheck
from harness.models.packed_attention import VARLEN
from harness.models.varlen_attention import why_buckets
from harness.training.loss import MicroBatch, ResponseLoss, base_model, dropout_key
from harness.training.packing import PackedRow

if TYPE_CHECKING:
    from harness.training.progress import Progress
    from harness.training.step import TrainStep

logger = logging.getLogger(__name__)

INSTEAD = {VARLEN: "attention by buckets", FUSED: "transformers' norms"}


def choose_kernels(loss: ResponseLoss, device: torch.device, dtype: torch.dtype | None) -> set[str]:
    """Names of the kernels that a training takes: `VARLEN`, `FUSED`, both or none.

    Args:
        dtype: of autocast; None in fp32.
    """
    chosen = set()
    if loss.refusal is None and why_buckets(base_model(loss.model), device, dtype) is None:
        chosen.add(VARLEN)
    if may_fuse(device, dtype):
        chosen.add(FUSED)
    return chosen


class HalfKernels:
    """The kernels of half precision of one training."""

    def __init__(self, loss: ResponseLoss, device: torch.device, dtype: torch.dtype | None) -> None:
        self.loss = loss
        self.on_cpu = device.type == "cpu"
        self.norms = FusedNorms(base_model(loss.model))
        self.available = choose_kernels(loss, device, dtype)
        if not self.norms.norms:
            self.available.discard(FUSED)
        self.chosen: set[str] = set()

    def use(self, chosen: set[str]) -> None:
        """Runs on these kernels from here on, until `remove`."""
        self.chosen = chosen
        self.loss.path = "varlen" if VARLEN in chosen else "buckets"
        self.norms.remove()
        if FUSED in chosen:
            self.norms.install()

    def remove(self) -> None:
        """Leaves the model as it was."""
        self.norms.remove()

    def begin(
        self, train_step: TrainStep, examples: Sequence[Example], dropout_seed: int
    ) -> list[str]:
        """Chooses the kernels before the first step, by comparing them on its batch.

        On its first micro-batch, in every layer, without a gradient for the model. A kernel that
        differs by more than rounding on any rank is not used.

        Returns:
            What differs, and what is used instead.
        """
        self.use(self.available)
        said: list[str] = []
        while self.chosen:
            found = self._faults(train_step, examples, dropout_seed)
            differ = [
                name
                for name in (FUSED, VARLEN)
                if train_step.ranks.highest(int(name in self.chosen and name in found))
            ]
            if not differ:
                break
            # One after the other: what is behind a wrong norm may overflow.
            name = differ[0]
            fault = found.get(name, f"{name} differs on another rank")
            said.append(f"{fault}: trained with {INSTEAD[name]}")
            self.use(self.chosen - {name})
        return said

    def _faults(
        self, train_step: TrainStep, examples: Sequence[Example], dropout_seed: int
    ) -> dict[str, str]:
        check, batch = KernelCheck(), train_step.first_micro_batch(examples)
        key = dropout_key(batch, dropout_seed)
        self.norms.check = check
        try:
            with torch.no_grad(), train_step.autocast(), dropout_rng(key):
                train_step.module(_checked(batch, check))
        finally:
            self.norms.check = None
        return check.faults()

    def resume(self, progress: Progress) -> None:
        """Runs on the kernels of the steps before, so far as the device has them."""
        stored = {VARLEN} if progress.attention == "varlen" else set()
        stored |= {FUSED} if progress.norms == "fused" else set()
        # On the CPU each has a stand-in.
        missing = set() if self.on_cpu else stored - self.available
        for name in sorted(missing):
            logger.warning(
                "the steps before ran on %s, which this device does not have: training goes on "
                "with %s, and low bits may differ", name, INSTEAD[name],
            )  # fmt: skip
        self.use(stored - missing)
        self.note(progress)

    def note(self, progress: Progress) -> None:
        """Writes down what is used."""
        progress.attention = None if self.loss.refusal else self.loss.path
        progress.norms = "fused" if FUSED in self.chosen else None


def _checked(batch: MicroBatch, check: KernelCheck) -> MicroBatch:
    if not isinstance(batch, PackedRow):
        return batch
    return replace(batch, packing=replace(batch.packing, check=check))
