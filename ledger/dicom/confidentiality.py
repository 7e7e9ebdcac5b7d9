"""What PS3.15 Annex E does to each element: table E.1-1 from the library `dicom-anonymizer`, its option columns from here.

Where the table leaves a choice to the object's IOD (X/Z, X/D, Z/D, X/Z/D, X/Z/U*) the last letter is taken, which keeps an
object valid whatever its IOD says. Stricter than the table: dates, times and person names that it does not list, overlay and
curve groups as a whole, and standard elements that no dictionary knows are removed. docs/decisions/005 has why.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from enum import Enum, auto
from functools import cache
from typing import Final

from dicomanonymizer.dicom_anonymization_databases import dicomfields_2026c as _library  # type: ignore[import-untyped]
from pydicom.datadict import dictionary_has_tag

from ledger.core.deidentification import Option, refuse_impossible

EDITION: Final = "2026c"
"""The edition of PS3.15 whose table E.1-1 is applied."""

TEXT_VRS: Final = frozenset(("AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT"))


class Action(Enum):
    """The action codes of PS3.15 table E.1-1a; SHIFT is its C for dates."""

    KEEP = auto()
    REMOVE = auto()
    EMPTY = auto()
    DUMMY = auto()
    UID = auto()
    SHIFT = auto()
    CLEAN = auto()


_CODES: Final = {
    "D_TAGS": Action.DUMMY,
    "Z_TAGS": Action.EMPTY,
    "X_TAGS": Action.REMOVE,
    "U_TAGS": Action.UID,
    "Z_D_TAGS": Action.DUMMY,
    "X_Z_TAGS": Action.EMPTY,
    "X_D_TAGS": Action.DUMMY,
    "X_Z_D_TAGS": Action.DUMMY,
    "X_Z_U_STAR_TAGS": Action.UID,
}
_DATES: Final = frozenset(("DA", "DT", "TM"))
_CLEANABLE: Final = frozenset(("LO", "LT", "SH", "ST", "UC", "UT"))
GRAPHIC_ANNOTATIONS: Final = 0x00700001
GRAPHIC_TEXTS: Final = frozenset((0x00700008, 0x00700209))  # TextObjectSequence, CompoundGraphicSequence


def _tags(text: str) -> frozenset[int]:
    return frozenset(int(word, 16) for word in text.split())


# Columns of table E.1-1. A tag under C whose value is no free text (a sequence, a code, an AE title) stays with the profile.
_UIDS: Final = _tags("00001000 00081110 00081111 00081120 006a0003")  # beside every U but the next two
_UIDS_NEVER: Final = _tags("04000100 0040a124")
_DATES_NEVER: Final = _tags("00100030 00100032 00160077")  # birth date and time, GPS time
_DATES_TOO: Final = _tags("00080201 00340007 0040a034 0040a035 0040b034 0040b036 04000310")
_DEVICE: Final = _tags(
    """00081010 0014407c 0014407e 0016004e 0016004f 00160050 00160051 00181000 00181002 00181004 00181005 00181007 00181008
    00181009 0018100a 0018100b 00181010 00181011 00181200 00181201 00181202 00181203 00181204 00181205 00185011 0018700a
    0018700c 0018700e 00189367 00189371 00189373 00203401 00321020 00400001 00400010 00400011 00400242 00404025 00404027
    00404028 00404030 00500020 04000563 30080105 300a00b2 300a0216 300c0127 3010002d 30100043"""
)
_INSTITUTION: Final = _tags("00080080 00080081 00080082 00081040 00081041 00120030 00120031 00120060 00120081 04000564")
_PATIENT: Final = _tags(
    """00100040 00100043 00100046 00100047 00101010 00101020 00101030 00102160 00102161 00102162 001021a0 001021c0 00102203
    0072005f"""
)
_PATIENT_CLEANED: Final = _tags("00100042 00102110 00380050 00380500 00400012")
_DESCRIPTORS: Final = _tags(
    """00081030 0008103e 00081080 00081088 00081301 00081302 00081303 00081304 00082111 00084000 00100016 00100042 00100045
    00102000 00102110 00102180 001021b0 00104000 00120051 00120072 00180010 00181030 001811bb 00181400 00184000 00189185
    0018937b 0018937f 00189424 00189937 0018a003 00200027 00204000 00209158 00321030 00321033 00321060 00321066 00321070
    00324000 00380040 00380062 00380500 00384000 003a0020 003a0203 003a020c 003a0329 003a032b 00400007 00400254 00400280
    00400310 0040051a 00400556 00400600 00400602 00401002 00401400 00402001 00402400 0040b03b 0040b03f 00500021 006a0005
    006a0006 00700006 00720066 00720068 0072006c 0072006e 00720070 22000002 30020121 30020123 30060002 30060004 30060006
    30060026 30060028 30060038 30060085 30060088 300a0002 300a0003 300a0004 300a000b 300a000e 300a0016 300a0072 300a00c3
    300a00dd 300a0196 300a01a6 300a01b2 300a02eb 300a0608 300a0619 300a0623 300a062a 300a0676 300a067c 300a067d 300a0734
    300a0742 300a0783 300a078e 300a0792 300a0794 300a079a 300c0113 3010000f 30100017 30100033 30100034 30100035 30100036
    30100037 30100038 30100054 30100056 3010005a 3010005c 30100061 30100077 3010007a 3010007b 3010007f 4008010b 40080115
    40080300 40084000"""
)

# PS3.15 table E.3.10-1 without its sequences and free text: private creator -> group and the last byte of the element.
_SAFE_PRIVATE: Final[Mapping[str, frozenset[int]]] = {
    "ELSCINT1": _tags("00e121 00e150 01e126 01f101 01f107 01f126 01f127"),
    "GEMS_ACQU_01": _tags("001923 001924 001927"),
    "GEMS_HELIOS_01": _tags("004502"),
    "GEMS_PARM_01": _tags("004339 00436f"),
    "Philips Imaging DD 001": _tags(
        """200101 200102 200103 200104 200106 200107 200108 200109 20010a 20010b 20010c 20010e 200110 200111 200112 200119
        20011a 20011b 20011c 20011d 20011e 20011f 200121 200122 200123 200124 200126 20012d 200132 200133 200135 200136
        200146 200147 200148 20014b 20014c 20014d 20014e 200155 200156 200161 200162 200163 200177 20017a 20017b 200181
        200182 200183 200184 200185 200186 200188 200189 20018a 20019f 2001a3 2001cb 2001f1 2001f2"""
    ),
    "Philips MR Imaging DD 001": _tags("20050d 20050e"),
    "Philips PET Private Group": _tags("705300 705309"),
    "SIEMENS MR HEADER": _tags("00190c 00190d 00190e 001927"),
}

_TERMS: Final = """
    abdomen abdominal abd acetabulum acquisition adc adrenal after angio angiography angiogram ankle anterior aorta aortic
    ap apical apex arm arterial artery arteries ascending attenuation average ax axial baseline bilateral biopsy bladder
    body bone both brachial brain breast breath bronchial bw calcaneus calcium cap cardiac carotid cavity cc cerebral
    cervical chest cine clavicle coccyx colon colonography computed contrast coronal coronary correction cr cranial
    cranium cspine ct cta cxr deep delayed density descending diaphragm diffusion digital dixon dose dr drive duodenum
    dual dwi dx dynamic dce ear echo elbow enhanced epi epigastric erect esophagus exam examination exhale expiration
    extremity eye face facial fast fat fdg femur femoral fetal field filter fine finger flair flash fluoro fluoroscopy
    foot for forearm frontal fse full functional gallbladder gradient gre hand head heart heel helical hepatic hip hires
    high hrct humerus iac iliac image images imaging in inhale injection inner inspiration inversion iv jaw joint kernel
    kidney kidneys knee kub kv kvp larynx lat lateral left leg liver lobe localizer long low lower lspine lumbar lung
    lungs magnetic mammo mammogram mammography mandible map mask maxilla mean mediastinum mg mid middle mip mlo mpr mprage
    mr mra mrcp mri mrv native nasal nasopharynx neck neuro nm no nodule non noncontrast nuclear oblique of orbit orbits
    oral out ovary pa pancreas panoramic parallel paranasal parotid patella pd pediatric pelvic pelvis perfusion
    periapical pet phantom pharynx phase pitch plain plane portable portal post posterior pre precontrast prone prostate
    proton protocol pulmonary px quantitative radiograph radiography radius reconstruction recon recumbent reformat renal
    resolution rest ribs rib right routine sacrum sagittal scan scapula scout screening se sella sequence series shoulder
    sinus sinuses skull slice slices soft spgr spin spine spiral spleen stack standard standing stereo sternum stir
    stomach stress study subtraction superior supine surview swi t1 t1w t2 t2w t3 tanh te temporal test thick thigh thin
    thoracic thorax thyroid tibia tibial time tissue tmj toe tof tomography tomosynthesis topogram tr transverse trauma
    tse two 2d 3d 4d ulna ultrasound unenhanced upper upright urinary us uterus vascular vein venous vertebra view views
    vessel volume wall water weighted whole window with without wo wrist xa xray zygoma
"""
_VOCABULARY: Final = frozenset(_TERMS.split())
_WORD: Final = re.compile(r"[^\W_]+")


def cleaned(text: str, names: Collection[str]) -> str:
    """The words of a description that are technical or anatomical terms and not among `names` (case-folded), spaced by one.

    A word stays only because it is known to say nothing about who: whatever is not on the list goes, dates and numbers too.
    """
    return " ".join(word for word in _WORD.findall(text) if word.casefold() in _VOCABULARY and word.casefold() not in names)


def is_safe_private(creator: str, tag: int) -> bool:
    """Whether PS3.15 table E.3.10-1 calls this private element of this creator safe."""
    return (tag >> 16 << 8 | tag & 0xFF) in _SAFE_PRIVATE.get(creator, ())


@cache
def _table() -> Mapping[int, Action]:
    return {
        group << 16 | element: action
        for name, action in _CODES.items()
        for group, element, *mask in getattr(_library, name)
        if not mask  # the repeating groups 50xx and 60xx, which go as a whole
    }


class Rules:
    """The action for every standard element under a set of options. Raises FixInput for options that are not possible."""

    def __init__(self, options: frozenset[Option]) -> None:
        refuse_impossible(options)
        self.options = options

    def action(self, tag: int, vr: str) -> Action:
        """What happens to the element with this tag and value representation; private ones and group lengths are REMOVE."""
        listed = _table().get(tag)
        # Neither has private elements, the repeating groups 50xx and 60xx, or group lengths.
        if listed is None and not dictionary_has_tag(tag):
            return Action.REMOVE
        if listed is None and vr not in _DATES and vr != "PN":
            return Action.KEEP
        return self._optional(tag, vr, listed) or listed or Action.REMOVE

    def _optional(self, tag: int, vr: str, listed: Action | None) -> Action | None:
        options = self.options
        if Option.RETAIN_LONGITUDINAL_FULL_DATES in options:
            if tag in _DATES_TOO or (vr in _DATES and tag not in _DATES_NEVER):
                return Action.KEEP
        elif Option.RETAIN_LONGITUDINAL_MODIFIED_DATES in options and vr in _DATES and tag not in _DATES_NEVER:
            return Action.KEEP if vr == "TM" else Action.SHIFT
        if (
            (Option.RETAIN_UIDS in options and (tag in _UIDS or (listed is Action.UID and tag not in _UIDS_NEVER)))
            or (Option.RETAIN_DEVICE_IDENTITY in options and tag in _DEVICE)
            or (Option.RETAIN_INSTITUTION_IDENTITY in options and tag in _INSTITUTION)
            or (Option.RETAIN_PATIENT_CHARACTERISTICS in options and tag in _PATIENT)
        ):
            return Action.KEEP
        if Option.CLEAN_GRAPHICS in options and tag == GRAPHIC_ANNOTATIONS:
            return Action.CLEAN
        if vr in _CLEANABLE and (
            (Option.CLEAN_DESCRIPTORS in options and tag in _DESCRIPTORS)
            or (Option.RETAIN_PATIENT_CHARACTERISTICS in options and tag in _PATIENT_CLEANED)
        ):
            return Action.CLEAN
        return None
