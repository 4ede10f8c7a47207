"""The frozen image encoder of a picture-conditioned prompt: what a grid says of it, and its use.

A picture's features are its class tokens after some layers of a CLIP vision encoder, each
normalised to mean 0 and variance 1 (layer norm without weights, so that no scale outweighs
another), one after the other.

Shapes: N pictures, F features.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self

from pydantic import Field, model_validator
from pydantic.json_schema import SkipJsonSchema

from harness.errors import ModelError, shortened
from harness.models.checkpoint import NOT_BESIDE, hub_snapshot, local_folder
from harness.models.encoder_files import (
    PICKLED,
    SMALL_FILES,
    WEIGHTS,
    check_encoder_folder,
    encoder_sha256,
)
from harness.models.encoder_loading import (
    check_size,
    load_processor,
    load_vision_model,
    network,
    preprocessing,
    sha256_of_tensors,
)
from harness.models.loading import quiet_libraries
from harness.readers.files import Unreadable
from harness.readers.pictures import BadPicture
from harness.records.files import sha256_of_json
from harness.spec import Fault, Faults, Spec, UserPath, is_hub_name

if TYPE_CHECKING:
    from torch import nn

    from harness.models.pictures import PictureFeatures
    from harness.readers.pictures import Picture

PICTURES_AT_ONCE = 32


class ImageEncoderSpec(Spec):
    """A CLIP vision encoder, and the projection of its features: a hub repository or a folder.

    A picture's features are its class tokens after some layers, F = len(scales) * width numbers;
    the trained projection is a bottleneck without biases, F -> hidden_size -> D. LLaMA-Adapter
    (arXiv 2303.16199, sections 3.3 and 4.2) says of its encoder only that it is a pre-trained CLIP
    with features of several scales and "a simple bottleneck MLP layer" of 0.6M parameters: the
    defaults are zbench's choice, and give its total of 1.79M with LLaMA-7B.
    """

    source: str | None = None
    """Hub repository, such as `openai/clip-vit-base-patch16`."""
    path: UserPath | None = None
    """Checkpoint folder: absolute, beside the grid file, or under the data root. It takes
    precedence over `source`."""
    revision: str = "main"
    """Branch, tag or commit of the hub repository."""
    width: Annotated[int, Field(ge=1, le=65536)] = 768
    """Hidden size of the encoder; stated, so that parameters are counted without loading it."""
    scales: Annotated[tuple[Annotated[int, Field(ge=1, le=1000)], ...], Field(min_length=1)] = (
        2, 4, 6, 8, 10, 12,
    )  # fmt: skip
    """Layers after which the class token is taken, counted from 1."""
    hidden_size: Annotated[int, Field(ge=1, le=65536)] = 64
    """Width of the projection's bottleneck."""
    pretrained: bool = Field(default=True, exclude_if=lambda value: value is True)
    """False: the encoder's weights are drawn anew, as a control; its configuration stays."""
    sha256: SkipJsonSchema[str | None] = Field(default=None, exclude_if=lambda value: value is None)
    """Of a folder's files, once these are found; no grid says it."""
    grid_folder: ClassVar[None] = None
    """None: `beside` makes the path absolute."""

    def beside(self, folder: Path) -> Self:
        """The same, of a grid file in this folder: an encoder that lies there is named by its
        absolute path."""
        if self.path is None or not (place := folder / self.path).exists():
            return self
        return self.model_copy(update={"path": str(place)})

    @property
    def name(self) -> str:
        """What a reader calls it: the last part of its repository or folder."""
        return str(self.source or self.path).rstrip("/").split("/")[-1]

    @property
    def num_features(self) -> int:
        """F, the numbers that it gives of a picture."""
        return len(self.scales) * self.width

    def count_projection(self, model_size: int) -> int:
        """Trained parameters of the projection to a model of hidden size `model_size`."""
        return self.num_features * self.hidden_size + self.hidden_size * model_size

    def identity(self) -> dict[str, Any]:
        """What stands of it in a cell's id: the repository and revision of a hub's, of one that is
        on no hub the content of its files, and what is made of it."""
        whole = self.model_dump(exclude={"path", "sha256"})
        if self.source is None:
            del whole["source"], whole["revision"]
            whole["sha256"] = self.sha256
        return whole

    @model_validator(mode="after")
    def _somewhere(self) -> Self:
        if self.source is None and self.path is None:
            raise Fault("give `source` (a hub repository) or `path` (a folder)")
        if list(self.scales) != sorted(set(self.scales)):
            raise Fault("scales: name each layer once, in ascending order")
        if self.path is None and not is_hub_name(str(self.source)):
            faults = Faults()
            said = "must be a model of the hub, as owner/name; a folder of your own is `path`"
            faults.add(f"{said} (got '{shortened(str(self.source))}')", "source")
            faults.check()
        return self


def find_encoder(spec: ImageEncoderSpec, data_root: Path | None) -> Path:
    """The folder of an encoder, downloaded from the hub where it has to be; it is not checked.

    Raises:
        ModelError: it is missing, gated, or out of reach.
    """
    folder = local_folder(spec, data_root)
    if folder is not None:
        return folder
    if spec.source is None:
        raise ModelError(f"{spec.path}: {NOT_BESIDE}")
    what = "image_encoder"
    folder = hub_snapshot(spec, [*SMALL_FILES, *WEIGHTS], what)
    if spec.pretrained and not any(folder.glob(WEIGHTS[0])):
        folder = hub_snapshot(spec, [*SMALL_FILES, PICKLED], what)
    return folder


def is_encoder_cached(spec: ImageEncoderSpec) -> bool:
    """Whether an encoder of the hub lies whole in the local cache; no network is asked."""
    from huggingface_hub import snapshot_download

    assert spec.source is not None
    for weights in (WEIGHTS, (PICKLED,)):
        # Not there, cut off, or of another kind.
        with contextlib.suppress(OSError, ValueError, ModelError, Unreadable):
            cached = snapshot_download(
                spec.source,
                revision=spec.revision,
                allow_patterns=[*SMALL_FILES, *weights],
                local_files_only=True,
            )
            check_encoder_folder(
                Path(cached), width=spec.width, scales=spec.scales, pretrained=spec.pretrained
            )
            return True
    return False


def check_encoder(spec: ImageEncoderSpec, data_root: Path | None) -> Path:
    """The folder of an encoder, checked by its small files; loads no weights.

    Raises:
        ModelError: it is missing, of another kind, or not as the grid states.
        Unreadable: a file is damaged.
    """
    folder = find_encoder(spec, data_root)
    check_encoder_folder(folder, width=spec.width, scales=spec.scales, pretrained=spec.pretrained)
    return folder


@dataclass(frozen=True)
class ImageEncoder:
    """A loaded encoder; it leaves memory with its last reference."""

    spec: ImageEncoderSpec
    model: nn.Module
    """transformers' CLIPVisionModel, frozen, in fp32."""
    processor: Any
    """transformers' image processor."""
    identity: dict[str, Any]
    """What says exactly which features it gives; see `same_features`."""
    device: str

    def encode(
        self,
        pictures: Sequence[Picture],
        on_progress: Callable[[int, int], None] | None = None,
    ) -> PictureFeatures:
        """The features of the distinct pictures, in fp32, on the CPU.

        Args:
            on_progress: told how many pictures are encoded, and of how many.

        Raises:
            BadPicture: one is broken.
        """
        import torch

        from harness.models.pictures import PictureFeatures

        distinct = list({one.sha256: one for one in pictures}.values())
        parts = [torch.empty(0, self.spec.num_features)]
        for start in range(0, len(distinct), PICTURES_AT_ONCE):
            batch = distinct[start : start + PICTURES_AT_ONCE]
            parts.append(self._features([_decoded(one) for one in batch]))
            if on_progress is not None:
                on_progress(start + len(batch), len(distinct))
        return PictureFeatures(tuple(one.sha256 for one in distinct), torch.cat(parts))

    def _features(self, images: Sequence[Any]) -> Any:
        import torch
        from torch.nn import functional

        pixels = self.processor(images=list(images), return_tensors="pt")["pixel_values"]
        # In fp32 to the last bit: convolutions on CUDA round to TF32 by default.
        with (
            torch.no_grad(),
            torch.autocast(self.device.split(":")[0], enabled=False),
            torch.backends.cudnn.flags(enabled=True, allow_tf32=False),
        ):
            found = self.model(pixel_values=pixels.to(self.device), output_hidden_states=True)
            tokens = [found.hidden_states[layer][:, 0].float() for layer in self.spec.scales]
            normed = [functional.layer_norm(one, one.shape[-1:]) for one in tokens]
            return torch.cat(normed, dim=-1).cpu()


def _decoded(picture: Picture) -> Any:
    try:
        return picture.decode()
    except BadPicture as fault:
        raise BadPicture(f"picture {picture.sha256[:12]}: {fault}") from fault


def load_image_encoder(
    spec: ImageEncoderSpec, *, data_root: Path | None, device: str
) -> ImageEncoder:
    """Loads an encoder from a folder, or from the hub (or its local cache).

    Args:
        data_root: what a relative `spec.path` is relative to.
        device: such as `cpu` or `cuda:0`.

    Raises:
        ModelError: it is missing, damaged, not as the grid states, or has changed since that was
            read.
        Unreadable: a file is damaged.
    """
    folder = check_encoder(spec, data_root)
    local = local_folder(spec, data_root) is not None
    if local and spec.sha256 not in (None, encoder_sha256(folder, pretrained=spec.pretrained)):
        raise ModelError(
            f"{folder}: the image encoder has changed since the grid was read; run the command "
            "again"
        )
    with quiet_libraries():
        processor = load_processor(folder)
        model = load_vision_model(folder, pretrained=spec.pretrained)
    size = model.config.image_size
    check_size(processor, size, folder)
    identity = {
        "source": spec.source or folder.name,
        "revision": None if local else spec.revision,
        "commit": None if local else folder.name,
        "width": spec.width,
        "scales": list(spec.scales),
        "pretrained": spec.pretrained,
        "weights_sha256": sha256_of_tensors(model.state_dict()),
        "network_sha256": sha256_of_json(network(model.config)),
        "preprocessing_sha256": sha256_of_json(preprocessing(processor)),
    }
    model.requires_grad_(False).eval().to(device)
    return ImageEncoder(spec, model, processor, identity, device)


OF_FEATURES = ("weights_sha256", "network_sha256", "preprocessing_sha256", "scales")
"""What of an identity decides the features."""


def check_features(stated: Mapping[str, Any], found: Mapping[str, Any], place: str) -> None:
    """Refuses an encoder that is not the one an adapter was trained with, by their identities.

    Args:
        place: begins the line.

    Raises:
        ModelError: it gives other features.
    """
    differing = [name for name in OF_FEATURES if stated.get(name) != found.get(name)]
    if differing:
        name = differing[0]
        then, now = (f"{one.get(name)!s:.12}" for one in (stated, found))
        raise ModelError(
            f"{place}: features of another encoder: the adapter was trained with {name} {then}, "
            f"this encoder has {now}; give the encoder that it was trained with"
        )
