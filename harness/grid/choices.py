"""A method with its settings, as a block names it, and what its `match` chooses for a model."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

from pydantic import Field, SerializeAsAny

from harness.errors import MethodError, did_you_mean
from harness.methods import METHODS
from harness.methods.matching import Matched, MatchSpec, match_parameters
from harness.methods.method import MethodOptions
from harness.models.shape import ModelShape
from harness.records.files import sha256_of_json
from harness.spec import Spec
from harness.training.spec import TrainSpec

LONGEST_LABEL = 80
Label = Annotated[
    str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._=,\[\]+-]*$", max_length=LONGEST_LABEL)
]


class MethodChoice(Spec):
    """A method with its settings resolved: what a block's `methods` entry means."""

    label: Label
    method: str
    options: SerializeAsAny[MethodOptions]
    """As stated; `match` may choose others for a model."""
    train: TrainSpec | None
    """None for a method that trains nothing."""
    match: MatchSpec | None = None
    """How many parameters it is to train, whatever the model."""


_MATCHED: dict[str, Matched] = {}


def matched(choice: MethodChoice, shape: ModelShape, others: Iterable[MethodChoice]) -> Matched:
    """What a choice's `match` chooses for a model; `others` are those that it may name.

    Raises:
        MethodError: it names none, or itself, or has no solution.
    """
    assert choice.match is not None
    target = _target(choice, shape, list(others), [choice.label])
    key = sha256_of_json(
        [
            *(choice.method, choice.options.model_dump(mode="json", exclude_unset=True)),
            *(shape.model_dump(mode="json"), target, choice.match.tolerance),
        ]
    )
    if key not in _MATCHED:
        _MATCHED[key] = match_parameters(
            METHODS[choice.method], choice.options, shape, target, choice.match.tolerance
        )
    return _MATCHED[key]


def options_on(
    choice: MethodChoice, shape: ModelShape, others: Iterable[MethodChoice]
) -> MethodOptions:
    """A choice's options on a model of a shape.

    Raises:
        MethodError: its `match` has no solution.
    """
    return choice.options if choice.match is None else matched(choice, shape, others).options


def _target(
    choice: MethodChoice, shape: ModelShape, others: list[MethodChoice], seen: list[str]
) -> int:
    """The number of parameters that a choice is to train.

    Raises:
        MethodError: it names a method that is not there, or that comes back to it.
    """
    assert choice.match is not None
    wanted = choice.match.params
    if isinstance(wanted, int):
        return wanted
    found = next((one for one in others if one.label == wanted), None)
    if found is None:
        known = [one.label for one in others if one.label not in seen]
        raise MethodError(
            f"match.params: no method '{wanted}' in the grid's blocks{did_you_mean(wanted, known)}"
        )
    if found.label in seen:
        circle = " -> ".join([*seen, found.label])
        raise MethodError(f"match.params: {circle} is a circle; give one of them a number")
    if found.match is not None:
        _target(found, shape, others, [*seen, found.label])
        return matched(found, shape, others).parameters
    counted = METHODS[found.method].count_parameters(shape, found.options)
    if counted == 0:
        raise MethodError(f"match.params: '{wanted}' trains no parameter; name one that does")
    return counted
