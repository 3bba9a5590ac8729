"""vitscope: explore and profile efficient vision backbones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vitscope.profile import profile as profile

__version__ = "0.1.0"
__all__ = ["__version__", "profile"]


def __getattr__(name: str) -> Any:
    """`vitscope.profile`, loaded when it is first asked for: importing the package costs nothing."""
    if name == "profile":
        import importlib

        return importlib.import_module("vitscope.profile")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
