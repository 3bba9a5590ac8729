"""iPhones by the name of their hardware, and what Apple's tools say when one cannot be used, with the cure. Data."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple


class Phone(NamedTuple):
    """What is sold under a product type."""

    title: str
    chip: str


# theapplewiki.com/wiki/Models and Apple's own support.apple.com/111945 ("Identify your iPhone"). One name may be two
# chips (an iPhone 14 is an A15, an iPhone 14 Pro an A16), so nothing is concluded from the title.
PHONES: Mapping[str, Phone] = {
    "iPhone11,2": Phone("iPhone XS", "A12"),
    "iPhone11,8": Phone("iPhone XR", "A12"),
    "iPhone12,1": Phone("iPhone 11", "A13"),
    "iPhone12,3": Phone("iPhone 11 Pro", "A13"),
    "iPhone12,5": Phone("iPhone 11 Pro Max", "A13"),
    "iPhone12,8": Phone("iPhone SE (2nd generation)", "A13"),
    "iPhone13,1": Phone("iPhone 12 mini", "A14"),
    "iPhone13,2": Phone("iPhone 12", "A14"),
    "iPhone13,3": Phone("iPhone 12 Pro", "A14"),
    "iPhone13,4": Phone("iPhone 12 Pro Max", "A14"),
    "iPhone14,2": Phone("iPhone 13 Pro", "A15"),
    "iPhone14,3": Phone("iPhone 13 Pro Max", "A15"),
    "iPhone14,4": Phone("iPhone 13 mini", "A15"),
    "iPhone14,5": Phone("iPhone 13", "A15"),
    "iPhone14,6": Phone("iPhone SE (3rd generation)", "A15"),
    "iPhone14,7": Phone("iPhone 14", "A15"),
    "iPhone14,8": Phone("iPhone 14 Plus", "A15"),
    "iPhone15,2": Phone("iPhone 14 Pro", "A16"),
    "iPhone15,3": Phone("iPhone 14 Pro Max", "A16"),
    "iPhone15,4": Phone("iPhone 15", "A16"),
    "iPhone15,5": Phone("iPhone 15 Plus", "A16"),
    "iPhone16,1": Phone("iPhone 15 Pro", "A17 Pro"),
    "iPhone16,2": Phone("iPhone 15 Pro Max", "A17 Pro"),
    "iPhone17,1": Phone("iPhone 16 Pro", "A18 Pro"),
    "iPhone17,2": Phone("iPhone 16 Pro Max", "A18 Pro"),
    "iPhone17,3": Phone("iPhone 16", "A18"),
    "iPhone17,4": Phone("iPhone 16 Plus", "A18"),
}


def phone_of(product: str) -> Phone:
    """What `product` (`iPhone13,2`) is; a product that is not in the table stands for itself."""
    return PHONES.get(product, Phone(product or "iPhone", ""))


class Cure(NamedTuple):
    """Words of a message, what they mean, and what to do."""

    words: re.Pattern[str]
    meaning: str
    cure: str


def _cure(words: str, meaning: str, cure: str) -> Cure:
    return Cure(re.compile(words, re.IGNORECASE), meaning, cure)


# Words of coremltools 9.0 are from its source; those of devicectl and xcodebuild are as users have reported them, and not
# captured here. They choose a cure: what the tool said is always shown too. The first that matches counts.
CURES: tuple[Cure, ...] = (
    _cure(
        r"'(devicectl|xcodebuild|xcrun)' command is required|xcode-select: error|active developer (directory|path)",
        "Xcode's tools are missing",
        "install Xcode, open it once, then: sudo xcode-select -s /Applications/Xcode.app",
    ),
    _cure(
        r"model ?runner directory not found|workspace directory not found",
        "this coremltools lacks its runner app",
        "pip install --force-reinstall coremltools on the Mac",
    ),
    _cure(r"developer mode", "Developer Mode is off", "Settings > Privacy & Security > Developer Mode on the iPhone"),
    _cure(
        r"passcode|is locked|not be,? unlocked|unlock the device", "the iPhone is locked", "unlock it and keep it awake"
    ),
    _cure(
        r"not been explicitly trusted|untrusted developer|inadequate entitlements|verify(ing)? the developer",
        "the iPhone does not trust the developer of the runner app",
        "Settings > General > VPN & Device Management on the iPhone, trust the developer, repeat",
    ),
    _cure(
        r"development team|signing (certificate|identity)|provisioning profile|code ?sign|no account|no profiles for",
        "the runner app could not be signed",
        "--team with the team identifier of an account that Xcode is signed in to, and a --bundle of your own",
    ),
    _cure(
        r"not (been )?paired|pairing|trust this computer|is not trusted",
        "the iPhone does not trust this Mac",
        "unlock it and answer Trust to its question",
    ),
    _cure(
        r"no space|disk (is )?full|not enough (free )?(space|storage)|insufficient storage",
        "no space is left",
        "free some on the iPhone or on the Mac",
    ),
)


def cure_of(text: str) -> Cure | None:
    """The first cure whose words stand in `text`."""
    return next((cure for cure in CURES if cure.words.search(text)), None)
