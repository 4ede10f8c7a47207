"""What the cells of a grid read: models, training sets and benchmarks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from harness.data.spec import DataSpec
from harness.evaluation.tasks import TaskSpec
from harness.grid.own_encoders import image_encoders
from harness.grid.schema import Cell, GridSpec, MethodChoice
from harness.models.checkpoint import ModelSpec
from harness.models.image_encoder import ImageEncoderSpec
from harness.training.spec import TrainSpec

NO_DATA = DataSpec(source="unknown", path=None)
"""In the place of data whose entry has faults: nothing is looked up."""


@dataclass(frozen=True)
class DataInput:
    """A training set, and the fractions of it that cells train on."""

    name: str | None
    """In the grid's `datasets`; None for its one `data`."""
    spec: DataSpec
    fractions: Sequence[float]
    models: Sequence[str] = ()
    """Names of the models that are trained on it."""
    takes_pictures: bool = False
    """Whether a method that is trained on it is conditioned on pictures."""


@dataclass(frozen=True)
class Inputs:
    """What cells read."""

    models: Mapping[str, ModelSpec]
    longest: Mapping[str, int]
    """Tokens of the longest text that each model may be trained on. A model that is not trained
    has none, nor has that of the embedded world, whose texts are known to be short."""
    data: Sequence[DataInput]
    """What some cell trains on."""
    tasks: Sequence[TaskSpec]
    encoders: Sequence[ImageEncoderSpec] = ()
    """What pictures are encoded with."""


def inputs_of_cells(cells: Iterable[Cell]) -> Inputs:
    """What these cells read."""
    cells = list(cells)
    trained: dict[tuple[str | None, DataSpec], list[Cell]] = {}
    for cell in cells:
        if cell.fraction is not None:
            trained.setdefault((cell.data_name, cell.data), []).append(cell)
    return Inputs(
        models={cell.model_name: cell.model for cell in cells},
        longest=_longest((cell.model_name, cell.train) for cell in cells if cell.world is None),
        data=[
            DataInput(
                *chosen,
                list(dict.fromkeys(cell.fraction for cell in own if cell.fraction is not None)),
                list(dict.fromkeys(cell.model_name for cell in own)),
                any(takes_pictures(cell.options) for cell in own),
            )
            for chosen, own in trained.items()
        ],
        tasks=list(dict.fromkeys(task for cell in cells for task in cell.tasks)),
        encoders=image_encoders(cell.options for cell in cells),
    )


def inputs_of_grid(grid: GridSpec) -> Inputs:
    """What a grid's cells read, all of them: for a grid with faults, which has no cells."""
    blocks = grid.blocks if grid.world is None else ()
    pairs = (pair for block in blocks for pair in product(block.models, block.methods))
    return Inputs(
        models=grid.models,
        longest=_longest((model, choice.train) for model, choice in pairs),
        data=[
            DataInput(
                name,
                grid.data_of(name),
                trained_fractions(grid, name),
                _trained_models(grid, name),
                any(takes_pictures(choice.options) for choice in _trained_with(grid, name)),
            )
            for name in grid.data_names
            if grid.data_of(name) is not NO_DATA
        ],
        tasks=list(dict.fromkeys(task for block in grid.blocks for task in block.tasks)),
        encoders=image_encoders(choice.options for choice in grid.choices),
    )


def _trained_models(grid: GridSpec, name: str | None) -> list[str]:
    """The models that are trained on a set."""
    blocks = (block for block in grid.blocks if block.trains and block.data == name)
    return list(dict.fromkeys(model for block in blocks for model in block.models))


def _trained_with(grid: GridSpec, name: str | None) -> Iterator[MethodChoice]:
    """Yields the methods that are trained on a set."""
    blocks = (block for block in grid.blocks if block.trains and block.data == name)
    return (choice for block in blocks for choice in block.methods)


def takes_pictures(options: object) -> bool:
    """Whether a method with these options is conditioned on pictures."""
    return getattr(options, "image_encoder", None) is not None


def _longest(trainings: Iterable[tuple[str, TrainSpec | None]]) -> dict[str, int]:
    longest: dict[str, int] = {}
    for model, train in trainings:
        if train is not None:
            longest[model] = max(train.max_length, longest.get(model, 0))
    return longest


def trained_fractions(grid: GridSpec, name: str | None) -> list[float]:
    """The fractions of a set that something is trained on."""
    blocks = [block for block in grid.blocks if block.trains and block.data == name]
    return list(dict.fromkeys(fraction for block in blocks for fraction in block.fractions))
