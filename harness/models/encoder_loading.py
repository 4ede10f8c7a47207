"""An image encoder's preprocessing and weights, loaded by transformers and checked."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.errors import ModelError, plain_message
from harness.models.checkpoint_folder import CONFIG_FILE
from harness.models.devices import is_out_of_memory
from harness.models.encoder_files import PICKLED, encoder_weights

DRAWN_BY = 0
"""Seed of the weights of an encoder that is not pre-trained."""


def load_processor(folder: Path) -> Any:
    """The image processor of a folder.

    Raises:
        ModelError: its settings cannot be.
    """
    # Of its own module: transformers' name for it wants torchvision, and warns where there is none.
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    try:
        return CLIPImageProcessorPil.from_pretrained(folder, local_files_only=True)
    except Exception as fault:  # transformers raises many kinds for a value out of place
        raise ModelError(
            f"{folder}: its image preprocessing is refused by transformers "
            f"({plain_message(fault)}); put the encoder's own preprocessor_config.json there"
        ) from fault


def check_size(processor: Any, size: int, folder: Path) -> None:
    """Checks that pictures of any form are made as large as the encoder takes them.

    Raises:
        ModelError: they are not.
    """
    from PIL import Image

    tall, wide = (Image.new("RGB", size) for size in ((20, 30), (90, 60)))
    try:
        shapes = {tuple(one.shape) for one in processor(images=[tall, wide])["pixel_values"]}
    except Exception as fault:  # of numpy or Pillow, for settings that are no pictures'
        shapes = {("refused", plain_message(fault))}
    if shapes != {(3, size, size)}:
        found = " and ".join("x".join(map(str, one)) for one in sorted(shapes, key=str))
        raise ModelError(
            f"{folder}: its preprocessing makes pictures {found}, its config.json says "
            f"3x{size}x{size}; put the encoder's own preprocessor_config.json there"
        )


def load_vision_model(folder: Path, *, pretrained: bool) -> Any:
    """transformers' CLIPVisionModel of a folder, in fp32; its weights drawn where not pretrained.

    Raises:
        ModelError: weights are missing, of another shape, or no numbers.
    """
    import torch
    from transformers import CLIPVisionConfig, CLIPVisionModel

    try:
        config = CLIPVisionConfig.from_pretrained(folder, local_files_only=True)
        if not pretrained:
            with torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(DRAWN_BY)
                return CLIPVisionModel(config).float()
        loaded: Any = CLIPVisionModel.from_pretrained(
            folder,
            config=config,
            dtype=torch.float32,
            use_safetensors=encoder_weights(folder)[0].name != PICKLED,
            weights_only=True,
            local_files_only=True,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    except Exception as fault:  # transformers raises many kinds for a value out of place
        if is_out_of_memory(fault):
            raise
        raise ModelError(
            f"{folder}: refused by transformers ({plain_message(fault)}); give the encoder's own "
            f"{CONFIG_FILE} and weights"
        ) from fault
    model, report = loaded
    faults = [f"{name} is missing" for name in sorted(report["missing_keys"])]
    faults += [f"{one[0]} is of another shape" for one in sorted(report["mismatched_keys"])]
    faults += [
        f"{name} is NaN or infinite"
        for name, value in model.named_parameters()
        if not torch.isfinite(value).all()
    ]
    if faults:
        more = f" (and {len(faults) - 1} more)" if faults[1:] else ""
        raise ModelError(
            f"{folder}: not the weights of this image encoder: {faults[0]}{more}; fetch them again"
        )
    return model


def preprocessing(processor: Any) -> dict[str, Any]:
    """The settings that decide a picture's pixels."""
    stated = processor.to_dict()
    names = ("size", "crop_size", "resample", "image_mean", "image_std", "rescale_factor")
    flags = sorted(name for name in stated if name.startswith("do_"))
    return {name: stated.get(name) for name in (*names, *flags)}


def network(config: Any) -> dict[str, Any]:
    """The settings that decide what the weights compute, and show in no shape of theirs."""
    names = ("hidden_act", "layer_norm_eps", "num_attention_heads")
    return {name: getattr(config, name) for name in names}


def sha256_of_tensors(tensors: Mapping[str, Any]) -> str:
    """The SHA-256 of tensors by name: that of the weights in use, whatever files they came in."""
    digest = hashlib.sha256()
    for name, value in sorted(tensors.items()):
        digest.update(f"{name} {tuple(value.shape)} ".encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
