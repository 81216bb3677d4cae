"""The options that load a model, which are the same in every command that runs one, and the loading itself."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import click

from bossa.cli import options
from bossa.cli.progress import Packing
from bossa.errors import TokenizerError

if TYPE_CHECKING:
    from bossa.language_model import LanguageModel


def which_model(command: options.Command) -> options.Command:
    """The options that say what is loaded."""
    return options.together(
        click.option("-p", "--pef", required=True, type=click.Path(path_type=Path), help="The program file to run."),
        click.option(
            "--model_name_or_path", metavar="MODEL", help="Weights, and the tokenizer where the file has none."
        ),
        click.option(
            "--checkpoint_name",
            metavar="FILE",
            default="",
            help="Weights to use instead of the model's: safetensors, a folder or index of them, or a torch state"
            " dict.",
        ),
        click.option(
            "--adapter",
            metavar="DIR",
            help="Run with this LoRA adapter, in PEFT's format, beside the weights as they are.",
        ),
    )(command)


def with_what(command: options.Command) -> options.Command:
    """The options that say what it is run with."""
    return options.together(
        click.option("-b", "--batch-size", type=options.SEQUENCES, help="Sequences at once.  [default: the file's]"),
        click.option(
            "--threads",
            type=options.THREADS,
            help="Threads to compute with.  [default: one a core, or OMP_NUM_THREADS]",
        ),
        click.option(
            "--cpus", type=options.Cpus(), metavar="LIST", help="Keep a thread on each of these CPUs, as 0-3,8."
        ),
        click.option(
            "--memory", type=options.Size(), metavar="SIZE", help="The most memory to use besides weights, as 2GB."
        ),
        options.cache_dir(),
        click.option(
            "--rebuild", is_flag=True, help="Compile the file's row program here instead of running its native code."
        ),
    )(command)


@dataclass(frozen=True)
class Loading:
    """The values of these options, and of ``--max_seq_length``; by their names, which are the options'."""

    pef: Path
    model_name_or_path: str | None
    checkpoint_name: str
    adapter: str | None
    max_seq_length: int | None
    batch_size: int | None
    threads: int | None
    cpus: list[int] | None
    memory: int | None
    cache_dir: Path | None
    rebuild: bool

    @classmethod
    def taken(cls, values: dict[str, Any]) -> Self:
        """Made of the values of a command's options, which these are taken from."""
        return cls(**{field.name: values.pop(field.name) for field in fields(cls)})

    def load(self, generation_config: Literal["model", "none"]) -> LanguageModel:
        """The model, which has a tokenizer; on a terminal it is shown how far packing has come.

        Raises:
            TokenizerError: there is none.
            BossaError: as ``bossa.load``.
        """
        from bossa.loading import load

        with Packing() as packing:
            model = load(
                self.pef,
                weights=self.model_name_or_path,
                checkpoint=self.checkpoint_name or None,
                adapter=self.adapter,
                threads=self.threads,
                cpus=self.cpus,
                memory=self.memory,
                max_seq_length=self.max_seq_length,
                batch_size=self.batch_size,
                cache_dir=self.cache_dir,
                rebuild=self.rebuild,
                generation_config=generation_config,
                progress=packing,
            )
        if model.tokenizer is None:
            model.close()
            raise self._no_tokenizer()
        return model

    def _no_tokenizer(self) -> TokenizerError:
        """Why there is none: what is wrong with the one beside the weights, if something of one is there."""
        from bossa.tokenizer import Tokenizer

        model = self.model_name_or_path
        folder = Path(model or "")
        if model and any(os.path.isfile(folder / name) for name in ("tokenizer.json", "tokenizer.model", "vocab.json")):
            try:
                Tokenizer.from_directory(folder)
            except TokenizerError as error:
                return error
        return TokenizerError(
            f"{self.pef}: has no tokenizer in it, and there is none beside the weights: give --model_name_or_path a"
            " model that has a tokenizer.json"
        )
