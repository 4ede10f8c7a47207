"""A cell with pictures: encoded once, kept, held to its encoder, the same bits after a kill."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import threading
import weakref
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
import torch
import yaml
from safetensors.torch import load_file

import harness.cell.pictures as cell_pictures
import harness.cell.run as cell_run
from harness.cell.pictures import PictureEncoder, encode, training_pictures
from harness.cell.run import follow_cell, run_cell
from harness.cell.settings import CellContext, RunSettings
from harness.cell.train import read_training_data
from harness.demo.world import write_world
from harness.errors import DataError, ModelError
from harness.grid.folders import ADAPTER_FOLDER, CHECKPOINTS_FOLDER, cell_folder
from harness.grid.resolver import resolve_grid
from harness.grid.schema import Cell, expand
from harness.methods.zero_init.options import image_encoder_of
from harness.models.image_encoder import ImageEncoder
from harness.readers.pictures import BadPicture, Picture
from harness.records.events import Encoding, Event, StepDone, Warned
from harness.records.picture_files import FOLDER
from harness.records.results import CellResult, TrainResult, read_result
from harness.training.process_group import RankInfo
from harness.training.signals import Stopped
from tests.fixtures.picture_files import drawn
from tests.fixtures.tiny_clip import SPEC, write_clip
from tests.integration.test_end_to_end import grid_text

GRIDS = Path(cell_run.__file__).parents[1] / "grids"
NUMBERS = ("one", "two", "three", "four")
BYTES = [drawn(number) for number in range(4)]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world(tmp_path_factory.mktemp("world") / "demo")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an encoder, `clip`, and rows with and without their pictures."""
    folder = tmp_path_factory.mktemp("pictures")
    write_clip(folder / "clip")
    rows = [
        {
            "instruction": "Which picture is it?"
            if index % 5
            else f"What is {NUMBERS[index % 4]}?",
            "output": NUMBERS[index % 4],
            "image": BYTES[index % 4] if index % 5 else None,
        }
        for index in range(30)
    ]
    for name, columns in {"rows": None, "texts": ["instruction", "output"]}.items():
        table = pyarrow.Table.from_pylist(rows)
        pyarrow.parquet.write_table(table.select(columns or table.column_names),
                                    folder / f"{name}.parquet")  # fmt: skip
    return folder


def cell_of(folder: Path, *, looks: bool = True, rows: str = "rows", **train: Any) -> Cell:
    raw = yaml.safe_load(grid_text())
    raw["data"] = {"source": None, "path": str(folder / f"{rows}.parquet")}
    raw["data"]["validation"] = {"fraction": 0.2}
    raw["train"] = {"epochs": 2, "batch_size": 4, "learning_rate": 0.02, **train}
    options = {"image_encoder": {"path": str(folder / "clip"), **SPEC}} if looks else {}
    raw["methods"] = {"zero-init-linear": {"num_layers": 5, **options}}
    raw["blocks"] = [{"methods": ["zero-init-linear"], "fractions": [1.0]}]
    (cell,) = expand(resolve_grid(raw, place="g.yaml"))
    return cell.model_copy(update={"tasks": cell.tasks[:1]})


def trained(result: CellResult) -> TrainResult:
    assert result.train is not None
    return replace(result.train, seconds=0.0, tokens_per_second=0.0, peak_memory_bytes=0)


def context_of(cell: Cell, runs_dir: Path, world: Path, told: list[Event]) -> CellContext:
    settings = RunSettings(runs_dir=runs_dir, data_root=world)
    return CellContext(cell, settings, cell_folder(runs_dir, cell), told.append)


def files_in(runs_dir: Path) -> list[Path]:
    return sorted((runs_dir / FOLDER).iterdir())


def test_a_cell_trains_on_features_that_are_kept(
    folder: Path, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell, told = cell_of(folder, image_learning_rate=0.005), []
    encoders: list[weakref.ref[object]] = []
    real, load_base = cell_pictures.load_image_encoder, cell_run._load_base

    def load(*args: Any, **kwargs: Any) -> ImageEncoder:
        encoder = real(*args, **kwargs)
        encoders.extend((weakref.ref(encoder), weakref.ref(encoder.model)))
        return encoder

    def loads_last(*args: Any, **kwargs: Any) -> Any:
        gc.collect()
        assert len(encoders) == 2
        assert all(one() is None for one in encoders)
        return load_base(*args, **kwargs)

    monkeypatch.setattr(cell_pictures, "load_image_encoder", load)
    monkeypatch.setattr(cell_run, "_load_base", loads_last)
    settings = RunSettings(runs_dir=tmp_path, data_root=world)
    result = run_cell(cell, settings, told.append)
    steps = [event for event in told if isinstance(event, StepDone)]
    encoded = [event for event in told if isinstance(event, Encoding)]
    assert [(event.done, event.total) for event in encoded] == [(4, 4)]
    assert told.index(encoded[-1]) < told.index(steps[0])
    assert result.image_encoder["scales"] == [1, 2]
    assert len(result.image_encoder["weights_sha256"]) == 64
    stored = read_result(cell_folder(tmp_path, cell))
    assert stored is not None
    assert (stored.image_encoder, stored.train) == (result.image_encoder, result.train)
    statistics = trained(result).final_statistics
    assert statistics["picture_effect"] == steps[-1].statistics["picture_effect"] > 0
    assert 0 <= statistics["picture_changes"] <= 1
    (file,) = files_in(tmp_path)

    encoders.clear()
    again, before = cell.model_copy(update={"seed": 7}), file.stat().st_mtime_ns
    told.clear()
    run_cell(again, settings, told.append)
    assert not [event for event in told if isinstance(event, Encoding)]
    assert file.stat().st_mtime_ns == before
    assert files_in(tmp_path) == [file]


def test_a_killed_cell_ends_with_the_same_bits(folder: Path, world: Path, tmp_path: Path) -> None:
    cell, told = cell_of(folder, image_learning_rate=0.005, keep="best"), []
    settings = RunSettings(runs_dir=tmp_path / "whole", data_root=world)
    whole = trained(run_cell(cell, settings, told.append))
    again = RunSettings(runs_dir=tmp_path / "killed", data_root=world)

    def stop(event: Event) -> None:
        if isinstance(event, StepDone) and event.step == 7 and not event.restored:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Stopped):
        run_cell(cell, again, stop)
    assert trained(run_cell(cell, again, lambda event: None)) == whole


def test_a_checkpoint_is_of_one_encoder(folder: Path, world: Path, tmp_path: Path) -> None:
    cell, settings = cell_of(folder), RunSettings(runs_dir=tmp_path, data_root=world)

    def stop(event: Event) -> None:
        if isinstance(event, StepDone) and event.step == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Stopped):
        run_cell(cell, settings, stop)
    assert (cell_folder(tmp_path, cell) / CHECKPOINTS_FOLDER).is_dir()
    other = write_clip(tmp_path / "clip", seed=1)
    spec = image_encoder_of(cell.options)
    assert spec is not None
    moved = spec.model_copy(update={"path": str(other)})
    changed = cell.options.model_copy(update={"image_encoder": moved})
    same_id = cell.model_copy(update={"options": changed})
    told: list[Event] = []
    context = context_of(cell, tmp_path, world, told)
    pictures = training_pictures(context, read_training_data(cell, world))
    others = training_pictures(
        context_of(same_id, tmp_path, world, told), read_training_data(cell, world)
    )
    assert pictures is not None
    assert others is not None
    differing = {k for k, v in pictures.identity.items() if v != others.identity[k]}
    assert differing == {"image_encoder"}
    assert len(files_in(tmp_path)) == 2


def test_a_cell_without_an_encoder_trains_on_the_texts(
    folder: Path, world: Path, tmp_path: Path
) -> None:
    weights = []
    for rows in ("rows", "texts"):
        cell = cell_of(folder, looks=False, rows=rows)
        runs = tmp_path / rows
        result = run_cell(cell, RunSettings(runs_dir=runs, data_root=world), lambda event: None)
        assert not result.image_encoder
        assert "picture_effect" not in trained(result).final_statistics
        assert "image_encoder" not in result.to_json()
        assert not (runs / FOLDER).exists()
        weights.append(load_file(cell_folder(runs, cell) / ADAPTER_FOLDER
                                 / "adapter_model.safetensors"))  # fmt: skip
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


def test_damaged_features_are_made_again(folder: Path, world: Path, tmp_path: Path) -> None:
    told: list[Event] = []
    context = context_of(cell_of(folder), tmp_path, world, told)
    spec = image_encoder_of(context.cell.options)
    assert spec is not None
    pictures = [Picture.of(data) for data in BYTES]
    first = encode(context, spec, pictures)
    (file,) = files_in(tmp_path)
    whole = file.read_bytes()
    for damaged in (whole[:-9], whole[:-40] + b"\0" + whole[-39:], b"", b"no features"):
        file.write_bytes(damaged)
        told.clear()
        again = encode(context, spec, pictures[::-1])
        assert again.features.names == first.features.names
        assert torch.equal(again.features.features_NF, first.features.features_NF)
        assert [type(event) for event in told] == [Warned, Encoding]
        assert file.read_bytes() == whole


def test_several_that_want_the_same_encode_once(
    folder: Path, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = context_of(cell_of(folder), tmp_path, world, [])
    spec, calls, real = image_encoder_of(context.cell.options), [], ImageEncoder.encode
    assert spec is not None
    looked = spec

    def count(encoder: ImageEncoder, pictures: Sequence[Picture], told: Any = None) -> Any:
        calls.append(len(pictures))
        return real(encoder, pictures, told)

    # transformers' loading is no matter of threads: it leaves later models without tied weights.
    turn, load = threading.Lock(), cell_pictures.load_image_encoder

    def load_by_turns(*arguments: Any, **named: Any) -> ImageEncoder:
        with turn:
            return load(*arguments, **named)

    monkeypatch.setattr(ImageEncoder, "encode", count)
    monkeypatch.setattr(cell_pictures, "load_image_encoder", load_by_turns)
    pictures = [Picture.of(data) for data in BYTES]
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda _: encode(context, looked, pictures), range(3)))
    assert calls == [4]
    assert all(torch.equal(one.features.features_NF, found[0].features.features_NF)
               for one in found)  # fmt: skip
    assert [file.suffix for file in files_in(tmp_path)] == [".safetensors"]


def test_features_of_another_encoder_are_refused(folder: Path, world: Path, tmp_path: Path) -> None:
    context = context_of(cell_of(folder), tmp_path, world, [])
    spec = image_encoder_of(context.cell.options)
    assert spec is not None
    pictures = [Picture.of(data) for data in BYTES[:2]]
    identity = encode(context, spec, pictures).encoder
    same = PictureEncoder.of(context, {**identity, "source": "elsewhere"})
    assert same is not None
    assert len(same(pictures).names) == 2
    unknown = PictureEncoder.of(context, {})
    assert unknown is not None
    assert not unknown.identity
    unknown(pictures)
    assert unknown.identity == identity
    other = PictureEncoder.of(context, {**identity, "weights_sha256": "0" * 64})
    assert other is not None
    with pytest.raises(ModelError, match="features of another encoder") as fault:
        other(pictures)
    assert len(str(fault.value).splitlines()) == 1
    blind = context_of(cell_of(folder, looks=False), tmp_path, world, [])
    assert PictureEncoder.of(blind, {}) is None


def test_a_broken_picture_is_told_by_its_row(
    folder: Path, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = context_of(cell_of(folder), tmp_path, world, [])
    data = read_training_data(context.cell, world)
    broken, real = Picture.of(BYTES[2]).sha256, Picture.decode

    def decode(picture: Picture) -> Any:
        if picture.sha256 == broken:
            raise BadPicture("the picture is broken (cut)")
        return real(picture)

    monkeypatch.setattr(Picture, "decode", decode)
    with pytest.raises(DataError, match=r"row \d+ .*: image: the picture is broken") as fault:
        training_pictures(context, data)
    assert len(str(fault.value).splitlines()) == 1
    assert not (tmp_path / FOLDER).exists() or not files_in(tmp_path)


@pytest.mark.slow
def test_at_the_prompts_rate_the_projection_saturates_and_the_result_says_so(
    world: Path, tmp_path: Path
) -> None:
    raw = yaml.safe_load((GRIDS / "demo-pictures.yaml").read_text())
    raw["train"]["epochs"] = 4
    raw["methods"] = {"zero-init-linear": raw["methods"]["zero-init-linear"]}
    raw["blocks"] = [{"methods": ["zero-init-linear"]}]
    del raw["claims"]
    train = raw["methods"]["zero-init-linear"]["train"]
    notes = {}
    for rate in (train["image_learning_rate"], train["learning_rate"]):
        train["image_learning_rate"] = rate
        (cell,) = expand(resolve_grid(raw, place="g.yaml"))
        told: list[Event] = []
        settings = RunSettings(runs_dir=tmp_path, data_root=world)
        result = run_cell(cell.model_copy(update={"tasks": ()}), settings, told.append)
        notes[rate] = trained(result).note
        warned = [event.message for event in told if isinstance(event, Warned)]
        assert [one for one in warned if "another picture" in one] == [
            note for note in [notes[rate]] if note
        ]
    own, prompts = notes.values()
    assert own is None
    assert prompts is not None
    assert prompts.startswith("another picture does not change the answers")


def _run_rank(rank: int, store: str, cell: Cell, runs_dir: Path, world: Path) -> None:
    torch.set_num_threads(1)
    settings = RunSettings(
        runs_dir=runs_dir, data_root=world, rank_info=RankInfo(rank, 2, store, timeout_seconds=120)
    )
    if rank == 0:
        run_cell(cell, settings, lambda event: None)
    else:
        follow_cell(cell, settings)


@pytest.mark.slow
def test_two_devices_train_what_one_does(folder: Path, world: Path, tmp_path: Path) -> None:
    cell = cell_of(folder, image_learning_rate=0.005)
    context = multiprocessing.get_context("spawn")
    arguments = (str(tmp_path / "store"), cell, tmp_path / "two", world)
    ranks = [context.Process(target=_run_rank, args=(rank, *arguments)) for rank in range(2)]
    for rank in ranks:
        rank.start()
    alone = run_cell(
        cell, RunSettings(runs_dir=tmp_path / "one", data_root=world), lambda event: None
    )
    for rank in ranks:
        rank.join(timeout=300)
    assert [rank.exitcode for rank in ranks] == [0, 0]
    both = read_result(cell_folder(tmp_path / "two", cell))
    assert both is not None
    assert both.image_encoder == alone.image_encoder
    assert trained(both).epoch_losses == pytest.approx(trained(alone).epoch_losses, rel=1e-5)
    for name in ("picture_effect", "picture_changes"):
        found, expected = (trained(one).final_statistics[name] for one in (both, alone))
        assert found == pytest.approx(expected, rel=1e-3)
    assert len(files_in(tmp_path / "two")) == 1
