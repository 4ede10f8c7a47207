"""Methods at equal budgets: the size that gives a method so many trained parameters on a model."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from harness.errors import MethodError, shortened
from harness.methods.method import Method, MethodOptions
from harness.models.shape import ModelShape
from harness.spec import Fault, Spec

_SUFFIXES = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "B": 10**9}
_LARGEST = 2**16
_NUMBER = re.compile(r"([0-9][0-9_]*\.?[0-9]*(?:[eE][+-]?[0-9]+)?)\s*([KMGB]?)", re.IGNORECASE)


def _params(raw: Any) -> int | str:
    """Trained parameters as a number, or the name of a method that has as many."""
    if isinstance(raw, bool) or not isinstance(raw, int | float | str):
        raise Fault("must be a number of parameters such as 4.2M, or a method of the grid")
    found = _NUMBER.fullmatch(str(raw).strip())
    if found is None:
        if isinstance(raw, str) and raw.strip()[:1].isalpha():
            return raw.strip()
        shown = shortened(str(raw))
        raise Fault(f"must be a number of parameters such as 4.2M or 4194304 (got {shown})")
    number = float(found[1].replace("_", "")) * _SUFFIXES[found[2].upper()]
    if not 1 <= number <= 10**13:
        raise Fault(f"must be from 1 to 10,000G (got {shortened(str(raw))})")
    return round(number)


class MatchSpec(Spec):
    """How many parameters a method is to train; its size is chosen for each model."""

    params: Annotated[int | str, BeforeValidator(_params, json_schema_input_type=float | str)]
    """A number, with K, M or G if wished, or the name of a method of the grid: as many as that."""
    tolerance: Annotated[float, Field(gt=0, le=1)] = 0.1
    """The largest share of `params` by which the method may miss it."""


@dataclass(frozen=True)
class Matched:
    """What was chosen for a method and a model."""

    options: MethodOptions
    sizes: dict[str, int]
    """The options of size that were chosen."""
    parameters: int
    target: int

    def __str__(self) -> str:
        sizes = " and ".join(f"{name} {value:,}" for name, value in self.sizes.items())
        off = self.parameters / self.target - 1
        side = "more" if off > 0 else "fewer"
        far = f"{abs(off):.1%} {side} than" if self.parameters != self.target else "exactly"
        return f"{sizes}: {self.parameters:,} trained parameters, {far} {self.target:,}"


def match_parameters(
    method: Method, options: MethodOptions, shape: ModelShape, target: int, tolerance: float
) -> Matched:
    """The options, with the sizes that bring the trained parameters nearest to a target.

    Args:
        options: as a user stated them; what is stated is kept.
        tolerance: the largest deviation, as a share of the target.

    Raises:
        MethodError: the method has no option of size that is free, or no size comes near enough;
            the line then names the nearest on either side.
    """
    names = options.size_options()
    free = [name for name in names if not options.states(name)]
    if not free:
        stated = f"; {' and '.join(names)} is stated, leave it out" if names else ""
        why = "all its options of size are set" if names else "has no option of size"
        raise MethodError(
            f"match: '{name_of(method, options)}' {why}, so that nothing can be chosen{stated}"
        )
    first, *second = free
    best, tried = None, []
    for fixed in _others(options, second, shape):
        found = _search(method, fixed, shape, first, target)
        tried += [(count, {**_sizes_of(fixed, second), first: size}) for size, count in found]
        best = min(tried, key=lambda one: (abs(one[0] - target), one[0]), default=None)
        if best is not None and abs(best[0] - target) <= tolerance * target:
            chosen = options
            for name, value in best[1].items():
                chosen = chosen.resized(name, value)
            return Matched(chosen, best[1], best[0], target)
    raise MethodError(_nearest(name_of(method, options), tried, target, tolerance))


def name_of(method: Method, options: MethodOptions) -> str:
    """What a reader calls a method: PEFT's type of an entry with `peft`."""
    return str(getattr(options, "peft_type", method.name))


def _others(options: MethodOptions, names: list[str], shape: ModelShape) -> Iterator[MethodOptions]:
    """The options as they are, then with each value of a second option of size, large to small."""
    yield options
    for name in names:
        for value in range(shape.num_hidden_layers, 0, -1):
            yield options.resized(name, value)


def _sizes_of(options: MethodOptions, names: list[str]) -> dict[str, int]:
    return {name: int(options.stated(name)) for name in names if options.states(name)}


def _search(
    method: Method, options: MethodOptions, shape: ModelShape, name: str, target: int
) -> list[tuple[int, int]]:
    """Sizes with their numbers of parameters: those next to the target, on either side."""
    known: dict[int, int | None] = {}

    def count(size: int) -> int | None:
        if size not in known:
            try:
                known[size] = method.count_parameters(shape, options.resized(name, size))
            except (MethodError, ValueError):  # of its bounds, or of the model's sizes
                known[size] = None
        return known[size]

    for size in _candidates(name, shape):
        count(size)
        valid = [found for found in known.values() if found is not None]
        if len(valid) > 1 and valid[-1] >= target and valid[-1] > valid[0]:
            break  # larger sizes have more yet
        if len(valid) > 1 and valid[0] < valid[-1] and known[size] is None:
            break  # beyond what the model can have
        if len(valid) == 2 and "block" not in name and _guess(known, count, target):
            break
    if "block" not in name:
        _close_in(known, count, target)
    return [(size, found) for size, found in sorted(known.items()) if found is not None]


def _candidates(name: str, shape: ModelShape) -> list[int]:
    """Sizes to begin with: powers of two, or for blocks what divides the hidden size."""
    if "block" in name:
        side = shape.hidden_size  # PEFT adjusts a block to other sides
        divisors = {one for one in range(1, math.isqrt(side) + 1) if side % one == 0}
        return sorted(divisors | {side // one for one in divisors})
    return [2**power for power in range(_LARGEST.bit_length())]


def _guess(known: dict[int, int | None], count: Callable[[int], int | None], target: int) -> bool:
    """Whether the target lies between two neighbours where most methods have it: on a line."""
    (low, left), (high, right) = ((size, found) for size, found in known.items() if found)
    if right <= left or target <= left:
        return False
    size = low + (target - left) * (high - low) // (right - left)
    counts = [count(one) for one in (size, size + 1) if one <= _LARGEST]
    return len(counts) == 2 and None not in counts and counts[0] <= target <= counts[1]  # type: ignore[operator]


def _close_in(
    known: dict[int, int | None], count: Callable[[int], int | None], target: int
) -> None:
    """Halves the gap around the target until its ends are neighbours."""
    while True:
        valid = sorted((size, found) for size, found in known.items() if found is not None)
        for (low, left), (high, right) in zip(valid, valid[1:], strict=False):
            if min(left, right) <= target <= max(left, right) and high - low > 1:
                break
        else:
            return _beyond(known, count, target)
        middle = (low + high) // 2
        if middle in known or count(middle) is None:
            return None


def _beyond(known: dict[int, int | None], count: Callable[[int], int | None], target: int) -> None:
    """Looks between the last size that fits and the first that does not."""
    valid = [size for size, found in known.items() if found is not None]
    if not valid or max(found for found in known.values() if found is not None) >= target:
        return
    low = max(valid)
    high = min((size for size in known if size > low), default=low)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if count(middle) is None else (middle, high)


def _nearest(
    name: str, tried: list[tuple[int, dict[str, int]]], target: int, tolerance: float
) -> str:
    """That nothing is near enough, with the nearest on either side."""
    below = max((one for one in tried if one[0] <= target), key=lambda one: one[0], default=None)
    above = min((one for one in tried if one[0] > target), key=lambda one: one[0], default=None)
    sides = [
        f"{' and '.join(f'{size} {value}' for size, value in one[1].items())} has {one[0]:,}"
        for one in (below, above)
        if one is not None
    ]
    return (
        f"match: no size of '{name}' has {target:,} parameters within {tolerance:.0%}"
        + (f": {', '.join(sides)}" if sides else "")
        + "; state a number that one of its sizes has, or a larger `tolerance`"
    )
