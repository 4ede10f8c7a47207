"""`zbench preview`: what a model is given, by the functions that training and scoring use."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
import yaml

from harness.commands.preview import CLOSE, COLOUR, OPEN, PLAIN, marked_text, preview_command
from harness.data.instructions import label_runs, tokenize
from harness.data.shown import examples_sha256, pieces_of
from harness.data.spec import DataSpec
from harness.data.templates import format_prompt
from harness.data.validation import read_training
from harness.demo.world import DATA
from harness.grid.workspace import OpenGrid, open_grid
from harness.models.tokenizer_files import load_tokenizer
from harness.records.prompts import Prompt, agreement, shortened_prompt
from tests.fixtures.chat_models import write_chat_models
from tests.fixtures.picture_files import PNG, drawn
from tests.integration.test_end_to_end import grid_text


@pytest.fixture
def grid(tmp_path: Path) -> OpenGrid:
    (tmp_path / "g.yaml").write_text(grid_text())
    return open_grid(str(tmp_path / "g.yaml"), tmp_path / "runs", None, None)


def shown(grid: OpenGrid, capsys: pytest.CaptureFixture[str], cell: str | None = None) -> dict:
    assert preview_command(grid, cell, as_json=True) == 0
    return json.loads(capsys.readouterr().out)


def test_rows_are_those_that_the_cell_trains_on(
    grid: OpenGrid, capsys: pytest.CaptureFixture[str]
) -> None:
    (cell,) = shown(grid, capsys)["cells"]
    assert cell["cell"] == "tiny-llama/zero-init-linear/10%/seed0"  # the first that is trained
    rows = read_training(grid.cells[1].data, 0.1, 0, DATA).rows[:3]
    for row, found in zip(rows, cell["training"], strict=True):
        assert found["pieces"] == [
            {"text": f"<s>{format_prompt(row)}", "marked": False},
            {"text": f"{row.output}</s>", "marked": True},
        ]
    assert not (grid.runs_dir).exists()  # nothing is written


def test_an_item_shows_every_request_with_what_is_scored(
    grid: OpenGrid, capsys: pytest.CaptureFixture[str]
) -> None:
    (cell,) = shown(grid, capsys, "tiny-llama/base")["cells"]
    assert cell["training"] == []
    arc = cell["benchmarks"][0]
    item = pd.read_parquet(DATA / "arc_easy/test.parquet").iloc[0]
    assert [one["pieces"][-1]["text"] for one in arc["requests"]] == list(item["choices"]["text"])
    assert all(one["pieces"][-1]["marked"] for one in arc["requests"])
    assert item["question"] in arc["requests"][0]["pieces"][0]["text"]
    assert arc["agreement"] is None


def test_the_page_says_whether_the_templates_agree(
    grid: OpenGrid, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    assert preview_command(grid, None, as_json=False) == 0
    out = capsys.readouterr().out
    assert "Training rows and the prompts of demo_arc_easy are in the same template" in out
    assert f"### Response:{OPEN}" in out
    assert f"</s>{CLOSE}" in out
    assert "\x1b" not in out
    assert agreement("alpaca", "none", "arc").endswith("in one form is asked in another.")


def test_nothing_in_a_row_steers_the_terminal() -> None:
    prompt = Prompt("none", (("a\x1b[31m\nb", False), ("\u202ec\ud800", True)))
    assert marked_text(prompt, colour=False) == f"a\\x1b[31m\nb{OPEN}\\u202ec\\ud800{CLOSE}"
    coloured = marked_text(prompt, colour=True)
    assert coloured.count("\x1b") == 2
    assert coloured.endswith(f"{COLOUR}\\u202ec\\ud800{PLAIN}")


def test_a_benchmark_that_cannot_be_read_hides_no_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = yaml.safe_load(grid_text())
    raw["tasks"].append("arc_easy")
    (tmp_path / "g.yaml").write_text(yaml.safe_dump(raw))
    root = tmp_path / "root"
    root.mkdir()
    for folder in ("model", "alpaca", "mmlu"):
        (root / folder).symlink_to(DATA / folder)
    opened = open_grid(str(tmp_path / "g.yaml"), tmp_path / "runs", root, None)
    assert preview_command(opened, None, as_json=True) == 1
    (cell,) = json.loads(capsys.readouterr().out)["cells"]
    errors = {one["name"]: one["error"] for one in cell["benchmarks"]}
    assert "no such file" in errors["demo_arc_easy"]
    assert errors["demo_mmlu"] is None


def test_chats_are_shown_as_each_models_template_writes_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    specs = write_chat_models(tmp_path, ["qwen3", "chatml"])
    chat = [
        ("user", "Say 1."),
        ("assistant", "It is 1."),
        ("user", "More?"),
        ("assistant", "2 \u6f22"),
    ]
    row = {"messages": [{"role": role, "content": text} for role, text in chat]}
    (tmp_path / "chats.jsonl").write_text(f"{json.dumps(row)}\n" * 4)
    item = {"question": "How many are 1 and 1?", "answer": "They are 2. #### 2"}
    (tmp_path / "gsm.jsonl").write_text(f"{json.dumps(item)}\n" * 4)
    files = dict.fromkeys(("train", "test"), str(tmp_path / "gsm.jsonl"))
    raw = {
        "name": "chats",
        "models": {name: {"path": str(tmp_path / name), "shape": spec.shape.model_dump()}
                   for name, spec in specs.items()},
        "data": {"path": "chats.jsonl", "template": "chat"},
        "local_data": {"gsm8k": files},
        "tasks": [{"name": "gsm8k", "shots": 1, "apply_chat_template": True}],
        "blocks": [{"methods": [{"method": "lora", "rank": 4}]}],
    }  # fmt: skip
    (tmp_path / "g.yaml").write_text(yaml.safe_dump(raw, sort_keys=False))
    opened = open_grid(str(tmp_path / "g.yaml"), tmp_path / "runs", None, None)
    assert preview_command(opened, None, as_json=True) == 0
    cells = json.loads(capsys.readouterr().out)["cells"]
    assert [cell["cell"].partition("/")[0] for cell in cells] == ["qwen3", "chatml"]
    for cell in cells:
        (gsm,) = cell["benchmarks"]
        marked = [one["text"] for one in cell["training"][0]["pieces"] if one["marked"]]
        assert marked[0] == "It is 1.<|im_end|>"
        assert marked[1].endswith("2 \u6f22<|im_end|>")
        asked = gsm["requests"][0]["pieces"][0]["text"]
        system = "You are a helpful assistant." in asked  # ChatML's template has one of its own
        assert system == (cell["cell"].startswith("chatml"))
        assert asked.endswith("<|im_start|>assistant\n")
        assert "are in the same template (chat)" in gsm["agreement"]


def test_the_hash_of_rows_follows_tokens_and_loss() -> None:
    tokenizer = load_tokenizer(DATA / "model", 10**6)
    rows = read_training(DataSpec(path="alpaca/train.parquet"), 1.0, 0, DATA).rows[:5]
    examples = tokenize(rows, tokenizer, 512)
    assert examples_sha256(examples) != examples_sha256(examples[::-1])
    assert examples_sha256(examples) != examples_sha256(tokenize(rows, tokenizer, 20))
    pieces = pieces_of(examples[0].token_ids, label_runs(examples[0]), tokenizer)
    assert "".join(text for text, _ in pieces) == f"<s>{format_prompt(rows[0])}{rows[0].output}</s>"


def test_a_long_prompt_keeps_its_ends() -> None:
    prompt = Prompt("none", (("a" * 30, False), ("b" * 30, True)))
    cut = shortened_prompt(prompt, 20)
    assert cut.pieces[0] == ("a" * 10, False)
    assert cut.pieces[1] == ("[... 40 characters ...]", False)
    assert cut.pieces[2] == ("b" * 10, True)
    assert shortened_prompt(prompt, 60) == prompt


def test_a_rows_picture_is_told_above_its_tokens(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (spec,) = write_chat_models(tmp_path, ["chatml"]).values()
    row = {"question": "Which?", "choices": ["a", "b"], "answer": 1, "hint": "", "image": PNG}
    (tmp_path / "rows.jsonl").write_text(f"{json.dumps(row)}\n" * 2)
    item = {"question": "How many are 1 and 1?", "answer": "They are 2. #### 2"}
    (tmp_path / "gsm.jsonl").write_text(f"{json.dumps(item)}\n" * 4)
    raw = {
        "name": "asked",
        "models": {"m": {"path": str(tmp_path / "chatml"), "shape": spec.shape.model_dump()}},
        "data": {"path": "rows.jsonl"},
        "local_data": {"gsm8k": dict.fromkeys(("train", "test"), str(tmp_path / "gsm.jsonl"))},
        "tasks": [{"name": "gsm8k", "shots": 1}],
        "blocks": [{"methods": [{"method": "lora", "rank": 4}]}],
    }
    (tmp_path / "g.yaml").write_text(yaml.safe_dump(raw))
    opened = open_grid(str(tmp_path / "g.yaml"), tmp_path / "runs", None, None)
    assert preview_command(opened, None, as_json=False) == 0
    lines = capsys.readouterr().out.splitlines()
    picture = f"Picture: PNG, 24 x 24 pixels, {len(drawn(0)):,} bytes, sha256 "
    (place,) = [at for at, line in enumerate(lines) if line.startswith(picture)][:1]
    assert lines[place].endswith("(this method takes no pictures)")
    assert "(template scienceqa; " in lines[place - 1]
    assert "Question: Which?" in lines[place + 1]
    preview_command(opened, None, as_json=True)
    (cell,) = json.loads(capsys.readouterr().out)["cells"]
    assert cell["training"][0]["picture"]["width"] == 24
