"""Wrong input to the real compiler and loader: one line that says what, where and what to do, and exit code 2."""

from __future__ import annotations

import importlib.util
import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from bossa.pef import FORMAT_VERSION, Pef

pytestmark = pytest.mark.end_to_end


@pytest.fixture(autouse=True)
def _cache(weight_cache, monkeypatch):
    monkeypatch.setenv("BOSSA_CACHE", str(weight_cache))


@pytest.fixture
def run(bossa, tiny_pef, tiny_model):
    """Run the small program on one prompt, with the small model's weights unless the options say otherwise."""

    def call(*options, pef=tiny_pef, model=tiny_model):
        weights = () if model is None else ("--model_name_or_path", model)
        return bossa("run", "-p", pef, *weights, "--prompt", "The film", "--max_tokens_to_generate", "8", *options)

    return call


@pytest.fixture(scope="module")
def tensors(tiny_model):
    return load_file(tiny_model / "model.safetensors")


def refused(result, *words: str) -> None:
    """Exit code 2, nothing on standard output, and one line on stderr with all of the words in it."""
    assert (result.code, result.out) == (2, ""), result
    assert result.err.startswith("bossa: ")
    assert result.err.count("\n") == 1, result.err
    for word in words:
        assert word in result.err


def rebuilt(pef: Path, to: Path, rename=lambda name: name, **fields) -> Path:
    """The same file with other fields in its manifest, or members under other names."""
    opened = Pef.open(pef)
    members = {rename(name): opened.member(name) for name in opened.names() if name != "manifest.json"}
    return Pef.build(opened.manifest.to_json() | fields, members).save(to)


# No such model or file


@pytest.mark.parametrize("model", ["./nothing", "nothing.gguf", "/nowhere/at/all"])
def test_a_model_that_is_not_there_is_not_compiled(bossa, tmp_path, model):
    result = bossa("compile", model, "--output-folder", tmp_path / "out")
    refused(result, model, "no such")
    assert not (tmp_path / "out").exists()


def test_a_program_file_that_is_not_there_is_named(run):
    refused(run(pef="nothing.pef"), "nothing.pef: no such file", "bossa compile")


@pytest.mark.parametrize("option", ["--model_name_or_path", "--checkpoint_name"])
@pytest.mark.parametrize("name", ["./nothing", "nothing.safetensors", "nothing.pt"])
def test_weights_that_are_not_there_are_named(run, option, name):
    refused(run(option, name, model=None), f"{name}: no such model or file")


def test_a_model_that_the_hub_cannot_be_asked_for_is_refused(tiny_pef, tmp_path):
    for arguments in (
        ["compile", "nobody/nothing", "--output-folder", str(tmp_path / "out")],
        ["run", "-p", str(tiny_pef), "--model_name_or_path", "nobody/nothing", "--prompt", "a"],
    ):
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
        result = subprocess.run(
            [sys.executable, "-m", "bossa", *arguments], capture_output=True, text=True, env=environment, check=False
        )
        assert (result.returncode, result.stdout) == (2, "")
        (line,) = [line for line in result.stderr.splitlines() if not line.startswith("  ")]
        assert line.startswith("bossa: nobody/nothing: no such ")
    assert not (tmp_path / "out").exists()


# Program files


def test_a_damaged_program_file_is_refused_by_its_member(run, tiny_pef, tmp_path):
    data = bytearray(tiny_pef.read_bytes())
    place = data.index(b"\x7fELF") + 5000
    data[place] ^= 1
    (tmp_path / "x.pef").write_bytes(data)
    refused(run(pef=tmp_path / "x.pef"), "x.pef: this PEF is damaged: member 'program.", "copy the file again")


@pytest.mark.parametrize("keep", [0, 10, 5000, -1])
def test_a_program_file_that_is_cut_short_is_refused(run, tiny_pef, tmp_path, keep):
    (tmp_path / "x.pef").write_bytes(tiny_pef.read_bytes()[:keep])
    refused(run(pef=tmp_path / "x.pef"), "x.pef")


@pytest.mark.parametrize(("by", "says"), [(1, ("newer Bossa", "upgrade")), (-1, ("older Bossa", "compile"))])
def test_a_program_file_of_another_format_says_what_to_do(run, tiny_pef, tmp_path, monkeypatch, by, says):
    version, opened = FORMAT_VERSION + by, Pef.open(tiny_pef)
    members = {name: opened.member(name) for name in opened.names() if name != "manifest.json"}
    with monkeypatch.context() as other:
        other.setattr("bossa.pef.program_file.FORMAT_VERSION", version)
        other.setattr("bossa.pef.manifest.FORMAT_VERSION", version)
        pef = Pef.build(opened.manifest.to_json(), members).save(tmp_path / "x.pef")
    refused(run(pef=pef), "x.pef", f"format version {version}", *says)


def test_a_program_for_another_cpu_is_refused_before_weights_are_read(run, tiny_pef, tmp_path, weight_cache):
    own = Pef.open(tiny_pef).manifest.targets[0]
    pef = rebuilt(tiny_pef, tmp_path / "x.pef", lambda name: name.replace(own, "sparc"), targets=["sparc"])
    result = run(pef=pef, model=tmp_path)
    refused(result, "x.pef", "compiled for sparc", "--target portable", "--rebuild")


# Weights


def test_a_program_without_weights_says_how_to_give_them(run):
    refused(run(model=None), "has no weights", "--model_name_or_path", "--bundle")


def test_weights_of_another_architecture_are_refused(run, tmp_path):
    names = [f"model.layers.{n}.{part}.weight" for n in range(2) for part in ("self_attn.q_proj", "mlp.up_proj")]
    save_file({name: np.ones((8, 8), np.float32) for name in names}, tmp_path / "llama.safetensors")
    refused(run("--checkpoint_name", tmp_path / "llama.safetensors"), "llama.safetensors", "another architecture")


def test_all_that_is_missing_misshaped_or_too_much_is_listed_at_once(run, tensors, tmp_path):
    changed = dict(tensors)
    del changed["transformer.h.1.ln_1.weight"], changed["transformer.ln_f.bias"]
    changed["transformer.wpe.weight"] = np.zeros((64, 32), np.float32)
    changed["surprise.weight"] = np.zeros(3, np.float32)
    save_file(changed, tmp_path / "x.safetensors")
    refused(
        run("--checkpoint_name", tmp_path / "x.safetensors"),
        *(
            "missing: ",
            "h.1.ln_1.weight",
            "ln_f.bias",
            "of another shape: ",
            "wpe.weight [64, 32] instead of [128, 32]",
        ),
        *("not part of the program: surprise.weight", "pass weights of the model"),
    )


@pytest.mark.parametrize("prefix", ["", "transformer.", "module.", "_orig_mod.", "model.", "module._orig_mod.model."])
def test_prefixes_of_training_frameworks_are_understood(run, tensors, tmp_path, prefix):
    bare = {name.removeprefix("transformer."): array for name, array in tensors.items()}
    save_file({prefix + name: array for name, array in bare.items()}, tmp_path / "x.safetensors")
    own, renamed = run(), run("--checkpoint_name", tmp_path / "x.safetensors")
    assert (renamed.code, renamed.out) == (0, own.out)


def test_the_mask_buffers_of_old_gpt2_files_are_passed_over(run, tensors, tmp_path):
    buffers = {f"transformer.h.{n}.attn.bias": np.ones((1, 1, 128, 128), np.uint8) for n in range(2)}
    buffers |= {f"transformer.h.{n}.attn.masked_bias": np.full((), -1e4, np.float32) for n in range(2)}
    save_file({**tensors, **buffers}, tmp_path / "x.safetensors")
    own, old = run(), run("--checkpoint_name", tmp_path / "x.safetensors")
    assert (old.code, old.out) == (0, own.out)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_numbers_are_refused_and_not_kept(run, tensors, tmp_path, monkeypatch, value):
    monkeypatch.setenv("BOSSA_CACHE", str(tmp_path / "cache"))
    wrong = tensors["transformer.h.1.mlp.c_fc.weight"].copy()
    wrong[3, 4] = value
    save_file({**tensors, "transformer.h.1.mlp.c_fc.weight": wrong}, tmp_path / "x.safetensors")
    refused(run("--checkpoint_name", tmp_path / "x.safetensors"), "x.safetensors", "h.1.mlp.c_fc.weight")
    assert list((tmp_path / "cache" / "weights").iterdir()) == []


class Code:
    """What unpickling would run."""

    def __reduce__(self):
        return os.mkdir, ("executed",)


def test_a_checkpoint_with_code_in_it_is_refused_and_not_run(run, tmp_path, monkeypatch):
    import torch

    monkeypatch.chdir(tmp_path)
    torch.save({"transformer.wte.weight": torch.zeros(3), "code": Code()}, "x.pt")
    Path("y.bin").write_bytes(pickle.dumps(Code()))
    for name in ("x.pt", "y.bin"):
        refused(run("--checkpoint_name", name), name, "could run code", "safetensors")
    assert not Path("executed").exists()


def test_a_torch_checkpoint_runs_like_the_safetensors_one(run, tensors, tmp_path):
    import torch

    torch.save({name: torch.from_numpy(array) for name, array in tensors.items()}, tmp_path / "x.pt")
    own, checkpoint = run(), run("--checkpoint_name", tmp_path / "x.pt")
    assert (checkpoint.code, checkpoint.out) == (0, own.out)


def test_a_torch_checkpoint_without_torch_says_what_to_do(tiny_pef, tiny_model, tmp_path):
    (tmp_path / "x.pt").write_bytes(b"\x80\x02 not looked at")
    blocked = "import sys; sys.modules['torch'] = None; from bossa.cli import main; sys.exit(main())"
    arguments = ["run", "-p", str(tiny_pef), "--checkpoint_name", str(tmp_path / "x.pt"), "--prompt", "a"]
    result = subprocess.run([sys.executable, "-c", blocked, *arguments], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == (
        f"bossa: {tmp_path / 'x.pt'}: reading torch files needs torch: install bossa[compile], or convert the file to"
        " safetensors\n"
    )


# Models


def without_tokenizer(model: Path, folder: Path) -> Path:
    shutil.copytree(model, folder)
    for path in folder.glob("*token*"):
        path.unlink()
    return folder


def test_a_model_without_a_tokenizer_says_what_to_pass(run, tiny_pef, tiny_model, tmp_path):
    members = {name for name in Pef.open(tiny_pef).names() if name.startswith("tokenizer/")}
    opened = Pef.open(tiny_pef)
    kept = {name: opened.member(name) for name in opened.names() if name not in {"manifest.json", *members}}
    bare = Pef.build(opened.manifest.to_json(), kept).save(tmp_path / "bare.pef")
    model = without_tokenizer(tiny_model, tmp_path / "model")
    refused(run(pef=bare, model=model), "no tokenizer", "--model_name_or_path")
    refused(run("--chat", pef=bare, model=model), "tokenizer", "--model_name_or_path")
    assert run(pef=bare, model=tiny_model).code == 0
    (model / "tokenizer.model").write_bytes(b"\x0a\x0e")
    refused(run(pef=bare, model=model), "has a tokenizer.model but no tokenizer.json", "convert it")
    (model / "tokenizer.json").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    refused(run(pef=bare, model=model), "is a Git LFS pointer", "git lfs pull")


def test_a_model_with_code_of_its_own_needs_leave(bossa, tmp_path):
    folder = tmp_path / "own"
    folder.mkdir()
    auto_map = {"AutoConfig": "configuration_own.OwnConfig", "AutoModelForCausalLM": "modeling_own.OwnModel"}
    (folder / "config.json").write_text(json.dumps({"model_type": "own", "auto_map": auto_map}))
    (folder / "configuration_own.py").write_text(f"import os\nos.mkdir({str(tmp_path / 'executed')!r})\n")
    result = bossa("compile", folder, "--output-folder", tmp_path / "out")
    assert (result.code, result.out) == (2, "")
    assert "its own code" in result.err.splitlines()[-1]
    assert "--trust-remote-code" in result.err.splitlines()[-1]
    assert not (tmp_path / "executed").exists()
    assert not (tmp_path / "out").exists()


def test_no_compiler_says_how_to_get_one(bossa, tiny_model, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr("bossa.targets.cpu.toolchain.importlib.util.find_spec", lambda name: None)
    result = bossa("compile", tiny_model, "--output-folder", tmp_path / "out")
    assert (result.code, result.out) == (2, "")
    last = result.err.splitlines()[-1]
    assert last.startswith("bossa: no C++ compiler: install g++ or clang")
    assert "pip install ziglang" in last
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("ziglang") is None, reason="the package ziglang is not installed")
def test_ziglang_compiles_where_there_is_no_other_compiler(tiny_model, tmp_path):
    environment = {**os.environ, "PATH": str(tmp_path), "BOSSA_CACHE": str(tmp_path / "cache")}
    environment.pop("CXX", None)
    bossa = [sys.executable, "-m", "bossa"]
    compiled = subprocess.run(
        [*bossa, "compile", str(tiny_model), "--output-folder", str(tmp_path / "out"), "--pef-name", "zig"],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert compiled.returncode == 0, compiled.stderr
    pef = compiled.stdout.splitlines()[-1]
    arguments = ["run", "-p", pef, "--model_name_or_path", str(tiny_model), "--prompt", "The film"]
    assert subprocess.run([*bossa, *arguments], capture_output=True, env=environment, check=False).returncode == 0


@pytest.mark.parametrize("value", [{"a": 1}, ["1"], 1.5, "x", True])
@pytest.mark.parametrize("member", ["config.json", "generation_config.json"])
def test_an_end_token_that_is_none_is_refused_when_a_program_is_loaded(run, tiny_pef, tmp_path, member, value):
    opened = Pef.open(tiny_pef)
    members = {name: opened.member(name) for name in opened.names() if name != "manifest.json"}
    members["generation_config.json"] = b"{}"
    members[member] = json.dumps({"eos_token_id": value}).encode()
    pef = Pef.build(opened.manifest.to_json(), members).save(tmp_path / "x.pef")
    refused(run(pef=pef), f"x.pef: {member}: eos_token_id is {value!r}; it must be a token id or a list of token ids")
