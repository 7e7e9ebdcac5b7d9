"""What the agent seals with: a modality's key for its own output, a gateway's key for what is of other origin."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ledger.core.certificates import Device
from ledger.core.errors import NeedPermission, Refused, Unreadable
from ledger.core.records import AcquisitionRecord, Role
from ledger.dicom import Image, read
from ledger.register import Sealable, Sealer
from ledger.store.spool import Sealing, Spooled
from ledger.wiring.beacons import Beacons
from ledger.wiring.gateway import Receiving
from ledger.wiring.images import sealable

_QUOTED = re.compile(r"b?'[^']*'|b?\"[^\"]*\"")
_TAG = re.compile(r"\([0-9a-f]{4},[0-9a-f]{4}\)")
_EQUIPMENT = ("Manufacturer", "ManufacturerModelName", "DeviceSerialNumber")


@dataclass(frozen=True)
class Acquirer:
    """A modality's key, and the device that its certificate names."""

    sealer: Sealer
    device: Device

    def is_own(self, image: Sealable) -> bool:
        """Whether nothing in the image says that another device made it."""
        given = ((image.attributes.get(name) or "").strip().casefold() for name in _EQUIPMENT)
        return all(not value or value == own.strip().casefold() for value, own in zip(given, self.device.parts, strict=True))


class AgentSeals:
    """Duties: `ledger.agent.sealing.Seals`, for one source."""

    def __init__(self, acquirer: Acquirer | None, gateway: Receiving | None, beacons: Beacons, hash_name: str) -> None:
        self._acquirer, self._gateway, self._beacons, self._hash_name = acquirer, gateway, beacons, hash_name

    def seal(self, files: Sequence[tuple[Spooled, Path]]) -> list[Sealing]:
        outcomes: list[Sealing] = []
        own: list[tuple[int, Sealable]] = []
        foreign: list[tuple[int, Image]] = []
        for file, path in files:
            try:
                image = read(path)
                sealed = sealable(image, self._hash_name)
            except Refused:
                outcomes.append(Sealing(file.number, "none", detail="an object without pixels"))
                continue
            except Unreadable as error:
                outcomes.append(Sealing(file.number, "refused", detail=_without_values(error)))
                continue
            except FileNotFoundError:
                outcomes.append(Sealing(file.number, "refused", detail="its file is gone from the spool"))
                continue
            if self._acquirer is not None and self._acquirer.is_own(sealed):
                own.append((file.number, sealed))
            elif self._gateway is not None:
                foreign.append((file.number, image))
            else:
                why = "it names another device than the source's: no acquisition of ours, and there is no gateway key"
                outcomes.append(Sealing(file.number, "refused", detail=why))
        return outcomes + self._acquired(own) + self._received(foreign)

    def _acquired(self, images: Sequence[tuple[int, Sealable]]) -> list[Sealing]:
        if not images or self._acquirer is None:
            return []
        self._beacons.require(self._acquirer.sealer.key, AcquisitionRecord.ROLES)
        try:
            return self._sealed(self._acquirer.sealer, images)
        except NeedPermission as error:
            if len(images) == 1:
                return [Sealing(images[0][0], "refused", detail=str(error))]
        return [outcome for image in images for outcome in self._acquired([image])]

    def _sealed(self, sealer: Sealer, images: Sequence[tuple[int, Sealable]]) -> list[Sealing]:
        beacon, beacon_time = self._beacons.current()
        receipts = sealer.seal([image for _, image in images], beacon, beacon_time)
        return [Sealing(number, "sealed", receipt.record_id) for (number, _), receipt in zip(images, receipts, strict=True)]

    def _received(self, images: Sequence[tuple[int, Image]]) -> list[Sealing]:
        if not images or self._gateway is None:
            return []
        self._beacons.require(self._gateway.key, Role.HOLD)
        return self._gateway.receive(images)


def _without_values(error: Unreadable) -> str:
    """Why an image cannot be read. What a parser quotes, or takes for a tag where it lost its way, may be part of a value."""
    return _TAG.sub("an element", _QUOTED.sub("...", str(error)))
