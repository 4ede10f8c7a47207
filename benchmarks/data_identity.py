"""The pinned content identities of the data sets: prints them, or checks a folder against them.

    python benchmarks/data_identity.py --data-root FOLDER --check
    python benchmarks/data_identity.py --data-root FOLDER --print

`--print` is how `harness/data/pins.yaml` was made, from files whose origin and
checks are told beside them; it pins whatever FOLDER holds, so look at it before it is kept.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from harness.data.pins import content_sha256, pins
from harness.evaluation.benchmarks import BENCHMARKS, Benchmark
from harness.evaluation.data_versions import split_content
from harness.readers.parquet_files import read_columns
from harness.records.files import sha256_of_file

ALPACA = "alpaca/train.parquet"
ALPACA_COLUMNS = ("instruction", "input", "output")
TRUTHFUL_COLUMNS = ("question", "mc1_targets", "mc2_targets")

Split = tuple[str, str, tuple[str, ...], Benchmark | None]
"""File, source, columns, and what reads it; None for the instructions."""


def known_splits() -> list[Split]:
    """Returns the splits to pin: what the benchmarks of the hub read, and Alpaca."""
    found: dict[str, Split] = {}
    for benchmark in BENCHMARKS.values():
        if benchmark.hub is None:
            continue
        repository = " ".join(filter(None, benchmark.hub))
        splits = [benchmark.eval_split, benchmark.few_shot_split]
        named = [(benchmark.files[split], split) for split in splits if split]
        named += [(file, f"{split} (a sample)") for split, file in benchmark.fallbacks.items()]
        for file, split in named:
            wide = file.startswith("truthfulqa_mc/")
            columns = TRUTHFUL_COLUMNS if wide else benchmark.columns
            found.setdefault(file, (file, f"{repository} {split}", columns, benchmark))
    found[ALPACA] = (ALPACA, "tatsu-lab/alpaca", ALPACA_COLUMNS, None)
    return list(found.values())


def identify(root: Path, split: Split) -> tuple[int, str]:
    """Returns the number of rows and the content identity of one split's file."""
    file, _, columns, benchmark = split
    rows = read_columns(root / file, columns).to_pylist()
    if benchmark is None:
        return len(rows), content_sha256([row[name] for name in columns] for row in rows)
    content = split_content(benchmark, columns, rows)
    return content.rows, content.sha256


def print_pins(root: Path) -> None:
    """Prints the YAML of all splits that the folder holds."""
    print("# The version of each data set that numbers are compared on; see data_identity.py.")
    print("# Made by `python benchmarks/data_identity.py --print`.")
    for split in known_splits():
        file, source, columns, _ = split
        if not (root / file).is_file():
            print(f"no {root / file}", file=sys.stderr)
            continue
        num_rows, content = identify(root, split)
        print(f"{file}:")
        print(f"  source: {source}")
        print(f"  columns: [{', '.join(columns)}]")
        print(f"  rows: {num_rows}")
        print(f"  file_sha256: {sha256_of_file(root / file)}")
        print(f"  content_sha256: {content}")


def check_pins(root: Path) -> bool:
    """Prints how each pinned split's file compares, and returns whether all of them agree."""
    agree = True
    for split in known_splits():
        pin = pins().get(split[0])
        if pin is None:
            continue
        if not (root / pin.file).is_file():
            print(f"{pin.file}: not there")
            agree = False
            continue
        start = time.perf_counter()
        num_rows, content = identify(root, split)
        seconds = time.perf_counter() - start
        same = (num_rows, content) == (pin.rows, pin.content_sha256)
        file = "same file" if sha256_of_file(root / pin.file) == pin.file_sha256 else "another file"
        how = f"same content, {file}" if same else f"DIFFERS, {file}"
        print(f"{pin.file}: {num_rows} rows, {content[:12]}: {how} ({seconds:.2f} s)")
        agree = agree and same
    return agree


def main() -> None:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data-root", type=Path, required=True, help="folder of local data")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--check", action="store_true", help="compare the folder with the pins")
    what.add_argument("--print", action="store_true", help="print the pins of the folder")
    arguments = parser.parse_args()
    if arguments.print:
        print_pins(arguments.data_root)
    elif not check_pins(arguments.data_root):
        sys.exit(1)


if __name__ == "__main__":
    main()
