"""What was measured: a cell's result and its scores, the schema of `result.json`.

A cell's folder is the only truth about what is done. `result.json` is written to a temporary name
and renamed, so that it is whole or absent. The records are validated whenever one is made or read;
keys that a file has and a record has not are left out, so that older files stay readable.
docs/results.md shows the fields: `python scripts/make_schema_page.py` writes it from this file.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    model_validator,
)
from pydantic.dataclasses import dataclass

from harness.errors import StorageError, one_line
from harness.readers.files import ADVICE, Unreadable, read_bytes, unreadable
from harness.records.files import write_bytes
from harness.records.prompts import Prompt
from harness.records.seal import canonical, check_seal, sealed

RESULT_FILE = "result.json"
DAMAGED_FILE = "result.damaged.json"
"""A damaged result, put aside when its cell is run again."""

AGAIN = "run-grid puts it aside and runs the cell again; or bring back a copy of it"

Count = Annotated[int, Field(ge=0, lt=2**63)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
LARGEST_SHARE = 1 + 1e-6
"""A mean may be rounded up."""


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
    """Statistics of the method after the last step, such as `gate/mean_abs`, and what it probed
    before and after training, `probe/...`."""
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


@dataclass(frozen=True, config=ConfigDict(validate_by_name=True, validate_by_alias=True))
class TaskScore:
    """One metric of one task, with all that is needed to know what it means."""

    key: str
    """Identity of the evaluation request that gave it: see `harness.evaluation.tasks`."""
    protocol: str
    """How it was measured: `lm-eval` (log-likelihoods) or `paper` (generated responses)."""
    benchmark: str
    """The name in the grid, such as `mmlu`."""
    task: str
    """The lm-eval task, such as `mmlu_anatomy`; the benchmark's name for its aggregates."""
    metric: str
    """lm-eval's metric, such as `acc_norm`, followed by its filter where it has one of its own, as
    in `exact_match,strict-match`; or `acc_macro` (mean over subjects)."""
    value: Finite
    """The score: 0..1, unless `unit` says that it is no share."""
    stderr: Finite | None
    """Standard error over the items, in the same unit; None where none is known."""
    n: Count
    """Number of items."""
    shots: Count
    """Examples before each item."""
    limit: Count | None
    """Items per lm-eval task at most; None for all."""
    task_version: str
    """Version of the task's definition in lm-eval."""
    lm_eval_version: str
    """Version of lm-eval."""
    data_source: str
    """`repository@revision` of a hub data set, or the local file's name."""
    data_sha256: str | None
    """SHA-256 of the local file(s) of the items; of the rows' content for a hub data set."""
    tokenizer_sha256: str
    """SHA-256 of the tokenizer."""
    precision: str
    """Precision of the model that was scored."""
    note: str | None = None
    """A deviation from the benchmark's definition, to be printed beside the score."""
    temperature: Finite | None = None
    """Sampling temperature of generated responses; None where log-likelihoods were scored."""
    response_flags: Mapping[str, Count] = Field(
        default_factory=dict, validation_alias="pathologies", serialization_alias="pathologies"
    )
    """Number of items by flag that their response raises: see `harness.evaluation.paper`."""
    prompts_sha256: str | None = None
    """SHA-256 of the texts of all requests; None in records of older versions."""
    token_budget: Count | None = None
    """Tokens of a forward pass, padding included; in half precision it moves the low bits."""
    fallback: str | None = None
    """Why requests were not scored over the trie of their prefixes; None where all were."""
    scored_with: tuple[str, ...] = ()
    """Other benchmarks whose requests shared the batches."""
    bos: str | None = None
    """What the tokenizer puts before every text: `token 1`, or `none`."""
    content_sha256: str | None = None
    """SHA-256 of the content of the rows, in order and before any `limit`; a hub's copy and a local
    file of one version have the same."""
    unit: str | None = Field(default=None, exclude_if=lambda value: value is None)
    """What the score counts where it is no share, such as `perplexity`; None of a share."""
    higher_is_better: bool = Field(default=True, exclude_if=lambda value: value)
    """lm-eval's direction of the metric."""
    form: str | None = Field(default=None, exclude_if=lambda value: value is None)
    """How the prompts differ from the task's plain ones, such as `chat template`."""
    definition: str | None = Field(default=None, exclude_if=lambda value: value is None)
    """SHA-256 of what defines a task of the user's own; None of lm-eval's."""
    items: str | None = Field(default=None, exclude_if=lambda value: value is None)
    """First digits of the SHA-256 of the items, in the names of all that belongs to this evaluation
    of its request alone; None in records of older versions, whose names have none."""

    @model_validator(mode="after")
    def _within_bounds(self) -> Self:
        if self.unit is None and not 0 <= self.value <= LARGEST_SHARE:
            raise ValueError("a share must be from 0 to 1")
        return self

    @property
    def evaluation(self) -> str:
        """Name of the evaluation: its request's key, and which items were asked."""
        return self.key if self.items is None else f"{self.key}-{self.items}"

    def same_items(self, other: TaskScore) -> bool:
        """Whether both were made on the same items: of the same content, where it is recorded."""
        if None not in (self.content_sha256, other.content_sha256):
            return self.content_sha256 == other.content_sha256
        return self.data_sha256 == other.data_sha256


def evaluations(scores: Iterable[TaskScore]) -> list[tuple[TaskScore, ...]]:
    """Scores by benchmark, request and items, in the order of the first of each."""
    found: list[list[TaskScore]] = []
    for score in scores:
        request = score.benchmark, score.key
        for group in found:
            if (group[0].benchmark, group[0].key) == request and group[0].same_items(score):
                group.append(score)
                break
        else:
            found.append([score])
    return [tuple(group) for group in found]


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
        path.lstat()
        content = read_bytes(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as fault:
        raise StorageError(str(unreadable(path, fault))) from fault
    except Unreadable as fault:
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
