"""Image encoders in grids: cells' ids, where a folder lies, and what is told before any work."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.demo.world import world_folder, write_world
from harness.errors import GridError, UsageError
from harness.estimate.needs import find_needs
from harness.grid.folders import cell_folder, write_cell_file
from harness.grid.inputs import inputs_of_cells
from harness.grid.resolver import resolve_grid
from harness.grid.schema import Cell, expand
from harness.grid.workspace import OpenGrid, open_grid, open_to_run
from harness.methods.zero_init.options import image_encoder_of
from harness.models.image_encoder import ImageEncoderSpec
from harness.prepare.listing import HubFault, HubFile, _files_read
from harness.prepare.wants import Repository, find_wants
from tests.fixtures.image_encoder import encoder_entry, write_encoder
from tests.grid.test_loader import grid_with

HUB = {"source": "openai/clip-vit-base-patch16"}


def raw_grid(encoder: dict[str, Any], *methods: Any, **keys: Any) -> dict[str, Any]:
    seeing = {"method": "zero-init-linear", "image_encoder": encoder}
    block = {"methods": [seeing, *methods], "fractions": [1.0], "seeds": [0]}
    return grid_with({"data": {"source": "a/b"}, "blocks": [block], "tasks": [], **keys})


def grid_file(root: Path, encoder: dict[str, Any], *methods: Any) -> str:
    (root / "study").mkdir(exist_ok=True)
    raw = raw_grid(encoder, *methods, tasks=["arc_easy"])
    (root / "study" / "g.yaml").write_text(yaml.safe_dump(raw))
    return str(root / "study" / "g.yaml")


def opened(root: Path, encoder: dict[str, Any], *methods: Any, data_root: str = "root") -> OpenGrid:
    (root / data_root).mkdir(exist_ok=True)
    return open_grid(grid_file(root, encoder, *methods), root / "runs", root / data_root, None)


def encoder_of(cell: Cell) -> ImageEncoderSpec:
    found = image_encoder_of(cell.options)
    assert found is not None
    return found


def cells_of(encoder: dict[str, Any], *methods: Any) -> list[Cell]:
    raw = raw_grid(encoder, *methods)
    raw["tasks"] = ["arc_easy"]
    return expand(resolve_grid(raw, place="g.yaml"))


def faults_of(raw: dict[str, Any]) -> list[str]:
    raw["tasks"] = ["arc_easy"]
    with pytest.raises(GridError) as caught:
        resolve_grid(raw, place="g.yaml")
    return [fault.removeprefix("g.yaml: ") for fault in caught.value.faults]


def test_the_encoder_is_part_of_the_id_and_nothing_else_is() -> None:
    seeing, plain = cells_of(HUB, "zero-init-linear")
    assert seeing.label == "a/zero-init-linear[image_encoder=clip-vit-base-patch16]/100%/seed0"
    assert "image_encoder" not in plain.options.identity()
    stated = seeing.options.identity()["image_encoder"]
    assert stated == {
        "source": "openai/clip-vit-base-patch16",
        "revision": "main",
        "width": 768,
        "scales": (2, 4, 6, 8, 10, 12),
        "hidden_size": 64,
    }
    others = [
        cells_of({**HUB, **changed})[0].id
        for changed in (
            {"revision": "abc"},
            {"scales": [12]},
            {"width": 64},
            {"hidden_size": 8},
            {"pretrained": False},
        )
    ]
    assert len({seeing.id, plain.id, *others}) == 7
    assert cells_of({**HUB, "path": "copy"})[0].id == seeing.id


def test_a_stored_cell_is_the_same_cell() -> None:
    for encoder in (HUB, {"path": "x", "pretrained": False}):
        (cell,) = cells_of(encoder)
        again = Cell.model_validate(cell.model_dump(mode="json", serialize_as_any=True))
        assert (again, again.id) == (cell, cell.id)


def test_the_folders_content_is_the_id_wherever_it_lies(tmp_path: Path) -> None:
    folder = write_encoder(tmp_path / "root" / "clip")
    (under,) = opened(tmp_path, encoder_entry("clip")).cells
    assert encoder_of(under).path == "clip"
    assert len(str(encoder_of(under).sha256)) == 64
    assert "path" not in under.options.identity()["image_encoder"]
    (absolute,) = opened(tmp_path, encoder_entry(folder)).cells
    (tmp_path / "study").mkdir(exist_ok=True)
    shutil.move(str(folder), tmp_path / "study" / "other")
    (beside,) = opened(tmp_path, encoder_entry("other")).cells
    assert encoder_of(beside).path == str(tmp_path / "study" / "other")
    assert under.id == absolute.id == beside.id
    write_encoder(tmp_path / "study" / "other", seed=1)
    assert opened(tmp_path, encoder_entry("other")).cells[0].id != under.id


def test_drawn_weights_need_none_in_the_folder(tmp_path: Path) -> None:
    folder = write_encoder(tmp_path / "root" / "clip")
    (drawn,) = opened(tmp_path, encoder_entry("clip", pretrained=False)).cells
    (folder / "model.safetensors").unlink()
    (again,) = opened(tmp_path, encoder_entry("clip", pretrained=False)).cells
    assert drawn.id == again.id


def test_where_no_folder_is_here_stored_cells_tell_its_content(tmp_path: Path) -> None:
    folder = write_encoder(tmp_path / "root" / "clip")
    grid = opened(tmp_path, encoder_entry("clip"))
    (cell,) = grid.cells
    write_cell_file(cell_folder(grid.runs, cell), cell)
    shutil.rmtree(folder)
    (again,) = opened(tmp_path, encoder_entry("clip")).cells
    assert again.id == cell.id
    shutil.rmtree(tmp_path / "runs")
    lost = opened(tmp_path, encoder_entry("clip"))
    with pytest.raises(UsageError, match=r"image_encoder.path: no folder .*clip; put"):
        lost.read_states()


@pytest.mark.parametrize("match", [None, {"params": 2000, "tolerance": 1.0}])
def test_equal_budgets_keep_the_encoder(tmp_path: Path, match: dict[str, Any] | None) -> None:
    write_encoder(tmp_path / "root" / "clip")
    entry = {"method": "random-init", "label": "sized", "image_encoder": encoder_entry("clip")}
    grid = opened(tmp_path, encoder_entry("clip"), entry | ({"match": match} if match else {}))
    first, sized = grid.cells
    assert encoder_of(sized).sha256 == encoder_of(first).sha256 is not None


def told(root: Path, encoder: dict[str, Any]) -> str:
    (root / "root").mkdir(exist_ok=True)
    with pytest.raises(GridError) as refused:
        open_to_run(grid_file(root, encoder), root / "runs", root / "root", None)
    lines = [line for line in refused.value.faults if "image_encoder" in line]
    assert len(lines) == 1
    return lines[0]


def test_what_is_wrong_with_a_folder_is_told_before_any_work(tmp_path: Path) -> None:
    write_encoder(tmp_path / "root" / "clip")
    assert "no folder" in told(tmp_path, encoder_entry("clap"))
    assert "did you mean 'clip'" in told(tmp_path, encoder_entry("clap"))
    assert "width is 5" in told(tmp_path, encoder_entry("clip", width=5))
    assert "names layer 9" in told(tmp_path, encoder_entry("clip", scales=[9]))


@pytest.mark.parametrize(
    ("encoder", "said"),
    [
        ({}, "give `source` (a hub repository) or `path` (a folder)"),
        ({"source": "not a name"}, "source: must be a model of the hub, as owner/name"),
        ({**HUB, "scales": [4, 2]}, "scales: name each layer once, in ascending order"),
        ({**HUB, "scales": []}, "scales: is empty; add at least one"),
        ({**HUB, "hidden_size": 0}, "hidden_size: must be at least 1 (got 0)"),
        ({**HUB, "with": 3}, "with: unknown key"),
        ({**HUB, "sha256": "a" * 64}, "sha256 is found with the files; leave it out"),
    ],
)
def test_a_faulty_entry_is_one_line_with_its_place(encoder: dict[str, Any], said: str) -> None:
    (fault,) = faults_of(raw_grid(encoder))
    assert fault.startswith("blocks[0].methods[0].image_encoder")
    assert said in fault


def test_other_methods_are_told_whose_option_it_is() -> None:
    raw = raw_grid(HUB)
    raw["blocks"][0]["methods"] = [{"method": "lora", "image_encoder": HUB}]
    assert faults_of(raw) == [
        "blocks[0].methods[0].image_encoder: 'lora' takes no pictures; it is an option of "
        "random-init, zero-init-linear, zero-init-nonlinear"
    ]


def test_it_is_among_what_a_grid_reads(tmp_path: Path) -> None:
    write_encoder(tmp_path / "root" / "clip")
    local = opened(tmp_path, encoder_entry("clip"))
    wants = find_wants(inputs_of_cells(local.cells), local.data_root)
    copied = {copy.name for copy in wants.copies}
    assert copied == {"clip/config.json", "clip/preprocessor_config.json", "clip/model.safetensors"}
    of_hub = opened(tmp_path, HUB)
    wants = find_wants(inputs_of_cells(of_hub.cells), of_hub.data_root)
    titles = [one.title for one in wants.repositories]
    assert "image encoder openai/clip-vit-base-patch16@main" in titles
    needs = {need.kind: need for need in find_needs(of_hub.states, of_hub.data_root)}
    assert needs["image encoder"].name == "openai/clip-vit-base-patch16@main"
    assert not needs["image encoder"].here
    here = {need.kind: need for need in find_needs(local.states, local.data_root)}
    assert here["image encoder"].here


SMALL = ("config.json", "preprocessor_config.json")


@pytest.mark.parametrize(
    ("weights", "read"),
    [
        (["model.safetensors", "pytorch_model.bin", "tf_model.h5"], ["model.safetensors"]),
        (["pytorch_model.bin", "flax_model.msgpack"], ["pytorch_model.bin"]),
    ],
)
def test_one_set_of_weights_is_fetched(weights: list[str], read: list[str]) -> None:
    repository = Repository("model", "openai/clip", "main", "image encoder")
    names = [*SMALL, "tokenizer.json", "vocab.json", *weights]
    files = tuple(HubFile(name, 1, None, None) for name in names)
    assert [file.name for file in _files_read(repository, files)] == [*SMALL, *read]
    with pytest.raises(HubFault, match=r"image encoder openai/clip@main: has no weights"):
        _files_read(repository, files[:4])


def test_the_worlds_encoder_is_known_before_the_world_is_written(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    planned = open_grid("demo-pictures", runs, None, None)
    write_world(world_folder(runs))
    written = open_grid("demo-pictures", runs, None, None)
    assert [cell.id for cell in planned.cells] == [cell.id for cell in written.cells]
    (world_folder(runs) / "image_encoder" / "config.json").unlink()
    again = open_grid("demo-pictures", runs, None, None)
    assert [cell.id for cell in planned.cells] == [cell.id for cell in again.cells]
