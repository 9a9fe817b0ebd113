"""What an encoder's sensitivity means, in words, for the terminal and the page."""

from __future__ import annotations

from typing import Final

#: the row of the distance between different patients
PATIENTS: Final = "another_patient"
#: an alteration that moves an embedding by a smaller share of the distance between patients is hardly seen; our choice
HARDLY: Final = 0.1

#: alteration -> its name in a sentence, and what follows where it is hardly seen, seen less than another patient, or seen as far
_WORDS: Final = {
    "flip_left_right": (
        "A flipped left-right axis", "it does not see sides", "it sees sides weakly", "it sees sides",
    ),
    "flip_front_back": (
        "A flipped front-back axis", "it does not tell front from back", "it tells front from back weakly",
        "it tells front from back",
    ),
    "flip_head_foot": (
        "A flipped head-foot axis", "it does not tell head from feet", "it tells head from feet weakly",
        "it tells head from feet",
    ),
    "orientation": (
        "The other orientation, LPS for RAS,", "a wrong orientation would go unnoticed",
        "a wrong orientation changes its embeddings", "a wrong orientation is another patient to it",
    ),
    "spacing": (
        "Half the spacing", "it hardly depends on the spacing", "it needs the declared spacing",
        "it depends on the spacing more than on the patient",
    ),
    "clip": (
        "HU clipped at -1000 and 200", "it hardly depends on the range of HU", "it needs the declared range of HU",
        "it depends on the range of HU more than on the patient",
    ),
    "window": (
        "A window half as wide again", "it hardly depends on the window", "it needs the declared window",
        "it depends on the window more than on the patient",
    ),
    "half_voxel_shift": (
        "A shift by half a voxel", "it is stable", "it is not stable",
        "two scans of one patient may lie as far apart as two patients",
    ),
    "jpeg": (
        "JPEG compression at quality 75", "it is stable", "it needs images that were never compressed with loss",
        "it depends on compression more than on the patient",
    ),
}  # fmt: skip
_NOT_APPLICABLE: Final = {
    "flip_head_foot": "does not apply: the mean over slices does not see their order",
    "clip": "does not apply to 8-bit windows",
    "window": "does not apply to HU",
}


def sensitivity_sentence(alteration: str, status: str, relative_distance: float | None) -> str:
    """Return one measured alteration as a sentence; the arguments are as in `sensitivity.Sensitivity`."""
    if alteration == PATIENTS:
        if status == "not_estimable":
            return "Different patients have almost the same embedding: nothing can be compared with their distance."
        return "Different patients: the distance that the alterations below are compared with."
    subject, hardly, less, far = _WORDS[alteration]
    if status == "not_applicable":
        return f"{subject} {_NOT_APPLICABLE[alteration]}."
    if relative_distance is None:
        return f"{subject} cannot be compared: different patients have almost the same embedding."
    if relative_distance >= 1:
        return f"{subject} moves it at least as far as another patient would ({relative_distance:.1f} times): {far}."
    share = f"{relative_distance:.0%}" if relative_distance >= 0.01 else "under 1%"
    follows = hardly if relative_distance < HARDLY else less
    return f"{subject} moves it less than another patient would ({share} as far): {follows}."
