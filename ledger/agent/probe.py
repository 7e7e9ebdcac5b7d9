"""A made-up image for trying whether a PACS stores: what a C-ECHO does not show."""

from __future__ import annotations

import hashlib
from typing import Final

from pydicom.dataset import Dataset
from pynetdicom.dsutils import encode

from ledger.agent.association import Association, Peer
from ledger.core.errors import TryLater

SECONDARY_CAPTURE: Final = "1.2.840.10008.5.1.4.1.1.7"
EXPLICIT_LITTLE: Final = "1.2.840.10008.1.2.1"
PATIENT: Final = "SCANSEAL-TEST"
SIDE: Final = 8


def test_image(site: bytes) -> Dataset:
    """An image of no patient, the same each time for a site, so that a PACS has one of it however often it is sent.

    `site`: what the site is told from others by.
    """

    def uid(what: str) -> str:
        # A UUID-derived UID (PS3.5 Annex B.2): 128 bits after 2.25.
        return f"2.25.{int.from_bytes(hashlib.sha256(what.encode() + site).digest()[:16], 'big')}"

    image = Dataset()
    image.SOPClassUID, image.SOPInstanceUID = SECONDARY_CAPTURE, uid("instance")
    image.StudyInstanceUID, image.SeriesInstanceUID = uid("study"), uid("series")
    image.PatientName, image.PatientID = "SCANSEAL^TEST", PATIENT
    image.PatientBirthDate = image.PatientSex = image.StudyDate = image.StudyTime = image.ReferringPhysicianName = ""
    image.StudyID = image.AccessionNumber = ""
    image.StudyDescription = "Test of the signing agent: may be deleted"
    image.Modality, image.ConversionType, image.SeriesNumber, image.InstanceNumber = "OT", "WSD", 1, 1
    image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
    image.Rows = image.Columns = SIDE
    image.BitsAllocated = image.BitsStored = 8
    image.HighBit, image.PixelRepresentation = 7, 0
    image.PixelData = bytes(range(0, 256, 4))
    return image


def store_test(destination: Peer, site: bytes) -> str:
    """Sends the test image; its SOP Instance UID. Raises TryLater where the PACS does not take it."""
    image, context = test_image(site), (SECONDARY_CAPTURE, EXPLICIT_LITTLE)
    association = Association(destination, [context])
    try:
        if context not in association.accepted:
            raise TryLater(f"{destination.name} does not take secondary captures in explicit little endian")
        status = association.store(context, image.SOPInstanceUID, encode(image, False, True) or b"")
        if status and not 0xB000 <= status <= 0xBFFF:
            raise TryLater(f"{destination.name} answers a C-STORE with status 0x{status:04X}")
    finally:
        association.release()
    return str(image.SOPInstanceUID)
