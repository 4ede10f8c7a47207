"""An adapter folder is held against a base model's shape before anything is loaded."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from harness.errors import ZbenchError, printable
from harness.methods import METHODS
from harness.methods.imported import AdapterOptions, adapter_sha256, count_imported
from harness.models.adapter_check import check_adapter
from harness.models.adapter_folder import (
    CONFIG_FILE,
    PICKLED_FILE,
    WEIGHTS_FILE,
    adapter_size,
    save_adapter,
)
from harness.models.adapters import attach_adapter
from harness.models.shape import shape_of
from tests.fixtures.tiny_checkpoint import edit_json
from tests.fixtures.tiny_models import stir, tiny_model

SHAPE = shape_of(tiny_model().config)
FIRST = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
Tensors = dict[str, torch.Tensor]


def make(folder: Path, method: str = "lora", **options: object) -> Path:
    kind = METHODS[method]
    given = kind.options.model_validate(options)
    save_adapter(stir(kind.apply(tiny_model(), given, 0)), folder)
    return folder


def rewrite(folder: Path, change: Callable[[Tensors], object]) -> None:
    tensors = load_file(folder / WEIGHTS_FILE)
    change(tensors)
    save_file(tensors, folder / WEIGHTS_FILE, metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("lora", {}),
        ("lora", {"targets": ["gate_proj", "down_proj"], "rank": 2}),
        ("dora", {"rank": 2}),
        ("ia3", {}),
        ("vera", {}),
        ("prompt-tuning", {"num_virtual_tokens": 3}),
        ("prefix-tuning", {"num_virtual_tokens": 3}),
        ("adaption-prompt", {"num_layers": 2}),
        ("random-init", {"num_layers": 2}),
        ("zero-init-nonlinear", {"num_layers": 2}),
    ],
)
def test_adapters_of_every_method_pass(
    tmp_path: Path, method: str, options: dict[str, object]
) -> None:
    folder = make(tmp_path, method, **options)
    check_adapter(folder, SHAPE)
    assert count_imported(SHAPE, AdapterOptions(adapter=str(folder))) == adapter_size(folder)
    attach_adapter(tiny_model(), folder)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda t: t.update({FIRST: t[FIRST].int()}), "lora_A.weight is of type I32"),
        (lambda t: t.update({FIRST: t[FIRST].bool()}), "lora_A.weight is of type BOOL"),
        (lambda t: t.update({FIRST: t[FIRST].reshape(-1)}), "lora_A.weight is 256, 8x32 is due"),
        (lambda t: t.update({FIRST: t[FIRST][:3]}), "lora_A.weight is 3x32, 8x32 is due"),
        (lambda t: t.update({FIRST: t[FIRST].new_zeros(())}), "is one number, 8x32 is due"),
        (lambda t: t.update(more=torch.ones(3)), "more is unexpected"),
        (lambda t: t.pop(FIRST), "lora_A of q_proj in layer 0 is missing"),
        (lambda t: t.update({"x\x1b[31m": t.pop(FIRST)}), r"x\\x1b\[31m is unexpected"),
        (lambda t: t.update({FIRST.replace("0", "9"): t.pop(FIRST)}), "this model has 4 layers"),
        (lambda t: t.update({FIRST.replace("q_proj", "z"): t.pop(FIRST)}), "has no z"),
        (lambda t: t.clear(), "holds no tensor"),
    ],
)
def test_tensors_that_do_not_fit_are_told_by_their_header(
    tmp_path: Path, change: Callable[[Tensors], object], line: str
) -> None:
    folder = make(tmp_path)
    rewrite(folder, change)
    with pytest.raises(ZbenchError, match=rf"adapter_model\.safetensors: .*{line}") as caught:
        check_adapter(folder, SHAPE)
    assert printable(str(caught.value)) == str(caught.value)
    with pytest.raises(ZbenchError, match=r"adapter_model\.safetensors: "):
        attach_adapter(tiny_model(), folder)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("method", ["lora", "ia3", "zero-init-linear"])
def test_numbers_that_are_none_are_told_when_they_are_loaded(
    tmp_path: Path, value: float, method: str
) -> None:
    folder = make(tmp_path, method, **{"num_layers": 2} if method == "zero-init-linear" else {})
    rewrite(folder, lambda tensors: next(iter(tensors.values())).view(-1)[0].fill_(value))
    with pytest.raises(ZbenchError, match="holds NaN or infinite numbers"):
        attach_adapter(tiny_model(), folder)


def test_numbers_that_are_too_large_for_the_model_are_told(tmp_path: Path) -> None:
    folder = make(tmp_path)

    def enlarge(tensors: dict[str, torch.Tensor]) -> None:
        name = next(iter(tensors))
        tensors[name] = tensors[name].double()
        tensors[name].view(-1)[0] = 1e300

    rewrite(folder, enlarge)
    with pytest.raises(ZbenchError, match="holds NaN or infinite numbers"):
        attach_adapter(tiny_model(), folder)


def test_another_rank_than_the_settings_is_told(tmp_path: Path) -> None:
    folder = make(tmp_path)
    edit_json(folder / CONFIG_FILE, r=4)
    with pytest.raises(ZbenchError, match="lora_A.weight is 8x32, 4x32 is due"):
        check_adapter(folder, SHAPE)
    edit_json(folder / CONFIG_FILE, r=4, rank_pattern={"q_proj": 8, "v_proj": 8})
    check_adapter(folder, SHAPE)


def test_a_base_of_another_shape_is_told(tmp_path: Path) -> None:
    wide = shape_of(tiny_model("wide-heads").config)
    with pytest.raises(ZbenchError, match="give the adapter's own base model"):
        check_adapter(make(tmp_path / "a"), wide)
    with pytest.raises(ZbenchError, match="prompt_embeddings is 3x32, the model's is 3x64"):
        check_adapter(
            make(tmp_path / "b", "prompt-tuning", num_virtual_tokens=3),
            SHAPE.model_copy(update={"hidden_size": 64}),
        )


def test_a_pipe_in_place_of_the_tensors_is_no_wait(tmp_path: Path) -> None:
    folder = make(tmp_path)
    (folder / WEIGHTS_FILE).unlink()
    os.mkfifo(folder / WEIGHTS_FILE)
    for read in (adapter_sha256, lambda path: check_adapter(path, SHAPE)):
        with pytest.raises(ZbenchError, match=r"adapter_model\.safetensors: is no regular file"):
            read(folder)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"method": "zero-init-lineer"}, "no prompt method"),
        ({"options": {"prompt_length": "x"}}, "options.prompt_length: must be a whole number"),
        ({"options": {"num_layers": 99}}, "num_layers: must be at most 4"),
        ({"options": [1]}, "options must be a mapping"),
        ({"base_shape": {"hidden_size": "x"}}, "is no shape of a model"),
        ({"method": 3}, "method must be text"),
    ],
)
def test_settings_of_the_prompt_methods_are_checked_before_loading(
    tmp_path: Path, changes: dict[str, object], line: str
) -> None:
    folder = make(tmp_path, "zero-init-linear", num_layers=2)
    edit_json(folder / CONFIG_FILE, **changes)
    with pytest.raises(ZbenchError, match=line):
        count_imported(SHAPE, AdapterOptions(adapter=str(folder)))
    with pytest.raises(ZbenchError, match=line):
        attach_adapter(tiny_model(), folder)


def test_the_old_format_is_named_also_where_the_grid_is_read(tmp_path: Path) -> None:
    folder = make(tmp_path)
    (folder / WEIGHTS_FILE).rename(folder / PICKLED_FILE)
    with pytest.raises(ZbenchError, match=r"adapter_model\.bin: is not read"):
        adapter_sha256(folder)
