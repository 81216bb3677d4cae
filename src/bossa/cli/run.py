"""``bossa run``: prompts in, predictions out, from a program file."""

from __future__ import annotations

import sys
import time
import warnings
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click
from click.core import ParameterSource

from bossa.cli import loaded, options
from bossa.cli.app import ExitCode
from bossa.cli.constraints import CONSTRAINTS
from bossa.cli.loaded import Loading
from bossa.cli.progress import Bar
from bossa.cli.text import say
from bossa.host import streams
from bossa.host.output import descriptor_of
from bossa.host.signals import interrupting

if TYPE_CHECKING:
    from bossa.engine.truncation import Truncation
    from bossa.language_model import LanguageModel


@click.command("run", short_help="Generate from a program file.")
@loaded.which_model
@click.option("--data_dir", metavar="FILE|FOLDER|-", help="Prompts: .json or .jsonl, .gz of either, a folder of them.")
@click.option(
    "--prompt", type=options.Text(), metavar="TEXT", help="One prompt, whose completion is written as it grows."
)
@click.option("--chat", is_flag=True, help="Ask each prompt as a user's message, in the model's chat template.")
@click.option(
    "--output",
    type=click.Path(),
    metavar="FILE",
    help="Write JSON Lines here instead of text: a record a prompt.",
)
@options.sampling("max_new_tokens")
@click.option(
    "--examples_to_generate",
    type=options.CountOrAll(),
    default="20",
    show_default=True,
    help="How many of the prompts to run.",
)
@options.max_seq_length("as many as the program file allows")
@click.option("--truncation", type=click.Choice(["left", "right"]), help="Cut prompts that are too long on this side.")
@options.sampling(
    *("temperature", "top_k", "top_p", "min_p", "typical_p"),
    *("repetition_penalty", "no_repeat_ngram_size", "min_new_tokens", "seed", "stop"),
)
@click.option(
    *("-n", "--samples"),
    type=options.SAMPLES,
    default=1,
    show_default=True,
    help="Completions of each prompt, each drawn by itself.",
)
@click.option(
    "--generation-config",
    type=click.Choice(["model", "none"]),
    default="model",
    show_default=True,
    help="Follow the model's generation_config.json where no option says otherwise, or do not.",
)
@options.sampling("choices", "regex", "json_schema", types=CONSTRAINTS)
@options.sampling("logprobs", "speculate")
@loaded.with_what
@click.option("--config_name", expose_value=False, help="Accepted as in compile: the file has its architecture.")
@options.INFERENCE
@options.DEBUG
def command(
    data_dir: str | None,
    prompt: str | None,
    chat: bool,
    output: str | None,
    examples_to_generate: int | None,
    truncation: Truncation | None,
    samples: int,
    generation_config: Literal["model", "none"],
    **rest: Any,
) -> int:
    """Generate from the program file given by --pef: for the prompts of --data_dir, or for one --prompt.

    Predictions go to standard output, each the whole sequence with its prompt, with a line of 20 dashes between
    two; with --output, a JSON record for each goes to that file instead.
    """
    loading, sampling = Loading.taken(rest), rest
    _need_streams(data_dir, output)
    if (data_dir is None) == (prompt is None):
        raise click.UsageError("give either --data_dir or --prompt")
    if prompt is not None and output is not None:
        raise click.UsageError("--output goes with --data_dir: the answer to --prompt goes to standard output")
    if prompt == "":
        raise click.UsageError("the --prompt is empty: give some text")
    if sampling["logprobs"] is not None and output is None:
        raise click.UsageError("--logprobs goes with --output: they are fields of its records")
    from bossa.cli import generation
    from bossa.cli.records import Chosen, refuse_input
    from bossa.dataset import JsonlWriter, TextWriter
    from bossa.sampling.parameters import FILTERS

    given = {name: value for name, value in sampling.items() if value not in (None, ()) and not _is_default(name)}
    started = time.perf_counter()
    with interrupting(), ExitStack() as stack:
        # Both before the model, which may take a while: there may be nothing to read, or no place to write to.
        records = Chosen(data_dir, examples_to_generate) if data_dir is not None else None
        if data_dir is not None and output is not None and output != "-":
            refuse_input(data_dir, output)
        writer = stack.enter_context(JsonlWriter(output)) if output is not None else None
        model = stack.enter_context(loading.load(generation_config))
        if (samples > 1 or given.keys() & FILTERS) and "temperature" not in model.generation_defaults.values:
            given.setdefault("temperature", 1.0)  # they are about drawing
        ask = generation.Ask(given, chat, truncation, samples)
        ask.check(model)
        loading_seconds = time.perf_counter() - started
        if generation_config == "model":
            _tell_of_defaults(loading.pef, model, given)
        if records is None:
            assert prompt is not None
            tally = generation.stream(model, prompt, ask)
        else:
            bar = Bar(records.count() if sys.stderr.isatty() else None)
            sink: generation.Sink
            if writer is None:
                sink = generation.TextSink(stack.enter_context(TextWriter(sys.stdout)), model, bar)
            else:
                sink = generation.JsonlSink(writer)
            with bar:
                tally = generation.generate(model, records, ask, sink, bar)
    say(f"{tally}; loaded in {loading_seconds:.2f} s")
    if tally.interrupted is not None:
        raise tally.interrupted
    if records is not None and _is_default("examples_to_generate"):
        left = records.left_out()
        if left:
            say(f"bossa: {left} left out, after the first {examples_to_generate}: --examples_to_generate all runs all")
    return ExitCode.SOME_RECORDS_FAILED if tally.failed else ExitCode.OK


def _tell_of_defaults(pef: Path, model: LanguageModel, given: dict[str, Any]) -> None:
    """Say what of the model's generation config is followed in this run, and what is not, in a line each."""
    from bossa.errors import shown
    from bossa.generation_config import not_followed, place

    if line := not_followed(model.generation_config, model.config, model.engine.program.vocab_size):
        warnings.warn(f"{shown(pef)}: {line}", stacklevel=1)
    if line := model.generation_defaults.line(given):
        where = place(model.generation_config)
        say(f"bossa: as {where} has it: {line}; --generation-config none leaves it out")


def _need_streams(data_dir: str | None, output: str | None) -> None:
    """Refuse before the work to read or write a standard stream that is closed."""
    for path, own in ((data_dir, 0), (output, 1)):
        if path is not None and path != "-":
            number = descriptor_of(path)
            if number is not None:
                streams.need(number)
        elif path is not None or own == 1:
            streams.need(own)


def _is_default(option: str) -> bool:
    return click.get_current_context().get_parameter_source(option) is ParameterSource.DEFAULT
