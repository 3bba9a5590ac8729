"""The only place that scales, rounds, prints or parses a unit. SI decimal, three significant figures; unknown is `–`."""

from __future__ import annotations

import math
import re

UNKNOWN = "–"
_SCALES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
_PREFIX = {"": 1.0, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
_SECONDS = {"h": 3600.0, "min": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_QUANTITY = re.compile(r"^\s*([0-9]*\.?[0-9]+(?:[eE][-+]?[0-9]+)?)\s*([A-Za-zµ]*)\s*$")


def significant(value: float, figures: int = 3) -> str:
    """`value` with `figures` significant figures and no exponent: 6.19, 12.7, 652, 0."""
    if value == 0:
        return "0"
    magnitude = math.floor(math.log10(abs(value)))
    rounded = round(value, figures - 1 - magnitude)
    magnitude = math.floor(math.log10(abs(rounded)))  # 9.996 rounds up into the next decade
    return f"{rounded:.{max(0, figures - 1 - magnitude)}f}"


def si(value: float | None, unit: str = "") -> str:
    """A count or a quantity in SI steps of a thousand: `6.19M`, `652M`, `25.1kB`; `–` when unknown."""
    if value is None:
        return UNKNOWN
    for scale, prefix in _SCALES:
        if abs(value) >= scale * 0.9995:
            return f"{significant(value / scale)}{prefix}{unit}"
    return f"{significant(value)}{unit}" if value != int(value) else f"{int(value)}{unit}"


def count(value: int | None) -> str:
    """Parameters, MACs, elements."""
    return si(value)


def size(num_bytes: int | None) -> str:
    """Bytes in decimal units: `24.7MB`."""
    return si(num_bytes, "B")


def seconds(value: float | None) -> str:
    """A duration with the unit that suits it: `1.06 ms`, `834 µs`, `2.10 s`."""
    if value is None:
        return UNKNOWN
    if value == 0:
        return "0 s"
    for scale, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns")):
        if abs(value) >= scale * 0.9995 or unit == "ns":
            return f"{significant(value / scale)} {unit}"
    raise AssertionError("unreachable")


def milliseconds(value: float | None) -> str:
    """A duration always in milliseconds, for columns whose rows are compared by eye: `1.06 ms`."""
    return UNKNOWN if value is None else f"{significant(value * 1e3)} ms"


def fixed_milliseconds(value: float | None) -> str:
    """Milliseconds with three decimals, so that a column lines up: `0.029 ms`; what rounds to nothing is `<0.001 ms`."""
    if value is None:
        return UNKNOWN
    return "<0.001 ms" if 0 < value < 0.5e-6 else f"{value * 1e3:.3f} ms"


def ratio(value: float | None) -> str:
    """A relative change with its sign: `+3.2%`, `-41.0%`, `+105%`, `0%`."""
    if value is None:
        return UNKNOWN
    percent = value * 100
    if abs(percent) < 0.05:
        return "0%"
    return f"{percent:+.0f}%" if abs(percent) >= 99.95 else f"{percent:+.1f}%"


def percent(value: float | None) -> str:
    """A share: `34%`, `0.4%`, `<0.1%`, `–`."""
    if value is None:
        return UNKNOWN
    return "<0.1%" if 0 < value < 0.001 else f"{significant(value * 100, 2)}%"


def parse_count(text: str | int | float) -> float:
    """`6.1M`, `0.65G`, `6185560` → a number. Raises ValueError with what was expected."""
    if isinstance(text, (int, float)) and not isinstance(text, bool):
        number, suffix = float(text), ""
    else:
        match = _QUANTITY.match(str(text))
        if not match:
            raise ValueError(f"expected a number with an optional k, M, G or T, as 6.1M; got {text!r}")
        number, suffix = float(match[1]), match[2]
    if suffix not in _PREFIX:
        raise ValueError(f"expected a number with an optional k, M, G or T, as 6.1M; got {text!r}")
    value = number * _PREFIX[suffix]
    if not math.isfinite(value):
        raise ValueError(f"expected a finite number; got {text!r}")
    return value


def parse_seconds(text: str) -> float:
    """`1.1ms`, `850us`, `2s`, `10min` → seconds. A bare number is refused: its unit would be a guess."""
    match = _QUANTITY.match(str(text))
    if not match or match[2] not in _SECONDS:
        raise ValueError(f"expected a time with its unit, as 1.1ms; got {text!r}")
    value = float(match[1]) * _SECONDS[match[2]]
    if not math.isfinite(value):
        raise ValueError(f"expected a finite time; got {text!r}")
    return value


def printed_like(value: float, text: str) -> tuple[str, str]:
    """`value` written with the prefix and the decimals of `text`, once rounded and once cut off: 651969640 like `0.65G`
    is (`0.65G`, `0.65G`)."""
    match = _QUANTITY.match(text)
    if not match or match[2] not in _PREFIX:
        raise ValueError(f"expected a number with an optional k, M, G or T, as 6.1M; got {text!r}")
    decimals = len(match[1].partition(".")[2]) if "e" not in match[1].lower() else 0
    scaled = value / _PREFIX[match[2]]
    step = 10**decimals
    return f"{scaled:.{decimals}f}{match[2]}", f"{math.floor(scaled * step) / step:.{decimals}f}{match[2]}"
