"""ExecuTorch with its Core ML delegate: a `.pte` file for an iPhone. It is written on any system and runs on Apple's only."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from vitscope.export import Written
from vitscope.export.coreml_ops import register
from vitscope.export.executorch import lower
from vitscope.export.silence import silenced

if TYPE_CHECKING:
    from vitscope.export.artifact import Precision
    from vitscope.subject import Subject


def write(subject: Subject, path: Path, precision: Precision) -> Written:
    """Write `subject` to `path`: input and output fp32, `precision` is that of Core ML's arithmetic.

    Raises RefusedError for what ExecuTorch or Core ML cannot express.
    """
    with silenced():
        import coremltools as ct
        from executorch.backends.apple.coreml.compiler import CoreMLBackend
        from executorch.backends.apple.coreml.partition import CoreMLPartitioner

        register()  # the delegate's programs are converted by coremltools
    specs = CoreMLBackend.generate_compile_specs(
        compute_precision=ct.precision.FLOAT16 if precision == "fp16" else ct.precision.FLOAT32,
        minimum_deployment_target=ct.target.iOS16,
    )
    lowered = lower(subject, "fp32", [CoreMLPartitioner(compile_specs=specs)])
    path.write_bytes(lowered.content)
    return Written(
        tools=f"executorch {version('executorch')}, coremltools {version('coremltools')}",
        scopes=lowered.scopes,
        notes=(
            f"Core ML {lowered.delegation}",
            f"input and output fp32, arithmetic {precision}, for iOS 16 and later; not run here: Core ML is Apple's",
        ),
    )
