"""A cell: one model trained one way and scored, known by a hash of what made its weights."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import Field, SerializeAsAny, model_validator

from harness.data.spec import ALPACA, DataSpec
from harness.demo.world import DATA
from harness.evaluation.tasks import TaskSpec
from harness.grid.names import label_of, slug_of
from harness.methods import METHODS
from harness.methods.method import MethodOptions
from harness.models.checkpoint import ModelSpec
from harness.records.files import sha256_of_json
from harness.spec import Spec
from harness.training.spec import TrainSpec

MOST_REPEATS = 50
"""Trainings of one configuration with one seed."""

RECIPE = 1
"""Incremented by every code change that alters trained weights; all cell ids change then."""

Fraction = Annotated[float, Field(gt=0, le=1)]
Seed = Annotated[int, Field(ge=0, le=2**31 - 1)]
DeviceCount = Annotated[int, Field(ge=1, le=8192)]

DataName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=40)]
NOT_IN_ID = {"token_budget", "gradient_checkpointing", "checkpoint_minutes"}
"""Training settings that never change the trained weights."""
RETIRED = {"micro_batch_size"}
"""Training settings ignored when reading stored cells."""
OMITTED_FROM_ID_WHEN_UNSET = {"base_quantization"}
"""Training settings that are part of the id only where they are set."""


class TuningRole(Spec):
    """What a cell is to the tuning of a method."""

    kind: Literal["trial", "winner"]
    """A trial is trained to choose the settings, and stands in no table of scores; a winner is
    trained anew with the settings that were chosen."""
    of: str
    """The label of the tuned method."""
    number: int
    """The trial's number, from 0; of a winner, that of the trial whose settings it has."""


class Alias(Spec):
    """Another name under which a cell is listed: what was chosen may be the published recipe."""

    method_label: str
    tuning: TuningRole | None


def _is_none(value: object) -> bool:
    return value is None


class FixedSeeds(Spec):
    """Seeds of what a cell draws by another seed than its own; None of what it draws by its own."""

    initialization: Seed | None = Field(default=None, exclude_if=_is_none)
    """What is trained, as it is before the first step."""
    order: Seed | None = Field(default=None, exclude_if=_is_none)
    """The order of the rows, and the masks of dropout."""
    subset: Seed | None = Field(default=None, exclude_if=_is_none)
    """The rows of the fraction."""

    @cached_property
    def text(self) -> str:
        """What a label says of them, such as `order0+subset0`; empty where all are the cell's."""
        return "+".join(f"{name}{value}" for name, value in self.model_dump().items())


Source = Literal["initialization", "order", "subset"]
"""What a seed draws: see FixedSeeds."""
SOURCES: tuple[Source, ...] = get_args(Source)

DRAWN = {"fraction", "seed", "fixed_seeds", "repeat"}
"""What tells the cells of one model, method and block apart."""


class Cell(Spec):
    """One model trained one way and scored."""

    model_name: str
    """Name of the model in the grid."""
    model: ModelSpec
    """Where the base model is, and its shape."""
    method: str
    """The method's registry key."""
    method_label: str
    """The name in the grid; the registry key where the grid gives none."""
    options: SerializeAsAny[MethodOptions]
    """The method's options."""
    fraction: Fraction | None
    """Share of the training rows; None for a method that trains nothing (`base`, `adapter`)."""
    seed: Seed | None
    """Seed of all that is drawn; None for a method that trains nothing (`base`, `adapter`)."""
    fixed_seeds: FixedSeeds = Field(default=FixedSeeds(), exclude_if=lambda own: not own.text)
    """What it draws by another seed: of a block that varies some sources alone."""
    repeat: Annotated[int, Field(ge=1, le=MOST_REPEATS)] | None = Field(
        default=None, exclude_if=_is_none
    )
    """Which further training of the same configuration and seed it is; None for the first."""
    is_noise: bool = Field(default=False, exclude_if=operator.not_)
    """Whether it is trained for the noise floor alone; not part of the id."""
    data: DataSpec
    """The training rows."""
    data_name: str | None = Field(default=None, exclude_if=lambda value: value is None)
    """Their name in the grid's `datasets`; None for its one `data`, and where nothing is
    trained."""
    data_sha256: str | None = None
    """SHA-256 of the file of one's own that the rows come from; None for a set of the hub or of the
    embedded world."""
    train: TrainSpec | None
    """The training settings; None for a method that trains nothing."""
    world: str | None
    """Name and version of the embedded world that it lives in, such as `demo-1`."""
    tasks: tuple[TaskSpec, ...]
    """What it is scored on; not part of the id."""
    gpus_per_cell: DeviceCount = 1
    """GPUs that train it together; not part of the id, since any number gives the same weights up
    to rounding."""
    tuning: TuningRole | None = Field(default=None, exclude_if=lambda value: value is None)
    """What it is to the tuning of a method; None for a cell that its grid names itself. Not part of
    the id."""
    aliases: tuple[Alias, ...] = Field(default=(), exclude_if=lambda value: not value)
    """Other names under which it is listed; not part of the id."""

    @model_validator(mode="before")
    @classmethod
    def _drop_retired_keys(cls, raw: Any) -> Any:
        if isinstance(raw, Mapping) and isinstance(raw.get("train"), Mapping):
            kept = {key: value for key, value in raw["train"].items() if key not in RETIRED}
            return {**raw, "train": kept}
        return raw

    @model_validator(mode="before")
    @classmethod
    def _parse_options(cls, raw: Any) -> Any:
        if isinstance(raw, Mapping) and isinstance(raw.get("options"), Mapping):
            options = METHODS[raw["method"]].options.model_validate(raw["options"])
            return {**raw, "options": options}
        return raw

    @cached_property
    def drawn_from(self) -> dict[str, Any]:
        """What of `record` cells that differ in what they draw alone have in common."""
        model: dict[str, Any] = {"source": self.model.source, "revision": self.model.revision}
        if self.model.source is None:
            model = {"name": self.model_name, "shape": self.model.shape.identity()}
        data = train = None
        if self.train is not None:
            train = self.train.model_dump(exclude=NOT_IN_ID)
            unset = {key for key in OMITTED_FROM_ID_WHEN_UNSET if not train[key]}
            train = {key: value for key, value in train.items() if key not in unset}
            data = self._data_record() | self.data.stated
        return {
            "recipe": RECIPE,
            "world": self.world,
            "model": model,
            "method": self.method,
            "options": self.options.identity(),
            "data": data,
            "train": train,
        }

    def record(self) -> dict[str, Any]:
        """All that decides the trained weights, as plain values."""
        return {
            **self.drawn_from,
            "fraction": self.fraction,
            "seed": self.seed,
            **({"fixed_seeds": fixed} if (fixed := self.fixed_seeds.model_dump()) else {}),
            **({} if self.repeat is None else {"repeat": self.repeat}),
        }

    def _data_record(self) -> dict[str, Any]:
        """What the training rows are: their content where they are one's own, never a path.

        A set of the hub is known by its name; status.py compares what is read of it.
        """
        if self.data.source is not None:
            return {"source": self.data.source, "revision": self.data.revision}
        if not is_own_file(self.data, self.world):
            # In the world, whose version says what it holds.
            return {"path": self.data.path}
        return {"sha256": self.data_sha256}

    @cached_property
    def id(self) -> str:
        """Configuration hash: the first 12 hex digits of the SHA-256 of `record()`.

        Not in it: the device that `precision: auto` resolves on, and the content of local weights,
        which status.py compares.
        """
        return sha256_of_json(self.record())[:12]

    @cached_property
    def former_ids(self) -> tuple[str, ...]:
        """Ids that a cell trained on a file of one's own had in earlier versions.

        They named the file's path, or Alpaca where `source` was not given; cells of two files had
        the same one, so that whoever finds a result by it compares the content. None had been
        trained on some of the rows, or on rows in another text.
        """
        own = is_own_file(self.data, self.world)
        if self.train is None or not own or self.data.stated:
            return ()
        was = {"path": self.data.path}, {"source": ALPACA, "revision": self.data.revision}
        return tuple(sha256_of_json(self.record() | {"data": data})[:12] for data in was)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy. Drops what is cached, so that it is found anew: the ids, and unless all that is
        updated is in DRAWN, `drawn_from`."""
        copied = super().model_copy(update=update, deep=deep)
        is_drawn = (update or {}).keys() <= DRAWN
        for name in ("id", "former_ids", *(() if is_drawn else ("drawn_from",))):
            copied.__dict__.pop(name, None)
        return copied

    def seed_of(self, source: Source) -> int:
        """The seed that draws one of SOURCES; 0 for a method that trains nothing."""
        fixed: int | None = getattr(self.fixed_seeds, source)
        return (self.seed or 0) if fixed is None else fixed

    @property
    def is_varied(self) -> bool:
        """Whether it draws some sources by another seed than the rest."""
        return bool(self.fixed_seeds.text)

    @property
    def listings(self) -> list[Cell]:
        """The cell under each of its names: the rows that it has in tables."""
        if not self.aliases:
            return [self]
        one = self.model_copy(update={"aliases": ()})
        named = ({"method_label": n.method_label, "tuning": n.tuning} for n in self.aliases)
        return [one, *(one.model_copy(update=update) for update in named)]

    @property
    def method_title(self) -> str:
        """The method's name on pages; PEFT's type belongs to it."""
        return f"{METHODS[self.method].title} {getattr(self.options, 'peft_type', '')}".strip()

    @property
    def label(self) -> str:
        """What a reader calls the cell, such as `llama-7b/zero-init-linear/10%/seed0`."""
        return label_of(
            self.model_name, self.method_label, self.fraction, self.seed, self.data_name,
            fixed_seeds=self.fixed_seeds.text, repeat=self.repeat,
        )  # fmt: skip

    @property
    def slug(self) -> str:
        """The label as a part of a folder's name."""
        return slug_of(self.label)


def is_own_file(data: DataSpec, world: str | None) -> bool:
    """Whether training data are a file of one's own: no set of the hub, nor the world's."""
    if data.source is not None or data.path is None:
        return False
    return not (world and not Path(data.path).is_absolute() and (DATA / data.path).is_file())


def is_base(cell: Cell) -> bool:
    """Whether a cell is an untrained base model."""
    return cell.method == "base"
