"""Finding checkpoints, on disk and on the hub, and refusing those that are not as stated."""

from __future__ import annotations

import json
import pickle
import shutil
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import huggingface_hub
import pytest
from transformers import GPT2Config

from harness.errors import ModelError, ZbenchError
from harness.models.checkpoint import (
    ModelSpec,
    check_shape,
    find_checkpoint,
    local_folder,
    read_config,
)
from harness.models.shape import shape_of
from tests.fixtures.tiny_checkpoint import edit_json, write_checkpoint
from tests.fixtures.tiny_models import HEADS, shape, tiny_config

COMMIT = "0123456789abcdef0123456789abcdef01234567"
HUB_MODEL = ModelSpec(source="somebody/tiny", shape=shape())


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    write_checkpoint(folder, max_shard_size="20KB")
    return folder


@pytest.fixture
def folder(written: Path, tmp_path: Path) -> Path:
    """A checkpoint in several files that a test may spoil."""
    return Path(shutil.copytree(written, tmp_path / "tiny"))


def test_a_relative_path_lies_under_the_data_root(folder: Path) -> None:
    spec = ModelSpec(path="tiny", shape=shape())
    assert find_checkpoint(spec, folder.parent) == folder
    with pytest.raises(ModelError, match="tiny: this path is relative, .*--data-root"):
        find_checkpoint(spec, None)


def test_a_missing_folder_is_named_with_what_to_put_there(tmp_path: Path) -> None:
    spec = ModelSpec(path=str(tmp_path / "absent"), shape=shape())
    with pytest.raises(ModelError, match=r"absent: no such folder; put the checkpoint there \(con"):
        find_checkpoint(spec, None)


def test_a_path_takes_precedence_over_the_hub(folder: Path) -> None:
    spec = ModelSpec(source="somebody/tiny", path=str(folder), shape=shape())
    assert find_checkpoint(spec, None) == folder


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda file: file.unlink(), r"config\.json: missing"),
        (lambda file: file.write_text("{"), r"config\.json: is no JSON .*; fetch the whole file"),
        (lambda file: file.write_text("[1]"), r"config\.json: holds a list, where .* correct"),
        (lambda file: edit_json(file, model_type="gpt2"), "model_type 'gpt2' is not supp.*: llama"),
        (lambda file: edit_json(file, model_type=None), "model_type None is not supported"),
        (lambda file: edit_json(file, hidden_size="big"), r"config\.json: refused by transform"),
    ],
)
def test_a_bad_configuration_is_refused(
    folder: Path, spoil: Callable[[Path], None], message: str
) -> None:
    spoil(folder / "config.json")
    with pytest.raises(ZbenchError, match=message) as caught:
        read_config(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("heads", HEADS)
def test_the_shape_is_read_from_the_configuration(heads: str) -> None:
    found = shape_of(tiny_config(heads))
    assert (found.num_attention_heads, found.num_hidden_layers, found.vocab_size) == (4, 4, 61)
    assert found.key_value_heads == HEADS[heads]["num_key_value_heads"]
    assert found.head_size == HEADS[heads].get("head_dim", 8)


def test_a_configuration_without_a_size_is_refused() -> None:
    config = GPT2Config()  # it calls its sizes otherwise
    config.model_type = "llama"
    with pytest.raises(ModelError, match=r"config\.json: intermediate_size: .* not a usable model"):
        shape_of(config)


def test_every_field_that_differs_is_named(tmp_path: Path) -> None:
    stated = shape().model_copy(update={"num_hidden_layers": 32, "vocab_size": 32000})
    with pytest.raises(ModelError) as caught:
        check_shape(tmp_path, shape(), stated)
    line = str(caught.value)
    assert "num_hidden_layers is 4, the grid states 32" in line
    assert "vocab_size is 61, the grid states 32000" in line
    assert "hidden_size" not in line


def test_sizes_that_follow_from_others_need_not_be_stated(tmp_path: Path) -> None:
    found = shape("multi-head")
    assert found.head_dim is not None
    check_shape(
        tmp_path, found, found.model_copy(update={"head_dim": None, "num_key_value_heads": None})
    )


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty hub cache, and a hub that nothing listens at."""
    root = tmp_path / "hub"
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(root))
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    return root


def fill(cache: Path, folder: Path) -> Path:
    model = cache / "models--somebody--tiny"
    (model / "refs").mkdir(parents=True)
    (model / "refs" / "main").write_text(COMMIT)
    return Path(shutil.copytree(folder, model / "snapshots" / COMMIT))


@pytest.mark.parametrize("offline", [False, True])
def test_a_filled_cache_needs_no_network(
    cache: Path, written: Path, monkeypatch: pytest.MonkeyPatch, offline: bool
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", offline)
    snapshot = fill(cache, written)
    assert find_checkpoint(HUB_MODEL, None) == snapshot
    assert snapshot.name == COMMIT


@pytest.mark.parametrize("offline", [False, True])
def test_without_network_and_cache_the_line_says_what_to_run(
    cache: Path, monkeypatch: pytest.MonkeyPatch, offline: bool
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", offline)
    with pytest.raises(ModelError) as caught:
        find_checkpoint(HUB_MODEL, None)
    line = str(caught.value)
    assert line.startswith("somebody/tiny@main: neither in the local cache nor to be had from")
    assert "zbench prefetch" in line
    assert "--data-root" in line
    assert "\n" not in line


def test_an_impossible_name_is_refused(cache: Path) -> None:
    spec = HUB_MODEL.model_copy(update={"source": "a/b/c"})
    with pytest.raises(ModelError, match=r"a/b/c@main: .*; correct the model's source"):
        find_checkpoint(spec, None)


class _Hub(BaseHTTPRequestHandler):
    """Answers as the hub does for the models that it does not hand out."""

    answers = {
        "gated": (403, "GatedRepo"),
        "absent": (404, "RepoNotFound"),
        "old": (404, "RevisionNotFound"),
    }

    def do_GET(self) -> None:
        name = next(name for name in self.answers if f"somebody/{name}" in self.path)
        status, code = self.answers[name]
        body = json.dumps({"error": code}).encode()
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_HEAD = do_GET

    def log_message(self, format: str, *arguments: object) -> None:
        """Writes nothing."""


@pytest.fixture
def hub(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Hub)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", address)
    monkeypatch.setattr(huggingface_hub.hf_api.api, "endpoint", address)
    yield
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gated", "gated; accept its licence at .*, then run 'hf auth login'"),
        ("absent", "no such model on the hub, or a private one; correct the model's source"),
        ("old", "the model has no such revision"),
    ],
)
@pytest.mark.usefixtures("hub")
def test_what_the_hub_refuses_is_told(name: str, message: str) -> None:
    spec = HUB_MODEL.model_copy(update={"source": f"somebody/{name}"})
    with pytest.raises(ModelError, match=rf"somebody/{name}@main: {message}") as caught:
        find_checkpoint(spec, None)
    assert "\n" not in str(caught.value)


def test_a_path_is_under_the_data_root_or_beside_the_grid_file(tmp_path: Path) -> None:
    root, grids = tmp_path / "root", tmp_path / "grids"
    spec = ModelSpec(path="mine", shape=shape()).beside(grids)
    assert local_folder(spec, None) is None
    (grids / "mine").mkdir(parents=True)
    assert local_folder(spec, None) == grids / "mine"
    assert local_folder(pickle.loads(pickle.dumps(spec)), root) == grids / "mine"
    (root / "mine").mkdir(parents=True)
    assert local_folder(spec, root) == root / "mine"
    assert local_folder(ModelSpec(source="owner/name", shape=shape()).beside(grids), root) is None
