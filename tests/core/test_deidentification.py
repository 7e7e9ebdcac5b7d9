"""What the profile may change of the bound attributes, and the options that are refused."""

from __future__ import annotations

import pytest

from ledger.core.attributes import GROUPS
from ledger.core.deidentification import BASIC_PROFILE_CODE, Option, may_change, refuse_impossible
from ledger.core.errors import FixInput

REFUSED = {Option.CLEAN_PIXEL_DATA, Option.CLEAN_RECOGNIZABLE_VISUAL_FEATURES, Option.CLEAN_STRUCTURED_CONTENT}


def test_the_basic_profile_may_change_who_when_and_which_machine() -> None:
    assert may_change(frozenset()) == {
        *GROUPS["patient"],
        *GROUPS["study"],
        *GROUPS["acquisition"],
        "SeriesInstanceUID",
        "SOPInstanceUID",
        "FrameOfReferenceUID",
        "DeviceSerialNumber",
        "StationName",
    }


@pytest.mark.parametrize("option", [None, *(option for option in Option if option not in REFUSED)])
def test_geometry_rescale_laterality_view_and_class_never_change(option: Option | None) -> None:
    never = {*GROUPS["geometry"], *GROUPS["rescale"], *GROUPS["anatomy"], "Modality", "SOPClassUID"} - {"FrameOfReferenceUID"}
    assert not never & may_change(frozenset((option,)) if option else frozenset())


@pytest.mark.parametrize(
    ("option", "retained"),
    [
        (Option.RETAIN_UIDS, {"StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID"}),
        (Option.RETAIN_DEVICE_IDENTITY, {"DeviceSerialNumber", "StationName"}),
        (Option.RETAIN_PATIENT_CHARACTERISTICS, {"PatientSex"}),
        (Option.RETAIN_LONGITUDINAL_FULL_DATES, {"StudyDate", "StudyTime", *GROUPS["acquisition"]}),
        (Option.RETAIN_LONGITUDINAL_MODIFIED_DATES, {"StudyTime", "AcquisitionTime"}),
        (Option.RETAIN_INSTITUTION_IDENTITY, set()),
    ],
)
def test_an_option_keeps_what_it_says(option: Option, retained: set[str]) -> None:
    assert may_change(frozenset()) - may_change(frozenset((option,))) == retained


@pytest.mark.parametrize("option", sorted(REFUSED))
def test_an_option_that_takes_eyes_is_refused(option: Option) -> None:
    with pytest.raises(FixInput, match=option):
        may_change(frozenset((option,)))


def test_two_ways_with_dates_contradict_each_other() -> None:
    with pytest.raises(FixInput, match="contradict"):
        refuse_impossible(frozenset((Option.RETAIN_LONGITUDINAL_FULL_DATES, Option.RETAIN_LONGITUDINAL_MODIFIED_DATES)))


def test_every_option_has_its_code_of_cid_7050() -> None:
    codes = [BASIC_PROFILE_CODE, *(option.code for option in Option)]
    assert sorted(value for value, _ in codes) == [str(number) for number in range(113100, 113113)]
