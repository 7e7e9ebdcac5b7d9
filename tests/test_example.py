"""The example that FORMAT.md begins with is what it says it is."""

from pathlib import Path

from ledger.core.verdict import Token
from ledger.wiring import assembly

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "docs" / "example"


def test_the_example_is_authentic_and_quoted_rightly():
    with assembly.verifier(None, EXAMPLE / "trust.toml", [], offline=True) as verifier:
        (result,) = verifier.verify(assembly.images([str(EXAMPLE / "image.dcm")]))
    verdict, text = result.verdict, (ROOT / "FORMAT.md").read_text()
    assert verdict.token is Token.AUTHENTIC
    assert verdict.record_id is not None
    assert "0x" + verdict.record_id.hex() in text
    assert assembly.describe(EXAMPLE / "image.dcm", "sha256")["pixel_digest"] in text
