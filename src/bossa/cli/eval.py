"""``bossa eval``: how well a program file does on records with known completions."""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import click

from bossa.cli import loaded, options
from bossa.cli.app import ExitCode
from bossa.cli.constraints import CONSTRAINTS
from bossa.cli.loaded import Loading
from bossa.cli.progress import Bar
from bossa.cli.text import say, show, table
from bossa.errors import DatasetError
from bossa.host import streams
from bossa.host.output import check_writable, writing
from bossa.host.signals import interrupting

if TYPE_CHECKING:
    from bossa.dataset import BadRecord
    from bossa.eval import Evaluation, Summary
    from bossa.eval.fields import Judged

MOST_TOLD = 10
"""Errors that are lines on stderr."""


@click.command("eval", short_help="Measure how well a program file does.")
@loaded.which_model
@click.option(
    "--data",
    required=True,
    metavar="FILE|FOLDER|-",
    help="Prompts with completions: .json or .jsonl, .gz of either, a folder of them.",
)
@click.option("--prompt-field", default="prompt", show_default=True, metavar="NAME", help="The field of the prompt.")
@click.option(
    "--completion-field",
    default="completion",
    show_default=True,
    metavar="NAME",
    help="The field of the completion that is wanted.",
)
@click.option("--examples", type=options.CountOrAll(), default="all", show_default=True, help="How many to evaluate.")
@click.option("--chat", is_flag=True, help="Ask each prompt as a user's message, in the model's chat template.")
@click.option(
    "--choices",
    type=CONSTRAINTS["choices"],
    metavar="TEXT,…",
    help="Also answer with the likeliest of these texts; or a JSON list of them.",
)
@click.option("--calibrate", is_flag=True, help="Divide the probabilities of choices by their means over all prompts.")
@click.option(
    "--exact-match/--no-exact-match", default=True, show_default=True, help="Also compare what the model generates."
)
@click.option("--output", type=click.Path(), metavar="FILE.jsonl", help="Write a JSON record a prompt to this file.")
@click.option("--report", type=click.Path(), metavar="FILE.html", help="Write a page with charts to this file.")
@click.option("--json", "json_file", type=click.Path(), metavar="FILE", help="Write all figures to this file.")
@options.max_seq_length("as many as the program file allows")
@loaded.with_what
@options.DEBUG
def command(
    data: str,
    prompt_field: str,
    completion_field: str,
    examples: int | None,
    chat: bool,
    choices: tuple[str, ...] | None,
    calibrate: bool,
    exact_match: bool,
    output: str | None,
    report: str | None,
    json_file: str | None,
    **rest: Any,
) -> int:
    """Measure how well the program file given by --pef answers the records of --data.

    Exact match of what the model generates, accuracy where it chooses among --choices, and perplexity of the
    completions. The model's own generation settings are left out: answers are greedy.
    """
    loading = Loading.taken(rest)
    if calibrate and not choices:
        raise click.UsageError("--calibrate is about --choices: give some")
    if choices is not None and len({choice.strip() for choice in choices}) < len(choices):
        raise click.UsageError("--choices differ in white space alone, which completions are compared without")
    streams.need(1)
    if data == "-":
        streams.need(0)
    from bossa.cli.generation import Ask
    from bossa.cli.records import Chosen
    from bossa.dataset import JsonlWriter
    from bossa.eval import Example, FieldNames, Settings, evaluate, summarize
    from bossa.eval.fields import judged, output_fields

    started = time.perf_counter()
    with interrupting(), ExitStack() as stack:
        # All before the model, which may take a while: there may be nothing to read, or no place to write to.
        records = Chosen(data, examples, prompt_field)
        _check_outputs(data, {"--output": output, "--report": report, "--json": json_file})
        writer = stack.enter_context(JsonlWriter(output)) if output is not None else None
        model = stack.enter_context(loading.load("none"))
        ask = Ask({}, chat)
        ask.check(model)
        loading_seconds = time.perf_counter() - started
        params = model.params(max_new_tokens=1)

        def encode(example: Example) -> list[int]:
            if isinstance(example.prompt, str):
                return ask.token_ids(model, params, example.prompt)
            return ask.token_ids(model, params, "", example.prompt, example.tools)

        settings = Settings(choices or (), exact_match, FieldNames(completion_field))
        began = time.perf_counter()
        with Bar(records.count() if sys.stderr.isatty() else None) as bar:
            found = evaluate(model, records, encode, settings, bar.advance)
        seconds = time.perf_counter() - began
        _check_any(found, data)
        summary = summarize(found.outcomes, len(found.errors), settings.choices, calibrate)
        answers = judged(found.outcomes, summary)
        if writer is not None:
            for index, fields in enumerate(output_fields(answers, found.errors, settings.choices)):
                writer.put(index, fields)
        about = {"program": str(loading.pef), "data": data}
        if json_file is not None:
            _write_json(json_file, about, summary, found.errors)
        if report is not None:
            _write_report(report, about, summary, answers, found.errors)
    _show(summary, output == "-")
    _tell_errors(found.errors, output)
    rate = found.tokens / seconds if seconds > 0 else 0.0
    say(
        f"{summary.records:,} record{'s' if summary.records != 1 else ''}, {found.tokens:,} tokens in {seconds:.2f} s:"
        f" {rate:,.1f} tokens/s; loaded in {loading_seconds:.2f} s"
    )
    return ExitCode.SOME_RECORDS_FAILED if found.errors else ExitCode.OK


def _check_outputs(data: str, named: Mapping[str, str | None]) -> None:
    """Refuse before the work outputs that cannot be written, or that would take the place of each other or the data."""
    from bossa.cli.records import refuse_input

    places: dict[str, str] = {}
    for option, path in named.items():
        if path is None or (option == "--output" and path == "-"):
            continue
        try:
            check_writable(path)
        except OSError as error:
            raise DatasetError(f"cannot write {path}: {error.strerror}: give another {option}") from error
        refuse_input(data, path, option)
        place = os.path.realpath(path)
        if place in places:
            raise DatasetError(f"{places[place]} and {option} are both {path}: give each its own file")
        places[place] = option


def _check_any(found: Evaluation, data: str) -> None:
    """Refuse to measure nothing."""
    if found.outcomes:
        return
    if not found.errors:
        raise DatasetError(f"{data} has no records: there is nothing to evaluate")
    raise DatasetError(f"no record could be evaluated; the first of {len(found.errors):,} is {found.errors[0]}")


def _show(summary: Summary, aside: bool) -> None:
    """The figures on standard output, or ``aside`` where records are."""
    from bossa.eval import table as rows

    tables = [table(rows.measures(summary))]
    if summary.classification is not None:
        tables.append(table(rows.confusion(summary.classification)))
    if aside:
        say("\n\n".join(tables), lines=True)
    else:
        show("\n\n".join(tables))


def _tell_errors(errors: Sequence[BadRecord], output: str | None) -> None:
    for error in errors[:MOST_TOLD]:
        say(f"bossa: {error}")
    left = len(errors) - MOST_TOLD
    if left > 0:
        where = f"{output} has them all" if output is not None else "--output lists them all"
        say(f"bossa: {left:,} more record{'s were errors' if left != 1 else ' was an error'}: {where}")


def _write_json(path: str, about: Mapping[str, str], summary: Summary, errors: Sequence[BadRecord]) -> None:
    """All figures; the same bytes for the same records, program and options."""
    failed = [{"file": error.file, "line": error.line, "reason": error.reason} for error in errors]
    _write(path, json.dumps(_finite({**about, **summary.to_json(), "error_records": failed}), indent=1) + "\n")


def _write_report(
    path: str, about: Mapping[str, str], summary: Summary, answers: Sequence[Judged], errors: Sequence[BadRecord]
) -> None:
    from bossa.eval.html import page

    _write(path, page("Evaluation", about, summary, answers, errors))


def _write(path: str, content: str) -> None:
    try:
        with writing(path) as file:
            file.write(content.encode("utf-8", "replace"))
    except BrokenPipeError:
        raise
    except OSError as error:
        raise DatasetError(f"cannot write {path}: {error.strerror}: the other files are as they should be") from error


def _finite(value: Any) -> Any:
    """The value with null for what JSON has no number for."""
    if isinstance(value, dict):
        return {name: _finite(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
