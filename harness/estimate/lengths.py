"""The lengths of training rows in tokens: counted once per data file and tokenizer, and kept."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.data.instructions import Instruction, read_instructions, tokenize
from harness.errors import StorageError
from harness.records.files import sha256_of_file, write_text

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from harness.data.instructions import DataSpec

UNCUT = 1 << 30
"""A maximal length that no row has."""
FOLDER = "estimates"
"""Under the runs folder: what was counted and probed."""


@dataclass(frozen=True)
class RowLengths:
    """Tokens of each row of an instruction set, uncut, in the order of the data."""

    whole: tuple[int, ...]
    """BOS, prompt, response, EOS."""
    prompt: tuple[int, ...]
    """Of these, the leading tokens that are not learned."""
    opening: tuple[int, ...]
    """Of these, the leading tokens that all rows of the same form of the template begin with."""


def row_lengths(rows: Sequence[Instruction], tokenizer: PreTrainedTokenizerBase) -> RowLengths:
    """Returns the lengths of rows under a tokenizer.

    Raises:
        ModelError: the tokenizer has no EOS.
    """
    examples = tokenize(rows, tokenizer, UNCUT)
    openings: dict[bool, int] = {}
    for with_input in (False, True):
        first: tuple[int, ...] | None = None
        shared = 0
        for row, example in zip(rows, examples, strict=True):
            if bool(row.input) != with_input:
                continue
            prompt = example.token_ids[: example.num_prompt_tokens]
            if first is None:
                first, shared = prompt, len(prompt)
            while prompt[:shared] != first[:shared]:
                shared -= 1
        openings[with_input] = shared
    return RowLengths(
        whole=tuple(len(example.token_ids) for example in examples),
        prompt=tuple(example.num_prompt_tokens for example in examples),
        opening=tuple(openings[bool(row.input)] for row in rows),
    )


def local_lengths(
    data: DataSpec, tokenizer_folder: Path, *, data_root: Path | None, runs_dir: Path
) -> RowLengths:
    """Returns the lengths of local data under a local tokenizer, counted the first time only.

    Raises:
        DataError: the data cannot be read.
        ModelError: the tokenizer cannot be read.
    """
    assert data.path is not None
    path = Path(data.path) if data_root is None else data_root / data.path
    known = [sha256_of_file(path), sha256_of_file(tokenizer_folder / "tokenizer.json")]
    config = tokenizer_folder / "tokenizer_config.json"  # whether there is a BOS
    known.append(sha256_of_file(config) if config.is_file() else "")
    key = hashlib.sha256(" ".join(known).encode()).hexdigest()[:16]
    kept = runs_dir / FOLDER / f"lengths-{key}.json"
    found = _read_kept(kept)
    if found is not None:
        return found
    from transformers import PreTrainedTokenizerFast

    from harness.errors import ModelError, one_line

    rows = read_instructions(data, data_root=data_root).rows
    try:
        tokenizer = PreTrainedTokenizerFast.from_pretrained(tokenizer_folder, local_files_only=True)
    except Exception as fault:  # the tokenizers library raises bare Exception
        raise ModelError(
            f"{tokenizer_folder / 'tokenizer.json'}: cannot be read ({one_line(fault)}); copy it "
            "again"
        ) from fault
    found = row_lengths(rows, tokenizer)
    with contextlib.suppress(StorageError):  # then it is counted again the next time
        write_text(kept, json.dumps(asdict(found)) + "\n")
    return found


def _read_kept(path: Path) -> RowLengths | None:
    try:
        raw: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return RowLengths(**{name: tuple(map(int, values)) for name, values in raw.items()})
    except (OSError, ValueError, TypeError, AttributeError):
        return None
