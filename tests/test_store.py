"""The store of block traces: what is kept is what was traced, and nothing that was tampered with is believed."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from vitscope.graph import store
from vitscope.spec import load_spec
from vitscope.spec.flow import flow
from vitscope.spec.kinds.efficientformer import Attention, Ffn
from vitscope.spec.shape import FeatureShape

SHAPE = FeatureShape(16, 8, 8)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty store, and no memory of earlier traces."""
    monkeypatch.setenv("VITSCOPE_CACHE", str(tmp_path))
    store.block_graph.cache_clear()
    yield tmp_path / "traces"
    store.block_graph.cache_clear()


def _files(folder):
    return sorted(folder.rglob("*.json"))


def _fresh(block, shape=SHAPE, form="train", batch=1):
    store.block_graph.cache_clear()
    return store.block_graph(block, shape, form, batch)


@pytest.mark.parametrize("block", [Ffn(), Attention(num_heads=2, key_dim=4)])
@pytest.mark.parametrize("form", ["train", "deploy"])
def test_what_is_read_back_equals_what_was_traced(folder, block, form):
    traced = store.trace_block(block, SHAPE, form, 1)
    assert _fresh(block, form=form) == traced  # writes
    assert _fresh(block, form=form) == traced  # reads
    assert len(_files(folder)) == 1


def test_encoding_is_exact_for_every_block_of_the_zoo():
    for name in ("efficientformerv2_s1", "efficientformer_l1", "mobilenetv2_100"):
        for place in flow(load_spec(name)):
            graph = store.trace_block(place.block, place.in_shape, "train", 2)
            assert store.decode(json.loads(json.dumps(store.encode(graph)))) == graph


def test_every_part_of_the_key_separates(folder):
    block = Ffn()
    variants = [
        (block, SHAPE, "train", 1),
        (replace(block, expansion=3.0), SHAPE, "train", 1),
        (block, FeatureShape(16, 8, 10), "train", 1),
        (block, SHAPE, "deploy", 1),
        (block, SHAPE, "train", 2),
    ]
    graphs = [_fresh(*variant) for variant in variants]
    assert len(_files(folder)) == len(variants) == len(set(graphs))


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "",
        lambda text: text[: len(text) // 2],
        lambda text: text.replace("convolution", "gelu", 1),
        lambda text: "not a checksum\n" + text.partition("\n")[2],
        lambda text: store._checksum("[]") + "\n[]",
        lambda text: store._checksum("{") + "\n{",
        lambda text: "\x00\x01\x02",
    ],
)
def test_a_damaged_file_is_traced_anew(folder, damage):
    good = _fresh(Ffn())
    (path,) = _files(folder)
    path.write_text(damage(path.read_text()))
    assert _fresh(Ffn()) == good
    assert store._read(path) == good  # and mended


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path, monkeypatch):
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    monkeypatch.setenv("VITSCOPE_CACHE", str(blocked))
    assert _fresh(Ffn()) == store.trace_block(Ffn(), SHAPE, "train", 1)


def test_the_store_can_be_turned_off(tmp_path, monkeypatch):
    monkeypatch.setenv("VITSCOPE_CACHE", "off")
    assert store.store_folder() is None
    assert _fresh(Ffn()) == store.trace_block(Ffn(), SHAPE, "train", 1)


def test_two_writers_share_a_folder(folder):
    path = folder / "x.json"
    folder.mkdir(parents=True)
    graph = store.trace_block(Ffn(), SHAPE, "train", 1)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: store._write(path, graph), range(40)))
    assert store._read(path) == graph
    assert [p.name for p in folder.iterdir()] == ["x.json"]  # no temporary file is left


def test_old_versions_are_dropped_after_a_month(folder):
    import os

    stale, recent = folder / "stale", folder / "recent"
    for version in (stale, recent):
        version.mkdir(parents=True)
    os.utime(stale, (0, 0))
    _fresh(Ffn())
    assert not stale.exists() and recent.exists()


def test_the_version_of_torch_is_found_without_importing_it():
    code = "import sys; from vitscope.graph.store import _torch_version as v; print(v(), 'torch' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    import torch

    assert out == [torch.__version__, "False"]


def test_one_block_is_one_object_however_it_is_asked_for(folder):
    graph = store.block_graph(Ffn(), SHAPE, "deploy")
    assert store.block_graph(Ffn(), SHAPE, "deploy", 1) is graph
    assert _fresh(Ffn(), form="deploy") is graph and len(_files(folder)) == 1
    assert store.block_graph(Ffn(expansion=3), SHAPE, "deploy") is not graph
