"""`zbench init`: what it writes passes `plan` at once, and no file is ever overwritten."""

from __future__ import annotations

import json
import os
import pty
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from harness.demo.world import DATA
from harness.errors import DataError, GridError, UsageError, ZbenchError
from harness.grid.loader import load_grid
from harness.models.shape import ModelShape
from harness.prepare.first_grid import (
    FirstGrid,
    check_new,
    choose_data,
    choose_model,
    default_methods,
    write_first_grid,
)
from harness.prepare.schema import schema_text
from tests.fixtures.picture_files import PNG
from tests.prepare.test_schema import GRID, faults
from tests.test_cli import fault_of, zbench


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Returns a folder with a checkpoint and files of rows of several forms."""
    shutil.copytree(DATA / "model", tmp_path / "models" / "tiny llama")
    user, assistant = ({"role": role, "content": "a"} for role in ("user", "assistant"))
    rows: dict[str, list[dict[str, object]]] = {
        "alpaca.jsonl": [{"instruction": f"{n}?", "output": "yes"} for n in range(40)],
        "questions.jsonl": [{"question": f"{n}?", "answer": "yes"} for n in range(40)],
        "texts.jsonl": [{"text": f"{n} is a number."} for n in range(40)],
        "pairs.jsonl": [{"chosen": "a", "rejected": "b"}],
        "chats.jsonl": [{"messages": [user, assistant]}] * 40,
    }
    for name, content in rows.items():
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in content))
    return tmp_path


def answers(folder: Path, model: str, data: str, **others: list[str]) -> FirstGrid:
    chosen = choose_model(model, folder)
    names = {"methods": default_methods(chosen.shape), "benchmarks": ["arc_easy"]} | others
    return FirstGrid(model=chosen, data=choose_data(data, folder), **names)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("model", "data", "model_name"),
    [
        ("models/tiny llama", "texts.jsonl", "tiny-llama"),
        ("llama-7b", "questions.jsonl", "llama-7b"),
        ("huggyllama/llama-7b", "databricks/databricks-dolly-15k", "llama-7b"),
        ("llama-3.2-3b", "tatsu-lab/alpaca", "llama-3.2-3b"),
    ],
)
def test_what_it_writes_is_a_grid_and_fits_the_schema(
    folder: Path, monkeypatch: pytest.MonkeyPatch, model: str, data: str, model_name: str
) -> None:
    monkeypatch.chdir(folder)
    written = write_first_grid(Path("first.yaml"), answers(folder, model, data))
    text = Path("first.yaml").read_text(encoding="utf-8")
    assert faults(GRID, text) == []
    grid = load_grid("first.yaml")
    assert list(grid.models) == [model_name]
    assert [choice.label for choice in grid.choices] == ["base", "lora", "zero-init-nonlinear"]
    assert written == [Path("first.yaml"), Path("grid.schema.json")]
    assert Path("grid.schema.json").read_text(encoding="utf-8") == schema_text("grid")


def test_the_shape_of_a_checkpoint_and_the_form_of_rows_are_found(folder: Path) -> None:
    model = choose_model(str(folder / "models" / "tiny llama"), folder)
    assert model.shape.num_hidden_layers == 5
    assert model.place == {"path": "models/tiny llama"}
    chats = choose_data(str(folder / "chats.jsonl"), folder)
    assert chats.entry == {"path": "chats.jsonl"}
    assert chats.found == "40 rows of the form messages"
    questions = choose_data(str(folder / "questions.jsonl"), folder)
    assert questions.entry["columns"] == {"instruction": "question", "output": "answer"}
    elsewhere = choose_data(str(folder / "alpaca.jsonl"), folder / "models")
    assert elsewhere.entry == {"path": str(folder / "alpaca.jsonl")}


def test_methods_to_begin_with_are_those_that_the_model_can_have() -> None:
    sizes = {"hidden_size": 64, "intermediate_size": 64, "num_attention_heads": 4, "vocab_size": 9}
    shape = ModelShape(num_hidden_layers=2, **sizes)
    assert default_methods(shape) == ("lora",)


@pytest.mark.parametrize(
    ("model", "data", "error", "said"),
    [
        ("llama-7c", "alpaca.jsonl", UsageError, "did you mean 'llama-7b'"),
        ("models", "alpaca.jsonl", ZbenchError, "holds no checkpoint but folders of some: tiny"),
        ("llama-7b", "alpaka.jsonl", UsageError, "no such file or folder"),
        ("llama-7b", "pairs.jsonl", DataError, "holds preferences"),
    ],
)
def test_an_answer_that_means_nothing_is_told(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    model: str,
    data: str,
    error: type[Exception],
    said: str,
) -> None:
    monkeypatch.chdir(folder)
    with pytest.raises(error, match=said):
        answers(folder, model, data)


def test_faults_of_the_grid_are_told_before_anything_is_written(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    wrong = answers(folder, "llama-7b", "alpaca.jsonl", methods=["lroa"], benchmarks=["arc_esy"])
    before = sorted(folder.rglob("*"))
    with pytest.raises(GridError, match=r"(?s)arc_esy.*lroa"):
        write_first_grid(Path("first.yaml"), wrong)
    assert sorted(folder.rglob("*")) == before


def test_no_file_is_overwritten(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    (folder / "grid.schema.json").write_text("mine")
    (folder / "first.yaml").write_text("mine too")
    given = answers(folder, "llama-7b", "alpaca.jsonl")
    with pytest.raises(UsageError, match="is not overwritten"):
        write_first_grid(Path("first.yaml"), given)
    assert write_first_grid(Path("second.yaml"), given) == [Path("second.yaml")]
    assert (folder / "grid.schema.json").read_text() == "mine"
    assert (folder / "first.yaml").read_text() == "mine too"


def test_a_folder_is_no_name_of_a_grid_file() -> None:
    with pytest.raises(UsageError, match=r"name it grid\.yaml"):
        check_new(Path())


def test_with_flags_alone_it_asks_nothing_and_plan_accepts_it(folder: Path) -> None:
    missing = fault_of(zbench("init", cwd=folder))
    assert "--model is missing" in missing
    flags = ["--model", "models/tiny llama", "--data", "alpaca.jsonl", "--benchmarks", "arc_easy"]
    more = ["--methods", "lora,dora", "--fractions", "0.5,1", "--seeds", "0,1"]
    done = zbench("init", *flags, *more, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "40 rows of the form instruction" in done.stdout
    planned = zbench("plan", "grid.yaml", "--json", cwd=folder)
    assert planned.returncode == 0, planned.stderr
    labels = [cell["label"] for cell in json.loads(planned.stdout)["cells"]]
    assert len(labels) == 1 + 2 * 2 * 2
    assert "tiny-llama/dora/50%/seed1" in labels


def test_on_a_terminal_it_asks_and_asks_again(folder: Path) -> None:
    ours, theirs = pty.openpty()
    root = str(Path(__file__).parent.parent.parent)
    process = subprocess.Popen(
        [sys.executable, "-m", "harness.cli", "init", "mine.yaml", "--seeds", "0"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": root},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    os.write(ours, b"llama-7c\nllama-7b\nquestions.jsonl\nlroa\nlora\narc_esay\n\n3\n\n")
    shown = b""
    while True:
        try:
            part = os.read(ours, 4096)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        shown += part
    os.close(ours)
    assert process.wait(60) == 0, shown
    assert b"did you mean 'llama-7b'" in shown
    for told in (b"did you mean 'lora'", b"did you mean 'arc_easy'", b"at most 1.0 (got 3.0)"):
        assert told in shown
    assert b"if question and answer are the columns that are meant" in shown
    assert [choice.label for choice in load_grid(folder / "mine.yaml").choices] == ["base", "lora"]


def test_pictures_of_rows_are_told(tmp_path: Path) -> None:
    row = {"instruction": "What is it?", "output": "A dog."}
    lines = [json.dumps(row | extra) for extra in ({"image": PNG}, {})]
    (tmp_path / "pets.jsonl").write_text("\n".join(lines))
    assert choose_data(str(tmp_path / "pets.jsonl"), tmp_path).found == (
        "2 rows of the form instruction, 1 with a picture (for methods with an `image_encoder`)"
    )
    named = {"question": "What is it?", "answer": "A dog.", "image": PNG}
    (tmp_path / "named.jsonl").write_text(json.dumps(named))
    chosen = choose_data(str(tmp_path / "named.jsonl"), tmp_path)
    columns = {"instruction": "question", "output": "answer", "image": "image"}
    assert chosen.entry["columns"] == columns
    assert "1 with a picture" in chosen.found
