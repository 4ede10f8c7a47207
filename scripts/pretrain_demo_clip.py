"""Makes the image encoder of the embedded world: `python -m scripts.pretrain_demo_clip`.

A tiny CLIP learns which captions are true of drawn pets (`scripts.demo_world.pictures`), of 80 of
the 100 colour-animal pairs; its vision part ships with the package, made by this script with its
defaults. Five minutes on one core. The last bits of the weights depend on the processor and on
torch's version.
"""

from __future__ import annotations

import argparse
import io
import json
import logging
import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from scripts.demo_world.animals import ANIMALS
from scripts.demo_world.people import SEED
from scripts.demo_world.pictures import COLOURS, SIZE, draw_jpeg, pairs

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import CLIPModel

logger = logging.getLogger(__name__)

WIDTH, LAYERS, HEADS, PATCH = 64, 4, 4, 8
NUM_STEPS, BATCH_SIZE = 3000, 64
NUM_EACH = 200
"""Pictures of each seen pair, all drawn before the first step: each is shown twelve times."""
GREY_RATIO = 0.5
"""Share of the pictures without colour, among those whose caption names the animal alone; else the
encoder learns that no animal is of a colour in which it has not seen it."""
PEAK_LEARNING_RATE, WARMUP_STEPS = 2e-3, 50
MEAN, STD = 0.5, 0.25
"""Of a channel between 0 and 1; what preprocessor_config.json says."""

BOTH = ("a {c} {a}", "the {a} is {c}", "a picture of a {c} {a}", "this {a} is {c}")
ANIMAL = ("a {a}", "a picture of a {a}", "this is a {a}")
COLOUR = ("a {c} animal", "the animal is {c}", "a picture of a {c} animal")
"""Captions that name the animal or the colour alone are true of several pictures."""
START, END = "<start>", "<end>"


@dataclass(frozen=True)
class Caption:
    """A caption, and what must be in a picture for it to be true."""

    text: str
    animal: str | None
    colour: str | None

    def is_true_of(self, pair: tuple[str, str]) -> bool:
        """Whether it is true of a picture with this animal and colour."""
        return self.animal in (None, pair[0]) and self.colour in (None, pair[1])


def caption_of(pair: tuple[str, str], rng: random.Random) -> Caption:
    """A caption of a picture: one in four names animal and colour, one the colour, two the animal,
    which is harder to see."""
    animal, colour = pair
    wordings, said = rng.choice(
        ((BOTH, (animal, colour)), (COLOUR, (None, colour)), (ANIMAL, (animal, None)),
         (ANIMAL, (animal, None)))
    )  # fmt: skip
    return Caption(rng.choice(wordings).format(a=animal, c=colour), *said)


def vocabulary() -> dict[str, int]:
    """Every word of the captions; 0 is padding."""
    words = " ".join((*BOTH, *ANIMAL, *COLOUR)).replace("{a}", "").replace("{c}", "").split()
    names = ["<pad>", START, *sorted({*words, *ANIMALS, *COLOURS}), END]
    return {name: number for number, name in enumerate(names)}


def encode_captions(texts: Sequence[str]) -> dict[str, Tensor]:
    """Token ids and mask (B, T) of captions; the last token, with the highest id, ends each."""
    import torch

    ids = vocabulary()
    rows = [[ids[word] for word in (START, *text.split(), END)] for text in texts]
    longest = max(map(len, rows))
    padded = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
    return {"input_ids": padded, "attention_mask": (padded > 0).long()}


def decoded(pictures: Sequence[bytes]) -> Tensor:
    """Encoded pictures as bytes of pixels, (B, 3, SIZE, SIZE)."""
    import numpy as np
    import torch
    from PIL import Image

    arrays = [np.asarray(Image.open(io.BytesIO(data)).convert("RGB")) for data in pictures]
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2)


def pixels_of(bytes_B3HW: Tensor) -> Tensor:
    """Pixels as the encoder sees them, (B, 3, SIZE, SIZE)."""
    return (bytes_B3HW.float() / 255 - MEAN) / STD


def build_model(seed: int) -> CLIPModel:
    """The untrained CLIP, its weights drawn from the seed; 149 thousand parameters see."""
    import torch
    from transformers import CLIPConfig, CLIPModel

    size = {"hidden_size": WIDTH, "intermediate_size": 2 * WIDTH, "num_attention_heads": HEADS}
    ids = vocabulary()
    vision = size | {"num_hidden_layers": LAYERS, "image_size": SIZE, "patch_size": PATCH}
    text = size | {"num_hidden_layers": 2, "vocab_size": len(ids), "max_position_embeddings": 16}
    text |= {"bos_token_id": ids[START], "eos_token_id": ids[END], "pad_token_id": 0}
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=WIDTH)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return CLIPModel(config)


def contrastive_loss(logits_TB: Tensor, true_TB: Tensor) -> Tensor:
    """CLIP's symmetric cross-entropy, where a caption may be true of several pictures.

    All that are true share the target evenly, as in UniCL (arXiv 2204.03610, equations 3 and 4).

    Args:
        logits_TB: scaled similarity of each caption and picture.
        true_TB: whether the caption is true of the picture.
    """
    import torch.nn.functional as F

    true_TB = true_TB.float()
    of_captions = true_TB / true_TB.sum(1, keepdim=True)
    of_pictures = (true_TB / true_TB.sum(0, keepdim=True)).T
    return (F.cross_entropy(logits_TB, of_captions) + F.cross_entropy(logits_TB.T, of_pictures)) / 2


def batches(
    seed: int, size: int, num_each: int = NUM_EACH
) -> Iterator[tuple[Tensor, list[Caption], Tensor]]:
    """Yields pixels, a caption of each picture, and which captions are true of which pictures.

    Args:
        seed: of pictures, captions and their order.
        size: pictures of a batch.
        num_each: pictures of each seen pair that there are.
    """
    import torch

    rng = random.Random(f"clip-{seed}")
    shown = [pair for pair in pairs(seen=True) for _ in range(num_each)]
    pictures = decoded([draw_jpeg(*pair, rng) for pair in shown])
    while True:
        rows = rng.sample(range(len(shown)), size)
        captions = [caption_of(shown[row], rng) for row in rows]
        chosen = pictures[rows]
        grey = [one.colour is None and rng.random() < GREY_RATIO for one in captions]
        true = [
            [
                caption.is_true_of(shown[row]) and not (is_grey and caption.colour)
                for row, is_grey in zip(rows, grey, strict=True)
            ]
            for caption in captions
        ]
        means = chosen[grey].float().mean(1, keepdim=True).to(chosen.dtype)
        chosen[grey] = means.expand(-1, 3, -1, -1)
        yield pixels_of(chosen), captions, torch.tensor(true)


def train_model(
    model: CLIPModel, *, seed: int, num_steps: int, num_each: int = NUM_EACH
) -> list[float]:
    """Trains in place on `num_each` pictures of each seen pair.

    Returns:
        The loss of each step.
    """
    import torch

    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK_LEARNING_RATE, weight_decay=0.05)
    started, losses = time.monotonic(), []
    model.train()
    for step, (pixels, captions, true) in zip(
        range(num_steps), batches(seed, BATCH_SIZE, num_each), strict=False
    ):
        warm = min(1.0, (step + 1) / WARMUP_STEPS)
        for group in optimizer.param_groups:
            cosine = 0.5 * (1 + math.cos(math.pi * step / num_steps))
            group["lr"] = PEAK_LEARNING_RATE * warm * cosine
        found = model(**encode_captions([one.text for one in captions]), pixel_values=pixels)
        loss = contrastive_loss(found.logits_per_text, true)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        with torch.no_grad():  # as CLIP's own training bounds its temperature, at 100
            model.logit_scale.clamp_(max=math.log(100))
        losses.append(loss.item())
        if (step + 1) % 50 == 0:
            mean, spent = sum(losses[-50:]) / 50, time.monotonic() - started
            logger.info("step %d of %d: loss %.3f, %.0f s", step + 1, num_steps, mean, spent)
    return losses


def zero_shot(model: CLIPModel, *, seed: int, each: int = 5) -> dict[str, dict[str, float]]:
    """Shares of new pictures whose best caption is the right one, for seen and unseen pairs.

    `pair` chooses among the 100 captions "a red dog", `animal` among the 10 captions "a dog" and
    `colour` among the 10 captions "a red animal".
    """
    import torch

    every = [(animal, colour) for animal in ANIMALS for colour in COLOURS]
    kinds: dict[str, tuple[list[str], Callable[[tuple[str, str]], int]]] = {
        "pair": ([BOTH[0].format(a=a, c=c) for a, c in every], every.index),
        "animal": ([ANIMAL[0].format(a=a) for a in ANIMALS], lambda p: list(ANIMALS).index(p[0])),
        "colour": ([COLOUR[0].format(c=c) for c in COLOURS], lambda p: list(COLOURS).index(p[1])),
    }
    model.eval()
    rng = random.Random(f"zero-shot-{seed}")
    found: dict[str, dict[str, float]] = {}
    for name, seen in (("seen", True), ("unseen", False)):
        shown = [pair for pair in pairs(seen) for _ in range(each)]
        pixels = pixels_of(decoded([draw_jpeg(*pair, rng) for pair in shown]))
        found[name] = {}
        for kind, (texts, answer) in kinds.items():
            with torch.no_grad():
                logits = model(**encode_captions(texts), pixel_values=pixels).logits_per_image
            right = [
                int(best) == answer(p) for best, p in zip(logits.argmax(1), shown, strict=True)
            ]
            found[name][kind] = sum(right) / len(right)
    return found


def save_vision(model: CLIPModel, folder: Path) -> None:
    """Writes the vision part in bfloat16, and how pictures are prepared for it."""
    import torch
    from transformers import CLIPVisionModel

    vision = CLIPVisionModel(model.config.vision_config)
    vision.load_state_dict(model.vision_model.state_dict(), strict=True)
    vision.to(torch.bfloat16)
    vision.config.dtype = torch.bfloat16
    vision.save_pretrained(folder)
    prepared = {
        "image_processor_type": "CLIPImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True, "size": {"shortest_edge": SIZE}, "resample": 3,
        "do_center_crop": True, "crop_size": {"height": SIZE, "width": SIZE},
        "do_rescale": True, "rescale_factor": 1 / 255,
        "do_normalize": True, "image_mean": [MEAN] * 3, "image_std": [STD] * 3,
    }  # fmt: skip
    text = json.dumps(prepared, indent=2) + "\n"
    (folder / "preprocessor_config.json").write_text(text, encoding="utf-8")


def main() -> None:
    """Reads the command line."""
    import torch

    parser = argparse.ArgumentParser(
        prog="python -m scripts.pretrain_demo_clip", description=__doc__
    )
    parser.add_argument("--output", type=Path, required=True, help="folder for the checkpoint")
    parser.add_argument("--steps", type=int, default=NUM_STEPS, help="training steps")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    torch.set_num_threads(1)
    model = build_model(SEED)
    seeing = sum(parameter.numel() for parameter in model.vision_model.parameters())
    logger.info("%d parameters of the vision part", seeing)
    train_model(model, seed=SEED, num_steps=arguments.steps)
    for name, shares in zero_shot(model, seed=SEED).items():
        said = ", ".join(f"{kind} {100 * share:.1f}%" for kind, share in shares.items())
        logger.info("zero-shot, %s pairs: %s", name, said)
    arguments.output.mkdir(parents=True, exist_ok=True)
    save_vision(model, arguments.output)


if __name__ == "__main__":
    main()
