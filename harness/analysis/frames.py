"""Results as tidy frames: one row per cell × task × metric, and all else that a report takes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.analysis.earlier_verdicts import EarlierVerdict
from harness.analysis.item_clusters import ClustersOf, no_clusters
from harness.analysis.item_pictures import PicturesOf, no_pictures
from harness.analysis.item_texts import Texts
from harness.analysis.overlap import Overlap
from harness.analysis.prompts import PromptPair
from harness.analysis.stacks import made_of
from harness.analysis.tuning import Tuning
from harness.analysis.variants import PICTURES
from harness.data.spec import ODD_ROWS
from harness.errors import MethodError
from harness.evaluation.tasks import TaskSpec, request_key
from harness.grid.cells import SOURCES
from harness.grid.questions import ClaimSpec, TableSpec
from harness.grid.schema import Cell
from harness.grid.seed_sd import SeedSds
from harness.grid.status import CellState, is_trained
from harness.methods import METHODS
from harness.methods.zero_init.options import PromptOptions
from harness.records.picture_effect import CHANGES, EFFECT
from harness.records.results import CellResult, TrainResult
from harness.records.scores import TaskScore

if TYPE_CHECKING:
    import pandas as pd

    from harness.evaluation.benchmark import Benchmark

IDENTITY = (
    *("cell_id", "label", "model", "method", "method_name", "method_title"),
    *("fraction", "seed"),
)
"""Columns that every frame begins with."""
DATA = "data"
"""A further one where a grid has several data sets: the set's name in the grid."""
TUNING = "tuning"
"""A further one where a grid tunes: `winner`, else None; trials stand in no frame."""
NOISE, VARIES, FIXED = "noise", "varies", "fixed_seed"
"""Further ones where a grid trains cells for what noise does: `repeat`, `seed` or `varied`, else
None; of a varied cell what takes its seed, such as `order`, and the seed that all else has."""
FURTHER = (DATA, TUNING, NOISE, VARIES, FIXED, PICTURES)
COSTS = (
    *("trainable_parameters", "total_parameters", "examples", "steps", "seconds"),
    *("tokens_per_second", "peak_memory_bytes", "peak_learning_rate", "precision", "device"),
)
"""Columns of the cells frame that are fields of a training's result."""
_NUMBERS = (
    *("final_gate_mean_abs", "final_gate_max_abs", EFFECT, CHANGES),
    *("expected_training_seconds", "expected_scoring_seconds"),
    *(f"{name}_rows" for name in ODD_ROWS),
)
"""Columns that may hold nothing at all."""


@dataclass(frozen=True)
class ReportInput:
    """All that a report is made from; frames as this file makes them."""

    grid_name: str
    grid_title: str
    grid_yaml: str
    """The grid's text as the user wrote it."""
    scores: pd.DataFrame
    """One row per cell × task × metric."""
    cells: pd.DataFrame
    """One row per planned cell, done or not."""
    losses: pd.DataFrame
    """One row per cell × epoch."""
    items: Callable[[str, str], pd.DataFrame | None] = field(default=lambda _cell, _benchmark: None)
    """Per-item records of (cell_id, benchmark), None where there are none."""
    traces: Callable[[str, str], pd.DataFrame | None] = field(default=lambda _cell, _file: None)
    """What a method kept of a cell's training, by (cell_id, file name); None where there is none.
    See `harness.methods.method.TelemetryCallback.frames`."""
    texts: Callable[[str, str], Texts] = field(default=lambda _cell, _benchmark: {})
    """What the items of (cell_id, benchmark) ask, where the data root has them."""
    pictures: PicturesOf = no_pictures
    """The pictures of items of (cell_id, benchmark), where the data root has them."""
    draws: Callable[[str, str], Sequence[pd.DataFrame]] = field(default=lambda _cell, _name: ())
    """Per-item records of (cell_id, benchmark) for each draw of sampled responses."""
    clusters: ClustersOf = no_clusters
    """Which items of (cell_id, benchmark) share a source."""
    tables: tuple[TableSpec, ...] = ()
    """The grid's tables; without any, one has all benchmarks."""
    compare: str | None = None
    """The method that the grid compares all others with, or `all`."""
    claims: tuple[ClaimSpec, ...] = ()
    """The grid's claims."""
    seed_sd: SeedSds = SeedSds()
    """What the grid states of the spread over re-trainings."""
    benchmarks: Mapping[str, Benchmark] = field(default_factory=dict)
    """The grid's benchmarks that do not ship, by name."""
    tunings: tuple[Tuning, ...] = ()
    """How the grid's methods were tuned."""
    earlier_verdicts: Mapping[str, Sequence[EarlierVerdict]] = field(default_factory=dict)
    """What earlier reports in the same folder said of each claim."""
    date: str = ""
    """Of this report, ISO 8601."""
    published_runs: str | None = None
    """Published runs that stand beside the measured ones, by the grid's name for them."""
    other_than_published: str | None = None
    """Why the grid's cells are others than the published runs, in words; None where they are the
    same."""
    overlap: Overlap = field(default_factory=Overlap)
    """Test items that the training rows hold."""
    prompts: tuple[PromptPair, ...] = ()
    """Training and evaluation prompts side by side."""
    theory: Path | None = None
    """The folder of `zbench theory`; it may hold nothing yet."""
    notes: tuple[str, ...] = ()
    """The grid's own lines for the page: what its world is, why its scores are as they are."""
    training_flops: Mapping[str, float] = field(default_factory=dict)
    """Operations of each trained cell's training, as computed from shapes and token counts; absent
    where the tokens are not known."""
    environment: Mapping[str, Any] = field(default_factory=dict)
    """Versions, host, device, date, git commit, tracking address."""


def without_noise(data: ReportInput) -> ReportInput:
    """The same without the cells that are trained for what noise does: they stand in no table of
    scores, in no comparison and no curve."""
    frames = {name: getattr(data, name) for name in ("cells", "scores", "losses")}
    if not any(NOISE in frame for frame in frames.values()):
        return data
    own = {
        name: frame[frame[NOISE].isna()].reset_index(drop=True) if NOISE in frame else frame
        for name, frame in frames.items()
    }
    return replace(data, **own)


def _noise_role(cell: Cell) -> dict[str, Any]:
    """What a cell is trained for, where that is to tell what noise does."""
    if cell.is_varied:
        fixed = cell.fixed_seeds.model_dump()
        varies = [source for source in SOURCES if source not in fixed]
        return {NOISE: "varied", VARIES: ", ".join(varies), FIXED: next(iter(fixed.values()))}
    role = "seed" if cell.repeat is None else "repeat"
    return {NOISE: role} if cell.is_noise or cell.repeat is not None else {}


def cell_identity(cell: Cell) -> dict[str, Any]:
    """A cell's values of IDENTITY."""
    title, label = cell.method_title, cell.method_label
    return (
        {
            "cell_id": cell.id,
            "label": cell.label,
            "model": cell.model_name,
            "method": label,
            "method_name": cell.method,
            "method_title": title if label == cell.method else f"{title} ({label})",
            "fraction": cell.fraction,
            "seed": cell.seed,
        }
        | {
            name: value
            for name, value in ((DATA, cell.data_name), (TUNING, cell.tuning and cell.tuning.kind))
            if value is not None
        }
        | _noise_role(cell)
        | _pictures(cell)
    )


def _pictures(cell: Cell) -> dict[str, Any]:
    """How many layers carry a prompt, where pictures are added to it."""
    options = cell.options
    if not isinstance(options, PromptOptions) or getattr(options, "image_encoder", None) is None:
        return {}
    return {PICTURES: len(options.adapted_layers(cell.model.shape))}


def rows_of(cells: Sequence[Cell]) -> list[Cell]:
    """The cells of the study, each under every name that it has: no trials of a tuning."""
    return [one for cell in cells for one in cell.listings if not is_trial(one)]


def is_trial(cell: Cell) -> bool:
    """Whether a cell is trained to choose settings alone."""
    return cell.tuning is not None and cell.tuning.kind == "trial"


def scores_frame(cells: Sequence[Cell], results: Mapping[str, CellResult]) -> pd.DataFrame:
    """One row per cell × task × metric: the identity columns, TaskScore's fields, and `made`."""
    import pandas as pd

    columns = [one.name for one in fields(TaskScore)]
    rows = [
        cell_identity(cell)
        | {name: getattr(score, name) for name in columns}
        | {"made": made_of(result, score)}
        for cell in rows_of(cells)
        if (result := results.get(cell.id)) is not None
        for task in cell.tasks
        for score in scores_of(task, result)
    ]
    names = [*_head(rows), *columns, "made"]
    return _typed(pd.DataFrame(rows, columns=names))


def _head(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Columns that a frame begins with."""
    return [*IDENTITY, *(name for name in FURTHER if any(name in row for row in rows))]


def scores_of(task: TaskSpec, result: CellResult) -> tuple[TaskScore, ...]:
    """The scores that answer what a grid asks for: one request's, or none.

    The very request comes first; else the last one that asks in the same way, measured with another
    version of lm-eval or of zbench, which stands with every score.
    """
    mine = [score for score in result.scores if score.benchmark == task.name]
    key = request_key(task)
    exact = tuple(score for score in mine if score.key == key)
    if exact:
        return exact
    known, decoding = task.benchmark, task.decoding
    wanted: dict[str, Any] = {
        "protocol": known.protocol.name,
        "shots": task.num_shots,
        "limit": task.limit,
        "temperature": None if decoding is None else decoding.temperature,
        "form": task.form,
        "definition": known.definition,
    }
    alike = [
        score for score in mine if all(getattr(score, name) == wanted[name] for name in wanted)
    ]
    return tuple(score for score in alike if score.key == alike[-1].key)


def cells_frame(states: Sequence[CellState], results: Mapping[str, CellResult]) -> pd.DataFrame:
    """One row per planned cell of the study: identity, status, costs, final gates, error."""
    import pandas as pd

    listed = [(state, cell) for state in states for cell in state.cell.listings]
    rows = [cell_identity(cell) | _costs(state, results.get(cell.id)) for state, cell in listed]
    frame = _typed(pd.DataFrame(rows)).astype(dict.fromkeys(_NUMBERS, "float64"))
    return frame[[not is_trial(cell) for _, cell in listed]].reset_index(drop=True)


def _costs(state: CellState, result: CellResult | None) -> dict[str, Any]:
    train = result.train if result is not None else None
    costs: dict[str, Any] = {name: getattr(train, name, None) for name in COSTS}
    shape, cell = state.cell.model.shape, state.cell
    with contextlib.suppress(MethodError):  # an adapter that is gone since it was scored
        costs["trainable_parameters"] = METHODS[cell.method].count_parameters(shape, cell.options)
    if costs["total_parameters"] is None:
        costs["total_parameters"] = shape.num_parameters
    if train is None and result is not None:
        costs["precision"] = result.base.get("precision")
        costs["device"] = result.environment.get("device")
    statistics = train.final_statistics if train is not None else {}
    odd = train.odd_rows if train is not None else {}
    estimate = result.estimate if result is not None else {}
    return (
        costs
        | {f"{name}_rows": odd.get(name) for name in ODD_ROWS}
        | {
            "status": _status(state, result),
            "num_devices": _num_devices(result),
            "evaluation_seconds": sum(result.evaluation_seconds.values()) if result else None,
            "expected_training_seconds": estimate.get("training_seconds"),
            "expected_scoring_seconds": estimate.get("scoring_seconds"),
            "weights_sha256": getattr(train, "weights_sha256", None),
            "error": result.error.message if result is not None and result.error else None,
            "training_note": train.note if train is not None else None,
            "final_gate_mean_abs": statistics.get("gate/mean_abs"),
            "final_gate_max_abs": statistics.get("gate/max_abs"),
            **{name: statistics.get(name) for name in (EFFECT, CHANGES)},
        }
    )


def _num_devices(result: CellResult | None) -> int | None:
    """How many devices trained a cell together; None of one that is not trained."""
    if result is None or result.train is None:
        return None
    return int(result.environment.get("num_devices", 1))


def _status(state: CellState, result: CellResult | None) -> str:
    if (
        result is not None
        and is_trained(state.cell, result)
        and all(scores_of(task, result) for task in state.cell.tasks)
    ):
        return "done"
    return "failed" if result is not None and result.error is not None else "missing"


def losses_frame(cells: Sequence[Cell], results: Mapping[str, CellResult]) -> pd.DataFrame:
    """One row per cell × epoch: the identity columns, `epoch` (from 0) and `loss`.

    Where any cell has validation rows also `validation_loss`, and `is_kept`: whether the weights
    after this epoch are those that are saved and scored.
    """
    import pandas as pd

    rows = [
        cell_identity(cell) | {"epoch": epoch, "loss": loss} | _validated(result.train, epoch)
        for cell in rows_of(cells)
        if (result := results.get(cell.id)) is not None and result.train is not None
        for epoch, loss in enumerate(result.train.epoch_losses)
    ]
    held_out = ["validation_loss", "is_kept"] if any("is_kept" in row for row in rows) else []
    return _typed(pd.DataFrame(rows, columns=[*_head(rows), "epoch", "loss", *held_out]))


def _validated(train: TrainResult, epoch: int) -> dict[str, Any]:
    if not train.validation_losses:
        return {}
    kept = len(train.epoch_losses) - 1 if train.kept_epoch is None else train.kept_epoch
    return {"validation_loss": train.validation_losses[epoch], "is_kept": epoch == kept}


def _typed(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with one type per column, whatever is missing."""
    frame["fraction"] = frame["fraction"].astype("float64")
    frame["seed"] = frame["seed"].astype("Int64")
    return frame
