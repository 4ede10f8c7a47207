"""Which kernels of half precision a training runs on: chosen once, checked before its first step.

By the device, the precision and the family: variable-length attention (`models.varlen_attention`)
and fused norms (`models.fused_norms`). Neither has the low bits of what it stands for. So both are
compared with that on the training's own first batch, a checkpoint keeps what was chosen, and the
result names it. In fp32 and on the CPU there are none.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace

import torch

from harness.models.fused_norms import FUSED, FusedNorms, may_fuse
from harness.models.kernel_check import KernelCheck
from harness.models.packed_attention import VARLEN
from harness.models.varlen_attention import why_buckets
from harness.training.loss import MicroBatch, ResponseLoss, base_model
from harness.training.packing import PackedRow

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
        self,
        first_micro_batch: Callable[[], MicroBatch],
        forward: Callable[[MicroBatch], object],
        highest: Callable[[int], int],
    ) -> list[str]:
        """Chooses before the first step, by comparing the kernels on its batch, in every layer.

        A kernel that differs by more than rounding on any rank is not used.

        Args:
            first_micro_batch: this rank's, laid out for the kernels that are used.
            forward: a pass of the model in training, without a gradient for it.
            highest: the maximum over the ranks.

        Returns:
            What differs, and what is used instead.
        """
        self.use(self.available)
        said: list[str] = []
        while self.chosen:
            found = self._faults(first_micro_batch(), forward)
            differ = [
                name
                for name in (FUSED, VARLEN)
                if highest(int(name in self.chosen and name in found))
            ]
            if not differ:
                break
            # One after the other: what is behind a wrong norm may overflow.
            name = differ[0]
            fault = found.get(name, f"{name} differs on another rank")
            said.append(f"{fault}: trained with {INSTEAD[name]}")
            self.use(self.chosen - {name})
        return said

    def _faults(self, batch: MicroBatch, forward: Callable[[MicroBatch], object]) -> dict[str, str]:
        check = KernelCheck()
        self.norms.check = check
        try:
            forward(_checked(batch, check))
        finally:
            self.norms.check = None
        return check.faults()

    def resume(self, attention: str | None, norms: str | None) -> None:
        """Runs on the kernels of the steps before, so far as the device has them.

        Args:
            attention: the path that a checkpoint names, if any.
            norms: `fused`, or None.
        """
        stored = {VARLEN} if attention == "varlen" else set()
        stored |= {FUSED} if norms == "fused" else set()
        # On the CPU each has a stand-in.
        missing = set() if self.on_cpu else stored - self.available
        for name in sorted(missing):
            logger.warning(
                "the steps before ran on %s, which this device does not have: training goes on "
                "with %s, and low bits may differ", name, INSTEAD[name],
            )  # fmt: skip
        self.use(stored - missing)

    @property
    def attention(self) -> str | None:
        """`varlen` or `buckets`; None where sequences are padded."""
        return None if self.loss.refusal else self.loss.path

    @property
    def norms_kind(self) -> str | None:
        """`fused`; None for the model's own."""
        return "fused" if FUSED in self.chosen else None


def _checked(batch: MicroBatch, check: KernelCheck) -> MicroBatch:
    if not isinstance(batch, PackedRow):
        return batch
    return replace(batch, packing=replace(batch.packing, check=check))
