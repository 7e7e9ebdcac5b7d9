"""DICOM objects in, bound attributes and pixel digests out."""

from ledger.dicom.decoder import Decoder, decoder_name
from ledger.dicom.files import ImageFile, ImageFiles, Opener, find_images
from ledger.dicom.image import DecodedDigest, Image, read
from ledger.dicom.limits import DEFAULT_LIMITS, Limits

__all__ = [
    "DEFAULT_LIMITS",
    "DecodedDigest",
    "Decoder",
    "Image",
    "ImageFile",
    "ImageFiles",
    "Limits",
    "Opener",
    "decoder_name",
    "find_images",
    "read",
]
