import numpy as np
import pytest

from ledger.core import pixels
from ledger.core.attributes import ATTRIBUTES
from ledger.core.search import Subject
from tests.simulators.ledger import World

VALUES = {
    "PatientName": "Doe^Jane",
    "PatientID": "4711",
    "StudyInstanceUID": "1.2.3",
    "SeriesInstanceUID": "1.2.3.1",
    "SOPInstanceUID": "1.2.3.1.1",
    "SOPClassUID": "1.2.840.10008.5.1.4.1.1.2",
    "Modality": "CT",
    "StudyDate": "20260131",
    "PixelSpacing": "0.5\\0.5",
    "RescaleIntercept": "-1024",
}


def make_subject(seed: int = 1, **changes: str | None) -> Subject:
    """A CT of 130 x 70 pixels of noise."""
    frame = np.random.default_rng(seed).integers(0, 4096, (130, 70), dtype=np.uint16)
    return subject_of(frame, **changes)


def subject_of(frame: np.ndarray, **changes: str | None) -> Subject:
    header = pixels.PixelHeader(0, 2, 2, 1, *frame.shape, 1)
    attributes = {attribute.keyword: None for attribute in ATTRIBUTES} | VALUES | changes
    return Subject(attributes, {f"px1-{name}": pixels.px1(header, [frame], name) for name in ("sha256", "blake3")})


@pytest.fixture
def world() -> World:
    return World()
