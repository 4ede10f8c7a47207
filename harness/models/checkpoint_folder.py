"""What a checkpoint folder and its config.json say, without torch or transformers.

A folder of another kind, a family or a shape that is not the stated one, and quantised weights are
found here; the weight files themselves in `weight_files`, the tokenizer in `tokenizer_files`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from harness.errors import one_line, printable
from harness.models.advice import fault_line, model_error
from harness.models.families import FAMILIES, refusal
from harness.models.shape import ModelShape
from harness.readers.files import Unreadable
from harness.readers.json_files import read_json_object

CONFIG_FILE = "config.json"
ADAPTER_CONFIG = "adapter_config.json"
DATA_SUFFIXES = (".parquet", ".arrow", ".jsonl", ".csv")
MAX_ENTRIES = 2000
"""Of a folder that are looked at, to say what it is."""

UNSTATED: dict[str, dict[str, Any]] = {
    "mistral": {"num_key_value_heads": 8},
    "qwen2": {"num_key_value_heads": 32},
    "qwen3": {"num_key_value_heads": 32, "head_dim": 128},
    "gemma2": {"num_key_value_heads": 4, "head_dim": 256, "tie_word_embeddings": True},
    "gemma3_text": {"num_key_value_heads": 4, "head_dim": 256, "tie_word_embeddings": True},
}
"""What transformers takes where config.json says nothing; else heads follow from the other sizes,
and embeddings are not tied."""


def check_folder(folder: Path) -> None:
    """Refuses what is no checkpoint's folder, and says what it is.

    Raises:
        ModelError: it is a file, missing, an adapter, a data set, a folder of folders.
    """
    if folder.is_file():
        raise model_error(folder, "file for folder", "is a file, not a checkpoint's folder")
    if not folder.is_dir():
        raise model_error(folder, "no folder", "no such folder")
    try:
        file = folder / CONFIG_FILE
        if file.exists() or file.is_symlink():
            if (folder / ADAPTER_CONFIG).is_file():
                raise model_error(
                    folder, "adapter beside", f"holds an adapter too ({ADAPTER_CONFIG})"
                )
            return
        entries = sorted(_first(folder.iterdir()))
        adapter = (folder / ADAPTER_CONFIG).is_file()
        inner = sorted(path.parent for path in _first(folder.glob(f"*/{CONFIG_FILE}")))
        inner += sorted(path.parent for path in _first(folder.glob(f"*/*/{CONFIG_FILE}")))
    except OSError as fault:
        raise model_error(
            folder, "no checkpoint", f"cannot be listed ({one_line(fault)})"
        ) from fault
    names = [entry.name for entry in entries]
    if adapter:
        raise model_error(
            folder, "adapter", f"is a PEFT adapter ({ADAPTER_CONFIG}), which is no model by itself"
        )
    if inner:
        shown = ", ".join(printable(str(path.relative_to(folder))) for path in inner[:3])
        more = f" and {len(inner) - 3} more" if len(inner) > 3 else ""
        raise model_error(
            folder, "nested", f"holds no checkpoint but folders of some: {shown}{more}"
        )
    if any(name.endswith(".gguf") for name in names):
        raise model_error(folder, "gguf", "holds a GGUF file, llama.cpp's format")
    if "params.json" in names and any(name.endswith(".pth") for name in names):
        raise model_error(
            folder, "meta", "is a checkpoint in Meta's own format (params.json, .pth)"
        )
    data = next((name for name in names if name.endswith(DATA_SUFFIXES)), None)
    if data is not None or "dataset_info.json" in names:
        raise model_error(folder, "data set", f"is a data set ({data or 'dataset_info.json'})")
    found = f"it holds {', '.join(map(printable, names[:3]))}" if names else "it is empty"
    raise model_error(folder / CONFIG_FILE, "no checkpoint", f"missing, {found}")


def _first(paths: Iterator[Path]) -> list[Path]:
    return [path for _, path in zip(range(MAX_ENTRIES), paths, strict=False)]


def read_settings(folder: Path) -> dict[str, Any]:
    """The content of config.json, of a supported family.

    Raises:
        ModelError: it is of another family.
        Unreadable: it is missing or damaged.
    """
    file = folder / CONFIG_FILE
    settings = read_json_object(file)
    family = settings.get("model_type")
    if not isinstance(family, str) or family not in FAMILIES:
        raise model_error(file, "family", refusal(family if family is None else f"{family!s:.40}"))
    other = settings.get("transformers_weights")
    if other is not None:
        raise model_error(
            file, "other name", f"names its weights itself (transformers_weights: {other!r:.60})"
        )
    return settings


def shape_faults(folder: Path, settings: Mapping[str, Any], stated: ModelShape) -> Iterator[str]:
    """Yields how the shape of config.json is impossible, or not the one that a grid states."""
    file = folder / CONFIG_FILE
    try:
        found = stated_shape(settings)
    except ValidationError as fault:
        first = fault.errors()[0]
        name = ".".join(str(step) for step in first["loc"]) or "its sizes"
        yield fault_line(file, "config", f"{name}: {one_line(first['msg'])}; no usable model")
        return
    differing = shape_differences(found, stated)
    if differing:
        yield fault_line(file, "shape", differing)


def shape_differences(found: ModelShape, stated: ModelShape) -> str | None:
    """How a checkpoint's shape differs from the one that a grid states; None where it does not."""
    differing = [
        f"{name} is {here}, the grid states {there}"
        for name, (here, there) in found.differences(stated).items()
    ]
    return f"not the model that the grid describes: {'; '.join(differing)}" if differing else None


def settings_shape(settings: Mapping[str, Any]) -> ModelShape | None:
    """The shape that config.json describes; None where it is none."""
    try:
        return stated_shape(settings)
    except ValidationError:
        return None


def stated_shape(settings: Mapping[str, Any]) -> ModelShape:
    """The shape that config.json describes, with what transformers takes where it is silent.

    Raises:
        ValidationError: a size is missing or impossible.
    """
    unstated = UNSTATED.get(str(settings.get("model_type")), {})
    sizes = {
        name: settings.get(name, unstated.get(name))
        for name in ModelShape.model_fields
        if name in settings or name in unstated
    }
    if sizes.get("tie_word_embeddings") is None:
        sizes.pop("tie_word_embeddings", None)
    return ModelShape.model_validate(sizes)


def quantization_kind(folder: Path, settings: Mapping[str, Any]) -> str | None:
    """How a checkpoint is stored quantised, as far as its settings tell; None where it is not."""
    for key in ("quantization_config", "compression_config"):
        found = settings.get(key)
        if found is not None:
            return _kind(found)
    for name, kind in (
        ("quantize_config.json", "gptq"),
        ("quant_config.json", "awq"),
        ("quantization_config.json", None),
        ("hf_quant_config.json", "modelopt"),
    ):
        file = folder / name
        if not file.is_file():
            continue
        if kind is not None:
            return kind
        try:
            return _kind(read_json_object(file))
        except Unreadable:
            return "of an unnamed kind"
    return None


def _kind(found: Any) -> str:
    if not isinstance(found, Mapping):
        return "of an unnamed kind"
    method = found.get("quant_method") or found.get("format")
    bits = next((n for n in (4, 8) if found.get(f"load_in_{n}bit")), None)
    if method is None:
        return "bitsandbytes" if bits else "of an unnamed kind"
    shown = printable(f"{method!s:.40}")
    count = found.get("bits") or bits
    return f"{shown}, {count} bits" if isinstance(count, int) else shown
