"""The model and its optimizer on one device or on several, and the collectives between ranks.

An adapter's few trained tensors are copied to every rank and their gradients averaged (DDP). In
full fine-tuning, where weights, gradients and AdamW's state are 16 bytes per parameter, every rank
keeps its shard of each and gathers one decoder layer at a time (FSDP2).
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.distributed.tensor import DTensor, Shard
from torch.nn.parallel import DistributedDataParallel

from harness.models.loading import trained_parameters

if TYPE_CHECKING:
    from harness.training.packing import TokenSequence

T = TypeVar("T")
COMPUTE_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
"""Dtype of matrix products by precision, where it is not fp32."""


@dataclass(frozen=True)
class Ranks:
    """The processes that train one model together; a single one waits for nobody."""

    rank: int
    size: int
    device: torch.device

    @classmethod
    def joined(cls, device: torch.device) -> Ranks:
        """This process' rank in its group; that of a process alone is 0 of 1."""
        if dist.is_initialized():
            return cls(dist.get_rank(), dist.get_world_size(), device)
        return cls(0, 1, device)

    def shard(self, sequences: Sequence[TokenSequence]) -> list[TokenSequence]:
        """This rank's sequences of an optimizer batch; every rank has about as many tokens.

        They go one by one to the rank that has the fewest tokens (Graham, 1969, "Bounds on
        multiprocessing timing anomalies"): no rank has more than 4/3 of the best division's
        largest share. Every rank finds the same division by itself.

        Args:
            sequences: the whole batch, longest first.
        """
        tokens = [0] * self.size
        shard = []
        for sequence in sequences:
            taker = tokens.index(min(tokens))
            tokens[taker] += len(sequence.token_ids)
            if taker == self.rank:
                shard.append(sequence)
        return shard

    def lockstep(
        self, own: Sequence[T], dummy_batch: Callable[[], T]
    ) -> Iterator[tuple[T, float, bool]]:
        """Yields micro-batches with their weights, as many on every rank; the last is marked.

        A rank that has fewer than another, perhaps none, computes one of weight 0, since every pass
        of a sharded model needs all ranks.
        """
        count = self.highest(len(own))
        for index in range(count):
            counted = index < len(own)
            batch = own[index] if counted else own[-1] if own else dummy_batch()
            yield batch, float(counted), index == count - 1

    def highest(self, value: int) -> int:
        """The maximum of a number over the ranks: what all of them agree on."""
        if self.size == 1:
            return value
        largest = torch.tensor(value, device=self.device)
        dist.all_reduce(largest, op=dist.ReduceOp.MAX)
        return int(largest)

    def total(self, value: float) -> float:
        """The sum of a number over the ranks, in fp64: the same bits on all of them."""
        if self.size == 1:
            return value
        summed = torch.tensor(value, dtype=torch.float64, device=self.device)
        dist.all_reduce(summed)
        return float(summed)


def parallelize(
    module: nn.Module, layers: Sequence[nn.Module], ranks: Ranks, precision: str
) -> nn.Module:
    """Wraps a module, whose output is a summed loss, for the ranks that train it.

    Where the model is sharded, it is changed in place and each of its decoder layers is gathered by
    itself. Make the optimizer afterwards: sharding replaces the parameters, in fp32.

    The weights may still be in the base's precision (`Method.apply_before_sharding`): a layer is
    sharded, its shard made fp32, and the rest of it freed, before the next one's turn. With N
    parameters of b bytes and n ranks a device holds at most max(b·N, 4·N / n) and one layer more at
    that moment, and no host memory.
    """
    if ranks.size == 1:
        return module
    if not all(parameter.requires_grad for parameter in module.parameters()):
        return DistributedDataParallel(module)
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    mesh = init_device_mesh(ranks.device.type, (ranks.size,))
    # Gathered and multiplied in half precision; gradients are added in fp32.
    policy = MixedPrecisionPolicy(
        param_dtype=COMPUTE_DTYPES.get(precision), reduce_dtype=torch.float32
    )
    for part in (*layers, module):
        fully_shard(part, mesh=mesh, mp_policy=policy)
        part.float()  # the shards; exact
    return module


def gradient_sync(module: nn.Module, *, last: bool) -> contextlib.AbstractContextManager[None]:
    """The context of a backward pass: DDP reduces gradients in a step's last one alone.

    FSDP reduces in every one: a rank has no room for the gradients of all.
    """
    if last or not isinstance(module, DistributedDataParallel):
        return contextlib.nullcontext()
    return module.no_sync()


def reshard(module: nn.Module) -> None:
    """After a pass without a backward pass: makes the parameters shards again, in fp32.

    FSDP leaves those outside of the layers gathered until a backward pass, in the precision of the
    products, and not those of which the optimizer keeps a state.
    """
    from torch.distributed.fsdp import FSDPModule

    if isinstance(module, FSDPModule):
        module.reshard()


def clip_gradients(parameters: Sequence[nn.Parameter], norm: float | None) -> Tensor:
    """Clips the gradients to a norm over all ranks; returns their norm before."""
    return _whole(nn.utils.clip_grad_norm_(parameters, norm or math.inf))


def gather_trained(model: nn.Module) -> dict[str, Tensor] | None:
    """The trained tensors of a sharded model, whole and on the CPU; None of any other.

    See `gather`: all ranks call it, and rank 0 alone gets them.
    """
    parameters = trained_parameters(model)
    is_sharded = any(isinstance(value, DTensor) for value in parameters.values())
    return gather(parameters) if is_sharded else None


def gather(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies tensors, whole and on the CPU, to rank 0; the other ranks get an empty dictionary.

    All ranks call it. One sharded tensor is gathered after the other, so that a device holds one
    whole tensor at a time. `shard_of` goes the other way.
    """
    gathered = {}
    leads = not dist.is_initialized() or dist.get_rank() == 0
    for name, value in tensors.items():
        whole = _whole(value.detach())
        if leads:
            # What is gathered is a new tensor already; 81 GB of them for LLaMA-7B.
            gathered[name] = whole.to("cpu", copy=not isinstance(value, DTensor))
    return gathered


def shard_of(whole: Tensor, like: Tensor) -> Tensor:
    """This rank's shard of a tensor that all ranks have whole, divided as another is.

    Of a tensor that is mapped from a file no other part is read. Where the other is not sharded,
    that is the tensor itself, on the other's device.
    """
    if not isinstance(like, DTensor):
        return whole.to(like.device)
    rows = _own_rows(like)
    return DTensor.from_local(
        whole[rows].to(like.device),
        like.device_mesh,
        like.placements,
        run_check=False,
        shape=whole.shape,
        stride=whole.stride(),
    )


def _own_rows(like: DTensor) -> slice:
    """The rows of a sharded tensor that lie on this rank: chunks as torch.chunk makes them."""
    assert like.placements == (Shard(0),)
    mesh = like.device_mesh
    size = -(-like.shape[0] // mesh.size())
    begin, end = (min(size * (mesh.get_local_rank() + k), like.shape[0]) for k in (0, 1))
    assert end - begin == like.to_local().shape[0]
    return slice(begin, end)


def _whole(tensor: Tensor) -> Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
