"""Loading and identifying base models; saving and loading what was trained."""

from __future__ import annotations

import hashlib
import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import huggingface_hub
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import LlamaForCausalLM

from harness.errors import ModelError, StorageError, ZbenchError
from harness.models.adapter_folder import CONFIG_FILE, WEIGHTS_FILE
from harness.models.checkpoint import ModelSpec
from harness.models.families import FAMILIES
from harness.models.loading import (
    count_parameters,
    load_base,
    load_trained,
    save_trained,
    trained_parameters,
)
from harness.models.trained_files import TRAINED_FILE
from harness.testing import tiny_model as tiny_family
from tests.fixtures.tiny_checkpoint import edit_json, write_checkpoint
from tests.fixtures.tiny_models import adapted, shape, stir, tiny_model, token_ids
from tests.models.test_checkpoint import COMMIT, fill


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    write_checkpoint(folder)
    return folder


@pytest.fixture
def folder(written: Path, tmp_path: Path) -> Path:
    """A checkpoint in one file that a test may spoil."""
    return Path(shutil.copytree(written, tmp_path / "tiny"))


def spec_of(folder: Path) -> ModelSpec:
    return ModelSpec(path=str(folder), shape=shape())


def load(folder: Path, precision: str = "fp32") -> nn.Module:
    return load_base(spec_of(folder), data_root=None, device="cpu", precision=precision).model


def test_a_loaded_model_computes_what_was_saved(written: Path) -> None:
    model = load(written)
    with torch.no_grad():
        assert torch.equal(model(token_ids()).logits, tiny_model()(token_ids()).logits)
    assert not model.training
    assert model.config._attn_implementation == "sdpa"


@pytest.mark.parametrize(
    ("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)]
)
def test_the_weights_have_the_precision(written: Path, precision: str, dtype: torch.dtype) -> None:
    assert {value.dtype for value in load(written, precision).parameters()} == {dtype}


def test_the_identity_says_which_model_it_is(written: Path) -> None:
    base = load_base(spec_of(written), data_root=None, device="cpu", precision="fp32")
    weights = hashlib.sha256((written / "model.safetensors").read_bytes()).hexdigest()
    text = base.tokenizer.backend_tokenizer.to_str()
    assert base.identity == {
        "source": written.name,
        "revision": None,
        "commit": None,
        "weights_sha256": weights,
        "tokenizer_sha256": hashlib.sha256(text.encode()).hexdigest(),
        "precision": "fp32",
        "num_parameters": shape().num_parameters,
    }


def test_use_of_the_tokenizer_does_not_change_its_identity(written: Path) -> None:
    first = load_base(spec_of(written), data_root=None, device="cpu", precision="fp32")
    first.tokenizer.pad_token = "<pad>"
    first.tokenizer(["word1", "word1 word2"], padding=True, truncation=True, max_length=5)
    second = load_base(spec_of(written), data_root=None, device="cpu", precision="fp32")
    assert first.identity == second.identity


def test_a_hub_model_is_identified_by_its_commit(
    written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    fill(tmp_path, written)
    spec = ModelSpec(source="somebody/tiny", shape=shape())
    identity = load_base(spec, data_root=None, device="cpu", precision="bf16").identity
    assert (identity["source"], identity["revision"]) == ("somebody/tiny", "main")
    assert (identity["commit"], identity["weights_sha256"]) == (COMMIT, None)
    assert identity["precision"] == "bf16"


def rewrite(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def test_a_missing_tensor_is_never_made_up(folder: Path) -> None:
    rewrite(folder, lambda tensors: tensors.pop("model.layers.1.mlp.up_proj.weight"))
    with pytest.raises(ModelError, match=r"layer 1: mlp\.up_proj\.weight is missing, in oth"):
        load(folder)


def test_a_tensor_of_another_shape_is_never_made_up(folder: Path) -> None:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        tensors["model.norm.weight"] = torch.ones(31)

    rewrite(folder, change)
    with pytest.raises(ModelError, match=r"model\.norm\.weight is 31, config\.json says 32"):
        load(folder)


def test_weights_of_a_deeper_model_are_refused(folder: Path) -> None:
    edit_json(folder / "config.json", num_hidden_layers=3)
    spec = ModelSpec(path=str(folder), shape=shape().model_copy(update={"num_hidden_layers": 3}))
    with pytest.raises(ModelError, match=r"it has a layer 3, config\.json says num_hidden_l"):
        load_base(spec, data_root=None, device="cpu", precision="fp32")


def test_stored_rotary_frequencies_do_no_harm(folder: Path) -> None:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(4)

    rewrite(folder, change)
    assert count_parameters(load(folder))[1] == shape().num_parameters


def test_tied_embeddings_are_no_missing_tensor(tmp_path: Path) -> None:
    write_checkpoint(tmp_path)
    rewrite(tmp_path, lambda tensors: tensors.pop("lm_head.weight"))
    edit_json(tmp_path / "config.json", tie_word_embeddings=True)
    tied = shape().model_copy(update={"tie_word_embeddings": True})
    spec = ModelSpec(path=str(tmp_path), shape=tied)
    base = load_base(spec, data_root=None, device="cpu", precision="fp32")
    assert base.identity["num_parameters"] == tied.num_parameters


def test_another_shape_is_refused_before_the_weights_are_read(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    spec = ModelSpec(path=str(folder), shape=shape().model_copy(update={"vocab_size": 32000}))
    with pytest.raises(ModelError, match="vocab_size is 61, the grid states 32000"):
        load_base(spec, data_root=None, device="cpu", precision="fp32")


def test_loading_prints_nothing(written: Path, capfd: pytest.CaptureFixture[str]) -> None:
    load(written)
    captured = capfd.readouterr()
    assert captured.out + captured.err == ""


def test_shared_parameters_count_once() -> None:
    model = nn.ModuleDict({"first": nn.Linear(3, 3, bias=False), "last": nn.Linear(3, 2)})
    model["again"] = model["first"]
    model["last"].requires_grad_(False)
    assert count_parameters(model) == (9, 17)
    assert list(trained_parameters(model)) == ["first.weight"]


def test_the_file_holds_exactly_what_is_trained(tmp_path: Path) -> None:
    model = stir(adapted("full", tiny_model(dtype=torch.bfloat16)))
    save_trained(model, tmp_path / "new" / "folder")
    stored = load_file(tmp_path / "new" / "folder" / TRAINED_FILE)
    trained = trained_parameters(model)
    assert stored.keys() == trained.keys()
    assert all(torch.equal(stored[name], trained[name]) for name in stored)
    assert [file.name for file in (tmp_path / "new" / "folder").iterdir()] == [TRAINED_FILE]


@pytest.mark.parametrize("name", ["lora", "zero-init-linear"])
def test_an_adapter_is_written_in_pefts_own_format(name: str, tmp_path: Path) -> None:
    model = stir(adapted(name, tiny_model()))
    save_trained(model, tmp_path, base_name="somebody/tiny")
    assert sorted(file.name for file in tmp_path.iterdir()) == [CONFIG_FILE, WEIGHTS_FILE]
    stored = load_file(tmp_path / WEIGHTS_FILE)
    trained = trained_parameters(model)
    assert len(stored) == len(trained)
    for key, value in trained.items():
        left_out = key.replace(".default", "").replace(".adapters", "")
        found = [v for k, v in stored.items() if k.replace(".adapters", "") == left_out]
        assert len(found) == 1, key
        assert torch.equal(found[0], value), key


def test_a_model_without_trained_tensors_is_saved_and_loaded(tmp_path: Path) -> None:
    save_trained(adapted("base", tiny_model()), tmp_path)
    load_trained(adapted("base", tiny_model()), tmp_path)
    assert load_file(tmp_path / TRAINED_FILE) == {}


@contextmanager
def full_disk() -> Iterator[None]:
    """Lets no file of this process grow beyond a kilobyte, the test run's own output included."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_save_that_fails_half_way_leaves_the_old_file(tmp_path: Path) -> None:
    model = adapted("full", tiny_model())
    save_trained(model, tmp_path)
    before = (tmp_path / TRAINED_FILE).read_bytes()
    changed = stir(model)
    with (
        pytest.raises(StorageError, match="cannot be written .*; free space") as caught,
        full_disk(),
    ):
        save_trained(changed, tmp_path)
    assert "\n" not in str(caught.value)
    assert (tmp_path / TRAINED_FILE).read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == [TRAINED_FILE]


@pytest.mark.parametrize("name", ["full", "random-init"])
def test_a_folder_that_cannot_be_made_is_named(name: str, tmp_path: Path) -> None:
    blocked = tmp_path / "blocked"
    blocked.write_text("a file where a folder should be")
    with pytest.raises(StorageError, match=r"blocked.*cannot be written"):
        save_trained(adapted(name, tiny_model()), blocked)


def refuses(name: str, folder: Path, line: str) -> bool:
    """Whether a method's fresh model refuses a folder with this line, and stays as it was."""
    model = adapted(name, tiny_model())
    before = {key: value.detach().clone() for key, value in model.named_parameters()}
    with pytest.raises(ZbenchError, match=line) as caught:
        load_trained(model, folder)
    same = all(torch.equal(value, before[key]) for key, value in model.named_parameters())
    return same and "\n" not in str(caught.value)


def test_another_method_is_refused_and_nothing_is_changed(tmp_path: Path) -> None:
    save_trained(stir(adapted("zero-init-linear", tiny_model())), tmp_path)
    assert refuses(
        "random-init", tmp_path, "not of this method and model: method is zero-init-linear"
    )
    assert refuses(
        "zero-init-nonlinear", tmp_path, "not of this method and model: method is zero-init-l"
    )
    assert refuses(
        "lora", tmp_path, "not of this method and model: peft_type is ZERO_INIT_PROMPT, .*LORA"
    )
    assert refuses("full", tmp_path, r"trained\.safetensors: no such file")
    save_trained(stir(adapted("full", tiny_model())), tmp_path)
    assert refuses(
        "base", tmp_path, r"not of this method and model: lm_head\.weight is unexpected; .*more"
    )


def test_another_size_is_refused(tmp_path: Path) -> None:
    save_trained(adapted("zero-init-linear", tiny_model(), prompt_length=9), tmp_path)
    assert refuses("zero-init-linear", tmp_path, r"prompt_length is 9, the model's is 10")
    edit_json(tmp_path / CONFIG_FILE, options=None)
    assert refuses("zero-init-linear", tmp_path, r"rows is 9x32, the model's is 10x32")
    save_trained(adapted("full", tiny_model(vocab_size=60)), tmp_path)
    assert refuses("full", tmp_path, r"lm_head\.weight is 60x32, the model's is 61x32")


@pytest.mark.parametrize(
    ("name", "first", "weights"),
    [("full", TRAINED_FILE, TRAINED_FILE), ("random-init", CONFIG_FILE, WEIGHTS_FILE)],
)
def test_a_damaged_or_missing_file_is_refused(
    name: str, first: str, weights: str, tmp_path: Path
) -> None:
    assert refuses(name, tmp_path, rf"{first}: no such file; to train the cell again, remove")
    save_trained(adapted(name, tiny_model()), tmp_path)
    file = tmp_path / weights
    file.write_bytes(file.read_bytes()[:-8])
    assert refuses(
        name, tmp_path, rf"{weights}: has .* bytes, its header says .* train the cell again"
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_loaded_with_its_own_attention(family: str, tmp_path: Path) -> None:
    original = tiny_family(family)
    spec = write_checkpoint(tmp_path, model=original)
    base = load_base(spec, data_root=None, device="cpu", precision="fp32")
    with torch.no_grad():
        expected = original(token_ids()).logits
        assert torch.equal(base.model(token_ids()).logits, expected)


def test_parts_that_the_shape_does_not_tell_are_refused(tmp_path: Path) -> None:
    config = tiny_family("llama").config
    config.attention_bias = True
    spec = write_checkpoint(tmp_path, model=LlamaForCausalLM(config))
    with pytest.raises(ModelError, match=r"has [\d,]+ parameters, a llama of this shape has"):
        load_base(spec, data_root=None, device="cpu", precision="fp32")
