"""The real radiographs, where they are; in CI they have to be."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import pytest

from detector.splits import DataMissing, data_folder, radiographs


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Tests run beside each other: threads of one only stand in the way of another."""
    with suppress(ImportError):
        import torch

        torch.set_num_threads(1)


@pytest.fixture(scope="session")
def radiograph_folder() -> Path:
    try:
        return data_folder()
    except DataMissing as error:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def chests(radiograph_folder):
    """Six real radiographs of both sources, of the split that nothing is trained on; (H, W) uint8."""
    listed = [radiographs(["calibrate"], source=source, kind="512")[:3] for source in ("nih", "kermany")]
    return [image.pixels(radiograph_folder) for images in listed for image in images]
