"""A trained adapter from a folder in PEFT's format, which is scored and never trained."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, ValidationError
from pydantic.json_schema import SkipJsonSchema

from harness.errors import MethodError, ModelError, ZbenchError, did_you_mean
from harness.methods.method import Method, MethodOptions
from harness.methods.zero_init.options import PROMPT_METHODS, check_base
from harness.models.adapter_check import check_adapter
from harness.models.adapter_folder import (
    CONFIG_FILE,
    WEIGHTS_FILE,
    adapter_size,
    read_adapter_config,
)
from harness.models.adapter_settings import ZERO_INIT_PROMPT
from harness.models.adapters import attach_adapter
from harness.models.image_encoder import ImageEncoderSpec
from harness.models.shape import ModelShape
from harness.records.files import fresh_sha256_of_file
from harness.spec import describe_faults

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel


class AdapterOptions(MethodOptions):
    """Which adapter; its content, not its path, decides the cell's id."""

    adapter: str
    """Folder with adapter_config.json and adapter_model.safetensors; a relative one lies beside
    the grid file."""
    sha256: SkipJsonSchema[Annotated[str, Field(pattern="^[0-9a-f]*$")]] = ""
    """SHA-256 of the folder's two files, computed when the grid is read."""

    def identity(self) -> dict[str, Any]:
        """The content alone."""
        return {"sha256": self.sha256}

    @property
    def image_encoder(self) -> ImageEncoderSpec | None:
        """The encoder of pictures that its settings name; None where it takes none."""
        try:
            stated = read_adapter_config(Path(self.adapter)).get("options") or {}
            if (entry := stated.get("image_encoder")) is None:
                return None
            # The settings say its weights' content too, which it is compared by.
            return ImageEncoderSpec.model_validate({**entry, "sha256": None})
        except (ZbenchError, ValidationError, OSError):  # told where the folder is checked
            return None


def adapter_sha256(folder: Path) -> str:
    """The SHA-256 of an adapter folder's settings and tensors.

    Raises:
        ZbenchError: the folder is no adapter's, or damaged.
    """
    if folder.is_file():
        raise ModelError(
            f"{folder}: is a file, not an adapter's folder; give the folder it lies in"
        )
    if not folder.is_dir():
        raise ModelError(f"{folder}: no such folder; give one with {CONFIG_FILE}")
    read_adapter_config(folder)
    adapter_size(folder)
    digest = hashlib.sha256()
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        digest.update(bytes.fromhex(fresh_sha256_of_file(folder / name)))
    return digest.hexdigest()


def apply_imported(model: PreTrainedModel, options: AdapterOptions, seed: int) -> PeftModel:
    """Inserts the folder's adapter into the model, and freezes it.

    Raises:
        ZbenchError: the folder is damaged, has changed since the grid was read, or is for another
            base model.
    """
    folder = Path(options.adapter)
    if options.sha256 and adapter_sha256(folder) != options.sha256:
        raise ModelError(f"{folder}: has changed since the grid was read; run the command again")
    return attach_adapter(model, folder).requires_grad_(False).eval()


def count_imported(shape: ModelShape, options: AdapterOptions) -> int:
    """The parameters that the adapter adds; checks what can be checked without loading it.

    Raises:
        MethodError: the folder is damaged, or the adapter is for another base model.
    """
    folder = Path(options.adapter)
    try:
        stated = read_adapter_config(folder)
        if stated["peft_type"] == ZERO_INIT_PROMPT:
            _check_prompts(folder / CONFIG_FILE, stated, shape)
        check_adapter(folder, shape)
        return adapter_size(folder)
    except ZbenchError as fault:
        raise MethodError(str(fault)) from fault


def _check_prompts(file: Path, stated: dict[str, Any], shape: ModelShape) -> None:
    """Checks the settings of an adapter of the paper's prompt methods.

    Raises:
        ZbenchError: they are not its method's, or for another base model.
    """
    if stated.get("base_shape") is not None:
        check_base(stated["base_shape"], shape)
    name = stated.get("method", "zero-init-linear")
    if name not in PROMPT_METHODS:
        raise ModelError(f"{file}: method: no prompt method{did_you_mean(name, PROMPT_METHODS)}")
    try:
        PROMPT_METHODS[name].model_validate(stated.get("options", {})).adapted_layers(shape)
    except ValidationError as error:
        raise ModelError(
            describe_faults(error, f"{file}: options", PROMPT_METHODS[name])[0]
        ) from error


ADAPTER = Method(
    name="adapter",
    title="Imported adapter",
    options=AdapterOptions,
    recipe={},
    apply=apply_imported,
    count_parameters=count_imported,
    trains=False,
)
