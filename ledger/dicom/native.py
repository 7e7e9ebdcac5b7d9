"""Native pixel data as arrays, without copying where the file's own layout allows it. PS3.5 §8.1, §8.2 and Annex D."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ledger.core.errors import Refused
from ledger.core.pixels import Samples
from ledger.dicom.elements import Element, Encoding
from ledger.dicom.pixel_module import PixelModule


def native_frames(data: bytes, element: Element, encoding: Encoding, module: PixelModule) -> Iterator[Samples]:
    """Each frame as an array (rows, columns, samples) whose low BitsStored bits are the values.

    Raises Refused before the first frame when the element has another length than the frames take (one pad byte to an even
    length is allowed), or when its layout can be read in more than one way.
    """
    pixels = module.rows * module.columns * module.frames
    subsampled = module.photometric == "YBR_FULL_422"
    if subsampled and (module.bits_allocated != 8 or module.planar or module.columns % 2):
        raise Refused("YBR_FULL_422 that is planar, of odd width or not of 8 bits")
    if encoding.big_endian and (module.bits_allocated > 16 or element.vr not in (b"OB", b"OW")):
        raise Refused(f"big endian pixel data of {module.bits_allocated} bits")
    if encoding.big_endian and module.bits_allocated == 16 and element.vr != b"OW":
        raise Refused("big endian pixel data of 16 bits with VR OB")
    expected = (pixels * (2 if subsampled else module.samples) * module.bits_allocated + 7) // 8
    found = element.end - element.start
    if found not in (expected, expected + expected % 2):
        raise Refused(f"{found} bytes of pixel data where {expected} are described")
    return _frames(data, element, encoding, module, subsampled)


def _frames(data: bytes, element: Element, encoding: Encoding, module: PixelModule, subsampled: bool) -> Iterator[Samples]:
    rows, columns, samples, allocated = module.rows, module.columns, module.samples, module.bits_allocated
    count = rows * columns
    if allocated == 1:
        packed = _bytes(data, element, encoding)
        for frame in range(module.frames):
            first = frame * count
            bits = np.unpackbits(packed[first // 8 : (first + count + 7) // 8], bitorder="little")
            yield bits[first % 8 : first % 8 + count].reshape(rows, columns, 1)
        return
    if subsampled:
        cells = _bytes(data, element, encoding)
        for frame in range(module.frames):
            # Y1 Y2 Cb Cr for two pixels (PS3.3 §C.7.6.3.1.2)
            groups = cells[frame * count * 2 : (frame + 1) * count * 2].reshape(rows, columns // 2, 4)
            pixels = np.empty((rows, columns, 3), np.uint8)
            pixels[:, ::2, 0], pixels[:, 1::2, 0] = groups[:, :, 0], groups[:, :, 1]
            for channel in (1, 2):
                pixels[:, ::2, channel] = pixels[:, 1::2, channel] = groups[:, :, channel + 1]
            yield pixels
        return
    if allocated == 8:
        cells = _bytes(data, element, encoding)
    else:
        code = f"{'>' if encoding.big_endian else '<'}{'f' if module.is_float else 'u'}{allocated // 8}"
        cells = np.frombuffer(data, code, module.frames * count * samples, element.start)
    size = count * samples
    for frame in range(module.frames):
        cell = cells[frame * size : (frame + 1) * size]
        yield cell.reshape(samples, rows, columns).transpose(1, 2, 0) if module.planar else cell.reshape(rows, columns, samples)


def _bytes(data: bytes, element: Element, encoding: Encoding) -> Samples:
    # Big endian OW: bytes are swapped in pairs, whatever the cell (PS3.5 Annex D).
    if encoding.big_endian and element.vr == b"OW":
        return np.frombuffer(data, ">u2", (element.end - element.start) // 2, element.start).astype("<u2").view(np.uint8)
    return np.frombuffer(data, np.uint8, element.end - element.start, element.start)
