"""`torch.cuda` as a named card answers it."""

from __future__ import annotations

import contextlib
import types
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from tests.gpu_rehearsal.card import Card


def answers(card: Card, num_cards: int) -> dict[str, Any]:
    """What stands in `torch.cuda` during a rehearsal, by name."""
    return {
        **_identity(card, num_cards),
        **_memory(card),
        **_random_numbers(num_cards),
        **_streams(card),
    }


def _identity(card: Card, num_cards: int) -> dict[str, Any]:
    spec = card.spec
    major, minor = spec.capability
    properties = types.SimpleNamespace(
        name=spec.name,
        major=major,
        minor=minor,
        total_memory=int(spec.gigabytes * 1e9),
        multi_processor_count=spec.processors,
        is_integrated=0,
        is_multi_gpu_board=0,
        warp_size=32,
        L2_cache_size=50 * 2**20,
        gcnArchName="",
        uuid="rehearsal",
    )

    def has_bf16(including_emulation: bool = True) -> bool:
        return including_emulation or spec.capability >= (8, 0)

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
        "is_bf16_supported": has_bf16,
        "get_arch_list": lambda: [f"sm_{major}{minor}"],
    }


def _memory(card: Card) -> dict[str, Any]:
    memory, total = card.memory, int(card.spec.gigabytes * 1e9)

    def stats(*_: Any) -> dict[str, int]:
        return {
            "allocated_bytes.all.current": memory.live,
            "allocated_bytes.all.peak": memory.peak,
            "reserved_bytes.all.current": memory.live,
            "reserved_bytes.all.peak": memory.peak,
            "num_alloc_retries": 0,
            "num_ooms": 0,
        }

    def reset_peak(*_: Any) -> None:
        card.peak_before = memory.peak
        memory.peak = memory.live

    return {
        "mem_get_info": lambda device=None: (total - memory.live, total),
        "memory_allocated": lambda device=None: memory.live,
        "max_memory_allocated": lambda device=None: memory.peak,
        "memory_reserved": lambda device=None: memory.live,
        "max_memory_reserved": lambda device=None: memory.peak,
        "memory_stats": stats,
        "reset_peak_memory_stats": reset_peak,
        "empty_cache": lambda: None,
        "ipc_collect": lambda: None,
    }


def _random_numbers(num_cards: int) -> dict[str, Any]:
    generators = tuple(_Generator() for _ in range(num_cards))
    first = generators[0]
    return {
        "manual_seed": first.manual_seed,
        "manual_seed_all": first.manual_seed,
        "default_generators": generators,
        "get_rng_state": lambda device="cuda": first.get_state(),
        "set_rng_state": lambda state, device="cuda": first.set_state(state),
    }


def _streams(card: Card) -> dict[str, Any]:
    return {
        "synchronize": lambda *_: card.counts.sync("torch.cuda.synchronize"),
        "Stream": _Stream,
        "Event": _Event,
        "current_stream": lambda device=None: _Stream(),
        "default_stream": lambda device=None: _Stream(),
        "stream": lambda stream: contextlib.nullcontext(),
        "set_stream": lambda stream: None,
        "is_current_stream_capturing": lambda: False,
    }


class _Stream:
    """A stream on which everything is done."""

    cuda_stream = 0
    stream_id = 0
    device_index = 0
    device_type = 1
    priority = 0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.device = torch.device("cuda", 0)

    def __enter__(self) -> _Stream:
        return self

    def __exit__(self, *args: Any) -> None:
        pass

    def record_event(self, event: Any = None) -> Any:
        return event or _Event()

    def query(self) -> bool:
        return True

    def synchronize(self, *args: Any) -> None:
        pass

    wait_event = wait_stream = synchronize


class _Event:
    """An event that has happened; no time passes between two, since none is known."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def query(self) -> bool:
        return True

    def elapsed_time(self, other: Any) -> float:
        return 1.0

    def record(self, *args: Any, **kwargs: Any) -> None:
        pass

    wait = synchronize = record


class _Generator:
    """One of `torch.cuda.default_generators`; draws nothing."""

    device = torch.device("cuda", 0)

    def __init__(self) -> None:
        self._seed = 0

    def manual_seed(self, seed: int) -> _Generator:
        self._seed = int(seed)
        return self

    def initial_seed(self) -> int:
        return self._seed

    def get_state(self) -> Any:
        return torch.tensor([self._seed], dtype=torch.int64).view(torch.uint8)

    def set_state(self, state: Any) -> None:
        self._seed = int(state.view(torch.int64)[0])
