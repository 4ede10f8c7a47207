"""The model and its optimizer on one device or on several, and what the ranks tell each other.

An adapter's few trained tensors are copied to every rank and their gradients averaged (DDP, through
accelerate). In full fine-tuning, where weights, gradients and AdamW's state are 16 bytes per
parameter, every rank keeps its part of each and gathers one decoder layer at a time (FSDP2). That
is torch's own `fully_shard`: accelerate (1.15) leaves its FSDP plugin unused on the CPU, where
these laws are tested.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch import distributed as dist

from harness.data.instructions import Example
from harness.models.loading import trained_parameters

if TYPE_CHECKING:
    from harness.data.instructions import Example

T = TypeVar("T")
COMPUTE_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
"""What matrices are multiplied in, where that is not fp32."""


@dataclass(frozen=True)
class Ranks:
    """The processes that train one model together; a single one waits for nobody."""

    rank: int
    size: int
    device: torch.device

    @classmethod
    def joined(cls, device: torch.device) -> Ranks:
        """Returns this process' place in its group, or that of a process alone."""
        if dist.is_initialized():
            return cls(dist.get_rank(), dist.get_world_size(), device)
        return cls(0, 1, device)

    def shard(self, examples: Sequence[Example]) -> RankShard:
        """Returns this rank's part of an optimizer batch."""
        return rank_shard(examples, self.rank, self.size)

    def lockstep(
        self, own: Sequence[T], dummy_batch: Callable[[], T]
    ) -> Iterator[tuple[T, float, bool]]:
        """Yields micro-batches with their weights, as many on every rank; the last is marked.

        A rank that has fewer than another takes part with one that counts nothing, since every
        pass of a sharded model needs all ranks.

        Args:
            own: this rank's micro-batches; perhaps none.
            dummy_batch: makes one to take part with.
        """
        count = self.highest(len(own))
        for index in range(count):
            counted = index < len(own)
            batch = own[index] if counted else own[-1] if own else dummy_batch()
            yield batch, float(counted), index == count - 1

    def highest(self, value: int) -> int:
        """Returns the largest of a number over the ranks: what all of them agree on."""
        if self.size == 1:
            return value
        largest = torch.tensor(value, device=self.device)
        dist.all_reduce(largest, op=dist.ReduceOp.MAX)
        return int(largest)

    def total(self, value: float) -> float:
        """Returns the sum of a number over the ranks, in fp64: the same bits on all of them."""
        if self.size == 1:
            return value
        summed = torch.tensor(value, dtype=torch.float64, device=self.device)
        dist.all_reduce(summed)
        return float(summed)


class Parallel:
    """A module whose output is a summed loss, ready to train on this rank's device.

    Args:
        module: holds the model; changed in place where it is sharded.
        layers: the decoder layers, each gathered by itself where the model is sharded.
        optimizer: makes the optimizer of the trained tensors, as they are by then.
        ranks: who trains it.
        precision: of the frozen base.
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        layers: Sequence[nn.Module],
        optimizer: Callable[[], torch.optim.Optimizer],
        ranks: Ranks,
        precision: str,
    ) -> None:
        self.ranks = ranks
        parameters = list(module.parameters())
        self.sharded = ranks.size > 1 and all(p.requires_grad for p in parameters)
        self.module: Any
        if self.sharded:
            _shard(module, layers, ranks, precision)
            self.module, self.optimizer = module, optimizer()
            return
        # The model lies on its device and autocasts itself: accelerate's own precision is one for
        # the whole process, while the cells of a process may differ.
        several = {"cpu": ranks.device.type == "cpu"} if ranks.size > 1 else {}
        self._accelerator = Accelerator(mixed_precision="no", device_placement=False, **several)
        self.module, self.optimizer = self._accelerator.prepare(module, optimizer())

    def gradient_sync(self, *, last: bool) -> contextlib.AbstractContextManager[None]:
        """Returns the context of a backward pass: copies meet in a step's last one alone.

        Shards meet in every one: a rank has no room for the gradients of all.
        """
        if last or self.sharded:
            return contextlib.nullcontext()
        return self._accelerator.no_sync(self.module)

    def backward(self, loss: Tensor) -> None:
        """Adds the gradient of a summed loss; the ranks' gradients are added, not averaged."""
        (loss * self.ranks.size).backward()

    def clip(self, parameters: Sequence[nn.Parameter], norm: float | None) -> Tensor:
        """Clips the gradients to a norm over all ranks, and returns the norm that they had."""
        found = nn.utils.clip_grad_norm_(parameters, norm or math.inf)
        return _whole(found)


def _shard(module: nn.Module, layers: Sequence[nn.Module], ranks: Ranks, precision: str) -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    mesh = init_device_mesh(ranks.device.type, (ranks.size,))
    # Gathered and multiplied in half precision; gradients are added in fp32.
    policy = MixedPrecisionPolicy(
        param_dtype=COMPUTE_DTYPES.get(precision), reduce_dtype=torch.float32
    )
    for layer in layers:
        fully_shard(layer, mesh=mesh, mp_policy=policy)
    fully_shard(module, mesh=mesh, mp_policy=policy)


def gather_trained(model: nn.Module) -> dict[str, Tensor] | None:
    """Returns the trained tensors of a sharded model, whole and on the CPU; None of any other.

    See `gather`: all ranks call it, and rank 0 alone gets them.
    """
    parameters = trained_parameters(model)
    if not any(_is_sharded(value) for value in parameters.values()):
        return None
    return gather(parameters)


def gather(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns tensors whole and on the CPU, on rank 0; the other ranks get an empty dictionary.

    All ranks call it, and meet over one sharded tensor after the other, so that a device holds one
    whole tensor at a time. `part_of` goes the other way.
    """
    gathered = {}
    leads = not dist.is_initialized() or dist.get_rank() == 0
    for name, value in tensors.items():
        whole = _whole(value.detach())
        if leads:
            gathered[name] = whole.cpu()
    return gathered


def part_of(whole: Tensor, like: Tensor) -> Tensor:
    """Returns this rank's part of a tensor that all ranks hold whole, sharded as another is.

    Where the other is not sharded, that is the tensor itself, on the other's device.
    """
    from torch.distributed.tensor import DTensor, distribute_tensor

    moved = whole.to(like.device)
    if not isinstance(like, DTensor):
        return moved
    return distribute_tensor(moved, like.device_mesh, like.placements, src_data_rank=None)


def _is_sharded(tensor: Tensor) -> bool:
    from torch.distributed.tensor import DTensor

    return isinstance(tensor, DTensor)


def _whole(tensor: Tensor) -> Tensor:
    return tensor.full_tensor() if _is_sharded(tensor) else tensor  # type: ignore[attr-defined]


@dataclass(frozen=True)
class RankShard:
    """The part of an optimizer batch that one rank computes."""

    examples: tuple[Example, ...]
    """With labels, longest first."""
    rows: tuple[int, ...]
    """The place of each in the whole batch, which decides its draws of dropout."""


def rank_shard(examples: Sequence[Example], rank: int, size: int) -> RankShard:
    """Divides an optimizer batch so that every rank has about as many tokens.

    Examples without labels are left out: they have no gradient. The others, longest first, go one
    by one to the rank that has the fewest tokens (Graham, 1969, "Bounds on multiprocessing timing
    anomalies"): no rank has more than 4/3 of the best division's largest share. Every rank finds
    the same division by itself.

    Args:
        examples: the whole batch, in the same order on every rank.
        rank: whose share.
        size: number of ranks; one has everything.
    """
    learned = [example for example in examples if example.num_labels]
    learned.sort(key=lambda example: len(example.token_ids), reverse=True)
    tokens = [0] * size
    mine: list[int] = []
    for row, example in enumerate(learned):
        taker = tokens.index(min(tokens))
        tokens[taker] += len(example.token_ids)
        if taker == rank:
            mine.append(row)
    return RankShard(tuple(learned[row] for row in mine), tuple(mine))
