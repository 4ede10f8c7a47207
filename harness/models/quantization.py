"""A frozen base in 8 or 4 bits, through bitsandbytes (the extra `quantised`).

int8: LLM.int8() (Dettmers et al., 2022, arXiv 2208.07339). nf4: the 4-bit NormalFloat of QLoRA
(Dettmers et al., 2023, arXiv 2305.14314) without its double quantisation. The head, the embeddings
and the norms keep the precision; what is trained is fp32 as ever.
"""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Literal

from harness.errors import ModelError

if TYPE_CHECKING:
    from transformers import BitsAndBytesConfig


Quantization = Literal["int8", "nf4"]


def quantization_config(
    quantization: Quantization | None, dtype: str, device: str
) -> BitsAndBytesConfig | None:
    """What transformers loads a model with, multiplied in `dtype`; None where nothing is quantised.

    Raises:
        ModelError: bitsandbytes is not installed, or the device is no CUDA device.
    """
    if quantization is None:
        return None
    if not device.startswith("cuda"):
        raise ModelError(
            f"train.base_quantization: {quantization} needs a CUDA device; leave it out on {device}"
        )
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ModelError(
            f"train.base_quantization: {quantization} needs bitsandbytes; "
            "pip install 'zbench[quantised]'"
        )
    from transformers import BitsAndBytesConfig

    if quantization == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype
    )
