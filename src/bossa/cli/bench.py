"""``bossa bench``: this machine's limits, and how near a program comes to them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bossa.cli import options
from bossa.cli.progress import Packing
from bossa.cli.text import show, table
from bossa.errors import RequestError, ToolchainError
from bossa.host import streams
from bossa.host.output import check_writable, writing
from bossa.host.signals import interrupting

if TYPE_CHECKING:
    from bossa.bench import Limits, Rate, StepModel
    from bossa.language_model import LanguageModel
    from bossa.pef import Pef


@click.command("bench", short_help="Measure a program beside this machine's limits.")
@click.argument("pef", type=click.Path(path_type=Path))
@click.option("--model_name_or_path", metavar="MODEL", help="Weights; random ones without it.")
@click.option("--checkpoint_name", metavar="FILE", default="", help="Weights to use instead of the model's.")
@click.option(
    "-b",
    "--batch",
    type=options.Counts(),
    default="1,8,32",
    show_default=True,
    help="Sequences that decode side by side.",
)
@click.option(
    "--prompt-lengths", type=options.Counts(), help="Tokens of the prompt in prefill.  [default: 128,512,1000]"
)
@click.option(
    "--context",
    type=options.Counts(),
    default="32",
    show_default=True,
    help="Tokens of each sequence when decoding starts.",
)
@click.option("--repeat", type=click.IntRange(min=2), default=5, show_default=True, help="Measurements of each case.")
@click.option(
    "--seconds",
    type=click.FloatRange(min=0),
    default=10.0,
    show_default=True,
    help="Stop repeating a case after so many seconds.",
)
@click.option(
    "--threads", type=options.THREADS, help="Threads to compute with.  [default: one per core, or OMP_NUM_THREADS]"
)
@click.option(
    "--cpus", type=options.Cpus(), metavar="LIST", help="Pin one thread to each of these CPUs, such as 0-3,8."
)
@click.option(
    "--memory", type=options.Size(), metavar="SIZE", help="The most memory to use besides weights, such as 2GB."
)
@click.option("--limits/--no-limits", default=True, show_default=True, help="Measure the machine's limits too.")
@click.option(
    "--json", "json_file", type=click.Path(path_type=Path), metavar="FILE", help="Write all figures to this file."
)
@click.option(
    "--chart", type=click.Path(path_type=Path), metavar="FILE.png", help="Draw rates and limits into this file."
)
@options.cache_dir()
@options.DEBUG
def command(
    pef: Path,
    model_name_or_path: str | None,
    checkpoint_name: str,
    batch: tuple[int, ...],
    prompt_lengths: tuple[int, ...] | None,
    context: tuple[int, ...],
    repeat: int,
    seconds: float,
    threads: int | None,
    cpus: list[int] | None,
    memory: int | None,
    limits: bool,
    json_file: Path | None,
    chart: Path | None,
    cache_dir: Path | None,
) -> None:
    """Measure how fast the program file PEF reads prompts and decodes, and how near that comes to the machine's limits.

    The limits, memory bandwidth and multiply-add rates, are measured too. That needs a C++ compiler; without one they
    are left out. Without weights, random ones are used: speed does not depend on their values.
    """
    streams.need(1)
    from bossa.bench import StepModel, measure_limits, report
    from bossa.loading import load
    from bossa.pef import Pef
    from bossa.pef.row_program import read_program
    from bossa.runtime.threads import default_threads

    click.get_current_context().with_resource(interrupting())
    if chart is not None:
        report.plotting()  # refused before anything is measured
    for file_named in filter(None, (json_file, chart)):
        check_writable(file_named)
    if cpus and threads not in (None, len(cpus)):
        raise RequestError(f"--threads is {threads}, and --cpus names {len(cpus)}: leave one of them out")
    threads = threads or len(cpus or []) or default_threads()
    opened = Pef.open(pef)
    manifest = opened.manifest
    lengths = _fitting(prompt_lengths, manifest.max_seq_length)
    steps = _steps(context, manifest.max_seq_length)
    model_of_steps = StepModel.of_program(read_program(opened), manifest.page_bytes, manifest.page_size, threads)
    checkpoint, words = _weights(opened, model_name_or_path, checkpoint_name)
    measured, why = _limits(threads, seconds / 2) if limits else (None, "")
    with Packing() as packing:
        model = load(
            opened,
            weights=model_name_or_path,
            checkpoint=checkpoint,
            threads=None if cpus else threads,
            cpus=cpus,
            memory=memory,
            batch_size=max(batch),
            cache_dir=cache_dir,
            progress=packing,
        )
    with model:
        rates = _measure(model, model_of_steps, lengths, batch, context, steps, repeat, seconds)
        program = {
            "name": manifest.name,
            "precision": manifest.precision,
            "parameters": manifest.parameters,
            "weight_bytes": model.engine.program.weights.nbytes,  # type: ignore[attr-defined]
            "kv_bytes_per_position": model_of_steps.kv_bytes_per_position,
            "target": model.engine.program.target,  # type: ignore[attr-defined]
        }
    if measured is not None:  # before and after: a machine that others use drifts
        measured = measured.best(measure_limits(threads, seconds / 2))
    result = report.Report(program, words, threads, measured, rates, why)
    for line in report.heading(result):
        show(line)
    if measured is not None:
        show(table(report.limit_rows(measured), indent=2))
    show("")
    show(table([report.HEADER, *(report.rate_row(rate, measured) for rate in rates)]))
    for line in report.notes(result):
        show(line)
    if json_file is not None:
        with writing(json_file) as file:
            file.write((json.dumps(result.to_json(), indent=1) + "\n").encode())
    if chart is not None:
        report.draw(result, chart)


def _measure(
    model: LanguageModel,
    model_of_steps: StepModel,
    lengths: tuple[int, ...],
    batches: tuple[int, ...],
    contexts: tuple[int, ...],
    steps: int,
    repeat: int,
    seconds: float,
) -> list[Rate]:
    from bossa.bench import Rate, decode_rates, prefill_rates

    rates = []
    engine = model.engine
    for length in lengths:
        cost = model_of_steps.prefill(length, engine.program.max_rows)
        rates.append(Rate("prefill", 1, length, prefill_rates(engine, length, repeat, seconds), length, cost))
    for context in contexts:
        for batch in batches:
            measured, reached = decode_rates(engine, batch, context, steps, repeat, seconds)
            rates.append(Rate("decode", batch, reached, measured, batch, model_of_steps.decode(batch, reached)))
    return rates


def _fitting(lengths: tuple[int, ...] | None, longest: int) -> tuple[int, ...]:
    """The prompt lengths asked for; of the usual ones, those that the program takes."""
    if lengths is None:
        return tuple(length for length in (128, 512, 1000) if length < longest) or (longest - 1,)
    if max(lengths) >= longest:
        raise RequestError(
            f"a prompt of {max(lengths)} tokens leaves no room for a new one: the program was compiled for {longest}"
        )
    return lengths


def _steps(contexts: tuple[int, ...], longest: int) -> int:
    """Steps of a measurement of decoding: fewer where contexts come near the program's end."""
    from bossa.bench.rates import STEPS

    steps = min(STEPS, longest - max(contexts) - 8)
    if steps < 1:
        raise RequestError(
            f"contexts of {max(contexts)} tokens leave no room to decode: the program was compiled for {longest}"
        )
    return steps


def _weights(pef: Pef, model: str | None, checkpoint: str) -> tuple[Any, str]:
    """The checkpoint to load, and where the weights come from in words."""
    from bossa.bench.random_weights import RandomWeights
    from bossa.ir.slot import Slot

    if checkpoint:
        return checkpoint, f"weights of {checkpoint}"
    if pef.weights() is not None:
        return None, "its own weights"
    if model is not None:
        return None, f"weights of {model}"
    return RandomWeights([Slot.from_json(dict(slot)) for slot in pef.manifest.slots]), "random weights"


def _limits(threads: int, seconds: float) -> tuple[Limits | None, str]:
    from bossa.bench import measure_limits

    try:
        return measure_limits(threads, seconds), ""
    except ToolchainError as error:
        return None, str(error)
