# ruff: noqa: E501, E402, PT008
"""A CUDA card that is not there: zbench's CUDA paths at full size, without a card.

Tensors on the CPU are real; tensors on `cuda` are fake (torch's FakeTensor): they have a shape, a
dtype, strides and a device, but no numbers. So a 7B model takes no memory, a training step takes
seconds, and what goes wrong on a card by shape, dtype or device goes wrong here with torch's own
message. What this cannot show: numbers, speed, fragmentation, and what kernels refuse when run.

    with rehearsal("h200") as card:
        ...                        # anything that asks for "cuda"
        card.counts.kernels        # launches, dispatched ops, syncs, FLOPs, peak bytes

How it works:

1. `shim.cpp` registers a device guard and hooks for CUDA that do nothing. Autograd needs them; the
   CPU build of torch has none, and no Python call can register them (torch forbids the renaming of
   PrivateUse1 to the name of a built-in device).
2. `torch.cuda`'s questions are answered for a named card.
3. A TorchDispatchMode sees every operation below autograd. An operation that involves `cuda` runs
   on fake tensors; one that does not runs as always. What would wait for the card (a copy to the
   host, `.item()`, `nonzero`) is counted, and answered: with zeros, True for a truth value. Where the shape of a result depends on values, it is the largest possible.
4. Memory is counted by storage: a storage counts from the first tensor that shows it until it is
   freed, rounded up to 512 bytes as torch's allocator does.
"""

from __future__ import annotations

from tests.gpu_rehearsal import before_torch  # noqa: F401

# isort: split

import contextlib
import functools
import sys
import types
import weakref
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten
from torch.utils.flop_counter import flop_registry

aten = torch.ops.aten


@dataclass(frozen=True)
class CardSpec:
    name: str
    gigabytes: float
    capability: tuple[int, int]
    processors: int


CARDS = {
    "h200": CardSpec("NVIDIA H200", 141, (9, 0), 132),
    "a100-80": CardSpec("NVIDIA A100-SXM4-80GB", 80, (8, 0), 108),
    "v100-32": CardSpec("Tesla V100-SXM2-32GB", 32, (7, 0), 80),
}


@dataclass
class Counts:
    """What ran on the card since the last `reset`."""

    ops: int = 0
    """Operations dispatched, views included: each costs CPU time."""
    kernels: int = 0
    """Estimated launches: operations that compute or copy."""
    syncs: int = 0
    """Times that the host would wait for the card."""
    flops: float = 0.0
    bytes_moved: float = 0.0
    """Read and written by launches that multiply nothing: what the memory's bandwidth limits."""
    bytes_by_op: Counter = field(default_factory=Counter)
    by_op: Counter = field(default_factory=Counter)
    by_site: Counter = field(default_factory=Counter)
    by_site_kernels: Counter = field(default_factory=Counter)
    sync_sites: Counter = field(default_factory=Counter)
    attention: Counter = field(default_factory=Counter)
    """(backend, shape of q, length of k, mask) of each attention call."""


class Fault(RuntimeError):
    """What a card would refuse and the fake tensors do not."""


# --- which attention kernel ----------------------------------------------------------------------

MATH, FLASH, EFFICIENT = 0, 1, 2


def choose_attention(card: CardSpec, q: Any, k: Any, v: Any, mask: Any, causal: bool) -> int:
    """Follows sdp_utils.cpp: flash, then memory-efficient, then math. cuDNN is left out."""
    half = q.dtype in (torch.float16, torch.bfloat16)
    same = q.dtype == k.dtype == v.dtype
    dense = all(t.dim() == 4 and t.stride(-1) == 1 for t in (q, k, v))
    if not same or not dense or min(q.numel(), k.numel()) == 0:
        return MATH
    size = q.shape[-1]
    heads_agree = q.shape[1] == k.shape[1] == v.shape[1]  # else grouped heads, flash only
    square = q.shape[2] == k.shape[2]
    if (
        card.capability >= (8, 0)
        and half
        and mask is None
        and size <= 256
        and size == v.shape[-1]
        and (square or not causal)
    ):
        return FLASH
    aligned = 8 if half else 4
    efficient_dtypes = {torch.float16, torch.float32} | (
        {torch.bfloat16} if card.capability >= (8, 0) else set()
    )
    if (
        q.dtype in efficient_dtypes
        and heads_agree
        and size % aligned == 0
        and (square or not causal)
    ):
        return EFFICIENT
    return MATH


def _attend(card: Card, original: Any) -> Any:
    """Returns `scaled_dot_product_attention` as the card would run it; on the CPU torch's own.

    In torch it is one C++ function, which asks the CUDA build for the kernel to take; the CPU build
    always answers "math".
    """

    def attend(query: Any, key: Any, value: Any, attn_mask: Any = None, dropout_p: float = 0.0,
               is_causal: bool = False, scale: Any = None, enable_gqa: bool = False) -> Any:  # fmt: skip
        if query.device.type != "cuda":
            return original(query, key, value, attn_mask, dropout_p, is_causal, scale=scale,
                            enable_gqa=enable_gqa)  # fmt: skip
        if torch.is_autocast_enabled("cuda"):
            dtype = torch.get_autocast_dtype("cuda")
            query, key, value = (x.to(dtype) for x in (query, key, value))
            if attn_mask is not None and attn_mask.dtype != torch.bool:
                attn_mask = attn_mask.to(dtype)
        with torch.autocast("cuda", enabled=False):
            return inner(query, key, value, attn_mask, dropout_p, is_causal, scale, enable_gqa)

    def inner(query: Any, key: Any, value: Any, mask: Any, dropout: float, causal: bool, scale: Any,
              grouped: bool) -> Any:  # fmt: skip
        if not query.dtype == key.dtype == value.dtype:
            raise RuntimeError(
                "Expected query, key, and value to have the same dtype, but got query.dtype: "
                f"{query.dtype} key.dtype: {key.dtype} and value.dtype: {value.dtype} instead."
            )
        if mask is not None and mask.dtype not in (torch.bool, query.dtype, torch.float32):
            raise RuntimeError(
                "Expected attn_mask dtype to be bool or float or to match query dtype"
            )
        choice = choose_attention(card.spec, query, key, value, mask, causal)
        note = None if mask is None else (tuple(mask.shape), str(mask.dtype)[6:])
        names = {FLASH: "flash", EFFICIENT: "efficient", MATH: "math"}
        card.counts.attention[
            names[choice], tuple(query.shape), key.shape[2], str(query.dtype)[6:], causal, note
        ] += 1
        if choice == FLASH:
            return aten._scaled_dot_product_flash_attention(
                query, key, value, dropout, causal, False, scale=scale
            )[0]
        if choice == EFFICIENT:
            if mask is not None and mask.dtype == torch.bool:
                floor = torch.full((), float("-inf"), dtype=query.dtype, device=query.device)
                mask = torch.where(mask, torch.zeros_like(floor), floor)
            if mask is not None:
                odd = -mask.shape[-1] % 16
                if odd:  # torch pads the bias to a multiple of 16 and shows a part of it
                    mask = torch.nn.functional.pad(mask, (0, odd))[..., : mask.shape[-1]]
                mask = mask.expand(*query.shape[:3], key.shape[2])
            wants = torch.is_grad_enabled() and any(x.requires_grad for x in (query, key, value))
            return aten._scaled_dot_product_efficient_attention(
                query, key, value, mask, wants, dropout, causal, scale=scale
            )[0]
        return original(query, key, value, mask, dropout, causal, scale=scale, enable_gqa=grouped)

    return attend


# --- the mode ------------------------------------------------------------------------------------

_FREE = {  # no launch: metadata, or memory that nobody writes
    "empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "detach", "alias",
    "lift_fresh", "_local_scalar_dense", "is_same_size", "sym_size", "sym_stride", "set_", "resize_",
    "_fused_sdp_choice", "_has_same_storage_numel", "wait_tensor", "_unsafe_view", "record_stream",
}  # fmt: skip
_DEPTH_LIMIT = {1: 110, 2: 64, 3: 48, 4: 36, 5: 30}
"""Tensors of one launch of a multi-tensor kernel, by the number of lists (MultiTensorApply.cuh)."""
_RAISES_DETERMINISTIC = {"histc", "put_", "kthvalue", "median", "nll_loss2d_forward",
                         "adaptive_max_pool2d", "grid_sampler_2d_backward"}  # fmt: skip


class _Mode(TorchDispatchMode):
    def __init__(self, card: Card) -> None:
        super().__init__()
        self.card = card

    def __torch_dispatch__(self, func: Any, types_: Any, args: Any = (), kwargs: Any = None) -> Any:
        if any(kind.__name__ == "DTensor" for kind in types_):
            return NotImplemented  # it comes again with its local parts
        return self.card.run(func, args, kwargs or {})


class Card:
    """The card: what runs on it goes through `run`."""

    def __init__(self, spec: CardSpec, *, limit_bytes: float | None = None) -> None:
        self.spec = spec
        self.fake = FakeTensorMode(allow_non_fake_inputs=True)
        self.counts = Counts()
        self.live = 0
        self.peak = 0
        self.limit = limit_bytes
        """Above so many bytes an allocation raises OutOfMemoryError; None for never."""
        self._storages: dict[int, tuple[Any, int, str]] = {}
        self._scalars: dict[int, tuple[Any, Any]] = {}
        self.keep_sites = True
        self.large_host_copy = 48 * 2**20
        """A copy to the host above so many bytes stays fake: a 7B model's would fill the memory."""
        self.peak_before = 0
        """The peak when `torch.cuda.reset_peak_memory_stats` was last called."""
        self.at_peak: Counter = Counter()
        """Bytes by the line that made them, near the highest point (within 2 %)."""
        self._noted = 0.0

    # -- counting --

    def reset(self) -> None:
        """Forgets what ran; what is alive stays, and the peak begins at it."""
        self.counts = Counts()
        self.peak = self.live
        self._noted, self.at_peak = self.live, self.alive_by_site()

    def _site(self) -> str:
        """Names the nearest line of zbench, transformers, PEFT or torch's optimizers."""
        node = torch._C._current_autograd_node()
        frame = sys._getframe(2)
        found = None
        while frame is not None:
            name = frame.f_code.co_filename
            if (
                "/harness/" in name
                or "/transformers/" in name
                or "/peft/" in name
                or "/optim/" in name
            ):
                short = name.split("site-packages/")[-1]
                short = short[short.find("harness/") :] if "/harness/" in name else short
                found = f"{short}:{frame.f_lineno} {frame.f_code.co_name}"
                break
            frame = frame.f_back
        if node is not None:
            inside = found if found and "backward" in found else node.name()
            return f"backward: {inside}"
        return found or "elsewhere"

    def _watch(self, tensor: Any, site: str) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._storages:
            return
        size = -(-storage.nbytes() // 512) * 512
        if size == 0:
            return
        if self.limit is not None and self.live + size > self.limit:
            raise torch.OutOfMemoryError(
                f"CUDA out of memory. Tried to allocate {size / 2**30:.2f} GiB (rehearsed)"
            )

        def freed(_ref: Any, key: int = key) -> None:
            known = self._storages.pop(key, None)
            if known is not None:
                self.live -= known[1]

        self._storages[key] = (weakref.ref(storage, freed), size, site)
        self.live += size
        self._note_peak()

    def _note_peak(self) -> None:
        if self.live <= self.peak:
            return
        self.peak = self.live
        if self.keep_sites and self.live > 1.02 * self._noted:
            self._noted, self.at_peak = self.live, self.alive_by_site()

    def resized(self, storage: Any) -> None:
        """FSDP frees and fills a gathered weight by resizing its storage."""
        key = storage._cdata
        if key not in self._storages:
            return
        reference, old, site = self._storages[key]
        size = -(-storage.nbytes() // 512) * 512
        self._storages[key] = (reference, size, site)
        self.live += size - old
        self._note_peak()

    def alive_by_site(self) -> Counter:
        """Returns the bytes that are alive, by the line that made them."""
        found: Counter = Counter()
        for _, size, site in list(self._storages.values()):
            found[site] += size
        return found

    def _launches(self, func: Any, args: Any, outputs: list[Any]) -> int:
        name = func._schema.name.split("::")[-1]
        if name in _FREE or func.is_view:
            return 0
        if name.startswith(("_foreach_", "_fused_ad", "_fused_sgd")):
            lists = [
                a
                for a in args
                if isinstance(a, (list, tuple)) and a and isinstance(a[0], torch.Tensor)
            ]
            if not lists:
                return 1
            count, depth = len(lists[0]), min(5, max(1, len(lists)))
            chunks = sum(-(-t.numel() // 65536) for t in lists[0])
            return max(-(-count // _DEPTH_LIMIT[depth]), -(-chunks // 320))
        if name in ("_scaled_dot_product_flash_attention_backward", "_efficient_attention_backward",
                    "_scaled_dot_product_efficient_attention_backward"):  # fmt: skip
            return 3  # dot product of do and o, the kernel, the conversion of dq
        if name in (
            "sort",
            "topk",
            "nonzero",
            "_unique2",
            "embedding_dense_backward",
            "index_put_",
        ):
            return 4
        return 1

    # -- running --

    def run(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        if func is torch.ops.prim.device.default:  # `tensor.device` of a fake one
            return args[0].fake_device
        flat, _ = tree_flatten((args, kwargs))
        involved = [a for a in flat if isinstance(a, FakeTensor)]
        other = torch._C._get_dispatch_mode(torch._C._TorchDispatchModeKey.FAKE)
        if other is not None and other is not self.fake:
            return func(*args, **kwargs)  # DTensor asks for shapes, in a fake mode of its own
        target = kwargs.get("device")
        to_card = target is not None and torch.device(target).type == "cuda"
        if not involved and not to_card:
            return func(*args, **kwargs)  # on the CPU, for real
        if _is_composite(func):
            return func.decompose(*args, **kwargs)  # in inference mode torch leaves that to us
        if not any(t.device.type == "cuda" for t in involved) and not to_card:
            with self.fake:  # a large copy on the host
                return func(*args, **kwargs)
        counts, name = self.counts, func._schema.name.split("::")[-1]
        site = self._site() if self.keep_sites else "?"
        counts.ops += 1
        counts.by_op[name] += 1
        counts.by_site[site] += 1
        self._refuse(func, name, args, kwargs)
        answered, result = self._answer(func, name, args, kwargs, site)
        if not answered:
            args, kwargs = self._bounded(func, name, args, kwargs, site)
            with self.fake:
                result = func(*args, **kwargs)
        outputs = [t for t in tree_flatten(result)[0] if isinstance(t, FakeTensor)]
        launches = self._launches(func, args, outputs)
        counts.kernels += launches
        counts.by_site_kernels[site] += launches
        formula = flop_registry.get(func._overloadpacket)
        if formula is not None:
            counts.flops += formula(*args, **kwargs, out_val=result)
        elif launches:
            inputs = [a for a in tree_flatten((args, kwargs))[0] if isinstance(a, FakeTensor)]
            moved = sum(t.numel() * t.element_size() for t in inputs + outputs)
            counts.bytes_moved += moved
            counts.bytes_by_op[name] += moved
        if not func.is_view:
            for tensor in outputs:
                if tensor.device.type == "cuda":
                    self._watch(tensor, site)
        return result

    def _waited(self, site: str, count: int = 1) -> None:
        self.counts.syncs += count
        self.counts.sync_sites[site] += count

    def _answer(self, func: Any, name: str, args: Any, kwargs: Any, site: str) -> tuple[bool, Any]:
        """Answers what depends on numbers, and copies to the host."""
        if name == "_local_scalar_dense":
            self._waited(site)
            known = self._scalars.get(id(args[0]))
            if known is not None and known[0]() is args[0]:
                return True, known[1]
            return True, _placeholder(args[0].dtype)
        if name in ("_to_copy", "copy_"):
            source = args[0] if name == "_to_copy" else args[1]
            aim = kwargs.get("device") if name == "_to_copy" else args[0].device
            aim = torch.device(aim) if aim is not None else source.device
            if source.device.type == "cpu" and aim.type == "cuda":
                blocking = not (
                    kwargs.get("non_blocking") or (name == "copy_" and len(args) > 2 and args[2])
                )
                self.counts.by_op["host to card" + (", blocking" if blocking else "")] += 1
                if name == "_to_copy":
                    with self.fake:
                        result = func(*args, **kwargs)
                    self._remember(source, result)
                    return True, result
            if source.device.type == "cuda" and aim.type == "cpu":
                self._waited(site)
                dtype = kwargs.get("dtype") or source.dtype
                if source.numel() * source.element_size() > self.large_host_copy:
                    with self.fake:
                        return True, func(*args, **kwargs)
                if name == "copy_":
                    return True, args[0].fill_(_placeholder(args[0].dtype))
                known = self._scalars.get(id(source))
                value = (
                    known[1] if known is not None and known[0]() is source else _placeholder(dtype)
                )
                return True, torch.full(source.shape, value, dtype=dtype)
        if name in ("nonzero", "masked_select", "_unique2", "unique_dim", "unique_consecutive"):
            self._waited(site)
            tensor = args[0]
            count = tensor.numel()

            def new(*shape: int, dtype: torch.dtype = tensor.dtype) -> Any:
                return self._empty(shape, dtype)

            if name == "nonzero":
                return True, new(count, tensor.dim(), dtype=torch.int64)
            if name == "masked_select":
                return True, new(count)
            return True, (new(count), new(count, dtype=torch.int64), new(count, dtype=torch.int64))
        if name in ("equal", "is_nonzero"):
            self._waited(site)
            return True, True
        return False, None

    def _empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> Any:
        with self.fake:
            return aten.empty.memory_format(shape, dtype=dtype, device=torch.device("cuda", 0))

    def _remember(self, source: Any, result: Any) -> None:
        if source.numel() == 1 and not isinstance(source, FakeTensor):
            self._scalars[id(result)] = (weakref.ref(result), source.item())

    def _bounded(self, func: Any, name: str, args: Any, kwargs: Any, site: str) -> tuple[Any, Any]:
        """Replaces masks in an index by as many places as they may have."""
        if name not in ("index", "index_put_", "index_put", "_unsafe_index"):
            return args, kwargs
        indices = []
        for index in args[1]:
            if index is not None and index.dtype in (torch.bool, torch.uint8):
                self._waited(site)
                places = self._empty((index.numel(),), torch.int64)
                indices += [places] * index.dim()
            else:
                indices.append(index)
        return (args[0], indices, *args[2:]), kwargs

    def _refuse(self, func: Any, name: str, args: Any, kwargs: Any) -> None:
        """Raises where a card would and fake tensors would not."""
        if torch.are_deterministic_algorithms_enabled():
            floating = args and isinstance(args[0], torch.Tensor) and args[0].is_floating_point()
            if name in _RAISES_DETERMINISTIC or (name in ("cumsum", "cumsum_") and floating):
                raise RuntimeError(
                    f"{name}_cuda_kernel does not have a deterministic implementation, but you set "
                    "'torch.use_deterministic_algorithms(True)'. (rehearsed)"
                )
        if name.startswith(("_foreach_", "_fused_")):  # of lists, fake tensors compare no devices
            lists = [a for a in tree_flatten(args)[0] if isinstance(a, torch.Tensor)]
            if any(a.device.type == "cpu" and (a.dim() or name[:7] == "_fused_") for a in lists):
                raise RuntimeError(
                    "Expected all tensors to be on the same device, but found at least two devices, "
                    f"cuda:0 and cpu! (rehearsed, in {name})"
                )
        if name in ("mm", "bmm", "addmm", "baddbmm"):
            dtypes = {a.dtype for a in args if isinstance(a, torch.Tensor)}
            if len(dtypes) > 1:
                one, two = sorted(map(str, dtypes))[:2]
                raise RuntimeError(
                    f"expected mat1 and mat2 to have the same dtype, but got: {one} != {two}"
                )
            if torch.bfloat16 in dtypes and self.spec.capability < (8, 0):
                raise Fault(f"{name} in bfloat16: {self.spec.name} only emulates it")


@functools.cache
def _is_composite(func: Any) -> bool:
    return torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd")


def _placeholder(dtype: torch.dtype) -> Any:
    return True if dtype == torch.bool else 0.0 if dtype.is_floating_point else 0


# --- torch.cuda ----------------------------------------------------------------------------------


class _Stream:
    """A stream on which everything is done."""

    cuda_stream = 0
    stream_id = 0
    device_index = 0
    device_type = 1
    priority = 0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.device = torch.device("cuda", 0)

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *args: Any) -> None:
        pass

    def record_event(self, event: Any = None) -> Any:
        return event or _Event()

    def query(self) -> bool:
        return True

    wait_event = wait_stream = synchronize = lambda self, *args: None


class _Event:
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def query(self) -> bool:
        return True

    def elapsed_time(self, other: Any) -> float:
        return 1.0

    record = wait = synchronize = lambda self, *args, **kwargs: None


class _Generator:
    """One of `torch.cuda.default_generators`; draws nothing."""

    device = torch.device("cuda", 0)

    def __init__(self) -> None:
        self.seed_ = 0

    def manual_seed(self, seed: int) -> Any:
        self.seed_ = int(seed)
        return self

    def initial_seed(self) -> int:
        return self.seed_

    def get_state(self) -> Any:
        return torch.tensor([self.seed_], dtype=torch.int64).view(torch.uint8)

    def set_state(self, state: Any) -> None:
        self.seed_ = int(state.view(torch.int64)[0])


def _answers(card: Card, num_cards: int) -> dict[str, Any]:
    spec = card.spec
    total = int(spec.gigabytes * 1e9)
    properties = types.SimpleNamespace(
        name=spec.name, major=spec.capability[0], minor=spec.capability[1], total_memory=total,
        multi_processor_count=spec.processors, is_integrated=0, is_multi_gpu_board=0,
        warp_size=32, L2_cache_size=50 * 2**20, gcnArchName="", uuid="rehearsal",
    )  # fmt: skip
    generators = tuple(_Generator() for _ in range(num_cards))

    def waits(*_: Any) -> None:
        card._waited("torch.cuda.synchronize")

    def bf16(including_emulation: bool = True) -> bool:
        return including_emulation or spec.capability >= (8, 0)

    def stats(*_: Any) -> dict[str, int]:
        return {"allocated_bytes.all.current": card.live, "allocated_bytes.all.peak": card.peak,
                "reserved_bytes.all.current": card.live, "reserved_bytes.all.peak": card.peak,
                "num_alloc_retries": 0, "num_ooms": 0}  # fmt: skip

    def reset_peak(*_: Any) -> None:
        card.peak_before = card.peak
        card.peak = card.live

    def seed(number: int) -> None:
        generators[0].manual_seed(number)

    return {
        "_lazy_init": lambda: None,
        "_is_compiled": lambda: True,
        "is_available": lambda: True,
        "is_initialized": lambda: True,
        "init": lambda: None,
        "device_count": lambda: num_cards,
        "current_device": lambda: 0,
        "set_device": lambda device: None,
        "_exchange_device": lambda device: 0,
        "_maybe_exchange_device": lambda device: 0,
        "get_device_name": lambda device=None: spec.name,
        "get_device_capability": lambda device=None: spec.capability,
        "get_device_properties": lambda device=None: properties,
        "is_bf16_supported": bf16,
        "get_arch_list": lambda: [f"sm_{spec.capability[0]}{spec.capability[1]}"],
        "mem_get_info": lambda device=None: (total - card.live, total),
        "memory_allocated": lambda device=None: card.live,
        "max_memory_allocated": lambda device=None: card.peak,
        "memory_reserved": lambda device=None: card.live,
        "max_memory_reserved": lambda device=None: card.peak,
        "memory_stats": stats,
        "reset_peak_memory_stats": reset_peak,
        "empty_cache": lambda: None,
        "ipc_collect": lambda: None,
        "synchronize": waits,
        "manual_seed": seed,
        "manual_seed_all": seed,
        "default_generators": generators,
        "get_rng_state": lambda device="cuda": generators[0].get_state(),
        "set_rng_state": lambda state, device="cuda": generators[0].set_state(state),
        "Stream": _Stream,
        "Event": _Event,
        "current_stream": lambda device=None: _Stream(),
        "default_stream": lambda device=None: _Stream(),
        "stream": lambda stream: contextlib.nullcontext(),
        "set_stream": lambda stream: None,
        "is_current_stream_capturing": lambda: False,
    }


def _tolist(tensor: FakeTensor) -> Any:
    """One wait for the whole list, as on a card."""
    host = tensor.cpu() if tensor.device.type == "cuda" else tensor
    return torch.Tensor.tolist(host) if not isinstance(host, FakeTensor) else [0.0] * len(host)


def _swap(one: Any, two: Any) -> None:
    """Stands for `swap_tensors`, which `Module._apply` takes for fake tensors alone.

    On a card the module's parameter keeps its identity and is given other data.
    """
    one.data = two.data
    if isinstance(one, FakeTensor):
        one.fake_device = two.fake_device


@contextlib.contextmanager
def rehearsal(
    name: str = "h200", *, num_cards: int = 1, limit_bytes: float | None = None
) -> Iterator[Card]:
    """Puts the named card into this machine, for the code inside."""
    card = Card(CARDS[name], limit_bytes=limit_bytes)
    before = torch._C._only_lift_cpu_tensors()
    torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(..., device="cuda") is made on the CPU
    with contextlib.ExitStack() as stack:
        for key, value in _answers(card, num_cards).items():
            stack.enter_context(mock.patch.object(torch.cuda, key, value, create=True))
        resize = torch.UntypedStorage.resize_

        def resize_(storage: Any, size: int) -> Any:
            result = resize(storage, size)
            card.resized(storage)
            return result

        stack.enter_context(mock.patch.object(torch.UntypedStorage, "resize_", resize_))
        stack.enter_context(mock.patch.object(torch.utils, "swap_tensors", _swap))
        stack.enter_context(mock.patch.object(FakeTensor, "tolist", _tolist))
        stack.enter_context(
            mock.patch.object(FakeTensor, "data_ptr", lambda self: self.untyped_storage()._cdata)
        )
        stack.enter_context(
            mock.patch.object(FakeTensorMode, "avoid_device_init", property(lambda s: True))
        )

        def submit(_pool: Any, job: Any, /, *args: Any, **kwargs: Any) -> Any:
            future: Future[Any] = Future()
            try:
                future.set_result(job(*args, **kwargs))
            except BaseException as fault:  # noqa: BLE001  # as an executor does
                future.set_exception(fault)
            return future

        # Modes belong to a thread, and fake ones stand one thread at a time: transformers loads in
        # several. Here the caller does the work.
        stack.enter_context(mock.patch.object(ThreadPoolExecutor, "submit", submit))
        attend = _attend(card, torch.nn.functional.scaled_dot_product_attention)
        stack.enter_context(
            mock.patch.object(torch.nn.functional, "scaled_dot_product_attention", attend)
        )
        # torch's builds for CUDA bring Triton, this one does not; the kernel itself never runs here.
        stack.enter_context(mock.patch("harness.methods.dropout_kernel.has_triton", lambda: True))
        # FakeTensorMode would make a real tensor on the card to wake autograd.
        stack.enter_context(
            mock.patch("torch._subclasses.fake_tensor.init_gpu_context", lambda device: None)
        )
        stack.enter_context(_Mode(card))
        try:
            yield card
        finally:
            torch._C._set_only_lift_cpu_tensors(before)
