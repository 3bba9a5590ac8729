"""torch.export programs, pickled modules, and the cache that keeps the files of every format."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from networks import Calls, randomise
from torch import nn

from vitscope.errors import UsageError
from vitscope.export import RefusedError, cache, export
from vitscope.export.agreement import agreement
from vitscope.export.cache import cached, recalled
from vitscope.export.program import exported, one_line, scope_of
from vitscope.export.torch import write_module
from vitscope.model import fuse
from vitscope.subject import Subject, load_subject, subject_of, take_statistics


@pytest.fixture
def tiny() -> Subject:
    """Two convolutions: what is about files, not networks, needs no more."""
    torch.manual_seed(0)
    return subject_of(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 1)), (3, 12, 12), name="tiny")


@pytest.fixture
def own_cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("VITSCOPE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(cache, "_in_use", set())
    return tmp_path / "cache" / "exports"


def folders(root: Path) -> list[Path]:
    return sorted(root.iterdir()) if root.is_dir() else []


@pytest.mark.parametrize(("name", "form"), [("efficientformerv2_s0", "deploy"), ("mobileone_s0", "train")])
def test_a_program_computes_the_network_and_knows_its_modules(tmp_path, name, form):
    subject = load_subject(name, form="train", resolution=(64, 64))
    randomise(subject.module)
    take_statistics(subject.module, (3, 64, 64))
    subject = replace(subject, form=form, module=fuse(subject.module) if form == "deploy" else subject.module)
    artifact = export(subject, "torch", tmp_path / "x.pt2")
    found = agreement(subject, artifact)
    assert found.runtime == "torch" and found.holds and found.same_class == 1
    modules = dict(subject.module.named_modules())
    program = torch.export.load(str(artifact.path))
    names = [node.name for node in program.graph.nodes if node.op == "call_function"]
    assert set(names) == set(artifact.scopes) and set(artifact.scopes.values()) <= set(modules)
    convolutions = [artifact.scopes[name] for name in names if name.startswith("conv2d")]
    assert len(convolutions) == len(set(convolutions)) > 20
    assert all(isinstance(modules[scope], nn.Conv2d) for scope in convolutions)


def test_half_is_half_and_near(tmp_path, tiny):
    artifact = export(tiny, "torch", tmp_path / "x.pt2", "fp16")
    assert {value.dtype for value in torch.export.load(str(artifact.path)).state_dict.values()} == {torch.float16}
    found = agreement(tiny, artifact)
    assert found.holds and found.relative_error is not None and 1e-6 < found.relative_error < 1e-2
    assert {tensor.dtype for tensor in tiny.module.parameters()} == {torch.float32}, "the subject stays as it is"


def test_a_module_called_twice_keeps_its_path():
    act = nn.ReLU()
    subject = subject_of(Calls(lambda act, x: act(act(x) - 1), act), (3, 4, 4))
    scopes = [scope_of(node) for node in exported(subject).graph.nodes if node.op == "call_function"]
    assert scopes == ["layers.0", "", "layers.0"]


def test_control_flow_is_refused_in_one_line():
    subject = subject_of(Calls(lambda x: x if x.sum() > 0 else -x), (3, 4, 4), name="branch")
    with pytest.raises(RefusedError, match=r"^branch: torch\.export cannot follow it: \w+: ") as caught:
        exported(subject)
    assert "\n" not in str(caught.value) and caught.value.exit_code == 2


def test_the_first_of_many_lines():
    assert one_line(ValueError("a\n\n  b")) == "ValueError: a b"
    assert one_line(ValueError()) == "ValueError"
    assert len(one_line(ValueError("x" * 1000))) == 300


def test_a_pickled_module_is_the_module(tmp_path, tiny):
    written = write_module(tiny, tmp_path / "x.pt")
    loaded = torch.load(tmp_path / "x.pt", weights_only=False)
    assert not loaded.training and torch.equal(loaded(tiny.example()), tiny.module(tiny.example()))
    assert written.scopes == {"0": "0", "1": "1", "2": "2"}
    write_module(tiny, tmp_path / "half.pt", "fp16")
    assert next(torch.load(tmp_path / "half.pt", weights_only=False).parameters()).dtype == torch.float16


def test_a_module_that_cannot_be_pickled_is_refused(tmp_path):
    with pytest.raises(RefusedError, match="local: its module cannot be pickled: "):
        write_module(subject_of(Calls(lambda x: x), (3, 4, 4), name="local"), tmp_path / "x.pt")


# The cache


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


def test_processes_that_race_get_one_whole_file(own_cache, tiny):
    found: list[object] = []

    def one() -> None:
        found.append(recalled({"name": "race"}, "module", "fp32", lambda: tiny))

    threads = [threading.Thread(target=one) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 6 and len({artifact.path for artifact in found}) == 1  # type: ignore[attr-defined]
    assert len(folders(own_cache)) == 1, "nothing half done is left"


def test_the_longest_unused_goes_first(own_cache, tiny, monkeypatch):
    names = ("a", "b", "c")
    made = {name: recalled({"name": name}, "module", "fp32", lambda: tiny) for name in names}
    size = sum(file.stat().st_size for file in made["a"].path.parent.iterdir())
    for age, name in enumerate(("b", "c", "a")):
        os.utime(made[name].path.parent / "artifact.json", (1_000_000 + age, 1_000_000 + age))
    monkeypatch.setenv("VITSCOPE_CACHE_LIMIT", str(int(2.5 * size)))
    monkeypatch.setattr(cache, "_in_use", set())  # as in a later process
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
