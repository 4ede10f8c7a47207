"""Tokens of each row of an instruction set, counted once per data file and tokenizer and kept."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cache, partial
from os.path import commonprefix
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import TypeAdapter

from harness.data.instructions import Holes, cut_note, drop_note, lost_note, tokenize
from harness.data.places import data_files, is_here, sha256_of_data
from harness.data.rows import Row
from harness.data.sets import (
    count_rows,
    read_chosen,
    read_instructions,
)
from harness.data.spec import DataSpec
from harness.data.validation import training_rows
from harness.errors import StorageError
from harness.grid.schema import Cell, is_own_file
from harness.models.checkpoint import local_folder
from harness.models.plain_tokenizer import CHAT_TEMPLATE, PlainTokenizer
from harness.records.files import cache_folder, sha256_of_file, write_text

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Source = Literal["counted", "known", "estimated"]
"""From these very rows; from constants of this data and tokenizer; from characters or another
tokenizer's constants."""

FOLDER = "estimates"
"""Under the runs folder: what was counted and probed."""
COUNTED_ROWS = 250_000
"""Of a larger set so many rows, drawn at random, are counted."""
PLANNED_ROWS = 20_000
"""Of one's own file: so many are counted by a command that only plans."""
UNCUT = 1 << 30
"""A maximal length that no row has."""


@dataclass(frozen=True)
class RowLengths:
    """Tokens of each row of an instruction set, uncut, in the order of the data."""

    whole: tuple[int, ...]
    """BOS, prompt, response, EOS."""
    prompt: tuple[int, ...]
    """Number of leading tokens of each row that are not in the loss."""
    shared_prefix: tuple[int, ...]
    """Number of leading tokens that all rows of the same form of the template share."""
    holes: tuple[Holes, ...] = ()
    """Later tokens of each row that are not in the loss; empty where no row has any."""


@dataclass(frozen=True)
class TrainingTokens:
    """One pass over the rows of a cell."""

    rows: int
    tokens: int
    """Real tokens, cut to the maximal length, padding not counted."""
    labels: int
    """Tokens in the loss, which need logits."""
    shared_prefix: int
    """Tokens of the template's shared prefixes, which can be computed once."""
    squares: int
    """Sum of the squared lengths: what causal attention sees is half of it."""
    source: Source = "counted"
    lost: int = 0
    """Rows whose prompt fills the maximal length: nothing of them is learned; 0 where that is not
    counted."""
    cut: int = 0
    """Rows whose end lies behind the maximal length; 0 where that is not counted."""

    def note(self, data: DataSpec) -> str | None:
        """What a reader must know of rows that are not trained on, or not whole."""
        cut = cut_note(self.cut, self.rows)
        if data.on_bad_rows == "drop":
            cut = drop_note(self.cut, self.rows)
        elif data.on_bad_rows == "fail" and (refused := self.lost + self.cut):
            return f"{refused:,} of {self.rows:,} rows are cut, which `on_bad_rows: fail` refuses"
        return "; ".join(filter(None, (lost_note(self.lost, self.rows), cut))) or None


def kept_lengths(
    data: DataSpec,
    tokenizer_folder: Path,
    data_root: Path | None,
    runs_dir: Path,
    *,
    read_only: bool = False,
) -> RowLengths:
    """Counts local data under a local tokenizer, the first time only.

    What was counted is kept in the runs folder, or in the user's cache where that is `read_only`.

    Raises:
        DataError: the data cannot be read.
        ModelError: the tokenizer cannot be read.
    """
    kept = _lengths_file(data, tokenizer_folder, data_root, runs_dir)
    if read_only and not kept.is_file():
        with contextlib.suppress(RuntimeError):  # a user without a home keeps nothing
            kept = cache_folder() / kept.name
    if (found := _read_lengths(kept)) is not None:
        return found
    size = count_rows(data, data_root) or 0
    if size > COUNTED_ROWS:
        rows = read_chosen(data, COUNTED_ROWS / size, 0, data_root).rows
    else:
        rows = read_instructions(data, data_root=data_root).rows
    tokenizer: Any = PlainTokenizer(tokenizer_folder)
    found = row_lengths(rows, tokenizer, data)
    if read_only and kept.is_relative_to(runs_dir):
        return found
    with contextlib.suppress(StorageError):  # then it is counted again the next time
        write_text(kept, json.dumps(asdict(found)) + "\n")
    return found


def _lengths_file(
    data: DataSpec, tokenizer_folder: Path, data_root: Path | None, runs_dir: Path
) -> Path:
    """Where the lengths of these very rows under this very tokenizer are kept."""
    # The configuration says whether there is a BOS.
    files = (tokenizer_folder / name for name in ("tokenizer.json", "tokenizer_config.json"))
    chat = tokenizer_folder / CHAT_TEMPLATE
    hashes = [sha256_of_data(data_files(data, data_root))]
    hashes += [sha256_of_file(file) if file.is_file() else "" for file in files]
    hashes += [sha256_of_file(chat)] if chat.is_file() else []
    stated = (data.row_settings, data.text_settings)
    read = " ".join([*hashes, *(json.dumps(settings) for settings in stated if settings)])
    key = hashlib.sha256(read.encode()).hexdigest()[:16]
    return runs_dir / FOLDER / f"lengths-{key}.json"


def _read_lengths(kept: Path) -> RowLengths | None:
    with contextlib.suppress(OSError, ValueError):
        return TypeAdapter(RowLengths).validate_json(kept.read_bytes())
    return None


def known_losses(runs_dir: Path, data_root: Path | None) -> Callable[[Cell], str | None]:
    """A function that says how many examples of a cell are lost or cut.

    Of files of one's own of up to PLANNED_ROWS rows it is counted, of others where it was before.
    """
    read = cache(_read_lengths)
    count = cache(partial(kept_lengths, data_root=data_root, runs_dir=runs_dir))
    order_of = cache(training_rows)

    def note(cell: Cell) -> str | None:
        model = local_folder(cell.model, data_root)
        if cell.train is None or cell.fraction is None or model is None:
            return None
        if not is_here(cell.data, data_root):
            return None
        size = (count_rows(cell.data, data_root) or 0) if is_own_file(cell.data, cell.world) else 0
        if 0 < size <= PLANNED_ROWS and (model / "tokenizer.json").is_file():
            lengths: RowLengths | None = count(cell.data, model)
        else:
            lengths = read(_lengths_file(cell.data, model, data_root, runs_dir))
        if lengths is None or len(lengths.whole) >= COUNTED_ROWS:
            return None
        total = len(lengths.whole)
        order = order_of(cell.data, total, cell.fraction, cell.seed_of("subset"))
        return training_tokens(lengths, order, cell.train.max_length, cell.data).note(cell.data)

    return note


def row_lengths(
    rows: Sequence[Row], tokenizer: PreTrainedTokenizerBase, data: DataSpec | None = None
) -> RowLengths:
    """Tokenises rows, in the template of their data.

    Raises:
        ModelError: the tokenizer has no EOS, or no chat template.
        DataError: a row cannot be put into the template.
    """
    data = data or DataSpec()
    examples = tokenize(
        rows, tokenizer, UNCUT, template=data.template, system=data.system,
        all_in_loss=data.all_in_loss,
    )  # fmt: skip
    forms = [bool(getattr(row, "input", "")) for row in rows]
    prompts: dict[bool, list[tuple[int, ...]]] = {True: [], False: []}
    for form, example in zip(forms, examples, strict=True):
        prompts[form].append(example.token_ids[: example.num_prompt_tokens])
    shared = {form: len(commonprefix(alike)) for form, alike in prompts.items()}
    return RowLengths(
        whole=tuple(len(example.token_ids) for example in examples),
        prompt=tuple(example.num_prompt_tokens for example in examples),
        shared_prefix=tuple(shared[form] for form in forms),
        holes=tuple(one.holes for one in examples) if any(one.holes for one in examples) else (),
    )


def training_tokens(
    lengths: RowLengths, rows: Iterable[int], max_length: int, data: DataSpec | None = None
) -> TrainingTokens:
    """Sums chosen rows up, cut to a maximal length, or without those that their data drops."""
    drops = data is not None and data.on_bad_rows == "drop"
    count = tokens = labels = shared = squares = lost = cut = 0
    for row in rows:
        size = min(lengths.whole[row], max_length)
        count += 1
        if drops and lengths.whole[row] > max_length:
            cut += 1
            continue
        own = size - min(lengths.prompt[row], size)
        for start, end in lengths.holes[row] if lengths.holes else ():
            own -= max(0, min(end, size) - start)
            size = start if start < size <= end else size  # a row ends with a label
        labels += own
        tokens += size
        lost += own == 0
        cut += own > 0 and lengths.whole[row] > max_length
        shared += min(lengths.shared_prefix[row], size)
        squares += size * size
    return TrainingTokens(count, tokens, labels, shared, squares, lost=lost, cut=cut)
