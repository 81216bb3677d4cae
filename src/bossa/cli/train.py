"""``bossa train``: tokenized articles in, a checkpoint or an adapter out."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import click

from bossa.cli import options
from bossa.cli.text import say, show
from bossa.host import streams

if TYPE_CHECKING:
    from bossa.train.evaluate import Evaluation
    from bossa.train.trainer import Step

AT_LEAST_1 = click.IntRange(min=1)
RATE = click.FloatRange(0, 1, max_open=True)
NOT_NEGATIVE = click.FloatRange(min=0)


class Words(click.ParamType[tuple[str, ...]]):
    """Names, with commas between them."""

    name = "name,…"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        return value if isinstance(value, tuple) else tuple(filter(None, map(str.strip, str(value).split(","))))


@click.command("train", short_help="Train a model or an adapter.")
@click.argument("model", required=False)
@click.option("--model_name_or_path", metavar="MODEL", help="The same as the MODEL argument.")
@click.option("--config_name", metavar="CONFIG", help="Without MODEL: begin with random weights of this config.")
@options.cache_dir()
@click.option("--trust-remote-code", is_flag=True, help="Allow the model to run Python code that comes with it.")
@click.option("--data_dir", type=click.Path(path_type=Path), required=True, help="The folder that bossa prepare wrote.")
@click.option("--output", "--output_dir", type=click.Path(path_type=Path), required=True, help="The run's folder.")
@click.option("--steps", type=AT_LEAST_1, help="Updates of the weights.  [default: those of --epochs]")
@click.option(
    "--epochs", type=click.FloatRange(0, min_open=True), default=1.0, show_default=True, help="Times through the data."
)
@click.option(
    "-b", "--batch-size", type=AT_LEAST_1, default=16, show_default=True, help="Articles of a step, all together."
)
@click.option(
    "--gradient-accumulation-steps", type=AT_LEAST_1, default=1, show_default=True, help="Batches of one update."
)
@click.option(
    "--learning_rate", type=click.FloatRange(0, min_open=True), help="The highest.  [default: 2e-5; for LoRA 5e-4]"
)
@click.option("--weight_decay", type=NOT_NEGATIVE, default=0.1, show_default=True, help="Of weights alone.")
@click.option(
    "--max_grad_norm_clip", type=click.FloatRange(0, min_open=True), default=1.0, show_default=True,
    help="Longer gradients are shortened to it.",
)  # fmt: skip
@click.option(
    "--warmup", "--warmup_steps", type=NOT_NEGATIVE, default=0.03, show_default=True,
    help="Steps of rising learning rate; below 1, a part of all.",
)  # fmt: skip
@click.option(
    "--lr_schedule", type=click.Choice(("constant", "cosine", "linear")), default="cosine", show_default=True,
    help="How the learning rate goes on after it.",
)  # fmt: skip
@click.option(
    "--prompt_loss_weight", type=NOT_NEGATIVE, default=0.0, show_default=True,
    help="What a prompt's token weighs in the loss, where a completion's weighs 1.",
)  # fmt: skip
@click.option("--dropout", type=RATE, help="Of every dropout in the model.  [default: the model's own]")
@click.option("--lora-rank", type=AT_LEAST_1, help="Train an adapter of this rank.  [default: train all weights]")
@click.option(
    "--lora-alpha", type=click.FloatRange(0, min_open=True),
    help="The adapter is scaled by it over the rank.  [default: twice the rank]",
)  # fmt: skip
@click.option("--lora-dropout", type=RATE, default=0.0, show_default=True, help="Of what goes into the adapter.")
@click.option("--lora-targets", type=Words(), default=(), help="Linears that get a pair.  [default: all but the head]")
@click.option("--activation-checkpointing", is_flag=True, help="Compute layers twice, to need less memory.")
@click.option(
    "--bf16", type=click.Choice(("auto", "on", "off")), default="auto", show_default=True,
    help="Multiply in bf16; auto: where the processor has instructions for it.",
)  # fmt: skip
@click.option("--packing/--no-packing", default=True, help="Articles behind each other instead of padding.")
@click.option(
    "--tokens_per_pass", type=AT_LEAST_1, default=4096, show_default=True, help="At most so many at once, for memory."
)
@click.option("--max_seq_length", type=AT_LEAST_1, help="The length that the data must have been prepared for.")
@click.option("--eval_steps", type=AT_LEAST_1, help="Evaluate after so many steps.  [default: ten times in all]")
@click.option("--eval_examples", "--subsample_eval", type=AT_LEAST_1, help="Articles to evaluate on.  [default: all]")
@click.option("--save_steps", type=AT_LEAST_1, help="Save after so many steps.  [default: with each evaluation]")
@click.option("--min_eval_acc", type=click.FloatRange(0, 1), help="Stop at this exact match, and fail without it.")
@click.option("--patience", type=AT_LEAST_1, help="Stop after so many evaluations that were no better.")
@click.option(
    "--checkpoint_format", type=click.Choice(("safetensors", "pt")), default="safetensors", show_default=True,
    help="Of all weights; an adapter is always in PEFT's.",
)  # fmt: skip
@click.option("--checkpoint_name", type=click.Path(path_type=Path), help="Write the best weights here too, as .pt.")
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True)
@click.option("--resume/--no-resume", default=True, help="Go on with what the output folder has, or begin anew.")
@click.option("--threads", type=options.THREADS, help="Of torch.  [default: one a core]")
@options.DEBUG
def command(
    model: str | None,
    model_name_or_path: str | None,
    gradient_accumulation_steps: int,
    output: Path,
    **given: Any,
) -> None:
    """Train MODEL on the articles in --data_dir; the last line printed is the folder of the best checkpoint.

    With --lora-rank an adapter is trained and written, in PEFT's format. The same command again goes on with a run that
    was interrupted.
    """
    streams.need(1)
    if model is not None and model_name_or_path not in (None, model):
        raise click.UsageError(f"two models are given: {model} and {model_name_or_path}; give one")
    model = model or model_name_or_path
    if not model and not given["config_name"]:
        raise click.UsageError("no model is given: name one, as in 'bossa train gpt2', or give --config_name")
    if given["lora_rank"] is not None and (given["checkpoint_format"] == "pt" or given["checkpoint_name"] is not None):
        raise click.UsageError("an adapter is written in PEFT's format alone: leave --checkpoint_format and _name out")
    try:
        from bossa.train.errors import OPTIONAL_PACKAGES, missing_package
        from bossa.train.processes import together
        from bossa.train.settings import Settings
        from bossa.train.trainer import train

        settings = Settings(model=model, output=output, accumulation=gradient_accumulation_steps, **given)
        with together() as processes, _Progress(quiet=not processes.is_first) as progress:
            result = train(settings, processes, progress)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in OPTIONAL_PACKAGES:
            raise
        raise missing_package(error) from error
    if processes.is_first:
        say(f"  done: {result.reason}")
        show(str(result.checkpoint), exact=True)


class _Progress:
    """A line at the start and for each evaluation; on a terminal also a bar over the steps."""

    def __init__(self, quiet: bool) -> None:
        self._quiet = quiet
        self._bar: Any = None
        self._useful = self._computed = 0
        self._seconds = 0.0
        self._loss: float | None = None

    def started(self, what: str, step: int, steps: int) -> None:
        if self._quiet:
            return
        say(f"  {what}")
        if step:
            say(f"  goes on after step {step} of {steps}")
        if sys.stderr.isatty():
            self._bar = _bar()
            self._task = self._bar.add_task("", total=steps, completed=step, told="")
            self._bar.start()

    def stepped(self, step: Step) -> None:
        self._useful += step.useful
        self._computed += step.computed
        self._seconds += step.seconds
        self._loss = step.loss if self._loss is None else 0.9 * self._loss + 0.1 * step.loss
        if self._bar is not None:
            told = f"loss {self._loss:.4f}  {self._rate():,.0f} tokens/s  {self._filled():.0%} useful"
            self._bar.update(self._task, completed=step.number, told=told)

    def evaluated(self, step: int, found: Evaluation, is_best: bool) -> None:
        if self._quiet:
            return
        if self._bar is not None:
            self._bar.stop()
        train = "" if self._loss is None else f"loss {self._loss:.4f}  "
        say(
            f"  {time.strftime('%H:%M:%S')}  step {step:>6}  {train}eval loss {found.loss:.4f}  exact match"
            f" {found.exact_match:.4f}{'  best' if is_best else '      '}  {self._rate():,.0f} tokens/s"
            f"  {self._filled():.0%} useful"
        )
        if self._bar is not None:
            self._bar.start()

    def _rate(self) -> float:
        return self._useful / max(self._seconds, 1e-9)

    def _filled(self) -> float:
        return self._useful / max(self._computed, 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        if self._bar is not None:
            self._bar.stop()


def _bar() -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    return Progress(
        TextColumn("training"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[told]}"),
        TimeRemainingColumn(),
        console=Console(file=sys.stderr),
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
    )
