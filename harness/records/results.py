"""What was measured: a cell's result and its scores, the schema of `result.json`.

A cell's folder is the only truth about what is done. `result.json` is written to a temporary name
and renamed, so that it is whole or absent. The records are validated whenever one is made or read;
keys that a file has and a record has not are left out, so that older files stay readable.
docs/results.md shows the fields: `python scripts/make_schema_page.py` writes it from this file.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from harness.errors import StorageError, one_line
from harness.readers.files import ADVICE, Unreadable, read_bytes
from harness.records.files import write_bytes
from harness.records.prompts import Prompt
from harness.records.scores import Count, Finite, TaskScore
from harness.records.seal import canonical, check_seal, sealed

RESULT_FILE = "result.json"
DAMAGED_FILE = "result.damaged.json"
"""A damaged result, put aside when its cell is run again."""

AGAIN = "run-grid puts it aside and runs the cell again; or bring back a copy of it"


def _checked_estimate(given: Any) -> Any:
    """An estimate, whose seconds are numbers; of older versions it may be null."""
    for name, value in given.items() if isinstance(given, dict) else ():
        if str(name).endswith("_seconds") and not isinstance(value, int | float | None):
            raise ValueError(f"{name} is no number")
    return given or {}


class DamagedResult(StorageError):
    """A `result.json` that is there, and is no result of its cell."""


@dataclass(frozen=True)
class TrainResult:
    """What training a cell gave and cost."""

    steps: Count
    """Optimizer steps that were taken; a batch of lost examples alone gives none, nor does one that
    overflowed in fp16."""
    examples: Count
    """Examples that were trained on in an epoch; lost ones not counted."""
    tokens: Count
    """Real tokens that went through the model, padding not counted, over all epochs."""
    epoch_losses: Annotated[tuple[Finite, ...], Field(min_length=1)]
    """Mean loss per label token of each epoch, in nats."""
    trainable_parameters: Count
    """Number of trained parameters."""
    total_parameters: Count
    """Number of all parameters of the adapted model."""
    seconds: Finite
    """Wall-clock time of the training loop."""
    tokens_per_second: Finite
    """Mean over the training run, padding not counted."""
    peak_memory_bytes: Count
    """Bytes: peak of torch's allocator on CUDA, peak resident set on CPU; maximum over all
    processes of this run."""
    peak_learning_rate: Finite
    """Highest rate of a step; below the recipe's where the warm-up outlasts the training run."""
    precision: str
    """Compute precision (autocast dtype), also the storage dtype of frozen weights: bf16, fp16 or
    fp32; trained parameters are fp32."""
    device: str
    """torch device that trained it, such as `cpu` or `cuda`."""
    data_sha256: str
    """SHA-256 of the content of the training rows, in the order in which they were drawn."""
    data_file_sha256: str | None = None
    """SHA-256 of the local file that the rows were drawn from; None for a hub data set."""
    data_content_sha256: str | None = None
    """SHA-256 of the content of all rows that could be drawn; None in records of older versions."""
    weights_sha256: str | None = None
    """SHA-256 over the files of the trained weights, checked before they are used again; None in
    records of older versions."""
    final_statistics: Mapping[str, Finite] = Field(default_factory=dict)
    """Statistics of the method after the last step, such as `gate/mean_abs`, what it probed before
    and after training, `probe/...`, and of a training with pictures what another picture changes,
    `picture_effect` and `picture_changes`."""
    note: str | None = None
    """What a reader must know of this training run, such as a loss that exploded on its way."""
    prompts_sha256: str | None = Field(default=None, exclude_if=lambda value: value is None)
    """SHA-256 of the rows as the model was given them: of all tokens, and which are in the loss;
    absent in records of older versions."""
    example: Prompt | None = Field(default=None, exclude_if=lambda value: value is None)
    """The first of these rows, shortened: `template`, and `pieces` of text, each with whether its
    tokens are in the loss."""
    validation_losses: tuple[Finite, ...] = Field(default=(), exclude_if=lambda value: not value)
    """Mean loss per label token of the validation rows after each epoch, in nats, in evaluation
    mode; absent where none were held out."""
    validation_examples: Count = Field(default=0, exclude_if=lambda value: value == 0)
    """Validation rows that have labels."""
    validation_sha256: str | None = Field(default=None, exclude_if=lambda value: value is None)
    """SHA-256 of the content of the validation rows."""
    kept_epoch: Count | None = Field(default=None, exclude_if=lambda value: value is None)
    """Epoch (from 0) whose weights are saved and scored, under `keep: best`; None: the last."""
    odd_rows: Mapping[str, Count] = Field(default_factory=dict, exclude_if=lambda value: not value)
    """Numbers of odd rows: of the data set those that `on_bad_rows` `dropped`, or kept although a
    text is missing (`filled`), or that `where` `left_out`; of the drawn examples those with an
    `empty` response. Absent where there is none, and in records of older versions."""
    lost_examples: int = Field(default=0, exclude_if=lambda value: value == 0)
    """Drawn examples that were not trained on, since their prompt alone fills the maximal length,
    or since they are cut there and `on_bad_rows` is `drop`; absent where there is none, and in
    records of older versions, whose `examples` counts them."""
    cut_examples: int = Field(default=0, exclude_if=lambda value: value == 0)
    """Examples whose end lies behind the maximal length and was not trained on; absent where there
    is none, and in records of older versions."""
    chat_template_sha256: str | None = Field(default=None, exclude_if=lambda value: value is None)
    """SHA-256 of the tokenizer's chat template, where the rows were put into it."""
    token_budget: Count | None = Field(default=None, exclude_if=lambda value: value is None)
    """Most tokens of a forward pass at its end, where the device's memory held fewer than are set
    or than are the default; absent where it held those."""
    gradient_checkpointing: bool = Field(default=False, exclude_if=lambda value: not value)
    """Whether layers were computed again in the backward pass; absent where they were not."""
    attention: str | None = Field(default=None, exclude_if=lambda value: value is None)
    """How it attended within the sequences of packed rows: `varlen`, in one call for sequences of
    unlike lengths, or `buckets`, in one for each group of about one length. Absent where sequences
    were padded, and in records of older versions."""
    norms: str | None = Field(default=None, exclude_if=lambda value: value is None)
    """`fused` where RMSNorms ran as one kernel each; absent where they ran as transformers' own."""


@dataclass(frozen=True)
class CellError:
    """Why a cell failed."""

    type: str
    """Class of the exception."""
    message: str
    """What went wrong, in one line."""
    log: str
    """Path of the log, relative to the cell's folder."""


@dataclass(frozen=True)
class CellResult:
    """All that is known of a cell; what `result.json` holds.

    A cell is done for a grid when it is trained and has every score that the grid asks for: a
    later failure (of an added benchmark, say) takes nothing away.
    """

    cell: Mapping[str, Any]
    """The cell's canonical record: `Cell.record()`."""
    cell_id: str
    """Id of the cell."""
    train: TrainResult | None = None
    """What training gave; None before it, and for methods that train nothing: `base`, `adapter`."""
    base: Mapping[str, Any] = Field(default_factory=dict)
    """Identity of the base model: source, commit, weights_sha256, tokenizer_sha256, precision."""
    image_encoder: Mapping[str, Any] = Field(
        default_factory=dict, exclude_if=lambda value: not value
    )
    """Identity of the encoder of pictures, whose features alone are shown to what was trained;
    absent without one."""
    scores: tuple[TaskScore, ...] = ()
    """The scores, benchmark by benchmark; in a benchmark with subjects its own come first."""
    environment: Mapping[str, Any] = Field(default_factory=dict)
    """Versions, host, device, git commit, time."""
    examples: Mapping[str, Prompt] = Field(default_factory=dict, exclude_if=lambda value: not value)
    """By benchmark: the first request as the model was given it, shortened, as `example` of the
    training; absent in records of older versions."""
    evaluation_seconds: Mapping[str, Finite] = Field(default_factory=dict)
    """Wall-clock seconds by benchmark."""
    evaluation_environments: Mapping[str, Mapping[str, Any]] = Field(default_factory=dict)
    """The environment of each evaluation, by its name (request key, and items): scores may be added
    long after the training, with other versions."""
    files_sha256: Mapping[str, str] = Field(default_factory=dict)
    """SHA-256 of the parquet files beside it, by their path in the cell's folder; those that older
    versions wrote are not in it."""
    error: CellError | None = None
    """Why the last run failed; None where it did not."""
    estimate: Annotated[Mapping[str, Any], BeforeValidator(_checked_estimate)] = Field(
        default_factory=dict
    )
    """What was expected before it ran: training_seconds, scoring_seconds, and the source of both;
    empty where nothing was."""

    def with_scores(
        self,
        benchmark_scores: tuple[TaskScore, ...],
        seconds: float,
        environment: Mapping[str, Any] | None = None,
    ) -> CellResult:
        """A copy in which the scores of one evaluation replace those of the same key and items.

        `seconds` is what it took, and `environment` where and with what it was made.
        """
        new = {score.key: score for score in benchmark_scores}
        kept = tuple(
            score
            for score in self.scores
            if score.key not in new or not score.same_items(new[score.key])
        )
        times = {score.benchmark: seconds for score in benchmark_scores}
        known = {score.evaluation for score in kept}
        made_in = {k: v for k, v in self.evaluation_environments.items() if k in known}
        names = sorted({score.evaluation for score in benchmark_scores})
        made_in |= {} if environment is None else dict.fromkeys(names, environment)
        return replace(
            self,
            scores=kept + benchmark_scores,
            evaluation_seconds={**self.evaluation_seconds, **times},
            evaluation_environments=made_in,
        )

    def with_note(self, note: str | None) -> CellResult:
        """A copy in which `note` stands beside every score."""
        if note is None:
            return self
        noted = tuple(
            score
            if note in (score.note or "")
            else replace(score, note=f"{score.note}; {note}" if score.note else note)
            for score in self.scores
        )
        return replace(self, scores=noted)

    def to_json(self) -> str:
        """The text of `result.json`."""
        record = _RESULT.dump_python(self, by_alias=True)
        # What older versions did not record is left out, so that their results keep their bytes.
        if not record["files_sha256"]:
            del record["files_sha256"]
        if self.train is not None and self.train.weights_sha256 is None:
            del record["train"]["weights_sha256"]
        return canonical(record)

    @staticmethod
    def from_json(text: str | bytes) -> CellResult:
        """The result that `text` holds.

        Raises:
            ValueError: `text` is not such a record.
        """
        try:
            return _RESULT.validate_json(text)
        except ValidationError as error:
            fault = error.errors(include_url=False)[0]
            place = ".".join(map(str, fault["loc"]))
            raise ValueError(
                f"not a cell's result: {place or 'all of it'}: {fault['msg']}"
            ) from error


_RESULT = TypeAdapter(CellResult)


def read_result(folder: Path, cell_id: str | None = None) -> CellResult | None:
    """The result in a cell's folder, or None where there is none.

    `cell_id` is the cell's that the folder is known to hold.

    Raises:
        DamagedResult: the file's content is no result of the cell.
        StorageError: the file cannot be read.
    """
    path = folder / RESULT_FILE
    try:
        content = read_bytes(path)
    except Unreadable as fault:
        if fault.cause == "missing" and not os.path.lexists(path):
            return None
        if fault.cause in ("empty", "folder", "special", "lfs pointer", "too large"):
            said = str(fault).removeprefix(f"{path}: ").removesuffix(f"; {ADVICE[fault.cause]}")
            raise DamagedResult(f"{path}: cannot be read (it {said}); {AGAIN}") from fault
        raise StorageError(str(fault)) from fault
    try:
        check_seal(content)
        result = CellResult.from_json(content)
        if cell_id is not None and result.cell_id != cell_id:
            raise ValueError(f"it is of another cell, {result.cell_id[:40]}")
    except ValueError as fault:
        raise DamagedResult(f"{path}: cannot be read ({one_line(fault)}); {AGAIN}") from fault
    return result


def write_result(folder: Path, result: CellResult) -> None:
    """Writes `result.json` whole or not at all.

    Raises:
        StorageError: the file cannot be written.
    """
    write_bytes(folder / RESULT_FILE, sealed(result.to_json()))
