"""The files of an image encoder's folder, checked without torch or transformers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.errors import ModelError, printable
from harness.models.checkpoint_folder import CONFIG_FILE
from harness.models.weight_files import INDEX, SINGLE, weight_files
from harness.readers.json_files import read_json_object
from harness.readers.tensor_files import tensor_header
from harness.records.files import sha256_of_files

SETTINGS_FILES = ("preprocessor_config.json", "processor_config.json")
"""What may say how a picture is resized and normalised: the first that is there does."""
PICKLED = "pytorch_model.bin"
"""Read where there are no safetensors, as tensors alone, which runs no code: some of OpenAI's CLIP
repositories hold nothing else."""
SMALL_FILES = (CONFIG_FILE, *SETTINGS_FILES)
"""What is read of a repository beside its weights."""
WEIGHTS = ("model*.safetensors", INDEX)
_DEFAULTS = {"hidden_size": 768, "num_hidden_layers": 12, "image_size": 224}
"""Of CLIP's vision encoder, which a config.json of OpenAI's leaves out."""
GIVE = "give a folder of transformers' CLIPModel or CLIPVisionModel"


def check_encoder_folder(
    folder: Path, *, width: int, scales: Sequence[int], pretrained: bool = True
) -> None:
    """Checks an encoder's folder by its small files and the headers of its weights.

    Raises:
        ModelError: it is not there, of another kind, or not as the grid states.
        Unreadable: a file is damaged.
    """
    vision = vision_settings(folder)
    found, layers = vision["hidden_size"], vision["num_hidden_layers"]
    place = folder / CONFIG_FILE
    if width != found:
        raise ModelError(
            f"{place}: image_encoder.width is {width}, this encoder's hidden_size is {found}; set "
            f"width: {found}"
        )
    if scales[-1] > layers:
        raise ModelError(
            f"{place}: image_encoder.scales names layer {scales[-1]}, this encoder has {layers} "
            f"layers; name some of 1 to {layers}"
        )
    for file in encoder_files(folder, pretrained=pretrained):
        if file.suffix == ".safetensors":
            tensor_header(file)


def vision_settings(folder: Path) -> dict[str, Any]:
    """What an encoder's config.json says of its vision encoder, defaults included.

    Raises:
        ModelError: there is none, or of another kind of model.
        Unreadable: it is damaged.
    """
    if not folder.is_dir():
        said = "is a file" if folder.is_file() else "no such folder"
        raise ModelError(f"{folder}: {said}; {GIVE} as the image encoder's path")
    file = folder / CONFIG_FILE
    if not file.exists():
        raise ModelError(f"{file}: missing; {GIVE}")
    settings = read_json_object(file)
    kind = settings.get("model_type")
    if kind == "clip":
        parts = (settings.get("vision_config"), settings.get("vision_config_dict"))
        stated: dict[str, Any] = {}
        for part in parts:
            stated |= part if isinstance(part, Mapping) else {}
    elif kind == "clip_vision_model":
        stated = settings
    else:
        raise ModelError(f"{file}: model_type {printable(f'{kind!r:.40}')} is no CLIP; {GIVE}")
    found = {name: stated.get(name, value) for name, value in _DEFAULTS.items()}
    odd = [name for name, value in found.items() if type(value) is not int or value < 1]
    if odd:
        raise ModelError(f"{file}: {odd[0]} is no size; put the encoder's own config.json there")
    return found


def encoder_files(folder: Path, *, pretrained: bool = True) -> list[Path]:
    """The files that an encoder is made of: settings, and weights unless they are drawn anew.

    Raises:
        ModelError: one is missing.
        Unreadable: the index of the weights is damaged.
    """
    settings = next((folder / n for n in SETTINGS_FILES if (folder / n).exists()), None)
    if settings is None:
        raise ModelError(
            f"{folder / SETTINGS_FILES[0]}: missing, so that it is not known how pictures are "
            "resized and normalised; put the encoder's own there"
        )
    files = [folder / CONFIG_FILE, settings]
    if not pretrained:
        return files
    return [*files, *encoder_weights(folder)]


def encoder_weights(folder: Path) -> list[Path]:
    """The weight files of an encoder's folder.

    Raises:
        ModelError: there are none.
        Unreadable: their index is damaged.
    """
    safe = any((folder / name).exists() for name in (SINGLE, INDEX))
    if not safe and (folder / PICKLED).exists():
        return [folder / PICKLED]
    return weight_files(folder)


def encoder_sha256(folder: Path, *, pretrained: bool = True) -> str:
    """The content of an encoder's files, which is the identity of one that is on no hub.

    Raises:
        ModelError: a file is missing, or the folder is no encoder's.
        OSError: a file cannot be read.
    """
    vision_settings(folder)
    return sha256_of_files(encoder_files(folder, pretrained=pretrained))
