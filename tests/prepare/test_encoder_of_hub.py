"""An image encoder that is on the hub: prefetched, or downloaded when it is needed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from huggingface_hub import constants

from harness.errors import ModelError
from harness.models.image_encoder import (
    ImageEncoderSpec,
    find_encoder,
    is_encoder_cached,
    load_image_encoder,
)
from harness.prepare.wants import Repository
from harness.records.prefetched import use_prefetched
from tests.fixtures.hub_server import Hub
from tests.fixtures.image_encoder import SCALES, WIDTH, picture, write_encoder
from tests.prepare.test_prefetch import fetch, snapshot

CLIP = Repository("model", "lab/clip", "main", "image encoder")
SPEC = ImageEncoderSpec(source="lab/clip", width=WIDTH, scales=SCALES)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub, and the process's own settings again afterwards."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    for name in ("HF_HUB_CACHE", "HF_HUB_OFFLINE", "HF_DATASETS_CACHE"):
        monkeypatch.setenv(name, "")
    return tmp_path / "cache"


def serve(hub: Hub, *, pickled: bool = False) -> Path:
    """Puts a CLIP on the hub, as OpenAI's are: whole, with a tokenizer beside it."""
    folder = write_encoder(hub.root / "models" / "lab" / "clip", vision_alone=False)
    (folder / "vocab.json").write_text("{}")
    (folder / "tf_model.h5").write_bytes(b"never read")
    if pickled:
        from safetensors.torch import load_file

        file = folder / "model.safetensors"
        torch.save(load_file(file), folder / "pytorch_model.bin")
        file.unlink()
    return folder


@pytest.mark.parametrize("pickled", [False, True])
def test_it_is_downloaded_with_one_set_of_weights(hub: Hub, cache: Path, pickled: bool) -> None:
    folder = serve(hub, pickled=pickled)
    assert not is_encoder_cached(SPEC)
    found = find_encoder(SPEC, None)
    weights = "pytorch_model.bin" if pickled else "model.safetensors"
    names = sorted(path.name for path in found.iterdir())
    assert names == ["config.json", *sorted([weights, "preprocessor_config.json"])]
    assert is_encoder_cached(SPEC)
    encoder = load_image_encoder(SPEC, data_root=None, device="cpu")
    assert encoder.identity["commit"] == hub.commit("lab/clip")
    local = ImageEncoderSpec(path=str(folder), width=WIDTH, scales=SCALES)
    same = load_image_encoder(local, data_root=None, device="cpu")
    assert same.identity["weights_sha256"] == encoder.identity["weights_sha256"]


@pytest.mark.parametrize("pickled", [False, True])
def test_it_is_read_of_a_prefetched_folder(
    hub: Hub, cache: Path, tmp_path: Path, pickled: bool
) -> None:
    serve(hub, pickled=pickled)
    assert fetch(tmp_path / "to", CLIP) == []
    names = {path.name for path in snapshot(tmp_path / "to", CLIP).iterdir()}
    assert names >= {"config.json", "preprocessor_config.json"}
    assert not names & {"vocab.json", "tf_model.h5"}
    hub.asked.clear()
    use_prefetched(tmp_path / "to")
    encoder = load_image_encoder(SPEC, data_root=tmp_path / "to", device="cpu")
    assert encoder.encode([picture("red")]).features_NF.shape == (1, SPEC.num_features)
    assert hub.asked == []


def test_a_wrong_name_or_revision_is_one_line(hub: Hub, cache: Path) -> None:
    serve(hub)
    for changed, said in (
        ({"source": "lab/clap"}, "no such model on the hub, or a private one; correct image_enc"),
        ({"revision": "v9"}, "the model has no such revision; correct image_encoder's revision"),
    ):
        with pytest.raises(ModelError) as refused:
            find_encoder(SPEC.model_copy(update=changed), None)
        assert said in str(refused.value)
        assert "\n" not in str(refused.value)
