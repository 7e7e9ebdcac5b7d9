"""What is proven of one signed record, of whatever type: steps 4 to 9 of the verification in FORMAT.md §9."""

from __future__ import annotations

from dataclasses import dataclass

from ledger.core import content, merkle, renewal, signatures
from ledger.core.certificates import Certificate, Holder, Person
from ledger.core.contracts import KeyState
from ledger.core.errors import EvidenceInvalid
from ledger.core.evidence import Entry, RecordEntry, split_words
from ledger.core.proof import Proofs, ProvenAnchor
from ledger.core.records import AcquisitionRecord, Approval, GatewayRecord, Role, SyntheticRecord
from ledger.core.search import Evidence


@dataclass(frozen=True)
class Standing:
    """A record whose signature and proofs hold.

    `refused` says why its key was not allowed to sign it, `clock` how its claimed time contradicts the blocks; None where that
    is in order. `bracket` are two block times: signed after the first and before the second; None where a side is not proven.
    """

    record_id: bytes
    holder: Holder
    anchor: ProvenAnchor | None
    key_state: KeyState
    is_settled: bool
    refused: str | None
    clock: str | None
    bracket: tuple[int | None, int | None]
    as_of: int | None = None
    """The time of the state that shows the key, None while there is none."""
    images: frozenset[bytes | None] | None = None
    """Where SHA-256 has fallen, what the renewals that count say of the image (`ledger.core.renewal.image_hash`)."""


def stand(evidence: Evidence, number: int, entry: Entry) -> Standing:
    """Judges a record of bundle `number`. Raises EvidenceInvalid where it proves nothing, LedgerUnavailable or LedgerDisagrees
    where the chain is needed and does not help."""
    proofs = evidence.proofs(number)
    record = entry.record.value
    record_id = record.id(proofs.trust.domain)
    certificate = proofs.certificate(record.key)
    signatures.check(certificate.public_key_der, record_id, entry.signature)  # 4
    if isinstance(entry, RecordEntry) and entry.leaves is not None:
        content.opened(entry.leaf_hashes, record.content)
    holder = (
        certificate.device()
        if isinstance(record, AcquisitionRecord | SyntheticRecord | GatewayRecord)
        else certificate.holder()
    )
    if isinstance(record, Approval) and (not isinstance(holder, Person) or holder.printed_name != record.name):
        raise EvidenceInvalid("the approval's key does not belong to a person of that name", "certificate")
    anchor, state, is_settled = _anchored(proofs, entry)
    refused = _Key(evidence, proofs, entry, certificate).refusal(anchor, state)
    _refuse_fallen(evidence, certificate, anchor, state)  # 8a
    images = renewal.images_in_time(proofs, entry)
    lower = proofs.beacon_time(anchor, record.beacon_number, record.beacon_hash) if anchor else None
    bracket = (lower, anchor.block_time if anchor else None)
    clock = _clock_contradiction(record.claimed_time, bracket, proofs.trust.policy.clock_tolerance_s)
    as_of = proofs.state(anchor.state).header.timestamp if anchor else None
    return Standing(record_id, holder, anchor, state, is_settled, refused, clock, bracket, as_of, images)


def _refuse_fallen(evidence: Evidence, certificate: Certificate, anchor: ProvenAnchor | None, state: KeyState) -> None:
    """Step 8a: what could be forged when it came on chain proves nothing. A signature is as old as its anchor, a certificate as
    its enrolment: what was on chain before an algorithm fell could not be forged with it, and need not be renewed."""
    trust = evidence.trust
    algorithm = signatures.algorithm_of(certificate.public_key_der)
    if trust.has_fallen(algorithm, anchor.block_time if anchor else None):
        raise EvidenceInvalid(f"it is signed with {algorithm}, which had fallen when the record came on chain", "signature")
    issuers = [authority for authority in evidence.issuers if certificate.is_issued_by(authority)]
    algorithms = [signatures.algorithm_of(authority.public_key_der) for authority in issuers]
    if issuers and all(trust.has_fallen(one, state.enrolled_at or None) for one in algorithms):
        raise EvidenceInvalid("its certificate is signed with an algorithm that had fallen when it was enrolled", "certificate")


def _anchored(proofs: Proofs, entry: Entry) -> tuple[ProvenAnchor | None, KeyState, bool]:
    """Steps 5 to 8: the anchor, the key's state, and whether the block is settled; no anchor while the record is pending."""
    included, key = entry.included, entry.record.key
    if included is None:
        return None, proofs.with_news(key, None), False
    anchor = proofs.anchor(included.anchor)
    leaf = merkle.leaf_hash(entry.signed.entry())
    merkle.verify_inclusion(leaf, included.index, anchor.size, split_words(included.path, "inclusion"), anchor.root)
    is_settled = proofs.is_settled(anchor.state)
    if proofs.state(anchor.state).header.timestamp < anchor.block_time:
        raise EvidenceInvalid("the state is older than the anchor that it shows", "state proof")
    return anchor, proofs.key_state(anchor.state, key), is_settled


@dataclass(frozen=True)
class _Key:
    """Step 8 for the key of one record."""

    evidence: Evidence
    proofs: Proofs
    entry: Entry
    certificate: Certificate

    def refusal(self, anchor: ProvenAnchor | None, state: KeyState) -> str | None:
        """Why the key was not allowed to sign this, or None."""
        is_enrolled = any(state.certificate)
        if is_enrolled and state.certificate != self.certificate.fingerprint:
            raise EvidenceInvalid("the certificate is not the one enrolled on chain", "certificate")
        record = self.entry.record
        time = anchor.block_time if anchor else record.claimed_time
        issuers = [authority for authority in self.evidence.issuers if self.certificate.is_issued_by(authority)]
        if not any(authority.is_valid_at(time) for authority in issuers):
            return "the key's certificate is not from an authority that the trust file accepts"
        if any(self._is_genuine(rival) for rival in self.evidence.rivals(self.entry)):
            return f"the key signed two different records as number {record.counter}"
        if anchor is None:
            return self._refusal_while_pending(state)
        if not is_enrolled:
            return "the key was never enrolled in the registry"
        if state.compromised_since and time >= state.compromised_since:
            return "the key was compromised by the time the record was anchored"
        if time < state.enrolled_at or (state.retired_at and time > state.retired_at):
            return "the key was not enrolled when the record was anchored"
        if not self._roles & state.roles:
            return self._wrong_role(state)
        if not self.certificate.is_valid_at(time):
            return "the key's certificate was not valid when the record was anchored"
        return None

    def _refusal_while_pending(self, state: KeyState) -> str | None:
        """What is known already of a key whose record is not on chain: offline no more than the trust file's news."""
        if state.compromised_since:
            return "the key was reported compromised before the record was anchored"
        if self.entry.record.key not in self.evidence.facts.keys:
            return None
        if not any(state.certificate):
            return "the key is not enrolled in the registry: enrol it before the record is anchored"
        if state.retired_at:
            return "the key was retired before the record was anchored"
        if not self._roles & state.roles:
            return self._wrong_role(state)
        return None

    @property
    def _roles(self) -> Role:
        return self.entry.record.value.roles

    def _wrong_role(self, state: KeyState) -> str:
        return f"the key may not {self._roles.words.replace(', ', ' or ')}: its roles are {state.roles.words}"

    def _is_genuine(self, rival: Entry) -> bool:
        record_id = rival.record.value.id(self.proofs.trust.domain)
        try:
            signatures.check(self.certificate.public_key_der, record_id, rival.signature)
        except EvidenceInvalid:
            return False
        return True


def _clock_contradiction(claimed: int, bracket: tuple[int | None, int | None], tolerance: int) -> str | None:
    """Step 9: how a claimed time contradicts the blocks, if it does by more than the policy's tolerance."""
    lower, upper = bracket
    if lower is not None and claimed < lower - tolerance:
        return f"the device claims a time {lower - claimed} s before a block that it names (back-dated, or a wrong clock)"
    if upper is not None and claimed > upper + tolerance:
        return f"the device claims a time {claimed - upper} s after the record was on chain (wrong clock)"
    return None
