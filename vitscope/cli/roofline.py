"""`--roofline FILE` of `profile`: the blocks of one network under the roofs of one device, as a figure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitscope.errors import UsageError

if TYPE_CHECKING:
    from vitscope.graph.record import Graph
    from vitscope.latency.device import Device
    from vitscope.plot.figure import Form


@dataclass(frozen=True, slots=True)
class RooflineFile:
    """A figure that was asked for, checked before anything is computed."""

    path: Path
    form: Form
    device: Device
    force: bool

    def write(self, graphs: Sequence[Graph], path_of: Callable[[int, str], tuple[str, str]], name: str) -> None:
        """Draw the network `name` and write the file; notes go to stderr. Raises UsageError for what cannot be drawn."""
        import sys

        from vitscope.cli.output import write_file
        from vitscope.latency.roofline import roofline
        from vitscope.plot.roofline import draw_roofline

        drawing = draw_roofline(roofline(self.device, graphs, path_of), self.form, name)
        write_file(self.path, drawing.content, self.force)
        for note in drawing.notes:
            print(f"{self.path}: {note}", file=sys.stderr)
        print(f"wrote {self.path}", file=sys.stderr)


def asked(path: Path | None, devices: Sequence[str], networks: int, force: bool) -> RooflineFile | None:
    """The figure that `--roofline` asks for; None without it. Raises UsageError where it is not one network on one device."""
    if path is None:
        return None
    from vitscope.cli.output import check_writable
    from vitscope.latency.device import load_device
    from vitscope.latency.roofline import check_facts
    from vitscope.plot.figure import form_of

    form = form_of(path, "--roofline")
    check_writable(path, force)
    if not devices:
        raise UsageError("--roofline: the roof of which device? Add --device NAME")
    if len(devices) > 1 or networks > 1:
        raise UsageError(
            "--roofline: a figure shows one network on one device; give one MODEL, one --resolution and one --device"
        )
    device = load_device(devices[0])
    check_facts(device)
    return RooflineFile(path, form, device, force)


def blocks_of(model: str, **options: Any) -> tuple[tuple[Graph, ...], Callable[[int, str], tuple[str, str]]]:
    """The deploy form of `model` as graphs, and which block and stage a kernel of one belongs to."""
    from vitscope.sources import source_of
    from vitscope.spec import load_spec
    from vitscope.spec.flow import flow

    batch = options["batch"]
    if source_of(model) is None:
        from vitscope.profile import deploy_graphs

        spec = load_spec(
            model, options["overrides"], resolution=options["resolution"], allow_plugins=options["allow_plugins"]
        )
        paths = [placed.path for placed in flow(spec)]
        return deploy_graphs(spec, batch), lambda i, scope: (paths[i], ".".join(paths[i].split(".")[:2]))
    from vitscope.foreign import ROOT, load_network, part_of

    network = load_network(
        model, input_shape=options["input_shape"], resolution=options["resolution"], batch=batch,
        kwargs=options["kwargs"], overrides=options["overrides"],
    )  # fmt: skip
    blocks = {part.path for part in network.deploy.blocks}
    stages = {part.path for part in network.deploy.stages}
    return (network.deploy.batched,), lambda i, scope: (part_of(scope, blocks) or ROOT, part_of(scope, stages) or ROOT)
