"""The real files that tests read: pydicom's own, pydicom-data's, and the shared ones (SCANSEAL_DATA or ../shared/data)."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

import data_store
import pydicom
import pytest

PYDICOM = Path(pydicom.__file__).parent / "data"
ROOT = Path(__file__).parents[2]


def shared() -> Path:
    """The folder of shared DICOM files; without it an error in CI and a named skip elsewhere."""
    folder = Path(os.environ.get("SCANSEAL_DATA", ROOT.parent / "shared" / "data")) / "dicom"
    if not folder.is_dir():
        if os.environ.get("CI") == "true":
            raise RuntimeError("the shared images are missing: set SCANSEAL_DATA")
        pytest.skip("no shared images: set SCANSEAL_DATA to the folder that has dicom/wg04")
    return folder


@cache
def packaged() -> dict[str, Path]:
    """Every file of pydicom and pydicom-data by a name that is unique: the base name, with the parent when taken."""
    found: dict[str, Path] = {}
    for folder in (PYDICOM / "test_files", PYDICOM / "charset_files", Path(data_store.__file__).parent / "data"):
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                same = found.get(path.name)
                if same is None or same.read_bytes() != path.read_bytes():
                    found[path.name if same is None else f"{path.parent.name}/{path.name}"] = path
    return found
