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
 8a. Nothing of it rests on an algorithm that could be broken when it came on chain, or was renewed.
 9. The time bracket: after the beacon's block, before the anchor's; the claimed time must not contradict it.
10. The lineage: the records of the images that this one was made from, and what each receipt says of what was kept.

An error of the evidence (EvidenceInvalid) gives NOT_CHECKED, never a statement about the image; a ledger that cannot be asked
gives NOT_CHECKED with exit code 6. What AUTHENTIC does not prove: that the device itself told the truth.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from ledger.core import content, renewal
from ledger.core.attributes import ATTRIBUTES
from ledger.core.custody import Statement
from ledger.core.errors import EvidenceInvalid, FixInput, LedgerDisagrees, LedgerUnavailable, Unreadable
from ledger.core.evidence import Seal
from ledger.core.lineage import Lineage, replay, trace
from ledger.core.pixels import PROFILES, ChangedTile, changed_tiles
from ledger.core.records import CustodyRecord
from ledger.core.search import Evidence, Subject, claimed_device, has_pixels
from ledger.core.standing import Standing, stand
from ledger.core.verdict import NOT_CHECKED, OUT_OF_REACH, Axis, Check, CustodyStep, Token, Verdict

_GROUPS = {attribute.keyword: attribute.group for attribute in ATTRIBUTES}
_PIXEL_ITEMS = (content.PIXELS, content.DECODED)
_LAST_SECOND = 253402300799
"""Of the year 9999: a registry's date may lie beyond the calendar."""
_PREFERENCE = (
    Token.DECLARED_SYNTHETIC,
    Token.AUTHENTIC,
    Token.DERIVED,
    Token.PENDING,
    Token.MISMATCH,
    Token.ALTERED,
    Token.REVOKED,
    Token.NOT_CHECKED,
)
_UNKNOWN_ORIGIN = len(_PREFERENCE)
"""What evidence without an origin says comes after all that other evidence says."""
_NONE = 3 * len(_PREFERENCE)
"""What counts as no evidence comes last."""


def verify(subject: Subject, evidence: Evidence) -> Verdict:
    """The custody verdict of one image. Raises nothing for bad evidence: that is a verdict, too (NOT_CHECKED)."""
    judged = [_judge(subject, evidence, number, seal) for number, seal in evidence.candidates(subject)]
    if not judged:
        return _without_record(subject, evidence)
    return min(judged, key=lambda pair: pair[0])[1]


def _rank(verdict: Verdict, lineage: Lineage | None = None) -> float:
    """Where a seal's verdict stands among those of others: the lowest counts."""
    if verdict.token in (Token.UNREGISTERED, Token.STRIPPED):
        return _UNKNOWN_ORIGIN
    after = _UNKNOWN_ORIGIN + 1 if lineage is not None and lineage.is_of_unknown_origin else 0
    return _rank_of_origin(verdict, lineage) + after


def _rank_of_origin(verdict: Verdict, lineage: Lineage | None) -> float:
    """Of several seals the best verdict counts; but this instance's own record before another's with the same pixels, and one
    that is not on chain, or comes from one that is not, after all that are. Pixels that are declared synthetic make no
    patient's image, whoever seals them."""
    if verdict.token is Token.MISMATCH and verdict.generator is not None and lineage is not None and lineage.is_settled:
        return _PREFERENCE.index(Token.DECLARED_SYNTHETIC) + 0.5
    if verdict.token is Token.PENDING and (lineage is None or not lineage.is_anchored):
        return _PREFERENCE.index(Token.REVOKED) + 0.5
    if verdict.token is Token.MISMATCH and "SOPInstanceUID" in verdict.differing:
        return _PREFERENCE.index(Token.REVOKED) + 0.25
    return _PREFERENCE.index(verdict.token)


def not_checked(reason: str, exit_code: int = 7) -> Verdict:
    """The verdict of an image that could not be read (7) or a ledger out of reach (6)."""
    return Verdict(Token.NOT_CHECKED, (reason,), exit_code=exit_code)


def _judge(subject: Subject, evidence: Evidence, number: int, seal: Seal) -> tuple[float, Verdict]:
    """(rank, verdict): of several seals that match the lowest rank counts."""
    try:
        _check_profile(seal.record.profile)
        leaves = content.opened(seal.leaf_hashes, seal.record.content)  # 3
        comparison = _Comparison.of(subject, seal, evidence.bundles[number].studies[seal.study], leaves)
        standing = stand(evidence, number, seal)  # 4 to 9
        if comparison.is_equal:
            renewal.check_image(seal, subject, standing.images)  # 8a
        lineage = trace(evidence, number, seal, standing)  # 10
        if lineage.is_of_unknown_origin and "SOPInstanceUID" in comparison.differing:
            # Who held the same pixels as another instance knows nothing of this one: black frames, copies under a new UID.
            return _NONE, _without_record(subject, evidence)
        trail = replay(evidence, number, seal, standing)
        verdict = _Judgement(subject, seal, comparison, lineage, trail, evidence).verdict()
        return _rank(verdict, lineage), verdict
    except EvidenceInvalid as error:
        verdict = not_checked(f"the evidence proves nothing ({error.step}): {error}")
    except Unreadable as error:
        verdict = not_checked(str(error))
    except (LedgerUnavailable, LedgerDisagrees) as error:
        verdict = not_checked(str(error), OUT_OF_REACH)
    return _rank(verdict), verdict


def _check_profile(profile: str) -> None:
    digest, _, attributes = profile.partition("/")
    if digest not in PROFILES or attributes != content.ATTRIBUTE_LIST:
        raise EvidenceInvalid("the record names a profile that this version does not know", "content")


@dataclass(frozen=True)
class _Comparison:
    """Step 3: the image beside what was sealed."""

    same_pixels: bool
    differing: tuple[str, ...]

    @property
    def is_equal(self) -> bool:
        return self.same_pixels and not self.differing

    @classmethod
    def of(cls, subject: Subject, seal: Seal, find_key: bytes, leaves: Sequence[bytes]) -> _Comparison:
        same_pixels = has_pixels(seal, leaves, subject)
        _check_hints(seal, find_key, leaves, subject)
        differing = content.differing(leaves, seal.salts, subject.attributes)
        if not same_pixels and "SOPInstanceUID" in differing:
            raise EvidenceInvalid("the seal opens neither to these pixels nor to this instance", "content")
        return cls(same_pixels, differing)


def _check_hints(seal: Seal, find_key: bytes, leaves: Sequence[bytes], subject: Subject) -> None:
    """Look-up tokens and tile hashes prove nothing, but wrong ones are damage, and a damaged bundle is not believed."""
    profile = seal.record.profile.partition("/")[0]
    pixels = subject.digests.get(profile)
    values = ((content.PIXELS, None if pixels is None else str(pixels)), ("SOPInstanceUID", subject.instance))
    for token, (item, value) in zip(seal.tokens, values, strict=True):
        is_sealed = value is not None and content.opens(leaves, seal.salts, item, value)
        if is_sealed and value is not None and token != content.find_token(find_key, item, value):
            raise EvidenceInvalid(f"the look-up token of {item} is not the one of this study", "content")
    if seal.tiles is not None:
        sealed = str(seal.tiles.digest(profile))
        if not content.opens(leaves, seal.salts, content.PIXELS, sealed):
            raise EvidenceInvalid("the tile hashes do not lead to the sealed digest", "content")


@dataclass(frozen=True)
class _Judgement:
    """One image beside one seal that stands, with its lineage and what followed."""

    subject: Subject
    seal: Seal
    comparison: _Comparison
    lineage: Lineage
    trail: tuple[CustodyStep, ...]
    evidence: Evidence

    def verdict(self) -> Verdict:
        own, origin = self.lineage.links[0].standing, self.lineage.origin
        refused, clock = self.lineage.refused, self.lineage.clock
        checks: dict[Axis, Check] = {
            "integrity": self._integrity(),
            "identity": Check("failed", refused) if refused else self._identity(origin),
            "time": Check("failed", clock) if clock else _time_check(*origin.bracket),
            "completeness": self._custody(),
            "patient": self._patient(),
        }
        token, reasons = self._outcome(refused, clock)
        if token in (Token.UNREGISTERED, Token.STRIPPED):
            checks |= self._without.checks
        return Verdict(
            token,
            reasons,
            device=None if self.lineage.is_of_unknown_origin else origin.holder.name,
            sealed_between=origin.bracket,
            checks=checks,
            record_id=own.record_id,
            differing=self._differing,
            regions=self._regions() if token is Token.ALTERED else (),
            block=own.anchor.block_number if own.anchor else None,
            custody=(*self.lineage.steps(), *self.trail),
            generator=self.lineage.generator if self.comparison.same_pixels else None,
            as_of=None if self.evidence.facts.settled >= 0 else self.lineage.as_of,
            origin=(self.lineage.first.entry.record.key, self.lineage.first.entry.record.counter),
        )

    def _outcome(self, refused: str | None, clock: str | None) -> tuple[Token, tuple[str, ...]]:
        note = (*self._synthetic_note(), *self._profile_note())
        if self.lineage.is_of_unknown_origin:
            note = (*self._held(), *note)
        if refused:
            return Token.REVOKED, (refused, *note)
        if not self.comparison.same_pixels:
            return Token.ALTERED, (self._pixel_difference(), *self._named(), *note)
        if any(item in _PIXEL_ITEMS for _, item in self.lineage.false):
            return Token.ALTERED, (*self._named(), *note)
        if self._differing:
            return Token.MISMATCH, (*self._named(), *note)
        if clock:
            return Token.MISMATCH, (f"claimedTime differs: {clock}", *note)
        if self.lineage.is_of_unknown_origin:
            without = self._without
            reasons = without.reasons if without.token is Token.STRIPPED else ("no record says where the image comes from",)
            return without.token, (*reasons, *note)
        if not self.lineage.is_settled:
            return Token.PENDING, ("sealed and signed, not yet final on chain: anchor it, or verify again later", *note)
        if self.lineage.generator is not None:
            return Token.DECLARED_SYNTHETIC, note
        if self.lineage.is_derived:
            return Token.DERIVED, (*self._derivation(), *note)
        return Token.AUTHENTIC, ("pixels and attributes are what the device sealed", *note)

    @property
    def _without(self) -> Verdict:
        """What is said of the image where nobody signed its origin."""
        return _without_record(self.subject, self.evidence)

    def _held(self) -> Iterator[str]:
        """Who held what, of unknown origin."""
        if self.lineage.gateway is not None:
            as_is = "it as it is now" if self.comparison.is_equal else "what the record commits to"
            what = "what it was made of" if self.lineage.is_derived else as_is
            until = "" if self.lineage.gateway.is_settled else ", which is not final on chain yet"
            holder = self.lineage.gateway.holder.name
            yield f"{holder} held {what}, and signed so without knowing where it comes from{until}"

    def _derivation(self) -> Iterator[str]:
        """How the image came from what the device sealed: one sentence a step that changed something."""
        for link in reversed(self.lineage.links):
            record = link.entry.record.value
            if link.has_new_content and isinstance(record, CustodyRecord):
                statement = Statement.of(record)
                kept = "the pixels were changed" if _changes_pixels(statement) else "the pixels were kept"
                yield f"{statement.operation} by {link.standing.holder.name}: {kept}; changed: {_listed(statement.changed)}"

    def _synthetic_note(self) -> tuple[str, ...]:
        generator = self.lineage.generator
        return () if generator is None else (f"declared synthetic by its maker: generated by {generator}",)

    @property
    def _differing(self) -> tuple[str, ...]:
        """What differs from the seal, and what a receipt in the lineage is false of."""
        false = tuple(item for _, item in self.lineage.false if item not in _PIXEL_ITEMS)
        return tuple(dict.fromkeys((*self.comparison.differing, *false)))

    def _custody(self) -> Check:
        findings = [step for step in (*self.lineage.steps(), *self.trail) if step.finding]
        if findings:
            return Check("failed", f"{findings[0].finding} in the custody trail: {findings[0].detail}")
        steps = len(self.lineage.links) - 1 + len(self.trail)
        if not steps:
            return NOT_CHECKED
        return Check("ok", f"{steps} custody step{'s' if steps > 1 else ''} in order, as far as the evidence goes")

    def _integrity(self) -> Check:
        if not self.comparison.same_pixels:
            return Check("failed", self._pixel_difference())
        false = [item for _, item in self.lineage.false]
        if false:
            return Check("failed", f"a receipt is false: {', '.join(false)}")
        others = [name for name in self.comparison.differing if _GROUPS[name] != "patient"]
        if others:
            return Check("failed", f"pixels are the sealed ones; differing: {', '.join(others)}")
        declared = self._declared_pixels()
        if declared:
            return Check("not_checked", declared)
        if self.comparison.differing:
            return Check("ok", "pixels and all attributes but the patient's are the sealed ones")
        return Check("ok", "pixels and bound attributes are the sealed ones")

    def _declared_pixels(self) -> str | None:
        """Whose word the pixels rest on, where a derivation changed them: that they come from the original is not proven."""
        for link in self.lineage.links:
            record = link.entry.record.value
            if isinstance(record, CustodyRecord) and _changes_pixels(Statement.of(record)):
                return f"the pixels are what {link.standing.holder.name} sealed; how they came from the original is declared"
        return None

    def _patient(self) -> Check:
        differing = [name for name in self._differing if _GROUPS[name] == "patient"]
        if differing:
            return Check("failed", f"not the sealed patient: {', '.join(differing)}")
        return Check("ok", "the patient is the sealed one")

    def _identity(self, origin: Standing) -> Check:
        if self.lineage.gateway is not None:
            return Check("not_checked", f"{self.lineage.gateway.holder.name} held it; nobody signed where it comes from")
        claims = claimed_device(self.subject)
        status = f"sealed by {origin.holder.name}"
        if not any(origin.key_state.certificate):
            return Check("not_checked", f"{status}; enrolment is checked once the record is anchored")
        if claims is not None and claims != origin.holder.id:
            return Check("ok", f"{status}; the image itself names another device")
        return Check("ok", f"{status}, enrolled with {origin.key_state.roles.words}")

    def _pixel_difference(self) -> str:
        profile = self.seal.record.profile.partition("/")[0]
        refusal = self.subject.refusals.get(profile)
        if refusal:
            return f"a record for this instance exists, and its pixels are not these: no {profile} digest, {refusal}"
        return "a record for this very instance exists, and the pixels differ"

    def _named(self) -> tuple[str, ...]:
        own = tuple(f"{name} differs from what was sealed" for name in self.comparison.differing)
        return own + tuple(
            f"{item} differs from the parent's: the {link.entry.record.action} receipt by {link.standing.holder.name} is false"
            for link, item in self.lineage.false
        )

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


def _changes_pixels(statement: Statement) -> bool:
    """Whether another image may be shown as this one: either item of pixels opens to what is shown."""
    return not {content.PIXELS, content.DECODED}.isdisjoint(statement.changed)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) or "nothing"


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
