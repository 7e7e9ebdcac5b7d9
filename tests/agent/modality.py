"""A modality for the tests: it makes images of its own, sends them until they are taken, and remembers what it was told."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid
from pynetdicom import AE
from pynetdicom.sop_class import CTImageStorage

MAKER = ("Acme", "CT 3000", "4711")
"""Manufacturer, model, serial number: of the device that `add_device` enrols."""


def image(seed: int, folder: Path, maker: tuple[str, str, str] = MAKER, side: int = 64, study: str | None = None) -> Path:
    """A file with an image that no other seed gives."""
    dataset = pydicom.dcmread(get_testdata_file("CT_small.dcm", download=False))
    dataset.remove_private_tags()
    del dataset.DataSetTrailingPadding
    dataset.Manufacturer, dataset.ManufacturerModelName, dataset.DeviceSerialNumber = maker
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[str(folder), str(seed)])
    dataset.StudyInstanceUID = study or generate_uid(entropy_srcs=[str(folder), "study", str(seed // 50)])
    dataset.InstanceNumber = seed
    pixels = np.random.default_rng(seed).integers(0, 4096, (side, side), dtype=np.int16)
    dataset.Rows = dataset.Columns = side
    dataset.PixelData = pixels.tobytes()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"image{seed:05d}.dcm"
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.save_as(path, enforce_file_format=True)
    return path


def images(count: int, folder: Path, first: int = 0) -> list[Path]:
    return [image(first + number, folder) for number in range(count)]


def instance(path: Path) -> str:
    return str(pydicom.dcmread(path, specific_tags=["SOPInstanceUID"]).SOPInstanceUID)


def stripped(file: bytes) -> bytes:
    """What of a file goes over the wire: all behind the file meta information, whose length is its first element."""
    return file[144 + int.from_bytes(file[140:144], "little") :]


def data_set(path: Path) -> bytes:
    return stripped(path.read_bytes())


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@dataclass
class Modality:
    """Sends to one port with pynetdicom. `told`: instance -> statuses, in order; None where there was no answer."""

    port: int
    ae_title: str = "STORESCU"
    called: str = "SCANSEAL"
    told: dict[str, list[int | None]] = field(default_factory=dict)
    sent: dict[str, str] = field(default_factory=dict)
    """instance -> digest of the data set."""

    def send(self, *paths: Path) -> None:
        """Each file once, in one association; what was not answered is noted as that."""
        entity = AE(ae_title=self.ae_title)
        entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = 20
        entity.connection_timeout = 5
        entity.add_requested_context(CTImageStorage, ExplicitVRLittleEndian)
        association = entity.associate("127.0.0.1", self.port, ae_title=self.called)
        for path in paths:
            one: Dataset = pydicom.dcmread(BytesIO(path.read_bytes()))
            uid = str(one.SOPInstanceUID)
            self.sent[uid] = digest(data_set(path))
            status: int | None = None
            if association.is_established:
                try:
                    status = getattr(association.send_c_store(path), "Status", None)
                except (RuntimeError, ValueError):
                    status = None
            self.told.setdefault(uid, []).append(status)
        if association.is_established:
            association.release()

    def send_until_taken(self, *paths: Path, patience_s: float = 60.0) -> None:
        """As a modality does: what was not answered with success is sent again."""
        deadline = time.monotonic() + patience_s
        waiting = list(paths)
        while waiting:
            self.send(*waiting)
            waiting = [path for path in waiting if instance(path) not in self.taken()]
            assert time.monotonic() < deadline, f"{len(waiting)} images were not taken: {self.told[instance(waiting[0])][-1]}"
            if waiting:
                time.sleep(0.2)

    def taken(self) -> set[str]:
        """The instances that were answered with success at least once."""
        return {uid for uid, statuses in self.told.items() if 0 in statuses}
