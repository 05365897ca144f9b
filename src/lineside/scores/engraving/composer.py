"""Compose random but valid music, so that no score is needed and rare signs come at will.

Bars are split by their metre into beats and beats into note values (binary or ternary, dotted,
tuplets); melodies walk along the scale, accompaniments take notes of one triad per bar, and a
rhythm often repeats. Then signs are put on: each piece has a few favourites among them, as printed
music does, and `ComposerSettings.rarity` sets their density.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from xml.etree.ElementTree import Element

import numpy as np

from lineside.scores.engraving.musicxml import (
    TYPES,
    VALUES,
    Bar,
    Event,
    Part,
    Pitch,
    key_alteration,
    make,
    nested,
    write_score,
)

CLEFS = {
    "G": ("G", 2, 0, 34), "F": ("F", 4, 0, 22), "alto": ("C", 3, 0, 28),
    "tenor": ("C", 4, 0, 26), "G8vb": ("G", 2, -1, 27), "G8va": ("G", 2, 1, 41),
    "F8vb": ("F", 4, -1, 15), "percussion": ("percussion", 0, 0, 34),
}  # fmt: skip
"""Sign, line, octave change, and the diatonic number of the middle line."""
SOLO_CLEFS = ("G", "F", "alto", "tenor", "G8vb") + ("G8va",) * 4 + ("F8vb",) * 3
ENSEMBLES: dict[str, tuple[tuple[str, tuple[str, ...]], ...]] = {
    "song": (("Voice", ("G",)), ("Piano", ("G", "F"))),
    "piano": (("Piano", ("G", "F")),),
    "solo": (("Solo", ("any",)),),
    "organ": (("Organ", ("G", "F", "F")),),
    "quartet": (("Violin I", ("G",)), ("Violin II", ("G",)), ("Viola", ("alto",)),
                ("Cello", ("F",))),
    "choir": (("Soprano", ("G",)), ("Alto", ("G",)), ("Tenor", ("G8vb",)), ("Bass", ("F",))),
    "drums": (("Drums", ("percussion",)),),
}  # fmt: skip
"""Parts of each ensemble, each with the clefs of its staves."""
WEIGHTS = {"song": 8, "piano": 3, "solo": 8, "organ": 2, "quartet": 3, "choir": 3, "drums": 4}
METRES = {
    "4/4": 4, "3/4": 4, "2/4": 3, "6/8": 3, "3/8": 1, "9/8": 3.5, "2/2": 1, "12/8": 2,
    "5/8": 2.5, "7/8": 5, "5/4": 2, "6/4": 2.5, "4/2": 6, "10/8": 5, "3/2": 1, "common": 4,
    "cut": 5, "8/8": 0.5,
}  # fmt: skip
"""Metres with their weights."""
UNEVEN = {5: (3, 2), 7: (2, 2, 3), 8: (3, 3, 2), 10: (3, 2, 3, 2)}
TUPLETS = ((3, 2, 12), (6, 4, 3), (5, 4, 3), (7, 4, 3), (9, 8, 4), (10, 8, 3))
"""Actual notes, normal notes, weight, where the beat is binary."""
TERNARY_TUPLETS = ((2, 3, 2), (4, 3, 3), (8, 6, 3))
MARKS: dict[str, tuple[tuple[str, str], float]] = {
    **{name: (("articulations", name), 1.0) for name in (
        "accent", "staccatissimo", "strong-accent", "soft-accent")},
    **{name: (("articulations", name), 0.7) for name in ("breath-mark", "caesura")},
    "staccato": (("articulations", "staccato"), 3.0),
    "tenuto": (("articulations", "tenuto"), 2.0),
    **{name: (("ornaments", name), 1.0) for name in (
        "trill-mark", "turn", "inverted-turn", "mordent", "inverted-mordent", "tremolo")},
    **{name: (("technical", name), 1.0) for name in ("up-bow", "down-bow", "fingering")},
    "fermata": (("", "fermata"), 0.9),
    "arpeggiate": (("", "arpeggiate"), 6.0),
}  # fmt: skip
"""Signs at single notes: where MusicXML has them, and weight."""
FAVOURITES = 7  # signs of a piece that come often
OFTEN, SELDOM = 0.03, 0.0015  # share of notes with a given sign, times its weight
DYNAMICS = (
    "p", "pp", "ppp", "mp", "mp", "mf", "mf", "f", "ff", "fff", "fp", "sf", "sfz", "sfz", "rf",
    "rfz", "rfz", "fz", "sffz",
)  # fmt: skip
WORDS = ("dolce", "cresc.", "rit.", "a tempo", "espressivo", "marcato", "legato", "poco a poco")
TEMPI = ("Allegro", "Andante", "Lento", "Langsam", "Presto", "Mit Ausdruck", "Vivace")
CONSONANTS, VOWELS = ("l", "m", "r", "s", "t", "n", "d", "w", "b", "gr", "st", ""), "aeiou"
REACH = 7  # diatonic steps that a voice leaves its centre by


@dataclass(frozen=True, kw_only=True)
class ComposerSettings:
    """What pieces are like.

    Attributes:
        bars: Fewest and most bars.
        rarity: Density of rare signs; 0: none of them.
        ensemble: A name of `ENSEMBLES`; empty: any.
    """

    bars: tuple[int, int] = (7, 15)
    rarity: float = 1.0
    ensemble: str = ""


def compose(rng: np.random.Generator, settings: ComposerSettings | None = None) -> str:
    """Return a random piece as MusicXML 4."""
    return Composer(rng, settings or ComposerSettings()).piece()


@dataclass
class Voice:
    """What a voice keeps from bar to bar."""

    staff: int
    number: int
    clef: str
    mean: Fraction  # note length it tends to
    melodic: bool
    beamed: bool
    sung: bool
    at: int = 0  # diatonic steps above the middle line
    last: Event | None = None
    rhythm: tuple[list[Fraction], list[Event]] | None = None


class Composer:
    """Composes one piece; every decision is drawn from `rng`."""

    def __init__(self, rng: np.random.Generator, settings: ComposerSettings) -> None:
        self.rng, self.rarity = rng, settings.rarity
        self.bars = int(rng.integers(settings.bars[0], settings.bars[1] + 1))
        names = list(WEIGHTS)
        self.ensemble = settings.ensemble or self.pick(names, [WEIGHTS[n] for n in names])
        marks = list(MARKS)
        weights = np.array([MARKS[name][1] for name in marks])
        chosen = rng.choice(marks, FAVOURITES, replace=False, p=weights / weights.sum())
        self.favourites = {str(name) for name in chosen}
        self.key = self.key_draw()
        self.metre = self.metre_draw()
        self.change_clef = False  # in the middle of this bar
        self.repeated = ""  # part whose last bar was a repeat sign

    def chance(self, share: float) -> bool:
        return bool(self.rng.random() < share)

    def rare(self, share: float) -> bool:
        return self.chance(share * self.rarity)

    def pick(self, options: Sequence[str], weights: Sequence[float] | None = None) -> str:
        if weights is None:
            return options[int(self.rng.integers(len(options)))]
        total = np.array(weights, float)
        return options[int(self.rng.choice(len(options), p=total / total.sum()))]

    def key_draw(self) -> int:
        return int(np.clip(round(self.rng.normal(0, 3)), -7, 7))

    def metre_draw(self) -> str:
        return self.pick(list(METRES), list(METRES.values()))

    def beats(self) -> list[Fraction]:
        """Return the lengths of the beats of a bar in quarter notes."""
        metre = {"common": "4/4", "cut": "2/2"}.get(self.metre, self.metre)
        count, unit = (int(number) for number in metre.split("/"))
        length = Fraction(4, unit)
        if unit >= 8 and count in UNEVEN:
            return [length * n for n in UNEVEN[count]]
        if (unit >= 8 or metre == "6/4") and count % 3 == 0:
            return [length * 3] * (count // 3)
        return [length] * count

    def piece(self) -> str:
        """Compose all parts bar by bar, then put on signs that span bars."""
        rng, parts, voices = self.rng, [], []
        for name, clefs in ENSEMBLES[self.ensemble]:
            sung = self.ensemble == "choir" or name == "Voice"
            solo = [self.pick(SOLO_CLEFS) if clef == "any" else clef for clef in clefs]
            if solo == ["F"] and self.rare(0.4):
                solo = ["F8vb"]
            parts.append(Part(name=name, staves=len(clefs), unpitched="percussion" in clefs))
            voices.append([
                Voice(
                    staff, 0, clef, Fraction(2, int(rng.choice([1, 1, 2, 2, 2, 4, 4, 8]))),
                    melodic=staff == 0, beamed=not (sung and self.chance(0.7)), sung=sung,
                )
                for staff, clef in enumerate(solo)
            ])  # fmt: skip
        self.walk(parts, voices)
        for part, own in zip(parts, voices, strict=True):
            for voice in own:
                self.spanners(part, voice)
        groups = []
        if len(parts) == 4:
            groups = [
                ("bracket" if self.ensemble == "choir" or self.chance(0.5) else "brace", 0, 3)
            ]
        return write_score(f"Study {int(rng.integers(1, 1000))}", parts, groups)

    def walk(self, parts: Sequence[Part], voices: Sequence[Sequence[Voice]]) -> None:
        """Fill the bars of all parts from left to right."""
        pickup = self.chance(0.25)
        rests = 0  # bars left of a multi-bar rest
        volta = int(self.rng.integers(3, max(4, self.bars - 3))) if self.chance(0.35) else -9
        index = -1
        while (index := index + 1) < self.bars:
            signature = self.signature(index) if not rests else []
            beats = self.beats()
            short = index == 0 and pickup and len(beats) > 1
            if short:
                beats = beats[-1:]
            length = sum(beats, Fraction(0))
            root = int(self.rng.choice([0, 0, 3, 4, 4, 5, 1]))
            solo = len(parts) == 1 and parts[0].staves == 1
            rested = rests > 0
            if rests:
                rests -= 1
            elif (
                solo and 0 < index < self.bars - 1 and index not in (volta - 1, volta)
                and self.rare(0.14)
            ):  # fmt: skip
                rests, rested = int(self.rng.choice([2, 3, 5, 8, 12, 17, 24])), True
                signature.append(("multi", str(rests)))
                self.bars += rests - 1  # they take the room of one
                rests -= 1
            if rested and index <= volta + 1:
                volta += 1
            around = self.barlines(index, volta) if rests == 0 or not rested else []
            for part, own in zip(parts, voices, strict=True):
                bar = Bar(length=length, fifths=self.key, pickup=short)
                bar.begin, bar.end = self.attributes(signature, part, own, index), []
                for place, element in copy.deepcopy(around):
                    if place == "left":
                        bar.begin.insert(0, element)
                    else:
                        bar.end.append(element)
                silent = rested or self.repeats(bar, own, part, index == self.bars - 1)
                for voice in own:
                    if silent:
                        voice.last = None
                        bar.voices[voice.staff, 0] = [Event(length=length, kind="")]
                    else:
                        self.fill(bar, voice, beats, root, part)
                part.bars.append(bar)
            if not rested:
                self.directions(index, parts)

    def signature(self, index: int) -> list[tuple[str, str]]:
        """Return what changes at a bar, and change it."""
        found = []
        key, metre = self.key, self.metre
        if index and self.rare(0.04):
            self.key = self.key_draw()
        if index and self.rare(0.12):
            self.metre = self.metre_draw()
        if index == 0 or key != self.key:
            found.append(("key", str(key if index else 0)))  # naturals cancel the old key
        if index == 0 or metre != self.metre:
            found.append(("time", self.metre))
        return found

    def attributes(
        self, changes: list[tuple[str, str]], part: Part, voices: Sequence[Voice], index: int
    ) -> list[Element]:
        """Return the attributes element of a bar of a part, or nothing."""
        found = make("attributes")
        for name, value in changes:
            if name == "key":
                key = make("key")
                if value != "0":
                    key.append(make("cancel", value))
                key.append(make("fifths", 0 if part.unpitched else self.key))
                found.append(key)
            elif name == "time":
                shape = {"common": {"symbol": "common"}, "cut": {"symbol": "cut"}}.get(value, {})
                time = make("time", **shape)
                beats, unit = {"common": "4/4", "cut": "2/2"}.get(value, value).split("/")
                time.extend([make("beats", beats), make("beat-type", unit)])
                found.append(time)
        if index == 0:
            if part.staves > 1:
                found.append(make("staves", part.staves))
            found.extend([_clef(voice.clef, voice.staff, part.staves) for voice in voices])
        for name, value in changes:
            if name == "multi":
                style = make("measure-style")
                style.append(make("multiple-rest", value))
                found.append(style)
        return [found] if len(found) else []

    def barlines(self, index: int, volta: int) -> list[tuple[str, Element]]:
        """Return the bar lines of a bar with their places."""
        found = []
        if index == volta - 3 and volta > 3:
            found.append(("left", _barline("left", "heavy-light", "forward")))
        for number, at in (("1", volta), ("2", volta + 1)):
            if index == at:
                left = _barline("left")
                left.append(make("ending", number=number, type="start"))
                right = _barline("right", "light-heavy" if number == "1" else "light-light")
                kind = "stop" if number == "1" else "discontinue"
                right.append(make("ending", number=number, type=kind))
                if number == "1":
                    right.append(make("repeat", direction="backward"))
                found += [("left", left), ("right", right)]
        if index == self.bars - 1 and index not in (volta, volta + 1):
            repeat = "backward" if self.chance(0.2) else ""
            found.append(("right", _barline("right", "light-heavy", repeat)))
        elif not found and self.chance(0.03):
            found.append(("right", _barline("right", self.pick(("light-light", "dashed")))))
        return found

    def fill(self, bar: Bar, voice: Voice, beats: list[Fraction], root: int, part: Part) -> None:
        """Compose a bar of a staff: a voice, at times a second one below it, or a rest."""
        own = (voice.staff, 0)
        if self.chance(0.05):
            bar.voices[own] = [Event(length=bar.length, kind="")]
            voice.last = None
            return
        double = not voice.sung and not part.unpitched and self.chance(0.15)
        self.change_clef = not double and not part.unpitched and self.rare(0.13)
        events = self.events(bar, voice, beats, root, 2 if double else 0, part)
        bar.voices[own] = events
        if double:
            lower = Voice(voice.staff, 1, voice.clef, voice.mean * 2, False, True, False, at=-4)
            bar.voices[voice.staff, 1] = self.events(bar, lower, beats, root, -4, part)
            for number, stem in ((0, "up"), (1, "down")):
                for event in bar.voices[voice.staff, number]:
                    event.stem = stem
                    for grace in event.graces:
                        grace.stem = stem
        cue = self.rare(0.05)
        for event in events:
            long = event.kind in ("whole", "breve") and not event.dots and self.rare(0.25)
            if (cue or long) and event.pitches and not event.tie_in and not event.tie_out:
                event.cue = True

    def repeats(self, bar: Bar, own: Sequence[Voice], part: Part, last: bool) -> bool:
        """Make a bar a sign that repeats the one before, at times; verovio wants all staves so."""
        before = part.bars[-1] if part.bars else None
        if self.repeated == part.name:
            bar.begin.append(_measure_repeat("stop"))
            self.repeated = ""
        elif before and not last and not self.repeated and self.rare(0.035):
            same = before.length == bar.length and before.fifths == bar.fifths
            if same and all(events[0].kind for events in before.voices.values()):
                self.repeated = part.name
                bar.begin.append(_measure_repeat("start"))
                for events in before.voices.values():
                    events[-1].tie_out = False
        return self.repeated == part.name

    def events(
        self, bar: Bar, voice: Voice, beats: list[Fraction], root: int, lift: int, part: Part
    ) -> list[Event]:
        """Return the notes of a voice in a bar."""
        if voice.rhythm and voice.rhythm[0] == beats and self.chance(0.4):
            events = copy.deepcopy(voice.rhythm[1])
        else:
            events = list(self.rhythm(beats, voice))
            voice.rhythm = (beats, copy.deepcopy(events))
        middle = len(events) // 2
        previous = voice.last
        for number, event in enumerate(events):
            if self.change_clef and number == middle > 0 and not event.ratio[0] > 1:
                options = [
                    name for name in ("G", "G", "F", "F", "alto", "tenor") if name != voice.clef
                ]
                voice.clef = self.pick(options)
                event.before.append(_clef_change(voice.clef, voice.staff, part.staves))
                voice.at, previous = lift, None
            if self.chance(0.35 if event.kind == "breve" else 0.07):
                event.hidden = voice.number == 1 and event.ratio == (1, 1) and self.chance(0.5)
                previous = None
                continue
            tie = previous is not None and not event.ratio[0] > 1 and self.chance(0.04)
            if tie and previous is not None:
                event.pitches, event.tie_in, previous.tie_out = list(previous.pitches), True, True
            else:
                event.pitches = self.pitches(voice, bar, root, lift, previous, part)
                self.marks(event, voice, part)
            event.long_sign = self.chance(0.75)
            previous = event
        voice.last = previous
        _group_beams(events, beats, voice.beamed)
        if voice.sung:
            for event in events:
                if event.pitches and not event.tie_in:
                    event.syllable = self.pick(CONSONANTS) + self.pick(VOWELS)
        return events

    def rhythm(self, beats: list[Fraction], voice: Voice) -> Iterator[Event]:
        """Yield note values that fill the beats; neighbouring beats may join to a longer one."""
        number = 0
        slow = 8 if self.metre in ("4/2", "3/2") else 1
        while number < len(beats):
            count = 1
            for longer in range(len(beats) - number, 1, -1):
                total = sum(beats[number : number + longer], Fraction(0))
                wanted = float(voice.mean * 2 * slow / (voice.mean * 2 * slow + total))
                if total in VALUES and self.chance(wanted**1.5 * 0.6):
                    count = longer
                    break
            mean = voice.mean
            if beats[number] <= Fraction(3, 2) and self.rare(0.05):
                mean = Fraction(1, int(self.rng.choice([8, 16, 32])))
            total = sum(beats[number : number + count], Fraction(0))
            yield from self.split(total, mean if count == 1 else max(mean, total), (1, 1))
            number += count

    def split(self, length: Fraction, mean: Fraction, ratio: tuple[int, int]) -> Iterator[Event]:
        """Yield the values of a length: itself, or its parts; in a tuplet as written."""
        small = Fraction(1, 32)
        keep = float(mean**2 / (mean**2 + length**2))
        if length <= small or (length in VALUES and self.chance(keep)):
            kind, dots = VALUES[length]
            yield Event(length=length * ratio[1] / ratio[0], kind=kind, dots=dots, ratio=ratio)
            return
        plain, ternary = length in TYPES.values(), length / 3 in TYPES.values()
        tuplets = TUPLETS if plain else TERNARY_TUPLETS if ternary else ()
        if tuplets and ratio == (1, 1) and length <= 2 and self.chance(0.06 if plain else 0.1):
            yield from self.tuplet(length, tuplets)
            return
        if ternary:
            third = length / 3
            options = [[third] * 3, [2 * third, third], [third, 2 * third]]
            if third / 2 >= small:
                options.append([third * Fraction(3, 2), third / 2, third])
            parts = options[int(self.rng.integers(len(options)))]
        elif plain and length / 4 >= small and self.chance(0.2):
            parts = [length * Fraction(3, 4), length / 4]
            if length / 8 >= small and self.chance(0.1 * self.rarity):
                parts = [length * Fraction(7, 8), length / 8]
            elif self.chance(0.15):
                parts.reverse()
            yield from (e for p in parts for e in self.split(p, max(mean, p * 3), ratio))
            return
        elif plain:
            parts = [length / 2] * 2
        else:  # beats of an uneven length, e.g. 5/8 as a whole
            unit = Fraction(1, length.denominator)
            parts = [unit] * int(length / unit)
        for part in parts:
            yield from self.split(part, mean, ratio)

    def tuplet(
        self, length: Fraction, options: Sequence[tuple[int, int, float]]
    ) -> Iterator[Event]:
        allowed = [
            row for row in options
            if (length / row[1]) in TYPES.values() and length / row[1] >= Fraction(1, 32)
        ]  # fmt: skip
        if not allowed:
            yield from self.split(length, length, (1, 1))
            return
        names = [f"{row[0]}:{row[1]}" for row in allowed]
        actual, normal = self.pick(names, [row[2] for row in allowed]).split(":")
        ratio, unit = (int(actual), int(normal)), length / int(normal)
        units, found, used = int(actual), [], 0
        while used < units:  # two units join at times
            joined = 2 if units - used >= 2 and units > 2 and self.chance(0.12) else 1
            kind, dots = VALUES[unit * joined]
            value = unit * joined * ratio[1] / ratio[0]
            found.append(Event(length=value, kind=kind, dots=dots, ratio=ratio))
            used += joined
        found[0].tuplet, found[-1].tuplet = "start", "stop"
        yield from found

    def pitches(
        self, voice: Voice, bar: Bar, root: int, lift: int, previous: Event | None, part: Part
    ) -> list[Pitch]:
        """Return the pitches of a note or chord, from below."""
        middle = CLEFS[voice.clef][3]
        if part.unpitched:
            return [(middle + int(self.rng.choice([-3, 1, 1, 3, 5])), 0)]
        reach = REACH + (5 if self.rare(0.1) else 0)
        step = int(self.rng.choice([-2, -1, -1, 1, 1, 2, 0, 3, -3, 4, -4, 7]))
        if self.rare(0.02):
            step *= 3
        at = voice.at + step
        if abs(at - lift) > reach:
            at = voice.at - abs(step) if at > lift else voice.at + abs(step)
        voice.at = int(np.clip(at, lift - reach - 3, lift + reach + 3))
        if not voice.melodic and not voice.sung:  # nearest note of the triad
            voice.at += min((0, 1, -1), key=lambda d: ((middle + voice.at + d - root) % 7) % 2 * 9
                            + abs(d) + 9 * ((middle + voice.at + d - root) % 7 > 4))  # fmt: skip
        double = [n for n, a in previous.pitches if abs(a) == 2] if previous else []
        if double and self.chance(0.5):  # what follows a double accidental: its cancellation
            voice.at = double[0] - middle
        lowest = middle + voice.at
        numbers = {lowest}
        chord = 0.06 if voice.melodic else 0.3
        if not voice.sung and self.chance(chord):
            shapes = ((2,), (5,), (7,), (2, 4), (3, 5), (2, 5), (1,), (1, 3), (2, 4, 7), (1, 2))
            numbers |= {lowest + up for up in shapes[int(self.rng.integers(len(shapes)))]}
        return [(number, self.alteration(number, bar, previous)) for number in sorted(numbers)]

    def alteration(self, number: int, bar: Bar, previous: Event | None) -> int:
        """Return the key's alteration of a step, or a chromatic one."""
        natural = key_alteration(bar.fifths, number)
        last = dict(previous.pitches).get(number, natural) if previous else natural
        if abs(last) == 2:
            return last // 2
        if not self.chance(0.05 + 0.02 * self.rarity):
            return natural
        if natural and not self.rare(0.5):
            return 0
        return natural + (natural or int(self.rng.choice([-1, 1])))

    def marks(self, event: Event, voice: Voice, part: Part) -> None:
        """Put signs on a note."""
        for name, ((group, tag), weight) in MARKS.items():
            often = OFTEN * min(weight, 1.0) if name in self.favourites else 0.0
            if not self.rare(often + SELDOM):
                continue
            if name == "arpeggiate" and len(event.pitches) < 2:
                continue
            if name == "tremolo" and (event.ratio != (1, 1) or event.kind not in
                                      ("quarter", "half", "whole", "eighth")):  # fmt: skip
                continue
            if part.unpitched and group in ("ornaments", "") and name != "fermata":
                continue
            event.notations.append((group, self.mark(tag)))
        if self.rare(0.025 if voice.number == 0 else 0.12) and not event.tuplet:
            event.graces = self.graces(event, part)
        if self.rare(0.015 if self.ensemble != "drums" else 0.25):
            short = TYPES[event.kind] <= 1  # a hollow cross is another glyph
            event.head = self.pick(("x", "diamond", "x")) if short else "diamond"
        if self.rare(0.006):
            event.head_parentheses = True
        if self.rare(0.012) and not part.unpitched:
            event.courtesy = self.pick(("parentheses", "parentheses", "bracket"))

    def mark(self, tag: str) -> Element:
        if tag == "fermata":
            return make(tag, type=self.pick(("upright", "inverted")))
        if tag == "strong-accent":
            return make(tag, type=self.pick(("up", "up", "down")))
        if tag == "tremolo":
            return make(tag, int(self.rng.integers(1, 4)), type="single")
        if tag == "fingering":
            return make(tag, int(self.rng.integers(1, 6)))
        return make(tag)

    def graces(self, event: Event, part: Part) -> list[Event]:
        """Return one slashed or plain grace note, or a beamed run of them."""
        count = int(self.rng.choice([1, 1, 1, 2, 3]))
        kind = self.pick(("eighth", "eighth", "16th", "quarter", "half")) if count == 1 else "16th"
        slash = "yes" if kind == "eighth" and self.chance(0.6) else "no"
        top = event.pitches[-1][0]
        found = []
        for place in range(count):
            number = top - count + place if self.chance(0.7) else top + 1
            sign = key_alteration(self.key, number) if not part.unpitched else 0
            if self.chance(0.15) and not part.unpitched:
                sign = int(np.clip(sign + self.rng.choice([-1, 1]), -1, 1))
            found.append(Event(length=Fraction(0), kind=kind, grace=slash, pitches=[(number, sign)],
                               beam=0 if count > 1 else -1))  # fmt: skip
        return found

    def directions(self, index: int, parts: Sequence[Part]) -> None:
        """Put tempo, dynamics and other words over and under the last bar of the parts."""
        top = next(iter(parts[0].bars[-1].voices.values()))[0]
        if index == 0 or self.chance(0.02):
            top.before.append(_direction(make("words", self.pick(TEMPI)), "above", 0, 1))
        for share, name in ((0.06, "segno"), (0.06, "coda")):
            if self.rare(share):
                top.before.append(_direction(make(name), "above", 0, 1))
        if self.chance(0.06):
            letter = make("rehearsal", chr(65 + index % 26))
            top.before.append(_direction(letter, "above", 0, 1))
        for part in parts:
            for (staff, voice), events in part.bars[-1].voices.items():
                if voice or not self.chance(0.22 if staff == 0 else 0.05):
                    continue
                event = events[int(self.rng.integers(len(events)))]
                if self.chance(0.25):
                    element = make("words", self.pick(WORDS))
                else:
                    element = nested("dynamics", self.pick(DYNAMICS))
                event.before.append(_direction(element, "below", staff, part.staves))

    def spanners(self, part: Part, voice: Voice) -> None:
        """Put slurs, hairpins, pedals, octave lines, glissandi and tremolos on a finished staff."""
        bars = [bar.voices[voice.staff, 0] for bar in part.bars]
        line = [event for events in bars for event in events]
        staff, staves = voice.staff, part.staves
        number = 0
        while number < len(line) - 2:
            last = min(len(line) - 1, number + int(self.rng.integers(1, 8)))
            begin, end = line[number], line[last]
            if begin.pitches and end.pitches and self.chance(0.12):
                slur = str(staff + 1)
                begin.notations.append(("", make("slur", type="start", number=slur)))
                end.notations.append(("", make("slur", type="stop", number=slur)))
                number = last
            elif begin.kind and end.kind and self.chance(0.03):
                kind = self.pick(("crescendo", "diminuendo"))
                for event, what in ((begin, kind), (end, "stop")):
                    wedge = make("wedge", type=what, number=staff + 1)
                    event.before.append(_direction(wedge, "below", staff, staves))
                number = last
            number += 1
        for one, two in itertools.pairwise(line):
            if (
                any(e.tag == "trill-mark" for _, e in one.notations)
                and two.pitches
                and self.chance(0.6)
            ):
                for event, what in ((one, "start"), (two, "stop")):
                    event.notations.append(("ornaments", make("wavy-line", type=what, number=1)))
        if self.ensemble in ("song", "piano") and staff == staves - 1 and staves > 1:
            self.pedals(bars, staff, staves)
        if not part.unpitched and not voice.sung:
            self.octaves(bars, staff, staves)
            self.pairs(bars)

    def pedals(self, bars: Sequence[list[Event]], staff: int, staves: int) -> None:
        for events in bars:
            if len(events) > 1 and self.rare(0.15):
                sign = {"line": "no", "sign": "yes"} if self.chance(0.7) else {"line": "yes"}
                for event, what in ((events[0], "start"), (events[-1], "stop")):
                    pedal = make("pedal", type=what, **sign)
                    event.before.append(_direction(pedal, "below", staff, staves))

    def octaves(self, bars: Sequence[list[Event]], staff: int, staves: int) -> None:
        """Put some bars an octave higher or lower than they sound."""
        number = 0
        while number < len(bars):
            count = int(self.rng.choice([1, 2, 3, 6, 8]))
            span = [event for events in bars[number : number + count] for event in events]
            first, last = span[0], span[-1]
            clear = all(
                e.kind and e.pitches and not e.cue and len(e.before) == 0 for e in (first, last)
            )
            if clear and not first.tie_in and not last.tie_out and self.rare(0.2):
                up = self.chance(0.5)
                for event in span:
                    event.octave = 1 if up else -1
                    for grace in event.graces:
                        grace.octave = event.octave
                for event, what in ((first, "down" if up else "up"), (last, "stop")):
                    shift = make("octave-shift", type=what, size=8, number=staff + 1)
                    place = "above" if up else "below"
                    home = event.before if event is first else event.after
                    home.append(_direction(shift, place, staff, staves))
                number += count
            number += 1

    def pairs(self, bars: Sequence[list[Event]]) -> None:
        """Make glissandi and tremolos of two neighbouring notes."""
        for events in bars:
            for one, two in itertools.pairwise(events):
                if (
                    len(one.pitches) != 1
                    or len(two.pitches) != 1
                    or one.ratio != (1, 1)
                    or two.ratio != (1, 1)
                    or one.tie_out
                    or two.tie_out
                    or one.tie_in
                    or two.before
                    or two.graces
                    or one.notations
                    or two.notations
                    or one.cue
                    or one.head
                    or two.head
                ):
                    continue  # fmt: skip
                if one.kind == two.kind in ("quarter", "half") and not one.dots and not two.dots \
                        and self.rare(0.03) and one.length == two.length:  # fmt: skip
                    marks = int(self.rng.integers(1, 4))
                    kind = {"quarter": "half", "half": "whole"}[one.kind]
                    for event, what in ((one, "start"), (two, "stop")):
                        event.kind, event.ratio = kind, (2, 1)
                        event.notations.append(("ornaments", make("tremolo", marks, type=what)))
                elif one.pitches != two.pitches and self.rare(0.035):
                    for event, what in ((one, "start"), (two, "stop")):
                        line = make("glissando", line_type="solid", number=1, type=what)
                        event.notations.append(("", line))


def _group_beams(events: Sequence[Event], beats: Sequence[Fraction], beamed: bool) -> None:
    """Beam neighbouring short notes of one beat; tuplets are beamed even in song."""
    ends = np.cumsum([float(beat) for beat in beats])
    at, group, home = Fraction(0), 0, -1
    for event in events:
        beat = int(np.searchsorted(ends, float(at) + 1e-9))
        short = event.kind in ("eighth", "16th", "32nd", "64th", "128th") and event.pitches
        if not short or not (beamed or event.ratio != (1, 1)) or beat != home:
            group += 1
        home = beat
        event.beam = group if short and (beamed or event.ratio != (1, 1)) else -1
        if not short:
            group += 1
        at += event.length
    numbers = [event.beam for event in events]
    for event in events:
        if event.beam >= 0 and numbers.count(event.beam) < 2:
            event.beam = -1


def _barline(place: str, style: str = "", repeat: str = "") -> Element:
    found = make("barline", location=place)
    if style:
        found.append(make("bar-style", style))
    if repeat:
        found.append(make("repeat", direction=repeat))
    return found


def _clef(name: str, staff: int, staves: int) -> Element:
    sign, line, octave, _ = CLEFS[name]
    clef = make("clef", **({"number": staff + 1} if staves > 1 else {}))
    clef.append(make("sign", sign))
    if line:
        clef.append(make("line", line))
    if octave:
        clef.append(make("clef-octave-change", octave))
    return clef


def _clef_change(name: str, staff: int, staves: int) -> Element:
    found = make("attributes")
    found.append(_clef(name, staff, staves))
    return found


def _measure_repeat(what: str) -> Element:
    found = nested("attributes", "measure-style", "measure-repeat", type=what)
    found[0][0].text = "1" if what == "start" else None
    return found


def _direction(kind: Element, place: str, staff: int, staves: int) -> Element:
    """Return a direction; `kind` is its content."""
    found = make("direction", placement=place)
    outer = make("direction-type")
    outer.append(kind)
    found.append(outer)
    if staves > 1:
        found.append(make("staff", staff + 1))
    return found
