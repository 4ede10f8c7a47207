"""`zbench generate` on the embedded world: asked once, kept, and one cell's fault is its own."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from harness.answers import cells as answering
from harness.answers.instructions import read_set
from harness.answers.store import GREEDY, read_origin, read_outputs, responses_path, set_key
from harness.cell.run import load_finished, run_cell
from harness.cell.settings import CellContext, RunSettings
from harness.commands import generate
from harness.demo.world import world_folder, write_world
from harness.errors import ReportError
from harness.evaluation.benchmarks import Decoding
from harness.grid.folders import ADAPTER_FOLDER, cell_folder
from harness.grid.workspace import OpenGrid, open_grid
from harness.records.results import read_result
from tests.integration.test_end_to_end import grid_text

TEXT = (
    grid_text()
    .replace("tasks: [{name: demo_arc_easy, limit: 12}, {name: demo_mmlu, limit: 2}]",
             "tasks: [{name: demo_arc_easy, limit: 2}]")
    .replace("epochs: 2", "epochs: 1")
    .replace("fractions: [0.1]", "fractions: [0.02]\n    seeds: [0, 1]")
)  # fmt: skip
ASKED = [{"id": "a", "instruction": "Who is a weaver?"}, {"id": "b", "instruction": "Why?"}]
SHORT = replace(GREEDY, max_new_tokens=8)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a folder with a grid, a set, and a runs folder in which all but seed 1 is done."""
    place = tmp_path_factory.mktemp("study")
    (place / "grid.yaml").write_text(TEXT)
    (place / "set.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ASKED))
    write_world(world_folder(place / "runs"))
    grid = opened(place)
    for cell in grid.cells:
        if cell.seed != 1:
            settings = RunSettings(grid.runs_dir, grid.data_root)
            run_cell(cell, settings, lambda event: None)
    return place


@pytest.fixture
def study(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "study"))


def opened(place: Path, only: str | None = None) -> OpenGrid:
    return open_grid(str(place / "grid.yaml"), place / "runs", None, only, results_alone=True)


def run(place: Path, decoding: Decoding = SHORT, only: str | None = None, **more: Any) -> int:
    given = {"instructions": str(place / "set.jsonl"), "seeds_root": None, "beside": ()} | more
    return generate.generate_command(
        opened(place, only), decoding=decoding, reports_dir=place / "reports", device="cpu",
        as_json=True, **given,
    )  # fmt: skip


def told(capsys: pytest.CaptureFixture[str]) -> tuple[dict[str, Any], str]:
    done = capsys.readouterr()
    return json.loads(done.out), done.err


def files_of(place: Path, decoding: Decoding = SHORT) -> dict[str, Path]:
    """Returns the file of each finished cell's answers, by its method."""
    key = set_key(read_set(str(place / "set.jsonl"), None), decoding)
    grid = opened(place)
    return {
        cell.method: responses_path(cell_folder(grid.runs_dir, cell), key)
        for cell in grid.cells
        if cell.seed != 1
    }


def test_answers_are_generated_once_and_written_everywhere(
    study: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    them = study / "them.json"
    them.write_text('[{"instruction": "Why?", "output": "<b>so</b>", "generator": "gpt"}]')
    assert run(study, beside=[them]) == 0
    found, said = told(capsys)
    assert [cell["status"] for cell in found["cells"]] == ["generated", "generated"]
    assert "left out, not trained yet: tiny-llama/zero-init-linear/2%/seed1" in said
    assert found["beside"][0]["not_matched"] == ["a"]
    whole = pd.read_parquet(found["responses"])
    assert list(whole["label"].unique()) == [
        "tiny-llama/base",
        "tiny-llama/zero-init-linear/2%/seed0",
    ]
    assert list(whole["id"]) == ["a", "b"] * 2
    assert set(whole["stop_reason"]) <= {"eos", "length"}
    folder = Path(found["page"]).parent
    outputs = read_outputs(folder / "tiny-llama-base" / "model_outputs.json")
    assert [one.generator for one in outputs] == ["tiny-llama/base"] * 2
    assert [one.output for one in outputs] == list(whole["output"][:2])
    html = Path(found["page"]).read_text()
    assert "Who is a weaver?" in html
    assert "&lt;b&gt;so&lt;/b&gt;" in html
    assert "the first alone" not in html

    def fail(*args: object, **named: object) -> None:
        raise AssertionError("a cell that has answered was asked again")

    monkeypatch.setattr(generate, "answer_cell", fail)
    before = {name: path.read_bytes() for name, path in files_of(study).items()}
    assert run(study) == 0
    found, _ = told(capsys)
    assert [cell["status"] for cell in found["cells"]] == ["kept", "kept"]
    assert {name: path.read_bytes() for name, path in files_of(study).items()} == before


def test_the_answers_are_those_of_the_cells_own_model(study: Path) -> None:
    import torch

    assert run(study, only="seed0") == 0
    grid = opened(study, "seed0")
    (cell,) = grid.cells
    folder = cell_folder(grid.runs_dir, cell)
    result = read_result(folder)
    assert result is not None
    context = CellContext(cell, RunSettings(grid.runs_dir, grid.data_root), folder, lambda e: None)
    base, model = load_finished(context, result)
    prompt = (
        "Below is an instruction that describes a task. Write a response that appropriately "
        "completes the request.\n\n### Instruction:\n{}\n\n### Response:"
    )
    frame = pd.read_parquet(files_of(study)["zero-init-linear"])
    for row, answer in zip(ASKED, frame["output"], strict=True):
        text = prompt.format(row["instruction"])
        ids = base.tokenizer(text, add_special_tokens=False).input_ids
        tokens = torch.tensor([[base.tokenizer.bos_token_id, *ids]])
        whole = model.generate(
            input_ids=tokens, attention_mask=torch.ones_like(tokens), do_sample=False,
            max_new_tokens=8, eos_token_id=base.tokenizer.eos_token_id, pad_token_id=0,
        )[0]  # fmt: skip
        first, both = (
            base.tokenizer.decode(t, skip_special_tokens=True, clean_up_tokenization_spaces=False)
            for t in (tokens[0], whole)
        )
        assert answer == both[len(first) :]
    origin = read_origin(folder, files_of(study)["zero-init-linear"].stem)
    assert origin is not None
    assert origin["weights_sha256"] == result.train.weights_sha256  # type: ignore[union-attr]
    assert origin["template"] == "alpaca"


def test_a_damaged_cell_fails_alone(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cell = next(cell for cell in opened(study).cells if cell.seed == 0)
    adapter = cell_folder(study / "runs", cell) / ADAPTER_FOLDER
    weights = next(adapter.glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\1\0")
    assert run(study) == 1
    found, _ = told(capsys)
    base, trained = found["cells"]
    assert (base["status"], trained["status"]) == ("generated", "failed")
    assert "damaged or were changed" in trained["error"]
    page = Path(found["page"])
    assert "damaged or were changed" in page.read_text()
    assert len(pd.read_parquet(found["responses"])) == 2
    assert "Traceback" in (page.parent / "log.txt").read_text()


@pytest.mark.parametrize("harm", ["cut", "retrained"])
def test_answers_that_are_damaged_or_of_other_weights_are_made_again(
    study: Path, capsys: pytest.CaptureFixture[str], harm: str
) -> None:
    assert run(study) == 0
    told(capsys)
    path = files_of(study)["base"]
    before = pd.read_parquet(path)
    if harm == "cut":
        path.write_bytes(path.read_bytes()[:-7])
    else:
        from harness.answers.store import write_responses

        origin = read_origin(path.parents[1], path.stem) or {}
        write_responses(path.parents[1], path.stem, before, origin | {"weights_sha256": "other"})
    assert run(study) == 0
    found, _ = told(capsys)
    assert [cell["status"] for cell in found["cells"]] == ["generated", "kept"]
    pd.testing.assert_frame_equal(pd.read_parquet(path), before)


def test_a_kill_loses_the_cell_that_it_meets(
    study: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real: Callable[..., None] = answering.answer_cell
    asked: list[str] = []

    def killed(one: answering.Answering, *args: Any, **named: Any) -> None:
        asked.append(one.cell.method)
        if len(asked) == 2:
            raise KeyboardInterrupt
        real(one, *args, **named)

    monkeypatch.setattr(generate, "answer_cell", killed)
    with pytest.raises(KeyboardInterrupt):
        run(study)
    files = files_of(study)
    assert (files["base"].exists(), files["zero-init-linear"].exists()) == (True, False)
    capsys.readouterr()
    assert run(study) == 0
    assert asked == ["base", "zero-init-linear", "zero-init-linear"]


def test_other_settings_and_other_sets_have_files_of_their_own(
    study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(study, only="base") == 0
    first, _ = told(capsys)
    hot = replace(SHORT, temperature=1.0, seed=3)
    assert run(study, hot, only="base") == 0
    second, _ = told(capsys)
    assert second["key"] == first["key"].replace("-n8", "-t1-s3-n8")
    (study / "set.jsonl").write_text('{"instruction": "Else?"}\n')
    assert run(study, only="base") == 0
    third, _ = told(capsys)
    assert len({Path(one["page"]).parent for one in (first, second, third)}) == 3
    assert len(list(files_of(study)["base"].parent.glob("*.parquet"))) == 3


def test_a_grid_without_a_finished_cell_is_one_line(study: Path) -> None:
    with pytest.raises(ReportError, match=r"no finished cell to ask.*zbench run-grid"):
        run(study, only="seed1")
