"""Positions: rotary types, what depends on the longest of a pass, and lengths beyond the model's.

Rotary frequencies of most types are fixed. Those of `longrope` (Phi-3) and `dynamic` follow from
the longest position of the forward pass: a short sequence beside a long one would get the long
one's. For such a model sequences share a pass only where each would get the same frequencies alone,
so that packing and shared prefixes change no number.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from harness.errors import printable
from harness.models.advice import fault_line

Item = TypeVar("Item")

FIXED_TYPES = frozenset({"default", "linear", "yarn", "llama3", "proportional"})
"""Rotary types whose frequencies are the same in every pass."""
SCALED_TYPES: dict[str, tuple[str, ...]] = {
    "default": (),
    "linear": ("factor",),
    "dynamic": ("factor",),
    "yarn": ("factor",),
    "longrope": ("short_factor", "long_factor"),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor"),
    "proportional": (),
}
"""The rotary types of transformers, and what each cannot do without."""
OLD_KEYS = ("rope_parameters", "rope_scaling")
"""Where config.json states them; the second is what transformers 4 wrote."""


@dataclass(frozen=True)
class PassDependence:
    """How a model's rotary frequencies depend on the longest position of a forward pass."""

    types: tuple[str, ...]
    """Those of its rotary types that do."""
    switches: tuple[int, ...]
    """Lengths beyond which longrope takes its other frequencies."""
    growths: tuple[int, ...]
    """Lengths beyond which each length has frequencies of its own; 0 for an unknown type."""

    @property
    def span(self) -> int:
        """The largest length up to which all sequences have the same frequencies."""
        return min((*self.switches, *self.growths))

    def group(self, length: int) -> Hashable:
        """The same for lengths whose sequences have the same frequencies, alone or together."""
        return (
            tuple(length > limit for limit in self.switches),
            tuple(max(length, limit) for limit in self.growths),
        )


def pass_dependence(model: Any) -> PassDependence | None:
    """How a model's rotary frequencies depend on a pass; None where they are fixed.

    Args:
        model: of transformers, with PEFT's wrapper or without.
    """
    config = model.config.get_text_config()
    limit = int(getattr(config, "max_position_embeddings", 0) or 0)
    types, switches, growths = [], [], []
    for parameters in _layers(getattr(config, "rope_parameters", None)):
        kind = str(parameters.get("rope_type", "default"))
        if kind in FIXED_TYPES:
            continue
        types.append(kind)
        if kind == "longrope":
            switches.append(int(parameters["original_max_position_embeddings"]))
        else:
            growths.append(limit if kind == "dynamic" else 0)
    if not types:
        return None
    return PassDependence(tuple(types), tuple(switches), tuple(growths))


def group_by_frequencies(
    model: Any, positions: Callable[[Item], int], items: Sequence[Item]
) -> list[Sequence[Item]]:
    """Parts of the items whose sequences have the same rotary frequencies: one as a rule.

    Args:
        positions: of an item: how many its sequence takes where it goes through the model alone.
    """
    dependence = pass_dependence(model)
    if dependence is None:
        return [items]
    groups: dict[Hashable, list[Item]] = {}
    for item in items:
        groups.setdefault(dependence.group(positions(item)), []).append(item)
    return list(groups.values())


def num_virtual_tokens(model: Any) -> int:
    """The positions that a PEFT model puts before each sequence."""
    config = getattr(model, "active_peft_config", None)
    if config is None or not config.is_prompt_learning:
        return 0
    return int(getattr(config, "num_virtual_tokens", 0) or 0)


def forget_longer_passes(model: Any) -> None:
    """Lets `dynamic` frequencies follow from each pass alone, not from longer passes before it.

    transformers keeps those of the longest pass so far until a shorter one than the model's
    positions comes. The model is changed, where it has such a type.
    """
    for module in model.modules():
        kinds = getattr(module, "rope_type", None)
        by_layer = kinds if isinstance(kinds, dict) else {"": kinds}
        growing = [layer for layer, kind in by_layer.items() if kind and "dynamic" in str(kind)]
        if growing and hasattr(module, "original_max_seq_len"):
            prefixes = [f"{layer}_" if layer else "" for layer in growing]
            module.register_forward_pre_hook(_ForgetPasses(tuple(prefixes)))


@dataclass(frozen=True)
class _ForgetPasses:
    """Puts the frequencies of a short pass back before each pass."""

    prefixes: tuple[str, ...]
    """Of the rotary module's attributes: one for each type of layer that has its own."""

    def __call__(self, module: Any, arguments: Any) -> None:
        for prefix in self.prefixes:
            before = getattr(module, f"{prefix}original_inv_freq")
            module.register_buffer(f"{prefix}inv_freq", before, persistent=False)
            setattr(module, f"{prefix}max_seq_len_cached", module.original_max_seq_len)


def _layers(parameters: Any) -> list[Mapping[str, Any]]:
    """The rotary settings of a model: of all its layers, or of each type of layer."""
    if not isinstance(parameters, Mapping):
        return []
    inner = [value for value in parameters.values() if isinstance(value, Mapping)]
    return inner if inner and "rope_type" not in parameters else [parameters]


def rope_faults(folder: Path, settings: Mapping[str, Any]) -> Iterator[str]:
    """Yields what is wrong with the rotary settings of config.json."""
    file = folder / "config.json"
    for key in OLD_KEYS:
        stated = settings.get(key)
        if stated is None:
            continue
        if not isinstance(stated, Mapping):
            yield fault_line(file, "rope", f"{key} is no object: {printable(f'{stated!r:.40}')}")
            return
        for parameters in _layers(stated):
            kind = parameters.get("rope_type", parameters.get("type", "default"))
            kind = "longrope" if kind == "su" else kind
            if kind not in SCALED_TYPES:
                known = ", ".join(SCALED_TYPES)
                found = f"{key}: unknown rope_type {printable(f'{kind!r:.40}')} (known: {known})"
                yield fault_line(file, "rope", found)
                continue
            needed = (*SCALED_TYPES[kind], *(["rope_theta"] if "rope_theta" in parameters else []))
            lacking = [name for name in needed if not _usable(parameters.get(name))]
            lacking = lacking or _of_wrong_length(kind, parameters, settings)
            if lacking:
                yield fault_line(file, "rope", f"{key}: {kind} without a usable {lacking[0]}")


def _of_wrong_length(
    kind: str, parameters: Mapping[str, Any], settings: Mapping[str, Any]
) -> list[str]:
    """The lists of longrope's factors that are not one for each frequency."""
    head, hidden = settings.get("head_dim"), settings.get("hidden_size")
    heads = settings.get("num_attention_heads")
    if kind != "longrope" or type(hidden) is not int or type(heads) is not int or heads < 1:
        return []
    size = head if type(head) is int else hidden // heads
    share = parameters.get("partial_rotary_factor", settings.get("partial_rotary_factor", 1.0))
    count = len(range(0, int(size * share), 2)) if type(share) in (int, float) else None
    names = ("short_factor", "long_factor")
    return [n for n in names if not isinstance(parameters[n], list) or len(parameters[n]) != count]


def _usable(value: Any) -> bool:
    values = value if isinstance(value, list) and value else [value]
    return all(type(one) in (int, float) and 0 < one < math.inf for one in values)


def position_notes(settings: Mapping[str, Any], max_length: int | None) -> Iterator[str]:
    """Yields where training may go beyond a model's positions, as config.json states them."""
    limit = settings.get("max_position_embeddings")
    if isinstance(limit, int) and limit > 0 and max_length is not None and max_length > limit:
        yield (
            f"train.max_length is {max_length}, but the model has {limit} positions (config.json: "
            "max_position_embeddings): it was made for no longer text; lower max_length to "
            f"{limit}, unless no example is longer"
        )


def length_note(lengths: list[int], limit: int | None) -> str | None:
    """One line on sequences that are longer than a model's positions; None where none is."""
    longer = [] if limit is None else [length for length in lengths if length > limit]
    if not longer:
        return None
    return (
        f"{len(longer)} of {len(lengths)} examples are longer than the model's {limit} positions "
        f"(up to {max(longer)} tokens): it was made for no longer text; lower train.max_length to "
        f"{limit}, or leave them out"
    )
