"""What renewing needs, built: the account, the chain, and which bundle goes where."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ledger.core.errors import FixInput
from ledger.wiring import site as sites

if TYPE_CHECKING:
    from ledger.wiring.renewing import Renewing


@contextmanager
def renewing(site: Path | None) -> Iterator[Renewing]:
    """Renewing with a site's account, in a log of its own, by its trust file; one process at a time."""
    from ledger.keys import signers
    from ledger.wiring import chain
    from ledger.wiring.anchors import only_one
    from ledger.wiring.renewing import Renewing

    here = sites.open_site(site)
    trust = here.trust()
    account = signers.load_account(here.account_path, here.passphrase())
    with only_one(here.folder / "anchor.lock"):
        ledger = chain.connect(here.rpc, trust, account)
        yield Renewing(trust, ledger, lambda: chain.let_time_pass(here), lambda header: sites.believe(here, header))


def renewal_files(named: Sequence[Path], images: Sequence[str], output: Path) -> list[tuple[Path, Path]]:
    """(bundle, where it goes renewed), of the bundles that are named, or without any, of those beside the images.

    One bundle may go into a file; else each keeps its name below the folder that was named. Raises FixInput.
    """
    from ledger.wiring.bundles import SUFFIX, bundle_files

    places = list(named)
    if not places:
        paths = [Path(image.partition("!/")[0]) for image in images]
        places = [path if path.is_dir() else path.with_name(path.name + SUFFIX) for path in paths]
    found = [
        (file, file.relative_to(place) if place.is_dir() else file.name) for place in places for file in bundle_files(place)
    ]
    if len(found) == 1 and output.suffix and not output.is_dir():
        return [(found[0][0], output)]
    if output.exists() and not output.is_dir():
        raise FixInput(f"{output} is a file: {len(found)} bundles go into a folder")
    targets = {output / name: file for file, name in found}
    if len(targets) != len({file.resolve() for file, _ in found}):
        raise FixInput("two of these bundles have the same name: renew them into different folders")
    return [(file, target) for target, file in targets.items()]
