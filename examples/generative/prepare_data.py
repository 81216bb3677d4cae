"""Writes records with a prompt and a completion as HDF5 files of token ids, one sequence a record.

Without ``--tokenizer`` a small one is made of the text itself, and put into ``tokenizer/`` beside the files.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
from tokenizers import ByteLevelBPETokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast
from utils.datasets import GenerativeDataset

PROMPT, COMPLETION, PADDING, END = range(4)
END_TOKEN = "<|endoftext|>"


def small_tokenizer(texts: Sequence[str], vocab_size: int) -> PreTrainedTokenizerBase:
    """Byte pairs of these texts; the end token is id 0."""
    pairs = ByteLevelBPETokenizer()
    pairs.train_from_iterator(texts, vocab_size=vocab_size, special_tokens=[END_TOKEN], show_progress=False)
    return PreTrainedTokenizerFast(tokenizer_object=pairs._tokenizer, eos_token=END_TOKEN, pad_token=END_TOKEN)


def sequence(
    tokenizer: PreTrainedTokenizerBase, prompt: str, completion: str, length: int
) -> tuple[list[int], list[int]] | None:
    """Ids and types of one record, padded to `length`; None where it is longer."""
    before = tokenizer(prompt.rstrip(" "))["input_ids"]
    after = tokenizer(" " + completion.strip(" "))["input_ids"]
    missing = length - len(before) - len(after) - 1
    if missing < 0:
        return None
    padding = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    ids = [*before, *after, tokenizer.eos_token_id, *[padding] * missing]
    types = [*[PROMPT] * len(before), *[COMPLETION] * len(after), END, *[PADDING] * missing]
    return ids, types


def write(path: Path, sequences: Sequence[tuple[list[int], list[int]]]) -> None:
    """One HDF5 file: ``input_ids`` and ``token_type_ids``, int32 `[n, L]`."""
    with h5py.File(path, "w") as file:
        for name, rows in zip(("input_ids", "token_type_ids"), zip(*sequences, strict=True), strict=True):
            values = np.array(rows, dtype=np.int32)
            file.create_dataset(
                name, data=values, maxshape=(None, values.shape[1]), compression="gzip", compression_opts=4
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--input", required=True, help="a JSONL file")
    parser.add_argument("--output", required=True, type=Path, help="the directory for train and dev files")
    parser.add_argument("--tokenizer", help="a tokenizer's name or directory")
    parser.add_argument("--vocab_size", type=int, default=512, help="of the tokenizer that is made")
    parser.add_argument("--max_seq_length", type=int, required=True, help="longer records are left out")
    parser.add_argument("--dev", type=int, default=4, help="how many records, the last ones, to evaluate on")
    args = parser.parse_args()

    records = GenerativeDataset(args.input).records
    pairs = [(record["prompt"], record["completion"]) for record in records]
    if args.tokenizer:
        tokenizer = AutoTokenizer.from_pretrained(args.tokenizer)
    else:
        tokenizer = small_tokenizer([f"{prompt} {completion}" for prompt, completion in pairs], args.vocab_size)
    rows = [sequence(tokenizer, *pair, args.max_seq_length) for pair in pairs]
    sequences = [row for row in rows if row is not None]
    if not 0 < args.dev < len(sequences):
        raise SystemExit(
            f"{len(sequences)} records fit into {args.max_seq_length} tokens: --dev {args.dev} leaves none"
        )
    args.output.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(args.output / "tokenizer")
    write(args.output / "train_1_of_1.hdf5", sequences[: -args.dev])
    write(args.output / "dev_1_of_1.hdf5", sequences[-args.dev :])
    print(f"{len(sequences)} of {len(pairs)} records, {args.dev} of them to evaluate on, in {args.output}")


if __name__ == "__main__":
    main()
