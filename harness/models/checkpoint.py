"""Checkpoint folders: find one, on disk or on the hub, and check what is in it.

A checkpoint that is missing, truncated or of another shape is refused in one line, before any of
its weights are used.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Self

from pydantic import model_validator

from harness.errors import ModelError, one_line
from harness.models.adapter_folder import reading_tensors
from harness.models.families import FAMILIES, refusal
from harness.models.shape import ModelShape
from harness.spec import Spec

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedTokenizerBase


def local_folder(spec: ModelSpec, data_root: Path | None) -> Path | None:
    """The folder that a model's `path` names; None where the hub's copy is read."""
    if spec.path is None:
        return None
    folder = Path(spec.path)
    if folder.is_absolute():
        return folder
    return None if data_root is None else data_root / folder


def find_checkpoint(spec: ModelSpec, data_root: Path | None) -> Path:
    """The folder of a model, downloaded from the hub where it has to be.

    Raises:
        ModelError: it is missing, gated, or out of reach.
    """
    folder = local_folder(spec, data_root)
    if folder is None and spec.source is not None:
        return _snapshot(spec)
    if folder is None:
        raise ModelError(
            f"{spec.path}: this path is relative to the data folder, and none is given; give "
            "one, or make the model's path absolute"
        )
    if not folder.is_dir():
        raise ModelError(
            f"{folder}: no such folder; put the checkpoint there (config.json, *.safetensors, "
            "tokenizer.json), or correct the model's path"
        )
    return folder


def _snapshot(spec: ModelSpec) -> Path:
    """The folder of a hub model in the local cache; its name is the revision's commit."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    assert spec.source is not None
    name = f"{spec.source}@{spec.revision}"
    try:
        files = ["*.json", "model*.safetensors"]
        return Path(snapshot_download(spec.source, revision=spec.revision, allow_patterns=files))
    except GatedRepoError as fault:
        raise ModelError(
            f"{name}: gated; accept its licence at https://huggingface.co/{spec.source}, then run "
            "'hf auth login'"
        ) from fault
    except RevisionNotFoundError as fault:
        raise ModelError(
            f"{name}: the model has no such revision; correct the model's revision"
        ) from fault
    except RepositoryNotFoundError as fault:
        raise ModelError(
            f"{name}: no such model on the hub, or a private one; correct the model's source, or "
            "run 'hf auth login'"
        ) from fault
    except HFValidationError as fault:
        raise ModelError(f"{name}: {one_line(fault)}; correct the model's source") from fault
    except Exception as fault:  # no network, a proxy, a full disk: of many libraries' kinds
        raise ModelError(
            f"{name}: neither in the local cache nor to be had from the hub "
            f"({type(fault).__name__}: {one_line(fault)}); where there is a network, run 'hf "
            f"download {spec.source} --revision {spec.revision}' and set HF_HOME to that cache, "
            "or give a copy's folder as the model's path"
        ) from fault


def read_config(folder: Path) -> PreTrainedConfig:
    """The configuration of a checkpoint of a supported family.

    Raises:
        ModelError: it is missing or damaged, or of another architecture.
    """
    from transformers import AutoConfig

    file = folder / "config.json"
    if not file.is_file():
        raise ModelError(f"{file}: missing; the folder is no checkpoint in transformers' format")
    try:
        family = json.loads(file.read_text(encoding="utf-8")).get("model_type")
    except (OSError, ValueError, AttributeError) as fault:
        raise ModelError(f"{file}: cannot be read ({fault}); copy it again") from fault
    if family not in FAMILIES:
        raise ModelError(f"{file}: {refusal(family)}")
    try:
        return AutoConfig.from_pretrained(folder, local_files_only=True)
    except Exception as fault:  # transformers raises many kinds for a value out of place
        raise ModelError(f"{file}: refused by transformers ({one_line(fault)})") from fault


def check_shape(folder: Path, found: ModelShape, stated: ModelShape) -> None:
    """Checks that a checkpoint has the shape that a grid states for it.

    Raises:
        ModelError: it has not; every field that differs is named.
    """
    differing = [
        f"{name} is {here}, the grid states {there}"
        for name, (here, there) in found.differences(stated).items()
    ]
    if differing:
        raise ModelError(
            f"{folder / 'config.json'}: not the model that the grid describes: "
            f"{'; '.join(differing)}; correct the model's shape or its path"
        )


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files that hold the weights, each of them whole.

    Raises:
        ModelError: one is missing or truncated, or there is none.
    """
    from safetensors import safe_open

    index = folder / "model.safetensors.index.json"
    if index.is_file():
        try:
            parts = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
            files = [folder / part for part in sorted(set(parts))]
        except (ValueError, KeyError, TypeError, AttributeError) as fault:
            raise ModelError(f"{index}: cannot be read ({fault!r}); copy it again") from fault
    else:
        files = [folder / "model.safetensors"]
    for file in files:
        if not file.is_file():
            others = sorted(path.name for path in folder.glob("*.bin"))
            hint = f"; {others[0]} is not read: convert it to safetensors" if others else ""
            raise ModelError(f"{file}: missing; download or copy the whole checkpoint again{hint}")
        with reading_tensors(file, advice="copy it again"), safe_open(file, framework="pt") as part:
            part.keys()
    return files


def load_tokenizer(folder: Path, shape: ModelShape) -> PreTrainedTokenizerBase:
    """The tokenizer that a checkpoint's tokenizer.json describes.

    Raises:
        ModelError: it is missing or damaged, has no EOS, or more tokens than the model.
    """
    from transformers import PreTrainedTokenizerFast

    file = folder / "tokenizer.json"
    if not file.is_file():
        if (folder / "tokenizer.model").is_file():
            # transformers 5.23 ranks the merges of such a file by id instead of score.
            raise ModelError(
                f"{folder}: only tokenizer.model is there, which transformers 5 converts wrongly; "
                "add the model's tokenizer.json"
            )
        raise ModelError(f"{file}: missing; add the model's tokenizer.json")
    try:
        # Not AutoTokenizer: the class that a LLaMA checkpoint names rebuilds parts of the file.
        tokenizer = PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)
    except Exception as fault:  # the tokenizers library raises bare Exception
        raise ModelError(f"{file}: cannot be read ({one_line(fault)}); copy it again") from fault
    if tokenizer.eos_token_id is None:
        raise ModelError(
            f"{folder}: the tokenizer has no end-of-sequence token; set eos_token in "
            "tokenizer_config.json"
        )
    if tokenizer.vocab_size > shape.vocab_size:
        raise ModelError(
            f"{file}: {tokenizer.vocab_size} tokens, but the model has {shape.vocab_size}; it is "
            "another model's tokenizer"
        )
    return tokenizer


class ModelSpec(Spec):
    """A base model: a hub repository, or a folder, or a folder that holds a copy of one."""

    source: str | None = None
    """Hub repository, such as `huggyllama/llama-7b`."""
    path: str | None = None
    """Checkpoint folder; a relative one lies under the data root. It takes precedence over
    `source`."""
    revision: str = "main"
    """Branch, tag or commit of the hub repository; the resolved commit stays with each result."""
    shape: ModelShape
    """Stated, so that parameters are counted without loading; checked when the model is loaded."""

    @model_validator(mode="after")
    def _somewhere(self) -> Self:
        if self.source is None and self.path is None:
            raise ValueError("give `source` (a hub repository) or `path` (a folder)")
        return self
