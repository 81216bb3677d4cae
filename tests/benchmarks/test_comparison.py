"""Which engines run, in which settings, and what happens to those that fail."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

import serve
import setup_peers
from comparison import session
from comparison.cases import JobCase, RateCase, counts, job_cases, rate_cases
from comparison.engines import Engine, find_engines
from comparison.results import Figure
from comparison.running import ServingWorker, WorkerFailed, run_job

WORKER = """
import serve, sys

class Toy:
    def __init__(self, model, tokenizer, threads):
        if model == "broken":
            sys.exit("this model is broken")
        print("a library's own line")

    def prefill(self, length, repeat, settings):
        if settings.get("wrong"):
            raise ValueError("no such setting")
        return [length * settings.get("factor", 1.0)] * repeat

    def decode(self, batch, context, steps, repeat, settings):
        return [float(batch + context + steps)] * repeat

    def generate(self, prompts, new, settings):
        return len(prompts) * new - settings.get("short", 0)

serve.main(Toy)
"""


@pytest.fixture
def worker(tmp_path):
    """The command of a worker whose engine is arithmetic."""
    script = tmp_path / "toy_worker.py"
    folder = str(Path(serve.__file__).parent)
    script.write_text(f"import sys\nsys.path.insert(0, {folder!r})\n{WORKER}")
    return lambda model="toy": [sys.executable, str(script), "--model", model, "--threads", "1"]


def test_a_worker_answers_and_what_libraries_print_is_no_answer(worker):
    running = ServingWorker(worker())
    try:
        assert running.ask(RateCase("prefill", 128).request(2, {"factor": 2.0})) == [256.0, 256.0]
        assert running.ask(RateCase("decode", 8).request(1, {})) == [8.0 + 32 + 32]
        with pytest.raises(WorkerFailed, match="no such setting"):
            running.ask(RateCase("prefill", 128).request(1, {"wrong": True}))
        assert running.ask(RateCase("prefill", 1).request(1, {})) == [1.0]  # it goes on
    finally:
        running.close()


def test_a_worker_that_does_not_start_says_why(worker):
    with pytest.raises(WorkerFailed, match="this model is broken"):
        ServingWorker(worker("broken"))


def test_a_whole_process_is_timed_and_its_tokens_are_counted(worker, tmp_path):
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("".join(json.dumps({"prompt": f"text {i}"}) + "\n" for i in range(5)))
    run = run_job(worker(), str(prompts), 3, 20, {}, {})
    assert run.tokens == 60
    assert 0 < run.seconds < 60
    assert run.peak_bytes > 1_000_000
    with pytest.raises(WorkerFailed, match="59 tokens instead of 60"):
        run_job(worker(), str(prompts), 3, 20, {"short": 1}, {})
    with pytest.raises(WorkerFailed, match="this model is broken"):
        run_job(worker("broken"), str(prompts), 3, 20, {}, {})


def test_rounds_run_every_engine_in_every_case_and_leave_out_what_fails(worker, monkeypatch, capsys):
    def engine(name: str, model: str) -> Engine:
        return Engine(name, "fp32", 32, "", "", Path(model), Path())

    good, broken = engine("Bossa", "toy"), engine("peer", "broken")
    monkeypatch.setattr(Engine, "command", lambda self, threads: worker(str(self.model)))
    monkeypatch.setattr(Engine, "rate_settings", lambda self, case: [{"factor": 1.0}, {"factor": 3.0}, {"wrong": True}])
    kept = []
    cases = rate_cases([16], [2])
    found = session.run_rates([good, broken], cases, 2, 1, 1, lambda figures: kept.append(len(figures)))
    assert [(figure.case, figure.round, figure.value) for figure in found] == [
        ("prefill 16", 0, 48.0), ("decode B2", 0, 66.0), ("prefill 16", 1, 48.0), ("decode B2", 1, 66.0),
    ]  # fmt: skip
    assert found[0].settings == {"factor": 3.0}
    assert kept == [2, 4]
    assert "peer fp32: left out, it does not start: this model is broken" in capsys.readouterr().err


def test_each_round_starts_with_another_engine():
    assert [session.in_turn("abc", number) for number in range(4)] == [  # type: ignore[arg-type]
        ["a", "b", "c"], ["b", "c", "a"], ["c", "a", "b"], ["a", "b", "c"],
    ]  # fmt: skip


def test_settings_that_do_not_run_are_passed_over():
    def measure(settings):
        if settings["x"] == 1:
            raise WorkerFailed("does not run")
        return settings["x"]

    assert session.choose([{"x": 1}, {"x": 5}, {"x": 3}], measure, higher=False) == {"x": 3}
    with pytest.raises(WorkerFailed, match="does not run"):
        session.choose([{"x": 1}, {"x": 1}], measure, higher=True)


def test_many_prompts_are_run_by_engines_that_kept_up_with_few():
    few, many = job_cases(957)[1:]
    seconds = {"Bossa fp32 cold": 9, "Bossa fp32 warm": 5, "Bossa int8 cold": 9, "Bossa int8 warm": 3}
    seconds |= {"llama.cpp f32": 3.1, "llama.cpp q8_0": 2, "OpenVINO int8": 3}
    figures = [Figure(few.name, name, name.split()[0], 8, 0, value, {}) for name, value in seconds.items()]
    figures.append(Figure("one prompt, one token", "llama.cpp f32", "llama.cpp", 32, 0, 0.1, {}))
    names = [name.removesuffix(" cold") for name in seconds if not name.endswith(" warm")]
    engines = [Engine(*name.split(), 8, "", "", Path(), Path()) for name in names]
    assert [engine.name for engine in session.keep_up(engines, many, figures)] == [
        "Bossa int8", "llama.cpp q8_0", "OpenVINO int8",
    ]  # fmt: skip


def test_what_is_not_installed_is_left_out_and_said(tmp_path):
    checkpoint = tmp_path / "tiny"
    models = tmp_path / "work" / "models" / "tiny"
    for folder in (checkpoint, models):
        folder.mkdir(parents=True)
    (models / "llamacpp-q8_0.gguf").touch()
    pythons = {"bossa": sys.executable, "llamacpp": sys.executable}
    found, missing = find_engines(tmp_path / "work", checkpoint, pythons)
    assert [engine.name for engine in found] == ["llama.cpp q8_0"]
    assert any(line.startswith("Bossa int4: left out, there is no") for line in missing)
    assert any(line.startswith("OpenVINO fp32: left out, there is no") and "python" in line for line in missing)
    only, _ = find_engines(tmp_path / "work", checkpoint, pythons, ["CTranslate2"])
    assert only == []


@pytest.mark.parametrize("family", ["Bossa", "llama.cpp", "CTranslate2", "OpenVINO", "transformers"])
def test_every_engine_has_settings_for_every_case(family):
    engine = Engine(family, "int8", 8, "", "", Path(), Path())
    for case in rate_cases([128], [1, 8]):
        settings = engine.rate_settings(case)
        assert settings
        assert all(settings.count(one) == 1 for one in settings)
    for job in job_cases(957):
        assert engine.job_settings(job)
        assert json.dumps(engine.job_settings(job))


def test_jobs_are_those_that_the_file_has_prompts_for():
    assert [(case.prompts, case.new) for case in job_cases(957)] == [(1, 1), (20, 20), (957, 20)]
    assert job_cases(5)[-1] == JobCase("20 prompts, 20 tokens each", 5, 20)


def test_counts_are_a_list_and_may_be_none():
    assert counts("128, 512") == [128, 512]
    assert counts("") == []
    with pytest.raises(ValueError, match="start at 1"):
        counts("0")


def test_a_conversion_that_fails_leaves_nothing_and_the_rest_is_made(tmp_path, capsys):
    target = tmp_path / "models" / "made"
    fails = [sys.executable, "-c", "import sys, pathlib; pathlib.Path(sys.argv[1]).touch(); sys.exit('no')", "{target}"]
    assert not setup_peers.make(target, fails)
    assert list(target.parent.iterdir()) == []
    works = [sys.executable, "-c", "import sys, pathlib; pathlib.Path(sys.argv[1]).write_text('x')", "{target}"]
    assert setup_peers.make(target, works)
    assert target.read_text() == "x"
    assert setup_peers.make(target, fails)  # it is there already


def test_the_program_is_taken_out_of_the_folders_that_it_is_compiled_into(tmp_path):
    target = tmp_path / "bossa-fp32.pef"
    script = "import sys, pathlib; p = pathlib.Path(sys.argv[1], 'a', 'a.pef'); p.parent.mkdir(parents=True); p.touch()"
    assert setup_peers.make(target, [sys.executable, "-c", script, "{target}"])
    assert [path.name for path in tmp_path.iterdir()] == ["bossa-fp32.pef"]
    assert target.is_file()


def test_a_python_is_given_by_engine():
    assert setup_peers.named_pythons(["llamacpp=/a/python"]) == {"llamacpp": "/a/python"}
    with pytest.raises(SystemExit, match="write ENGINE=PATH"):
        setup_peers.named_pythons(["llama=/a/python"])


def test_peers_are_installed_with_the_torch_that_the_constraints_pin():
    for engine in setup_peers.PACKAGES:
        python, *command = setup_peers.install(engine, "python")
        assert (python, command[:4]) == ("python", ["-m", "pip", "install", "-q"])
        assert "torch" not in command
        assert ("-c" in command) == (engine == "transformers")
        named = [part for part in command[4:] if not part.startswith("-") and part != str(setup_peers.CONSTRAINTS)]
        assert len(named) == len(setup_peers.PACKAGES[engine])


def test_openvino_computes_in_the_bits_that_it_is_compared_in():
    def engine(precision: str, bits: int) -> Engine:
        return Engine("OpenVINO", precision, bits, "python", "openvino", Path("model"), Path("checkpoint"))

    case = RateCase("decode", 8)
    for precision, bits, hint in (("fp32", 32, "f32"), ("bf16", 16, "bf16")):
        for settings in engine(precision, bits).rate_settings(case):
            assert settings["properties"] == {"INFERENCE_PRECISION_HINT": hint}
    assert {} in [settings.get("properties", {}) for settings in engine("int8", 8).rate_settings(case)]
