"""Training of the network, resumable; and its way to ONNX."""

from __future__ import annotations

import csv
import hashlib
import math
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from detector.evidence import Logits
from detector.material import Material
from detector.network import Network, Shape

Progress = Callable[[int, int], None]
PAIRS = 8
"""Of a step: as many real crops as fakes."""
RATE = 3e-3
CHECKPOINT_EVERY = 500
_DENSE = 0.5
"""How much the loss of each logit counts beside that of the mean."""


class _Steps(Dataset[tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.bool_]]]):
    """Batches by step, so that a run that goes on sees what an uninterrupted one would."""

    def __init__(self, material: Material, seed: int, begun: int, steps: int) -> None:
        self._material, self._seed, self._begun, self._steps = material, seed, begun, steps

    def __len__(self) -> int:
        return self._steps - self._begun

    def __getitem__(self, number: int) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.bool_]]:
        batch = self._material.batch(self._seed, self._begun + number, PAIRS)
        return batch.images, batch.targets, batch.whole


def train(
    material: Material,
    folder: Path,
    *,
    name: str = "network",
    shape: Shape | None = None,
    seed: int,
    steps: int,
    progress: Progress,
    shuffled: bool = False,
) -> Path:
    """Trains a network, goes on from its last checkpoint, and returns the file of its weights (safetensors).

    Beside it grows `<name>.csv`: step, loss, and the share of whole crops that are told right, of 50 steps. shuffled:
    labels at random, the control that must learn nothing.
    """
    weights = folder / f"{name}.safetensors"
    if weights.exists():
        return weights
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    network = Network(shape)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = torch.optim.AdamW(network.parameters(), RATE, weight_decay=1e-3)
    checkpoint, begun = folder / f"{name}.checkpoint", 0
    if checkpoint.exists():
        kept = torch.load(checkpoint, weights_only=True)
        network.load_state_dict(kept["network"])
        optimiser.load_state_dict(kept["optimiser"])
        begun = kept["step"]
    batches = DataLoader(_Steps(material, seed, begun, steps), batch_size=None, num_workers=1, prefetch_factor=8)
    network.train()
    losses: list[float] = []
    right: list[float] = []
    for step, (images, targets, whole) in enumerate(batches, begun):
        for group in optimiser.param_groups:
            group["lr"] = RATE * min(1.0, (step + 1) / 100) * (0.5 + 0.5 * math.cos(math.pi * step / steps) + 0.01)
        x = (images.float() / 255).contiguous(memory_format=torch.channels_last)
        if shuffled:
            order = torch.from_numpy(np.random.default_rng((seed, step, 1)).permutation(len(targets)))
            targets, whole = targets[order], whole[order]
        with torch.autocast("cpu", torch.bfloat16):
            logits = network(x).float()
        loss = loss_of(logits, targets, whole)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        losses.append(float(loss.detach()))
        right.append(float(((logits.mean((1, 2, 3)) > 0) == (targets.mean((1, 2, 3)) > 0.5))[whole].float().mean()))
        if (step + 1) % 50 == 0:
            _log(folder / f"{name}.csv", step + 1, float(np.mean(losses)), float(np.mean(right)))
            losses, right = [], []
        if (step + 1) % CHECKPOINT_EVERY == 0:
            unfinished = checkpoint.with_suffix(".new")
            torch.save({"network": network.state_dict(), "optimiser": optimiser.state_dict(), "step": step + 1}, unfinished)
            unfinished.replace(checkpoint)
        progress(step + 1, steps)
    state = {key: value.contiguous() for key, value in network.state_dict().items()}
    save_file(state, weights, {key: repr(value) for key, value in asdict(shape or Shape()).items()})
    checkpoint.unlink(missing_ok=True)
    return weights


def loss_of(logits: Tensor, targets: Tensor, whole: Tensor) -> Tensor:
    """Of each logit against the share of made pixels there; and of a crop's mean logit, where the crop has one maker."""
    dense = functional.binary_cross_entropy_with_logits(logits, targets)
    means = functional.binary_cross_entropy_with_logits(logits.mean((1, 2, 3))[whole], targets.mean((1, 2, 3))[whole])
    return _DENSE * dense + means if bool(whole.any()) else dense


def _log(file: Path, step: int, loss: float, right: float) -> None:
    new = not file.exists()
    with file.open("a", newline="") as opened:
        writer = csv.writer(opened, lineterminator="\n")
        if new:
            writer.writerow(("step", "loss", "right"))
        writer.writerow((step, f"{loss:.4f}", f"{right:.4f}"))


def load(weights: Path, shape: Shape | None = None) -> Network:
    """A trained network, ready to be used."""
    network = Network(shape)
    network.load_state_dict(load_file(weights))
    return network.eval()


def torch_logits(network: Network) -> Logits:
    """The network's logits for arrays, as ONNX Runtime gives them (rounded to bfloat16: for trials, not for calibration)."""

    def logits(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            x = torch.from_numpy(pixels).float()[None, None].contiguous(memory_format=torch.channels_last) / 255
            found: NDArray[np.float32] = network(x)[0, 0].float().numpy()
        return found

    return logits


def export(network: Network, file: Path) -> str:
    """Writes the network as ONNX for images of any size; its SHA-256 in hex."""
    side = torch.export.Dim("height", min=64, max=8192), torch.export.Dim("width", min=64, max=8192)
    torch.onnx.export(
        network.float(),
        (torch.zeros(1, 1, 128, 136),),
        file,
        input_names=["pixels"],
        output_names=["logits"],
        dynamic_shapes={"x": {2: side[0], 3: side[1]}},
        external_data=False,
        dynamo=True,
        verbose=False,
    )
    return hashlib.sha256(file.read_bytes()).hexdigest()
