"""What a user wrote: the frozen base class of all specs, and how their faults are reported."""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    field_validator,
)
from pydantic_core import InitErrorDetails

from harness.errors import LONGEST_NAME, UsageError, did_you_mean, printable, shortened
from harness.readers.files import user_path

Model = TypeVar("Model", bound=BaseModel)


LARGEST_WHOLE_NUMBER = 10**15
"""Of a setting without a bound of its own; up to it they are exact as floats too."""
LARGEST_NUMBER = 1e38
"""About the largest one in fp32, that models compute in."""


class Spec(BaseModel):
    """A frozen record of settings: unknown keys are refused, numbers have bounds.

    Numbers may be written as text (`1e-4` is text in YAML 1.1); they are stored as numbers. Truth
    values are none.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True
    )

    @field_validator("*", mode="wrap")
    @classmethod
    def _within_reason(
        cls, value: Any, handler: ValidatorFunctionWrapHandler, info: ValidationInfo
    ) -> Any:
        limit = _numeric_fields(cls).get(str(info.field_name))
        if limit is not None:
            faults = Faults()
            entries = value if isinstance(value, list | tuple) else [value]
            for index, entry in enumerate(entries):
                steps = (index,) if entries is value else ()
                if isinstance(entry, bool):
                    faults.add(f"must be a number (got {_shown(entry)})", *steps)
                elif _is_beyond(entry, limit):
                    faults.add(f"must be a number within reason (got {_shown(entry)})", *steps)
            if faults:  # the other entries' faults with them
                try:
                    handler(value)
                except ValidationError as others:
                    faults.add_all(others)
            faults.check()
        return handler(value)


def _is_beyond(value: Any, limit: float) -> bool:
    try:  # an int as it is: a long one is no float
        return abs(value if isinstance(value, int) else float(value)) > limit
    except (TypeError, ValueError):
        return False  # no number: told as such


@cache
def _numeric_fields(spec: type[BaseModel]) -> dict[str, float]:
    """The fields that take numbers, or lists of them, and no truth values, with their limit."""

    def kinds(annotation: Any) -> Iterator[Any]:
        yield annotation
        for inner in get_args(annotation):
            yield from kinds(inner)

    return {
        name: LARGEST_NUMBER if float in found else LARGEST_WHOLE_NUMBER
        for name, field in spec.model_fields.items()
        if (found := set(filter(_is_type, kinds(field.annotation)))) & {int, float}
        and bool not in found
    }


def _is_type(annotation: Any) -> bool:
    return isinstance(annotation, type)


RENAMED = {
    "micro_batch_size": "is now token_budget, tokens instead of sequences per forward pass; "
    "remove it, or set token_budget (the result stays the same)"
}
"""Keys of earlier versions, and what to do about them."""


_HUB_NAME = re.compile(r"(\b[\w.-]{1,96}\b/)?\b[\w.-]{1,96}\b", re.ASCII)


def is_hub_name(name: str) -> bool:
    """Whether the hub may have a repository of this name, `owner/name`, by its own rule."""
    odd = "--" in name or ".." in name or name.endswith(".git")
    return not odd and _HUB_NAME.fullmatch(name) is not None


class Fault(ValueError):
    """A fault of what a user wrote; its text is shown as it is."""


def _expanded(path: str) -> str:
    try:
        found = user_path(path)
    except UsageError as fault:
        raise Fault(str(fault)) from fault
    return str(found) if path.startswith("~") else path


UserPath = Annotated[str, AfterValidator(_expanded)]
"""A path that a file can have, with `~` expanded."""


def place_of(path: str | None, data_root: Path | None) -> Path | None:
    """Where a path lies that is absolute or under the data root; None where that is not known."""
    if path is None or (data_root is None and not Path(path).is_absolute()):
        return None
    return Path(path) if data_root is None else data_root / path


class Faults:
    """Faults below one place, collected so that all of them are reported at once."""

    def __init__(self) -> None:
        self._details: list[InitErrorDetails] = []

    def __bool__(self) -> bool:
        return bool(self._details)

    def add(self, message: str, *steps: str | int) -> None:
        """Adds a fault at a place: the keys and indices that lead to it."""
        context = {"error": Fault(message)}
        self._details.append(
            InitErrorDetails(type="value_error", loc=steps, input=None, ctx=context)
        )

    def add_all(self, others: ValidationError) -> None:
        """Adds what pydantic found, but at places that have a fault already."""
        told = {detail["loc"] for detail in self._details}
        for fault in others.errors(include_url=False):
            if fault["loc"] not in told:
                detail = InitErrorDetails(
                    type=fault["type"], loc=fault["loc"], input=fault["input"]
                )
                self._details.append({**detail, "ctx": fault.get("ctx", {})})

    def validate(
        self, spec: type[Model], raw: Any, *steps: str | int, context: Any = None
    ) -> Model | None:
        """The spec that `raw` means; None where it has faults, which are added."""
        try:
            return spec.model_validate(raw, context=context)
        except ValidationError as error:
            for place, message in _described(error, spec):
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
    """One line per fault, each beginning with its place in the file.

    Args:
        error: what pydantic found.
        place: the prefix of each line, for example `paper.yaml: blocks[0]`.
        spec: what was validated; its fields are offered for a misspelt key.
    """
    return [f"{join_place(place, steps)}: {said}" for steps, said in _described(error, spec)]


def _described(
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
            yield steps, _unknown(key, _spec_at(spec, steps[:-1]))
        elif fault["type"] == "missing":
            yield steps[:-1], f"'{key}' is missing; add it"
        else:
            got = fault["input"]
            plain = PLAIN.get(fault["type"])
            said = plain.format(**fault.get("ctx", {})) if plain else fault["msg"]
            shown = f" (got {_shown(got)})" if _is_plain_value(got) else ""
            if fault["type"] == "string_type" and shown:
                shown = f"{shown}; put it in quotes"
            yield steps, said.removeprefix("Value error, ") + shown


def _is_plain_value(value: object) -> bool:
    return isinstance(value, str | int | float | datetime.date)


def _shown(value: object) -> str:
    """A value as a fault shows it: as it is written in YAML, and cut."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int) and abs(value) > LARGEST_WHOLE_NUMBER:
        return f"a number of {value.bit_length() * 30103 // 100000 + 1} digits or so"
    text = repr(value) if isinstance(value, str | int | float) else str(value)
    return printable(text if len(text) <= LONGEST_NAME else f"{text[:LONGEST_NAME]}…")


PLAIN = {
    "greater_than_equal": "must be at least {ge}",
    "greater_than": "must be more than {gt}",
    "less_than_equal": "must be at most {le}",
    "less_than": "must be less than {lt}",
    "literal_error": "must be one of {expected}",
    **dict.fromkeys(("float_parsing", "float_type", "finite_number"), "must be a number"),
    **dict.fromkeys(("int_parsing", "int_type", "int_from_float"), "must be a whole number"),
    "string_type": "must be text",
    "string_unicode": "must be text, of valid Unicode",
    "int_parsing_size": "must be a number within reason",
    "string_pattern_mismatch": "must be letters, digits and . _ - (in a label also = , + [ ]), "
    "nothing else",
    "bool_parsing": "must be true or false",
    "bool_type": "must be true or false",
    "string_too_long": "must have at most {max_length} characters",
    **dict.fromkeys(
        ("model_type", "model_attributes_type", "dict_type"), "must be a mapping of keys to values"
    ),
    **dict.fromkeys(("list_type", "tuple_type"), "must be a list"),
    "too_short": "is empty; add at least one",
}
"""What is wrong, by pydantic's type of fault; filled from the fault's context."""


def join_place(place: str, steps: list[str | int]) -> str:
    """A place in a file: `join_place("a.yaml", ["blocks", 0])` is `a.yaml: blocks[0]`."""
    for step in steps:
        dot = "." if ": " in place else ": "
        place += f"[{step}]" if isinstance(step, int) else f"{dot}{shortened(step)}"
    return place


def _unknown(key: str, spec: type[BaseModel]) -> str:
    """What is wrong with a key that a spec does not have: one of its lists or records may."""
    inner = {name: _spec_inside(field.annotation) for name, field in spec.model_fields.items()}
    homes = [name for name, one in inner.items() if one is not None and key in one.model_fields]
    if homes:
        return f"unknown key here; it stands in {' or '.join(f'`{name}`' for name in homes)}"
    return f"unknown key{did_you_mean(key, list(spec.model_fields))}"


def _spec_at(spec: type[BaseModel], steps: list[str | int]) -> type[BaseModel]:
    """The spec found along `steps`, as far as types tell."""
    for step in steps:
        if (field := spec.model_fields.get(str(step))) is not None:
            spec = _spec_inside(field.annotation) or spec
    return spec


def _spec_inside(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    inner = map(_spec_inside, getattr(annotation, "__args__", ()))
    return next(filter(None, inner), None)
