"""Pictures for a trained adapter under plain PEFT: saved, loaded, switched, deleted, generated."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from PIL import Image
from safetensors.torch import load_file, save_file

import harness
from harness.errors import MethodError, ModelError, ZbenchError
from harness.methods.zero_init.config import PromptConfig
from harness.methods.zero_init.pictures import record_encoder, trained_with
from harness.models.adapter_folder import CONFIG_FILE, WEIGHTS_FILE
from harness.models.image_encoder import ImageEncoderSpec, load_image_encoder
from harness.models.pictures import PROJECTION, pictures_of_rows, takes_pictures
from harness.readers.files import Unreadable
from harness.readers.pictures import BadPicture
from tests.fixtures.image_encoder import encoder_entry, picture, write_encoder
from tests.fixtures.tiny_models import PROMPT_METHODS, stir, tiny_model, token_ids

OPTIONS: dict[str, dict[str, object]] = {"zero-init-nonlinear": {"hidden_size": 6}}
PICTURES = (picture("red"), None, picture("blue", (40, 20)))


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_encoder(tmp_path_factory.mktemp("encoder"))


def config(method: str, encoder: Path | None, seed: int = 0) -> PromptConfig:
    options = {"num_layers": 2, "prompt_length": 4} | OPTIONS.get(method, {})
    if encoder is not None:
        options["image_encoder"] = encoder_entry(encoder)
    return PromptConfig(task_type="CAUSAL_LM", method=method, options=options, seed=seed)


def trained(method: str, encoder: Path) -> PeftModel:
    """An adapter as after its training."""
    model = stir(get_peft_model(tiny_model(), config(method, encoder)))
    spec = ImageEncoderSpec.model_validate(encoder_entry(encoder))
    record_encoder(model, load_image_encoder(spec, data_root=None, device="cpu").identity)
    return model.eval()


def images() -> list[Any]:
    return [None if one is None else one.data for one in PICTURES]


@torch.no_grad()
def logits(model: Any, given: Any = None, **options: Any) -> torch.Tensor:
    if given is None:
        return model(token_ids()).logits
    with harness.pictures(model, given, **options):
        return model(token_ids()).logits


def expected_logits(model: Any, encoder: Path) -> torch.Tensor:
    spec = ImageEncoderSpec.model_validate(encoder_entry(encoder))
    features = load_image_encoder(spec, data_root=None, device="cpu").encode(
        [one for one in PICTURES if one is not None]
    )
    names = [one and one.sha256 for one in PICTURES]
    told = pictures_of_rows(model, features, names, torch.device("cpu"))
    with torch.no_grad():
        return model(token_ids(), pictures=told).logits


@pytest.mark.parametrize("method", PROMPT_METHODS)
def test_saved_and_loaded_by_peft_it_gives_the_same_logits(
    method: str, encoder: Path, tmp_path: Path
) -> None:
    model = trained(method, encoder)
    found = logits(model, images())
    assert torch.equal(found, expected_logits(model, encoder))
    assert torch.equal(found[1], logits(model)[1])
    assert not torch.equal(found[0], logits(model)[0])
    model.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(tiny_model(), tmp_path)
    assert torch.equal(logits(loaded, images()), found)
    stated = json.loads((tmp_path / CONFIG_FILE).read_text())
    assert stated["options"]["image_encoder"]["path"] == str(encoder)
    assert stated["image_encoder"] == trained_with(model)
    assert len(stated["image_encoder"]["weights_sha256"]) == 64


def test_an_adapter_without_pictures_is_stored_as_before(tmp_path: Path) -> None:
    get_peft_model(tiny_model(), config("zero-init-linear", None)).save_pretrained(tmp_path)
    stated = json.loads((tmp_path / CONFIG_FILE).read_text())
    assert "image_encoder" not in {**stated, **stated["options"]}


def test_a_missing_tensor_of_the_projection_is_told(encoder: Path, tmp_path: Path) -> None:
    trained("zero-init-linear", encoder).save_pretrained(tmp_path)
    tensors = load_file(tmp_path / WEIGHTS_FILE)
    (down,) = (name for name in tensors if "prompt_image_down" in name)
    del tensors[down]
    save_file(tensors, tmp_path / WEIGHTS_FILE)
    with pytest.raises(ModelError, match="prompt_image_down.default.weight is missing"):
        PeftModel.from_pretrained(tiny_model(), tmp_path)


def test_adapters_with_and_without_pictures_live_side_by_side(encoder: Path) -> None:
    model = trained("zero-init-linear", encoder)
    seeing, blind = logits(model, images()), logits(model)
    model.add_adapter("plain", config("random-init", None))
    model.add_adapter("other", config("zero-init-nonlinear", encoder, seed=3))
    model.set_adapter("plain")
    assert not takes_pictures(model)
    with pytest.raises(MethodError, match=r"the active adapter \(random-init\) takes none"):
        logits(model, images())
    model.set_adapter("other")
    assert takes_pictures(model)
    stir(model, seed=9)
    other = logits(model, images())
    assert not torch.equal(other, seeing)
    model.set_adapter("default")
    assert torch.equal(logits(model, images()), seeing)
    assert torch.equal(logits(model), blind)
    with model.disable_adapter(), pytest.raises(MethodError, match="adapters are disabled"):
        logits(model, images())
    with harness.pictures(model, images()):
        model.set_adapter("plain")
        plain = model(token_ids()).logits  # which looks at none
        model.set_adapter("other")
        with pytest.raises(MethodError, match="projected by the adapter default, and now other"):
            model(token_ids())
    model.set_adapter("plain")
    assert torch.equal(plain, model(token_ids()).logits)


def test_a_deleted_adapter_takes_its_projection_with_it(encoder: Path) -> None:
    model = trained("zero-init-linear", encoder)
    seeing = logits(model, images())
    model.add_adapter("other", config("zero-init-linear", encoder, seed=3))
    model.delete_adapter("other")
    assert torch.equal(logits(model, images()), seeing)
    names = [name for name, _ in model.named_parameters() if "prompt_image" in name]
    assert len(names) == 2
    model.add_adapter("plain", config("zero-init-linear", None))
    model.delete_adapter("default")
    assert model.active_adapters == ["plain"]
    assert not takes_pictures(model)
    assert not [name for name, _ in model.named_parameters() if "prompt_image" in name]


def test_unloading_leaves_the_base_as_it_was(encoder: Path) -> None:
    base = tiny_model()
    expected, names = logits(base), dict(base.named_parameters()).keys()
    model = stir(get_peft_model(base, config("random-init", encoder)))
    assert not torch.equal(logits(model), expected)
    plain = model.unload()
    assert torch.equal(logits(plain), expected)
    assert dict(plain.named_parameters()).keys() == names
    assert not hasattr(plain.get_decoder(), PROJECTION)


def test_pictures_are_given_decoded_encoded_or_as_files(encoder: Path, tmp_path: Path) -> None:
    model = trained("zero-init-linear", encoder)
    data = PICTURES[0].data if PICTURES[0] else b""
    (tmp_path / "one.png").write_bytes(data)
    expected = logits(model, data)
    assert torch.equal(logits(model, [data] * 3), expected)
    for given in (Image.open(io.BytesIO(data)), tmp_path / "one.png", str(tmp_path / "one.png")):
        assert torch.equal(logits(model, given), expected)
    shutil.copytree(encoder, tmp_path / "elsewhere")
    for loaded in (
        harness.image_encoder(model),
        harness.image_encoder(model, path=tmp_path / "elsewhere"),
    ):
        assert torch.equal(logits(model, data, encoder=loaded), expected)


@pytest.mark.parametrize("options", [{}, {"num_beams": 3}])
def test_generation_is_that_of_each_row_with_its_own_picture(
    encoder: Path, options: dict[str, Any]
) -> None:
    model, ids = trained("zero-init-linear", encoder), token_ids()
    told = {"max_new_tokens": 6, "pad_token_id": 0, **options}

    def written(ids: torch.Tensor, given: Any) -> torch.Tensor:
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        with harness.pictures(model, given):
            return model.generate(**inputs, **told)

    together = written(ids, images())
    for row in (0, 2):
        assert torch.equal(written(ids[row : row + 1], images()[row])[0], together[row])


def test_several_answers_of_a_row_share_its_picture(encoder: Path) -> None:
    model, ids = trained("random-init", encoder), token_ids()
    told = {"max_new_tokens": 1, "pad_token_id": 0, "do_sample": True, "num_return_sequences": 2}
    options = {"output_logits": True, "return_dict_in_generate": True}
    with harness.pictures(model, images()):
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        found = model.generate(**inputs, **told, **options)
    last = logits(model, images())[:, -1].repeat_interleave(2, dim=0)
    torch.testing.assert_close(found.logits[0], last, rtol=1e-5, atol=1e-5)


def test_nothing_stays_on_the_model(encoder: Path) -> None:
    model = trained("zero-init-linear", encoder)
    expected = logits(model)
    with pytest.raises(ZeroDivisionError), harness.pictures(model, images()):
        raise ZeroDivisionError
    assert torch.equal(logits(model), expected)


def test_another_encoder_is_refused(encoder: Path, tmp_path: Path) -> None:
    model = trained("zero-init-linear", encoder)
    folder = tmp_path / "adapter"
    model.save_pretrained(folder)
    moved = tmp_path / "encoder"
    shutil.copytree(encoder, moved)
    stated = json.loads((folder / CONFIG_FILE).read_text())
    stated["options"]["image_encoder"]["path"] = "encoder"
    (folder / CONFIG_FILE).write_text(json.dumps(stated))
    loaded = PeftModel.from_pretrained(tiny_model(), folder)
    with pytest.raises(MethodError, match=r"relative path \(encoder\); give data_root="):
        logits(loaded, images())
    expected = logits(model, images())
    assert torch.equal(logits(loaded, images(), data_root=tmp_path), expected)
    write_encoder(moved, seed=1)
    with pytest.raises(ModelError, match="features of another encoder") as refused:
        logits(loaded, images(), data_root=tmp_path)
    assert "\n" not in str(refused.value)
    other = load_image_encoder(
        ImageEncoderSpec.model_validate(encoder_entry(moved)), data_root=None, device="cpu"
    )
    with pytest.raises(ModelError, match="features of another encoder"):
        logits(model, images(), encoder=other)


def lora() -> PeftModel:
    return get_peft_model(tiny_model(), LoraConfig(task_type="CAUSAL_LM", r=2))


def test_what_takes_no_pictures_is_one_line(encoder: Path) -> None:
    plain = get_peft_model(tiny_model(), config("zero-init-linear", None))
    for model, said in (
        (tiny_model(), "the model carries no adapter"),
        (lora(), "the active adapter (lora) takes none"),
        (plain, "the active adapter (zero-init-linear) takes none"),
    ):
        with pytest.raises(MethodError) as refused:
            logits(model, images())
        assert said in str(refused.value)
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("given", "kind", "said"),
    [
        ([], MethodError, "no image is given"),
        ([b""] * 3, BadPicture, r"images\[0\]: the picture has zero bytes"),
        ([None, b"text", None], BadPicture, r"images\[1\]: its bytes are no picture"),
        ([3, None, None], BadPicture, r"images\[0\]: is a int, no picture"),
        ("/nowhere/a.png", Unreadable, "/nowhere/a.png: no such file"),
    ],
)
def test_what_is_no_picture_is_one_line(
    encoder: Path, given: Any, kind: type[ZbenchError], said: str
) -> None:
    with pytest.raises(kind, match=said):
        logits(trained("zero-init-linear", encoder), given)


def test_another_number_of_rows_is_one_line(encoder: Path) -> None:
    model = trained("zero-init-linear", encoder)
    with pytest.raises(MethodError, match="given for 2 rows, the batch has 3"):
        logits(model, images()[:2])
