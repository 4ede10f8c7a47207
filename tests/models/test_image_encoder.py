"""Image encoders: what they give, what they are known by, and what is refused."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import weakref
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import CLIPVisionModel

from harness.errors import ModelError, ZbenchError
from harness.models.encoder_files import encoder_sha256
from harness.models.image_encoder import (
    ImageEncoder,
    ImageEncoderSpec,
    check_features,
    load_image_encoder,
)
from harness.readers.pictures import BadPicture, Picture
from tests.fixtures.image_encoder import (
    NUM_FEATURES,
    SCALES,
    SIZE,
    WIDTH,
    encoder_entry,
    picture,
    write_encoder,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_encoder(tmp_path_factory.mktemp("encoder"))


def spec_of(folder: Path | str, **changed: object) -> ImageEncoderSpec:
    return ImageEncoderSpec.model_validate(encoder_entry(folder, **changed))


def loaded(folder: Path, **changed: object) -> ImageEncoder:
    return load_image_encoder(spec_of(folder, **changed), data_root=None, device="cpu")


PICTURES = [picture("red"), picture("blue", (64, 16)), picture("red"), picture("green", (9, 40))]


def test_features_are_normed_class_tokens_of_the_stated_layers(folder: Path) -> None:
    found = loaded(folder).encode(PICTURES)
    assert found.names == tuple(dict.fromkeys(one.sha256 for one in PICTURES))
    assert found.features_NF.shape == (3, NUM_FEATURES)
    assert found.features_NF.dtype == torch.float32
    model = CLIPVisionModel.from_pretrained(folder).eval()
    tokens: list[torch.Tensor] = []
    for layer in SCALES:
        model.encoder.layers[layer - 1].register_forward_hook(
            lambda _module, _inputs, output: tokens.append(output[:, 0])
        )
    processor = loaded(folder).processor
    images = [PICTURES[place].decode() for place in (0, 1, 3)]
    with torch.no_grad():
        model(**processor(images=images, return_tensors="pt"))
    for place, token in enumerate(tokens):
        mean, variance = token.mean(-1, keepdim=True), token.var(-1, correction=0, keepdim=True)
        part = found.features_NF[:, place * WIDTH : (place + 1) * WIDTH]
        torch.testing.assert_close(part, (token - mean) / (variance + 1e-5).sqrt())


def test_a_pictures_features_do_not_depend_on_the_batch(folder: Path) -> None:
    encoder, told = loaded(folder), []
    many = [picture("red", (10 + n, 20)) for n in range(40)]
    together = encoder.encode(many, lambda done, count: told.append((done, count)))
    assert told == [(32, 40), (40, 40)]
    for one in (many[0], many[39]):
        torch.testing.assert_close(
            encoder.encode([one]).features_NF, together.select([one.sha256]), rtol=0, atol=1e-5
        )
    assert encoder.encode([]).features_NF.shape == (0, NUM_FEATURES)


def test_the_whole_clip_and_pickled_weights_are_the_same_encoder(
    folder: Path, tmp_path: Path
) -> None:
    expected = loaded(folder)
    whole = loaded(write_encoder(tmp_path / "clip", vision_alone=False))
    pickled = tmp_path / "pickled"
    shutil.copytree(folder, pickled)
    (pickled / "model.safetensors").unlink()
    torch.save(expected.model.state_dict(), pickled / "pytorch_model.bin")
    for other in (whole, loaded(pickled)):
        assert other.identity | {"source": ""} == expected.identity | {"source": ""}
        ours, theirs = (one.encode(PICTURES).features_NF for one in (expected, other))
        assert torch.equal(ours, theirs)


def test_the_layout_of_openais_repositories_is_read(folder: Path, tmp_path: Path) -> None:
    copied = write_encoder(tmp_path / "clip", vision_alone=False)
    settings = json.loads((copied / "preprocessor_config.json").read_text())
    kept = {name: settings[name] for name in ("image_mean", "image_std", "resample", "do_resize",
                                              "do_center_crop", "do_normalize")}  # fmt: skip
    old = {"feature_extractor_type": "CLIPFeatureExtractor", "size": SIZE, "crop_size": SIZE}
    (copied / "preprocessor_config.json").write_text(json.dumps(kept | old))
    config = json.loads((copied / "config.json").read_text())
    change(copied, "config.json", vision_config_dict=config["vision_config"])
    tensors = load_file(copied / "model.safetensors")
    tensors["vision_model.embeddings.position_ids"] = torch.arange(5)[None]
    torch.save(tensors, copied / "pytorch_model.bin")
    (copied / "model.safetensors").unlink()
    found, expected = loaded(copied), loaded(folder)
    assert found.identity | {"source": ""} == expected.identity | {"source": ""}
    ours, theirs = (one.encode(PICTURES).features_NF for one in (expected, found))
    assert torch.equal(ours, theirs)


def test_it_is_frozen_and_leaves_memory_with_its_last_reference(folder: Path) -> None:
    encoder = loaded(folder)
    assert not any(value.requires_grad for value in encoder.model.parameters())
    assert not any(module.training for module in encoder.model.modules())
    encoder.encode(PICTURES)
    model = weakref.ref(encoder.model)
    del encoder
    import gc

    gc.collect()
    assert model() is None


def test_weights_drawn_anew_are_the_same_each_time_and_others(folder: Path) -> None:
    torch.manual_seed(3)
    state = torch.get_rng_state()
    drawn, again = loaded(folder, pretrained=False), loaded(folder, pretrained=False)
    assert torch.equal(torch.get_rng_state(), state)
    assert drawn.identity == again.identity
    assert drawn.identity["weights_sha256"] != loaded(folder).identity["weights_sha256"]
    with pytest.raises(ModelError, match="features of another encoder"):
        check_features(drawn.identity, loaded(folder).identity, "adapter_config.json")
    check_features(drawn.identity, again.identity, "adapter_config.json")


@pytest.mark.parametrize("changed", [{"hidden_act": "gelu"}, {"num_attention_heads": 4}])
def test_the_same_weights_in_another_network_are_another_encoder(
    folder: Path, tmp_path: Path, changed: dict[str, object]
) -> None:
    copied = tmp_path / "copied"
    shutil.copytree(folder, copied)
    change(copied, "config.json", **changed)
    ours, theirs = loaded(folder), loaded(copied)
    assert ours.identity["weights_sha256"] == theirs.identity["weights_sha256"]
    assert not torch.equal(ours.encode(PICTURES).features_NF, theirs.encode(PICTURES).features_NF)
    with pytest.raises(ModelError, match="trained with network_sha256"):
        check_features(ours.identity, theirs.identity, "adapter_config.json")


def test_an_encoder_in_a_local_cache_of_the_hub_is_found(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    place = tmp_path / "models--some--clip"
    shutil.copytree(folder, place / "snapshots" / commit)
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    spec = ImageEncoderSpec(source="some/clip", width=WIDTH, scales=SCALES)
    monkeypatch.setattr("huggingface_hub._snapshot_download.constants.HF_HUB_CACHE", str(tmp_path))
    found = load_image_encoder(spec, data_root=None, device="cpu").identity
    assert (found["source"], found["revision"], found["commit"]) == ("some/clip", "main", commit)
    assert found["weights_sha256"] == loaded(folder).identity["weights_sha256"]
    with pytest.raises(ModelError, match="other/clip@main: neither in the local cache"):
        load_image_encoder(
            spec.model_copy(update={"source": "other/clip"}), data_root=None, device="cpu"
        )


def change(folder: Path, file: str, **settings: object) -> None:
    place = folder / file
    place.write_text(json.dumps(json.loads(place.read_text()) | settings))


@pytest.mark.parametrize(
    ("spoil", "stated", "said"),
    [
        (lambda f: None, {"width": 12}, "image_encoder.width is 12, this encoder's hidden_size is"),
        (lambda f: None, {"scales": [1, 4]}, "names layer 4, this encoder has 3 layers"),
        (lambda f: shutil.rmtree(f), {}, "no such folder"),
        (lambda f: (f / "config.json").unlink(), {}, "config.json: missing"),
        (lambda f: change(f, "config.json", model_type="bert"), {}, "'bert' is no CLIP"),
        (lambda f: change(f, "config.json", hidden_size="x"), {}, "hidden_size is no size"),
        (lambda f: (f / "preprocessor_config.json").unlink(), {}, "preprocessor_config.json: miss"),
        (
            lambda f: change(f, "preprocessor_config.json", crop_size={"height": 8, "width": 8}),
            {},
            f"makes pictures 3x8x8, its config.json says 3x{SIZE}x{SIZE}",
        ),
        (lambda f: (f / "model.safetensors").unlink(), {}, "model.safetensors"),
        (
            lambda f: (f / "model.safetensors").write_bytes(
                (f / "model.safetensors").read_bytes()[:-40]
            ),
            {},
            "model.safetensors",
        ),
        (lambda f: change(f, "config.json", intermediate_size=24), {}, "is of another shape"),
        (lambda f: change(f, "config.json", num_hidden_layers=4), {}, "is missing"),
    ],
)
def test_what_is_no_usable_encoder_is_one_line(
    folder: Path, tmp_path: Path, spoil: object, stated: dict[str, object], said: str
) -> None:
    copied = tmp_path / "copied"
    shutil.copytree(folder, copied)
    spoil(copied)  # type: ignore[operator]
    with pytest.raises(ZbenchError) as refused:
        loaded(copied, **stated)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_folder_that_changed_since_the_grid_was_read_is_refused(
    folder: Path, tmp_path: Path
) -> None:
    copied = tmp_path / "copied"
    shutil.copytree(folder, copied)
    sha256 = encoder_sha256(copied)
    loaded(copied, sha256=sha256)
    write_encoder(copied, seed=1)
    assert encoder_sha256(copied) != sha256
    with pytest.raises(ModelError, match="has changed since the grid was read"):
        loaded(copied, sha256=sha256)


def test_a_broken_picture_is_named(folder: Path) -> None:
    whole = picture("red", (40, 40))
    broken = Picture.of(whole.data[: len(whole.data) // 2])
    with pytest.raises(
        BadPicture, match=f"picture {broken.sha256[:12]}: .*(Truncated|end is missing)"
    ):
        loaded(folder).encode([whole, broken])


def test_nothing_asks_for_torchvision(folder: Path) -> None:
    code = (
        "import sys, warnings; warnings.simplefilter('error')\n"
        "from harness.models.image_encoder import *\n"
        f"spec = ImageEncoderSpec(path={str(folder)!r}, width={WIDTH}, scales={SCALES})\n"
        "load_image_encoder(spec, data_root=None, device='cpu')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "")
