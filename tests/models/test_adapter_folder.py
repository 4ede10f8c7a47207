"""PEFT's adapter folders: whole or not at all, strict in what they are loaded into."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from torch import nn

from harness.errors import ModelError, StorageError, ZbenchError
from harness.methods.lora import LoraOptions, apply_lora
from harness.methods.prompt_tuning import PrefixTuningOptions, apply_prefix_tuning
from harness.methods.vera import VeraOptions, apply_vera
from harness.models.adapter_check import check_adapter
from harness.models.adapter_folder import (
    CONFIG_FILE,
    WEIGHTS_FILE,
    adapter_size,
    load_adapter,
    read_adapter_config,
    save_adapter,
)
from harness.models.adapters import attach_adapter
from harness.models.shape import shape_of
from harness.readers.files import Unreadable
from tests.fixtures.tiny_checkpoint import edit_json
from tests.fixtures.tiny_models import stir, tiny_model, token_ids
from tests.models.test_loading import full_disk


def lora(seed: int = 5, heads: str = "grouped-query", **options: object) -> PeftModel:
    return apply_lora(tiny_model(heads), LoraOptions.model_validate(options), seed)


def logits(model: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model(token_ids()).logits


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_adapter(stir(lora()), tmp_path / "adapter", base_name="somebody/tiny")
    return tmp_path / "adapter"


def state(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def refusal(model: nn.Module, folder: Path) -> str:
    """Returns the line that refuses a folder; the model is left as it was."""
    before = state(model)
    with pytest.raises(ZbenchError) as caught:
        load_adapter(model, folder, advice="do something")
    assert "\n" not in str(caught.value)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    return str(caught.value)


def test_a_folder_holds_two_files_in_pefts_names(folder: Path) -> None:
    assert sorted(file.name for file in folder.iterdir()) == [CONFIG_FILE, WEIGHTS_FILE]
    tensors = load_file(folder / WEIGHTS_FILE)
    assert len(tensors) == 16
    assert "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight" in tensors
    config = json.loads((folder / CONFIG_FILE).read_text())
    assert config["base_model_name_or_path"] == "somebody/tiny"
    assert (config["peft_type"], config["task_type"]) == ("LORA", "CAUSAL_LM")
    assert config["inference_mode"] is True


def test_no_path_of_this_machine_is_stored(tmp_path: Path) -> None:
    model = tiny_model()
    model.name_or_path = "/home/somebody/models/tiny"
    save_adapter(apply_lora(model, LoraOptions(), 0), tmp_path)
    assert json.loads((tmp_path / CONFIG_FILE).read_text())["base_model_name_or_path"] is None


def test_saving_leaves_the_model_trainable(tmp_path: Path) -> None:
    model = lora()
    save_adapter(model, tmp_path)
    assert model.peft_config["default"].inference_mode is False
    assert sum(value.requires_grad for value in model.parameters()) == 16


def test_the_same_model_gives_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    save_adapter(stir(lora()), tmp_path / "again", base_name="somebody/tiny")
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        assert (folder / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_other_files_of_the_folder_stay(folder: Path) -> None:
    (folder / "README.md").write_text("a GPU")
    save_adapter(stir(lora(), seed=8), folder)
    assert (folder / "README.md").read_text() == "a GPU"


def test_a_save_that_fails_half_way_leaves_the_old_files(folder: Path) -> None:
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    changed = stir(lora(), seed=8)
    with (
        pytest.raises(StorageError, match="cannot be written .*; free space") as caught,
        full_disk(),
    ):
        save_adapter(changed, folder)
    assert "\n" not in str(caught.value)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


@pytest.mark.parametrize("step", [0, 1])
def test_killed_between_two_files_it_never_reads_as_whole(
    folder: Path, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped before the n-th file is put in place, after the old configuration is gone."""

    class Killed(BaseException):
        pass

    renamed: list[Path] = []
    rename = Path.replace

    def replace(source: Path, target: Path) -> Path:
        if len(renamed) == step:
            raise Killed
        renamed.append(source)
        return rename(source, target)

    old, new = lora(), stir(lora(rank=4, alpha=99), seed=8)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", replace)
        with pytest.raises(Killed):
            save_adapter(new, folder)
    assert re.search(r"adapter_config\.json: no such file; do something", refusal(old, folder))
    save_adapter(new, folder)
    fresh = lora(rank=4, alpha=99)
    load_adapter(fresh, folder, advice="")
    assert torch.equal(logits(fresh), logits(new))


def test_missing_files_are_named(folder: Path, tmp_path: Path) -> None:
    assert re.search(
        r"nowhere/adapter_config\.json: no such file; do something",
        refusal(lora(), tmp_path / "nowhere"),
    )
    (folder / WEIGHTS_FILE).unlink()
    assert re.search(
        r"adapter_model\.safetensors: no such file; do something", refusal(lora(), folder)
    )


@pytest.mark.parametrize("kept", [-8, 40, 4, 0])
def test_truncated_tensors_are_refused(folder: Path, kept: int) -> None:
    file = folder / WEIGHTS_FILE
    file.write_bytes(file.read_bytes()[:kept])
    assert re.search("(its header says .*|is empty .*); do something", refusal(lora(), folder))
    with pytest.raises(ZbenchError, match="; (fetch|make or fetch)"):
        adapter_size(folder)


def execute(command: str) -> None:
    """Runs the Python code of a command `(cd FOLDER && python -c "CODE")`, in its folder."""
    found = re.search(r'\(cd (\S+) && python -c "(.*)"\)$', command)
    assert found is not None
    with contextlib.chdir(found[1]):
        exec(found[2], {})


@pytest.mark.parametrize("change", ["pickled", "named", "bare"])
def test_adapters_of_other_versions_are_told_with_a_command_that_converts_them(
    folder: Path, change: str
) -> None:
    tensors = load_file(folder / WEIGHTS_FILE)
    if change == "pickled":
        (folder / WEIGHTS_FILE).unlink()
        torch.save(tensors, folder / "adapter_model.bin")
    elif change == "named":
        old = {name.replace(".weight", ".default.weight"): t for name, t in tensors.items()}
        save_file(old, folder / WEIGHTS_FILE)
    else:
        bare = {name.removeprefix("base_model.model."): t for name, t in tensors.items()}
        save_file(bare, folder / WEIGHTS_FILE)
    with pytest.raises(Unreadable, match=r"; (convert it|rename its tensors): ") as caught:
        check_adapter(folder, shape_of(tiny_model().config))
    assert caught.value.cause == "other format"
    with pytest.raises(Unreadable, match=r"; (convert it|rename its tensors): "):
        attach_adapter(tiny_model(), folder)
    execute(str(caught.value))
    check_adapter(folder, shape_of(tiny_model().config))
    assert torch.equal(logits(attach_adapter(tiny_model(), folder)), logits(stir(lora())))


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "is empty"),
        ('{"peft_type": "LO', "is no JSON"),
        ("[" * 1000, "nested more than"),
        ("[]", "holds a list"),
        ('{"r": 8}', "does not say its peft_type"),
        ('{"peft_type": 3}', "does not say its peft_type"),
        ('{"peft_type": "VERA"}', "peft_type is VERA, the model's is LORA"),
        ('{"peft_type": "NEVER_HEARD"}', "unknown peft_type 'NEVER_HEARD'"),
    ],
)
def test_a_damaged_configuration_is_refused(folder: Path, text: str, line: str) -> None:
    (folder / CONFIG_FILE).write_text(text)
    assert re.search(rf"adapter_config\.json: .*{line}", refusal(lora(), folder))


def test_other_settings_are_refused_even_where_every_shape_agrees(folder: Path) -> None:
    assert re.search(
        "not of this method and model: lora_alpha is 16", refusal(lora(alpha=32), folder)
    )
    edit_json(folder / CONFIG_FILE, use_rslora=True)
    assert re.search("use_rslora is True, the model's is False", refusal(lora(), folder))


def test_settings_of_training_do_not_matter(folder: Path) -> None:
    model = lora(dropout=0.5).eval()
    load_adapter(model, folder, advice="")
    assert torch.equal(logits(model), logits(stir(lora())))


def rewrite(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(folder / WEIGHTS_FILE)
    change(tensors)
    save_file(tensors, folder / WEIGHTS_FILE, metadata={"format": "pt"})


def test_other_tensors_are_refused(folder: Path) -> None:
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
    rewrite(folder, lambda tensors: tensors.update(surplus=torch.ones(2)))
    assert re.search("not of this method and model: surplus is unexpected", refusal(lora(), folder))
    rewrite(folder, lambda tensors: (tensors.pop("surplus"), tensors.pop(name)))
    assert re.search("lora_A.weight is missing", refusal(lora(), folder))
    rewrite(folder, lambda tensors: tensors.update({name: torch.ones(8, 31)}))
    assert re.search("lora_A.weight is 8x31, the model's is 8x32", refusal(lora(), folder))


def test_another_base_is_refused(folder: Path) -> None:
    assert re.search(
        r"lora_B\.weight is 32x8, the model's is 48x8", refusal(lora(heads="wide-heads"), folder)
    )
    with pytest.raises(ModelError, match="the model's is 48x8"):
        attach_adapter(tiny_model("wide-heads"), folder, advice="")


def test_another_virtual_length_is_refused(tmp_path: Path) -> None:
    save_adapter(
        apply_prefix_tuning(tiny_model(), PrefixTuningOptions(num_virtual_tokens=4), 0), tmp_path
    )
    model = apply_prefix_tuning(tiny_model(), PrefixTuningOptions(num_virtual_tokens=5), 0)
    assert re.search("num_virtual_tokens is 4, the model's is 5", refusal(model, tmp_path))


def test_any_adapter_of_peft_can_be_attached(tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=3, target_modules="all-linear", use_rslora=True, task_type="CAUSAL_LM")
    model = stir(get_peft_model(tiny_model(), config)).eval()
    model.save_pretrained(tmp_path, save_embedding_layers=False)
    attached = attach_adapter(tiny_model(), tmp_path, advice="")
    assert torch.equal(logits(attached), logits(model))
    assert not torch.equal(logits(attached), logits(tiny_model()))


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"peft_type": "LORRA"}, r"unknown peft_type 'LORRA'; did you mean 'LORA'\?"),
        ({"a_setting_of_tomorrow": 1}, "a_setting_of_tomorrow: no setting of LoraConfig"),
        ({"r": 0}, "r must be from 1 to"),
        ({"target_modules": ["none_such"]}, "does not fit LlamaForCausalLM"),
        ({"layers_to_transform": [0], "target_modules": "["}, "PEFT .*its settings"),
    ],
)
def test_what_peft_does_not_know_is_refused(
    folder: Path, changes: dict[str, Any], line: str
) -> None:
    edit_json(folder / CONFIG_FILE, **changes)
    with pytest.raises(ZbenchError, match=line) as caught:
        attach_adapter(tiny_model(), folder)
    assert "\n" not in str(caught.value)


def test_an_attached_adapter_imports_no_module_by_name(folder: Path) -> None:
    edit_json(
        folder / CONFIG_FILE,
        megatron_config={"a": 1},
        megatron_core="antigravity",
        auto_mapping={"base_model_class": "X", "parent_library": "antigravity"},
    )
    attached = attach_adapter(tiny_model(), folder, advice="")
    assert torch.equal(logits(attached), logits(stir(lora())))
    assert "antigravity" not in sys.modules


def test_the_size_is_what_was_trained(tmp_path: Path) -> None:
    save_adapter(apply_vera(tiny_model(), VeraOptions(rank=8), 0), tmp_path)
    outputs = 32 + 16 + 16 + 32 + 48 + 48 + 32
    assert adapter_size(tmp_path) == 4 * (7 * 8 + outputs)
    assert sum(value.numel() for value in load_file(tmp_path / WEIGHTS_FILE).values()) == (
        4 * (7 * 8 + outputs) + 8 * 48 + 48 * 8
    )


def test_planning_reads_a_folder_without_torch(folder: Path) -> None:
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from harness.models.adapter_folder import adapter_size, read_adapter_config\n"
        f"folder = Path({str(folder)!r})\n"
        "print(read_adapter_config(folder)['r'], adapter_size(folder))\n"
        "print([name for name in ('torch', 'peft', 'transformers') if name in sys.modules])\n"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": str(root)},
    )
    assert done.stdout.splitlines() == ["8 3584", "[]"]


def test_a_read_configuration_is_the_files_own(folder: Path) -> None:
    assert read_adapter_config(folder) == json.loads((folder / CONFIG_FILE).read_text())
