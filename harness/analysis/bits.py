"""Bits per byte of whole texts: what each text adds to them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from harness.analysis.answers import LOGLIKELIHOOD

if TYPE_CHECKING:
    import pandas as pd

BITS_PER_BYTE = "bits_per_byte"
"""The metric of lm-eval: minus the log-likelihood (base 2) of all texts over all their bytes."""
NUM_BYTES = "num_bytes"
"""Of a text, in its record."""


def with_bits(frame: pd.DataFrame | None) -> pd.DataFrame | None:
    """Records of whole texts with what each adds to their bits per byte.

    Bits per byte is a ratio of sums, R = Σ bits / Σ bytes. Its value on a text is the ratio's
    linear form, R + (bits - R · bytes) · n / Σ bytes (Cochran, Sampling Techniques, section 6.3):
    its mean over the n texts is R, and its variance that of R.
    """
    if frame is None or not {LOGLIKELIHOOD, NUM_BYTES} <= set(frame):
        return frame
    bits, size = -frame[LOGLIKELIHOOD].astype(float) / math.log(2), frame[NUM_BYTES].astype(float)
    if not size.sum() > 0:
        return frame
    ratio = bits.sum() / size.sum()
    return frame.assign(**{BITS_PER_BYTE: ratio + (bits - ratio * size) / size.mean()})
