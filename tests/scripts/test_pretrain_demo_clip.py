"""The demo's CLIP: its captions are true, its steps repeat, its loss is CLIP's own."""

from __future__ import annotations

import io
import random
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image

from harness.demo.world import IMAGE_ENCODER
from scripts.demo_world.pictures import draw_jpeg, pairs
from scripts.pretrain_demo_clip import (
    batches,
    build_model,
    caption_of,
    contrastive_loss,
    decoded,
    encode_captions,
    pixels_of,
    save_vision,
    train_model,
    vocabulary,
    zero_shot,
)


def test_captions_are_true_of_their_picture_and_of_its_like_alone() -> None:
    rng = random.Random(0)
    found = [caption_of(("dog", "red"), rng) for _ in range(100)]
    assert all(caption.is_true_of(("dog", "red")) for caption in found)
    assert {(c.animal, c.colour) for c in found} == {
        ("dog", "red"), ("dog", None), (None, "red")
    }  # fmt: skip
    for caption in found:
        assert caption.is_true_of(("dog", "blue")) == (caption.colour is None)
        assert caption.is_true_of(("cat", "red")) == (caption.animal is None)


def test_batches_show_seen_pairs_alone() -> None:
    _, captions, true = next(batches(seed=1, size=80, num_each=2))
    assert true.diagonal().all()
    shown = {(one.animal, one.colour) for one in captions if one.animal and one.colour}
    assert shown <= set(pairs(seen=True))


def test_a_caption_ends_with_the_highest_token() -> None:
    """CLIP's text model reads its embedding there."""
    ids = encode_captions(["a red dog", "this is a goat"])["input_ids"]
    assert (ids.max(1).values == len(vocabulary()) - 1).all()


def test_the_loss_is_clips_where_each_caption_is_true_of_one_picture() -> None:
    logits = torch.randn(6, 6, generator=torch.Generator().manual_seed(0))
    target = torch.arange(6)
    expected = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
    torch.testing.assert_close(contrastive_loss(logits, torch.eye(6) == 1), expected)


def test_a_few_steps_repeat_bit_for_bit_and_learn() -> None:
    torch.set_num_threads(1)
    runs = []
    for _ in range(2):
        model = build_model(seed=1)
        losses = train_model(model, seed=1, num_steps=8, num_each=1)
        weights = torch.cat([p.detach().flatten() for p in model.parameters()])
        runs.append((losses, weights))
    assert runs[0][0] == runs[1][0]
    assert torch.equal(runs[0][1], runs[1][1])
    assert runs[0][0][-1] < runs[0][0][0]


def test_zero_shot_of_an_untrained_model_is_chance() -> None:
    for shares in zero_shot(build_model(seed=1), seed=1, each=1).values():
        assert shares["pair"] < 0.1
        assert shares["animal"] < 0.35


def test_the_script_writes_the_files_that_ship(tmp_path: Path) -> None:
    save_vision(build_model(seed=1), tmp_path)
    assert {one.name for one in tmp_path.iterdir()} == {one.name for one in IMAGE_ENCODER.iterdir()}
    for name in ("config.json", "preprocessor_config.json"):
        assert (tmp_path / name).read_text() == (IMAGE_ENCODER / name).read_text()


def test_pictures_are_prepared_as_the_encoders_own_file_says() -> None:
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    data = draw_jpeg("frog", "green", random.Random(0))
    processor = CLIPImageProcessorPil.from_pretrained(IMAGE_ENCODER)

    picture = Image.open(io.BytesIO(data))
    theirs = processor(images=[picture], return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(pixels_of(decoded([data])), theirs, atol=1e-5, rtol=0)
