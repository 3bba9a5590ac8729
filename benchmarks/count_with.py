"""`python -m benchmarks.count_with TOOL`: what one tool counts on EfficientFormerV2-S1 at 224, in a process of its own.

Prints the multiply-accumulates that the tool reports, under whatever name it gives them. The network is vitscope's own
module, so that no process pays for importing anything but torch and the tool.
"""

from __future__ import annotations

import contextlib
import io
import sys
import warnings
from collections.abc import Callable

INPUT = (1, 3, 224, 224)
_KEEP: list[object] = []  # operators live as long as the Library that defined them


def _model():
    from vitscope.model import build
    from vitscope.spec import load_spec

    return build(load_spec("efficientformerv2_s1")).eval()


def _name_missing_operators() -> None:
    """torchvision's registry build cannot be imported beside torch's CPU build until two operators have names."""
    from torch.library import Library

    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        library = Library("torchvision", "DEF")
        library.define("nms(Tensor boxes, Tensor scores, float threshold) -> Tensor")
        library.define("qnms(Tensor boxes, Tensor scores, float threshold) -> Tensor")
        _KEEP.append(library)


def _torch_counter() -> int:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    model = _model()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(INPUT))
    return counter.get_total_flops() // 2  # it counts a multiply-accumulate as two


def _fvcore() -> int:
    import logging

    import torch
    from fvcore.nn import FlopCountAnalysis

    logging.getLogger("fvcore").setLevel(logging.ERROR)
    return int(FlopCountAnalysis(_model(), torch.zeros(INPUT)).total())


def _ptflops() -> int:
    _name_missing_operators()
    from ptflops import get_model_complexity_info

    macs, _ = get_model_complexity_info(
        _model(), INPUT[1:], as_strings=False, print_per_layer_stat=False, verbose=False, backend="aten"
    )
    return int(macs)


def _calflops() -> int:
    _name_missing_operators()
    from calflops import calculate_flops

    _, macs, _ = calculate_flops(_model(), INPUT, output_as_string=False, print_results=False, print_detailed=False)
    return int(macs)


def _torchinfo() -> int:
    from torchinfo import summary

    return int(summary(_model(), INPUT, verbose=0, device="cpu").total_mult_adds)


def _torchprofile() -> int:
    import torch
    from torchprofile import profile_macs

    return int(profile_macs(_model(), torch.zeros(INPUT)))


TOOLS: dict[str, Callable[[], int]] = {
    "torch FlopCounterMode": _torch_counter,
    "fvcore": _fvcore,
    "ptflops (aten)": _ptflops,
    "calflops": _calflops,
    "torchinfo": _torchinfo,
    "torchprofile": _torchprofile,
}

if __name__ == "__main__":
    warnings.simplefilter("ignore")
    with contextlib.redirect_stdout(io.StringIO()):
        answer = TOOLS[sys.argv[1]]()
    print(answer)
