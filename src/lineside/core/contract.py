"""The few types that applications and the core agree on. Protocols, no base classes.

An application is one record, `Application`; a fitted model offers the methods of `Model`.
``tests/contract`` runs every application through the same checks.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torch import Tensor

    from lineside.core.run.folder import Run
    from lineside.core.study import Study

ROLES = ("train", "validation", "calibration", "test")
Status = Literal["ok", "info", "warn", "fail", "unknown"]
Better = Literal["higher", "lower"]
MethodKind = Literal["deep", "classical", "trivial"]
SplitUnit = Literal["group", "time within group"]


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A number with its uncertainty.

    Attributes:
        value: The point estimate; rates are fractions between 0 and 1.
        low: Lower end of the interval, or None with a `reason`.
        high: Upper end of the interval, or None with a `reason`.
        unit: ``"fraction"``, ``"s"``, ``"ms"``, ``"MB"`` ...
        n: Number of independent units (groups) behind it.
        positives: How many of them have a positive item; None where there are no classes.
        method: How the interval was made, e.g. ``"jackknife over groups, 95 %"``.
        better: Which direction is better.
        reason: Why there is no interval.
    """

    value: float
    low: float | None = None
    high: float | None = None
    unit: str = "fraction"
    n: int = 0
    method: str = ""
    better: Better = "higher"
    reason: str = ""
    positives: int | None = None

    def text(self) -> str:
        """Return e.g. ``0.941 [0.902, 0.973] (n = 9 positive + 25 negative)``."""
        if self.value != self.value:
            return f"not defined ({self.reason})" if self.reason else "not defined"
        if self.low is None or self.high is None:
            return f"{self.value:.3f} (no interval: {self.reason})"
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}] (n = {self.counts()})"

    def counts(self) -> str:
        """Return the number of units, per class where there are classes: the rarer one limits."""
        if self.positives is None:
            return str(self.n)
        return f"{self.positives} positive + {self.n - self.positives} negative"

    def as_json(self) -> dict[str, Any]:
        """Return the plain dictionary that is written to JSON files."""
        return dataclasses.asdict(self)


@dataclass(frozen=True, kw_only=True)
class Check:
    """One finding of an audit: what was checked, what was found, what to do.

    Attributes:
        name: Short title, e.g. ``"exact duplicates"``.
        status: ``ok`` needs evidence; without any it is ``unknown``.
        count: Number of affected items.
        evidence: One sentence with the numbers.
        hint: What to do about it.
        items: Ids of affected items, worst first (shown with pictures in the report).
    """

    name: str
    status: Status
    count: int = 0
    evidence: str = ""
    hint: str = ""
    items: tuple[str, ...] = ()


@dataclass(frozen=True)
class Source:
    """Where an item lies.

    Attributes:
        path: A file; it is hashed once per run, however many items it holds.
        locator: Which item of the file: page, row of a history, segment of a recording, box of a
            picture, seed of a scenario. Empty where the file is the item.
    """

    path: Path
    locator: str = ""

    def __str__(self) -> str:
        return f"{self.path}[{self.locator}]" if self.locator else str(self.path)


@runtime_checkable
class Item(Protocol):
    """One thing to judge. It holds paths and labels, never pixels or samples."""

    @property
    def id(self) -> str: ...
    @property
    def source(self) -> Source: ...
    @property
    def label(self) -> str:
        """What is known of it; empty for an item to predict."""
        ...

    @property
    def groups(self) -> tuple[str, ...]:
        """The independent groups it belongs to (part, lot, song, machine; both people of a pair).

        What belongs to one group is not independent: it is resampled together.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Split:
    """Items by role.

    Attributes:
        train: Methods learn from these.
        validation: Methods choose settings on these, where they need to.
        calibration: The operating point is set on these; no method sees them.
        test: Every method is measured on these.
        unit: ``group``: no group is in two roles. ``time within group``: a group (a machine) is
            in several roles, its earlier items in the earlier ones.
    """

    train: tuple[Any, ...] = ()
    validation: tuple[Any, ...] = ()
    calibration: tuple[Any, ...] = ()
    test: tuple[Any, ...] = ()
    unit: SplitUnit = "group"

    def role(self, name: str) -> tuple[Any, ...]:
        """Return the items of one role (``train``, ``validation``, ``calibration``, ``test``)."""
        if name not in ROLES:
            raise ValueError(f"unknown role {name!r}, expected one of {ROLES}")
        items: tuple[Any, ...] = getattr(self, name)
        return items

    def rows(self) -> list[tuple[str, Any]]:
        """Return (role, item) pairs in a fixed order."""
        return [(name, item) for name in ROLES for item in self.role(name)]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a model said about one labelled item: no averages, so that core can do the statistics.

    Attributes:
        item: The item's id.
        groups: The independent groups it belongs to, see `Item.groups`. A resample weighs it by
            the product of their counts.
        unit: What is decided as one (a part with several views); empty: the item alone.
        slices: Named subsets, e.g. ``{"kind": "crack", "exposure": "3"}``.
        value: Numbers, e.g. ``{"score": 0.7, "label": 1.0}``.
        details: Rows of plain JSON values for metrics that need more than numbers: detections
            with box, class and score; turns of a recording; histograms of a map.
    """

    item: str
    groups: tuple[str, ...]
    unit: str = ""
    slices: Mapping[str, str] = field(default_factory=dict)
    value: Mapping[str, float] = field(default_factory=dict)
    details: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A named number over outcomes; `of` may return NaN where it is not defined."""

    name: str
    unit: str
    better: Better
    of: Callable[[Sequence[Outcome]], float]
    help: str = ""


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """An item that could not be judged; the rest of the batch is."""

    item: str
    message: str
    hint: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return the plain dictionary of one JSON line."""
        return {"item": self.item, "error": self.message, "hint": self.hint}


@runtime_checkable
class Result(Protocol):
    """One judged item. Applications add fields of their own."""

    @property
    def item(self) -> str: ...
    @property
    def finding(self) -> bool:
        """True if this result needs attention (exit code 1)."""
        ...

    def as_json(self) -> dict[str, Any]: ...
    def as_line(self) -> str: ...


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A picture or plot with what a reader should see in it.

    Attributes:
        title: Short heading.
        image: Encoded bytes (PNG, JPEG) or SVG text as bytes.
        mime: ``image/png``, ``image/jpeg`` or ``image/svg+xml``.
        caption: One sentence that reads the figure, with units.
        alt: Text for a screen reader; the caption if empty.
        wide: Takes the full width of a page.
    """

    title: str
    image: bytes
    mime: str = "image/png"
    caption: str = ""
    alt: str = ""
    wide: bool = False


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """Why a model said what it said: a sentence first, then pictures and numbers."""

    item: str
    text: str
    figures: tuple[Figure, ...] = ()
    facts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Table:
    """A plain table for the report; numbers are formatted already.

    Attributes:
        title: Short heading.
        columns: Headings.
        rows: One text per column each.
        caption: What the numbers are, with units.
        marked: Indices of rows that stand out, e.g. the threshold in use.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str = ""
    marked: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Fact:
    """One number or word of a report's headline, with what it is about.

    Attributes:
        label: A few words.
        value: The number or word, in large type.
        note: A line below it.
        anchor: The chapter with the details.
        status: ``ok``, ``warn``, ``fail`` or ``info``; it colours the value.
    """

    label: str
    value: str
    note: str
    anchor: str
    status: str = "info"


@dataclass(frozen=True, kw_only=True)
class Section:
    """A chapter of a report.

    Attributes:
        title: Heading, also the entry in the table of contents.
        lead: A sentence or two in plain language that say what this chapter shows.
        blocks: Paragraphs (str), tables, figures, checks and explanations in reading order.
        anchor: Stable id for links.
        folded: Closed until a reader opens it, after the chapters that are open; not printed then.
    """

    title: str
    lead: str = ""
    blocks: tuple[str | Table | Figure | Check | Explanation, ...] = ()
    anchor: str = ""
    folded: bool = False


class Model(Protocol):
    """A fitted model: immutable, its id is the hash of its content."""

    @property
    def identity(self) -> str: ...
    def predict(self, items: Sequence[Any]) -> list[Any]:
        """Return one `Result` or `Refusal` per item, in order; a bad item never stops a batch."""
        ...

    def explain(self, item: Any) -> Explanation: ...
    def spec(self) -> dict[str, Any]:
        """Return everything but tensors and calibration, as plain JSON values."""
        ...

    def tensors(self) -> dict[str, Tensor]: ...
    def calibration_block(self) -> dict[str, Any]:
        """Return what `Application.calibrate` set as plain JSON values, empty before it."""
        ...

    def with_calibration(self, block: Mapping[str, Any], identity: str = "") -> Any:
        """Return this model with a stored calibration and its id."""
        ...


class Session(Protocol):
    """A model with its memory of one stream: ``predict`` of a model is the fold over ``push``."""

    def push(self, item: Any) -> Any:
        """Return the `Result` or `Refusal` of the next item."""
        ...

    def state(self) -> dict[str, Any]:
        """Return all memory as plain JSON values, from which a session continues."""
        ...


@dataclass(frozen=True, kw_only=True)
class Method:
    """One way to solve the task; every method runs on the same split.

    Attributes:
        name: What a user types.
        kind: ``deep``, ``classical`` or ``trivial``.
        fit: Takes split, config and run; learns from the roles ``train`` and ``validation`` only.
        help: One line that says what it is.
        cacheable: Whether its features may lie in the feature cache (never for faces or voices).
        several_processes: Whether `fit` trains in the core's loop, so that processes of torchrun
            can share it.
    """

    name: str
    kind: MethodKind
    fit: Callable[[Split, Any, Run], Model]
    help: str = ""
    cacheable: bool = True
    several_processes: bool = False


@dataclass(frozen=True, kw_only=True)
class GuaranteeCheck:
    """Whether labelled items that a model has never seen agree with its guarantee."""

    kept: bool
    text: str


@dataclass(frozen=True, kw_only=True)
class Application:
    """One application as core sees it: ``APPLICATION`` in ``lineside.APP.application``.

    Attributes:
        name: Its package, ``lineside.NAME``.
        config: Frozen dataclass of what a user decides; core needs its field ``seed``.
        metrics: The first one is the primary metric.
        read: Returns labelled items, and a `Refusal` in the place of each that cannot be used.
        sources: Returns unlabelled items of files to predict, and a `Refusal` for each file that
            cannot be used, in the order of the files.
        audit: Looks for what spoils a data set; takes what `read` returned, refusals included.
        split: Gives every item its role.
        methods: The methods to run; the first one predicts.
        outcomes: Yields one outcome per item, given all items of a role (the test items, or what
            `evaluate` is given) in their order. The value ``ms`` is the time it took, if known.
            Test items are judged after `calibrate`.
        independent_groups: True if outcomes of a group depend on its own items only: groups may
            then be judged by several workers.
        load: Rebuilds a model from its spec and tensors.
        demo: Makes a small honest data set in a folder from a seed, and returns its path.
        calibrate: Returns a model with its calibration (thresholds, limits), from outcomes that
            it was not fitted on. None: models need none, and calibration items are not judged.
        check_guarantee: Holds outcomes of fresh labelled items against a model's guarantee; None
            where there is none to check.
        config_for: Returns a config with what a model was trained with and later data must be
            read with.
        session: Returns a model's memory of one stream; None: its models have no memory.
        in_memory: Turns a value that is no path (a camera's frame), its place among the given ones
            and the config into an item to predict. None: there are only files.
        probe: Tries a model that was read on something made up, and raises whatever it raises where
            its parts do not fit together: then it is refused before it judges anything.
        columns: Heading of the lines that ``predict`` prints.
        notes: What a user must know beside the results of ``predict``.
        summary: What a finished `Study` found, in plain language.
        facts: Its own facts of the headline of the report.
        sections: The application's own chapters of the report.
        numbers: Its own entries of ``report.json``, plain JSON values.
    """

    name: str
    config: type
    metrics: Sequence[Metric]
    read: Callable[[Path, Any], Sequence[Any]]
    sources: Callable[[Sequence[Path], Any], Sequence[Any]]
    audit: Callable[[Sequence[Any], Any], list[Check]]
    split: Callable[[Sequence[Any], Any], Split]
    methods: Callable[[Any], Sequence[Method]]
    outcomes: Callable[[Any, Sequence[Any]], Iterable[Outcome]]
    load: Callable[[Mapping[str, Any], Mapping[str, Tensor]], Any]
    demo: Callable[[Path, int], Path]
    calibrate: Callable[[Any, Sequence[Outcome], Any], Any] | None = None
    check_guarantee: Callable[[Any, Sequence[Outcome]], GuaranteeCheck | None] = (
        lambda model, outcomes: None
    )
    config_for: Callable[[Any, Any], Any] = lambda model, config: config
    independent_groups: bool = False
    session: Callable[[Any, Mapping[str, Any] | None], Session] | None = None
    in_memory: Callable[[Any, int, Any], Any] | None = None
    probe: Callable[[Any], None] = lambda model: None
    columns: str = ""
    notes: Callable[[Any, Sequence[Any]], Sequence[str]] = lambda model, results: ()
    summary: Callable[[Study], Sequence[str]] = lambda study: ()
    facts: Callable[[Study], Sequence[Fact]] = lambda study: ()
    sections: Callable[[Study], Sequence[Section]] = lambda study: ()
    numbers: Callable[[Study], Mapping[str, Any]] = lambda study: {}
