"""Program files of traced modules in other processes: without a compiler, as replicas, on another CPU."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from bossa import samba
from bossa.errors import PefError
from bossa.pef.module import ModulePef
from samba.compiled import compiled

PROGRAM = """
import sys
import torch
from torch import nn
from bossa import samba

def net():
    torch.manual_seed(0)
    model = samba.from_torch_model_(nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.2), nn.Linear(3, 2)))
    return model, samba.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

def data(part=slice(None)):
    torch.manual_seed(5)
    return samba.from_torch_tensor(torch.randn(4, 4)[part], "x")
"""
RUN = """
rank = int(sys.argv[2])
model, optimizer = net()
part = slice(2 * rank, 2 * rank + 2)
outputs = samba.utils.trace_graph(model, (data(part),), optimizer, pef=sys.argv[1])
for _ in range(2):
    samba.session.run((data(part),), outputs, {"p": 0.0}, data_parallel=True)
samba.session.to_cpu(model)
print([round(value, 5) for value in torch.cat([p.detach().flatten() for p in model.parameters()]).tolist()])
"""


@pytest.fixture(scope="module")
def pef(tmp_path_factory: pytest.TempPathFactory) -> str:
    space: dict[str, Any] = {}
    exec(PROGRAM, space)
    model, optimizer = space["net"]()
    return compiled(tmp_path_factory.mktemp("pefs"), model, (space["data"](slice(2)),), optimizer)


def eager(parts: list[slice]) -> list[float]:
    """The weights after two steps with the mean of the gradients of the parts."""
    space: dict[str, Any] = {}
    exec(PROGRAM, space)
    model, optimizer = space["net"]()
    model.eval()
    for _ in range(2):
        optimizer.zero_grad()
        for part in parts:
            (model(samba.to_torch(space["data"](part))).sum() / len(parts)).backward()
        optimizer.step()
    return [round(value, 5) for value in torch.cat([p.detach().flatten() for p in model.parameters()]).tolist()]


def start(pef: str, rank: int, **environment: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PROGRAM + RUN, pef, str(rank)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | environment
    )


def printed(process: subprocess.Popen[str]) -> list[float]:
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return json.loads(out)


def test_a_run_needs_no_compiler_and_leaves_nothing_behind(pef: str, tmp_path: Path):
    caches = tmp_path / "caches"
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    nowhere = {"PATH": str(tmp_path), "TORCHINDUCTOR_CACHE_DIR": str(caches), "TMPDIR": str(temporary), "CXX": "none"}
    assert printed(start(pef, 0, **nowhere)) == pytest.approx(eager([slice(0, 2)]), abs=2e-5)
    assert not list(caches.rglob("*.so"))
    assert list(temporary.iterdir()) == []


def test_two_replicas_step_with_the_mean_of_their_gradients(pef: str):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    world = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    processes = [start(pef, rank, RANK=str(rank), **world) for rank in range(2)]
    first, second = [printed(process) for process in processes]
    assert first == second
    assert first == pytest.approx(eager([slice(0, 2), slice(2, 4)]), abs=2e-5)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"torch_version": "1.0.0"}, r"compiled by torch 1\.0\.0, and this is"),
        ({"features": ["avx512_none"]}, "compiled for a CPU with .* avx512_none, which this is not"),
        ({"target": "other"}, "compiled for a CPU with other"),
    ],
)
def test_code_for_another_machine_is_refused(pef: str, change: dict[str, Any], reason: str, tmp_path: Path):
    space: dict[str, Any] = {}
    exec(PROGRAM, space)
    model, optimizer = space["net"]()
    with ModulePef.open(pef) as opened:
        members = {name: opened.member(name) for name in opened.names() if name != "manifest.json"}
        other = ModulePef.build(opened.manifest.to_json() | change, members).save(tmp_path / "other.pef")
    with pytest.raises(PefError, match=reason):
        samba.utils.trace_graph(model, (space["data"](slice(2)),), optimizer, pef=other)


def test_a_damaged_section_is_never_loaded(pef: str, tmp_path: Path):
    space: dict[str, Any] = {}
    exec(PROGRAM, space)
    model, optimizer = space["net"]()
    data = bytearray(Path(pef).read_bytes())
    with ModulePef.open(pef) as opened:
        code = bytes(opened.member("fwd.so"))
    data[data.index(code) + len(code) // 2] ^= 1
    path = tmp_path / "damaged.pef"
    path.write_bytes(data)
    with pytest.raises(PefError, match=r"member 'fwd\.so' has a wrong SHA-256"):
        samba.utils.trace_graph(model, (space["data"](slice(2)),), optimizer, pef=path)


def test_the_work_may_be_done_twice_in_one_process(pef: str, tmp_path: Path):
    inputs = (torch.ones(1, 3),)
    paths = [compiled(tmp_path, nn.Linear(3, 2), inputs, inference=True, name="model") for _ in range(2)]
    assert paths == [str(tmp_path / "linear" / "linear.pef")] * 2, "the command line names the file, not name="
    with ModulePef.open(paths[0]) as opened:
        assert opened.manifest.name == "model"
    x = samba.from_torch_tensor(torch.ones(1, 3), "input_0")
    for _ in range(2):
        model = nn.Linear(3, 2)
        outputs = samba.utils.trace_graph(model, (x,), pef=paths[0])
        ours = samba.session.run((x,), outputs)
        torch.testing.assert_close(samba.to_torch(ours[0]), model(torch.ones(1, 3)).detach())
