"""The whole way: read and encode into spools, draw an order, pack, write; interrupted, it goes on from there."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from bossa.errors import DatasetError, readable, shown
from bossa.host.files import Busy, Lock, replacing
from bossa.prepare.encode import Article, Encoder
from bossa.prepare.hdf5 import write_sequences
from bossa.prepare.items import input_files, read_items
from bossa.prepare.metadata import model_type, write_yaml
from bossa.prepare.packages import need
from bossa.prepare.packing import Packer, Part
from bossa.prepare.settings import Settings, fingerprint
from bossa.prepare.splits import Split, splits
from bossa.prepare.spool import Spool
from bossa.tokenizer import Tokenizer
from bossa.version import __version__

WORK = ".prepare"
"""The folder inside of the output in which the work lies until it is done."""
DONE = ".prepare-done"
"""What it is called while it is removed."""
BUCKETS = 64
"""Parts of a file that is larger than memory, each of which is put into an order of its own."""
SAVE_SECONDS = 10.0
LISTED = 1_000_000
"""Lines about records that were left out or cut; their number is right in any case."""

Progress = Callable[[str, int], None]
"""Called with the name of what is done now and the records of it so far."""


@dataclass
class Report:
    """What was made.

    Attributes:
        records: of each split.
        articles, sequences, tokens, labels: of each split that is tokenized; labels are tokens of completions.
        files: of each split.
        left_out: how many records and sequences were left out, by reason; ``cut``: that lost a part.
    """

    records: Counter[str] = field(default_factory=Counter)
    articles: Counter[str] = field(default_factory=Counter)
    sequences: Counter[str] = field(default_factory=Counter)
    tokens: Counter[str] = field(default_factory=Counter)
    labels: Counter[str] = field(default_factory=Counter)
    files: dict[str, int] = field(default_factory=dict)
    left_out: Counter[str] = field(default_factory=Counter)
    cut: int = 0


def prepare(
    inputs: Sequence[str],
    output: Path,
    tokenizer_files: dict[str, bytes],
    tokenizer: Tokenizer,
    settings: Settings,
    *,
    overwrite: bool = False,
    workers: int | None = None,
    progress: Progress = lambda stage, count: None,
) -> Report:
    """Prepare the records of some files and folders.

    The result is the same whatever the number of workers, and however often the work was interrupted: the same call
    goes on with what an earlier one has left.

    Args:
        inputs: paths; ``-`` is standard input, with which nothing can be gone on with.
        output: the folder that is made.
        tokenizer_files: the tokenizer's, by name; they go into the output.
        settings: see `Settings`.
        overwrite: put what is made in place of what is there.
        workers: threads; as many as there are cores when None.

    Raises:
        DatasetError: an input cannot be read, the output cannot be written or holds something else, or a split
            is empty.
    """
    need("h5py")
    files = input_files(inputs)
    with ExitStack() as stack:
        try:
            output.mkdir(parents=True, exist_ok=True)
            try:
                stack.enter_context(Lock(output / WORK))
            except Busy:
                raise DatasetError(
                    f"{shown(str(output))}: another process is preparing data there: wait for it"
                ) from None
            encoder = Encoder(tokenizer, settings)
            identity = _identity(files, tokenizer_files, settings)
            job = _Job(output, files, encoder, settings, _begin(output, identity, overwrite), progress)
            report = job.run(workers or os.cpu_count() or 1)
            job.finish(report, tokenizer_files)
        except OSError as error:
            raise DatasetError(
                f"{shown(str(output))}: cannot be written ({error.strerror or error}): mend that; the same command then"
                " goes on from here"
            ) from error
    return report


def _identity(files: Sequence[str], tokenizer_files: dict[str, bytes], settings: Settings) -> dict[str, Any]:
    """What decides the result, by the name that a message gives it."""
    stamps = [[file, *_stamp(file)] for file in files]
    contents = {name: hashlib.sha256(data).hexdigest() for name, data in tokenizer_files.items()}
    found = {"the inputs": fingerprint({"files": stamps}), "the tokenizer": fingerprint(contents)}
    names = {name: f"--{name}" for name in settings.to_json()}
    return found | {names[name]: fingerprint({name: value}) for name, value in settings.to_json().items()}


def _stamp(file: str) -> tuple[int, int]:
    if file == "-":
        return time.time_ns(), os.getpid()
    status = os.stat(file)
    return status.st_size, status.st_mtime_ns


def _begin(output: Path, identity: dict[str, Any], overwrite: bool) -> dict[str, Any] | None:
    """What an earlier run with the same settings has left; the output is empty otherwise.

    Raises:
        DatasetError: there is something else.
    """
    work = output / WORK
    shutil.rmtree(output / DONE, ignore_errors=True)
    state = _read_state(work)
    if state is not None:
        differs = [name for name, value in identity.items() if state["identity"].get(name) != value]
        if not differs:
            return state
        if not overwrite:
            raise DatasetError(
                f"{shown(str(output))}: holds unfinished work, and {' and '.join(differs[:3])} differed there: give the"
                " same, or --overwrite to begin anew"
            )
    others = [path for path in output.iterdir() if not path.name.startswith(".")]
    if others and not overwrite:
        raise DatasetError(f"{shown(str(output))}: is not empty: name another folder, or pass --overwrite")
    for path in others:
        if _is_ours(path):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    _write(work / "identity.json", identity)
    return None


def _is_ours(path: Path) -> bool:
    names = ("metadata.yaml", "logs.log", "tokenizer", "sha256", "test_files")
    return path.name in names or (path.suffix == ".hdf5" and path.name.startswith(("train_", "dev_")))


def _read_state(work: Path) -> dict[str, Any] | None:
    try:
        state: dict[str, Any] = json.loads((work / "state.json").read_bytes())
        identity = json.loads((work / "identity.json").read_bytes())
    except (OSError, ValueError):
        return None
    return state | {"identity": identity}


def _write(path: Path, value: Any) -> None:
    with replacing(path) as file:
        file.write(orjson.dumps(value))


class _Job:
    """One preparation, from what an earlier run has left (``state``) or from the beginning."""

    def __init__(
        self, output: Path, files: list[str], encoder: Encoder, settings: Settings, state: dict[str, Any] | None,
        progress: Progress,
    ) -> None:  # fmt: skip
        self.output, self.work = output, output / WORK
        self.files, self.encoder, self.settings, self.progress = files, encoder, settings, progress
        self.buckets = BUCKETS if settings.shuffle == "large_file" else 1
        self.done = 0 if state is None else int(state["done"])
        self.records = Counter[str](state["records"] if state else {})
        self.left_out = Counter[str](state["left_out"] if state else {})
        self.listed = 0 if state is None else int(state["listed"])
        sizes = {} if state is None else state["sizes"]
        self.spools: dict[tuple[Split, int], Spool] = {
            (split, bucket): Spool(self.work, f"{split}-{bucket}", sizes.get(f"{split}-{bucket}"))
            for split in self._splits()
            for bucket in range(self.buckets)
        }
        self._texts = [(self.work / name).open("r+b" if state else "w+b") for name in ("test.jsonl", "list.txt")]
        for text, size in zip(self._texts, sizes.get("texts", (0, 0)), strict=True):
            text.truncate(size)
            text.seek(size)

    def _splits(self) -> list[Split]:
        return ["train", "dev"] if self.settings.dev_ratio else ["train"]

    def run(self, workers: int) -> Report:
        """Everything up to the finished files, which lie in the work folder."""
        self._encode()
        report = Report(records=self.records, left_out=self.left_out)
        wanted = [*self._splits(), *(["test"] if self.settings.test_ratio else [])]
        for split in wanted:
            if not self.records[split]:
                raise DatasetError(
                    f"of {self.done} records, none is left for the {split} split; {self.left_out.total()} cannot be"
                    f" used{self._first_reason()}: give more" + ("" if split == "train" else f", or no --{split}_ratio")
                )
        with ThreadPoolExecutor(workers) as pool:
            for split in self._splits():
                self._pack(split, report, pool)
        return report

    def _first_reason(self) -> str:
        """The first line about a record that cannot be used."""
        with (self.work / "list.txt").open("rb") as listed:
            line = listed.readline().decode(errors="replace").strip()
        return f" ({line})" if line else ""

    def _encode(self) -> None:
        """Every record into the spool of its split and bucket."""
        kinds = islice(splits(self.settings), self.done, None)
        draws = np.random.default_rng([self.settings.seed, 2])
        if self.buckets > 1 and self.done:
            draws.integers(self.buckets, size=self.done)
        items = islice(read_items(self.files, self.settings), self.done, None)
        saved, last = time.monotonic(), None
        kind: Split = "train"
        bucket = 0
        for article in self.encoder.articles(items):
            if article.item is not last:
                self.done += last is not None
                if time.monotonic() - saved > SAVE_SECONDS:
                    self._save()
                    saved = time.monotonic()
                last = article.item
                kind = next(kinds)
                bucket = int(draws.integers(self.buckets)) if self.buckets > 1 else 0
                self._count(article, kind)
                self.progress("encoding", self.done)
            if article.reason is None and kind != "test":
                self.spools[kind, bucket if kind == "train" else 0].add(article)
        self.done += last is not None
        self._save()
        for spool in self.spools.values():
            spool.close()

    def _count(self, article: Article, kind: Split) -> None:
        """Take note of a record, of which this is the first article."""
        if article.reason is not None:
            self.left_out["cannot be used"] += 1
            self._list(article.item.file, article.item.line, f"left out: {article.reason}")
            return
        self.records[kind] += 1
        if kind == "test":
            self._texts[0].write(orjson.dumps(article.item.value, option=orjson.OPT_APPEND_NEWLINE, default=str))

    def _list(self, file: int, line: int, what: str) -> None:
        self.listed += 1
        if self.listed <= LISTED:
            name = readable(self.files[file])
            self._texts[1].write(f"{name}, line {line}: {what}\n".encode(errors="surrogateescape"))

    def _save(self) -> None:
        sizes: dict[str, Any] = {f"{split}-{bucket}": spool.flush() for (split, bucket), spool in self.spools.items()}
        for text in self._texts:
            text.flush()
        sizes["texts"] = [text.tell() for text in self._texts]
        state = {
            "done": self.done, "records": self.records, "left_out": self.left_out, "listed": self.listed,
            "sizes": sizes,
        }  # fmt: skip
        _write(self.work / "state.json", state)

    def _pack(self, split: Split, report: Report, pool: ThreadPoolExecutor) -> None:
        """The finished files of a split."""
        settings = self.settings
        packer = Packer(settings, self.encoder.padding)
        length = settings.max_seq_length
        paths = [self.work / f"{split}.packed.{part}" for part in ("tokens", "types", "categories")]
        with ExitStack() as opened:
            packed = [opened.enter_context(path.open("wb")) for path in paths]
            for sequences in packer.pack(self._parts(split, report)):
                packed[0].write(sequences.tokens.tobytes())
                packed[1].write(sequences.types.tobytes())
                if settings.categories is not None:
                    packed[2].write(sequences.categories.tobytes())
        entries = np.concatenate([spool.entries() for (kind, _), spool in self.spools.items() if kind == split])
        for numbers, what in ((packer.dropped, "left out: longer than a sequence"), (packer.cut, "cut to a sequence")):
            for number in numbers:
                self._list(int(entries[number]["file"]), int(entries[number]["line"]), what)
        if packer.dropped:
            report.left_out["longer than a sequence"] += len(packer.dropped)
        if packer.prompts_alone:
            report.left_out["sequences without a token of a completion"] += packer.prompts_alone
        report.cut += len(packer.cut)
        if not packer.written:
            raise DatasetError(
                f"no sequence is left for the {split} split: {self._why(report)}; raise --max_seq_length, or choose"
                " another --input_packing_config"
            )
        report.sequences[split] = packer.written
        report.tokens[split], report.labels[split] = packer.tokens, packer.labels
        count = self._count_of_files(split, packer.written)
        report.files[split] = count
        shape = (packer.written, length)
        arrays: list[NDArray[Any]] = [
            np.memmap(paths[0], np.int32, "r", shape=shape), np.memmap(paths[1], np.uint8, "r", shape=shape)
        ]  # fmt: skip
        if settings.categories is not None:
            arrays.append(np.memmap(paths[2], np.int32, "r", shape=shape))
        start = 0
        for number in range(count):
            stop = start + packer.written // count + (number < packer.written % count)
            names = ("input_ids", "token_type_ids", "category_ids")
            path = self.work / f"{split}_{number + 1}_of_{count}.hdf5"
            write_sequences(path, {name: a[start:stop] for name, a in zip(names, arrays, strict=False)}, pool)
            self.progress(f"writing {split}", stop)
            start = stop
        del arrays
        for path in paths:
            path.unlink()

    @staticmethod
    def _why(report: Report) -> str:
        return ", ".join(f"{count} {reason}" for reason, count in report.left_out.items()) or "there are no tokens"

    def _count_of_files(self, split: Split, sequences: int) -> int:
        size = sum(os.stat(file).st_size for file in self.files if file != "-")
        training = self.settings.training_files(size)
        if split == "dev":
            rest = 1 - self.settings.dev_ratio - self.settings.test_ratio
            training = max(1, round(training / rest * self.settings.dev_ratio))
        return max(1, min(training, sequences))

    def _parts(self, split: Split, report: Report) -> Iterator[Part]:
        """The articles of a split in the order in which they are packed; numbered through its buckets."""
        draws = np.random.default_rng([self.settings.seed, 3, split == "dev"])
        before = 0
        for (kind, _), spool in self.spools.items():
            if kind != split:
                continue
            count = len(spool.entries())
            order = None if self.settings.shuffle == "False" else draws.permutation(count)
            for part in spool.parts(order):
                yield part._replace(number=part.number + before)
            before += count
            report.articles[split] += count
            self.progress(f"packing {split}", before)

    def finish(self, report: Report, tokenizer_files: dict[str, bytes]) -> None:
        """Move what was made into the output, its metadata last."""
        made = sorted(path for path in self.work.iterdir() if path.suffix == ".hdf5")
        hashes = {path.name: {"sha256": _sha256(path), "size": path.stat().st_size} for path in made}
        for path in made:
            os.replace(path, self.output / path.name)
        if self.settings.test_ratio:
            (self.output / "test_files").mkdir(exist_ok=True)
            self._texts[0].flush()
            with (
                (self.work / "test.jsonl").open("rb") as kept,
                replacing(self.output / "test_files" / "test_1_of_1.jsonl") as file,
            ):
                shutil.copyfileobj(kept, file)
        for name, data in tokenizer_files.items():
            place = self.output / "tokenizer" / name
            place.parent.mkdir(parents=True, exist_ok=True)
            with replacing(place) as file:
                file.write(data)
        (self.output / "sha256").mkdir(exist_ok=True)
        _write(self.output / "sha256" / "files_metadata.json", hashes)
        self._texts[1].flush()
        with replacing(self.output / "logs.log") as file:
            for line in self._summary(report):
                file.write(line.encode() + b"\n")
            with (self.work / "list.txt").open("rb") as listed:
                shutil.copyfileobj(listed, file)
        for text in self._texts:
            text.close()
        per_file = {split: report.sequences[split] // report.files[split] for split in report.files}
        write_yaml(
            self.output / "metadata.yaml",
            {
                "max_batch_size_dev": per_file.get("dev"),
                "max_batch_size_train": per_file["train"],
                "max_seq_length": self.settings.max_seq_length,
                "number_of_dev_files": report.files.get("dev", 0),
                "number_of_test_files": int(bool(self.settings.test_ratio)),
                "number_of_training_files": report.files["train"],
                "token_type_ids": True,
                "tokenizer_model_type": model_type(tokenizer_files),
                "vocab_size": self.encoder.tokenizer.vocab_size,
                **{
                    f"{what}_{split}": counts[split]
                    for split in self._splits()
                    for what, counts in (
                        ("articles", report.articles), ("completion_tokens", report.labels),
                        ("sequences", report.sequences), ("tokens", report.tokens),
                    )
                },
            },
        )  # fmt: skip
        done = self.output / DONE  # at once, since nothing can be gone on with from a part of it
        os.replace(self.work, done)
        shutil.rmtree(done, ignore_errors=True)

    def _summary(self, report: Report) -> Iterator[str]:
        """What was asked for and what was made; there is no time in it, so that the same work gives the same bytes."""
        yield f"bossa {__version__}"
        for name, value in self.settings.to_json().items():
            if name != "categories":
                yield f"--{name} {value}"
        for split in self._splits():
            yield (
                f"{split}: {report.records[split]} records, {report.articles[split]} articles,"
                f" {report.sequences[split]} sequences in {report.files[split]} files, {report.tokens[split]} tokens,"
                f" {report.labels[split]} of completions"
            )
        if self.settings.test_ratio:
            yield f"test: {report.records['test']} records"
        for reason, count in report.left_out.items():
            yield f"left out, {reason}: {count}"
        if report.cut:
            yield f"cut to a sequence: {report.cut}"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
