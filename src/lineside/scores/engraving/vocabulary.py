"""Symbol classes, named as in SMuFL and DeepScoresV2, and which glyph or element is which.

Glyphs above and below the staff share a class, except fermatas, whose shape differs. Key
signatures have classes of their own, since their context tells them apart, and so have small
(grace and cue) symbols, since their boxes differ. Lines have classes too, but no glyph.
"""

from __future__ import annotations

GLYPHS = {
    "noteheadBlack": "E0A4",
    "noteheadHalf": "E0A3",
    "noteheadWhole": "E0A2",
    "noteheadDoubleWhole": "E0A0 E0A1",
    "noteheadXBlack": "E0A9",
    "noteheadDiamond": "E0DB E0DD E0D9",
    "noteheadParenthesisLeft": "E0F5",
    "noteheadParenthesisRight": "E0F6",
    "flag8thUp": "E240",
    "flag8thDown": "E241",
    "flag16thUp": "E242",
    "flag16thDown": "E243",
    "flag32ndUp": "E244",
    "flag32ndDown": "E245",
    "flag64thUp": "E246",
    "flag64thDown": "E247",
    "flag128thUp": "E248",
    "flag128thDown": "E249",
    "accidentalFlat": "E260",
    "accidentalNatural": "E261",
    "accidentalSharp": "E262",
    "accidentalDoubleSharp": "E263",
    "accidentalDoubleFlat": "E264",
    "accidentalNaturalSharp": "E268",
    "accidentalNaturalFlat": "E267",
    "accidentalParensLeft": "E26A",
    "accidentalParensRight": "E26B",
    "accidentalBracketLeft": "E26C",
    "accidentalBracketRight": "E26D",
    "restDoubleWhole": "E4E2",
    "restWhole": "E4E3",
    "restHalf": "E4E4",
    "restQuarter": "E4E5",
    "restQuarterOld": "E4F2",
    "rest8th": "E4E6",
    "rest16th": "E4E7",
    "rest32nd": "E4E8",
    "rest64th": "E4E9",
    "rest128th": "E4EA",
    "gClef": "E050 E07A",
    "gClef8vb": "E052",
    "gClef8va": "E053",
    "fClef": "E062 E07C",
    "fClef8vb": "E064",
    "cClef": "E05C E07B",
    "unpitchedPercussionClef": "E069 E06A",
    **{f"timeSig{digit}": f"E08{digit}" for digit in range(10)},
    "timeSigCommon": "E08A",
    "timeSigCutCommon": "E08B",
    **{f"tuplet{digit}": f"E88{digit}" for digit in range(10)},
    "articAccent": "E4A0 E4A1",
    "articStaccato": "E4A2 E4A3",
    "articTenuto": "E4A4 E4A5",
    "articStaccatissimo": "E4A6 E4A7 E4A8 E4A9 E4AA E4AB",
    "articMarcato": "E4AC E4AD",
    "articSoftAccent": "ED40 ED41",
    "fermataAbove": "E4C0",
    "fermataBelow": "E4C1",
    "breathMarkComma": "E4CE",
    "caesura": "E4D1",
    "dynamicP": "E520",
    "dynamicM": "E521",
    "dynamicF": "E522",
    "dynamicR": "E523",
    "dynamicS": "E524",
    "dynamicZ": "E525",
    "ornamentTrill": "E566",
    "ornamentTurn": "E567",
    "ornamentTurnInverted": "E568",
    "ornamentShortTrill": "E56C",
    "ornamentMordent": "E56D",
    "keyboardPedalPed": "E650",
    "keyboardPedalUp": "E655",
    "stringsDownBow": "E610 E611",
    "stringsUpBow": "E612 E613",
    "segno": "E047",
    "coda": "E048",
    "ottava": "E510",
    "ottavaAlta": "E511",
    "ottavaBassa": "E51C E512",
    "octaveParensLeft": "E51A",
    "octaveParensRight": "E51B",
    "repeat1Bar": "E500",
    "repeatDot": "E044",
    "bracketTop": "E003",
    "bracketBottom": "E004",
    "brace": "E000",
}
"""Class by SMuFL code points."""

KEY_CLASSES = {
    "accidentalFlat": "keyFlat",
    "accidentalNatural": "keyNatural",
    "accidentalSharp": "keySharp",
}
SMALL = frozenset({
    "noteheadBlack", "noteheadHalf", "noteheadWhole", "flag8thUp", "flag8thDown", "flag16thUp",
    "flag16thDown", "accidentalFlat", "accidentalNatural", "accidentalSharp", "gClef", "fClef",
    "cClef",
})  # fmt: skip
"""Classes that have a small twin, e.g. `noteheadBlackSmall`."""
SMALL_SCALE = 0.9  # of the full size: below it a symbol is small (grace notes 0.75, clefs 0.66)
LINES = (
    "staffLine", "ledgerLine", "stem", "beam", "barLine", "slur", "tie", "hairpin",
    "tupletBracket", "voltaBracket", "ottavaLine", "pedalLine", "tremolo", "arpeggiato",
    "trillLine", "glissando", "multiRest", "bracket",
)  # fmt: skip
DOTS = ("articStaccato", "augmentationDot", "repeatDot")
"""One shape; the neighbourhood tells which of them it is."""

NAMES = (
    *GLYPHS,
    *KEY_CLASSES.values(),
    *(name + "Small" for name in GLYPHS if name in SMALL),
    "augmentationDot",
)
"""Classes of glyphs; lines are in `LINES`."""

_BY_CODE = {code: name for name, codes in GLYPHS.items() for code in codes.split()}
SMALL_CODES = frozenset({"E07A", "E07B", "E07C"})  # glyphs that are drawn small by their outline


def glyph_class(code: str, in_key: bool, scale: float) -> str:
    """Return the class of a glyph; empty for one that is no class (letters, odd signs).

    Args:
        code: SMuFL code point, four hexadecimal digits.
        in_key: It belongs to a key signature.
        scale: Its size as a share of the full size of the page.
    """
    name = _BY_CODE.get(code, "")
    if in_key:
        return KEY_CLASSES.get(name, name)
    if name in SMALL and (scale < SMALL_SCALE or code in SMALL_CODES):
        return name + "Small"
    return name
