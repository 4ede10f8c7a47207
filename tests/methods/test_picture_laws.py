"""Every law of pictures on the three prompt methods and every family."""

from __future__ import annotations

import pytest

from harness.methods import METHODS
from harness.testing import PictureLaws


class TestPicturesOfRandomInit(PictureLaws):
    method = METHODS["random-init"]
    starts_as_base = False


class TestPicturesOfZeroInitLinear(PictureLaws):
    method = METHODS["zero-init-linear"]


@pytest.mark.long
class TestPicturesOfZeroInitNonlinear(PictureLaws):
    method = METHODS["zero-init-nonlinear"]
