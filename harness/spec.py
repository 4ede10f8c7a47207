"""What a user wrote: the frozen base class of all specs, and how their faults are told."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from harness.errors import did_you_mean


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


def describe_faults(error: ValidationError, place: str, spec: type[BaseModel]) -> list[str]:
    """Returns one line per fault, each beginning with its place in the file.

    Args:
        error: what pydantic found.
        place: the prefix of each line, for example `paper.yaml: blocks[0]`.
        spec: the spec that was validated; its fields are offered for a misspelt key.
    """
    return [_describe(dict(fault), place, spec) for fault in error.errors()]


def _describe(fault: dict[str, Any], place: str, spec: type[BaseModel]) -> str:
    steps = list(fault["loc"])
    if fault["type"] == "extra_forbidden":
        fields = _fields_at(spec, steps[:-1])
        key = str(steps[-1])
        if key in RENAMED:
            return f"{join_place(place, steps)}: {RENAMED[key]}"
        return f"{join_place(place, steps)}: unknown key{did_you_mean(key, fields)}"
    if fault["type"] == "missing":
        return f"{join_place(place, steps[:-1])}: '{steps[-1]}' is missing; add it"
    got = fault["input"]
    shown = f" (got {got!r})" if isinstance(got, str | int | float | bool) else ""
    return f"{join_place(place, steps)}: {_plain(fault)}{shown}"


def _plain(fault: dict[str, Any]) -> str:
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
