"""A trained adapter from a folder in PEFT's format, which is scored and never trained."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from harness.errors import MethodError, ModelError
from harness.methods.method import Method, MethodOptions
from harness.methods.zero_init.options import check_base
from harness.models.adapter_folder import (
    CONFIG_FILE,
    WEIGHTS_FILE,
    adapter_size,
    read_adapter_config,
)
from harness.models.adapters import attach_adapter
from harness.models.shape import ModelShape

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel


class AdapterOptions(MethodOptions):
    """Which adapter; its content, not its path, decides the cell's id."""

    adapter: str
    """Folder with adapter_config.json and adapter_model.safetensors; a relative one lies beside
    the grid file."""
    sha256: Annotated[str, Field(pattern="^[0-9a-f]*$")] = ""
    """SHA-256 of the folder's two files, computed when the grid is read."""

    def identity(self) -> dict[str, Any]:
        """The content alone."""
        return {"sha256": self.sha256}


def adapter_sha256(folder: Path) -> str:
    """The SHA-256 of an adapter folder's settings and tensors.

    Raises:
        ModelError: the folder is no adapter's, or damaged.
    """
    if not folder.is_dir():
        raise ModelError(f"{folder}: no such folder; give one with {CONFIG_FILE}")
    read_adapter_config(folder)
    adapter_size(folder)
    digest = hashlib.sha256()
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        digest.update(hashlib.sha256((folder / name).read_bytes()).digest())
    return digest.hexdigest()


def apply_imported(model: PreTrainedModel, options: AdapterOptions, seed: int) -> PeftModel:
    """Inserts the folder's adapter into the model, and freezes it.

    Raises:
        ModelError: the folder is damaged, has changed since the grid was read, or is for another
            base model.
    """
    folder = Path(options.adapter)
    if options.sha256 and adapter_sha256(folder) != options.sha256:
        raise ModelError(f"{folder}: has changed since the grid was read; run the command again")
    advice = "correct the grid's `adapter`, or copy the folder again"
    adapted = attach_adapter(model, folder, advice=advice)
    return adapted.requires_grad_(False).eval()


def count_imported(shape: ModelShape, options: AdapterOptions) -> int:
    """The parameters that the adapter adds; checks what can be checked without loading it.

    Raises:
        MethodError: the adapter is for another base model.
    """
    stated = read_adapter_config(Path(options.adapter)).get("base_shape")
    if isinstance(stated, dict):
        try:
            check_base(stated, shape)
        except ModelError as fault:
            raise MethodError(str(fault)) from fault
    return adapter_size(Path(options.adapter))


ADAPTER = Method(
    name="adapter",
    title="Imported adapter",
    options=AdapterOptions,
    recipe={},
    apply=apply_imported,
    count_parameters=count_imported,
    trains=False,
)
