"""The run: steps, evaluations and saves, from where it began or was saved last to its end."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from bossa.errors import DatasetError, TrainError, shown
from bossa.host.files import Busy, Lock
from bossa.host.signals import Interrupted, Noted, noted
from bossa.prepare.hdf5 import split_files
from bossa.train import checkpoint, metadata
from bossa.train.articles import Articles, read_articles
from bossa.train.batches import Order, make_pass, pack, share, total_weight
from bossa.train.checkpoint import State
from bossa.train.evaluate import Evaluation, evaluate
from bossa.train.forward import Forward, choose
from bossa.train.log import Log, draw
from bossa.train.model import Loaded, has_bf16, load, round_frozen
from bossa.train.optimizer import factor, make_optimizer
from bossa.train.processes import Processes
from bossa.train.settings import Settings

LEARNING_RATE = {"full": 2e-5, "lora": 5e-4}
EVALUATIONS = 10
BEST, LAST = "best", "last"


@dataclass(frozen=True)
class Step:
    """What is told of one step: tokens are those of this process."""

    number: int
    loss: float
    useful: int
    computed: int
    seconds: float


class Watcher(Protocol):
    """Who is told how far a run has come."""

    def started(self, what: str, step: int, steps: int) -> None:
        """It begins, or goes on at ``step``; ``what`` is one line about it."""

    def stepped(self, step: Step) -> None:
        """A step is done."""

    def evaluated(self, step: int, found: Evaluation, is_best: bool) -> None:
        """An evaluation is done."""


@dataclass(frozen=True)
class Result:
    """Where a run ended: its best checkpoint, and why there were no more steps."""

    checkpoint: Path
    reason: str


def train(settings: Settings, processes: Processes, watcher: Watcher) -> Result:
    """Train as the settings say, or go on with what the output folder has of it.

    Raises:
        BossaError: something is wrong with model, data, settings or the folder; or the loss is not finite.
        Interrupted: a signal came; all is saved.
    """
    settings.output.mkdir(parents=True, exist_ok=True)
    with _alone(settings.output, processes):
        run = _Run(settings, processes, watcher)
        with noted() as signal:
            return run.to_the_end(signal)


@contextmanager
def _alone(folder: Path, processes: Processes) -> Iterator[None]:
    try:
        lock = Lock(folder / checkpoint.STATE) if processes.is_first else None
    except Busy:
        raise TrainError(f"{shown(folder)}: another run is writing there: give another --output") from None
    try:
        yield
    finally:
        if lock is not None:
            lock.release()


class _Run:
    """A run and what it works on; ``state`` says where it is."""

    def __init__(self, settings: Settings, processes: Processes, watcher: Watcher) -> None:
        self.settings, self.processes, self.watcher = settings, processes, watcher
        if settings.threads is not None:
            torch.set_num_threads(settings.threads)
        before = checkpoint.read_state(settings.output) if settings.resume else None
        self.loaded: Loaded = load(settings)
        self.model: Any = self.loaded.model
        self.tokenizer = metadata.tokenizer_files(self.loaded)
        self.articles, self.dev = self._read_data()
        self.order = Order(len(self.articles), settings.articles_per_step, settings.seed)
        self.steps = self._steps()
        self.eval_steps = settings.eval_steps or max(1, math.ceil(self.steps / EVALUATIONS))
        identity = settings.identity() | {"data": _fingerprint(self.articles, self.dev)}
        if before is not None and (different := checkpoint.describe_difference(before["identity"], identity)):
            raise TrainError(
                f"{shown(settings.output)}: holds a run with other settings ({different}): give those to go on with"
                " it, --no-resume to begin anew, or another --output"
            )
        if processes.is_first:
            checkpoint.clean(settings.output)
        self.forward = self._make_ready()
        rate = settings.learning_rate or LEARNING_RATE["full" if settings.lora_rank is None else "lora"]
        self.optimizer = make_optimizer(self.model, rate, settings.weight_decay)
        self.rate = rate
        self.parameters = [given for given in self.model.parameters() if given.requires_grad]
        self.state = State(identity=identity)
        if before is not None:
            self.state = checkpoint.restore(before, self.model, self.optimizer)

    def _read_data(self) -> tuple[Articles, Articles | None]:
        settings, vocabulary = self.settings, self.model.get_input_embeddings().weight.shape[0]
        metadata.check(settings.data_dir, self.loaded, settings.max_seq_length)
        metadata.check_tokenizer(settings.data_dir, self.tokenizer)
        found = {split: split_files(settings.data_dir, split) for split in ("train", "dev")}
        if not found["train"]:
            raise DatasetError(
                f"{shown(settings.data_dir)}: has no train_1_of_N.hdf5: prepare the data with bossa prepare, or name"
                " the folder that has it"
            )
        if not found["dev"] and (settings.min_eval_acc is not None or settings.patience is not None):
            raise DatasetError(
                f"{shown(settings.data_dir)}: has no dev_1_of_N.hdf5, which --min_eval_acc and --patience need: prepare"
                " the data with --dev_ratio"
            )
        train = read_articles(found["train"], vocabulary, settings.prompt_loss_weight)
        dev = read_articles(found["dev"], vocabulary, settings.prompt_loss_weight) if found["dev"] else None
        metadata.check_lengths(settings.data_dir, self.loaded, [train, dev])
        return train, dev

    def _steps(self) -> int:
        if self.settings.steps is not None:
            return self.settings.steps
        return max(1, math.ceil(self.settings.epochs * len(self.articles) / self.settings.articles_per_step))

    def _make_ready(self) -> Forward:
        """The way through the model, in the precision that was asked for."""
        settings = self.settings
        forward = choose(self.model, self.articles, settings.packing)
        bf16 = has_bf16() if settings.bf16 == "auto" else settings.bf16 == "on"
        if bf16 and self.loaded.lora is not None:
            round_frozen(self.model)
        forward.autocast = bf16 and self.loaded.lora is None
        if settings.activation_checkpointing:
            self.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        self.bf16 = bf16
        self.model.train()
        return forward

    def to_the_end(self, signal: Noted) -> Result:
        """All steps that are left."""
        settings, state = self.settings, self.state
        log = Log(settings.output, state.step) if self.processes.is_first and state.finished is None else None
        self.watcher.started(self._described(), state.step, self.steps)
        try:
            while state.finished is None:
                stopped = self._step(log, signal)
                if state.step % self.eval_steps == 0 or state.step == self.steps:
                    self._evaluate(log)
                if state.finished is None and state.step >= self.steps:
                    state.finished = f"{self.steps} steps are done"
                if stopped or state.finished is not None or state.step % (settings.save_steps or self.eval_steps) == 0:
                    self._save()
                if stopped and state.finished is None:
                    raise Interrupted(signal.number) if signal.number is not None else Interrupted()
        finally:
            if log is not None:
                log.close()
                with suppress(OSError):  # a chart that cannot be written ends no run
                    draw(settings.output)
        return self._result()

    def _result(self) -> Result:
        settings, state = self.settings, self.state
        assert state.finished is not None
        if settings.min_eval_acc is not None and state.best is not None:
            reached = state.best["exact_match"]
            if reached < settings.min_eval_acc:
                raise TrainError(
                    f"{shown(settings.output)}: the best exact match is {reached:.4f}, and --min_eval_acc"
                    f" {settings.min_eval_acc} was not reached ({state.finished}): the checkpoint is kept; train longer"
                    " or with other settings"
                )
        return Result(settings.output / (BEST if state.best is not None else LAST), state.finished)

    def _described(self) -> str:
        total = sum(given.numel() for given in self.model.parameters())
        taught = sum(given.numel() for given in self.parameters)
        return (
            f"{len(self.articles):,} articles, {len(self.articles.tokens):,} tokens; {taught:,} of {total:,} weights;"
            f" {'bf16' if self.bf16 else 'fp32'}, {'packed' if self.forward.is_packed else 'padded'}"
        )

    def _step(self, log: Log | None, signal: Noted) -> bool:
        """One update of the weights; whether a signal has come to any of the processes."""
        settings, state, processes = self.settings, self.state, self.processes
        started = time.perf_counter()
        number = state.step
        rate = self.rate * factor(settings.lr_schedule, number, self.steps, self._warmup())
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        torch.manual_seed(int(np.random.SeedSequence([settings.seed, number, processes.rank]).generate_state(1)[0]))
        chosen = self.order.of_step(number)
        total = total_weight(self.articles, chosen, settings.prompt_loss_weight)
        mine = share(chosen, self.articles.lengths, processes.count, processes.rank)
        loss, useful, computed = torch.zeros(1), 0, 0
        for group in pack(mine, self.articles.lengths, settings.tokens_per_pass):
            given = make_pass(self.articles, group, settings.prompt_loss_weight)
            with self.forward.running(given) as counted:
                part = counted.loss / total
                part.backward()
            loss += part.detach()
            useful += len(given.tokens)
            computed += self.forward.computed(given)
        stopped = self._join(loss, signal)
        norm = float(torch.nn.utils.clip_grad_norm_(self.parameters, settings.max_grad_norm_clip, foreach=True))
        if not (math.isfinite(float(loss)) and math.isfinite(norm)):
            raise TrainError(
                f"the loss of step {number + 1} is {float(loss)} and its gradient {norm}: stopped before the weights"
                f" took it; {shown(settings.output)} keeps what was saved last: lower --learning_rate, or --bf16 off"
            )
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        state.step += 1
        seconds = time.perf_counter() - started
        if log is not None:
            log.add(
                {
                    "step": state.step, "loss": float(loss), "learning_rate": rate, "grad_norm": norm,
                    "useful_tokens": useful, "computed_tokens": computed, "seconds": round(seconds, 4),
                }
            )  # fmt: skip
        self.watcher.stepped(Step(state.step, float(loss), useful, computed, seconds))
        return stopped

    def _warmup(self) -> int:
        warmup = self.settings.warmup
        return int(warmup) if warmup >= 1 else int(warmup * self.steps)

    def _join(self, loss: torch.Tensor, signal: Noted) -> bool:
        """Add up gradients and loss of all processes, in place; whether one of them was told to stop."""
        for given in self.parameters:
            if given.grad is None:
                given.grad = torch.zeros_like(given)
        if self.processes.count == 1:
            return signal.number is not None
        parts = [given.grad.view(-1) for given in self.parameters if given.grad is not None]
        flag = torch.tensor([float(signal.number is not None)])
        flat = torch.cat([*parts, loss, flag])
        self.processes.add_up(flat)
        for part, summed in zip(parts, flat.split([*(len(part) for part in parts), 2]), strict=False):
            part.copy_(summed)
        loss.copy_(flat[-2:-1])
        return bool(flat[-1] > 0)

    def _evaluate(self, log: Log | None) -> None:
        settings, state = self.settings, self.state
        if self.dev is None:
            return
        found = evaluate(
            self.forward,
            self.dev,
            settings.eval_examples,
            settings.prompt_loss_weight,
            settings.tokens_per_pass,
            self.processes,
        )
        best = state.best
        is_best = best is None or (found.exact_match, -found.loss) > (best["exact_match"], -best["loss"])
        state.waited = 0 if is_best else state.waited + 1
        if is_best:
            state.best = {"exact_match": found.exact_match, "loss": found.loss, "step": float(state.step)}
            self._write(BEST)
        if log is not None:
            log.add({"step": state.step, "eval_loss": found.loss, "exact_match": found.exact_match})
        self.watcher.evaluated(state.step, found, is_best)
        if settings.min_eval_acc is not None and found.exact_match >= settings.min_eval_acc:
            state.finished = f"--min_eval_acc {settings.min_eval_acc} is reached"
        elif settings.patience is not None and state.waited >= settings.patience:
            state.finished = f"no evaluation of the last {settings.patience} was better"

    def _save(self) -> None:
        self._write(LAST)
        if self.processes.is_first:
            checkpoint.write_state(self.settings.output, self.state, self.model, self.optimizer)

    def _write(self, name: str) -> None:
        if self.processes.is_first:
            folder = self.settings.output / name
            checkpoint.write_checkpoint(folder, self.loaded, self.tokenizer, self.settings.checkpoint_format)
            if self.settings.checkpoint_name is not None and (name == BEST or self.dev is None):
                checkpoint.write_weights(self.settings.checkpoint_name, self.model)


def _fingerprint(articles: Articles, dev: Articles | None) -> str:
    """Of all tokens and their types, so that a run goes on with the same data alone."""
    found = hashlib.sha256()
    for split in (articles, dev):
        if split is not None:
            for part in (split.tokens, split.types, split.starts):
                found.update(part.tobytes())
    return found.hexdigest()[:16]
