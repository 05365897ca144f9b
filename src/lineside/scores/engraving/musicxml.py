"""Write bars of notes as MusicXML 4 (score-partwise): durations, beams, accidentals, voices.

Pitches are pairs (diatonic number, alteration): the number counts steps of the scale, seven to an
octave, 28 is the written middle C; the alteration counts semitones, from -2 to 2.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

TYPES = {
    "breve": Fraction(8), "whole": Fraction(4), "half": Fraction(2), "quarter": Fraction(1),
    "eighth": Fraction(1, 2), "16th": Fraction(1, 4), "32nd": Fraction(1, 8),
    "64th": Fraction(1, 16), "128th": Fraction(1, 32),
}  # fmt: skip
"""Note values in quarter notes."""
VALUES = {
    length * (2 - Fraction(1, 2**dots)): (name, dots)
    for dots in (2, 1, 0)
    for name, length in TYPES.items()
}
"""(type, dots) of each length that one note can have."""
BEAMS = {"eighth": 1, "16th": 2, "32nd": 3, "64th": 4, "128th": 5}
STEPS = "CDEFGAB"
SHARPS = (3, 0, 4, 1, 5, 2, 6)  # steps in the order in which keys sharpen them
SIGNS = {-2: "flat-flat", -1: "flat", 0: "natural", 1: "sharp", 2: "double-sharp"}
HEADER = (
    '<?xml version="1.0" encoding="UTF-8"?>\n<!DOCTYPE score-partwise PUBLIC '
    '"-//Recordare//DTD MusicXML 4.0 Partwise//EN" "http://www.musicxml.org/dtds/partwise.dtd">\n'
)
Pitch = tuple[int, int]


@dataclass(kw_only=True)
class Event:
    """A note, chord or rest of one voice.

    Attributes:
        length: Quarter notes that it lasts; 0 for a grace note.
        kind: Written type, e.g. ``"eighth"``; empty for a rest that fills its bar.
        dots: Augmentation dots.
        ratio: (actual, normal) notes of its tuplet.
        tuplet: ``"start"`` or ``"stop"`` at the ends of a tuplet.
        pitches: As displayed, from below; none for a rest.
        octave: Octaves by which it sounds higher than displayed.
        beam: Number of its beam group in the bar, or -1.
        tie_in, tie_out: It is tied to the event before, or to the one after.
        grace: ``"yes"`` if slashed, ``"no"`` if not, empty for no grace note.
        cue: Drawn small.
        hidden: Skipped instead of drawn as a rest.
        stem: ``"up"`` or ``"down"`` where two voices share a staff.
        head: Form of the heads, e.g. ``"diamond"``.
        head_parentheses: Parentheses around the heads.
        courtesy: ``"parentheses"`` or ``"bracket"``: shows accidentals that are in force already.
        long_sign: Cancels a double accidental with a natural in front.
        notations: Pairs (group, element); the group is e.g. ``"ornaments"`` or empty.
        before, after: Elements to write around it.
        graces: Grace notes ahead of it.
        syllable: Sung text.
        signs: Accidentals to draw, one per pitch; filled in by `set_signs`.
    """

    length: Fraction
    kind: str
    dots: int = 0
    ratio: tuple[int, int] = (1, 1)
    tuplet: str = ""
    pitches: list[Pitch] = field(default_factory=list)
    octave: int = 0
    beam: int = -1
    tie_in: bool = False
    tie_out: bool = False
    grace: str = ""
    cue: bool = False
    hidden: bool = False
    stem: str = ""
    head: str = ""
    head_parentheses: bool = False
    courtesy: str = ""
    long_sign: bool = False
    notations: list[tuple[str, Element]] = field(default_factory=list)
    before: list[Element] = field(default_factory=list)
    after: list[Element] = field(default_factory=list)
    graces: list[Event] = field(default_factory=list)
    syllable: str = ""
    signs: list[str] = field(default_factory=list)


@dataclass(kw_only=True)
class Bar:
    """One bar of one part: voices by (staff, voice), both from 0, and what stands around them."""

    length: Fraction
    fifths: int
    voices: dict[tuple[int, int], list[Event]] = field(default_factory=dict)
    begin: list[Element] = field(default_factory=list)
    end: list[Element] = field(default_factory=list)
    pickup: bool = False


@dataclass(kw_only=True)
class Part:
    """A part: its name, number of staves, and bars."""

    name: str
    staves: int
    bars: list[Bar] = field(default_factory=list)
    unpitched: bool = False


def make(name: str, text: object = None, /, **attributes: object) -> Element:
    """Return an element; underscores in attributes stand for hyphens."""
    element = Element(name, {key.replace("_", "-"): str(v) for key, v in attributes.items()})
    element.text = None if text is None else str(text)
    return element


def nested(*names: str, **attributes: object) -> Element:
    """Return nested elements; the innermost has the attributes."""
    inner = make(names[-1], **attributes)
    for name in reversed(names[:-1]):
        outer = make(name)
        outer.append(inner)
        inner = outer
    return inner


def key_alteration(fifths: int, diatonic: int) -> int:
    """Return what a key signature makes of a step: -1, 0 or 1."""
    place = SHARPS.index(diatonic % 7)
    return int(place < fifths) - int(6 - place < -fifths)


def write_score(title: str, parts: Sequence[Part], groups: Sequence[tuple[str, int, int]]) -> str:
    """Return a score as MusicXML.

    Args:
        title: Of the piece.
        parts: With as many bars each.
        groups: (symbol, first part, last part) of every bracket or brace over several parts.
    """
    root = make("score-partwise", version="4.0")
    root.append(nested("work", "work-title"))
    root[0][0].text = title
    names = SubElement(root, "part-list")
    for number, part in enumerate(parts):
        for index, (symbol, first, _) in enumerate(groups):
            if first == number:
                group = SubElement(names, "part-group", number=str(index + 1), type="start")
                SubElement(group, "group-symbol").text = symbol
                SubElement(group, "group-barline").text = "yes"
        row = SubElement(names, "score-part", id=f"P{number + 1}")
        SubElement(row, "part-name").text = part.name
        for index, (_, _, last) in enumerate(groups):
            if last == number:
                SubElement(names, "part-group", number=str(index + 1), type="stop")
    denominators = {
        event.length.denominator
        for part in parts for bar in part.bars for voice in bar.voices.values() for event in voice
    }  # fmt: skip
    divisions = math.lcm(*denominators, *(bar.length.denominator for bar in parts[0].bars))
    for number, part in enumerate(parts):
        element = SubElement(root, "part", id=f"P{number + 1}")
        for index, bar in enumerate(part.bars):
            element.append(_bar(bar, part, index, divisions))
    ElementTree.indent(root, " ")
    return HEADER + ElementTree.tostring(root, encoding="unicode") + "\n"


def _bar(bar: Bar, part: Part, index: int, divisions: int) -> Element:
    shift = int(not part.bars[0].pickup)
    measure = make("measure", number=index + shift)
    if bar.pickup:
        measure.set("implicit", "yes")
    for element in bar.begin:
        measure.append(element)
        if element.tag == "attributes" and index == 0:
            element.insert(0, make("divisions", divisions))
    for staff in range(part.staves):
        if not part.unpitched:
            set_signs([v for (home, _), v in bar.voices.items() if home == staff], bar.fifths)
    for count, ((staff, voice), events) in enumerate(sorted(bar.voices.items())):
        if count:
            _skip(measure, "backup", bar.length, divisions)
        beams = beam_marks(events)
        for event, marks in zip(events, beams, strict=True):
            measure.extend(event.before)
            grace_marks = beam_marks(event.graces)
            for grace, inner in zip(event.graces, grace_marks, strict=True):
                measure.extend(_notes(grace, part, staff, voice, divisions, inner))
            if event.hidden:
                _skip(measure, "forward", event.length, divisions)
            else:
                measure.extend(_notes(event, part, staff, voice, divisions, marks))
            measure.extend(event.after)
    measure.extend(bar.end)
    return measure


def _skip(measure: Element, name: str, length: Fraction, divisions: int) -> None:
    SubElement(SubElement(measure, name), "duration").text = str(int(length * divisions))


def _notes(
    event: Event, part: Part, staff: int, voice: int, divisions: int, beams: list[str]
) -> Iterator[Element]:
    """Yield the note elements of an event, their children in the order of the schema."""
    for place, pitch in enumerate(event.pitches or [None]):
        note = make("note")
        if event.grace:
            note.append(make("grace", **({"slash": "yes"} if event.grace == "yes" else {})))
        if event.cue:
            SubElement(note, "cue")
        if place:
            SubElement(note, "chord")
        note.append(_sound(event, pitch, part.unpitched))
        if not event.grace:
            SubElement(note, "duration").text = str(int(event.length * divisions))
        tied = [name for name, on in (("stop", event.tie_in), ("start", event.tie_out)) if on]
        if not event.cue:
            note.extend([make("tie", type=name) for name in tied])
        note.append(make("voice", 4 * staff + voice + 1))
        if event.kind:
            note.append(make("type", event.kind, **({"size": "cue"} if event.cue else {})))
        note.extend([make("dot") for _ in range(event.dots)])
        if pitch is not None and event.signs and event.signs[place]:
            marks = {event.courtesy: "yes"} if event.courtesy else {}
            note.append(make("accidental", event.signs[place], **marks))
        if event.ratio != (1, 1):
            change = SubElement(note, "time-modification")
            change.append(make("actual-notes", event.ratio[0]))
            change.append(make("normal-notes", event.ratio[1]))
        if event.stem and pitch is not None and event.kind not in ("whole", "breve"):
            note.append(make("stem", event.stem))
        if (event.head and pitch is not None) or event.head_parentheses:
            marks = {"parentheses": "yes"} if event.head_parentheses else {}
            note.append(make("notehead", event.head or "normal", **marks))
        if part.staves > 1:
            note.append(make("staff", staff + 1))
        if not place:
            note.extend([make("beam", mark, number=n + 1) for n, mark in enumerate(beams)])
        _notations(note, event, tied, first=not place)
        if event.syllable and not place:
            lyric = SubElement(note, "lyric", number="1")
            SubElement(lyric, "syllabic").text = "single"
            SubElement(lyric, "text").text = event.syllable
        yield note


def _sound(event: Event, pitch: Pitch | None, unpitched: bool) -> Element:
    if pitch is None:
        return make("rest", **({} if event.kind else {"measure": "yes"}))
    sound = make("unpitched" if unpitched else "pitch")
    prefix = "display-" if unpitched else ""
    SubElement(sound, f"{prefix}step").text = STEPS[pitch[0] % 7]
    if pitch[1] and not unpitched:
        SubElement(sound, "alter").text = str(pitch[1])
    SubElement(sound, f"{prefix}octave").text = str(pitch[0] // 7 + event.octave)
    return sound


def _notations(note: Element, event: Event, tied: list[str], first: bool) -> None:
    found = [make("tied", type=name) for name in tied]
    if first:
        if event.tuplet:
            found.append(make("tuplet", type=event.tuplet, number=1))
        groups: dict[str, Element] = {}
        for group, element in event.notations:
            if not group:
                found.append(element)
            elif group in groups:
                groups[group].append(element)
            else:
                groups[group] = make(group)
                groups[group].append(element)
                found.append(groups[group])
    else:  # every note of a chord is arpeggiated
        found += [e for group, e in event.notations if e.tag == "arpeggiate" and not group]
    if found:
        SubElement(note, "notations").extend(found)


def beam_marks(events: Sequence[Event]) -> list[list[str]]:
    """Return the marks of each event, one per beam level, e.g. ``["continue", "begin"]``."""
    marks: list[list[str]] = []
    for i, event in enumerate(events):
        found = []
        for level in range(1, BEAMS.get(event.kind, 0) + 1 if event.beam >= 0 else 1):
            before, after = (
                0 <= j < len(events) and events[j].beam == event.beam
                and BEAMS.get(events[j].kind, 0) >= level
                for j in (i - 1, i + 1)
            )  # fmt: skip
            if before or after:
                found.append("continue" if before and after else "end" if before else "begin")
            else:
                first = i == 0 or events[i - 1].beam != event.beam
                found.append("forward hook" if first else "backward hook")
        marks.append(found)
    return marks


def set_signs(voices: Sequence[Sequence[Event]], fifths: int) -> None:
    """Set the accidentals of one staff in one bar: they hold for their line until the bar ends."""
    timed: list[tuple[Fraction, Event]] = []
    for events in voices:
        begin = Fraction(0)
        for event in events:
            timed += [(begin, one) for one in (*event.graces, event)]
            begin += event.length
    in_force: dict[int, int] = {}
    for _, event in sorted(timed, key=lambda pair: pair[0]):
        event.signs = []
        for diatonic, alteration in event.pitches:
            now = in_force.get(diatonic, key_alteration(fifths, diatonic))
            sign = ""
            if event.tie_in:
                event.signs.append("")
                continue
            if now != alteration or event.courtesy:
                sign = SIGNS[alteration]
                if event.long_sign and abs(now) == 2 and now * alteration > 0 and now != alteration:
                    sign = f"natural-{sign}"
            event.signs.append(sign)
            in_force[diatonic] = alteration
