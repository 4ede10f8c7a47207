"""Whether a faster kernel gives what the usual operations give, on a training's own numbers.

Both are run in the training's half precision, and the usual operations in fp32 besides, forward and
backward. A kernel passes where it is about as near to fp32 as the usual operations are. So the rule
knows no tolerance for a model: where half precision is coarse, both are far from fp32.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from harness.errors import one_line
from harness.models.devices import is_out_of_memory

ROOM = 2.0
"""How much farther from fp32 the kernel may be than the usual operations ..."""
ROUNDINGS = 8.0
"""... and by how many times the type's rounding besides, where those are all but exact."""


class KernelCheck:
    """Compares pairs of functions in one forward pass; `faults` says what differed."""

    def __init__(self) -> None:
        self._found: list[tuple[str, Tensor]] = []
        self.failed: dict[str, str] = {}
        """By name what does not run at all here, and why; the usual operations are to be run."""

    def compare(
        self,
        name: str,
        fast: Callable[..., Tensor],
        usual: Callable[..., Tensor],
        inputs: Sequence[Tensor],
    ) -> None:
        """Runs both on the same tensors and keeps how far their results are from those in fp32.

        The host does not wait. No gradient reaches anything but the copies of `inputs`. A kernel
        that raises, as one that torch was built without does, is in `failed` afterwards.

        Args:
            name: of what is compared.
            fast: the kernel, of `inputs`; gives one tensor.
            usual: what it stands for; also runs in fp32.
        """
        if name in self.failed:
            return
        device = inputs[0].device.type
        dtype = inputs[0].dtype
        if torch.is_autocast_enabled(device):
            dtype = torch.get_autocast_dtype(device)
        exact = _results(usual, inputs, torch.float32, None)
        cotangent = exact[0].to(dtype)
        try:
            own = _results(fast, inputs, dtype, cotangent)
        except Exception as fault:  # noqa: BLE001  # a kernel raises what its parts raise
            if is_out_of_memory(fault):
                raise
            self.failed[name] = f"{type(fault).__name__}: {one_line(fault)}"
            return
        ratios = [
            torch.stack([_distance(*pair) for pair in zip(found, exact, strict=True)])
            for found in (own, _results(usual, inputs, dtype, cotangent))
        ]
        allowed = ROOM * ratios[1] + ROUNDINGS * torch.finfo(dtype).eps
        self._found.append((name, (ratios[0] / allowed).max()))

    def faults(self) -> dict[str, str]:
        """By name what differs by more than rounding, in words; the one wait of the check."""
        failed = {name: f"{name} does not run here ({why})" for name, why in self.failed.items()}
        if not self._found:
            return failed
        worst: dict[str, float] = {}
        values = torch.stack([value for _, value in self._found]).tolist()
        for (name, _), value in zip(self._found, values, strict=True):
            worst[name] = max(worst.get(name, 0.0), math.inf if math.isnan(value) else value)
        return {
            name: f"{name} differs from the usual one by {value:.3g} times what rounding allows"
            for name, value in worst.items()
            if value > 1
        } | failed


def _results(
    function: Callable[..., Tensor],
    inputs: Sequence[Tensor],
    dtype: torch.dtype,
    cotangent: Tensor | None,
) -> list[Tensor]:
    """The output and the gradients of `inputs` for a cotangent, its own output where None; fp32."""
    leaves = [one.detach().to(dtype).requires_grad_() for one in inputs]
    with torch.enable_grad(), torch.autocast(inputs[0].device.type, enabled=False):
        output = function(*leaves)
        along = output.detach() if cotangent is None else cotangent
        gradients = torch.autograd.grad(output, leaves, along.to(output.dtype))
    return [output.detach().float(), *(one.float() for one in gradients)]


def _distance(found: Tensor, exact: Tensor) -> Tensor:
    return (found - exact).norm() / exact.norm().clamp(min=1e-30)
