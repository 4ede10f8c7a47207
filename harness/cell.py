"""One cell's life, from the base model to its scores: the only place where all the parts meet."""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from harness.device_memory import check_memory, free_memory
from harness.distributed import GroupMember, joined
from harness.environment import describe_environment, prepare_torch
from harness.errors import ModelError, StorageError
from harness.events import CellEnded, CellStarted, Emit, Scoring, StepDone
from harness.grid import Cell, DataSpec
from harness.methods import METHODS
from harness.model_card import CARD_FILE, model_card
from harness.results import (
    CellError,
    CellResult,
    read_result,
    write_frame,
    write_result,
    write_text,
)
from harness.state import (
    ADAPTER_FOLDER,
    CELL_FILE,
    LOG_FILE,
    STEPS_FILE,
    cell_folder,
    is_trained,
    items_path,
    locked,
    missing_tasks,
)

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from harness.data import Instructions
    from harness.evaluation.tasks import TaskSpec
    from harness.models import Base
    from harness.train import StepRecord


@dataclass(frozen=True)
class RunSettings:
    """Where a cell is run; nothing here changes what is measured."""

    runs_dir: Path
    data_root: Path | None
    """Folder of local data sets and checkpoints; None to read from the hub."""
    device: str = "cpu"
    """A torch device of this process, `cpu` or `cuda`."""
    threads: int = 1
    """CPU threads; on the CPU another number moves the low bits of every result."""
    member: GroupMember | None = None
    """This process' place where several train the cell; rank 0 runs it, the others follow."""


def run_cell(cell: Cell, settings: RunSettings, emit: Emit) -> CellResult:
    """Does what is not done yet of a cell: trains it, saves it, scores it.

    Everything is stored as it comes: a killed run goes on from the last benchmark.

    Args:
        cell: what to do.
        settings: where.
        emit: told of every step.

    Returns:
        The cell's whole result, as stored in its folder.

    Raises:
        ZbenchError: what went wrong, in one line; it is stored in the folder too.
    """
    folder = cell_folder(settings.runs_dir, cell)
    start = time.monotonic()
    with locked(folder):
        try:
            result = _CellRun(cell, settings, folder, emit).finish()
        except Exception as fault:
            record_failure(cell, folder, fault)
            emit(CellEnded(cell.id, str(folder), time.monotonic() - start, describe(fault)))
            raise
    emit(CellEnded(cell.id, str(folder), time.monotonic() - start))
    return result


def follow_cell(cell: Cell, settings: RunSettings) -> None:
    """Trains a cell with the process that runs it, and leaves the rest to that one.

    It writes nothing and tells nothing.

    Raises:
        ZbenchError: what went wrong, in one line.
    """
    prepare_torch(settings.threads)
    folder = cell_folder(settings.runs_dir, cell)
    unfinished = CellResult(cell=cell.record(), cell_id=cell.id)
    _CellRun(cell, settings, folder, lambda event: None)._train(unfinished)


@dataclass(frozen=True)
class _CellRun:
    cell: Cell
    settings: RunSettings
    folder: Path
    emit: Emit

    def finish(self) -> CellResult:
        known = read_result(self.folder)
        missing = missing_tasks(self.cell, known, self.settings.data_root)
        trained = is_trained(self.cell, known)
        result = known or CellResult(cell=self.cell.record(), cell_id=self.cell.id)
        if trained and not missing:
            return result
        prepare_torch(self.settings.threads)
        record = self.cell.model_dump(mode="json", serialize_as_any=True)
        write_text(self.folder / CELL_FILE, json.dumps(record, indent=1) + "\n")
        if trained:
            self._emit_start(0)
            base, model = self._restore(result)
            result = replace(result, base=result.base or base.identity, error=None)
        else:
            base, model, result = self._train(result)
        return self._score(base, model, result, missing if trained else self.cell.tasks)

    def _base(self, known: CellResult | None = None) -> Base:
        """Loads the base model, in the precision that the cell already has results in."""
        from harness.models import load_base, resolve_precision

        setting = self.cell.train.precision if self.cell.train else "auto"
        if known is not None and known.base.get("precision"):
            setting = known.base["precision"]
        device = self.settings.device
        return load_base(
            self.cell.model,
            data_root=self.settings.data_root,
            device=device,
            precision=resolve_precision(setting, device),
            quantization=self.cell.train.base_quantization if self.cell.train else None,
        )

    def _train(self, result: CellResult) -> tuple[Base, PreTrainedModel, CellResult]:
        """Trains, saves what was trained, and stores the result without scores."""
        from harness.data import choose, rows_sha256, tokenize
        from harness.models import save_trained
        from harness.parallel import gather_trained
        from harness.train import fit

        cell, method, train = self.cell, METHODS[self.cell.method], self.cell.train
        assert train is not None
        assert cell.fraction is not None
        assert cell.seed is not None
        data = _instructions(cell.data, self.settings.data_root)
        rows = choose(data.rows, cell.fraction, cell.seed)
        self._emit_start(train.total_steps(len(rows)))
        member = self.settings.member
        check_memory(cell, self.settings.device, member.size if member else 1)
        base = self._base()
        examples = tokenize(rows, base.tokenizer, train.max_length)
        model = method.apply(base.model, cell.options, cell.seed)
        trace = method.trace(model) if method.trace else None
        steps: list[StepRecord] = []

        def on_step(record: StepRecord) -> None:
            steps.append(record)
            self.emit(
                StepDone(
                    cell.id,
                    step=record.step,
                    epoch=record.epoch,
                    loss=record.loss,
                    learning_rate=record.learning_rate,
                    tokens_per_second=record.tokens_per_second,
                    time_ms=record.time_ms,
                    statistics=record.statistics,
                )
            )

        with joined(member, self.settings.device):
            measured = fit(
                model,
                examples,
                train,
                seed=cell.seed,
                device=self.settings.device,
                precision=base.identity["precision"],
                pad_token_id=_pad_token_id(base),
                data_sha256=rows_sha256(rows),
                statistics=method.statistics,
                trace=trace,
                on_step=on_step,
            )
            gathered = gather_trained(model)
        if member is not None and member.rank > 0:
            return base, model, result  # rank 0 does the rest
        counted = method.count_parameters(cell.model.shape, cell.options)
        assert measured.trainable_parameters == counted, "count_parameters differs from the model"
        measured = replace(
            measured, data_file_sha256=_file_sha256(cell.data, self.settings.data_root)
        )
        base_name = cell.model.source or cell.model.path
        save_trained(model, self.folder / ADAPTER_FOLDER, base_name=base_name, tensors=gathered)
        write_steps(self.folder / STEPS_FILE, steps)
        for name, frame in (trace.frames() if trace else {}).items():
            write_frame(self.folder / name, frame)
        result = replace(
            result,
            train=measured,
            base=base.identity,
            scores=(),
            environment=describe_environment(self.settings.device)
            | ({"num_devices": str(member.size)} if member else {}),
            evaluation_seconds={},
            error=None,
        )
        write_result(self.folder, result)
        if gathered is None:
            return base, model, result
        # This process holds one part of the model: it is let go for the whole one.
        del base, model, gathered, trace
        free_memory(self.settings.device)
        return *self._restore(result), result

    def _restore(self, result: CellResult) -> tuple[Base, PreTrainedModel]:
        """Loads the base and puts what was trained on it."""
        from harness.models import load_trained

        base = self._base(result)
        _check_same_base(self.cell, result, base)
        model = METHODS[self.cell.method].apply(base.model, self.cell.options, self.cell.seed or 0)
        if self.cell.train is not None:
            load_trained(model, self.folder / ADAPTER_FOLDER)
        return base, model

    def _score(
        self, base: Base, model: PreTrainedModel, result: CellResult, tasks: Sequence[TaskSpec]
    ) -> CellResult:
        """Scores the tasks group by group, storing each with its per-item records."""
        from harness.evaluation import evaluate_together
        from harness.evaluation.tasks import scored_together

        if self.cell.train is None:
            result = replace(result, environment=describe_environment(self.settings.device))
        for group in scored_together(tasks):
            start, name = time.monotonic(), "+".join(task.name for task in group)
            outcomes = evaluate_together(
                model,
                base.tokenizer,
                group,
                data_root=self.settings.data_root,
                precision=base.identity["precision"],
                on_progress=lambda done, total, name=name: self.emit(  # type: ignore[misc]
                    Scoring(self.cell.id, name, done, total)
                ),
            )
            seconds = (time.monotonic() - start) / len(group)
            for task, outcome in zip(group, outcomes, strict=True):
                key = outcome.scores[0].key
                write_frame(items_path(self.folder, task.name, key), outcome.items)
                result = result.with_scores(outcome.scores, seconds)
                write_result(self.folder, result)
        if self.cell.train is not None:
            card = model_card(self.cell, result)
            write_text(self.folder / ADAPTER_FOLDER / CARD_FILE, card)
        return result

    def _emit_start(self, total_steps: int) -> None:
        now = time.time_ns() // 1_000_000
        self.emit(CellStarted(self.cell.id, self.cell.label, total_steps, now))


@functools.lru_cache(maxsize=4)
def _instructions(spec: DataSpec, data_root: Path | None) -> Instructions:
    from harness.data import read_instructions

    return read_instructions(spec, data_root=data_root)


def _file_sha256(data: DataSpec, data_root: Path | None) -> str | None:
    from harness.fingerprint import sha256_of_file

    if data_root is None or data.path is None:
        return None
    return sha256_of_file(data_root / data.path)


def _pad_token_id(base: Base) -> int:
    """Returns a token for padding; it is masked everywhere, so that any one serves."""
    tokenizer = base.tokenizer
    if tokenizer.pad_token_id is not None:
        return int(tokenizer.pad_token_id)
    return int(tokenizer.eos_token_id)


def _check_same_base(cell: Cell, result: CellResult, base: Base) -> None:
    """Refuses to put trained tensors on other weights than those they were trained with."""
    for key in ("weights_sha256", "commit", "tokenizer_sha256"):
        then, now = result.base.get(key), base.identity.get(key)
        if then is not None and now is not None and then != now:
            raise ModelError(
                f"{cell.label}: the base model has changed since the cell was made ({key} was "
                f"{str(then)[:12]}, is {str(now)[:12]}); bring it back, or give another --runs-dir"
            )


def describe(fault: BaseException) -> str:
    """Returns the first line of an error's message, with its type where it is not zbench's own."""
    from harness.errors import ZbenchError

    if type(fault).__name__ == "OutOfMemoryError":
        return (
            "the card's memory is full; lower train.micro_batch_size (the result stays the same) "
            "or take a larger card"
        )
    lines = str(fault).strip().splitlines()
    text = lines[0] if lines else "no message"
    return text if isinstance(fault, ZbenchError) else f"{type(fault).__name__}: {text}"


def record_failure(cell: Cell, folder: Path, fault: BaseException) -> None:
    """Stores why a cell failed beside what it already has; says nothing where even that fails."""
    try:
        result = read_result(folder) or CellResult(cell=cell.record(), cell_id=cell.id)
        error = CellError(type=type(fault).__name__, message=describe(fault), log=LOG_FILE)
        write_result(folder, replace(result, error=error))
    except StorageError:
        pass  # the disk is full or gone: the error itself still reaches the user


def write_steps(path: Path, steps: Sequence[StepRecord]) -> None:
    """Writes the whole course of a training: one row per optimizer step.

    Raises:
        StorageError: the file cannot be written.
    """
    import pandas as pd

    rows = []
    for step in steps:
        record = asdict(step)
        statistics = record.pop("statistics")
        rows.append(record | dict(statistics))
    write_frame(path, pd.DataFrame(rows))
