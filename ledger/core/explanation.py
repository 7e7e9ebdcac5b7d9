"""Verdicts in sentences, for people: what each means, what it does not mean, what to do next."""

from __future__ import annotations

from dataclasses import dataclass

from ledger.core.verdict import OUT_OF_REACH, Token, Verdict


@dataclass(frozen=True)
class Explanation:
    """Three answers to one verdict."""

    means: str
    does_not_mean: str
    next: str


_BY_TOKEN = {
    Token.AUTHENTIC: Explanation(
        "These pixels and these attributes (patient, geometry and the rest of the list) are exactly what an enrolled device "
        "sealed, "
        "and the seal was on chain by the time shown.",
        "It does not say that the device was pointed at the right patient, that its settings were right, or that the finding "
        "is real.",
        "Nothing. Keep the evidence bundle with the image: it goes on proving this without us.",
    ),
    Token.DERIVED: Explanation(
        "This image was made from a sealed one by declared custody steps, and the steps prove what they kept.",
        "It does not say that the steps were wise, or that what they removed was unimportant.",
        "Read the custody steps, and ask for the original if a step changed what you need.",
    ),
    Token.DECLARED_SYNTHETIC: Explanation(
        "Its maker sealed this image as synthetic: it was generated, and says so.",
        "It is no patient's image, whatever name it carries, and neither is anything that was made of it.",
        "Use it as training or test data only; refuse it in a trial, a claim or a record.",
    ),
    Token.PENDING: Explanation(
        "The image is sealed and signed by a known device's key, and the chain does not hold the seal finally yet.",
        "It is not a refusal: nothing is wrong with the image.",
        "Verify again after the next `scanseal anchor`, or later if the anchor is waiting for finality.",
    ),
    Token.ALTERED: Explanation(
        "A record for this very instance exists, and the pixels are not the ones that were sealed.",
        "It does not say who changed them, or that it was meant to deceive: lossy compression and burnt-in text change "
        "pixels, too.",
        "Do not use this copy. Ask the holder for the original, and for the custody record of what was done to it.",
    ),
    Token.MISMATCH: Explanation(
        "The pixels are the sealed ones, but what the named attributes say about them (patient, geometry, time ...) is not "
        "what was sealed.",
        "It does not say that the pixels were touched: they were not.",
        "Do not use the named attributes. A legitimate correction needs a custody record; ask the site for it.",
    ),
    Token.REVOKED: Explanation(
        "A seal exists, but its key was not enrolled, not allowed to sign this, or known to be compromised when the seal came "
        "on chain.",
        "It does not say that the image was changed.",
        "Ask the site for the same image sealed by a key in good standing, or for what happened to this key.",
    ),
    Token.STRIPPED: Explanation(
        "The image names a device that seals everything it makes, and there is no record of it.",
        "It does not say which part is false: the image, or the name of the device in it.",
        "Treat it as unproven. Ask whoever gave it to you for the evidence bundle.",
    ),
    Token.UNREGISTERED: Explanation(
        "No record of this image was found in the evidence at hand.",
        "It says nothing about tampering: most genuine images were never sealed.",
        "Ask for the evidence bundle (`--bundle`). A detector can give a statistical opinion; it is no proof.",
    ),
    Token.NOT_CHECKED: Explanation(
        "Nothing could be said: the image or its evidence could not be read, or proves nothing.",
        "It is not a sign of tampering, and not a sign of the opposite.",
        "Read the reason, get a fresh copy of the file it names, and verify again.",
    ),
}
_HELD = Explanation(
    "A gateway signed that it held this image, or what it was made of; nobody signed where it comes from.",
    "It says nothing about who made the image, and nothing about what was done to it before the gateway held it.",
    "Ask the site that made the image for its evidence bundle. A detector can give a statistical opinion; it is no proof.",
)
_OUT_OF_REACH = Explanation(
    "Nothing could be said: the ledger could not be asked, or its nodes contradict each other.",
    "An outage or a lying node is never a statement about the image.",
    "Try again later or with another RPC node; with a trust file that knows the block, `--offline` needs no node at all.",
)


def explain(verdict: Verdict) -> Explanation:
    """The three sentences for a verdict."""
    if verdict.token is Token.NOT_CHECKED and verdict.exit_code == OUT_OF_REACH:
        return _OUT_OF_REACH
    if verdict.token is Token.UNREGISTERED and verdict.record_id is not None:
        return _HELD
    return _BY_TOKEN[verdict.token]
