"""What a user wrote: the frozen base class of all specs, and how their faults are told."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails, InitErrorDetails

from harness.errors import did_you_mean

Model = TypeVar("Model", bound=BaseModel)


class Spec(BaseModel):
    """A frozen record of settings: unknown keys are refused, numbers have bounds.

    Numbers may be written as text (`1e-4` is text in YAML 1.1); they are stored as numbers.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True
    )


RENAMED = {
    "micro_batch_size": "is now token_budget, tokens instead of sequences per forward pass; "
    "remove it, or set token_budget (the result stays the same)"
}
"""Keys of earlier versions, and what to do about them."""


class Fault(ValueError):
    """A fault of what a user wrote; its text is told as it is."""


class Faults:
    """Faults below one place, collected so that all of them are told at once."""

    def __init__(self) -> None:
        self._details: list[InitErrorDetails] = []

    def add(self, message: str, *steps: str | int) -> None:
        """Adds a fault at a place: the keys and indices that lead to it."""
        told = {"error": Fault(message)}
        self._details.append(InitErrorDetails(type="value_error", loc=steps, input=None, ctx=told))

    def validate(self, spec: type[Model], raw: Any, *steps: str | int) -> Model | None:
        """Returns the spec that `raw` means; None where it has faults, which are added."""
        try:
            return spec.model_validate(raw)
        except ValidationError as error:
            for place, message in _told_faults(error, spec):
                self.add(message, *steps, *place)
            return None

    def check(self) -> None:
        """Raises what was collected; within a validator, pydantic puts its own place before it.

        Raises:
            ValidationError: there is a fault.
        """
        if self._details:
            raise ValidationError.from_exception_data("faults", self._details)


def describe_faults(error: ValidationError, place: str, spec: type[BaseModel]) -> list[str]:
    """Returns one line per fault, each beginning with its place in the file.

    Args:
        error: what pydantic found.
        place: the prefix of each line, for example `paper.yaml: blocks[0]`.
        spec: the spec that was validated; its fields are offered for a misspelt key.
    """
    return [f"{join_place(place, steps)}: {said}" for steps, said in _told_faults(error, spec)]


def _told_faults(
    error: ValidationError, spec: type[BaseModel]
) -> Iterator[tuple[list[str | int], str]]:
    """Yields the place of each fault, as keys and indices, and what is wrong there."""
    for fault in error.errors(include_url=False):
        steps = list(fault["loc"])
        key = str(steps[-1]) if steps else ""
        if isinstance(fault.get("ctx", {}).get("error"), Fault):
            yield steps, str(fault["ctx"]["error"])
        elif fault["type"] == "extra_forbidden" and key in RENAMED:
            yield steps, RENAMED[key]
        elif fault["type"] == "extra_forbidden":
            yield steps, f"unknown key{did_you_mean(key, _fields_at(spec, steps[:-1]))}"
        elif fault["type"] == "missing":
            yield steps[:-1], f"'{key}' is missing; add it"
        else:
            got = fault["input"]
            shown = f" (got {got!r})" if isinstance(got, str | int | float | bool) else ""
            yield steps, f"{_plain(fault)}{shown}"


def _plain(fault: ErrorDetails) -> str:
    context = fault.get("ctx", {})
    match fault["type"]:
        case "greater_than_equal":
            return f"must be at least {context['ge']}"
        case "greater_than":
            return f"must be more than {context['gt']}"
        case "less_than_equal":
            return f"must be at most {context['le']}"
        case "less_than":
            return f"must be less than {context['lt']}"
        case "literal_error":
            return f"must be one of {context['expected']}"
        case "float_parsing" | "float_type" | "finite_number":
            return "must be a number"
        case "int_parsing" | "int_type" | "int_from_float":
            return "must be a whole number"
        case "string_pattern_mismatch":
            return "must be letters, digits and . _ - (in a label also = , + [ ]), nothing else"
        case "string_too_long":
            return f"must have at most {context['max_length']} characters"
        case "model_type" | "model_attributes_type" | "dict_type":
            return "must be a mapping of keys to values"
        case "list_type" | "tuple_type":
            return "must be a list"
        case "too_short":
            return "is empty; add at least one"
    return str(fault["msg"]).removeprefix("Value error, ")


def join_place(place: str, steps: list[str | int]) -> str:
    """Returns a place in a file: `join_place("a.yaml", ["blocks", 0])` is `a.yaml: blocks[0]`."""
    path = place
    for step in steps:
        if isinstance(step, int):
            path += f"[{step}]"
        else:
            path += ("." if ": " in path else ": ") + str(step)
    return path


def _fields_at(spec: type[BaseModel], steps: list[str | int]) -> list[str]:
    """Returns the field names of the spec found along `steps`, as far as types tell."""
    current: type[BaseModel] | None = spec
    for step in steps:
        if isinstance(step, int) or current is None:
            continue
        field = current.model_fields.get(str(step))
        if field is not None:
            current = _spec_inside(field.annotation) or current
    return list(current.model_fields) if current else []


def _spec_inside(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for inner in getattr(annotation, "__args__", ()):
        found = _spec_inside(inner)
        if found is not None:
            return found
    return None
