"""The cache of exported files: its key, what is damaged, processes that race, and who goes when room is made."""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from networks import Calls
from torch import nn

from vitscope.errors import UsageError
from vitscope.export import RefusedError, cache
from vitscope.export.agreement import agreement
from vitscope.export.cache import cached, recalled
from vitscope.subject import Subject, subject_of


@pytest.fixture
def tiny() -> Subject:
    """Two convolutions: what is about files, not networks, needs no more."""
    torch.manual_seed(0)
    return subject_of(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 1)), (3, 12, 12), name="tiny")


def forget(monkeypatch) -> None:
    """As in a process that has not used anything yet."""
    monkeypatch.setattr(cache, "_in_use", set())
    cache._list_of_users.cache_clear()


@pytest.fixture
def own_cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("VITSCOPE_CACHE", str(tmp_path / "cache"))
    forget(monkeypatch)
    return tmp_path / "cache" / "exports"


def folders(root: Path) -> list[Path]:
    """What lies in the cache, half done or whole; not the lists of who uses what."""
    return sorted(path for path in root.iterdir() if not path.name.startswith(".using-")) if root.is_dir() else []


def test_the_second_time_nothing_is_written(own_cache, tiny):
    first = cached(tiny, "torch", "fp32")
    (folder,) = folders(own_cache)
    assert first.path.parent == folder and first.path.suffix == ".pt2"
    before = first.path.stat().st_mtime_ns
    again = cached(tiny, "torch", "fp32")
    assert again == first and again.scopes == first.scopes and again.path.stat().st_mtime_ns == before
    assert again.input_shape == (1, 3, 12, 12) and again.notes == first.notes


def test_what_differs_is_another_file(own_cache, tiny):
    with torch.no_grad():
        other = replace(tiny, module=nn.Sequential(*tiny.module.children()))
        values = subject_of(tiny.module, (3, 12, 12), name="tiny")
        values.module[0].weight[0, 0, 0, 0] += 1  # type: ignore[index,operator]
    subjects = [tiny, values, replace(tiny, input_shape=(2, 3, 12, 12)), replace(tiny, form="train")]
    paths = {cached(subject, "torch", "fp32").path for subject in subjects} | {cached(tiny, "torch", "fp16").path}
    paths.add(cached(tiny, "module", "fp32").path)
    assert len(paths) == 6 == len(folders(own_cache))
    assert cached(other, "torch", "fp32").path == cached(tiny, "torch", "fp32").path


@pytest.mark.parametrize("damage", ["cut", "changed", "sidecar", "gone", "not json", "list"])
def test_what_is_damaged_is_made_anew(own_cache, tiny, damage):
    artifact = cached(tiny, "torch", "fp32")
    sidecar = artifact.path.parent / "artifact.json"
    content = artifact.path.read_bytes()
    if damage == "cut":
        artifact.path.write_bytes(content[:100])
    elif damage == "changed":
        artifact.path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif damage == "sidecar":
        sidecar.write_text(sidecar.read_text().replace("tiny", "tidy"))
    elif damage == "gone":
        artifact.path.unlink()
    else:
        payload = "{" if damage == "not json" else "[]"
        sidecar.write_text(f"{cache._checksum(artifact.path.parent, payload)}\n{payload}")
    again = cached(tiny, "torch", "fp32")
    assert again.path == artifact.path and agreement(tiny, again).holds
    assert again.model == "tiny" and len(folders(own_cache)) == 1


PACKAGE = """
import importlib.metadata, json, sys
import torch
from vitscope.export.cache import recalled
from vitscope.subject import subject_of


def make():
    torch.manual_seed(0)
    return subject_of(torch.nn.Conv2d(3, 512, 5), (3, 8, 8), name="race")


"""


def _process(code: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PACKAGE + code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, env={**os.environ, **environment},
    )  # fmt: skip


def test_processes_that_race_get_one_whole_file(own_cache):
    """All are ready before any may begin, so that each finds the cache empty; then each reads what it was given."""
    code = """
subject = make()
print("ready", flush=True)
input()
found = recalled({"name": "race"}, "module", "fp32", lambda: subject)
loaded = torch.load(found.path, weights_only=False)
assert torch.equal(loaded(subject.example()), subject.module(subject.example()))
print(found.path)
"""
    racers = [_process(code) for _ in range(3)]
    for racer in racers:
        assert racer.stdout is not None and racer.stdout.readline() == "ready\n"
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("\n")
        racer.stdin.flush()
    answers = [racer.communicate(timeout=120) for racer in racers]
    assert [racer.returncode for racer in racers] == [0, 0, 0], answers
    assert len({out for out, _ in answers}) == 1
    (folder,) = folders(own_cache)
    assert str(folder) in answers[0][0], "nothing half done is left"
    assert list(own_cache.iterdir()) == [folder], "nor a list of a process that has ended"


def test_room_is_not_made_of_what_another_process_uses(own_cache, tiny, monkeypatch):
    code = """
print(recalled({"name": "theirs"}, "module", "fp32", make).path, flush=True)
input()
"""
    other = _process(code)
    assert other.stdout is not None
    theirs = Path(other.stdout.readline().strip())
    os.utime(theirs.parent / "artifact.json", (1, 1))  # unused for the longest time
    monkeypatch.setenv("VITSCOPE_CACHE_LIMIT", "1")
    recalled({"name": "a"}, "module", "fp32", lambda: tiny)
    assert theirs.exists()
    other.send_signal(signal.SIGKILL)  # it has no time to take its list away
    other.communicate(timeout=60)
    for path in own_cache.glob(".using-*"):
        os.utime(path, (time.time() - 60, time.time() - 60))
    recalled({"name": "b"}, "module", "fp32", lambda: tiny)
    assert not theirs.exists()
    assert len(list(own_cache.glob(".using-*"))) == 1, "the list of this process alone"


def test_other_code_of_vitscope_is_another_file(own_cache, tiny, tmp_path, monkeypatch):
    """One comment in a copy of the package: where it cannot change a file, the key stays."""
    copy = tmp_path / "vitscope"
    shutil.copytree(cache._PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__", "data"))

    def path() -> Path:
        cache._code.cache_clear()
        return recalled({"name": "x"}, "module", "fp32", lambda: tiny).path

    try:
        as_it_is = path()
        monkeypatch.setattr(cache, "_PACKAGE", copy)
        assert path() == as_it_is, "where the package lies says nothing"
        found = {as_it_is}
        changed = ("blocks/__init__.py", "export/onnx.py", "export/coreml_ops.py", "model.py", "subject.py",
                   "weights/__init__.py", "spec/kinds/__init__.py", "sources/__init__.py")  # fmt: skip
        for count, name in enumerate(changed, start=2):
            with open(copy / name, "a") as file:
                file.write("\n# other\n")
            found.add(path())
            assert len(found) == count, name
        with open(copy / "cli" / "export.py", "a") as file:
            file.write("\n# other\n")
        assert path() in found
    finally:
        cache._code.cache_clear()


@pytest.mark.parametrize(
    ("format", "package"),
    [
        ("torch", "torch"), ("onnx", "torch"), ("onnx", "onnx"), ("onnx", "onnxruntime"), ("litert", "litert-torch"),
        ("executorch", "executorch"), ("coreml", "coremltools"), ("executorch-coreml", "coremltools"),
    ],
)  # fmt: skip
def test_another_version_of_a_tool_is_another_file(monkeypatch, format, package):
    before = cache._versions(format)
    assert before[package] == importlib.metadata.version(package), "its name as the registry knows it"
    real = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.0.1" if name == package else real(name))
    cache._version.cache_clear()
    try:
        assert cache._versions(format) == {**before, package: "0.0.1"}
    finally:
        cache._version.cache_clear()


def test_versions_are_part_of_the_key(own_cache, tiny, monkeypatch):
    first = recalled({"name": "x"}, "module", "fp32", lambda: tiny)
    monkeypatch.setattr(cache, "_versions", lambda format: {"torch": "0.0.1"})
    assert recalled({"name": "x"}, "module", "fp32", lambda: tiny).path != first.path


def test_the_longest_unused_goes_first(own_cache, tiny, monkeypatch):
    names = ("a", "b", "c")
    made = {name: recalled({"name": name}, "module", "fp32", lambda: tiny) for name in names}
    size = sum(file.stat().st_size for file in made["a"].path.parent.iterdir())
    for age, name in enumerate(("b", "c", "a")):
        os.utime(made[name].path.parent / "artifact.json", (1_000_000 + age, 1_000_000 + age))
    monkeypatch.setenv("VITSCOPE_CACHE_LIMIT", str(int(2.5 * size)))
    forget(monkeypatch)
    for path in own_cache.glob(".using-*"):
        path.unlink()  # as when this were a later process
    new = recalled({"name": "d"}, "module", "fp32", lambda: tiny)
    assert new.path.exists() and made["a"].path.exists()
    assert not made["b"].path.exists() and not made["c"].path.exists()


def test_what_this_process_uses_stays(own_cache, tiny, monkeypatch):
    monkeypatch.setenv("VITSCOPE_CACHE_LIMIT", "1")
    made = [recalled({"name": name}, "module", "fp32", lambda: tiny) for name in "ab"]
    assert all(artifact.path.exists() for artifact in made)


def test_a_limit_that_is_no_number(own_cache, tiny, monkeypatch):
    monkeypatch.setenv("VITSCOPE_CACHE_LIMIT", "4GB")
    with pytest.raises(UsageError, match="VITSCOPE_CACHE_LIMIT=4GB: expected a number of bytes"):
        cached(tiny, "module", "fp32")


@pytest.mark.parametrize("chosen", ["off", "file"])
def test_without_a_cache_folder_files_last_as_long_as_the_process(tmp_path, chosen):
    """Turned off, or a place where no folder can be."""
    (tmp_path / "file").write_text("")
    code = """
import torch
from vitscope.export.cache import cached
from vitscope.subject import subject_of
subject = subject_of(torch.nn.Conv2d(3, 4, 1), (3, 4, 4))
first, second = cached(subject, "module", "fp32"), cached(subject, "module", "fp32")
assert first == second and first.path.exists()
print(first.path)
"""
    where = "off" if chosen == "off" else str(tmp_path / "file" / "below")
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, "VITSCOPE_CACHE": where}
    )
    assert done.returncode == 0, done.stderr
    assert not Path(done.stdout.strip()).exists() and "vitscope-exports-" in done.stdout


def test_a_kept_file_is_found_without_torch(own_cache, tiny):
    kept = recalled({"name": "x", "digest": 7}, "module", "fp32", lambda: tiny)
    code = """
import sys
from vitscope.export.cache import recalled
found = recalled({"name": "x", "digest": 7}, "module", "fp32", lambda: sys.exit("built again"))
assert "torch" not in sys.modules
print(found.path)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(kept.path)


def test_a_refused_network_leaves_nothing(own_cache):
    subject = subject_of(Calls(lambda x: x if x.sum() > 0 else -x), (3, 4, 4))
    with pytest.raises(RefusedError):
        cached(subject, "torch", "fp32")
    assert not folders(own_cache)


def test_the_sidecar_is_readable(own_cache, tiny):
    artifact = cached(tiny, "torch", "fp32")
    data = json.loads((artifact.path.parent / "artifact.json").read_text().partition("\n")[2])
    assert data["path"] == "model.pt2" and data["tools"].startswith("torch ") and data["format"] == "torch"
