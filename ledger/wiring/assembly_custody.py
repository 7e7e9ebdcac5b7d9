"""What the custody commands need, built: signing keys, steps, derivations, signatures, erasure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ledger.core.errors import FixInput
from ledger.wiring import site as sites
from ledger.wiring.assembly import opened, signing
from ledger.wiring.site import Site

if TYPE_CHECKING:
    from ledger.core.custody import Statement
    from ledger.core.deidentification import Option
    from ledger.wiring.custody import Custody, Derivation
    from ledger.wiring.deriving import Deriving


@contextmanager
def custody(site: Path | None, device: str) -> Iterator[Custody]:
    """One key of a site, ready to sign steps of custody."""
    from ledger.wiring.custody import Custody

    with signing(site, device) as ready:
        yield Custody(ready)


@contextmanager
def deriving(site: Path | None, device: str) -> Iterator[Deriving]:
    """One key of a site, ready to make and receipt derived images."""
    from ledger.wiring.custody import Custody
    from ledger.wiring.deriving import UID_KEY, Deriving

    with signing(site, device) as ready:
        yield Deriving(Custody(ready), ready.journal.secret(UID_KEY))


def step_statement(site: Path | None, action: str, to: str | None) -> Statement:
    """The statement of a step that leaves an image as it is. `to` is a key: a name of this site, or 0x and its id."""
    from ledger.core.custody import Statement, transferred

    if action != "transferred":
        if to is not None:
            raise FixInput(f"--to is for transferred, not for {action}")
        return Statement(action)
    if to is None:
        raise FixInput("transferred needs --to: the next holder's key")
    return transferred(key_named(sites.open_site(site), to))


def key_named(site: Site, name: str) -> bytes:
    """A key by its name at this site, or by 0x and its id. Raises FixInput."""
    if name.startswith("0x"):
        try:
            key = bytes.fromhex(name[2:])
        except ValueError:
            key = b""
        if len(key) == 32:
            return key
        raise FixInput(f"{name}: a key's id is 0x and 64 hex digits")
    known = site.certificates()
    if name not in known:
        raise FixInput(f"no key {name!r} here: `scanseal device list` shows them; a stranger's is named by 0x and its id")
    return known[name].key


def deidentification_options(names: Sequence[str]) -> frozenset[Option]:
    """The options of PS3.15 Annex E by their names. Raises FixInput naming those that there are."""
    from ledger.core.deidentification import Option

    unknown = [name for name in names if name not in set(Option)]
    if unknown:
        raise FixInput(f"--option {unknown[0]}: there are {', '.join(Option)}")
    return frozenset(Option(name) for name in names)


def derivation(
    operation: str, options: frozenset[Option], *, x: int, y: int, reason: str | None, tool: str | None
) -> Derivation:
    """How a child was made. Raises FixInput for an operation that there is not."""
    from ledger.core.custody import DEIDENTIFIED, OPERATIONS
    from ledger.wiring.custody import Derivation

    known = (DEIDENTIFIED, "transcoded", *OPERATIONS)
    if operation not in known:
        raise FixInput(f"--operation {operation}: there are {', '.join(known)}")
    return Derivation(operation, options, x, y, reason, tool)


def esign(site: Path | None, person: str, target: str, meaning: str) -> dict[str, Any]:
    """A person's electronic signature on a record (`scanseal esign`)."""
    from ledger.core.certificates import Person
    from ledger.wiring.custody import Custody
    from ledger.wiring.targets import target_id

    here = sites.open_site(site)
    holder = here.certificates().get(person)
    named = None if holder is None else holder.holder()
    if not isinstance(named, Person):
        raise FixInput(f"{person!r} is no person here: `scanseal device request {person} --person 'Printed Name'` first")
    if not meaning.strip() or not meaning.isprintable() or len(meaning) > 256:
        raise FixInput("--meaning is one line: reviewed, approved, responsible ...")
    with signing(site, person) as ready:
        approving = Custody(ready)
        approved, described = target_id(here, ready, approving, target)
        receipt = approving.approve(named.printed_name, meaning, approved)
        record = ready.journal.by_id([receipt.record_id])[receipt.record_id].signed.record
    return {
        "name": named.printed_name,
        "meaning": meaning,
        "target": described,
        "record_id": "0x" + receipt.record_id.hex(),
        "approves": "0x" + approved.hex(),
        "time": record.claimed_time,
        "warning": ready.warning,
    }


def redact(
    site: Path | None, studies: Sequence[str], folders: Sequence[Path], with_derived: bool | None, say: Callable[[str], None]
) -> dict[str, Any]:
    """Erases studies of a site (`scanseal redact`)."""
    from ledger.store.redaction import RedactionStore
    from ledger.wiring import redaction

    here = sites.open_site(site)
    for folder in folders:
        if not folder.is_dir():
            raise FixInput(f"{folder}: no such folder")
    with opened(here) as store:
        named = (here.folder, *folders)
        return redaction.redact(RedactionStore(store.store), studies, named, with_derived=with_derived, say=say)
