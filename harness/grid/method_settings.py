"""The settings of a method, its own and those of its training: read, changed and in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from harness.grid.entries import merge_settings
from harness.grid.schema import MethodChoice
from harness.methods.pass_through import PeftOptions
from harness.methods.peft_settings import MATCHED
from harness.spec import Faults
from harness.training.spec import TrainSpec


def settings_text(settings: Mapping[str, Any], names: Sequence[str] | None = None) -> str:
    """Settings in words: `learning_rate 0.003, rank 8`; of `names` alone, where given."""
    shown = settings if names is None else [name for name in names if name in settings]
    return ", ".join(f"{name} {value_text(settings[name])}" for name in shown)


def value_text(value: Any) -> str:
    """A setting's value as it is printed."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(value_text, value))}]"
    if isinstance(value, Mapping):
        return f"{{{settings_text(value)}}}"
    if isinstance(value, float):
        return f"{value:g}"
    return str(value).lower() if isinstance(value, bool) else str(value)


def retuned(
    choice: MethodChoice, settings: Mapping[str, Any], label: str | None = None
) -> MethodChoice:
    """A method with other values of options and training settings.

    Raises:
        ValidationError: every fault of them.
    """
    assert choice.train is not None
    options, faults = choice.options, Faults()
    fields = type(options).model_fields
    train = {k: v for k, v in settings.items() if k in TrainSpec.model_fields and k not in fields}
    own = {name: value for name, value in settings.items() if name not in train}
    if isinstance(options, PeftOptions):
        raw: dict[str, Any] = {"peft": {**options.peft, **own}}
    else:
        raw = {**options.model_dump(exclude_unset=True), **own}
    context = MATCHED if choice.match is not None else None
    made = faults.validate(type(options), raw, context=context)
    stated = choice.train.model_dump(exclude_unset=True)
    trained = faults.validate(TrainSpec, merge_settings(stated, train), "train")
    faults.check()
    update = {"label": label or choice.label, "options": made, "train": trained}
    return choice.model_copy(update=update)


def value_of(choice: MethodChoice, name: str, default: Any) -> Any:
    """The value that a choice has of an option or training setting."""
    if name in type(choice.options).model_fields:
        return getattr(choice.options, name)
    if choice.train is not None and name in TrainSpec.model_fields:
        return getattr(choice.train, name)
    settings = choice.options.settings if isinstance(choice.options, PeftOptions) else {}
    return settings.get(name, default)


def _settings_of(choice: MethodChoice) -> dict[str, Any]:
    """A method's options and training settings by name, those of `peft` without that word."""
    options = choice.options.model_dump(mode="json")
    own = options.pop("peft", {})
    train = {} if choice.train is None else choice.train.model_dump(mode="json")
    return {**options, **own, **train}


def differing_settings(choices: Sequence[MethodChoice]) -> list[dict[str, Any]]:
    """Of methods, the settings in which they differ; `default` where one states none."""
    all_of = [_settings_of(choice) for choice in choices]
    names = dict.fromkeys(name for one in all_of for name in one)
    varied = [name for name in names if len({repr(one.get(name)) for one in all_of}) > 1]
    return [{name: one.get(name, "default") for name in varied} for one in all_of]
