"""Super-resolution networks by others: each brings a reduced radiograph back, near to what it was."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from detector.fakes.superresolution import REALESRGAN, UPSCALERJS, ModelMissing, Restorer

MODULES = Path(__file__).parents[2] / "node_modules"


@pytest.mark.parametrize("name", [*REALESRGAN, *UPSCALERJS])
def test_a_reduced_image_is_brought_back_in_place(name, chests):
    if name in UPSCALERJS and not (MODULES / "@upscalerjs").is_dir():
        if os.environ.get("CI"):
            pytest.fail("npm ci has to be run")
        pytest.skip("node_modules has no @upscalerjs: npm ci")
    image = chests[1][101:264, 77:290]
    restored = Restorer(name, MODULES)(image)
    assert (restored.shape, restored.dtype) == (image.shape, np.uint8)
    # They may change the brightness a little; the place has to be the same.
    nearness = [np.corrcoef(np.roll(restored, shift, axis=0)[8:-8].ravel(), image[8:-8].ravel())[0, 1] for shift in (-8, 0, 8)]
    assert nearness[1] > max(nearness[0], nearness[2])
    assert nearness[1] > 0.9
    assert np.array_equal(Restorer(name, MODULES)(image), restored)


def test_missing_weights_are_named(tmp_path):
    with pytest.raises(ModelMissing, match="npm install"):
        Restorer("esrgan-slim-2", tmp_path)
