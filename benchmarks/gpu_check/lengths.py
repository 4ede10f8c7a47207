"""Tokens of real rows, for synthetic ones of the same lengths where no data is at hand.

ZBENCH_DATA_ROOT=... python -m benchmarks.gpu_check.lengths     # makes lengths.json again
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path

FILE = Path(__file__).parent / "lengths.json"
ROWS = 512
"""Of each set."""
MAX_LENGTH = 512


@dataclass(frozen=True)
class Lengths:
    """Counted with LLaMA's tokenizer of 32,000 pieces."""

    alpaca: list[tuple[int, int, int]]
    """Of the first rows that a training on all of Alpaca takes with seed 0: tokens of the
    template's part that all rows of the same form share, of the prompt with BOS, of the whole."""
    arc: list[tuple[int, list[int]]]
    """Of ARC-Easy's first items: tokens of the question, and of each answer."""


@cache
def known_lengths() -> Lengths:
    """The lengths that lie beside this file."""
    return Lengths(**json.loads(FILE.read_text(encoding="utf-8")))


def count_lengths(root: Path) -> Lengths:
    """Counts the tokens of real rows."""
    import pandas as pd

    from harness.data.instructions import tokenize
    from harness.models.tokenizer_files import load_tokenizer

    tokenizer = load_tokenizer(root / "llama_tokenizer", 32000)
    examples = tokenize(first_rows(root, ROWS), tokenizer, MAX_LENGTH)
    forms: dict[tuple[int, ...], list[tuple[int, ...]]] = {}
    for example in examples:  # the two forms of the template differ in their first words
        forms.setdefault(example.token_ids[:20], []).append(example.token_ids)
    shared = {form: len(os.path.commonprefix(rows)) for form, rows in forms.items()}  # type: ignore[type-var]
    alpaca = [
        (shared[one.token_ids[:20]], one.num_prompt_tokens, len(one.token_ids)) for one in examples
    ]

    def count(text: str) -> int:
        return len(tokenizer(text, add_special_tokens=False).input_ids)

    items = pd.read_parquet(root / "arc_easy" / "test.parquet").head(ROWS)
    arc = [
        (count(question), [count(text) for text in choices["text"]])
        for question, choices in zip(items["question"], items["choices"], strict=True)
    ]
    return Lengths(alpaca, arc)


def first_rows(root: Path, count: int) -> list[object]:
    """The first rows of Alpaca that a training on all of it takes with seed 0."""
    from harness.data.instructions import epoch_batches
    from harness.data.sets import choose, read_instructions
    from harness.data.spec import DataSpec

    rows = choose(read_instructions(DataSpec(), data_root=root).rows, 1.0, 0)
    return [rows[index] for index in next(epoch_batches(len(rows), count, seed=0, epoch=0))]


def main() -> None:
    """Counts and writes."""
    found = count_lengths(Path(os.environ["ZBENCH_DATA_ROOT"]))
    text = json.dumps(found.__dict__, separators=(",", ":")).replace("]],", "]],\n")
    FILE.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
