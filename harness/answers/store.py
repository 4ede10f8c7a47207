"""Where answers are kept: per cell in its folder, and as AlpacaEval's `model_outputs.json`.

A cell has one parquet file per set of instructions and settings of generation. What it was made
with stands in the file's own metadata, so that rows and origin are written together or not at all.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from harness.errors import StorageError, one_line
from harness.evaluation.benchmark import Decoding
from harness.grid.folders import RESPONSES_FOLDER
from harness.readers.files import Unreadable
from harness.readers.records import open_records
from harness.records.files import sha256_of_json, write_bytes, write_text

if TYPE_CHECKING:
    import pandas as pd

OUTPUTS_FILE = "model_outputs.json"
"""AlpacaEval's name of a file of answers."""
ALL_RESPONSES_FILE = "responses.parquet"
"""The answers of all cells to a set, with the cell of each."""
COLUMNS = (
    "id", "category", "instruction", "input", "output", "num_tokens", "stop_reason", "dataset"
)  # fmt: skip
"""Of a cell's answers. `num_tokens` counts those of `output`, without the one that ended it."""
StopReason = Literal["eos", "length"]
"""The model ended the answer itself, or it was cut at the largest number of tokens."""
GREEDY = Decoding(temperature=0.0, top_p=1.0, max_new_tokens=512, seed=0)
"""How answers are generated where nothing else is asked for."""
ORIGIN = b"zbench"
"""Key of the file's metadata that holds what its answers were made with, as JSON."""
MAKE_AGAIN = "zbench generate makes it again"


@dataclass(frozen=True)
class Entry:
    """An instruction to answer."""

    id: str
    instruction: str
    input: str = ""
    category: str = ""
    dataset: str = ""

    @property
    def text(self) -> str:
        """Instruction and input as one text: what AlpacaEval calls the instruction."""
        return f"{self.instruction}\n\n{self.input}" if self.input else self.instruction


@dataclass(frozen=True)
class InstructionSet:
    """Instructions with a name of their own."""

    name: str
    """Part of file names."""
    sha256: str
    """Of the entries."""
    entries: tuple[Entry, ...]
    note: str = ""
    """What a reader must know of it, such as that it is no test set."""

    @classmethod
    def of(cls, name: str, entries: Sequence[Entry], note: str = "") -> InstructionSet:
        """A set that is known by the content of its entries."""
        content = [list(asdict(entry).values()) for entry in entries]
        return cls(name, sha256_of_json(content), tuple(entries), note)


@dataclass(frozen=True)
class Output:
    """An answer as AlpacaEval's `model_outputs.json` has it."""

    instruction: str
    """With its input, if it has one."""
    output: str
    generator: str
    """Who answered."""
    dataset: str = ""


def set_key(instructions: InstructionSet, decoding: Decoding = GREEDY) -> str:
    """What a set's answers are filed under, such as `vicuna-1f2e3d4c-t0.7-s1`.

    Settings stand in it where they are not the default's and change the answer: without sampling
    neither top-p nor seed does.
    """
    parts = [instructions.name, instructions.sha256[:8]]
    if decoding.temperature > 0:
        parts.append(f"t{decoding.temperature:g}")
        parts += [f"p{decoding.top_p:g}"] * (decoding.top_p != GREEDY.top_p)
        parts += [f"s{decoding.seed}"] * (decoding.seed != GREEDY.seed)
    parts += [f"n{decoding.max_new_tokens}"] * (decoding.max_new_tokens != GREEDY.max_new_tokens)
    return "-".join(parts)


def effective(decoding: Decoding) -> Decoding:
    """Settings without what changes nothing: where nothing is drawn, top-p and the seed."""
    if decoding.temperature > 0:
        return decoding
    return replace(decoding, top_p=GREEDY.top_p, seed=GREEDY.seed)


def set_folder(
    reports_dir: Path,
    grid_name: str,
    instructions: InstructionSet,
    decoding: Decoding = GREEDY,
) -> Path:
    """The folder of the page and files of a grid's answers to a set."""
    return reports_dir / grid_name / "answers" / set_key(instructions, decoding)


def responses_path(cell_folder: Path, key: str) -> Path:
    """The file of a cell's answers, by the key of their set."""
    return cell_folder / RESPONSES_FOLDER / f"{key}.parquet"


def write_responses(
    cell_folder: Path, key: str, frame: pd.DataFrame, origin: Mapping[str, Any]
) -> None:
    """Writes a cell's answers, whole or not at all.

    Args:
        cell_folder: the cell's.
        key: of the set and the settings.
        frame: the columns of COLUMNS, one row per entry, in the set's order.
        origin: what they were made with: plain values.

    Raises:
        StorageError: the file cannot be written.
    """
    import pyarrow
    from pyarrow.parquet import write_table

    table = pyarrow.Table.from_pandas(frame[list(COLUMNS)], preserve_index=False)
    said = {ORIGIN: json.dumps(origin, sort_keys=True).encode()}
    buffer = io.BytesIO()
    write_table(
        table.replace_schema_metadata({**(table.schema.metadata or {}), **said}),
        buffer,
        compression="zstd",
    )
    write_bytes(responses_path(cell_folder, key), buffer.getvalue())


def read_responses(cell_folder: Path, key: str) -> pd.DataFrame | None:
    """A cell's answers, with the columns of COLUMNS; None where it has none to the set.

    Raises:
        StorageError: the file is damaged, or cannot be read.
    """
    import pandas as pd

    path = responses_path(cell_folder, key)
    if not path.exists():
        return None
    try:
        frame = pd.read_parquet(path)
        missing = [name for name in COLUMNS if name not in frame]
        if missing:
            raise ValueError(f"lacks the column {missing[0]}")
    except Exception as fault:  # bytes that are no parquet make pyarrow raise errors of any kind
        raise StorageError(f"{path}: cannot be read ({one_line(fault)}); {MAKE_AGAIN}") from fault
    return frame


def read_origin(cell_folder: Path, key: str) -> dict[str, Any] | None:
    """What a cell's answers were made with; None where there are none, or it does not say.

    Keys: as docs/results.md lists them.

    Raises:
        StorageError: the file is damaged, or cannot be read.
    """
    from pyarrow.parquet import read_schema

    path = responses_path(cell_folder, key)
    if not path.exists():
        return None
    try:
        said = (read_schema(path).metadata or {}).get(ORIGIN)
        found = json.loads(said) if said is not None else None
    except Exception as fault:  # as above
        raise StorageError(f"{path}: cannot be read ({one_line(fault)}); {MAKE_AGAIN}") from fault
    return found if isinstance(found, dict) else None


def write_outputs(path: Path, outputs: Sequence[Output]) -> None:
    """Writes answers in AlpacaEval's format, whole or not at all.

    Raises:
        StorageError: the file cannot be written.
    """
    records = [asdict(output) for output in outputs]
    write_text(path, json.dumps(records, indent=1, ensure_ascii=False) + "\n")


def outputs_of(frame: pd.DataFrame, generator: str) -> list[Output]:
    """A cell's answers in AlpacaEval's form; `generator` is the name that they go by."""
    rows = frame[["id", "instruction", "input", "output", "dataset"]].itertuples(index=False)
    return [
        Output(Entry(row.id, row.instruction, row.input).text, row.output, generator, row.dataset)
        for row in rows
    ]


def is_unicode(text: str) -> bool:
    """Whether a text can be written: JSON may name half of a character that has two parts."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def read_outputs(path: Path) -> list[Output]:
    """Answers in AlpacaEval's format, or JSON Lines or a table with its columns.

    `generator` is the file's name where it says none.

    Raises:
        Unreadable: it cannot be read, a row has no instruction or output, or an instruction is
            answered twice and not alike.
    """
    found: dict[str, tuple[int, Output]] = {}
    outputs = []
    columns = ("instruction", "output", "generator", "dataset")
    with open_records(path, columns) as records:
        names = columns if records.types is None else [n for n in columns if n in records.types]
        for number, record in enumerate(records.read(names)):
            texts = {name: record.get(name) for name in columns}
            for name in ("instruction", "output"):
                if not isinstance(texts[name], str):
                    raise Unreadable(path, "content", f"row {number} has no text in `{name}`")
            said = {name: str(texts[name] or "") for name in columns}
            for name in (name for name in columns if not is_unicode(said[name])):
                raise Unreadable(path, "content", f"row {number}: `{name}` holds half a character")
            output = Output(**said | {"generator": said["generator"] or path.stem})
            first = found.setdefault(output.instruction, (number, output))
            if first[1].output != output.output:
                raise Unreadable(
                    path,
                    "content",
                    f"rows {first[0]} and {number} answer one instruction in two ways",
                    "leave one of them",
                )
            outputs.append(output)
    if not outputs:
        raise Unreadable(path, "empty", "has no rows")
    return outputs
