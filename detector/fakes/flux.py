"""FLUX.2's tiny autoencoder as a re-maker: a modern generator's decoder that others made, from the shared data."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from detector.splits import DataMissing

_FACTOR: Final = 8


class TinyFlux:
    """An image to the same image re-made. data: the folder of the shared data. Raises DataMissing."""

    name: Final = "taef2"

    def __init__(self, data: Path, threads: int = 1) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        files = [data / "generators" / f"taef2_{part}.onnx" for part in ("encoder", "decoder")]
        for file in files:
            if not file.is_file():
                raise DataMissing(f"{file.name} is not in the shared data (generators/)")
        self._sessions = [
            onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"]) for file in files
        ]

    def __call__(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """(H, W) uint8 to (H, W) uint8; sides that are no multiple of 8 are mirrored up and cut again."""
        height, width = image.shape
        padded = np.pad(image, [(0, -side % _FACTOR) for side in image.shape], mode="reflect")
        values = np.repeat((padded / 255).astype(np.float32)[None, None], 3, axis=1)
        for session in self._sessions:
            values = session.run(None, {session.get_inputs()[0].name: values})[0]
        grey = np.clip(values[0].mean(0), 0, 1)
        made: NDArray[np.uint8] = np.round(grey * 255).astype(np.uint8)[:height, :width]
        return made
