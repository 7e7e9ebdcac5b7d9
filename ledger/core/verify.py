"""The verification procedure. The numbers are those of FORMAT.md §9, and the same function runs offline and online.

 1. The image was decoded strictly (the caller did: `Subject`).
 2. Find the seals that may be this image's: by look-up token, or by opening the leaves.
 3. The leaves hash to the record's content; compare pixels and attributes with them.
 4. The record's signature, by the key whose certificate the bundle has.
 5. Inclusion of the signed record in a checkpoint signed by the trusted log.
 6. The checkpoint in the AnchorLog's storage, by state proof against a block header.
 7. The header against the trust file, or against what the chain answered today.
 8. The key: enrolled, in its role, not retired nor compromised at the anchor's block time; certificate by an accepted
 authority.
 9. The time bracket: after the beacon's block, before the anchor's; the claimed time must not contradict it.

An error of the evidence (EvidenceInvalid) gives NOT_CHECKED, never a statement about the image; a ledger that cannot be asked
gives NOT_CHECKED with exit code 6. What AUTHENTIC does not prove: that the device itself told the truth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from ledger.core import content, merkle, signatures
from ledger.core.attributes import ATTRIBUTES
from ledger.core.certificates import Device
from ledger.core.contracts import KeyState
from ledger.core.errors import EvidenceInvalid, FixInput, LedgerDisagrees, LedgerUnavailable, Unreadable
from ledger.core.evidence import Seal, split_words
from ledger.core.pixels import PROFILES, ChangedTile, changed_tiles
from ledger.core.proof import Proofs, ProvenAnchor
from ledger.core.search import Evidence, Subject, claimed_device, has_pixels
from ledger.core.verdict import OUT_OF_REACH, Axis, Check, Token, Verdict

_GROUPS = {attribute.keyword: attribute.group for attribute in ATTRIBUTES}
_LAST_SECOND = 253402300799
"""Of the year 9999: a registry's date may lie beyond the calendar."""
_PREFERENCE = (Token.AUTHENTIC, Token.PENDING, Token.MISMATCH, Token.ALTERED, Token.REVOKED, Token.NOT_CHECKED)


def verify(subject: Subject, evidence: Evidence) -> Verdict:
    """The custody verdict of one image. Raises nothing for bad evidence: that is a verdict, too (NOT_CHECKED)."""
    verdicts = [_judge(subject, evidence, number, seal) for number, seal in evidence.candidates(subject)]
    if not verdicts:
        return _without_record(subject, evidence)
    return min(verdicts, key=_rank)


def _rank(verdict: Verdict) -> float:
    """Of several seals the best verdict counts; but this instance's own record before another's with the same pixels, and one
    that is not on chain after all that are."""
    if verdict.token is Token.PENDING and verdict.block is None:
        return _PREFERENCE.index(Token.REVOKED) + 0.5
    if verdict.token is Token.MISMATCH and "SOPInstanceUID" in verdict.differing:
        return _PREFERENCE.index(Token.REVOKED) + 0.25
    return _PREFERENCE.index(verdict.token)


def not_checked(reason: str, exit_code: int = 7) -> Verdict:
    """The verdict of an image that could not be read (7) or a ledger out of reach (6)."""
    return Verdict(Token.NOT_CHECKED, (reason,), exit_code=exit_code)


def _judge(subject: Subject, evidence: Evidence, number: int, seal: Seal) -> Verdict:
    try:
        _check_profile(seal.record.profile)
        leaves = content.opened(seal.leaf_hashes, seal.record.content)  # 3
        comparison = _Comparison.of(subject, seal, evidence.bundles[number].studies[seal.study], leaves)
        proofs = evidence.proofs(number)
        record_id = _signed(proofs, seal)  # 4
        return _Custody(subject, evidence, proofs, seal, comparison).verdict(record_id)
    except EvidenceInvalid as error:
        return not_checked(f"the evidence proves nothing ({error.step}): {error}")
    except Unreadable as error:
        return not_checked(str(error))
    except (LedgerUnavailable, LedgerDisagrees) as error:
        return not_checked(str(error), OUT_OF_REACH)


def _check_profile(profile: str) -> None:
    digest, _, attributes = profile.partition("/")
    if digest not in PROFILES or attributes != content.ATTRIBUTE_LIST:
        raise EvidenceInvalid("the record names a profile that this version does not know", "content")


@dataclass(frozen=True)
class _Comparison:
    """Step 3: the image beside what was sealed."""

    same_pixels: bool
    differing: tuple[str, ...]

    @classmethod
    def of(cls, subject: Subject, seal: Seal, find_key: bytes, leaves: Sequence[bytes]) -> _Comparison:
        same_pixels = has_pixels(seal, leaves, subject)
        _check_hints(seal, find_key, leaves, subject)
        differing = content.differing(leaves, seal.image_key, subject.attributes)
        if not same_pixels and "SOPInstanceUID" in differing:
            raise EvidenceInvalid("the seal opens neither to these pixels nor to this instance", "content")
        return cls(same_pixels, differing)

    def in_group(self, group: str) -> list[str]:
        return [name for name in self.differing if _GROUPS[name] == group]


def _check_hints(seal: Seal, find_key: bytes, leaves: Sequence[bytes], subject: Subject) -> None:
    """Look-up tokens and tile hashes prove nothing, but wrong ones are damage, and a damaged bundle is not believed."""
    profile = seal.record.profile.partition("/")[0]
    pixels = subject.digests.get(profile)
    values = ((content.PIXELS, None if pixels is None else str(pixels)), ("SOPInstanceUID", subject.instance))
    for token, (item, value) in zip(seal.tokens, values, strict=True):
        is_sealed = value is not None and content.opens(leaves, seal.image_key, item, value)
        if is_sealed and value is not None and token != content.find_token(find_key, item, value):
            raise EvidenceInvalid(f"the look-up token of {item} is not the one of this study", "content")
    if seal.tiles is not None:
        sealed = str(seal.tiles.digest(profile))
        if not content.opens(leaves, seal.image_key, content.PIXELS, sealed):
            raise EvidenceInvalid("the tile hashes do not lead to the sealed digest", "content")


def _signed(proofs: Proofs, seal: Seal) -> bytes:
    """Step 4: the record id, if the key that the record names signed it in the trusted domain."""
    record_id = seal.record.value.id(proofs.trust.domain)
    signatures.check(proofs.certificate(seal.record.key).public_key_der, record_id, seal.signature)
    return record_id


class _Custody:
    """Steps 5 to 9 for one seal whose signature holds."""

    def __init__(self, subject: Subject, evidence: Evidence, proofs: Proofs, seal: Seal, comparison: _Comparison) -> None:
        self.subject, self.evidence, self.proofs, self.seal, self.comparison = subject, evidence, proofs, seal, comparison
        self.certificate = proofs.certificate(seal.record.key)
        self.device: Device = self.certificate.device()

    def verdict(self, record_id: bytes) -> Verdict:
        anchor, state, settled = self._anchored()
        refused = self._refusal(anchor, state)
        lower = (
            self.proofs.beacon_time(anchor, self.seal.record.beacon_number, self.seal.record.beacon_hash) if anchor else None
        )
        bracket = (lower, anchor.block_time if anchor else None)
        clock = self._clock_contradiction(*bracket)
        checks: dict[Axis, Check] = {
            "integrity": self._integrity(),
            "identity": Check("failed", refused) if refused else self._identity(state),
            "time": Check("failed", clock) if clock else _time_check(*bracket),
            "patient": self._patient(),
        }
        token, reasons = self._outcome(refused, clock, settled)
        return Verdict(
            token,
            reasons,
            device=self.device.name,
            sealed_between=bracket,
            checks=checks,
            record_id=record_id,
            differing=self.comparison.differing,
            regions=self._regions() if token is Token.ALTERED else (),
            block=anchor.block_number if anchor else None,
        )

    def _outcome(self, refused: str | None, clock: str | None, settled: bool) -> tuple[Token, tuple[str, ...]]:
        note = self._profile_note()
        if refused:
            return Token.REVOKED, (refused, *note)
        if not self.comparison.same_pixels:
            return Token.ALTERED, (self._pixel_difference(), *self._named(), *note)
        if self.comparison.differing:
            return Token.MISMATCH, (*self._named(), *note)
        if clock:
            return Token.MISMATCH, (f"claimedTime differs: {clock}", *note)
        if not settled:
            return Token.PENDING, ("sealed and signed, not yet final on chain: anchor it, or verify again later", *note)
        return Token.AUTHENTIC, ("pixels and attributes are what the device sealed", *note)

    def _anchored(self) -> tuple[ProvenAnchor | None, KeyState, bool]:
        """Steps 5 to 8: the anchor, the key's state, and whether the block is settled; no anchor while the record is
        pending."""
        included, record = self.seal.included, self.seal.record
        if included is None:
            return None, self.proofs.with_news(record.key, None), False
        anchor = self.proofs.anchor(included.anchor)
        leaf = merkle.leaf_hash(self.seal.signed.entry())
        merkle.verify_inclusion(leaf, included.index, anchor.size, split_words(included.path, "inclusion"), anchor.root)
        settled = self.proofs.is_settled(anchor.state)
        if self.proofs.state(anchor.state).header.timestamp < anchor.block_time:
            raise EvidenceInvalid("the state is older than the anchor that it shows", "state proof")
        return anchor, self.proofs.key_state(anchor.state, record.key), settled

    def _refusal(self, anchor: ProvenAnchor | None, state: KeyState) -> str | None:
        """Step 8: why the key was not allowed to sign this, or None."""
        is_enrolled = any(state.certificate)
        if is_enrolled and state.certificate != self.certificate.fingerprint:
            raise EvidenceInvalid("the certificate is not the one enrolled on chain", "certificate")
        time = anchor.block_time if anchor else self.seal.record.claimed_time
        issuers = [authority for authority in self.evidence.issuers if self.certificate.is_issued_by(authority)]
        if not any(authority.is_valid_at(time) for authority in issuers):
            return "the device's certificate is not from an authority that the trust file accepts"
        for rival in self.evidence.rivals(self.seal):
            if self._is_genuine(rival):
                return f"the key signed two different records as number {self.seal.record.counter}"
        if anchor is None:
            return self._refusal_while_pending(state)
        if not is_enrolled:
            return "the key was never enrolled in the registry"
        if state.compromised_since and time >= state.compromised_since:
            return "the key was compromised by the time the record was anchored"
        if time < state.enrolled_at or (state.retired_at and time > state.retired_at):
            return "the key was not enrolled when the record was anchored"
        if self.seal.record.value.ROLE not in state.roles:
            return f"the key may not {str(self.seal.record.value.ROLE.name).lower()}: its roles are {state.roles.words}"
        if not self.certificate.is_valid_at(time):
            return "the device's certificate was not valid when the record was anchored"
        return None

    def _refusal_while_pending(self, state: KeyState) -> str | None:
        """What is known already of a key whose record is not on chain: offline no more than the trust file's news."""
        if state.compromised_since:
            return "the key was reported compromised before the record was anchored"
        if self.seal.record.key not in self.evidence.facts.keys:
            return None
        if not any(state.certificate):
            return "the key is not enrolled in the registry: enrol it before the record is anchored"
        if state.retired_at:
            return "the key was retired before the record was anchored"
        if self.seal.record.value.ROLE not in state.roles:
            return f"the key may not {str(self.seal.record.value.ROLE.name).lower()}: its roles are {state.roles.words}"
        return None

    def _is_genuine(self, rival: Seal) -> bool:
        record_id = rival.record.value.id(self.proofs.trust.domain)
        try:
            signatures.check(self.certificate.public_key_der, record_id, rival.signature)
        except EvidenceInvalid:
            return False
        return True

    def _clock_contradiction(self, lower: int | None, upper: int | None) -> str | None:
        """Step 9: how the device's claimed time contradicts the blocks, if it does by more than the policy's tolerance."""
        claimed, tolerance = self.seal.record.claimed_time, self.proofs.trust.policy.clock_tolerance_s
        if lower is not None and claimed < lower - tolerance:
            return f"the device claims a time {lower - claimed} s before a block that it names (back-dated, or a wrong clock)"
        if upper is not None and claimed > upper + tolerance:
            return f"the device claims a time {claimed - upper} s after the record was on chain (wrong clock)"
        return None

    def _integrity(self) -> Check:
        if not self.comparison.same_pixels:
            return Check("failed", self._pixel_difference())
        others = [name for name in self.comparison.differing if _GROUPS[name] != "patient"]
        if others:
            return Check("failed", f"pixels are the sealed ones; differing: {', '.join(others)}")
        if self.comparison.differing:
            return Check("ok", "pixels and all attributes but the patient's are the sealed ones")
        return Check("ok", "pixels and bound attributes are the sealed ones")

    def _patient(self) -> Check:
        differing = self.comparison.in_group("patient")
        if differing:
            return Check("failed", f"not the sealed patient: {', '.join(differing)}")
        return Check("ok", "the patient is the sealed one")

    def _identity(self, state: KeyState) -> Check:
        claims = claimed_device(self.subject)
        status = f"sealed by {self.device.name}"
        if not any(state.certificate):
            return Check("not_checked", f"{status}; enrolment is checked once the record is anchored")
        if claims is not None and claims != self.device.id:
            return Check("ok", f"{status}; the image itself names another device")
        return Check("ok", f"{status}, enrolled with {state.roles.words}")

    def _pixel_difference(self) -> str:
        profile = self.seal.record.profile.partition("/")[0]
        refusal = self.subject.refusals.get(profile)
        if refusal:
            return f"a record for this instance exists, and its pixels are not these: no {profile} digest, {refusal}"
        return "a record for this very instance exists, and the pixels differ"

    def _named(self) -> tuple[str, ...]:
        return tuple(f"{name} differs from what was sealed" for name in self.comparison.differing)

    def _profile_note(self) -> tuple[str, ...]:
        profile = self.seal.record.profile
        if profile.startswith("raw1"):
            return ("sealed as raw1: the stored bytes are bound, so any transcoding looks like a change",)
        if profile.startswith("cs1"):
            return ("a lossy compressed original: its codestream is bound, and what one named decoder makes of it",)
        return ()

    def _regions(self) -> tuple[ChangedTile, ...]:
        """Where the pixels differ, when the bundle has the sealed tile hashes."""
        profile = self.seal.record.profile.partition("/")[0]
        found = self.subject.digests.get(profile)
        if self.seal.tiles is None or found is None:
            return ()
        try:
            return changed_tiles(self.seal.tiles.digest(profile), found)
        except FixInput:
            return ()


def _time_check(lower: int | None, upper: int | None) -> Check:
    if lower is not None and upper is not None:
        return Check("ok", "sealed between two blocks of the chain")
    if upper is not None:
        return Check("ok", "on chain since a known block; how long before is not proven")
    return Check("not_checked", "not yet on chain: only the device's own clock speaks")


def _without_record(subject: Subject, evidence: Evidence) -> Verdict:
    """STRIPPED or UNREGISTERED: what the image says of its device decides."""
    device = claimed_device(subject)
    since, name = 0, "a device"
    if device is not None:
        since = evidence.facts.devices.get(device, 0)
        for notice in evidence.trust.devices:
            if notice.device == device:
                since, name = min(filter(None, (since, notice.seals_everything_since))), notice.name
    if since and _made_since(subject, since):
        reason = f"no record, though the image names {name}, which has sealed everything it makes since before this image"
        return Verdict(Token.STRIPPED, (reason,), checks={"completeness": Check("failed", reason)})
    return Verdict(Token.UNREGISTERED, ("no record was found: this says nothing about tampering",))


def _made_since(subject: Subject, since: int) -> bool:
    """Whether the image's own dates put it on a day after `since`; an image without a date is not excused by that.

    DICOM dates carry no time zone, so the day itself is left in doubt.
    """
    day = datetime.fromtimestamp(min(since, _LAST_SECOND), UTC).strftime("%Y%m%d")
    for name in ("AcquisitionDateTime", "AcquisitionDate", "StudyDate"):
        value = subject.attributes.get(name)
        if value and len(value) >= 8 and value[:8].isdigit():
            return value[:8] > day
    return True
