"""What a record binds: leaves under one root, each opened by its salt and by nothing else."""

import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.core import content
from ledger.core.errors import EvidenceInvalid, FixInput

SECRET = bytes(range(32))
VALUES = {
    "PixelData": "px1-sha256:" + "ab" * 32,
    "PatientID": "4711",
    "PatientName": "Doe^Jane",
    "StudyInstanceUID": "1.2.3",
    "SOPInstanceUID": "1.2.3.4",
    "PixelSpacing": "0.5\\0.5",
}
KEY = content.image_key(SECRET, VALUES["PixelData"], "1.2.3.4")


def root_from_the_format(values: dict[str, str | None]) -> bytes:
    """FORMAT.md §2, written a second time, with hashlib alone."""

    def mth(leaves: list[bytes]) -> bytes:
        if len(leaves) == 1:
            return leaves[0]
        split = 1 << (len(leaves) - 1).bit_length() - 1
        return hashlib.sha256(b"\1" + mth(leaves[:split]) + mth(leaves[split:])).digest()

    key = hmac.new(SECRET, b"scanseal/image\0" + values["PixelData"].encode() + b"\0" + b"1.2.3.4", hashlib.sha256).digest()[
        :16
    ]
    leaves = []
    for name in content.ITEMS:
        salt = hmac.new(key, name.encode(), hashlib.sha256).digest()[:16]
        value = values.get(name)
        tail = b"\0" if value is None else b"\1" + value.encode()
        leaves.append(hashlib.sha256(b"\0" + salt + bytes([len(name)]) + name.encode() + tail).digest())
    return mth(leaves)


def test_the_commitment_is_the_one_that_the_format_describes():
    assert content.commit(VALUES, content.Salts(KEY)).root == root_from_the_format(VALUES)


@given(st.sampled_from([name for name in content.ITEMS if name != "PixelData"]), st.text(min_size=1, max_size=20))
def test_any_changed_attribute_changes_the_root_and_is_named(name, value):
    if VALUES.get(name) == value:
        return
    sealed = content.commit(VALUES, content.Salts(KEY))
    changed = VALUES | {name: value}
    assert content.commit(changed, content.Salts(KEY)).root != sealed.root
    if name != "DecodedPixels":
        assert content.differing(sealed.leaves, content.Salts(KEY), changed) == (name,)


def test_an_absent_attribute_is_not_an_empty_one():
    sealed = content.commit(VALUES | {"AccessionNumber": None}, content.Salts(KEY))
    assert content.opens(sealed.leaves, content.Salts(KEY), "AccessionNumber", None)
    assert not content.opens(sealed.leaves, content.Salts(KEY), "AccessionNumber", "")


def test_leaves_open_only_with_the_images_own_key():
    sealed = content.commit(VALUES, content.Salts(KEY))
    assert content.opens(sealed.leaves, content.Salts(KEY), "PatientID", "4711")
    other = content.image_key(bytes(32), VALUES["PixelData"], "1.2.3.4")
    assert not content.opens(sealed.leaves, content.Salts(other), "PatientID", "4711")


def test_equal_attributes_of_two_images_have_unequal_leaves():
    other = content.commit(VALUES, content.Salts(content.image_key(SECRET, VALUES["PixelData"], "1.2.3.5")))
    assert not set(content.commit(VALUES, content.Salts(KEY)).leaves) & set(other.leaves)


def test_leaves_that_do_not_hash_to_the_content_are_refused():
    sealed = content.commit(VALUES, content.Salts(KEY))
    assert content.opened(sealed.leaves, sealed.root) == sealed.leaves
    flipped = (bytes([sealed.leaves[0][0] ^ 1]) + sealed.leaves[0][1:], *sealed.leaves[1:])
    for wrong in (flipped, sealed.leaves[:-1], (*sealed.leaves, bytes(32)), ()):
        with pytest.raises(EvidenceInvalid):
            content.opened(wrong, sealed.root)


def test_an_attribute_outside_the_list_is_refused():
    with pytest.raises(FixInput, match="PatientComments"):
        content.commit({"PatientComments": "x"}, content.Salts(KEY))


# ---- images made from others ----

PARENT = b"\7" * 32


def test_the_key_of_a_derived_image_is_the_one_that_the_format_describes():
    def mth(leaves: list[bytes]) -> bytes:
        if len(leaves) == 1:
            return leaves[0]
        split = 1 << (len(leaves) - 1).bit_length() - 1
        return hashlib.sha256(b"\1" + mth(leaves[:split]) + mth(leaves[split:])).digest()

    leaves = []
    for name in content.ITEMS:
        value = VALUES.get(name)
        tail = b"\0" if value is None else b"\1" + value.encode()
        leaves.append(hashlib.sha256(b"\0" + bytes(16) + bytes([len(name)]) + name.encode() + tail).digest())
    expected = hmac.new(SECRET, b"scanseal/derived\0" + PARENT + mth(leaves), hashlib.sha256).digest()[:16]
    assert content.derived_key(SECRET, PARENT, VALUES) == expected


def test_images_with_the_same_pixels_and_uid_never_share_a_key():
    """Else the evidence of one copy would open another one's leaves, and the values that only those hide."""
    keys = {
        KEY,
        content.derived_key(SECRET, PARENT, VALUES),
        content.derived_key(SECRET, PARENT, VALUES | {"PatientName": "S01"}),
        content.derived_key(SECRET, PARENT, VALUES | {"PatientName": "S02"}),
        content.derived_key(SECRET, PARENT, VALUES | {"PatientName": None}),
        content.derived_key(SECRET, b"\6" * 32, VALUES),
        content.derived_key(bytes(32), PARENT, VALUES),
    }
    assert len(keys) == 7
    assert content.derived_key(SECRET, PARENT, VALUES) in keys


def test_kept_items_have_the_parents_leaves_and_others_do_not():
    changed = ("PatientName", "SOPInstanceUID")
    theirs = content.Salts(KEY)
    kept = {name: theirs.salt(name) for name in content.ITEMS if name not in changed}
    mine = content.Salts(b"\1" * 16, kept)
    parent, child = content.commit(VALUES, theirs), content.commit(VALUES, mine)
    assert content.unequal(child.leaves, parent.leaves) == changed
    again = content.Salts.of_parts(b"\1" * 16, b"".join(kept.values()), changed)
    assert content.commit(VALUES, again) == child


@pytest.mark.parametrize("size", [0, 16, 16 * 44, 16 * 45 - 1, 16 * 46])
def test_kept_salts_are_as_many_as_items_are_kept(size):
    with pytest.raises(EvidenceInvalid):
        content.Salts.of_parts(KEY, bytes(size), ("PatientName", "SOPInstanceUID"))
