"""Records to files: what is in them, written out by hand; and that nothing moves it."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from bossa.errors import DatasetError
from bossa.prepare import SequenceFile, split_files

from .conftest import END, all_rows, ids, rows

REVIEWS = [
    {"prompt": "ab ", "completion": "cd"},
    {"prompt": "e", "completion": " f"},
    {"prompt": "ghijkl", "completion": "mnopqrs"},
]


def test_full_packs_end_to_end_and_pads_the_last(run: Any) -> None:
    output, report = run([*REVIEWS[:2], {**REVIEWS[2], "completion": "mnopqrst"}], settings={"num_training_splits": 1})
    text = "ab cd$e f$ghijkl mnopqrst$"  # the third sequence ends with padding
    assert all_rows(output) == [ids(text[start : start + 12].ljust(12, "$")) for start in (0, 12, 24)]
    kinds = [0, 0, 1, 1, 1, 3, 0, 1, 1, 3, *[0] * 6, *[1] * 9, 3, *[2] * 10]
    assert [kind for row in all_rows(output, name="token_type_ids") for kind in row] == kinds
    assert report.sequences["train"] == 3
    assert report.tokens["train"] == len(text)


@pytest.mark.parametrize(
    ("packing", "wanted"),
    [
        ("greedy::drop", ["ab cd$e f$"]),
        ("greedy::truncate_left", ["ab cd$e f$", "kl mnopqrs$"]),
        ("greedy::truncate_right", ["ab cd$e f$", "ghijkl mnopq"]),
        ("single::drop", ["ab cd$", "e f$"]),
        ("single::truncate_left", ["ab cd$", "e f$", "jkl mnopqrs$"]),
        ("single::truncate_right", ["ab cd$", "e f$", "ghijkl mnopq"]),
    ],
)
def test_articles_stay_whole_where_they_should(run: Any, packing: str, wanted: list[str]) -> None:
    output, report = run(REVIEWS, settings={"input_packing_config": packing, "num_training_splits": 1})
    wanted = ["jkl mnopqrs$" if row == "kl mnopqrs$" else row for row in wanted]
    assert all_rows(output) == [ids(row.ljust(12, "$")) for row in wanted]
    assert (report.left_out.total(), report.cut) == ((1, 0) if "drop" in packing else (0, 1))
    log = (output / "logs.log").read_text()
    assert f"records.jsonl, line 3: {'left out' if 'drop' in packing else 'cut'}" in log


def test_sequences_without_a_completion_are_left_out_unless_they_are_wanted(run: Any) -> None:
    settings = {"input_packing_config": "single::truncate_right", "num_training_splits": 1}
    records = [{"prompt": "a" * 20, "completion": "b"}, REVIEWS[0]]
    output, report = run(records, settings=settings)
    assert report.sequences["train"] == 1
    output, report = run(records, name="kept", settings={**settings, "keep_prompt_only_sequences": True})
    assert all_rows(output)[0] == ids("a" * 12)


def test_the_files_are_laid_out_as_the_public_tool_lays_them_out(run: Any) -> None:
    output, _ = run(
        REVIEWS * 10, settings={"dev_ratio": 0.2, "test_ratio": 0.1, "num_training_splits": 4, "max_seq_length": 16}
    )
    metadata = yaml.safe_load((output / "metadata.yaml").read_text())
    assert metadata["tokenizer_model_type"] == "<class 'transformers.models.gpt2.configuration_gpt2.GPT2Config'>"
    assert (metadata["number_of_training_files"], metadata["vocab_size"]) == (4, END + 1)
    assert metadata["token_type_ids"] is True
    counts = [len(rows(output / f"train_{number}_of_4.hdf5")) for number in (1, 2, 3, 4)]
    assert max(counts) - min(counts) <= 1
    assert metadata["max_batch_size_train"] == min(counts)
    with h5py.File(output / "train_1_of_4.hdf5") as file:
        assert sorted(file) == ["input_ids", "token_type_ids"]
        for dataset in file.values():
            assert (dataset.dtype, dataset.maxshape) == (np.int32, (None, 16))
            assert (dataset.compression, dataset.compression_opts, len(dataset.attrs)) == ("gzip", 4, 0)
    test = [json.loads(line) for line in (output / "test_files" / "test_1_of_1.jsonl").read_text().splitlines()]
    assert len(test) == 3
    assert all(record in REVIEWS for record in test)
    hashes = json.loads((output / "sha256" / "files_metadata.json").read_text())
    for name, described in hashes.items():
        assert hashlib.sha256((output / name).read_bytes()).hexdigest() == described["sha256"]
    assert (output / "tokenizer" / "tokenizer.json").exists()
    assert not (output / ".prepare").exists()


def test_files_of_the_public_tool_are_read(tmp_path: Path) -> None:
    """Whose chunks are those that h5py chooses, and which are numbered as it does."""
    for number in (1, 2):
        with h5py.File(tmp_path / f"train_{number}_of_2.hdf5", "w") as file:
            for name in ("input_ids", "token_type_ids"):
                rows = np.full((3, 8), number, np.int32)
                file.create_dataset(name, data=rows, maxshape=(None, 8), compression="gzip", compression_opts=4)
    paths = split_files(tmp_path, "train")
    for number, path in enumerate(paths, start=1):
        with SequenceFile(path) as file:
            [(tokens, types)] = file.rows()
            assert (file.count, file.length) == (3, 8)
            assert (tokens == number).all()
            assert (types == number).all()
    paths[0].unlink()
    with pytest.raises(DatasetError, match=r"train_1_of_2\.hdf5 is missing"):
        split_files(tmp_path, "train")
    paths[1].write_bytes(paths[1].read_bytes()[:500])
    with pytest.raises(DatasetError, match="is no HDF5 file that can be read"):
        SequenceFile(paths[1])


def test_a_record_of_several_pairs_is_one_article_or_several(run: Any) -> None:
    records = [REVIEWS[:2]] * 2
    settings: dict[str, Any] = {"input_packing_config": "single::drop", "num_training_splits": 1}
    output, _ = run(records, settings=settings)
    assert all_rows(output) == [ids("ab cd$e f$$$")] * 2
    assert all_rows(output, name="token_type_ids") == [[0, 0, 1, 1, 1, 1, 0, 1, 1, 3, 2, 2]] * 2
    output, _ = run(records, name="attention", settings={**settings, "attention_boundary": "prompt_completion_pair"})
    assert all_rows(output, name="token_type_ids") == [[0, 0, 1, 1, 1, 3, 0, 1, 1, 3, 2, 2]] * 2
    output, _ = run(records, name="packing", settings={**settings, "packing_boundary": "prompt_completion_pair"})
    assert all_rows(output) == [ids("ab cd$$$$$$$"), ids("e f$$$$$$$$$")] * 2


def test_a_conversation_is_written_by_the_template_and_answers_are_learnt(run: Any) -> None:
    messages = [("user", "ab"), ("assistant", "c"), ("user", "d"), ("assistant", "ef")]
    record = {"messages": [{"role": role, "content": text} for role, text in messages]}
    output, _ = run([record], settings={"max_seq_length": 40, "num_training_splits": 1})
    text, kinds = "", ""
    for part, kind in (("<u>ab!<a>", "0"), ("c$", "1"), ("\n<u>d!<a>", "0"), ("ef", "1"), ("$", "3")):
        text, kinds = text + part, kinds + kind * len(part)
    # What stands before an answer is the opening of the assistant's turn, which the template writes again.
    assert all_rows(output)[0][: len(text)] == ids(text)
    assert "".join(map(str, all_rows(output, name="token_type_ids")[0]))[: len(kinds)] == kinds
    pair, _ = run(
        [{"prompt": "ab", "completion": "c"}], name="pairs",
        settings={"max_seq_length": 12, "num_training_splits": 1, "apply_chat_template": True},
    )  # fmt: skip
    assert all_rows(pair) == [ids("<u>ab!<a>c$$")]


def test_every_kind_of_input_gives_the_same(run: Any, tmp_path: Path) -> None:
    folder = tmp_path / "inputs"
    texts = ["ab", "c d", "e"]
    (folder / "deep").mkdir(parents=True)
    (folder / "a.txt").write_text("ab\n\nc d\n")
    pq.write_table(pa.table({"text": ["e"]}), folder / "deep" / "b.parquet")
    with gzip.open(folder / "deep" / "c.jsonl.gz", "wt") as file:
        for text in texts:
            file.write(json.dumps({"prompt": "", "completion": text}) + "\n")
    (folder / "deep" / "d.json").write_text(json.dumps([{"text": text} for text in texts]))
    output, report = run(None, str(folder), settings={"input_packing_config": "single::drop"})
    assert all_rows(output) == [ids(f" {text}$".ljust(12, "$")) for text in texts * 3]
    assert report.records["train"] == 9


def test_what_cannot_be_used_is_listed_by_file_and_line(run: Any, tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text('{"prompt": "a", "completion": "b"}\n{"prompt": "a"}\nnonsense\n{"prompt": 3, "completion": "x"}\n')
    output, report = run(None, str(path))
    assert report.left_out == {"cannot be used": 3}
    log = (output / "logs.log").read_text()
    assert 'bad.jsonl, line 2: left out: the record has no "completion"' in log
    assert "bad.jsonl, line 3: left out: " in log
    assert 'bad.jsonl, line 4: left out: its "prompt" is not a text' in log


@pytest.mark.parametrize("shuffle", ["on_RAM", "large_file"])
def test_a_shuffle_moves_every_record_somewhere_and_is_the_seed_s(run: Any, shuffle: str) -> None:
    letters = "abcdefghijklmnopqrstuvwxyz"
    records = [{"prompt": one, "completion": other} for one in letters for other in letters]
    settings = {"input_packing_config": "single::drop", "shuffle": shuffle, "max_seq_length": 4}
    made = [run(records, name=str(n), settings={**settings, "seed": n // 2}, workers=n % 2 + 1)[0] for n in range(3)]
    first, again, other = map(all_rows, made)
    assert first == again
    assert sorted(first) == sorted(other)
    assert first != other
    straight = [ids(f"{record['prompt']} {record['completion']}$") for record in records]
    assert sorted(first) == sorted(straight)
    assert sum(a == b for a, b in zip(first, straight, strict=True)) < 20
    for path in made[0].iterdir():
        if path.is_file():
            assert path.read_bytes() == (made[1] / path.name).read_bytes()


def test_categories_go_with_every_token(run: Any) -> None:
    records = [{**REVIEWS[0], "category": "film"}, {**REVIEWS[1], "category": "book"}, {**REVIEWS[1], "category": "x"}]
    output, report = run(records, settings={"categories": ("book", "film"), "num_training_splits": 1})
    assert all_rows(output, name="category_ids") == [[1] * 6 + [0] * 4 + [-1] * 2]
    assert report.left_out == {"cannot be used": 1}


PROGRAM = """
import sys
from pathlib import Path
import bossa.prepare.run as run
from bossa.prepare import Settings, prepare
from bossa.tokenizer import Tokenizer, read_tokenizer_files
run.SAVE_SECONDS = 0
settings = Settings(max_seq_length=64, shuffle="large_file", dev_ratio=0.1, test_ratio=0.1, num_training_splits=3)
files = read_tokenizer_files(sys.argv[1])
prepare([sys.argv[2]], Path(sys.argv[3]), files, Tokenizer.from_directory(sys.argv[1]), settings)
"""


def test_a_run_that_was_killed_goes_on_and_gives_the_same_bytes(model: Path, tmp_path: Path) -> None:
    source = tmp_path / "many.jsonl"
    with source.open("w") as file:
        for number in range(3000):
            file.write(json.dumps({"prompt": "p" * (number % 40), "completion": "abc"[: number % 4]}) + "\n")

    def start(output: Path) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-c", PROGRAM, str(model), str(source), str(output)])

    assert start(tmp_path / "whole").wait() == 0
    kills = 0
    for attempt in range(12):
        process = start(tmp_path / "torn")
        try:
            process.wait(0.5 + 0.35 * attempt)
            break
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            kills += 1
    else:
        assert start(tmp_path / "torn").wait() == 0
    assert kills
    whole = {p.relative_to(tmp_path / "whole"): p.read_bytes() for p in (tmp_path / "whole").rglob("*") if p.is_file()}
    torn = {p.relative_to(tmp_path / "torn"): p.read_bytes() for p in (tmp_path / "torn").rglob("*") if p.is_file()}
    # Where the last of them was killed as it cleaned up, what was prepared is whole all the same.
    torn = {path: data for path, data in torn.items() if not path.parts[0].startswith((".prepare-done", "..prepare"))}
    assert torn == whole


def test_other_work_in_the_output_is_refused_by_what_differs(run: Any, tmp_path: Path) -> None:
    run(REVIEWS)
    with pytest.raises(DatasetError, match="is not empty: name another folder, or pass --overwrite"):
        run(REVIEWS)
    (tmp_path / "out" / "mine.txt").write_text("kept")
    output, _ = run(REVIEWS, overwrite=True)
    assert (output / "mine.txt").read_text() == "kept"
    work = tmp_path / "begun" / ".prepare"
    with pytest.raises(DatasetError, match="no sequence is left"):
        run(REVIEWS[2:], name="begun", settings={"input_packing_config": "single::drop"})
    assert work.exists()
    with pytest.raises(DatasetError, match="holds unfinished work, and the inputs and --max_seq_length differed there"):
        run(REVIEWS[2:], name="begun", settings={"input_packing_config": "single::drop", "max_seq_length": 64})


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"dev_ratio": 0.6, "test_ratio": 0.5}, "leave nothing to train on"),
        ({"dev_ratio": 0.01}, "none is left for the dev split"),
        ({"test_ratio": 0.01}, "none is left for the test split"),
        ({"max_seq_length": 1}, "2 tokens or more"),
    ],
)
def test_settings_that_leave_nothing_are_refused(run: Any, settings: dict[str, Any], match: str) -> None:
    with pytest.raises(DatasetError, match=match):
        run(REVIEWS, settings=settings)


def test_files_that_are_none_are_refused(run: Any, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "x.csv").write_text("a")
    (tmp_path / "x.parquet").write_text("a")
    for path, match in (
        ("nowhere.jsonl", "no such file"), ("empty", "has none of"), ("x.csv", "is not a kind of file"),
        ("x.parquet", "cannot read"),
    ):  # fmt: skip
        with pytest.raises(DatasetError, match=match):
            run(None, str(tmp_path / path))
    (tmp_path / "x.jsonl").write_text("")
    with pytest.raises(DatasetError, match="none is left for the train split"):
        run(None, str(tmp_path / "x.jsonl"), name="other")


@pytest.mark.slow
@pytest.mark.long
def test_memory_does_not_grow_with_the_input(model: Path, tmp_path: Path) -> None:
    """Twenty times the input takes less than a fifth of its size more."""
    record = json.dumps({"prompt": "p" * 500, "completion": "c" * 500}) + "\n"
    peaks = []
    for count in (500, 10_000):
        source = tmp_path / f"{count}.jsonl"
        source.write_text(record * count)
        program = PROGRAM + "\nimport resource; print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
        command = [sys.executable, "-c", program, str(model), str(source), str(tmp_path / f"out-{count}")]
        peaks.append(int(subprocess.run(command, check=True, capture_output=True, text=True).stdout) << 10)
    # The tokens, here of one letter each, take 40 MB more, and are on disk; pages of maps are given back when wanted.
    assert peaks[1] - peaks[0] < 100 << 20


def test_the_command_prints_the_folder(model: Path, tmp_path: Path) -> None:
    source = tmp_path / "r.jsonl"
    source.write_text("".join(json.dumps(record) + "\n" for record in REVIEWS))
    command = [sys.executable, "-m", "bossa", "prepare", "-", "--output_path", str(tmp_path / "o")]
    command += ["--pretrained_tokenizer", str(model), "--max_seq_length", "12", "--num_workers", "1"]
    with source.open() as stdin:
        result = subprocess.run(command, stdin=stdin, capture_output=True, text=True, check=False, env=os.environ)
    assert result.returncode == 0, result.stderr
    assert result.stdout == f"{tmp_path / 'o'}\n"
    assert "train: 3 records, 2 sequences in 2 files" in result.stderr
    started = time.monotonic()
    result = subprocess.run(
        [*command[:-2], "--dev_ratio", "2"], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )
    assert result.returncode == 2
    assert time.monotonic() - started < 60
