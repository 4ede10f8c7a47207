"""A frozen base in 8 or 4 bits, through bitsandbytes (the extra `quantised`).

int8: LLM.int8() (Dettmers et al., 2022, arXiv 2208.07339). nf4: the 4-bit NormalFloat of QLoRA
(Dettmers et al., 2023, arXiv 2305.14314) without its double quantisation. The head, the embeddings
and the norms keep the precision; what is trained is fp32 as ever.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import logging
from typing import TYPE_CHECKING, Literal

from harness.errors import ModelError

if TYPE_CHECKING:
    from transformers import BitsAndBytesConfig, PreTrainedModel


Quantization = Literal["int8", "nf4"]


LEAST_VERSION = (0, 48)
"""Of bitsandbytes: the first whose kernels for 8 and 4 bits run on a CPU too."""


def quantization_config(
    quantization: Quantization | None, dtype: str, device: str
) -> BitsAndBytesConfig | None:
    """What transformers loads a model with, multiplied in `dtype`; None where nothing is quantised.

    Raises:
        ModelError: bitsandbytes is not installed, or too old to run on the device.
    """
    if quantization is None:
        return None
    place = f"train.base_quantization: {quantization} needs bitsandbytes"
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ModelError(f"{place}; pip install 'zbench[quantised]'")
    if not device.startswith("cuda") and _version() < LEAST_VERSION:
        raise ModelError(
            f"{place} 0.48 or later on the {device}; pip install -U 'zbench[quantised]'"
        )
    from transformers import BitsAndBytesConfig

    if quantization == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype
    )


def settle_quantised(model: PreTrainedModel) -> None:
    """Makes a quantised model compute the same way whether it trains or not, and in silence.

    On CPUs with bf16 units bitsandbytes would repack 4-bit weights the first time that they are
    used without a gradient, and multiply them in bf16 from then on: scores would depend on the CPU
    and differ from what was trained.
    """
    # A warning for each product in another type than fp16, which LLM.int8() multiplies in.
    logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False  # type: ignore[assignment]


def _version() -> tuple[int, ...]:
    numbers = importlib.metadata.version("bitsandbytes").split(".")[:2]
    return tuple(int(number) for number in numbers if number.isdigit())
