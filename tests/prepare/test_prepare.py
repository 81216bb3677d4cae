"""Records to HDF5 files: every packing against sequences written out by hand, what is left out, and going on."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer as Backend
from tokenizers import models, pre_tokenizers

from bossa.errors import DatasetError
from bossa.prepare import SequenceFile, Settings, prepare, split_files
from bossa.tokenizer import Tokenizer

h5py = pytest.importorskip("h5py")

END = 0
P, C, PAD, SEP = 0, 1, 2, 3
TEMPLATE = (
    "{% for m in messages %}{{ m.role }} {{ m.content }}{% if m.role == 'assistant' %} <end>{% endif %} {% endfor %}"
)
TEMPLATE += "{% if add_generation_prompt %}assistant {% endif %}"
WORDS = ["<end>", *"abcdefgh", "user", "assistant", "<unk>", "<pad>"]  # a is 1, b is 2, …


def tokenizer_files(**config):
    backend = Backend(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<end>", "unk_token": "<unk>", **config}
    return {"tokenizer.json": backend.to_str().encode(), "tokenizer_config.json": json.dumps(settings).encode()}


def made(tmp_path, records, *, name="in.jsonl", output="out", config=None, **settings):
    """The train sequences that come of some records, and the report."""
    path = tmp_path / name
    if records is not None:
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
    files = tokenizer_files(**(config or {}))
    settings = {"max_seq_length": 4, "num_training_splits": 1, **settings}
    report = prepare(
        [str(path)], tmp_path / output, files, Tokenizer.from_files(files), Settings(**settings), workers=2
    )
    return sequences(tmp_path / output), report


def sequences(folder: Path, split="train"):
    found = []
    for path in split_files(folder, split):
        with SequenceFile(path) as file:
            for tokens, types in file.rows():
                found += list(zip(tokens.tolist(), types.tolist(), strict=True))
    return found


def pair(prompt, completion):
    return {"prompt": prompt, "completion": completion}


RECORDS = [pair("a", "b"), pair("c d e", "f"), pair("g", "h")]  # 3, 5 and 3 tokens with their ends
LEFT = ([4, 5, 6, END], [P, P, C, SEP])
RIGHT = ([3, 4, 5, 6], [P, P, P, C])
ONE, THREE = ([1, 2, END, END], [P, C, SEP, PAD]), ([7, 8, END, END], [P, C, SEP, PAD])


@pytest.mark.parametrize(
    ("packing", "length", "expected"),
    [
        # the second sequence of "full" has no type 1 at length 2, and goes
        ("full", 4, [([1, 2, END, 3], [P, C, SEP, P]), ([4, 5, 6, END], [P, P, C, SEP]), THREE]),
        ("greedy::drop", 4, [ONE, THREE]),
        ("greedy::truncate_left", 4, [ONE, LEFT, THREE]),
        ("greedy::truncate_right", 4, [ONE, RIGHT, THREE]),
        ("single::drop", 4, [ONE, THREE]),
        ("single::truncate_left", 4, [ONE, LEFT, THREE]),
        ("single::truncate_right", 4, [ONE, RIGHT, THREE]),
        (
            "greedy::drop", 8,
            [([1, 2, END, 3, 4, 5, 6, END], [P, C, SEP, P, P, P, C, SEP]),
             ([7, 8, END, END, END, END, END, END], [P, C, SEP, *[PAD] * 5])],
        ),
    ],
)  # fmt: skip
def test_a_packing_makes_the_sequences_written_out_by_hand(tmp_path, packing, length, expected):
    found, _ = made(tmp_path, RECORDS, input_packing_config=packing, max_seq_length=length)
    assert found == expected


def test_sequences_without_a_token_to_learn_are_left_out_unless_asked_for(tmp_path):
    records = [pair("a b c d", "e")]
    with_prompt, report = made(tmp_path, [*records, pair("", "f g")], max_seq_length=4)
    assert with_prompt == [([5, END, 6, 7], [C, SEP, C, C])]
    assert report.left_out == {"sequences without a token of a completion": 2}
    kept, _ = made(tmp_path, records, output="kept", keep_prompt_only_sequences=True)
    assert kept == [([1, 2, 3, 4], [P] * 4), ([5, END, END, END], [C, SEP, PAD, PAD])]


def test_the_padding_is_the_tokenizers_own_where_it_has_one(tmp_path):
    found, _ = made(tmp_path, [pair("a", "b")], config={"pad_token": "<pad>"})
    assert found == [([1, 2, END, WORDS.index("<pad>")], [P, C, SEP, PAD])]


def test_the_layout_is_that_of_the_public_tool(tmp_path):
    made(tmp_path, RECORDS, input_packing_config="single::truncate_left", num_training_splits=2)
    paths = split_files(tmp_path / "out", "train")
    assert [path.name for path in paths] == ["train_1_of_2.hdf5", "train_2_of_2.hdf5"]
    assert {path.name for path in (tmp_path / "out").iterdir() if not path.name.startswith(".")} == {
        *(path.name for path in paths), "metadata.yaml", "tokenizer", "sha256", "logs.log",
    }  # fmt: skip
    with h5py.File(paths[0]) as file:
        assert sorted(file) == ["input_ids", "token_type_ids"]
        assert not file.attrs
        for dataset in file.values():
            assert (dataset.shape, dataset.maxshape, dataset.dtype) == ((2, 4), (None, 4), "int32")
            assert (dataset.compression, dataset.compression_opts, len(dataset.attrs)) == ("gzip", 4, 0)
    yaml = pytest.importorskip("yaml")
    metadata = yaml.safe_load((tmp_path / "out" / "metadata.yaml").read_text())
    assert metadata["max_batch_size_train"] == 1
    assert metadata["max_batch_size_dev"] is None
    assert metadata["token_type_ids"] is True
    assert (metadata["number_of_training_files"], metadata["number_of_dev_files"]) == (2, 0)
    assert metadata["max_seq_length"] == 4


def test_files_that_h5py_writes_row_by_row_are_read_as_the_public_tool_writes_them(tmp_path):
    with h5py.File(tmp_path / "train_1_of_1.hdf5", "w") as file:
        for name, row in (("input_ids", [1, 2, 0, 0]), ("token_type_ids", [P, C, SEP, PAD])):
            dataset = file.create_dataset(
                name, (0, 4), "i4", maxshape=(None, 4), compression="gzip", compression_opts=4
            )
            dataset.resize((1, 4))
            dataset[0] = row
    assert sequences(tmp_path) == [([1, 2, 0, 0], [P, C, SEP, PAD])]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda file: file.__delitem__("token_type_ids"), "has no token_type_ids"),
        (lambda file: file.move("input_ids", "input_ids_"), "has no input_ids"),
        (lambda file: (file.__delitem__("input_ids"), file.create_group("input_ids")), "has no input_ids"),
        (lambda file: file["token_type_ids"].resize((2, 4)), "differ in shape"),
        (lambda file: file["token_type_ids"].__setitem__(0, 9), "none of 0 to 3"),
    ],
)
def test_a_file_that_is_not_such_a_file_is_refused_in_a_line(tmp_path, damage, message):
    made(tmp_path, RECORDS)
    with h5py.File(split_files(tmp_path / "out", "train")[0], "r+") as file:
        damage(file)
    with pytest.raises(DatasetError, match=message):
        sequences(tmp_path / "out")


def test_a_file_that_is_cut_short_or_missing_is_refused_in_a_line(tmp_path):
    made(tmp_path, RECORDS, num_training_splits=2)
    first, second = split_files(tmp_path / "out", "train")
    first.write_bytes(first.read_bytes()[:1000])
    with pytest.raises(DatasetError, match="no HDF5 file that can be read"):
        sequences(tmp_path / "out")
    second.unlink()
    with pytest.raises(DatasetError, match=r"train_2_of_2\.hdf5 is missing"):
        split_files(tmp_path / "out", "train")


def test_text_around_prompts_stands_around_those_that_there_are(tmp_path):
    found, _ = made(
        tmp_path, [pair("a  ", "b"), pair("", "c")], prompt_prefix="e ", prompt_postfix=" f", max_seq_length=8
    )
    assert found == [([5, 1, 6, 2, END, 3, END, END], [P, P, P, C, SEP, C, SEP, PAD])]


def test_text_and_lists_of_pairs_and_parquet_are_read(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    (tmp_path / "t.txt.gz").write_bytes(gzip.compress(b"a b\n\nc\n"))
    text = [([1, 2, END, 3], [C, C, SEP, C]), ([END, END, END, END], [SEP, PAD, PAD, PAD])]
    assert made(tmp_path, None, name="t.txt.gz")[0] == text[:1]
    parquet.write_table(pyarrow.Table.from_pylist([pair("a", "b")]), tmp_path / "p.parquet")
    assert made(tmp_path, None, name="p.parquet", output="p")[0] == [ONE]
    several = [pair("g", "h"), [pair("a", "b"), pair("c", "d")]]
    whole = {"max_seq_length": 6, "input_packing_config": "single::drop"}
    assert made(tmp_path, several, output="l", **whole)[0][1:] == [([1, 2, END, 3, 4, END], [P, C, C, P, C, SEP])]
    assert made(tmp_path, several, output="b", attention_boundary="prompt_completion_pair", **whole)[0][1:] == [
        ([1, 2, END, 3, 4, END], [P, C, SEP, P, C, SEP])
    ]


def test_in_a_conversation_what_the_assistant_says_is_to_be_learnt(tmp_path):
    turns = [("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")]
    record = {"messages": [{"role": role, "content": content} for role, content in turns]}
    found, _ = made(tmp_path, [record], max_seq_length=10, config={"chat_template": TEMPLATE})
    user, assistant = WORDS.index("user"), WORDS.index("assistant")
    assert found == [([user, 1, assistant, 2, END, user, 3, assistant, 4, END], [P, P, P, C, C, P, P, P, C, SEP])]


def many(tmp_path):
    path = tmp_path / "many.jsonl"
    path.write_text("".join(json.dumps(pair("a b"[: 1 + number % 3], "c d e f")) + "\n" for number in range(100)))
    return path


def test_a_shuffle_keeps_every_record_and_changes_their_order_by_the_seed(tmp_path):
    records = [pair(letter, other) for letter in "abcdefgh" for other in "abcdefgh"]
    how = {"input_packing_config": "single::drop", "max_seq_length": 3}
    plain = made(tmp_path, records, output="plain", **how)[0]
    orders = [made(tmp_path, records, output=f"s{n}{k}", shuffle=k, seed=n, **how)[0]
              for n in (1, 2) for k in ("on_RAM", "large_file")]  # fmt: skip
    assert all(sorted(order) == sorted(plain) for order in orders)
    assert len({str(order) for order in [plain, *orders]}) == 5


def test_unfinished_work_of_other_settings_is_refused_naming_what_differs(tmp_path):
    path, files = many(tmp_path), tokenizer_files()
    tokenizer = Tokenizer.from_files(files)

    def stop(stage, count):
        if stage.startswith("packing"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare([str(path)], tmp_path / "out", files, tokenizer, Settings(8), progress=stop)
    with pytest.raises(DatasetError, match="unfinished work, and --max_seq_length differed"):
        prepare([str(path)], tmp_path / "out", files, tokenizer, Settings(16))
    prepare([str(path)], tmp_path / "out", files, tokenizer, Settings(16), overwrite=True)
    with pytest.raises(DatasetError, match="is not empty"):
        prepare([str(path)], tmp_path / "out", files, tokenizer, Settings(16))


def test_what_cannot_be_used_is_counted_and_listed_by_file_and_line(tmp_path):
    path = tmp_path / "in.jsonl"
    path.write_text(json.dumps(pair("a", "b")) + '\n{"prompt": 1\n{"prompt": "a"}\n' + json.dumps(pair("a b c d", "e")))
    _, report = made(tmp_path, None, input_packing_config="single::drop")
    assert report.left_out == {"cannot be used": 2, "longer than a sequence": 1}
    log = (tmp_path / "out" / "logs.log").read_text()
    for line, reason in ((2, ""), (3, 'the record has no "completion"'), (4, "longer than a sequence")):
        assert f"{path}, line {line}: left out: {reason}" in log


def test_an_empty_split_is_refused_in_a_line(tmp_path):
    with pytest.raises(DatasetError, match=r"none is left for the train split.*line 1: left out: the record has no"):
        made(tmp_path, [{"prompt": "a"}])
    with pytest.raises(DatasetError, match="no sequence is left for the train split: 1 longer than a sequence"):
        made(tmp_path, [pair("a b c d", "e")], output="o", input_packing_config="single::drop")
    with pytest.raises(DatasetError, match="leave nothing to train on"):
        Settings(8, dev_ratio=0.6, test_ratio=0.4)
