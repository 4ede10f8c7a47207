"""The demo's image encoder: small, whole, and seeing what is in the pictures that ship."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from pyarrow import parquet

from harness.demo.world import DATA, IMAGE_ENCODER
from harness.models.image_encoder import ImageEncoderSpec, load_image_encoder
from harness.models.pictures import PictureFeatures
from harness.readers.pictures import Picture

MOST_BYTES = 700 * 1024
SPEC = ImageEncoderSpec(path=str(IMAGE_ENCODER), width=64, scales=(1, 2, 3, 4), hidden_size=32)


@dataclass(frozen=True)
class Shown:
    """Pictures, each with what is in it."""

    pictures: list[Picture]
    animals: list[str]
    colours: list[str]


def shown(split: str, number: int) -> Shown:
    """The first pictures of a file; training's tell what they show by their name alone."""
    rows = parquet.read_table(DATA / "pictures" / f"{split}.parquet", columns=["image"]).to_pylist()
    images = [row["image"] for row in rows if row["image"] is not None][:number]
    names = [image["path"].removesuffix(".jpg").split("-") for image in images]
    colours, animals = zip(*names, strict=True)
    pictures = [Picture.of(image["bytes"]) for image in images]
    return Shown(pictures, list(animals), list(colours))


def accuracy(spec: ImageEncoderSpec, labels: str) -> float:
    """Share of test pictures whose features are nearest to the training mean of the right label."""
    encoder = load_image_encoder(spec, data_root=None, device="cpu")
    train, test = shown("train", 600), shown("test", 100)
    means: dict[str, torch.Tensor] = {}
    known = encoder.encode(train.pictures).features_NF
    for label in sorted(set(getattr(train, labels))):
        chosen = [label == one for one in getattr(train, labels)]
        means[label] = known[chosen].mean(0)
    found: PictureFeatures = encoder.encode(test.pictures)
    features = found.select([one.sha256 for one in test.pictures])
    nearest = torch.cdist(features, torch.stack(list(means.values()))).argmin(1).tolist()
    names = list(means)
    answers = [names[place] for place in nearest]
    right = [a == b for a, b in zip(answers, getattr(test, labels), strict=True)]
    return sum(right) / len(right)


def test_it_is_small_and_as_the_grid_states() -> None:
    from transformers import CLIPVisionModel

    assert sum(path.stat().st_size for path in IMAGE_ENCODER.iterdir()) <= MOST_BYTES
    model = CLIPVisionModel.from_pretrained(IMAGE_ENCODER)
    assert model.num_parameters() == 148_864
    assert (model.config.hidden_size, model.config.num_hidden_layers) == (64, 4)


@pytest.mark.parametrize(("labels", "least"), [("animals", 0.75), ("colours", 0.9)])
def test_its_features_tell_what_is_in_a_picture(labels: str, least: float) -> None:
    """Ten labels, so that a guess is right in 10%; the pictures are new, some of unseen pairs."""
    assert accuracy(SPEC, labels) >= least


def test_those_of_an_untrained_encoder_do_not_tell_the_animal() -> None:
    untrained = SPEC.model_copy(update={"pretrained": False})
    assert accuracy(untrained, "animals") < 0.5
