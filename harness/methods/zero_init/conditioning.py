"""What a picture adds to the attention of an adapted layer: P + 1 I_p^T for the prompt P.

LLaMA-Adapter (arXiv 2303.16199, eq. 10) adds I_p, one vector per picture, to every row of the
prompt. Where keys and values are linear in the row, as in most families, the key of each row
changes by the same W_k I_p, so that all scores of a query change by the same number, which the
softmax over the prompt drops. With zero-init attention the whole effect is therefore, per head,

    softmax(Q K_w^T) V_w + tanh(g) (softmax(Q K_p^T) V_p + W_v I_p)

one vector per picture and head, the same for every query. Other families (norms of keys, clipping,
soft caps), and random-init, whose softmax the tokens share, get the prompt's rows per picture.

Shapes: P pictures of a pass and a last row of none, R sequences of a batch or tokens of a packed
row, B batch, T queries, H query heads, G key-value heads, d head size, D hidden size, L prompt
length.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from harness.errors import MethodError
from harness.models.families import Projection
from harness.models.packed_attention import take_rows
from harness.models.pictures import PassPictures


def picture_of_rows(pictures: PassPictures, batch: int, device: torch.device) -> Tensor:
    """For each sequence of a batch its row of `projected_PD`, (B,); beams repeat a sequence's.

    Raises:
        MethodError: the batch is no multiple of the rows that pictures were given for.
    """
    rows = len(pictures.row_R)
    if batch % rows:
        raise MethodError(
            f"pictures were given for {rows} rows, the batch has {batch}; give one for each row, "
            "or one for all"
        )
    return pictures.row_R.to(device).repeat_interleave(batch // rows)


def picture_term(
    module: Any,
    project: Projection,
    pictures: PassPictures,
    strength_H11: Tensor,
    output_BTHd: Tensor,
    *,
    packed: bool,
) -> Tensor:
    """tanh(g) W_v I_p of each row's picture, to be added to the output: (B, 1, H, d), packed
    (1, N, H, d). It is zero for rows without a picture.

    Args:
        module: the attention layer, with its own projections, replaced or not.
        project: of its family.
        strength_H11: tanh(g).
        output_BTHd: what it is added to.
    """
    _, value_PGd = project(module, pictures.projected_PD.to(output_BTHd))
    value_PGd = value_PGd - value_PGd[-1:]  # the last row's are the biases
    heads_per_kv = output_BTHd.shape[2] // value_PGd.shape[1]
    gated_PHd = strength_H11[:, 0] * value_PGd.repeat_interleave(heads_per_kv, dim=1)
    gated_PHd = gated_PHd.to(output_BTHd.dtype)
    if packed:
        return take_rows(gated_PHd, pictures.row_R.to(gated_PHd.device))[None]
    picture_B = picture_of_rows(pictures, len(output_BTHd), gated_PHd.device)
    return take_rows(gated_PHd, picture_B)[:, None]


def prompts_of_pictures(
    module: Any, project: Projection, pictures: PassPictures, prompt_LD: Tensor
) -> tuple[Tensor, Tensor]:
    """K_p and V_p of the prompt with each picture, and last without one: each (P + 1, G, L, d)."""
    images_PD = pictures.projected_PD[:-1].to(prompt_LD)
    rows_PLD = prompt_LD + images_PD[:, None]
    with_images = project(module, rows_PLD.flatten(0, 1))
    # By itself, so that rows without a picture have the bits of the text-only prompt.
    without = project(module, prompt_LD)
    key_PGLd, value_PGLd = (
        torch.cat([some.unflatten(0, rows_PLD.shape[:2]), none[None]]).transpose(1, 2)
        for some, none in zip(with_images, without, strict=True)
    )
    return key_PGLd, value_PGLd
