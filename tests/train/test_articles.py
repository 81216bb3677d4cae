"""Rows of HDF5 files become articles, wherever these were packed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bossa.errors import DatasetError
from bossa.prepare.hdf5 import split_files
from bossa.train.articles import read_articles
from support.training import write_data, write_rows


def read(folder: Path, split: str = "train", vocabulary: int = 100, prompt_weight: float = 0.0):
    return read_articles(split_files(folder, split), vocabulary, prompt_weight)


def test_rows_are_cut_behind_end_tokens_and_at_padding(tmp_path: Path):
    ids = [[10, 11, 1, 12, 13, 14, 1, 0], [20, 21, 22, 23, 24, 25, 26, 27]]
    types = [[0, 1, 3, 0, 0, 1, 3, 2], [0, 0, 0, 0, 1, 1, 1, 1]]
    write_rows(tmp_path / "train_1_of_1.hdf5", ids, types)
    found = read(tmp_path)
    assert [found.of(number)[0].tolist() for number in range(len(found))] == [
        [10, 11, 1],
        [12, 13, 14, 1],
        [20, 21, 22, 23, 24, 25, 26, 27],
    ]
    assert found.of(1)[1].tolist() == [0, 0, 1, 3]


def test_articles_without_a_label_are_left_out_and_counted(tmp_path: Path):
    write_rows(tmp_path / "train_1_of_1.hdf5", [[5, 6, 7, 0], [8, 9, 1, 0]], [[0, 0, 0, 2], [0, 1, 3, 2]])
    found = read(tmp_path)
    assert (len(found), found.dropped) == (1, 1)
    assert found.of(0)[0].tolist() == [8, 9, 1]
    assert len(read(tmp_path, prompt_weight=0.5)) == 2


def test_all_files_of_a_split_are_read_in_their_order(tmp_path: Path):
    for number in range(1, 12):
        write_rows(tmp_path / f"train_{number}_of_11.hdf5", [[number, 50, 1]], [[0, 1, 3]])
    found = read(tmp_path)
    assert [found.of(number)[0][0] for number in range(11)] == list(range(1, 12))


def test_a_missing_file_is_named(tmp_path: Path):
    write_rows(tmp_path / "train_1_of_3.hdf5", [[5, 6, 1]], [[0, 1, 3]])
    write_rows(tmp_path / "train_3_of_3.hdf5", [[5, 6, 1]], [[0, 1, 3]])
    with pytest.raises(DatasetError, match=r"train_2_of_3\.hdf5 is missing"):
        read(tmp_path)


def test_data_of_another_tokenizer_are_refused_with_the_row(tmp_path: Path):
    write_rows(tmp_path / "train_1_of_1.hdf5", [[5, 6, 1], [5, 100, 1]], [[0, 1, 3]] * 2)
    with pytest.raises(DatasetError, match=r"row 1 has token 100, and the model knows 100: .*another tokenizer"):
        read(tmp_path)


@pytest.mark.parametrize("types", [[[0, 0, 0]], [[2, 2, 2]], [[3, 0, 0]]])
def test_data_without_a_label_are_refused(tmp_path: Path, types: list[list[int]]):
    write_rows(tmp_path / "train_1_of_1.hdf5", [[5, 6, 1]], types)
    with pytest.raises(DatasetError, match=r"all labels are masked|no article"):
        read(tmp_path)


def test_what_is_no_such_file_is_refused_in_one_line(tmp_path: Path):
    (tmp_path / "train_1_of_1.hdf5").write_bytes(b"no HDF5")
    with pytest.raises(DatasetError, match="is no HDF5 file that can be read"):
        read(tmp_path)
    write_rows(tmp_path / "train_1_of_1.hdf5", [[5, 6, 1]], [[0, 7, 3]])
    with pytest.raises(DatasetError, match="token types are 0 to 3, and one is 7"):
        read(tmp_path)


def test_lengths_add_up(tmp_path: Path):
    found = read(write_data(tmp_path), vocabulary=199)
    assert found.lengths.sum() == len(found.tokens) == found.starts[-1]
    assert np.all(found.lengths > 0)
