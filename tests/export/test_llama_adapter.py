"""LLaMA-Adapter checkpoints become adapter folders that compute what the formula says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from torch import Tensor
from transformers import LlamaConfig

from harness.errors import UsageError, ZbenchError
from harness.export.adapters import import_llama_adapter
from harness.methods.zero_init.options import check_base
from harness.models.shape import shape_of
from tests.fixtures.reference import Sizes, reference_logits
from tests.fixtures.tiny_models import HEADS, tiny_config, tiny_model, token_ids

LAYERS, HIDDEN, NUM_HEADS, LENGTH, ADAPTED = 4, 32, 4, 5, range(1, 4)


def checkpoint(kind: str, *, gated: bool = True) -> dict[str, Tensor]:
    """Returns a checkpoint in LLaMA-Adapter's layout, in half precision as published ones are."""
    random = torch.Generator().manual_seed(3)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=random).half()

    gates = {
        f"layers.{index}.attention.gate": draw(1, NUM_HEADS, 1, 1) * (gated and index in ADAPTED)
        for index in range(LAYERS)
    }
    if kind == "rows":
        return gates | {"adapter_query.weight": draw(len(ADAPTED) * LENGTH, HIDDEN)}
    return gates | {
        "hyperAdapter.layer_embed.weight": draw(LAYERS, 8),
        "hyperAdapter.decoder.linear1.weight": draw(8, 8),
        "hyperAdapter.decoder.linear1.bias": draw(8),
        "hyperAdapter.decoder.prompt.weight": draw(LENGTH * HIDDEN, 8) / 4,
        "hyperAdapter.decoder.prompt.bias": draw(LENGTH * HIDDEN),
    }


@pytest.fixture
def base(tmp_path: Path) -> Path:
    folder = tmp_path / "base"
    tiny_config().save_pretrained(folder)
    return folder


def write(tmp_path: Path, content: object) -> Path:
    file = tmp_path / "llama_adapter.pth"
    torch.save(content, file)
    return file


OPTIONS = {
    "zero-init-linear": ["prompt_length=5"],
    "random-init": ["prompt_length=5"],
    "zero-init-nonlinear": ["num_layers=3"],
}


@pytest.mark.parametrize("method", OPTIONS)
def test_an_imported_adapter_computes_the_formula(method: str, base: Path, tmp_path: Path) -> None:
    content = checkpoint(
        "generator" if method == "zero-init-nonlinear" else "rows", gated=method != "random-init"
    )
    stated = method if method == "random-init" else None
    done = import_llama_adapter(
        write(tmp_path, content),
        tmp_path / "adapter",
        model=str(base),
        method=stated,
        options=OPTIONS[method],
    )
    assert done.method == method
    model = PeftModel.from_pretrained(tiny_model(), tmp_path / "adapter")
    ids = token_ids()
    with torch.no_grad():
        found = model(ids).logits
    names = {name: value.detach().double() for name, value in tiny_model().named_parameters()}
    for index in ADAPTED:
        place = f"model.layers.{index}.self_attn.prompt.prompt_"
        names[place + "gate"] = content[f"layers.{index}.attention.gate"].double()
        if "adapter_query.weight" in content:
            start = (index - ADAPTED.start) * LENGTH
            names[place + "rows"] = content["adapter_query.weight"][start:][:LENGTH].double()
    parts = {
        "layer_embed.weight": "embedding",
        "decoder.linear1.weight": "hidden.weight",
        "decoder.linear1.bias": "hidden.bias",
        "decoder.prompt.weight": "output.weight",
        "decoder.prompt.bias": "output.bias",
    }
    for theirs, ours in parts.items():
        if f"hyperAdapter.{theirs}" in content:
            names[f"model.generator.prompt_{ours}"] = content[f"hyperAdapter.{theirs}"].double()
    sizes = Sizes(
        num_layers=LAYERS,
        num_heads=NUM_HEADS,
        num_key_value_heads=HEADS["grouped-query"]["num_key_value_heads"],
        head_size=HIDDEN // NUM_HEADS,
        adapted=ADAPTED,
        prompt_length=LENGTH,
        method=method,
    )
    seen = torch.ones(12, 12).tril().bool().expand(3, -1, -1)
    expected = reference_logits(names, sizes, ids, seen, torch.arange(12).expand(3, -1))
    assert (found - expected).abs().max() < 1e-5 * expected.abs().max()


def test_a_file_that_cannot_say_its_method_asks(base: Path, tmp_path: Path) -> None:
    file = write(tmp_path, checkpoint("rows", gated=False))
    arguments = {"model": str(base), "options": ["prompt_length=5"]}
    with pytest.raises(UsageError, match="give --method random-init or --method zero-init-linear"):
        import_llama_adapter(file, tmp_path / "out", method=None, **arguments)
    for method in ("random-init", "zero-init-linear"):
        done = import_llama_adapter(file, tmp_path / method, method=method, **arguments)
        assert done.num_parameters == (480 if method == "random-init" else 492)
    with pytest.raises(UsageError, match="holds random-init or zero-init-linear, not zero-init-no"):
        import_llama_adapter(file, tmp_path / "out", method="zero-init-nonlinear", **arguments)
    assert not (tmp_path / "out").exists()


class _Code:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("raise SystemExit('code of the file was run')",)


def _wide(content: dict[str, Tensor]) -> dict[str, Tensor]:
    return content | {"adapter_query.weight": torch.zeros(15, 33)}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda content: {"rows": content, "code": _Code()}, "no file of tensors alone"),
        (lambda content: list(content.values()), "no dictionary of tensors"),
        (lambda content: {}, "no dictionary of tensors"),
        (lambda content: content | {"norm.weight": torch.ones(3)}, "norm.weight is no part"),
        (
            lambda content: content | {"adapter_query.weight": torch.ones(1).expand(10**8, 32)},
            "its tensors claim 12,800,000,032 bytes",
        ),
        (
            lambda content: content | {"adapter_query.weight": torch.ones(15, 32, device="meta")},
            "has no values",
        ),
        (
            lambda content: content | {"adapter_query.weight": torch.ones(())},
            "adapter_query.weight is one number, this",
        ),
        (
            lambda content: content | {"layers.0.attention.gate": torch.zeros(())},
            "gate is one number, this model has 4 heads",
        ),
        (
            lambda content: content | {f"layers.{'9' * 5000}.attention.gate": torch.zeros(1)},
            "is no part of a prompt adapter",
        ),
        (_wide, "15x33, this model's hidden size is 32"),
        (lambda content: {k: v for k, v in content.items() if ".3." not in k}, "gates of 3 layers"),
        (
            lambda content: content | {"layers.2.attention.gate": torch.zeros(1, 8, 1, 1)},
            "1x8x1x1, this model has 4 heads",
        ),
        (
            lambda content: {k: v for k, v in content.items() if "query" not in k},
            "neither adapter_query.weight nor hyperAdapter",
        ),
        (lambda content: content | checkpoint("generator"), "has both"),
        (
            lambda content: content | {"adapter_query.weight": torch.full((15, 32), torch.nan)},
            "adapter_query.weight holds NaN",
        ),
        (
            lambda content: content | {"adapter_query.weight": torch.ones(15, 32) * 1j},
            "adapter_query.weight is of type torch.complex64",
        ),
        (
            lambda content: content | {"adapter_query.weight": torch.ones(15, 32).to_sparse()},
            "adapter_query.weight is sparse",
        ),
        (
            lambda content: (
                checkpoint("generator") | {"hyperAdapter.layer_embed.weight": torch.zeros(4)}
            ),
            "its generator is for 0 layers",
        ),
        (
            lambda content: (
                checkpoint("generator") | {"hyperAdapter.decoder.prompt.bias": torch.zeros(0)}
            ),
            "prompts of 0 numbers",
        ),
        (
            lambda content: {
                k: v for k, v in checkpoint("generator").items() if "prompt.bias" not in k
            },
            "hyperAdapter.decoder.prompt.bias is missing",
        ),
    ],
)
def test_other_content_is_refused_in_one_line(
    change: object, said: str, base: Path, tmp_path: Path
) -> None:
    assert callable(change)
    file = write(tmp_path, change(checkpoint("rows")))
    with pytest.raises(ZbenchError, match=said) as fault:
        import_llama_adapter(
            file, tmp_path / "out", model=str(base), method=None, options=["prompt_length=5"]
        )
    assert "\n" not in str(fault.value)
    assert not (tmp_path / "out").exists()
    assert {path.name for path in tmp_path.iterdir()} == {"base", "llama_adapter.pth"}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "15 rows are no prompts of 10 rows"),
        (["prompt_length=5", "num_layers=2"], "holds prompts of 3 layers, not 2"),
        (["prompt_length"], "write it as name=value"),
        (["prompt_length=["], "is no value"),
        (["prompt_length=!!int x"], "is no value"),
        (["prompt_length=!!python/name:os.system"], "is no value"),
        (["prompt_lenght=5"], "--option: prompt_lenght: unknown"),
        (["prompt_length=1"], "15 rows are no prompts of 1 rows for at most 4 layers"),
    ],
)
def test_wrong_options_are_refused(
    options: list[str], said: str, base: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=said):
        import_llama_adapter(
            write(tmp_path, checkpoint("rows")),
            tmp_path / "out",
            model=str(base),
            method=None,
            options=options,
        )


def test_models_of_shipped_grids_are_known_by_name(tmp_path: Path) -> None:
    content = {
        f"layers.{index}.attention.gate": torch.full((1, 32, 1, 1), 0.1) for index in range(32)
    } | {"adapter_query.weight": torch.zeros(300, 4096)}
    done = import_llama_adapter(
        write(tmp_path, content), tmp_path / "out", model="llama-7b", method=None, options=[]
    )
    assert done.num_parameters == 1_229_760
    config = json.loads((tmp_path / "out/adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "huggyllama/llama-7b"
    loaded = LlamaConfig(
        hidden_size=4096, intermediate_size=11008, num_hidden_layers=32, num_attention_heads=32
    )
    check_base(config["base_shape"], shape_of(loaded))  # which states more than a grid does
    with pytest.raises(UsageError, match="did you mean 'llama-7b'"):
        import_llama_adapter(
            tmp_path / "llama_adapter.pth",
            tmp_path / "other",
            model="llama-7",
            method=None,
            options=[],
        )


def test_options_that_contradict_a_generator_are_refused(base: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="its prompt_length is 5, not 10"):
        import_llama_adapter(
            write(tmp_path, checkpoint("generator")),
            tmp_path / "out",
            model=str(base),
            method=None,
            options=["prompt_length=10"],
        )
