"""The embedded world that ships: whole, complete as a data root, copied whole or not at all."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest
import yaml

from harness.demo.world import (
    CHECKPOINT,
    DATA,
    RECORD,
    TASKS,
    VERSION,
    is_complete,
    write_world,
)
from harness.errors import StorageError

SHIPPED = json.loads((DATA / RECORD).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world(tmp_path_factory.mktemp("data") / "world")


def test_the_record_names_every_file_that_ships() -> None:
    assert SHIPPED["version"] == VERSION
    found = {path.relative_to(DATA).as_posix(): path for path in DATA.rglob("*") if path.is_file()}
    del found[RECORD]
    assert {
        name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in found.items()
    } == SHIPPED["sha256"]


def test_what_is_written_is_what_ships(root: Path) -> None:
    for name in (*SHIPPED["sha256"], RECORD):
        assert (root / name).read_bytes() == (DATA / name).read_bytes()


def test_a_world_written_by_another_pyarrow_is_kept(tmp_path: Path) -> None:
    """Results record the hash of what they were trained on: replacing the file would spoil them."""
    root = write_world(tmp_path / "world")
    rows = root / "alpaca" / "train.parquet"
    rows.write_bytes(rows.read_bytes() + b"\0")
    digests = SHIPPED["sha256"] | {
        "alpaca/train.parquet": hashlib.sha256(rows.read_bytes()).hexdigest()
    }
    (root / RECORD).write_text(json.dumps(SHIPPED | {"sha256": digests}))
    kept = rows.read_bytes()
    write_world(root)
    assert rows.read_bytes() == kept


@pytest.mark.parametrize("change", [{"version": VERSION + 1}, {"seed": 0}, {"sha256": {}}])
def test_another_world_is_replaced(change: dict[str, object], tmp_path: Path) -> None:
    root = write_world(tmp_path / "world")
    (root / RECORD).write_text(json.dumps(SHIPPED | change))
    write_world(root)
    assert json.loads((root / RECORD).read_text()) == SHIPPED
    assert [path.name for path in tmp_path.iterdir()] == ["world"]


def test_what_came_to_this_version_later_is_added_and_nothing_else_is_touched(
    tmp_path: Path,
) -> None:
    root = write_world(tmp_path / "world")
    late = [name for name in SHIPPED["sha256"] if name.startswith(("pictures/", "image_encoder/"))]
    assert len(late) == 5
    for name in late:
        (root / name).unlink()
    rows = root / "alpaca" / "train.parquet"
    rows.write_bytes(rows.read_bytes() + b"\0")  # as another version of pyarrow wrote it
    digests = {name: held for name, held in SHIPPED["sha256"].items() if name not in late}
    digests["alpaca/train.parquet"] = hashlib.sha256(rows.read_bytes()).hexdigest()
    (root / RECORD).write_text(json.dumps(SHIPPED | {"sha256": digests}))
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*.parquet")}
    assert not is_complete(root)
    write_world(root)
    assert is_complete(root)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert all((root / name).read_bytes() == (DATA / name).read_bytes() for name in late)
    assert not [path for path in root.iterdir() if path.name.startswith(".")]


def test_several_processes_that_write_it_at_once_all_succeed(tmp_path: Path) -> None:
    code = "import sys, pathlib; from harness.demo.world import write_world as w; "
    code += "w(pathlib.Path(sys.argv[1]))"
    root = tmp_path / "world"
    started = [subprocess.Popen([sys.executable, "-c", code, str(root)]) for _ in range(4)]
    assert [process.wait() for process in started] == [0] * 4
    assert json.loads((root / RECORD).read_text()) == SHIPPED
    assert [path.name for path in tmp_path.iterdir()] == ["world"]


def test_a_second_call_writes_nothing(root: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    assert write_world(root) == root
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before


def test_a_damaged_world_is_made_anew(tmp_path: Path) -> None:
    root = write_world(tmp_path / "world")
    victim = root / "arc_easy" / "test.parquet"
    whole = victim.read_bytes()
    victim.write_bytes(whole[:100])
    write_world(root)
    assert victim.read_bytes() == whole
    assert [path.name for path in tmp_path.iterdir()] == ["world"]


def test_a_foreign_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(StorageError, match="not a demo world"):
        write_world(tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_a_file_in_the_way_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "world").write_text("not a folder")
    with pytest.raises(StorageError, match="cannot write the demo world"):
        write_world(tmp_path / "world")


def test_the_files_have_the_columns_of_the_real_benchmarks(root: Path) -> None:
    from pyarrow import parquet

    columns = {
        "alpaca/train": ["instruction", "input", "output"],
        "arc_easy/test": ["id", "question", "choices", "answerKey"],
        "mmlu/test": ["question", "subject", "choices", "answer"],
        "mmlu/dev": ["question", "subject", "choices", "answer"],
        "truthfulqa_mc/validation": ["question", "mc1_targets", "mc2_targets"],
        "validation/arc_challenge/test": ["id", "question", "choices", "answerKey"],
        "pictures/train": ["instruction", "input", "output", "image"],
    }
    for stem, expected in columns.items():
        assert parquet.read_schema(root / f"{stem}.parquet").names == expected, stem
    assert {"ctx", "endings", "label"} <= set(
        parquet.read_schema(root / "hellaswag" / "validation.parquet").names
    )


def test_the_checkpoint_loads_and_is_small(root: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(root / "model", dtype=torch.float32)
    assert 1_000_000 < model.num_parameters() < 1_300_000
    assert sum(path.stat().st_size for path in CHECKPOINT.iterdir()) <= 3 * 1024**2
    logits = model(input_ids=torch.tensor([[0, 5, 6]])).logits
    assert torch.isfinite(logits).all()


def test_every_task_file_asks_in_the_template_and_holds_no_address() -> None:
    from lm_eval.tasks._yaml_loader import load_yaml

    question = {"mmlu": "{{question.strip()}}"}
    published = (files("harness") / "data" / "prompts.yaml").read_text(encoding="utf-8")
    template = yaml.safe_load(published)["training"]["without_input"]
    paths = sorted(TASKS.glob("*.yaml"))
    assert len(paths) == 5 + 6 + 3  # MMLU's subjects, and pictures with two controls
    for file in paths:
        config = load_yaml(file)
        assert config["task"] == file.stem
        assert not {"dataset_path", "dataset_kwargs", "custom_dataset"} & set(config)
        assert config["output_type"] == "multiple_choice"
        assert config["metadata"]["version"]
        if file.stem == "demo_hellaswag":  # raw text, as lm-eval's own
            continue
        asked = question.get(file.stem.split("_")[1], "{{question}}")
        assert config["doc_to_text"] == template.format(instruction=asked)
        assert config["target_delimiter"] == ""


def test_planning_imports_no_torch() -> None:
    code = "import sys, harness.demo.world as w; "
    code += "print({'torch', 'transformers', 'pandas'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
