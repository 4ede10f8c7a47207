"""Makes the files of the embedded world: `python -m scripts.make_demo_world --output FOLDER`.

Seconds on one core. The rows follow from the seed alone; the bytes of the parquet files depend on
pyarrow's version too, those of pictures on Pillow's. `harness/demo/data` was made by this script,
its `model/` by `scripts.pretrain_demo` and its `image_encoder/` by `scripts.pretrain_demo_clip`;
with changed rows, raise `harness.demo.world.VERSION` and pretrain again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

from harness.demo.world import CHECKPOINT, IMAGE_ENCODER, RECORD, VERSION
from scripts.demo_world.instructions import build_instructions
from scripts.demo_world.items import build_items
from scripts.demo_world.people import World, build_world
from scripts.demo_world.picture_questions import build_picture_rows


def build_tables(world: World) -> dict[str, list[dict[str, Any]]]:
    """Returns file stem relative to the data root -> rows, for every parquet of the world."""
    tables = {"alpaca/train": build_instructions(world), **build_items(world, "benchmark")}
    held_out = build_items(world, "validation")
    tables |= {f"validation/{stem}": rows for stem, rows in held_out.items()}
    return tables | build_picture_rows(world)


def make_world(
    root: Path, *, checkpoint: Path = CHECKPOINT, image_encoder: Path = IMAGE_ENCODER
) -> None:
    """Writes every file of the world into a new or empty folder, the record last."""
    import pyarrow
    from pyarrow import parquet

    world = build_world()
    for stem, rows in build_tables(world).items():
        path = root / f"{stem}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        parquet.write_table(pyarrow.Table.from_pylist(rows), path, compression="zstd")
    shutil.copytree(checkpoint, root / "model")
    shutil.copytree(image_encoder, root / "image_encoder")
    files = sorted(path for path in root.rglob("*") if path.is_file())
    digests = {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }
    record = {"seed": world.seed, "version": VERSION, "sha256": digests}
    (root / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(prog="python -m scripts.make_demo_world", description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="new folder for the files")
    parser.add_argument(
        "--checkpoint", type=Path, default=CHECKPOINT, help="folder of the model (default: shipped)"
    )
    parser.add_argument(
        "--image-encoder", type=Path, default=IMAGE_ENCODER, help="its folder (default: shipped)"
    )
    arguments = parser.parse_args()
    make_world(
        arguments.output,
        checkpoint=arguments.checkpoint,
        image_encoder=arguments.image_encoder,
    )


if __name__ == "__main__":
    main()
