"""The prompt methods as PEFT sees them: load, disable, switch, remove, and refuse."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import nn

import harness  # noqa: F401  # makes PEFT know the prompt methods
from harness.errors import MethodError, ModelError
from harness.methods import METHODS
from harness.methods.zero_init.options import GatedPromptOptions
from harness.models.adapter_folder import CONFIG_FILE, WEIGHTS_FILE
from harness.models.adapters import attach_adapter
from harness.models.loading import save_trained
from harness.testing import tiny_model as tiny_family
from tests.fixtures.tiny_models import PROMPT_METHODS, adapted, stir, tiny_model, token_ids

OPTIONS = {
    "random-init": {"prompt_length": 4},
    "zero-init-linear": {"num_layers": 3},
    "zero-init-nonlinear": {"hidden_size": 6, "activation": "gelu", "gate_activation": "identity"},
}


def logits(model: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model(token_ids()).logits


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, torch.Tensor]]:
    """An adapter folder of each method, with the logits of the model that it was saved from."""
    found = {}
    for seed, method in enumerate(PROMPT_METHODS):
        model = stir(adapted(method, tiny_model(), **OPTIONS[method]), seed=seed)
        folder = tmp_path_factory.mktemp(method)
        save_trained(model, folder, base_name="tiny")
        found[method] = (folder, logits(model))
    return found


Folders = dict[str, tuple[Path, torch.Tensor]]


@pytest.mark.parametrize("method", PROMPT_METHODS)
def test_stock_peft_loads_the_folder(method: str, folders: Folders) -> None:
    folder, expected = folders[method]
    assert PeftConfig.from_pretrained(folder).method == method
    base = tiny_model()
    plain = logits(base)
    model = PeftModel.from_pretrained(base, folder)
    assert torch.equal(logits(model), expected)
    assert not torch.equal(expected, plain)
    with model.disable_adapter():
        assert torch.equal(logits(model), plain)
    assert torch.equal(logits(model), expected)
    written = model.generate(input_ids=token_ids(), max_new_tokens=5, do_sample=False)
    assert written.shape == (3, 17)


def test_adapters_of_all_methods_are_switched_on_one_base(folders: Folders) -> None:
    first, *others = PROMPT_METHODS
    model = PeftModel.from_pretrained(tiny_model(), folders[first][0], adapter_name=first)
    for method in others:
        model.load_adapter(folders[method][0], adapter_name=method)
    for method in (*PROMPT_METHODS, *reversed(PROMPT_METHODS)):
        model.set_adapter(method)
        assert torch.equal(logits(model), folders[method][1]), method
    model.delete_adapter(others[0])
    model.set_adapter(first)
    assert torch.equal(logits(model), folders[first][1])
    plain = model.unload()
    assert type(plain).__name__ == "LlamaForCausalLM"
    assert torch.equal(logits(plain), logits(tiny_model()))
    assert {name for name, _ in plain.named_parameters()} == {
        name for name, _ in tiny_model().named_parameters()
    }


def test_a_switched_adapter_is_saved_under_its_own_name(folders: Folders, tmp_path: Path) -> None:
    model = PeftModel.from_pretrained(
        tiny_model(), folders["zero-init-linear"][0], adapter_name="a"
    )
    model.load_adapter(folders["zero-init-nonlinear"][0], adapter_name="b")
    model.save_pretrained(tmp_path, selected_adapters=["b"], save_embedding_layers=False)
    saved = load_file(tmp_path / "b" / WEIGHTS_FILE)
    original = load_file(folders["zero-init-nonlinear"][0] / WEIGHTS_FILE)
    assert saved.keys() == original.keys()
    assert all(torch.equal(saved[name], original[name]) for name in saved)


def test_what_is_trained_follows_the_switch(folders: Folders) -> None:
    model = PeftModel.from_pretrained(
        tiny_model(), folders["zero-init-linear"][0], adapter_name="a", is_trainable=True
    )
    model.load_adapter(folders["random-init"][0], adapter_name="b", is_trainable=True)
    for active in ("a", "b"):
        model.set_adapter(active)
        names = {name for name, value in model.named_parameters() if value.requires_grad}
        assert names
        assert all(name.endswith(f".{active}") for name in names)


def test_prompts_cannot_be_merged(folders: Folders) -> None:
    model = PeftModel.from_pretrained(tiny_model(), folders["random-init"][0])
    with pytest.raises(MethodError, match="cannot be merged"):
        model.merge_and_unload()


@pytest.mark.parametrize(
    "sizes",
    [
        {"num_hidden_layers": 5},
        {"hidden_size": 64},
        {"num_attention_heads": 8, "num_key_value_heads": 4},
    ],
)
def test_another_base_is_refused(sizes: dict[str, int], folders: Folders) -> None:
    for load in (PeftModel.from_pretrained, lambda m, f: attach_adapter(m, f, advice="")):
        with pytest.raises(ModelError, match="for another base model: .* this base has"):
            load(tiny_model(**sizes), folders["zero-init-linear"][0])


def edited(folder: Path, target: Path, **changes: object) -> Path:
    shutil.copytree(folder, target, dirs_exist_ok=True)
    config = json.loads((target / CONFIG_FILE).read_text())
    (target / CONFIG_FILE).write_text(json.dumps(config | changes))
    return target


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"method": "zero-init-cubic"}, "no prompt method 'zero-init-cubic'; known: random-init"),
        ({"options": {"prompt_length": 0}}, r"options\.prompt_length: must be at least 1"),
        ({"options": {"lenght": 3}}, r"options\.lenght: unknown"),
        ({"peft_type": "ZERO_INIT"}, "unknown peft_type 'ZERO_INIT'; did you mean"),
        ({"method": "random-init", "options": {"num_layers": 3}}, "is unexpected|not of this"),
    ],
)
def test_a_wrong_configuration_is_one_line(
    changes: dict[str, object], said: str, folders: Folders, tmp_path: Path
) -> None:
    folder = edited(folders["zero-init-linear"][0], tmp_path, **changes)
    with pytest.raises((ModelError, MethodError), match=said) as fault:
        attach_adapter(tiny_model(), folder, advice="copy it again")
    assert "\n" not in str(fault.value)


@pytest.mark.parametrize("change", ["missing", "surplus"])
def test_stock_peft_refuses_another_set_of_tensors(
    change: str, folders: Folders, tmp_path: Path
) -> None:
    """Alone, PEFT would load the rest and warn."""
    folder = edited(folders["zero-init-linear"][0], tmp_path)
    tensors = load_file(folder / WEIGHTS_FILE)
    name = next(iter(tensors))
    tensors = (
        {key: value for key, value in tensors.items() if key != name}
        if change == "missing"
        else tensors | {name.replace(".layers.1.", ".layers.0."): tensors[name].clone()}
    )
    save_file(tensors, folder / WEIGHTS_FILE)
    said = "is missing" if change == "missing" else "is unexpected"
    with pytest.raises(ModelError, match=said):
        PeftModel.from_pretrained(tiny_model(), folder)


def test_a_second_method_on_one_model_is_refused() -> None:
    model = get_peft_model(tiny_model(), LoraConfig(target_modules=["q_proj"]))
    with pytest.raises(MethodError):
        adapted("zero-init-linear", adapted("random-init", model.unload()).base_model.model)


@pytest.mark.parametrize("method", PROMPT_METHODS)
def test_loading_without_initial_values_gives_the_same(method: str, folders: Folders) -> None:
    model = PeftModel.from_pretrained(tiny_model(), folders[method][0], low_cpu_mem_usage=True)
    # Tensors lie elsewhere in memory, and kernels differ by that.
    torch.testing.assert_close(logits(model), folders[method][1], rtol=1e-5, atol=1e-6)


def test_when_the_active_adapter_goes_another_is_active_in_every_layer(folders: Folders) -> None:
    first, second, third = "zero-init-linear", "zero-init-nonlinear", "random-init"
    model = PeftModel.from_pretrained(tiny_model(), folders[first][0], adapter_name=first)
    for method in (second, third):
        model.load_adapter(folders[method][0], adapter_name=method)
    model.delete_adapter(first)
    assert model.active_adapters == [second]
    assert torch.equal(logits(model), folders[second][1])
    model.set_adapter(third)
    assert torch.equal(logits(model), folders[third][1])


def test_two_active_adapters_are_refused(folders: Folders) -> None:
    model = PeftModel.from_pretrained(tiny_model(), folders["random-init"][0], adapter_name="a")
    model.load_adapter(folders["zero-init-linear"][0], adapter_name="b")
    with pytest.raises(MethodError, match="one prompt adapter is active at a time, not a, b"):
        model.base_model.set_adapter(["a", "b"])


def test_a_second_adapter_of_one_name_is_refused(folders: Folders) -> None:
    model = PeftModel.from_pretrained(tiny_model(), folders["random-init"][0])
    with pytest.raises(MethodError, match="carries a prompt adapter called default already"):
        PeftModel.from_pretrained(model.get_base_model(), folders["zero-init-linear"][0])


def test_eager_attention_of_two_families_does_not_meet() -> None:
    """Each family has its own eager attention: Gemma 2's knows soft caps, Llama's does not."""
    gemma = tiny_family("gemma2")
    expected = logits(gemma)
    adapted_gemma = METHODS["zero-init-linear"].apply(gemma, GatedPromptOptions(), 0)
    llama = tiny_model()
    llama.set_attn_implementation("eager")
    plain = logits(llama)
    adapted_llama = METHODS["zero-init-linear"].apply(llama, GatedPromptOptions(), 0)
    assert torch.equal(logits(adapted_gemma), expected)
    assert torch.equal(logits(adapted_llama), plain)
    for model in (adapted_gemma, adapted_llama):
        assert model.unload().config._attn_implementation == "eager"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"method": ["zero-init-linear"]}, "no prompt method"),
        (
            {"options": {"prompt_length": 5, "num_layers": 3}},
            r"prompt_rows\.\w+ is 10x32, the model.s is 5x32",
        ),
        ({"base_shape": {"hidden_size": "big"}}, "base_shape: is no shape of a model"),
    ],
)
def test_stock_peft_says_what_is_wrong_in_one_line(
    changes: dict[str, object], said: str, folders: Folders, tmp_path: Path
) -> None:
    folder = edited(folders["zero-init-linear"][0], tmp_path, **changes)
    with pytest.raises((ModelError, MethodError), match=said) as fault:
        PeftModel.from_pretrained(tiny_model(), folder)
    assert "\n" not in str(fault.value)
