"""The settings of an entry's `peft`, checked against PEFT's own configuration class.

PEFT is imported where a question is new; `peft_cache` keeps the answers.
"""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import json
import re
import typing
import warnings
from collections.abc import Mapping
from functools import cache
from typing import Any

from pydantic import TypeAdapter, ValidationError, ValidationInfo

from harness.errors import did_you_mean, plain_message, shortened
from harness.methods.peft_cache import remembered
from harness.methods.peft_types import (
    REFUSED_OPTIONS,
    REFUSED_TYPES,
    SET_HERE,
    SIZES,
    refusals,
)
from harness.models.adapter_settings import known_types, setting_faults
from harness.spec import PLAIN, Fault, Faults

_UNORDERED = ("target_modules", "exclude_modules", "feedforward_modules", "layers_to_transform")
MATCHED = {"matched": True}
"""The context of validation where `match` chooses the size."""


def checked_settings(raw: Any, info: ValidationInfo) -> dict[str, Any]:
    """An entry's settings in canonical form: the type, and what differs from PEFT's defaults.

    The order of options and of modules' names does not matter; text and numbers are as PEFT's
    class has them. In the context MATCHED a size that is stated stays, also where it is a default.

    Raises:
        Fault: it is no mapping, or names no type of the installed PEFT that zbench runs.
        ValidationError: every fault of its options, each at its own place.
    """
    if not isinstance(raw, Mapping):
        raise Fault("must be a mapping with `peft_type` and its options")
    if not isinstance(raw.get("peft_type"), str):
        known = did_you_mean("", usable_types())
        raise Fault(f"`peft_type` is missing; add the name of a type{known}")
    kind = re.sub(r"[-\s]", "_", raw["peft_type"].strip()).upper()
    settings = {str(key): value for key, value in raw.items()} | {"peft_type": kind}
    faults = Faults()
    if kind not in known_types():
        shown = shortened(raw["peft_type"])
        faults.add(f"PEFT has no '{shown}'{did_you_mean(kind, usable_types())}", "peft_type")
        faults.check()
    matched = info.context == MATCHED
    for name, said in refusals(settings, matched=matched).items():
        faults.add(said, name)
    faults.check()
    del settings["peft_type"]
    settings.pop("task_type", None)
    try:
        text = json.dumps(settings, sort_keys=True)
    except (TypeError, ValueError) as fault:
        raise Fault("must hold text, numbers, lists and mappings alone") from fault
    found = remembered({"settings": text, "type": kind}, lambda: _compared(kind, settings))
    sizes = size_names(kind) if matched else ()
    stated = {name: settings[name] for name in sizes if settings.get(name) is not None}
    return {"peft_type": kind, **stated, **found}


def usable_types() -> list[str]:
    """The types of the installed PEFT that are not refused by name."""
    return [kind for kind in known_types() if kind not in REFUSED_TYPES]


def config_class(kind: str) -> Any:
    """PEFT's configuration class of a type."""
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    return PEFT_TYPE_TO_CONFIG_MAPPING[kind]  # type: ignore[index]  # its keys are texts too


def make_config(kind: str, settings: Mapping[str, Any]) -> Any:
    """PEFT's configuration of a type, for causal language models.

    Raises:
        ValueError: PEFT refuses the values; other errors are possible.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return config_class(kind)(**{"task_type": "CAUSAL_LM", **settings})


def size_names(kind: str) -> tuple[str, ...]:
    """The options that say how many parameters a type trains."""
    return SIZES.get(kind, ("r",) if "r" in option_names(kind) else ())


def option_names(kind: str) -> list[str]:
    """The options of a type that an entry may set."""
    return remembered({"options": kind}, lambda: _option_names(kind))


def _option_names(kind: str) -> list[str]:
    kept = [field.name for field in dataclasses.fields(config_class(kind)) if field.init]
    hidden = SET_HERE | REFUSED_OPTIONS.keys() | {"task_type", "peft_type"}
    return [name for name in kept if name not in hidden]


def _compared(kind: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that are no default, as PEFT's class has them.

    Raises:
        ValidationError: every fault of them.
    """
    fields = {field.name: field for field in dataclasses.fields(config_class(kind)) if field.init}
    hints = typing.get_type_hints(config_class(kind))
    faults, values = Faults(), {}
    for name, value in settings.items():
        if name not in fields or name == "peft_type":
            known = did_you_mean(name, option_names(kind))
            faults.add(f"{kind} has no such option{known}", name)
            continue
        try:
            values[name] = _value(kind, name, value, hints[name])
        except Fault as fault:
            faults.add(str(fault), name)
    if not faults:
        try:
            make_config(kind, values)
        except Exception as fault:  # of any kind: PEFT compares and converts unchecked
            faults.add(f"PEFT refuses these options ({plain_message(fault)})")
    faults.check()
    return {
        name: value
        for name, value in sorted(values.items())
        if value != _plain(_default(fields[name]))
    }


def _value(kind: str, name: str, value: Any, hint: Any) -> Any:
    """An option's value as its class annotates it, in plain JSON.

    Raises:
        Fault: it is of another kind, or beyond its bounds.
    """
    if value is None:
        return None
    number = setting_faults({"peft_type": kind, name: value})
    if isinstance(value, str) and number and re.fullmatch(r"[-+.\deE]+", value):
        with contextlib.suppress(ValueError):  # 1e-4 is text in YAML 1.1
            value = float(value)
        number = setting_faults({"peft_type": kind, name: value})
    if number:
        raise Fault(number[0].removeprefix(f"{name} "))
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if is_number and hint is int and value != int(value):
        return value  # such as an alpha, which PEFT only divides
    if isinstance(value, bool) and hint in (int, float):
        raise Fault(f"must be a number (got {str(value).lower()})")
    try:
        found = _plain(_adapter(hint).validate_python(value))
    except ValidationError as error:
        raise Fault(_said(error, value)) from error
    if name == "layers_to_transform" and isinstance(found, int):
        found = [found]
    return sorted(set(found)) if name in _UNORDERED and isinstance(found, list) else found


@cache
def _adapter(hint: Any) -> TypeAdapter[Any]:
    return TypeAdapter(hint)


def _said(error: ValidationError, value: Any) -> str:
    """What an option must be, in one line: one kind, or one of several."""
    kinds = []
    for fault in error.errors(include_url=False):
        if fault["type"] == "enum":
            said = f"one of {fault['ctx']['expected']}"
        else:
            said = PLAIN.get(fault["type"], fault["msg"]).format(**fault.get("ctx", {}))
        kinds.append(said.removeprefix("must be "))
    return f"must be {' or '.join(dict.fromkeys(kinds))} (got {shortened(str(value), 40)})"


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return None if field.default is dataclasses.MISSING else field.default


def _plain(value: Any) -> Any:
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, set | frozenset):
        return sorted(value)
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    return dataclasses.asdict(value) if dataclasses.is_dataclass(value) else value  # type: ignore[arg-type]
