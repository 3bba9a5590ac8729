"""Each runtime here executes a real file and agrees with PyTorch; its profile is told by blocks; what is missing is said."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from networks import randomise
from torch import nn

from vitscope.export import FORMATS, export
from vitscope.export.artifact import Artifact
from vitscope.export.torch import write_module
from vitscope.measure.attribution import attribute, by_block
from vitscope.measure.record import Attribution, OpTime
from vitscope.measure.runner import litert_profile, onnx_names
from vitscope.measure.runner.noise import fitted, noise
from vitscope.measure.runner.ops import typical
from vitscope.measure.runtimes import RUNTIMES, present
from vitscope.subject import Subject, load_subject

ROOT = Path(__file__).parents[1]
NETWORKS = ("efficientformerv2_s0", "mobilenetv2_100")
SMALLER = {
    "efficientformerv2_s0": (
        "stages.0.depth=1", "stages.1.depth=1",
        "stages.2.depth=2", "stages.2.blocks=[ffn, stride_attention]", "stages.2.expansion=[4, 3]",
        "stages.3.depth=2", "stages.3.blocks=[ffn, attention]", "stages.3.expansion=[4, 3]",
    ),
}  # fmt: skip
CASES = (  # runtime, format; `module` is the pickle that only this host loads
    ("onnxruntime", "onnx"),
    ("openvino", "onnx"),
    ("litert", "litert"),
    ("executorch", "executorch"),
    ("torch", "torch"),
    ("torch", "module"),
)


@dataclass(frozen=True)
class Exported:
    subject: Subject
    artifact: Artifact
    expected: np.ndarray


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Networks as files, each written once."""
    folder = tmp_path_factory.mktemp("runtimes")
    subjects: dict[str, tuple[Subject, np.ndarray]] = {}
    files: dict[tuple[str, str], Exported] = {}

    def make(name: str, format: str) -> Exported:
        if name not in subjects:
            subject = load_subject(name, overrides=SMALLER.get(name, ()), resolution=(64, 64))
            randomise(subject.module)
            with torch.inference_mode():
                subjects[name] = subject, subject.module(torch.from_numpy(noise((1, 3, 64, 64)))).numpy()
        subject, expected = subjects[name]
        if (name, format) not in files:
            path = folder / f"{name}{'.pt' if format == 'module' else FORMATS[format].suffix}"
            if format == "module":
                written = write_module(subject, path)
                artifact = Artifact(
                    path=path, format=format, model=name, digest="", form="deploy", precision="fp32",
                    input_shape=(1, 3, 64, 64), blocks=subject.blocks, weights="", tools="", scopes=dict(written.scopes),
                )  # fmt: skip
            else:
                artifact = export(subject, format, path)
            files[name, format] = Exported(subject, artifact, expected)
        return files[name, format]

    return make


def adapter(runtime: str) -> Any:
    return importlib.import_module(f"vitscope.measure.runner.{RUNTIMES[runtime].adapter}")


def loaded(runtime: str, exported: Exported, **options: Any) -> Any:
    message = {"input_shape": [1, 3, 64, 64], "threads": 1, "precision": "fp32", "unit": "cpu", **options}
    message["names"] = list(exported.artifact.scopes)
    return adapter(runtime).load(str(exported.artifact.path), message)


_UNPICKLE = """
import sys
from vitscope.measure.runner.torch_eager import load
model = load(sys.argv[1], {"input_shape": [1, 3, 64, 64], "threads": 1})
print(tuple(model.outputs()[0].shape))
"""


@pytest.mark.parametrize("name", ["timm:mobilenetv2_050", "torchvision:squeezenet1_1"])
def test_a_process_of_its_own_reads_other_zoos_modules(timm: ModuleType, tmp_path: Path, name: str) -> None:
    """Beside torch's CPU build torchvision cannot be imported as it is, and timm imports it."""
    write_module(load_subject(name, input_size=(3, 64, 64)), tmp_path / "m.pt")
    command = [sys.executable, "-c", _UNPICKLE, str(tmp_path / "m.pt")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=ROOT)
    assert done.stdout == "(1, 1000)\n", done.stderr[-2000:]


@pytest.mark.parametrize(("runtime", "format"), CASES)
def test_a_runtime_gives_pytorchs_outputs_run_after_run(made: Any, runtime: str, format: str) -> None:
    exported = made(NETWORKS[0], format)
    model = loaded(runtime, exported)
    for _ in range(3):  # an input that was overwritten shows from the second on
        model.run()
    (output,) = model.outputs()
    assert output.shape == exported.expected.shape
    assert np.abs(output - exported.expected).max() < 1e-4 * np.abs(exported.expected).max()
    assert all(isinstance(note, str) for note in model.notes)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(("runtime", "format"), [("onnxruntime", "onnx"), ("openvino", "onnx"), ("torch", "torch")])
def test_a_profile_is_told_by_block(made: Any, name: str, runtime: str, format: str) -> None:
    told_by_block(made(name, format), runtime)


@pytest.mark.parametrize(
    ("runtime", "format"), [("litert", "litert"), ("executorch", "executorch"), ("torch", "module")]
)
def test_a_profile_of_kernels_or_modules_is_told_by_block(made: Any, runtime: str, format: str) -> None:
    told_by_block(made(NETWORKS[0], format), runtime)


def told_by_block(exported: Exported, runtime: str) -> None:
    profiled = loaded(runtime, exported)

    def once() -> tuple[Attribution, list[OpTime]]:
        found = profiled.op_times(10)
        assert found is not None
        how, raw = found
        ops = [OpTime(**{**op, "names": tuple(op["names"])}) for op in raw]
        assert how == "measured" and all(op.seconds >= 0 for op in ops)
        return attribute(how, ops, exported.artifact, 1e-3, runtime), ops

    # Of three, since what runs beside it may stand between operations, where no block is.
    told, ops = min((once() for _ in range(3)), key=lambda pair: pair[0].unexplained)
    assert told.unexplained <= 0.1, by_block(ops, exported.artifact).get(None)
    assert sum(block.share for block in told.blocks) == 1.0
    paths = [block.path for block in told.blocks if block.path]
    assert paths == [path for path in exported.artifact.blocks if path in paths]
    assert len(paths) >= 0.9 * len(exported.artifact.blocks)  # each has a convolution or a product of its own


def test_kernels_of_xnnpack_pair_with_the_operations_of_their_kind(made: Any) -> None:
    """Every convolution and product of the file has a kernel, and each kernel of one has such an operation's names."""
    exported = made(NETWORKS[0], "litert")
    ops = loaded("litert", exported).op_times(3)[1]
    computing = [op for op in ops if op["kind"] in ("Convolution", "Fully Connected", "Batch Matrix Multiply")]
    from ai_edge_litert.interpreter import Interpreter

    details = Interpreter(model_path=str(exported.artifact.path))._get_ops_details()  # type: ignore[attr-defined]
    in_file = [op for op in details if op["op_name"] in litert_profile._COMPUTE]
    assert len(computing) == len(in_file)
    assert all(len(op["names"]) == 1 for op in computing)
    assert len({op["names"][0] for op in computing}) == len(computing)


def test_compiled_torch_agrees_and_names_its_mode(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 5)).eval()
    torch.save(module, tmp_path / "tiny.pt")
    model = adapter("torch.compile").load(
        str(tmp_path / "tiny.pt"), {"input_shape": [1, 3, 8, 8], "threads": 1, "precision": "fp32", "unit": "cpu"}
    )
    with torch.inference_mode():
        expected = module(torch.from_numpy(noise((1, 3, 8, 8)))).numpy()
    np.testing.assert_allclose(model.outputs()[0], expected, atol=1e-5)
    assert model.notes == ["Inductor, mode default"]
    how, ops = model.op_times(1)
    assert how == "measured" and {"0::conv2d", "3::linear"} <= {name for op in ops for name in op["names"]}


def test_without_a_compiler_torch_compile_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(ImportError, match=r"C\+\+ compiler \(apt-get install g\+\+"):
        adapter("torch.compile").version()
    (found,) = (here for here in present() if here.runtime.name == "torch.compile")
    assert found.version is None and found.reason == "no C++ compiler (pip install torch, and a C++ compiler)"


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_missing_package_is_an_import_error(runtime: str) -> None:
    """In a Python without any installed package, importing the adapter works and asking for its version does not."""
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        f"import vitscope.measure.runner.{RUNTIMES[runtime].adapter} as adapter\n"
        "try:\n    adapter.version()\nexcept ImportError as error:\n    print('missing:', error)\n"
    )
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, timeout=60, env=env)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("missing: ") and len(done.stdout.splitlines()) == 1


def test_a_cuda_runtime_is_missing_where_there_is_no_gpu(made: Any) -> None:
    if torch.cuda.is_available():
        pytest.skip("this host has a GPU")
    with pytest.raises(ImportError, match=r"without CUDA|sees no CUDA GPU"):
        adapter("cudagraphs").version()
    with pytest.raises(ImportError, match="sees no CUDA GPU"):
        loaded("torch", made(NETWORKS[0], "module"), unit="cuda")


def test_a_programs_precision_is_that_of_the_file(made: Any) -> None:
    with pytest.raises(ValueError, match="fixed when it is exported"):
        loaded("torch", made(NETWORKS[0], "torch"), precision="fp16")


@pytest.mark.parametrize(("runtime", "suffix"), [("onnxruntime", ".onnx"), ("openvino", ".onnx"), ("litert", ".tflite"),
                                                 ("executorch", ".pte"), ("torch", ".pt2")])  # fmt: skip
def test_a_file_that_is_none_is_an_error(tmp_path: Path, runtime: str, suffix: str) -> None:
    path = tmp_path / f"broken{suffix}"
    path.write_bytes(b"not a network")
    with pytest.raises(Exception, match=r"\S"):
        adapter(runtime).load(str(path), {"input_shape": [1, 3, 64, 64], "threads": 1})


def test_what_is_here_is_told_without_importing_it() -> None:
    code = (
        "import json, sys\nfrom vitscope.measure.runtimes import present\n"
        "told = {p.runtime.name: [p.version, p.reason] for p in present()}\n"
        "heavy = {'torch', 'onnxruntime', 'openvino', 'ai_edge_litert', 'executorch', 'numpy'} & set(sys.modules)\n"
        "print(json.dumps([told, sorted(heavy)]))"
    )
    import json

    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True, cwd=ROOT
    )
    told, heavy = json.loads(done.stdout)
    assert heavy == []
    assert list(told) == list(RUNTIMES)
    assert told["litert"] == [importlib.metadata.version("ai-edge-litert"), ""]
    assert told["torch"] == [importlib.metadata.version("torch"), ""]
    if sys.platform == "linux":
        assert told["coreml"] == [None, 'Core ML predicts on macOS only (a Mac, and pip install "vitscope[coreml]")']
    for name, (version, reason) in told.items():
        assert (version is None) == bool(reason), name
        assert not reason or reason.endswith(f"({RUNTIMES[name].cure})")


def test_nodes_of_an_onnx_file_are_read_as_its_package_reads_them(made: Any) -> None:
    import onnx

    path = made(NETWORKS[1], "onnx").artifact.path
    expected = [
        (node.name, node.op_type, list(node.input), list(node.output)) for node in onnx.load(str(path)).graph.node
    ]
    assert [tuple(node) for node in onnx_names.nodes_of(str(path))] == expected


def test_a_node_that_the_runtime_put_in_goes_with_its_reader() -> None:
    exported = [
        onnx_names.OnnxNode("a/Conv_0", "Conv", ["x"], ["a/Conv_0"]),
        onnx_names.OnnxNode("b/Conv_1", "Conv", ["a/Conv_0"], ["y"]),
    ]
    optimised = [
        onnx_names.OnnxNode("a/Conv_0_nchwc", "Conv", ["x"], ["token_1"]),
        onnx_names.OnnxNode("Reorder", "ReorderInput", ["token_1"], ["token_2"]),
        onnx_names.OnnxNode("b/Conv_1", "Conv", ["token_2"], ["y"]),
    ]
    found = onnx_names.names_behind(optimised, exported)
    assert found[0] == ["a/Conv_0_nchwc", "token_1", "a/Conv_0"]
    assert found[1] == ["Reorder", "token_2", "b/Conv_1", "y"]


def test_kernels_are_laid_beside_operations_in_order() -> None:
    operations = [
        litert_profile.FileOp(place, kind, [name])
        for place, (kind, name) in enumerate(
            [("PAD", "p"), ("CONV_2D", "c"), ("RESHAPE", "r"), ("MUL", "m"), ("CONV_2D", "d"), ("MUL", "n")]
        )
    ]
    tags = ["Convolution (NHWC, F32) IGEMM", "Copy (NC, F32) what", "Fully Connected (NC, F32) GEMM", "Multiply (ND)"]
    assert litert_profile.aligned(tags, operations) == [["c"], ["r"], ["d"], ["n"]]
    unlike = ["Convolution (NHWC, F32) IGEMM", "Something New (NC)", "Fully Connected (NC, F32) GEMM"]
    assert litert_profile.aligned(unlike, operations) == [["c"], ["c", "d"], ["d"]]


def test_the_typical_time_forgets_an_interruption() -> None:
    assert typical([1.0, 1.0, 1.0, 1.0]) == 1.0
    assert typical([1.0, 2.0, 3.0, 1000.0]) == 2.5
    assert typical([7.0]) == 7.0
    with pytest.raises(ValueError):
        typical([])


def test_noise_is_the_same_everywhere_and_turned_where_a_file_wants_it() -> None:
    array = noise((1, 3, 4, 4))
    assert array.dtype == np.float32 and np.array_equal(array, noise((1, 3, 4, 4)))
    turned = fitted(array, (1, 4, 4, 3), "float16")
    assert turned.dtype == np.float16 and turned[0, 1, 2, 0] == np.float16(array[0, 0, 1, 2])
    with pytest.raises(ValueError, match=r"takes an input of \[1, 3, 8, 8\], not \[1, 3, 4, 4\]"):
        fitted(array, (1, 3, 8, 8), "float32")
