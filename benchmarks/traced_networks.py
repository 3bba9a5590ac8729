"""The traced graphs of a published network: timm's, torchvision's or the zoo's, as it was measured."""

from __future__ import annotations

import pickle
import sys
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vitscope.graph.fold import fold_batch_norm
from vitscope.graph.record import Graph
from vitscope.graph.trace import trace
from vitscope.latency.table import NetworkId


def graphs_of(network: NetworkId, kept: Path | None) -> tuple[Graph, ...]:
    """The consecutive graphs of `network` at batch 1, none where it cannot be built at that size (stderr says why).

    `kept`, where given, is a directory that holds graphs traced before: the tracing of some hundred networks takes a
    quarter of an hour. It is the caller's to empty when networks or tracing change.
    """
    path = kept / f"{sha256(repr(network).encode()).hexdigest()[:24]}.pickle" if kept else None
    if path and path.is_file():
        graphs = pickle.loads(path.read_bytes())  # written below, by this program
    else:
        graphs = _zoo(network) if network.name.startswith("zoo:") else _module(network)
        if path:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(pickle.dumps(graphs))
    return graphs if network.part == "train" else tuple(fold_batch_norm(graph) for graph in graphs)


def _zoo(network: NetworkId) -> tuple[Graph, ...]:
    from vitscope.profile import deploy_graphs
    from vitscope.spec import load_spec

    return deploy_graphs(load_spec(network.name.removeprefix("zoo:"), resolution=(network.height, network.width)))


def _module(network: NetworkId) -> tuple[Graph, ...]:
    size = (network.height, network.width)
    options: dict[str, Any] = {"num_classes": 0} if network.part == "backbone" else {}
    reason = ""
    # Attention over a fixed grid is made for one size, and says so in its constructor.
    for extra in ({"img_size": size}, {"img_size": network.height}, {}):
        try:
            module = _built(network, {**options, **extra})
            return (trace(module.to("meta"), torch.empty(1, 3, *size, device="meta")),)
        except (TypeError, RuntimeError, AssertionError, ValueError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
    print(f"left out: cannot build {network.name} at {network.side}: {reason}", file=sys.stderr)
    return ()


def _built(network: NetworkId, options: dict[str, Any]) -> nn.Module:
    from vitscope.sources.build import import_timm, import_torchvision

    if network.name.startswith("torchvision:"):
        options.pop("img_size", None)
        if network.name == "torchvision:googlenet":
            options["init_weights"] = False  # minutes of truncated normal values that nobody reads
        return import_torchvision().models.get_model(network.name.removeprefix("torchvision:"), **options).eval()
    timm = import_timm()
    with torch.device("meta"), suppress(NotImplementedError):
        return _deployed(timm.create_model(network.name, **options).eval(), network)
    return _deployed(timm.create_model(network.name, **options).eval(), network)


def _deployed(module: nn.Module, network: NetworkId) -> nn.Module:
    from timm.utils.model import reparameterize_model

    return module if network.part == "train" else reparameterize_model(module)
