"""Alpaca's instructions: read, choose a fraction, put into the template, tokenise, batch.

The prompt is the two-form template of Stanford Alpaca, from `data/prompts.yaml`; the response
follows it with nothing between. No torch here: planning imports this file.
"""

from __future__ import annotations

import functools
import hashlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from harness.data.pins import content_sha256
from harness.errors import DataError, ModelError
from harness.spec import Spec

if TYPE_CHECKING:
    import pyarrow
    from transformers import PreTrainedTokenizerBase


COLUMNS = ("instruction", "input", "output")
TOKENIZE_ROWS = 2048
"""Rows given to the tokenizer at once: its records are about 100 bytes per token."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Instruction:
    """One row of an instruction set; `input` and `output` may be empty."""

    instruction: str
    input: str
    output: str


@dataclass(frozen=True)
class Instructions:
    """An instruction set and what it is."""

    rows: tuple[Instruction, ...]
    identity: Mapping[str, Any]
    """source, revision and commit (None for a local file), sha256 of the rows, num_rows."""


@dataclass(frozen=True)
class Example:
    """A tokenised row: BOS and prompt, then the response and EOS, cut to the maximal length."""

    token_ids: tuple[int, ...]
    num_prompt_tokens: int
    """Leading tokens that are not in the loss, BOS included; at most len(token_ids)."""

    @property
    def num_labels(self) -> int:
        """Number of tokens in the loss; 0 where the prompt alone fills the maximal length."""
        return len(self.token_ids) - self.num_prompt_tokens


def read_instructions(spec: DataSpec, *, data_root: Path | None) -> Instructions:
    """Reads a whole instruction set.

    Args:
        spec: what to read.
        data_root: where given, `spec.path` under it is read instead of the hub.

    Raises:
        DataError: missing or broken file, missing column, empty cell, unexpected size, no network.
    """
    if spec.path is not None and (data_root is not None or Path(spec.path).is_absolute()):
        path = Path(spec.path) if data_root is None else data_root / spec.path
        place, table = str(path), _read_parquet(path, spec)
        source: dict[str, Any] = {"source": spec.path, "revision": None, "commit": None}
        if Path(spec.path).is_absolute():
            source["source"] = path.name  # where a machine keeps a file is no part of what it is
    elif spec.source is not None:
        place = f"{spec.source}@{spec.revision}"
        table, commit = _read_hub(spec)
        source = {"source": spec.source, "revision": spec.revision, "commit": commit}
    else:
        raise DataError(f"{spec.path}: is relative to the data root; give one with --data-root")
    rows = _rows(table, place)
    if spec.num_rows is not None and len(rows) != spec.num_rows:
        raise DataError(
            f"{place}: has {len(rows)} rows, the grid states num_rows {spec.num_rows}; "
            "give the right file, or correct num_rows"
        )
    return Instructions(rows, source | {"sha256": rows_sha256(rows), "num_rows": len(rows)})


def count_rows(spec: DataSpec, data_root: Path | None) -> int | None:
    """The size of an instruction set without reading it: as stated, or in the local file's footer.

    None where neither tells, or where the file is broken: reading it says how.
    """
    if spec.num_rows is not None or data_root is None or spec.path is None:
        return spec.num_rows
    import pyarrow
    import pyarrow.parquet

    try:
        return int(pyarrow.parquet.read_metadata(data_root / spec.path).num_rows)
    except (pyarrow.ArrowException, OSError):
        return None


def _read_parquet(path: Path, spec: DataSpec) -> pyarrow.Table:
    import pyarrow
    import pyarrow.parquet

    if not path.is_file():
        hub = f" (it is {spec.source} of the hub)" if spec.source else ""
        raise DataError(
            f"{path}: no such file; put the parquet there{hub}, or leave out --data-root"
        )
    if path.stat().st_size == 0:
        raise DataError(f"{path}: is empty (0 bytes); fetch it again")
    try:
        return pyarrow.parquet.ParquetFile(path).read()
    except (pyarrow.ArrowException, OSError) as fault:
        raise DataError(
            f"{path}: is not a whole parquet file ({_first_line(fault)}); fetch it again"
        ) from fault


def _read_hub(spec: DataSpec) -> tuple[pyarrow.Table, str]:
    """The train split of a hub data set, and the commit that `spec.revision` means.

    The snapshot is fetched first and read from its folder: `datasets` alone would take whatever
    revision it finds in its own cache when there is no network.
    """
    import datasets
    import huggingface_hub
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError

    assert spec.source is not None
    place = f"{spec.source}@{spec.revision}"
    instead = ""
    if spec.path is not None:
        instead = f", or put the parquet at {spec.path} in a folder given with --data-root"
    try:
        folder = huggingface_hub.snapshot_download(
            spec.source, revision=spec.revision, repo_type="dataset"
        )
    except LocalEntryNotFoundError as fault:
        raise DataError(
            f"{place}: no network and no copy in the hub cache; fetch it where there is network "
            f"(`hf download --repo-type dataset {spec.source}`){instead}"
        ) from fault
    except GatedRepoError as fault:
        raise DataError(
            f"{place}: the hub asks for access rights; accept its terms there and set HF_TOKEN"
        ) from fault
    except (HfHubHTTPError, OSError, ValueError) as fault:
        raise DataError(
            f"{place}: not readable on the hub ({_first_line(fault)}); check source and revision"
            f"{instead}"
        ) from fault
    bars = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        split = datasets.load_dataset(folder, split="train")
    except (datasets.exceptions.DatasetsError, OSError, ValueError) as fault:
        raise DataError(
            f"{place}: has no readable train split ({_first_line(fault)}){instead}"
        ) from fault
    finally:
        if bars:
            datasets.enable_progress_bars()
    return split.data.table, Path(folder).name


def _rows(table: pyarrow.Table, place: str) -> tuple[Instruction, ...]:
    import pyarrow

    missing = [name for name in COLUMNS if name not in table.column_names]
    if missing:
        raise DataError(
            f"{place}: lacks the column{'s' * (len(missing) > 1)} {', '.join(missing)} "
            f"(it has {', '.join(table.column_names)}); give a file in Alpaca's form"
        )
    if table.num_rows == 0:
        raise DataError(f"{place}: has no rows; give a file with instructions")
    columns = []
    for name in COLUMNS:
        column = table.column(name)
        if column.null_count:
            row = column.to_pylist().index(None)
            raise DataError(
                f"{place}: row {row} (the first is 0) has no {name}; fill it (an empty text is "
                "allowed) or remove the row"
            )
        if column.type not in (pyarrow.string(), pyarrow.large_string()):
            raise DataError(f"{place}: column {name} holds {column.type}, not text")
        columns.append(column.to_pylist())
    return tuple(Instruction(*values) for values in zip(*columns, strict=True))


def rows_sha256(rows: Sequence[Instruction]) -> str:
    """The `content_sha256` of the rows, as [instruction, input, output], whatever their format."""
    return content_sha256([row.instruction, row.input, row.output] for row in rows)


def num_examples(fraction: float, num_rows: int) -> int:
    """Number of rows that a fraction means: the nearest whole number, the even one of two."""
    return round(fraction * num_rows)


def choose(rows: Sequence[Instruction], fraction: float, seed: int) -> tuple[Instruction, ...]:
    """A fraction of the rows: nested, a smaller one is the beginning of a larger one.

    Raises:
        DataError: the fraction is less than half a row.
    """
    count = num_examples(fraction, len(rows))
    if count == 0:
        raise DataError(
            f"fraction {fraction:g} of {len(rows)} rows selects no example; the smallest that "
            f"selects one is {1 / len(rows):.2g}"
        )
    return tuple(rows[index] for index in shuffled(len(rows), f"fraction/{seed}")[:count])


def epoch_batches(num_rows: int, batch_size: int, *, seed: int, epoch: int) -> Iterator[list[int]]:
    """Yields the rows of each optimizer batch; the last may be smaller.

    The order depends on `seed` and `epoch` alone: not on devices, micro-batches or other draws.
    """
    order = shuffled(num_rows, f"epoch/{seed}/{epoch}")
    for start in range(0, num_rows, batch_size):
        yield order[start : start + batch_size]


def shuffled(count: int, key: str) -> list[int]:
    """0..count-1 sorted by the SHA-256 of `key/index`.

    A hash, not a library's generator: the order is the same in every version of everything.
    """
    return sorted(
        range(count), key=lambda index: hashlib.sha256(f"{key}/{index}".encode()).digest()
    )


@functools.cache
def _templates() -> Mapping[str, str]:
    import yaml

    text = resources.files("harness.data").joinpath("prompts.yaml").read_text(encoding="utf-8")
    return dict(yaml.safe_load(text)["training"])


def format_prompt(instruction: Instruction) -> str:
    """The prompt of a row; the response follows it directly."""
    # Not str.format: a row may hold braces.
    name = "with_input" if instruction.input else "without_input"
    head, rest = _templates()[name].split("{instruction}")
    if instruction.input:
        middle, tail = rest.split("{input}")
        rest = middle + instruction.input + tail
    return head + instruction.instruction + rest


def tokenize(
    rows: Sequence[Instruction], tokenizer: PreTrainedTokenizerBase, max_length: int
) -> list[Example]:
    """BOS + tokens of (prompt + output as one text) + EOS, cut after `max_length` tokens.

    As many leading tokens count as prompt as the prompt alone has. LLaMA's tokenizer joins the
    colon that ends the prompt with a first "-" of a response (3.3% of Alpaca); that token then
    counts as prompt, as in the published training. A tokenizer without BOS gives none.

    Raises:
        ModelError: the tokenizer has no EOS, without which no answer would learn to end.
    """
    if tokenizer.eos_token_id is None:
        raise ModelError(
            f"{tokenizer.name_or_path}: the tokenizer has no EOS token; set eos_token in its "
            "tokenizer_config.json"
        )
    bos = () if tokenizer.bos_token_id is None else (tokenizer.bos_token_id,)
    examples = []
    for start in range(0, len(rows), TOKENIZE_ROWS):
        part = rows[start : start + TOKENIZE_ROWS]
        prompts = [format_prompt(row) for row in part]
        texts = [prompt + row.output for prompt, row in zip(prompts, part, strict=True)]
        encoded = zip(_encode(texts, tokenizer), _encode(prompts, tokenizer), strict=True)
        for whole, prompt_ids in encoded:
            token_ids = (*bos, *whole, tokenizer.eos_token_id)[:max_length]
            num_prompt_tokens = min(len(bos) + len(prompt_ids), len(token_ids))
            examples.append(Example(token_ids, num_prompt_tokens))
    without_labels = sum(example.num_labels == 0 for example in examples)
    if without_labels:
        logger.warning(
            "%d of %d examples have a prompt of %d tokens or more: no token of them is in the loss",
            without_labels,
            len(examples),
            max_length,
        )
    return examples


def _encode(texts: list[str], tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    """Plain tokens; a text that spells a special token gets its letters, not the token."""
    encoded = tokenizer(
        texts,
        add_special_tokens=False,
        split_special_tokens=True,
        return_attention_mask=False,
        verbose=False,
    )
    ids: list[list[int]] = encoded["input_ids"]
    return ids


def _first_line(fault: BaseException) -> str:
    lines = str(fault).strip().splitlines()
    return lines[0] if lines else type(fault).__name__


class DataSpec(Spec):
    """The instructions that cells train on, in Stanford Alpaca's form."""

    source: str | None = "tatsu-lab/alpaca"
    """Hub data set."""
    path: str | None = "alpaca/train.parquet"
    """Parquet file under the data root; read instead of the hub where a data root is given."""
    revision: str = "main"
    num_rows: Annotated[int, Field(ge=1, le=10**10)] | None = None
    """Stated size, checked when the data is read; lets `plan` count steps without the data."""
