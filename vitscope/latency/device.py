"""A device: modelled hardware with its facts, fitted coefficients and held-out error, read from YAML and checked."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Literal, get_args

from vitscope.errors import UsageError, nearest
from vitscope.latency.class_cost import ClassCosts
from vitscope.latency.class_cost_file import parse_classes
from vitscope.latency.fields import Fields, read_yaml
from vitscope.latency.residency import SIGNS, ResidencyRule
from vitscope.latency.runtime import FusionRules, load_runtime

DEVICES = Path(__file__).parent / "devices"

Precision = Literal["float16", "float32", "int8"]
PRECISION_BYTES: dict[str, int] = {"float32": 4, "float16": 2, "int8": 1}
Overlap = Literal["none", "kernel", "network"]
Spill = Literal["kernel", "operand"]


@dataclass(frozen=True, slots=True)
class Fact:
    """A number known of the hardware, in the unit that its key names, and where it was read.

    `confirmed` is False for what nobody looked up at its maker: from memory, or derived from other facts.
    """

    key: str
    value: float
    source: str
    confirmed: bool = True


@dataclass(frozen=True, slots=True)
class Coefficients:
    """The fitted costs in seconds: the formula is in docs/latency.md.

    `overlap` says whether compute and traffic hide behind one another: never, within a kernel, or over the whole network.
    `spill` says what is held against `knee_bytes` to decide whether activations leave the chip: all that a kernel reads
    and writes, or its reads and its writes each. `tap_s` is per output element and kernel position, whatever the number of
    channels: the price of few channels. `score_s` is per element of a softmax. `lanes` is what channels that are summed
    and channels that are written are padded to, in each group: 1 where that does not matter. `vector_s` is per element
    that a kernel without products writes while it stays on the chip; nothing hides it.
    """

    overlap: Overlap
    spill: Spill
    knee_bytes: float
    floor_s: float
    kernel_s: float
    weight_byte_s: float
    spilled_byte_s: float
    resident_byte_s: float
    mac_s: float
    tap_s: float
    score_s: float
    lanes: int = 1
    vector_s: float = 0.0

    def agrees_with(self, other: Coefficients, tolerance: float = 1e-3) -> bool:
        """Whether two fits are one: the same form, and every number equal to `tolerance` of itself."""
        for field in fields(self):
            a, b = getattr(self, field.name), getattr(other, field.name)
            if isinstance(a, str | int) and a != b:
                return False
            if isinstance(a, float) and abs(a - b) > tolerance * abs(a):
                return False
        return True


@dataclass(frozen=True, slots=True)
class Range:
    """Between which values of a quantity the fit has seen networks."""

    key: str
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Band:
    """The held-out error of networks of up to `pixels` input pixels, from leave-one-family-out.

    `log_halfwidth` is the half width of the interval in ln(measured / predicted).
    """

    pixels: int
    networks: int
    families: int
    log_halfwidth: float
    mape: float
    within_10: float
    within_20: float
    spearman: float


@dataclass(frozen=True, slots=True)
class HeldOut:
    """What leave-one-family-out said of this fit.

    `interval` is the nominal share of networks inside the interval. `difference` is the half width of the interval of a
    difference, as a share of the seconds that two networks do not have in common.
    """

    interval: float
    difference: float
    bands: tuple[Band, ...]

    def band(self, pixels: int) -> Band:
        """The band of a network, the last one for inputs larger than any."""
        return next((band for band in self.bands if pixels <= band.pixels), self.bands[-1])


@dataclass(frozen=True)
class Device:
    """One (device, runtime, precision, batch): the identity of a predictor, with all that a prediction needs.

    A fit is `coefficients` of whole networks, or `classes` of kernels that were timed one by one on an attached device.
    Without enough measurements to fit there are neither, no `held_out` and no `ranges`: `roofline_only` then
    says why, and predictions are the bound of the stated peaks. `harness` names the laboratory's way to measure that a
    prediction means; `transfer_from` the device whose coefficients were scaled, empty where they were fitted.
    """

    name: str
    about: str
    runtime: str
    precision: Precision
    batch: int
    facts: tuple[Fact, ...]
    residency: tuple[ResidencyRule, ...]
    fitted_on: str
    form: str
    coefficients: Coefficients | None
    ranges: tuple[Range, ...]
    held_out: HeldOut | None
    rules: FusionRules
    roofline_only: str = ""
    harness: str = ""
    transfer_from: str = ""
    classes: ClassCosts | None = None

    def __hash__(self) -> int:  # part of every memo key of a search: hashed once
        return self._hash

    @cached_property
    def _hash(self) -> int:
        return hash((self.name, self.runtime, self.precision, self.coefficients, self.residency, self.ranges))

    @cached_property
    def floor_s(self) -> float:
        """What every inference takes, 0 where there is no fit."""
        fitted = self.classes or self.coefficients
        return fitted.floor_s if fitted is not None else 0.0

    @cached_property
    def bytes_per_element(self) -> int:
        return PRECISION_BYTES[self.precision]

    def fact(self, key: str) -> float | None:
        """The value of a fact, None when the file does not state it."""
        return next((fact.value for fact in self.facts if fact.key == key), None)


# Facts that a device file may state: the key names the unit.
FACTS = {
    "peak_macs_per_s": "multiply-accumulates per second at this precision",
    "memory_bytes_per_s": "bytes per second of main memory",
    "on_chip_bytes": "bytes of the accelerator's own memory or the last cache before main memory",
}
RANGES = ("weight_bytes", "activation_bytes", "macs", "kernels", "pixels")


def list_devices() -> tuple[str, ...]:
    """Names of the devices that ship with vitscope."""
    return tuple(sorted(path.stem for path in DEVICES.glob("*.yaml")))


def load_device(name_or_path: str | Path) -> Device:
    """A shipped device by its name, or a user's own by the path of its YAML file.

    Raises UsageError with one line for an unknown name and for a file that cannot be understood.
    """
    text = str(name_or_path)
    if text in list_devices():
        return _load(DEVICES / f"{text}.yaml", f"devices/{text}.yaml")
    path = Path(text)
    if path.suffix in (".yaml", ".yml") or path.is_file():
        if not path.is_file():
            raise UsageError(f"{path}: no such device file")
        return parse_device(read_yaml(path), str(path))
    known = list_devices()
    raise UsageError(f"unknown device {text!r}{nearest(text, known)}; known: {', '.join(known)}, or a .yaml file")


@lru_cache
def _load(path: Path, where: str) -> Device:
    return parse_device(read_yaml(path), where)


def parse_device(document: object, where: str) -> Device:
    """A Device from a parsed YAML document; `where` stands at the head of every error."""
    top = Fields(where, document)
    facts = []
    section = top.record("facts")
    for key in section.names():
        if key not in FACTS:
            raise UsageError(
                f"{where}: unknown fact {key!r}{nearest(key, FACTS)}; facts carry their unit in the key: {', '.join(FACTS)}"
            )
        part = section.record(key)
        confirmed = not (part.has("unconfirmed") and part.flag("unconfirmed"))
        facts.append(Fact(key, part.number("value", positive=True), part.text("source"), confirmed))
        part.done()
    residency = []
    for part in top.records("residency"):
        sign = part.choice("sign", SIGNS)
        residency.append(ResidencyRule(sign, part.integer("at_most"), part.text("reason")))
        part.done()
    identity = {
        "name": top.text("name"),
        "about": top.text("about"),
        "runtime": top.text("runtime"),
        "precision": top.choice("precision", get_args(Precision)),
        "batch": top.integer("batch", minimum=1),
        "facts": tuple(facts),
        "residency": tuple(residency),
        "rules": load_runtime(top.text("fusion")),
        "harness": top.text("harness") if top.has("harness") else "",
    }
    if top.has("roofline_only"):
        if not {"peak_macs_per_s", "memory_bytes_per_s"} <= {fact.key for fact in facts}:
            raise UsageError(f"{where}: roofline_only needs the facts peak_macs_per_s and memory_bytes_per_s")
        device = Device(
            **identity, fitted_on="", form="", coefficients=None, ranges=(), held_out=None,
            roofline_only=top.text("roofline_only"),
        )  # fmt: skip
        top.done()
        return device
    fit = top.record("fit")
    by_class = fit.has("classes")
    device = Device(
        **identity,
        transfer_from=fit.text("transfer_from") if fit.has("transfer_from") else "",
        fitted_on=fit.text("data"),
        form=fit.text("form"),
        classes=parse_classes(fit.record("classes")) if by_class else None,
        coefficients=None if by_class else _coefficients(fit.record("coefficients")),
        ranges=_ranges(fit.record("ranges")),
        held_out=_held_out(fit.record("held_out")),
    )
    fit.done()
    top.done()
    return device


def _coefficients(part: Fields) -> Coefficients:
    result = Coefficients(
        overlap=part.choice("overlap", get_args(Overlap)),
        spill=part.choice("spill", get_args(Spill)),
        knee_bytes=part.number("knee_bytes"),
        floor_s=part.number("floor_s"),
        kernel_s=part.number("kernel_s"),
        weight_byte_s=part.number("weight_byte_s"),
        spilled_byte_s=part.number("spilled_byte_s"),
        resident_byte_s=part.number("resident_byte_s"),
        mac_s=part.number("mac_s"),
        tap_s=part.number("tap_s"),
        score_s=part.number("score_s"),
        lanes=part.integer("lanes", minimum=1) if part.has("lanes") else 1,
        vector_s=part.number("vector_s") if part.has("vector_s") else 0.0,
    )
    part.done()
    return result


def _ranges(section: Fields) -> tuple[Range, ...]:
    ranges = []
    for key in RANGES:
        part = section.record(key)
        low, high = part.number("low"), part.number("high", positive=True)
        if low > high:
            raise part.fail("low", f"at most high ({high:g})", low)
        part.done()
        ranges.append(Range(key, low, high))
    section.done()
    return tuple(ranges)


def _held_out(section: Fields) -> HeldOut:
    interval = section.number("interval", positive=True)
    if interval >= 1:
        raise section.fail("interval", "below 1, as 0.8", interval)
    bands = tuple(_band(part) for part in section.records("bands"))
    if not bands or [b.pixels for b in bands] != sorted({b.pixels for b in bands}):
        raise section.fail("bands", "a list with growing pixels", [b.pixels for b in bands])
    result = HeldOut(interval, section.number("difference", positive=True), bands)
    section.done()
    return result


def _band(part: Fields) -> Band:
    result = Band(
        pixels=part.integer("pixels", minimum=1),
        networks=part.integer("networks", minimum=1),
        families=part.integer("families", minimum=1),
        log_halfwidth=part.number("log_halfwidth", positive=True),
        mape=part.number("mape"),
        within_10=part.number("within_10"),
        within_20=part.number("within_20"),
        spearman=part.number("spearman", minimum=-1.0),
    )
    part.done()
    return result
