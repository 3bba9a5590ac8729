"""runner.pyz: the runner as one file that any Python 3.8 executes, for targets that have no vitscope."""

from __future__ import annotations

import io
import zipfile
from functools import lru_cache
from pathlib import Path

_PACKAGE = Path(__file__).parents[1]
_PARTS = ("measure/timing.py", "measure/runner/*.py")
_STUBS = ("__init__.py", "measure/__init__.py")  # the real ones say nothing that a runner needs
_MAIN = "from vitscope.measure.runner.__main__ import main\n\nmain()\n"
_WRITTEN = (1980, 1, 1, 0, 0, 0)  # a date that makes the file the same for the same content


@lru_cache(maxsize=1)
def runner_pyz() -> bytes:
    """The archive. `python3 -u runner.pyz` speaks the runner's protocol on its stdin and stdout."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        files = {"__main__.py": _MAIN}
        files |= {f"vitscope/{stub}": "" for stub in _STUBS}
        for pattern in _PARTS:
            for path in sorted(_PACKAGE.glob(pattern)):
                files[f"vitscope/{path.relative_to(_PACKAGE).as_posix()}"] = path.read_text(encoding="utf-8")
        for name, text in files.items():
            archive.writestr(zipfile.ZipInfo(name, _WRITTEN), text, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()
