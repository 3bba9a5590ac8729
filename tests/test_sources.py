"""Networks that are no specs: where each may come from, what its rows stand for, and one line for each mistake."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap

import pytest
import torch
from networks import Calls
from torch import Tensor, nn

import vitscope
from vitscope.cli import main
from vitscope.cost.summary import cost_of
from vitscope.errors import UnavailableError, UsageError
from vitscope.profile import Profile
from vitscope.sources import Source, parse_input, parse_kwargs, source_of
from vitscope.sources.build import build
from vitscope.sources.module import load

# --- What a name refers to. ---


@pytest.mark.parametrize(
    ("text", "kind", "name"),
    [
        ("timm:resnet50", "timm", "resnet50"),
        ("timm:resnet50.a1_in1k", "timm", "resnet50.a1_in1k"),
        ("torchvision:resnet50", "torchvision", "resnet50"),
        ("nets/small.onnx", "onnx", "nets/small.onnx"),
        ("SMALL.ONNX", "onnx", "SMALL.ONNX"),
        ("my.nets:small", "python", "my.nets:small"),
        ("nets:Small.tiny", "python", "nets:Small.tiny"),
    ],
)
def test_names_of_networks(text, kind, name):
    assert source_of(text) == Source(kind, name, text)


@pytest.mark.parametrize(
    "text", ["efficientformerv2_s1", "nets/s.yaml", "-", "C:\\nets\\s.yaml", "saved.json", "a b:c"]
)
def test_names_of_specs(text):
    assert source_of(text) is None


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (None, {}),
        ("num_classes=10", {"num_classes": 10}),
        ("a=1,b=0.5,c=true,d=True,e=None,f=null", {"a": 1, "b": 0.5, "c": True, "d": True, "e": None, "f": None}),
        ("name=gelu, other = 'x,y'", {"name": "gelu", "other": "x,y"}),
        ("depths=[2,2,6,2],img_size=[64,96]", {"depths": [2, 2, 6, 2], "img_size": [64, 96]}),
        ('{"a": {"b": [1, "x"]}}', {"a": {"b": [1, "x"]}}),
    ],
)
def test_arguments(text, value):
    assert parse_kwargs(text) == value


@pytest.mark.parametrize("text", ["num_classes", "=3", "a=1,a=2", "1a=3", "a=1,,b=2", "{'a': 1}"])
def test_arguments_that_are_none(text):
    with pytest.raises(UsageError, match="--kwargs"):
        parse_kwargs(text)


@pytest.mark.parametrize("text", ["3,4", "3x224x224", "0,4,4", "-3,4,4", "a,b,c", "3,224,224,1", ""])
def test_inputs_that_are_none(text):
    assert parse_input("3, 224,225") == (3, 224, 225)
    with pytest.raises(UsageError, match="--input"):
        parse_input(text)


# --- Modules, through the library. ---


class Block(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 1), nn.BatchNorm2d(width)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.act(self.bn2(self.conv2(self.act(self.bn1(self.conv1(x))))))


class Net(nn.Module):
    """A stem, two stages of blocks and a head, with a parameter of its own and a part that nobody calls."""

    def __init__(self, width: int = 8, classes: int = 10):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(width, 1, 1))
        self.stem = nn.Conv2d(3, width, 3, stride=2, padding=1)
        self.stages = nn.Sequential(*(nn.Sequential(Block(width), Block(width)) for _ in range(2)))
        self.unused = nn.Linear(5, 7)
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.stages(self.stem(x) * self.scale).mean((2, 3)))


BLOCK_PARAMS = 8 * 8 * 9 + 2 * 8 + 8 * 8 + 8 + 2 * 8
BLOCK_MACS = 16 * 16 * (8 * 8 * 9 + 8 * 8)


def rows(profile: Profile) -> dict[str, tuple[str, int, int]]:
    return {row.path: (row.kind, row.cost.params, row.cost.macs) for row in profile.rows if row.level != "op"}


def test_rows_follow_the_module_tree():
    profile = vitscope.profile(Net(), (3, 32, 32))
    assert rows(profile) == {
        "(root)": ("", 8, 0),
        "stem": ("Conv2d", 3 * 8 * 9 + 8, 16 * 16 * 3 * 8 * 9),
        **{f"stages.{i}.{j}": ("Block", BLOCK_PARAMS, BLOCK_MACS) for i in range(2) for j in range(2)},
        "unused": ("Linear", 5 * 7 + 7, 0),
        "head": ("Linear", 8 * 10 + 10, 8 * 10),
    }
    by_stage = rows(vitscope.profile(Net(), (3, 32, 32), by="stage"))
    assert list(by_stage) == ["(root)", "stem", "stages.0", "stages.1", "unused", "head"]
    assert by_stage["stages.1"] == ("Sequential", 2 * BLOCK_PARAMS, 2 * BLOCK_MACS)
    assert profile.name == "Net" and profile.input == (3, 32, 32) and profile.reported is None


@pytest.mark.parametrize("by", ["stage", "block"])
@pytest.mark.parametrize("form", ["train", "deploy"])
@pytest.mark.parametrize("batch", [1, 3])
def test_rows_add_up(by, form, batch):
    profile = vitscope.profile(Net(), (3, 32, 32), by=by, form=form, batch=batch, devices=["iphone12"])
    for field in ("params", "macs", "activations", "read_bytes", "write_bytes", "param_bytes"):
        assert sum(getattr(row.cost, field) for row in profile.rows) == getattr(profile.totals, field)
    assert max(row.cost.peak_activation_bytes for row in profile.rows) == profile.totals.peak_activation_bytes
    assert profile.totals.macs == 16 * 16 * 3 * 8 * 9 + 4 * BLOCK_MACS + 8 * 10  # of one image
    # BatchNorm folded: its gain and shift go; a convolution without a bias gets one
    folded = 4 * (2 * 8 + 2 * 8 - 8)
    assert profile.deploy_params == sum(p.numel() for p in Net().parameters()) - folded
    assert profile.totals.params == profile.deploy_params + (folded if form == "train" else 0)
    (prediction,) = profile.predictions
    if prediction.latency_s is not None:
        total = sum(row.latency_s[0] or 0 for row in profile.rows) + prediction.floor_s
        assert total == pytest.approx(prediction.latency_s)


def test_operations_stand_below_their_block():
    profile = vitscope.profile(Net(), (3, 32, 32), by="op")
    place = [row.path for row in profile.rows].index("stages.0.1")
    assert [(row.path, row.kind) for row in profile.rows[place : place + 8]] == [
        ("stages.0.1", "Block"), ("stages.0.1.conv1", "convolution"), ("stages.0.1.bn1", "native_batch_norm"),
        ("stages.0.1.act", "relu_"), ("stages.0.1.conv2", "convolution"), ("stages.0.1.bn2", "native_batch_norm"),
        ("stages.0.1.act", "relu_"), ("stages.0.1", "add"),
    ]  # fmt: skip


def test_a_module_stays_as_it_was():
    net = Net().train()
    before = {key: tensor.clone() for key, tensor in net.state_dict().items()}
    vitscope.profile(net, (3, 32, 32), form="deploy")
    assert all(module.training for module in net.modules()) and net.stem.weight.device.type == "cpu"
    assert all(torch.equal(before[key], tensor) for key, tensor in net.state_dict().items())


def test_shared_modules_count_once_in_params_and_each_time_in_macs():
    layer = nn.Conv2d(4, 4, 1)
    tied = nn.Conv2d(4, 4, 1, bias=False)
    tied.weight = layer.weight
    profile = vitscope.profile(nn.Sequential(layer, layer, tied), (4, 8, 8))
    assert profile.totals.params == 4 * 4 + 4
    assert profile.totals.macs == 3 * 8 * 8 * 4 * 4
    assert profile.deploy_params == profile.totals.params


def test_batch_norm_is_not_folded_into_what_runs_twice():
    layer = nn.Conv2d(4, 4, 1)
    net = nn.Sequential(layer, nn.BatchNorm2d(4), layer, nn.BatchNorm2d(4))
    assert vitscope.profile(net, (4, 8, 8)).deploy_params == 4 * 4 + 4 + 2 * 2 * 4


class Dynamic(nn.Module):
    """Asks for a value, which the meta device does not have."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.more = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return self.more(x) if float(x.abs().sum()) >= 0 else x


def test_control_flow_on_values_is_run_for_real_and_says_so():
    profile = vitscope.profile(Dynamic(), (3, 8, 8))
    assert profile.totals.macs == 8 * 8 * (3 * 4 + 4 * 4)
    assert any("real forward pass" in note for note in profile.notes)
    assert not any("real forward pass" in note for note in vitscope.profile(Net(), (3, 32, 32)).notes)


@pytest.mark.parametrize(
    "output",
    [lambda x: (x * 2, [x + 1]), lambda x: {"out": x * 2, "aux": {"deep": x + 1}}, lambda x: x.mul_(2).add_(1)],
    ids=["tuple", "dict", "in place"],
)
def test_outputs_of_any_structure_live_to_the_end(output):
    profile = vitscope.profile(Calls(output), (3, 8, 8))
    image = 3 * 8 * 8 * 4
    assert profile.totals.macs == profile.totals.params == 0
    assert profile.totals.peak_activation_bytes in (image, 3 * image)


def test_attention_of_torch_is_written_out():
    net = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    profile = vitscope.profile(nn.Sequential(nn.Flatten(2), net), (4, 4, 4))  # tokens of 16
    assert profile.totals.macs == 4 * (4 * 16 * 16 + 2 * 16 * 32) + 2 * 4 * 4 * 16
    assert not profile.is_partial


class Branched(nn.Module):
    """Reparameterises itself by a method of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.a(x) + self.b(x) if hasattr(self, "b") else self.a(x)

    def reparameterize(self) -> None:
        del self.b


def test_a_module_that_knows_how_is_reparameterised_and_named():
    net = nn.Sequential(Branched(), nn.BatchNorm2d(4), Branched())
    profile = vitscope.profile(net, (4, 8, 8), form="deploy")
    assert profile.totals.macs == 2 * 8 * 8 * 4 * 4 * 9
    assert any("Branched.reparameterize() × 2" in note for note in profile.notes)
    assert hasattr(net[0], "b"), "the caller's module is left alone"


def test_a_fusion_that_raises_is_named_and_done_without():
    class Broken(Branched):
        def fuse(self) -> None:
            raise NotImplementedError("not on weekdays")

    profile = vitscope.profile(nn.Sequential(Broken()), (4, 8, 8), form="deploy")
    assert profile.totals.macs == 8 * 8 * 4 * 4 * (9 + 1)
    assert any("not on weekdays" in note for note in profile.notes)


def test_an_operation_that_nobody_knows_makes_the_profile_partial():
    profile = vitscope.profile(Calls(lambda x: torch.fft.fft2(x).real), (3, 8, 8))
    assert profile.is_partial and len(profile.totals.unknown) == 1 and profile.totals.unknown[0].startswith("_fft")


def test_other_conventions_count_whole_parts():
    profile = vitscope.profile(Net(), (3, 32, 32), convention="fvcore")
    assert profile.totals.macs == vitscope.profile(Net(), (3, 32, 32)).totals.macs + 4 * 2 * 2 * 8 * 16 * 16
    assert sum(row.cost.macs for row in profile.rows) == profile.totals.macs
    with pytest.raises(UsageError, match="--convention"):
        vitscope.profile(Net(), (3, 32, 32), convention="fvcore", by="op")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((Net(),), "input_shape="),
        ((Net(), (32, 32)), "channels, height, width"),
        ((Net(), (1, 3, 32, 32)), "batch"),
        ((Net(), (3, 32, 0)), "channels, height, width"),
        ((Net(), (1, 32, 32)), "its forward pass on 1×32×32 raised RuntimeError"),
        ((Calls(lambda x: 1 / 0), (3, 8, 8)), "raised ZeroDivisionError: division by zero"),
        ((42, (3, 8, 8)), "got int"),
        (("efficientformerv2_s0", (3, 224, 224)), "--resolution"),
    ],
)
def test_mistakes_in_the_library(arguments, says):
    with pytest.raises(UsageError, match=says) as caught:
        vitscope.profile(*arguments)
    assert "\n" not in str(caught.value)


def test_importing_the_package_costs_nothing():
    code = "import vitscope, sys; print(sorted({'torch', 'rich', 'yaml', 'vitscope.profile'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    with pytest.raises(AttributeError):
        _ = vitscope.nothing


# --- timm, torchvision and the user's own code, from the command line. ---


def call(capsys, *arguments):
    code = main([str(a) for a in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_timm_by_name(capsys, timm):
    code, out, _ = call(capsys, "profile", "timm:resnet18", "--kwargs", "num_classes=10", "--json")
    (model,) = json.loads(out)["models"]
    assert code == 0 and model["name"] == "timm:resnet18 num_classes=10" and model["spec"] is None
    assert model["totals"]["macs"] == 1_814_073_344 - 512 * 990
    assert model["totals"]["params"] == sum(
        p.numel() for p in timm.create_model("resnet18", num_classes=10).parameters()
    )
    assert model["totals"]["deploy_params"] == model["totals"]["params"] - 4800  # 20 BatchNorms of 4800 channels


def test_timm_brings_its_own_input_and_takes_another(timm):
    source = Source("timm", "vit_tiny_patch16_224", "timm:vit_tiny_patch16_224")
    assert load(source, {}, size=None, resolution=None, batch=1).input == (3, 224, 224)
    network = load(source, {}, size=None, resolution=(192, 128), batch=1)
    assert network.input == (3, 192, 128) and any("img_size=192×128" in note for note in network.notes)
    same = load(source, {"img_size": [192, 128]}, size=None, resolution=None, batch=1)
    assert same.input == (3, 192, 128) and cost_of(same.train.counted) == cost_of(network.train.counted)


def test_torchvision_by_name(capsys):
    code, out, _ = call(capsys, "profile", "torchvision:resnet18", "torchvision:lraspp_mobilenet_v3_large", "--json")
    first, second = json.loads(out)["models"]
    assert code == 0 and first["totals"]["macs"] == 1_814_073_344
    assert second["totals"]["params"] == 3_221_538 and not second["is_partial"]  # its output is a dict


NETS = """
    import torch
    from torch import nn

    class Tiny(nn.Module):
        def __init__(self, width=4):
            super().__init__()
            self.conv = nn.Conv2d(3, width, 1)
        def forward(self, x):
            return self.conv(x)

    def tiny(width=4):
        return Tiny(width)

    def steps(rate: float):
        return Tiny(int(torch.linspace(0, rate, 3)[-1].item()))

    def raises():
        raise OSError("no such weights\\nat all")

    ready = Tiny()
    number = 3

    def nothing():
        return None
"""


@pytest.fixture
def nets(tmp_path, monkeypatch):
    (tmp_path / "nets_of_mine.py").write_text(textwrap.dedent(NETS))
    (tmp_path / "needs_more.py").write_text("import a_package_that_nobody_has\n")
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for name in ("nets_of_mine", "needs_more"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize(
    ("arguments", "macs"),
    [
        (["nets_of_mine:Tiny"], 224 * 224 * 3 * 4),
        (["nets_of_mine:tiny", "--kwargs", "width=8", "--input", "3,10,20"], 10 * 20 * 3 * 8),
        (["nets_of_mine:ready", "--resolution", "16"], 16 * 16 * 3 * 4),
        (["nets_of_mine:steps", "--kwargs", "rate=6", "--resolution", "16"], 16 * 16 * 3 * 6),
    ],
)
def test_the_users_own_code(capsys, nets, arguments, macs):
    code, out, err = call(capsys, "profile", *arguments, "--json")
    assert (code, err) == (0, "")
    (model,) = json.loads(out)["models"]
    assert model["totals"]["macs"] == macs
    assert any("constructor" in note for note in model["notes"]) == ("steps" in arguments[0])
    assert str(nets) not in sys.path


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["timm:resnt50"], "did you mean 'resnet50'?"),
        (["timm:resnet18.nope"], "no such tag"),
        (["timm:"], "expected a name after the colon"),
        (["torchvision:resnet5"], "did you mean 'resnet50'?"),
        (["timm:resnet18", "--kwargs", "nonsense=3"], "nonsense"),
        (["timm:resnet18", "--set", "stem.width=3"], "--kwargs"),
        (["timm:resnet18", "--weights", "x.pth"], "no spec"),
        (["timm:resnet18", "--input", "224"], "3,224,224"),
        (["efficientformerv2_s0", "--kwargs", "a=1"], "--set"),
        (["efficientformerv2_s0", "--input", "3,224,224"], "--resolution"),
        (["tim:resnet18"], "did you mean 'timm'?"),
        (["nets_of_mine:tinny"], "did you mean 'tiny'?"),
        (["nets_of_mine:number"], "int is no callable"),
        (["nets_of_mine:nothing"], "returned NoneType"),
        (["nets_of_mine:steps"], "'rate'"),
        (["nets_of_mine:raises"], "OSError: no such weights"),
        (["needs_more:net"], "a_package_that_nobody_has"),
        (["nets_of_mine:Tiny", "--input", "1,8,8"], "forward pass on 1×8×8"),
        (["none.onnx"], "no such file"),
    ],
)
def test_a_mistake_is_one_line(capsys, nets, timm, arguments, says):
    code, out, err = call(capsys, "profile", *arguments)
    assert (code, out) == (2, "")
    assert says in err and len(err.strip().splitlines()) == 1 and "internal error" not in err


@pytest.mark.parametrize(("model", "package"), [("timm:resnet18", "timm"), ("torchvision:resnet18", "torchvision")])
def test_a_package_that_is_missing_is_named_with_its_cure(model, package):
    code = f"import sys; sys.modules[{package!r}] = None; from vitscope.cli import main; sys.exit(main(['profile', {model!r}]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == UnavailableError.exit_code == 3
    assert f"pip install {package}" in done.stderr and len(done.stderr.splitlines()) == 1


def test_compare_takes_any_model(capsys, timm):
    pair = ("compare", "efficientformerv2_s0", "timm:efficientformerv2_s0", "--device", "iphone12", "--json")
    code, out, _ = call(capsys, *pair)
    (found,) = json.loads(out)["comparisons"]
    totals = {total["metric"]: total for total in found["totals"]}
    assert code == 0 and totals["MACs"]["delta"] == totals["params"]["delta"] == 0
    assert found["fields"] == [] and found["latency"][0]["a"] is not None
    assert {"stem", "stages.0", "stages.3"} <= {stage["path"] for stage in found["stages"] if not stage["only"]}
    assert "no spec to compare key by key" in call(capsys, *pair[:-1])[1]


def test_pareto_places_any_model(capsys, tmp_path, timm):
    (tmp_path / "r.csv").write_text("model,latency_ms,top1\na,1,70\nb,2,80\n")
    code, out, _ = call(
        capsys, "pareto", tmp_path / "r.csv", "--add", "timm:resnet18", "--add-y", "timm:resnet18=75", "--device", "iphone12"
    )  # fmt: skip
    assert code == 0 and "timm:resnet18" in out


# --- A sample of what benchmarks/timm_counts.py measures: torch's counter, equal as integers. ---

SAMPLE = [
    "test_byobnet", "test_efficientnet_gn", "test_mambaout", "test_nfnet", "test_vit3", "coat_lite_tiny", "levit_128s",
    "mobilevit_xxs", "edgenext_xx_small", "pit_xs_224", "swin_tiny_patch4_window7_224", "halonet26t", "maxvit_pico_rw_256",
    "xcit_nano_12_p16_224",
]  # fmt: skip


@pytest.mark.parametrize("name", SAMPLE)
def test_counts_are_torchs(timm, name):
    from torch.utils.flop_counter import FlopCounterMode

    source = Source("timm", name, f"timm:{name}")
    network = load(source, {}, size=None, resolution=None, batch=1)
    with torch.device("meta"):
        module = build(source, {}).module.eval().requires_grad_(False)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module(torch.zeros((1, *network.input), device="meta"))
    cost = cost_of(network.train.counted)
    assert not cost.unknown
    assert 2 * cost.macs == counter.get_total_flops()
    assert cost.params == sum(p.numel() for p in module.parameters())
