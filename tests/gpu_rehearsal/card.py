"""A CUDA card that is not there: zbench's CUDA paths at full size, without a card.

Tensors on the CPU are real; tensors on `cuda` are fake (torch's FakeTensor): they have a shape, a
dtype, strides and a device, but no numbers. So a 7B model takes no memory, a training step takes
seconds, and what goes wrong on a card by shape, dtype or device goes wrong here with torch's own
message. docs/gpu-rehearsal.md says what it shows and what it cannot.

    with rehearsal("h200") as card:
        ...                        # anything that asks for "cuda"
        card.counts.launches       # and operations, waits, FLOPs, bytes moved
        card.memory.peak

`shim` registers a device guard and hooks for CUDA that do nothing: autograd needs them, and no
Python call can register them. `torch_cuda` answers torch.cuda's questions for a named card. A
dispatch mode sees every operation below autograd: one that involves `cuda` runs on fake tensors and
is counted (`counting`, `storages`); `stand_ins` answers what would read from the card, `refusals`
raises what a card would, and `attention` and `norm` take the card's kernels.
"""

from __future__ import annotations

from tests.gpu_rehearsal import before_torch  # noqa: F401

# isort: split

import contextlib
import functools
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any
from unittest import mock

import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode

from harness.methods import dropout_kernel
from tests.gpu_rehearsal.attention import attention_on, count_varlen
from tests.gpu_rehearsal.cards import CARDS, CardSpec
from tests.gpu_rehearsal.counting import Counts, call_site, op_name, tensors_in
from tests.gpu_rehearsal.norm import norm_on_card
from tests.gpu_rehearsal.refusals import refuse
from tests.gpu_rehearsal.stand_ins import StandIns
from tests.gpu_rehearsal.storages import Storages
from tests.gpu_rehearsal.torch_cuda import answers

aten = torch.ops.aten


class Card:
    """The card: every operation on it goes through `run`."""

    def __init__(self, spec: CardSpec, *, limit_bytes: float | None = None) -> None:
        self.spec = spec
        self.fake = FakeTensorMode(allow_non_fake_inputs=True)
        self.counts = Counts()
        self.memory = Storages(limit_bytes)
        self.peak_before = 0
        """The peak when `torch.cuda.reset_peak_memory_stats` was last called, in bytes."""
        self._stand_ins = StandIns(self)

    @property
    def limit(self) -> float | None:
        """Above so many bytes an allocation raises OutOfMemoryError; None for never."""
        return self.memory.limit

    @limit.setter
    def limit(self, size: float | None) -> None:
        self.memory.limit = size

    @property
    def live(self) -> int:
        """Bytes alive."""
        return self.memory.live

    @property
    def peak(self) -> int:
        """The most bytes alive since the last `reset`."""
        return self.memory.peak

    @property
    def at_peak(self) -> Counter[str]:
        """Bytes by the line that made them, near the peak (within 2 %)."""
        return self.memory.at_peak

    def reset(self) -> None:
        """Forgets what ran; what is alive stays, and the peak begins at it."""
        self.counts = Counts()
        self.memory.reset_peak()

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> Any:
        """An uncounted tensor on the card."""
        with self.fake:
            return aten.empty.memory_format(shape, dtype=dtype, device=torch.device("cuda", 0))

    def run(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """Runs an operation: on the card, on the CPU, or as DTensor's question for a shape."""
        if func is torch.ops.prim.device.default:  # `tensor.device` of a fake one
            return args[0].fake_device
        other = torch._C._get_dispatch_mode(torch._C._TorchDispatchModeKey.FAKE)
        if other is not None and other is not self.fake:
            return func(*args, **kwargs)  # DTensor asks for shapes, in a fake mode of its own
        fakes = [one for one in tensors_in((args, kwargs)) if isinstance(one, FakeTensor)]
        target = kwargs.get("device")
        to_card = target is not None and torch.device(target).type == "cuda"
        if not fakes and not to_card:
            return func(*args, **kwargs)  # on the CPU, for real
        if _is_composite(func):
            return func.decompose(*args, **kwargs)  # in inference mode torch leaves that to us
        if not to_card and not any(one.device.type == "cuda" for one in fakes):
            with self.fake:  # a large copy on the host
                return func(*args, **kwargs)
        return self._run_here(func, args, kwargs)

    def _run_here(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        name = op_name(func)
        site = call_site() if self.memory.keep_sites else "not kept"
        self.counts.begin(name, site)
        refuse(self.spec, name, args)
        answered, result = self._stand_ins.answer(func, args, kwargs, site)
        if not answered:
            args = self._stand_ins.without_masks(name, args, site)
            with self.fake:
                result = func(*args, **kwargs)
        flops = None
        if name.startswith("_varlen_attn"):
            flops = count_varlen(self.counts, name, args, self._stand_ins.known)
        self.counts.end(func, args, kwargs, result, site, flops)
        if not func.is_view:
            for tensor in tensors_in(result):
                if isinstance(tensor, FakeTensor) and tensor.device.type == "cuda":
                    self.memory.watch(tensor, site)
        return result


class _Dispatch(TorchDispatchMode):
    """Sees operations before FakeTensorMode does."""

    def __init__(self, card: Card) -> None:
        super().__init__()
        self.card = card

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if any(kind.__name__ == "DTensor" for kind in types):
            return NotImplemented  # it comes again with its local parts
        return self.card.run(func, args, kwargs or {})


@functools.cache
def _is_composite(func: Any) -> bool:
    return torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd")


@contextlib.contextmanager
def rehearsal(
    name: str = "h200", *, num_cards: int = 1, limit_bytes: float | None = None
) -> Iterator[Card]:
    """Puts the named card into this machine, for the code inside.

    Args:
        name: one of `CARDS`.
        num_cards: what `torch.cuda.device_count` says; all run as one.
        limit_bytes: above it an allocation raises OutOfMemoryError; None for never.
    """
    card = Card(CARDS[name], limit_bytes=limit_bytes)
    before = torch._C._only_lift_cpu_tensors()
    torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(..., device="cuda") begins on the CPU
    with contextlib.ExitStack() as stack:
        stack.callback(torch._C._set_only_lift_cpu_tensors, before)
        for target, attribute, value in _replacements(card, num_cards):
            stack.enter_context(mock.patch.object(target, attribute, value, create=True))
        stack.enter_context(_Dispatch(card))
        yield card


def _replacements(card: Card, num_cards: int) -> Iterator[tuple[Any, str, Any]]:
    """What of torch is replaced: the object, its attribute, and the value during a rehearsal."""
    for attribute, value in answers(card, num_cards).items():
        yield torch.cuda, attribute, value
    functional, storage = torch.nn.functional, torch.UntypedStorage
    attention = attention_on(card, functional.scaled_dot_product_attention)
    yield functional, "scaled_dot_product_attention", attention
    yield functional, "rms_norm", norm_on_card(functional.rms_norm)
    # torch's builds for CUDA bring Triton, this one does not; the kernel itself never runs here.
    yield dropout_kernel, "has_triton", lambda: True
    yield storage, "resize_", _resizing(card, storage.resize_)
    # Modes belong to a thread, and of fake ones stands one thread at a time: transformers loads in
    # several. Here the caller does the work.
    yield ThreadPoolExecutor, "submit", _submit
    # `Module._apply` swaps fake parameters alone; on a card a parameter is given other data.
    yield torch.utils, "swap_tensors", _give_data
    yield FakeTensor, "tolist", _tolist
    yield FakeTensor, "data_ptr", lambda tensor: tensor.untyped_storage()._cdata
    # It would make a real tensor on the card, to wake autograd.
    yield FakeTensorMode, "avoid_device_init", property(lambda mode: True)
    yield torch._subclasses.fake_tensor, "init_gpu_context", lambda device: None


def _resizing(card: Card, resize: Any) -> Any:
    def resize_(storage: Any, size: int) -> Any:
        result = resize(storage, size)
        card.memory.resized(storage)
        return result

    return resize_


def _submit(_pool: Any, job: Any, /, *args: Any, **kwargs: Any) -> Any:
    future: Future[Any] = Future()
    try:
        future.set_result(job(*args, **kwargs))
    except BaseException as fault:  # as an executor does
        future.set_exception(fault)
    return future


_swap_tensors = torch.utils.swap_tensors


def _give_data(one: Any, two: Any) -> None:
    if isinstance(one, DTensor):  # a wrapper of fake tensors, which is swapped as on a card
        _swap_tensors(one, two)
        return
    one.data = two.data
    if isinstance(one, FakeTensor):
        one.fake_device = two.fake_device


def _tolist(tensor: FakeTensor) -> Any:
    """One wait for the whole list, as on a card."""
    host = tensor.cpu() if tensor.device.type == "cuda" else tensor
    return torch.Tensor.tolist(host) if not isinstance(host, FakeTensor) else [0.0] * len(host)
