"""A compiled module in a session against the same module in eager torch."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from bossa import samba
from bossa.errors import PefError, SambaError
from samba.compiled import Net, compiled, started_with

ALL = ["fwd", "bckwd", "gradnorm", "opt"]
IDS = torch.arange(12).view(3, 4) % 11
SCALE = torch.linspace(0.5, 1.5, 8)
LABELS = torch.tensor([[1, 2, 3, -100], [4, 5, 6, 7], [8, 9, 10, 0]])


def inputs(**other: torch.Tensor) -> tuple[Any, ...]:
    values = {"ids": IDS.int(), "scale": SCALE, "labels": LABELS.short(), **other}
    named = {name: samba.from_torch_tensor(value, name) for name, value in values.items()}
    return named["ids"], None, named["scale"], named["labels"]


def optimizers(model: nn.Module, **other: Any) -> list[torch.optim.Optimizer]:
    """Two, of which one has groups; the unused and the frozen parameter among theirs."""
    embedding = [model.embed.weight]
    rest = [parameter for parameter in model.parameters() if parameter is not model.embed.weight]
    decayed = [parameter for parameter in rest if parameter.dim() > 1]
    plain = [parameter for parameter in rest if parameter.dim() <= 1]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": plain, "lr": 0.03, "weight_decay": 0.0}]
    adam = samba.optim.AdamW(groups, lr=0.01, betas=(0.8, 0.95), max_grad_norm=0.7)
    return [adam, samba.optim.SGD(embedding, lr=0.1, momentum=0.9, weight_decay=0.05)]


@pytest.fixture(scope="module")
def pef(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(0)
    model = samba.from_torch_model_(Net())
    return compiled(tmp_path_factory.mktemp("pefs"), model, inputs(), optimizers(model))


class Pair:
    """A traced module and its twin in eager torch, each with its optimizers."""

    def __init__(self, pef: str, rate: float = 0.3) -> None:
        torch.manual_seed(1)
        self.ours = samba.from_torch_model_(Net(rate))
        self.theirs = copy.deepcopy(self.ours)
        self.optimizers, self.references = optimizers(self.ours), optimizers(self.theirs)
        self.outputs = samba.utils.trace_graph(self.ours, inputs(), self.optimizers, pef=pef)

    def run(self, seed: int, sections: list[str] | None = None, **values: float) -> list[torch.Tensor]:
        torch.manual_seed(seed)
        return samba.session.run(inputs(), self.outputs, values, sections)

    def eager(self, seed: int, start: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        """A forward and backward pass."""
        torch.manual_seed(seed)
        result = self.theirs(*inputs())
        result["losses"].backward(torch.ones(3, 4) if start is None else start)
        return result

    def step(self, **values: float) -> None:
        for optimizer in self.references:
            for group in optimizer.param_groups:
                group.update({key: value for key, value in values.items() if key in group})
            optimizer.step()
            optimizer.zero_grad()

    def check_weights(self) -> None:
        """Weights, buffers and optimizer state, equal but for the order of sums in fused kernels."""
        samba.session.to_cpu(self.ours)
        torch.testing.assert_close(self.ours.state_dict(), self.theirs.state_dict(), rtol=1e-4, atol=2e-5)
        for one, other in zip(self.optimizers, self.references, strict=True):
            torch.testing.assert_close(one.state_dict()["state"], other.state_dict()["state"], rtol=1e-3, atol=1e-5)


def close(one: torch.Tensor, other: torch.Tensor) -> None:
    torch.testing.assert_close(samba.to_torch(one), samba.to_torch(other).detach(), rtol=1e-4, atol=1e-5)


def test_steps_are_those_of_eager_torch_with_dropout_clipping_and_two_optimizers(pef: str):
    pair = Pair(pef)
    before = pair.ours.embed.weight.detach().clone()
    for seed in range(4):
        losses, logits = pair.run(seed)
        expected = pair.eager(seed)
        pair.step()
        close(losses, expected["losses"])
        close(logits, expected["logits"])
    assert torch.equal(pair.ours.embed.weight, before), "the module has its weights from before until to_cpu"
    pair.check_weights()
    pair.run(9)
    pair.eager(9)
    pair.step()
    pair.check_weights()


def test_hyperparameters_of_a_run_override_those_of_all_optimizers_and_dropouts(pef: str):
    pair = Pair(pef)
    pair.theirs.drop.p = 0.6
    values = {"lr": 0.02, "momentum": 0.5, "weight_decay": 0.2}
    for seed in range(3):
        pair.run(seed, p=0.6, unknown=1.0, **values)
        pair.eager(seed)
        pair.step(**values)
    pair.check_weights()
    for group in [*pair.optimizers[0].param_groups, *pair.optimizers[1].param_groups]:
        assert group["lr"] != 0.02, "the optimizers keep their own"


def test_sections_may_be_run_one_after_another_and_gradients_add_up_until_a_step(pef: str):
    pair = Pair(pef)
    for seed in (5, 6):
        first = pair.run(seed, ["FWD"])
        kept = first[0].clone()
        samba.to_torch(first[0]).zero_()
        assert torch.equal(pair.run(seed, ["Bckwd"])[1], first[1])
        close(kept, pair.eager(seed)["losses"])
    samba.session.to_cpu(pair.ours)
    for name, parameter in pair.theirs.named_parameters():
        own = pair.ours.get_parameter(name).grad
        assert (own is None) == (parameter.grad is None), name
        if own is not None:
            close(own, parameter.grad)
    pair.run(0, ["gradnorm"])
    pair.run(0, ["opt"])
    pair.step()
    pair.check_weights()
    with pytest.raises(SambaError, match="section bckwd follows a run of fwd, once"):
        pair.run(0, ["bckwd"])


def test_gradients_start_where_sn_grad_says_and_without_gradnorm_nothing_is_clipped(pef: str):
    pair = Pair(pef)
    start = torch.linspace(0, 3, 12).view(3, 4)
    pair.outputs[0].sn_grad = samba.from_torch_tensor(start.bfloat16().float())
    pair.run(3, ["fwd", "bckwd", "opt"])
    pair.eager(3, start.bfloat16().float())
    pair.references[0].max_grad_norm = None
    pair.step()
    pair.check_weights()


def test_weights_go_to_the_session_and_its_outputs_are_not_written_to_again(pef: str):
    pair = Pair(pef)
    first = pair.run(1, ["fwd"], p=0.0)
    held = [output.clone() for output in first]
    with torch.no_grad():
        pair.ours.head.bias.add_(1.0)
    assert torch.equal(pair.run(1, ["fwd"], p=0.0)[1], held[1])
    samba.session.to_rdu(pair.ours)
    moved = pair.run(1, ["fwd"], p=0.0)
    assert all(torch.equal(one, other) for one, other in zip(first, held, strict=True))
    close(moved[1], held[1] + 1.0)
    assert [output.sn_name for output in moved] == [output.sn_name for output in pair.outputs]
    assert samba.session.run(inputs(), [pair.outputs[1]], {"p": 0.0}, ["fwd"])[0].shape == (3, 4, 11)


def test_inputs_go_by_name_and_nones_may_be_left_out(pef: str):
    pair = Pair(pef)
    expected = pair.run(1, ["fwd"])[1]
    ids, _, scale, labels = inputs()
    for given in ((labels, ids, scale), [None, scale, labels, None, ids], (IDS.int(), None, SCALE, LABELS.short())):
        torch.manual_seed(1)
        assert torch.equal(samba.session.run(given, pair.outputs, section_types=["fwd"])[1], expected)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"ids": IDS}, r"input ids: expected int32 of shape \[3, 4\], got int64 of shape \[3, 4\]"),
        ({"scale": SCALE[:4]}, r"input scale: expected float32 of shape \[8\], got float32 of shape \[4\]"),
    ],
)
def test_an_input_of_another_shape_or_type_is_named(pef: str, changed: dict[str, torch.Tensor], reason: str):
    pair = Pair(pef)
    with pytest.raises(SambaError, match=reason):
        samba.session.run(inputs(**changed), pair.outputs)


def test_wrong_calls_get_a_line_each(pef: str, tmp_path: Path):
    pair = Pair(pef)
    ids, _, scale, labels = inputs()
    for given, reason in (
        ((ids, scale), "input labels is missing"),
        ((ids, ids, scale, labels), "input ids is given twice"),
        ((ids, scale.numpy(), labels), "there is a NumPy array among the inputs"),
        ((inputs(ids=IDS.int() + 1)), "input ids: 11 is out of range: embedding embed takes 0 to 10"),
        ((inputs(labels=LABELS.short() - 2)), "input labels: 65535 is out of range: the loss takes 0 to 10"),
        (
            (ids, scale, labels, samba.from_torch_tensor(SCALE, "other")),
            "input other is none of the compiled ones",
        ),
        ((ids, scale, labels, SCALE), "an input of shape \\[8\\] has no name"),
    ):
        with pytest.raises(SambaError, match=reason):
            samba.session.run(given, pair.outputs)
    with pytest.raises(SambaError, match="section_types: 'backward' is none"):
        pair.run(0, ["backward"])
    for values, reason in (
        ({"p": 2.0}, "p is the rate of dropouts, from 0 to 1, and not 2"),
        ({"lr": "fast"}, "hyperparam_dict: lr is a number, and not 'fast'"),
        ([("lr", 1.0)], "hyperparam_dict: a dict of names and numbers, and not a list"),
    ):
        with pytest.raises(SambaError, match=reason):
            samba.session.run(inputs(), pair.outputs, values)
    with pytest.raises(SambaError, match="output_tensors: those that trace_graph returned"):
        samba.session.run(inputs(), "losses")
    with pytest.raises(SambaError, match="loss_indices: there is no output 7"):
        samba.session.run(inputs(), pair.outputs, loss_indices=7)
    pair.outputs[0].sn_grad = 1.0
    with pytest.raises(SambaError, match="sn_grad of output 0: a tensor, and not a float"):
        samba.session.run(inputs(), pair.outputs)
    with pytest.raises(SambaError, match="was not traced"):
        samba.session.to_cpu(Net())
    with pytest.raises(PefError, match="no such file: make one with the program's command compile"):
        samba.utils.trace_graph(pair.ours, inputs(), pair.optimizers, pef=tmp_path / "none.pef")
    with pytest.raises(SambaError, match=r"compile: the model is a torch\.nn\.Module, and not a function"):
        samba.session.compile(optimizers, inputs())
    with pytest.raises(SambaError, match="trace_graph needs a program file"):
        samba.utils.trace_graph(pair.ours, inputs(), pair.optimizers)
    with pytest.raises(SambaError, match="no module was traced"):
        samba.SambaSession().run(inputs())
    with pytest.raises(SambaError, match="two inputs are named ids"):
        samba.utils.trace_graph(pair.ours, (ids, None, ids, labels), pair.optimizers, pef=pef)


def test_a_program_for_training_may_be_traced_without_optimizers_for_fwd_alone(pef: str):
    model = Net().eval()
    with pytest.raises(PefError, match="expected"):
        samba.utils.trace_graph(model, inputs(), pef=pef)
    outputs = samba.utils.trace_graph(model.train(), inputs(), pef=pef)
    assert model.output_tensors is outputs
    result = samba.session.run(inputs(), outputs, {"p": 0.0})
    model.norm.track_running_stats = True
    model.drop.p = 0.0
    close(result[1], model(*inputs())["logits"])
    with pytest.raises(SambaError, match="section opt needs the optimizers: give them to trace_graph as optim"):
        samba.session.run(inputs(), outputs, section_types=["fwd", "opt"])


class Wider(Net):
    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(8, 8, bias=False)


class Louder(Net):
    def forward(self, *args: Any) -> dict[str, torch.Tensor]:
        outputs = super().forward(*args)
        return {**outputs, "logits": self.norm(outputs["logits"][..., :8].flatten(0, 1))}


class Later(Net):
    def __init__(self) -> None:
        super().__init__()
        self.hidden.forward = lambda x: nn.functional.linear(x * 2, self.hidden.weight, self.hidden.bias)


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        (Wider, r"parameter head.bias float32\[11\], got|expected parameter hidden.bias float32\[8\], got"),
        (Louder, r"output 1: expected float32\[3,4,11\], got float32\[12,8\]"),
        (Later, r"in hidden: expected aten.*, got aten.mul.Tensor\(%\d+, 2\)"),
    ],
)
def test_another_graph_is_refused_by_its_first_difference(pef: str, other: type[Net], reason: str):
    model = other()
    with pytest.raises(PefError, match=reason) as caught:
        samba.utils.trace_graph(model, inputs(), optimizers(model), pef=pef)
    assert "\n" not in str(caught.value)


def test_other_inputs_and_other_optimizers_are_refused(pef: str):
    model = Net()
    with pytest.raises(PefError, match=r"input scale: expected float32\[8\], got float32\[1\]"):
        samba.utils.trace_graph(model, inputs(scale=torch.ones(1)), optimizers(model), pef=pef)
    with pytest.raises(PefError, match="expected optimizer AdamW, got optimizer SGD"):
        samba.utils.trace_graph(model, inputs(), optimizers(model)[1], pef=pef)
    with pytest.raises(SambaError, match="not one of the model's"):
        samba.utils.trace_graph(model, inputs(), samba.optim.SGD(Net().parameters(), 0.1), pef=pef)
    with pytest.raises(SambaError, match="not with Adagrad"):
        samba.utils.trace_graph(model, inputs(), torch.optim.Adagrad(model.parameters()), pef=pef)


def test_weights_and_rates_may_be_others_and_a_rate_that_was_not_compiled_still_counts(pef: str, tmp_path: Path):
    pair = Pair(pef, rate=0.0)
    pair.theirs.drop.p = 0.0
    losses, _ = pair.run(2, ["fwd"])
    close(losses, pair.eager(2)["losses"])


@pytest.fixture(scope="module")
def inference(tmp_path_factory: pytest.TempPathFactory) -> str:
    with started_with(inference=True):
        return compiled(tmp_path_factory.mktemp("pefs"), Net(), inputs(), inference=True)


def test_an_inference_program_is_smaller_and_has_the_forward_pass_at_any_rate(pef: str, inference: str):
    assert Path(inference).stat().st_size < 0.7 * Path(pef).stat().st_size
    pair = Pair.__new__(Pair)
    pair.ours = Net()
    pair.theirs = copy.deepcopy(pair.ours)
    with pytest.raises(PefError, match="compiled with --inference, so it trains nothing: trace it without optimizers"):
        samba.utils.trace_graph(pair.ours, inputs(), optimizers(pair.ours), pef=inference)
    pair.outputs = samba.utils.trace_graph(pair.ours, inputs(), pef=inference)
    for seed, rate in ((1, 0.0), (2, 0.5)):
        pair.theirs.drop.p = rate
        close(pair.run(seed, p=rate)[0], pair.eager(seed)["losses"])
    samba.session.to_cpu(pair.ours)
    torch.testing.assert_close(pair.ours.norm.running_mean, pair.theirs.norm.running_mean)
    with pytest.raises(SambaError, match="compiled with --inference, so it has no section bckwd"):
        pair.run(0, ALL)
