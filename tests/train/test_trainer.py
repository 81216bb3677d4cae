"""Runs: what they write, how they go on, and how they end."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from bossa.errors import BossaError, DatasetError, TrainError
from bossa.host.signals import Interrupted
from bossa.train import trainer
from bossa.train.log import read_log
from support import tokenizers
from support.training import Silent, run, save_model, write_data, write_rows


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"))


def curve(folder: Path) -> list[dict[str, Any]]:
    """All numbers of a log but times."""
    return [{name: value for name, value in entry.items() if name != "seconds"} for entry in read_log(folder)]


def test_a_run_learns_and_writes_a_checkpoint_that_transformers_reads(model: Path, data: Path, tmp_path: Path):
    watcher = Silent()
    result = run(model, data, tmp_path, watcher, steps=40, eval_steps=20)
    assert watcher.evaluations[-1][1].loss < 0.7 * float(watcher.steps[0].loss)
    assert result.checkpoint == tmp_path / "best"
    read = AutoModelForCausalLM.from_pretrained(result.checkpoint)
    assert read.config.model_type == "llama"
    assert {"log.jsonl", "curve.svg", "curve.png", "events", "state.pt", "best", "last"} <= set(os.listdir(tmp_path))
    steps = [entry for entry in read_log(tmp_path) if "loss" in entry]
    assert [entry["step"] for entry in steps] == list(range(1, 41))
    assert all(entry["useful_tokens"] == entry["computed_tokens"] for entry in steps)
    assert list((tmp_path / "events").iterdir())


class _Stopping(Silent):
    """Sends a signal after a step."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self._after = after

    def stepped(self, step: Any) -> None:
        super().stepped(step)
        if step.number == self._after:
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize("settings", [{}, {"lora_rank": 2, "lora_dropout": 0.1}], ids=["full", "lora"])
def test_a_run_that_was_ended_goes_on_bit_for_bit(model: Path, data: Path, tmp_path: Path, settings: dict[str, Any]):
    settings = {"steps": 7, "eval_steps": 3, "dropout": 0.1, **settings}
    run(model, data, tmp_path / "whole", **settings)
    with pytest.raises(Interrupted):
        run(model, data, tmp_path / "parts", _Stopping(2), **settings)
    with pytest.raises(Interrupted):
        run(model, data, tmp_path / "parts", _Stopping(5), **settings)
    watcher = Silent()
    run(model, data, tmp_path / "parts", watcher, **settings)
    assert [step.number for step in watcher.steps] in ([6, 7], [7])  # what came before is not done again
    assert curve(tmp_path / "parts") == curve(tmp_path / "whole")
    weights = [torch.load(tmp_path / name / "state.pt", weights_only=True)["weights"] for name in ("whole", "parts")]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_what_came_after_the_last_save_is_done_again_to_the_same_bits(
    model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    settings = {"steps": 6, "eval_steps": 6, "save_steps": 2}
    run(model, data, tmp_path / "whole", **settings)

    class Lost(Silent):
        def stepped(self, step: Any) -> None:
            if step.number == 5:
                raise KeyError("gone")  # as if the process were killed: nothing is saved

    with pytest.raises(KeyError):
        run(model, data, tmp_path / "parts", Lost(), **settings)
    assert [entry["step"] for entry in read_log(tmp_path / "parts")] == [1, 2, 3, 4, 5]
    run(model, data, tmp_path / "parts", **settings)
    assert curve(tmp_path / "parts") == curve(tmp_path / "whole")


def test_other_settings_are_refused_by_name(model: Path, data: Path, tmp_path: Path):
    run(model, data, tmp_path / "out")
    with pytest.raises(TrainError, match=r"learning_rate was 0\.01 and is 0\.02\)"):
        run(model, data, tmp_path / "out", learning_rate=2e-2)
    with pytest.raises(TrainError, match="data was"):
        run(model, write_data(tmp_path / "other", train=20), tmp_path / "out")
    run(model, data, tmp_path / "out", learning_rate=2e-2, resume=False)


def test_a_finished_run_is_not_run_again(model: Path, data: Path, tmp_path: Path):
    first = run(model, data, tmp_path)
    watcher = Silent()
    assert run(model, data, tmp_path, watcher) == first
    assert watcher.steps == []


def test_a_loss_that_is_not_finite_stops_the_run_and_leaves_the_last_checkpoint(
    model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    run(model, data, tmp_path, steps=2, eval_steps=1, lr_schedule="constant", warmup=0)
    kept = (tmp_path / "state.pt").read_bytes()
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    state["finished"], state["identity"]["steps"] = None, 9
    torch.save(state, tmp_path / "state.pt")
    kept = (tmp_path / "state.pt").read_bytes()
    monkeypatch.setattr(trainer, "total_weight", lambda *_given: 0.0)
    with pytest.raises(TrainError, match=r"the loss of step 3 is (inf|nan).*keeps what was saved last"):
        run(model, data, tmp_path, steps=9, eval_steps=1, lr_schedule="constant", warmup=0)
    assert (tmp_path / "state.pt").read_bytes() == kept


def test_accumulation_and_small_passes_change_nothing_but_the_order_of_sums(model: Path, data: Path, tmp_path: Path):
    run(model, data, tmp_path / "once", batch_size=8)
    run(model, data, tmp_path / "parts", batch_size=4, accumulation=2, tokens_per_pass=24)
    losses = [[entry["loss"] for entry in curve(tmp_path / name) if "loss" in entry] for name in ("once", "parts")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_activation_checkpointing_gives_the_same_losses(model: Path, data: Path, tmp_path: Path):
    for name, lora_rank in (("full", None), ("lora", 2)):
        found = []
        for wanted in (False, True):
            output = tmp_path / f"{name}-{wanted}"
            run(model, data, output, activation_checkpointing=wanted, lora_rank=lora_rank)
            found.append([entry["loss"] for entry in curve(output) if "loss" in entry])
        assert found[0] == pytest.approx(found[1], rel=1e-6)


def test_bf16_stays_close_to_fp32(model: Path, data: Path, tmp_path: Path):
    for name, lora_rank in (("full", None), ("lora", 2)):
        found = []
        for wanted in ("off", "on"):
            output = tmp_path / f"{name}-{wanted}"
            run(model, data, output, bf16=wanted, lora_rank=lora_rank, learning_rate=1e-4)
            found.append([entry["loss"] for entry in curve(output) if "loss" in entry])
        assert found[0] == pytest.approx(found[1], rel=2e-2)
        assert found[0] != found[1]


def test_a_run_stops_at_the_accuracy_that_is_asked_for(model: Path, data: Path, tmp_path: Path):
    result = run(model, data, tmp_path / "reached", min_eval_acc=0.0)
    assert "--min_eval_acc 0.0 is reached" in result.reason
    assert read_log(tmp_path / "reached")[-1]["step"] == 2
    with pytest.raises(TrainError, match=r"--min_eval_acc 1\.0 was not reached"):
        run(model, data, tmp_path / "missed", min_eval_acc=1.0, learning_rate=1e-7)
    assert (tmp_path / "missed" / "best" / "config.json").exists()


def test_patience_ends_a_run_that_grows_no_better(model: Path, data: Path, tmp_path: Path):
    result = run(model, data, tmp_path, steps=30, eval_steps=1, patience=2, learning_rate=1e-12)
    assert "no evaluation of the last 2 was better" in result.reason


def test_a_model_of_random_weights_is_trained_from_its_config(model: Path, data: Path, tmp_path: Path):
    from bossa.train.processes import Processes
    from bossa.train.settings import Settings

    config = tmp_path / "config.json"
    config.write_bytes((model / "config.json").read_bytes())
    settings = Settings(
        model=None, config_name=str(config), data_dir=data, output=tmp_path / "out", steps=2, batch_size=2,
        checkpoint_format="pt", checkpoint_name=tmp_path / "mine.pt",
    )  # fmt: skip
    result = trainer.train(settings, Processes(), Silent())
    states = [
        torch.load(path, weights_only=True) for path in (result.checkpoint / "checkpoint.pt", tmp_path / "mine.pt")
    ]
    assert all(type(given) is torch.Tensor for given in states[0].values())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def spoil(folder: Path, **changed: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changed))


def test_what_is_wrong_with_model_or_data_is_said_before_any_step(data: Path, tmp_path: Path):
    def refused(kind: type[BossaError], words: str, model: Path, data: Path = data, **settings: Any) -> None:
        with pytest.raises(kind, match=words):
            run(model, data, tmp_path / "out", **settings)

    good = save_model(tmp_path / "good")
    refused(DatasetError, "no such folder", good, tmp_path / "nowhere")
    refused(DatasetError, "has no train_1_of_N", good, write_data(tmp_path / "empty", train=0))
    refused(DatasetError, "has no dev_1_of_N", good, write_data(tmp_path / "no dev", dev=0), min_eval_acc=0.5)
    long = write_data(tmp_path / "long")
    write_rows(long / "train_1_of_1.hdf5", [[5] * 80], [[0] * 79 + [1]])
    refused(DatasetError, "80 tokens, and the model has positions for 64", good, long)
    other = write_data(tmp_path / "other")
    (other / "metadata.yaml").write_text("vocab_size: 50257\nmax_seq_length: 32\n")
    refused(DatasetError, "vocab_size is 50257, and the model has 199", good, other)
    (other / "metadata.yaml").write_text("vocab_size: 199\nmax_seq_length: 32\n")
    refused(DatasetError, "max_seq_length is 32, and --max_seq_length 64", good, other, max_seq_length=64)
    quantized = save_model(tmp_path / "quantized")
    spoil(quantized, quantization_config={"quant_method": "awq", "bits": 4})
    refused(BossaError, "the weights are quantized by awq", quantized)
    deeper = save_model(tmp_path / "deeper")
    spoil(deeper, num_hidden_layers=3)
    refused(TrainError, "lacks model.layers.2.*another architecture", deeper)
    wider = save_model(tmp_path / "wider")
    spoil(wider, intermediate_size=96)
    refused(BossaError, "another shape of|cannot be read", wider)


def test_a_tokenizer_beside_the_data_must_be_the_models_own(tmp_path: Path):
    model, data = save_model(tmp_path / "model"), write_data(tmp_path / "data")
    (model / "tokenizer.json").write_text(tokenizers.byte_level())
    (model / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    spoil(model, vocab_size=199)
    (data / "tokenizer").mkdir()
    theirs = data / "tokenizer" / "tokenizer.json"
    theirs.write_text(tokenizers.byte_level())
    result = run(model, data, tmp_path / "out", steps=1)
    assert (result.checkpoint / "tokenizer.json").exists()
    theirs.write_text(tokenizers.byte_fallback())
    with pytest.raises(DatasetError, match=r"made with another tokenizer: .* is token"):
        run(model, data, tmp_path / "out", steps=1)


def test_two_runs_do_not_write_to_one_folder(model: Path, data: Path, tmp_path: Path):
    class Second(Silent):
        def stepped(self, step: Any) -> None:
            with pytest.raises(TrainError, match="another run is writing there"):
                run(model, data, tmp_path)

    run(model, data, tmp_path, Second(), steps=1)


def test_a_save_that_fails_is_said_in_one_line_and_keeps_what_was_there(
    model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    class Full(Silent):
        def stepped(self, step: Any) -> None:
            if step.number == 3:

                def full(*_given: object) -> None:
                    raise OSError(28, "No space left on device")

                monkeypatch.setattr(os, "fsync", full)

    with pytest.raises(TrainError, match=r"cannot be written \(No space left on device\): what was saved before"):
        run(model, data, tmp_path, Full())
    monkeypatch.undo()
    assert torch.load(tmp_path / "state.pt", weights_only=True)["step"] == 2
    assert not [name for name in os.listdir(tmp_path) if name.startswith((".writing", ".state"))]
    run(model, data, tmp_path)
