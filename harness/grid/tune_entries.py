"""A block's `tune`: every value of a space is validated as an entry of a method would be."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PlainValidator, ValidationError, ValidationInfo

from harness.errors import did_you_mean, shortened
from harness.evaluation.tasks import TaskSpec
from harness.grid.entries import EXCLUSIVE, Context
from harness.grid.method_settings import retuned, settings_text, value_of
from harness.grid.schema import LONGEST_LABEL, MethodChoice
from harness.grid.task_entries import read_tasks
from harness.grid.tuning import (
    FIRST_SEED,
    BatchSize,
    Percentile,
    Range,
    Sampler,
    Space,
    Trials,
    TrialSeeds,
    TuneSpec,
    ValidationScore,
    Values,
    combinations,
    size_fault,
)
from harness.methods.pass_through import PeftOptions
from harness.spec import Fault, Faults, Spec
from harness.training.spec import IMAGE_RATE, TrainSpec

REFUSED = {
    "token_budget": "never changes what is trained",
    "gradient_checkpointing": "never changes what is trained",
    "checkpoint_minutes": "never changes what is trained",
    "max_length": "decides which tokens of the validation rows count, and trials would be compared "
    "on different ones",
    **dict.fromkeys(
        ("seed", "seeds", "fraction", "fractions", "data", "tasks", "models"),
        "is the block's: trials differ in the method's settings alone",
    ),
    **dict.fromkeys(
        ("method", "label", "match", "peft_type", "adapter", "sha256"),
        "says which method it is; give another method a space of its own",
    ),
}
"""What is not tuned, and why."""
MOST_COMBINATIONS = 512
"""Combinations of a space that are looked at as a grid is read."""


def _pruner(raw: Any) -> Any:
    """What `pruner` means: a name, or Optuna's percentile."""
    if raw == "median":
        return {"percentile": 50}
    if raw is not None and not isinstance(raw, Mapping | Percentile):
        raise Fault(f"must be median, or {{percentile: P}} (got {shortened(str(raw))})")
    return raw


class TuneFile(Spec):
    """The keys of `tune`; `space` and `on` are read with the block's methods."""

    trials: Trials
    """Of each method."""
    seeds: TrialSeeds = 1
    """Trainings of each trial."""
    on: Any = "validation"
    """The validation loss of the weights that are kept, or a benchmark of its own."""
    sampler: Sampler = "grid"
    """Optuna's sampler, which draws the trials from the space."""
    pruner: Annotated[
        Percentile | None,
        BeforeValidator(_pruner, json_schema_input_type=Literal["median"] | Percentile | None),
    ] = None
    """Which trials are stopped early; `median` is the percentile 50."""
    batch: BatchSize = 4
    """Trials of a round of tpe, which draws from the results of the rounds before."""
    space: Annotated[dict[str, Any], Field(min_length=1)]
    """Lists of values, or ranges, by setting, by the label of each trained method of the block."""


def _tune(raw: Any, info: ValidationInfo) -> TuneSpec:
    """A block's `tune`, with all of its faults at once."""
    assert isinstance(info.context, Context)
    if not isinstance(raw, Mapping):
        raise Fault("must be a mapping with trials and space")
    faults = Faults()
    found = faults.validate(TuneFile, raw)
    if any(seed >= FIRST_SEED for seed in info.data.get("seeds") or ()):
        said = "are those of the trials; give the block smaller seeds"
        faults.add(f"seeds from {FIRST_SEED:,} on {said}", "seeds")
    on = _on(raw.get("on", "validation"), info.context, faults)
    choices = [choice for choice in info.data.get("methods") or () if choice is not None]
    space = {}
    if isinstance(raw.get("space"), Mapping) and raw["space"] and choices:
        for name, said in _missing_or_idle(raw["space"], choices):
            faults.add(said, "space", *name)
        for choice in choices:
            if choice.train is not None and choice.label in raw["space"]:
                if len(choice.label) > LONGEST_LABEL - len("[trial-999]"):
                    said = "has too long a label to be tuned; give the method a shorter `label`"
                    faults.add(said, "space", choice.label)
                space[choice.label] = _space(choice, raw["space"][choice.label], faults)
    if found is not None and not faults:
        for label, one in space.items():
            if (fault := size_fault(one, found.trials, found.sampler)) is not None:
                faults.add(fault, "space", label)
    faults.check()
    assert found is not None
    assert on is not None
    return TuneSpec.model_validate({**dict(found), "on": on, "space": space})


Tune = Annotated[TuneSpec, PlainValidator(_tune, json_schema_input_type=TuneFile)]


def _missing_or_idle(
    space: Mapping[Any, Any], choices: Sequence[MethodChoice]
) -> Iterator[tuple[tuple[str, ...], str]]:
    trained = {choice.label for choice in choices if choice.train is not None}
    untrained = {choice.label for choice in choices} - trained
    for label in space:
        if label in untrained:
            yield (str(label),), "trains nothing; leave it out"
        elif label not in trained:
            yield (str(label),), f"no such method in this block{did_you_mean(str(label), trained)}"
    for label in trained - set(space):
        yield (), f"'{label}' has none; add `{label}: {{learning_rate: [...]}}`"


def _on(raw: Any, context: Context, faults: Faults) -> str | ValidationScore | None:
    """What the trials are compared by; None where that has faults."""
    if raw == "validation":
        return "validation"
    entry = {"benchmark": raw} if isinstance(raw, str) else raw
    if not isinstance(entry, Mapping) or "benchmark" not in entry:
        faults.add("must be validation, a benchmark's name, or {benchmark: NAME, metric: M}", "on")
        return None
    rest = {key: value for key, value in entry.items() if key not in ("benchmark", "metric")}
    try:
        found: list[TaskSpec] = read_tasks([{**rest, "name": entry["benchmark"]}], context)
    except ValidationError as error:
        name = str(entry["benchmark"])
        is_near = bool(difflib.get_close_matches(name, ["validation"], cutoff=0.7))
        meant = f"no such task '{shortened(name)}'; did you mean 'validation'?"
        for one in error.errors(include_url=False):
            said = meant if is_near else str(one["ctx"]["error"])
            faults.add(said, "on", *one["loc"][1:])
        return None
    known = found[0].benchmark
    metric = entry.get("metric", known.primary_metric)
    if len(found) > 1:
        faults.add(f"'{entry['benchmark']}' stands for {len(found)} benchmarks; name one", "on")
    elif metric not in known.metrics:
        hint = did_you_mean(str(metric), known.metrics)
        faults.add(f"{known.name} has no metric '{shortened(str(metric))}'{hint}", "on", "metric")
    else:
        return ValidationScore(task=found[0], metric=metric)
    return None


def _space(choice: MethodChoice, raw: Any, faults: Faults) -> Space:
    """The space of a method, each value as the method has it."""
    place = ("space", choice.label)
    if not isinstance(raw, Mapping) or not raw:
        faults.add("must be a mapping of settings to lists of values, or to ranges", *place)
        return {}
    own, found = Faults(), dict[str, Values]()
    for group in EXCLUSIVE:
        both = [name for name in group if name in raw]
        if len(both) > 1:
            own.add(f"{' and '.join(both)} exclude each other; keep one")
    for key, values in raw.items():
        name = str(key)
        if (why := _why_not(choice, name)) is not None:
            own.add(why, name)
        elif (read := _values(choice, name, values, own)) is not None:
            found[name] = read
    if not own:
        for settings in islice(combinations(_ends(found)), MOST_COMBINATIONS):
            try:
                retuned(choice, settings)
            except ValidationError as error:
                told = (str(one["ctx"]["error"]) for one in error.errors(include_url=False))
                said = "; ".join(dict.fromkeys(told))
                own.add(f"{settings_text(settings)}: {said}")
                break
    _passed_on(own, faults, *place)
    return found


def _why_not(choice: MethodChoice, name: str) -> str | None:
    """Why a setting is not tuned; None where it may be."""
    options = type(choice.options).model_fields
    if name == IMAGE_RATE and getattr(choice.options, "image_encoder", None) is None:
        return "is the rate of an image_encoder's projection, and the method has none; leave it out"
    if name in TrainSpec.model_fields or name in options:
        return f"{REFUSED[name]}; leave it out" if name in REFUSED else None
    if name in REFUSED:
        return f"{REFUSED[name]}; leave it out"
    if isinstance(choice.options, PeftOptions):
        return None  # PEFT says what it does not know
    known = [*options, *(one for one in TrainSpec.model_fields if one not in REFUSED)]
    return f"is no option of {choice.method} and no training setting{did_you_mean(name, known)}"


def _values(choice: MethodChoice, name: str, raw: Any, faults: Faults) -> Values | None:
    """The values of a setting as the method has them; None where they have faults."""
    if isinstance(raw, Mapping):
        given = faults.validate(Range, raw, name)
        if given is None:
            return None
        ends = {
            end: _value(choice, name, getattr(given, end), faults, (name, end))
            for end in ("low", "high")
        }
        if None in ends.values():
            return None
        if any(isinstance(one, bool | str) for one in ends.values()):
            faults.add("takes no range; give a list of values", name)
            return None
        return Range.model_validate({**ends, "log": given.log})
    if not isinstance(raw, list | tuple) or not raw:
        faults.add("must be a list of values, or a range {low: A, high: B, log: true}", name)
        return None
    found, own = [], Faults()
    for index, one in enumerate(raw):
        value = _value(choice, name, one, own, (index,))
        if not own and value in found:
            own.add(f"{value} stands twice; keep one", index)
        found.append(value)
    return None if _passed_on(own, faults, name) else tuple(found)


def _passed_on(own: Faults, faults: Faults, *place: str | int) -> bool:
    """Adds faults to others, below a place; whether there are any."""
    try:
        own.check()
    except ValidationError as error:
        for fault in error.errors(include_url=False):
            faults.add(str(fault["ctx"]["error"]), *place, *fault["loc"])
    return bool(own)


def _value(
    choice: MethodChoice, name: str, value: Any, faults: Faults, place: tuple[str | int, ...]
) -> Any:
    """A value as the method has it; its own faults are added, those of combinations are not."""
    try:
        made = retuned(choice, {name: value})
    except ValidationError as error:
        for fault in error.errors(include_url=False):
            if name in fault["loc"]:
                rest = fault["loc"][fault["loc"].index(name) + 1 :]
                faults.add(str(fault.get("ctx", {}).get("error")), *place, *rest)
        return value
    return value_of(made, name, value)


def _ends(space: Space) -> dict[str, list[Any]]:
    return {
        name: [one.low, one.high] if isinstance(one, Range) else list(one)
        for name, one in space.items()
    }


def varied_singly(choice: MethodChoice, space: Space) -> Iterator[MethodChoice]:
    """The method with each value of its space, and each end of a range, one after the other."""
    listed = _ends(space)
    first = {name: values[0] for name, values in listed.items()}
    told = set()
    for name, values in listed.items():
        for value in values:
            settings = {**first, name: value}
            if (text := settings_text(settings)) not in told:
                told.add(text)
                yield retuned(choice, settings)
