"""Training: it learns, goes on where it was stopped, learns nothing from labels at random, and ONNX says what torch says."""

from __future__ import annotations

import csv

import numpy as np
import pytest

pytest.importorskip("torch")

import torch
from safetensors.numpy import load_file

from detector import train as training
from detector.inference import onnx_logits
from detector.material import Material
from detector.network import Network, Shape
from detector.train import export, load, loss_of, torch_logits, train

SHAPE = Shape((4, 8, 8, 8), (1, 1, 1))


class Stopped(Exception):
    pass


def striped(image, rng):
    """A fake that anybody can tell: every other row is darker."""
    made = image.copy()
    made[::2] = made[::2] // 2
    return made


@pytest.fixture(scope="module")
def material(chests):
    return Material({str(number): image for number, image in enumerate(chests)}, [], [striped])


def trained(material, folder, steps, **more):
    return train(
        material, folder, shape=SHAPE, seed=1, steps=steps, progress=more.pop("progress", lambda done, total: None), **more
    )


def test_it_learns_what_can_be_told_and_logs_it(material, tmp_path):
    trained(material, tmp_path, 150)
    with (tmp_path / "network.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == [50, 100, 150]
    assert float(rows[-1]["right"]) > 0.8
    assert float(rows[-1]["loss"]) < float(rows[0]["loss"])


def test_labels_at_random_teach_nothing(material, tmp_path):
    trained(material, tmp_path, 150, shuffled=True)
    with (tmp_path / "network.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert float(rows[-1]["right"]) == pytest.approx(0.5, abs=0.06)


def test_training_that_was_stopped_ends_where_it_would_have(material, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "CHECKPOINT_EVERY", 3)

    def stop(done: int, total: int) -> None:
        if done == 5:
            raise Stopped

    whole = trained(material, tmp_path / "whole", 8)
    with pytest.raises(Stopped):
        trained(material, tmp_path / "stopped", 8, progress=stop)
    seen: list[int] = []
    resumed = trained(material, tmp_path / "stopped", 8, progress=lambda done, total: seen.append(done))
    assert seen[0] == 4
    expected, found = load_file(whole), load_file(resumed)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-2, atol=1e-3)


def test_onnx_says_what_torch_says_at_any_size(tmp_path):
    torch.manual_seed(3)
    network = Network(SHAPE).train()
    network(torch.rand(4, 1, 128, 128))  # batch normalisation has seen something
    digest = export(network.eval(), tmp_path / "network.onnx")
    content = (tmp_path / "network.onnx").read_bytes()
    assert len(digest) == 64
    run = onnx_logits(content, 1)
    for shape in ((96, 113), (128, 128), (301, 260)):
        pixels = np.random.default_rng(1).integers(0, 256, shape, np.uint8)
        with torch.inference_mode():
            expected = network(torch.from_numpy(pixels).float()[None, None] / 255)[0, 0].numpy()
        found = run(pixels)
        assert found.shape == expected.shape == tuple(-(-side // 8) for side in shape)
        np.testing.assert_allclose(found, expected, atol=1e-4)
        np.testing.assert_allclose(torch_logits(network)(pixels), expected, atol=0.3)


def test_what_is_no_network_is_refused():
    with pytest.raises(ValueError, match="ONNX Runtime"):
        onnx_logits(b"nothing")


def test_weights_are_read_again(material, tmp_path):
    network = load(trained(material, tmp_path, 4), SHAPE)
    assert not network.training


def test_a_tampered_crop_counts_by_its_places_alone():
    logits = torch.zeros(2, 1, 4, 4)
    targets = torch.zeros(2, 1, 4, 4)
    targets[1, :, :2] = 1
    both = loss_of(logits, targets, torch.tensor([True, False]))
    dense = loss_of(logits, targets, torch.tensor([False, False]))
    assert float(both) == pytest.approx(1.5 * np.log(2), abs=1e-5)
    assert float(dense) == pytest.approx(np.log(2), abs=1e-5)
