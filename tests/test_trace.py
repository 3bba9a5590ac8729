"""trace() records what ran, where it ran, and leaves the module as it found it."""

from __future__ import annotations

import pytest
import torch
from networks import Calls, zoo_model
from torch import Tensor, nn

from vitscope.cost.ops import macs
from vitscope.graph.record import Graph
from vitscope.graph.trace import trace


def graph_of(module: nn.Module, *shapes: tuple[int, ...], device: str = "meta") -> Graph:
    return trace(module.to(device), *(torch.empty(shape, device=device) for shape in shapes))


def where(graph: Graph) -> list[tuple[str, str]]:
    """(scope, operation) of all that are more than views."""
    return [(op.scope, op.op) for op in graph.ops if not op.is_view]


class Ffn(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.act = nn.Sequential(nn.GELU())

    def forward(self, x: Tensor) -> Tensor:
        return x + self.act(self.fc(x))


class Shared(nn.Module):
    """One layer under two names, called twice, and one weight in two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.again = self.first
        self.tied = nn.Linear(4, 4)
        self.tied.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.tied(self.again(self.first(x)))


class Failing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.good = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5))
        self.bad = Calls(lambda x: x @ torch.empty(7, 7, device=x.device))

    def forward(self, x: Tensor) -> Tensor:
        return self.bad(self.good(x))


class Partly(nn.Module):
    """Calls a part by a method other than forward, and holds parts that it never calls."""

    def __init__(self) -> None:
        super().__init__()
        self.used = nn.Linear(4, 4)
        self.unused = nn.Linear(4, 100)
        self.scale = nn.Parameter(torch.ones(3))
        self.frozen = nn.Parameter(torch.ones(5), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.used.forward(x)


# --- Scopes. ---


def test_scopes_are_the_qualified_names_of_the_modules_that_ran() -> None:
    graph = graph_of(nn.Sequential(Ffn(), Ffn()), (2, 4))
    assert where(graph) == [
        ("0.fc", "addmm"), ("0.act.0", "gelu"), ("0", "add"),
        ("1.fc", "addmm"), ("1.act.0", "gelu"), ("1", "add"),
    ]  # fmt: skip


def test_the_root_has_an_empty_scope() -> None:
    assert where(graph_of(nn.Linear(4, 4), (2, 4))) == [("", "addmm")]


def test_a_layer_under_two_names_runs_under_its_first() -> None:
    assert [scope for scope, _ in where(graph_of(Shared(), (2, 4)))] == ["first", "first", "tied"]


def test_forward_called_by_hand_stands_at_its_caller() -> None:
    assert where(graph_of(Partly(), (2, 4))) == [("", "addmm")]


# --- Parameters. ---


def test_shared_weights_count_once_and_their_work_each_time() -> None:
    with torch.device("meta"):  # `.to("meta")` would untie them
        graph = trace(Shared(), torch.empty(2, 4))
    assert [(p.name, p.numel) for p in graph.params] == [("first.weight", 16), ("first.bias", 4), ("tied.bias", 4)]
    assert sum(macs(graph, op) or 0 for op in graph.ops) == 3 * 2 * 4 * 4
    weights = [t for t in graph.tensors if t.kind == "param" and t.shape == (4, 4)]
    assert [t.name for t in weights] == ["first.weight"]


def test_parameters_that_nothing_reads_count_all_the_same() -> None:
    graph = graph_of(Partly(), (2, 4))
    assert {p.name: p.numel for p in graph.params} == {
        "scale": 3, "frozen": 5, "used.weight": 16, "used.bias": 4, "unused.weight": 400, "unused.bias": 100,
    }  # fmt: skip
    assert {p.scope for p in graph.params} == {"", "used", "unused"}


def test_buffers_are_no_parameters() -> None:
    graph = graph_of(nn.BatchNorm2d(8), (1, 8, 4, 4))
    assert sum(p.numel for p in graph.params) == 2 * 8
    assert {t.name: t.kind for t in graph.tensors if t.name} == {
        "weight": "param", "bias": "param", "running_mean": "buffer", "running_var": "buffer",
    }  # fmt: skip


# --- Values and storages. ---


def storage_numbers(graph: Graph) -> list[tuple[str, list[int], list[int]]]:
    tensors = graph.tensors
    return [(o.op, [tensors[i].storage for i in o.inputs], [tensors[i].storage for i in o.outputs]) for o in graph.ops]


def test_a_view_shares_the_storage_of_what_it_views() -> None:
    graph = graph_of(Calls(lambda x: x.view(-1)[2:].unsqueeze(0) + 1), (3, 4))
    assert storage_numbers(graph) == [
        ("view", [0], [0]),
        ("slice", [0], [0]),
        ("unsqueeze", [0], [0]),
        ("add", [0], [1]),
    ]
    assert [op.is_view for op in graph.ops] == [True, True, True, False]


def test_a_reshape_that_must_copy_is_recorded_as_the_copy() -> None:
    graph = graph_of(Calls(lambda x: x.transpose(0, 1).reshape(-1)), (3, 4))
    assert [(op.op, op.is_view) for op in graph.ops] == [("transpose", True), ("clone", False), ("_unsafe_view", True)]


def test_contiguous_of_what_is_contiguous_is_nothing() -> None:
    graph = graph_of(Calls(lambda x: x.contiguous().reshape(3, 4).float()), (3, 4))
    assert [op.op for op in graph.ops if not op.is_view] == []
    assert graph.outputs[0] in (*graph.inputs, *(i for op in graph.ops for i in op.outputs))


def test_an_in_place_operation_writes_where_it_reads_and_is_no_view() -> None:
    graph = graph_of(nn.Sequential(nn.Linear(4, 4), nn.ReLU(inplace=True)), (2, 4))
    last = graph.ops[-1]
    assert (last.op, last.is_view) == ("relu_", False)
    assert graph.tensors[last.inputs[0]].storage == graph.tensors[last.outputs[0]].storage
    assert macs(graph, last) == 0


def test_an_addition_into_itself_reads_both() -> None:
    def step(x: Tensor) -> Tensor:
        y = x + 1
        y += x
        return y

    graph = graph_of(Calls(step), (3, 4))
    assert [(op.op, len(op.inputs)) for op in graph.ops] == [("add", 1), ("add_", 2)]


def test_norms_put_out_their_map_alone() -> None:
    graph = graph_of(nn.Sequential(nn.BatchNorm2d(8), nn.GroupNorm(2, 8), nn.MaxPool2d(2)), (1, 8, 4, 4))
    assert [len(op.outputs) for op in graph.ops] == [1, 1, 1]


def test_inputs_and_outputs_are_known_by_their_places() -> None:
    graph = graph_of(Calls(lambda x, y: (y - x, {"not": "a tensor"}, [x * y])), (3, 4), (3, 4))
    assert [graph.tensors[i].kind for i in graph.inputs] == ["input", "input"]
    assert [graph.ops[n].outputs[0] for n in (0, 1)] == list(graph.outputs)
    assert graph.ops[0].inputs == (graph.inputs[1], graph.inputs[0])


def test_an_output_that_is_an_input() -> None:
    graph = graph_of(nn.Identity(), (3, 4))
    assert graph.ops == ()
    assert graph.outputs == graph.inputs


def test_arguments_keep_their_names() -> None:
    graph = graph_of(nn.Conv2d(8, 16, 3, stride=2, padding=1, groups=4), (1, 8, 9, 9))
    (conv,) = graph.ops
    assert (conv.attr("stride"), conv.attr("padding"), conv.attr("groups")) == ((2, 2), (1, 1), 4)
    assert conv.attr("nothing", 7) == 7
    assert str(graph) == ".  convolution  (1,8,9,9) * (16,2,3,3) * (16)/g4 -> (1,16,5,5)"


# --- The module is left as it was. ---


def state(module: nn.Module) -> list[tuple[str, bool, int, int]]:
    return [(name, m.training, len(m._forward_hooks), len(m._forward_pre_hooks)) for name, m in module.named_modules()]


@pytest.mark.parametrize("mode", ["train", "eval", "mixed"])
def test_training_flags_and_hooks_are_as_before(mode: str) -> None:
    module = nn.Sequential(Ffn(), nn.Dropout(0.5), nn.BatchNorm1d(4)).to("meta").train(mode != "eval")
    if mode == "mixed":
        module[2].eval()
    module[0].fc.register_forward_hook(lambda *_: None)
    before = state(module)
    graph = trace(module, torch.empty(2, 4, device="meta"))
    assert state(module) == before
    assert not any("dropout" in op.op or "bernoulli" in op.op for op in graph.ops), "recorded in eval mode"


def test_training_flags_and_hooks_are_as_before_after_an_exception() -> None:
    module = Failing().to("meta").train()
    before = state(module)
    with pytest.raises(RuntimeError):
        trace(module, torch.empty(2, 4, device="meta"))
    assert state(module) == before
    # and the next trace of the same module is not confused by the one that broke off
    module.bad = Calls(lambda x: x * 2)  # type: ignore[assignment]
    assert where(trace(module, torch.empty(2, 4, device="meta"))) == [("good.0", "addmm"), ("bad", "mul")]


def test_an_exception_that_the_module_catches_leaves_the_scopes_right() -> None:
    class Catches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bad, self.good = Failing(), nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            try:
                return self.bad(x)
            except RuntimeError:
                return self.good(x) + 1

    assert where(graph_of(Catches(), (2, 4)))[-2:] == [("good", "addmm"), ("", "add")]


def test_statistics_of_norms_do_not_move() -> None:
    module = nn.BatchNorm2d(3).train()
    before = {key: tensor.clone() for key, tensor in module.state_dict().items()}
    trace(module, torch.randn(4, 3, 5, 5))
    assert all(torch.equal(before[key], tensor) for key, tensor in module.state_dict().items())


def test_no_gradient_is_recorded() -> None:
    graph = graph_of(nn.Linear(4, 4), (2, 4))
    assert "detach" not in {op.op for op in graph.ops}


def test_a_trace_with_values_is_the_trace_without() -> None:
    model = zoo_model("efficientformerv2_s0")
    on_cpu = trace(model, torch.randn(1, 3, 224, 224))
    assert on_cpu == trace(model.to("meta"), torch.empty(1, 3, 224, 224, device="meta"))


def test_equal_traces_are_equal_values() -> None:
    first, second = (graph_of(Ffn(), (2, 4)) for _ in range(2))
    assert first == second
    assert hash(first) == hash(second)
    assert first != graph_of(Ffn(), (3, 4))
