"""Every reader, on inputs that were trouble once and on some mutated ones; ``make fuzz`` runs more without end.

A finding is run again by the line that it is shown with: ``python scripts/fuzz.py --reader pef --seed 7``.
"""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from fuzz.campaign import CORPUS, Tally, past_inputs, run
from fuzz.json_mutations import mutate_json
from fuzz.mutations import mutate_bytes, mutate_text
from fuzz.reader import wrong_message
from fuzz.readers import HEAVY, LIGHT, READERS
from fuzz.readers.programs import CANARY, check_source

CASES = {
    **{"pef": 60, "module-pef": 40, "program": 150, "safetensors": 150, "index": 100, "cache": 80, "tokenizer": 60},
    **{"template": 80, "prompts": 200},
}
HEAVY_CASES = 25


def check(tally: Tally) -> None:
    held = len(past_inputs([tally.reader])[tally.reader])
    assert not tally.findings, "\n".join(f"python scripts/fuzz.py --reader {found}" for found in tally.kinds)
    assert tally.cases == CASES.get(tally.reader, HEAVY_CASES) + held, "not every case came to an end"
    assert tally.past >= tally.cases / 2, "too few inputs get past the first check, so that what is behind it is idle"


@pytest.mark.parametrize("reader", LIGHT)
def test_mutated_inputs_end_in_a_line_or_a_right_answer(reader: str):
    check(run([reader], 0, CASES[reader], files=past_inputs([reader]))[reader])


@pytest.mark.long
def test_mutated_inputs_of_torch_and_transformers_end_in_a_line_or_a_right_answer():
    """In one worker, since what they import takes most of the time."""
    for tally in run(list(HEAVY), 0, HEAVY_CASES, files=past_inputs(list(HEAVY))).values():
        check(tally)


def test_every_reader_has_its_number_of_cases_and_the_corpus_is_small():
    assert CASES.keys() == LIGHT.keys()
    held = [path for path in CORPUS.rglob("*") if path.is_file()]
    assert {path.parent.name for path in held} <= set(READERS)
    assert all(path.stat().st_size <= 64 << 10 for path in held)


def test_mutations_are_the_same_for_the_same_seed_and_differ_from_seed_to_seed():
    text = json.dumps({"a": [1, 2.5, {"b": "text"}], "c": None})
    for mutate in (
        mutate_json,
        mutate_text,
        lambda chance, data: mutate_bytes(chance, data.encode()).decode("latin-1"),
    ):
        made = [[mutate(random.Random(seed), text) for seed in range(40)] for _ in range(2)]
        assert made[0] == made[1]
        assert len(set(made[0])) > 20


@pytest.mark.parametrize(
    ("message", "right"),
    [
        ("x.pef: is damaged: fetch it again", True),
        ("x\ny", False),
        ("\x1b[31mred", False),
        ("turned \u202e", False),
        ("", False),
        ("x" * 5000, False),
        ("a path with\u00a0spaces, 中文 and 🤖", True),
    ],
)
def test_a_message_is_one_bounded_line_that_moves_nothing(message: str, right: bool):
    assert (wrong_message(message) is None) == right


@pytest.mark.parametrize(
    ("source", "right"),
    [
        (f"// x {CANARY}\nint y;\n", True),
        (f'const char* x = "{CANARY}";\n', True),
        (f"// x\nint {CANARY};\n", False),
        (f"// x\rint {CANARY};\n", False),
        (f"/* x */ int {CANARY}; /* */\n", False),
        (f'const char* x = ""; int {CANARY};\n', False),
    ],
)
def test_a_name_that_leaves_its_comment_is_seen(source: str, right: bool):
    if right:
        check_source(source)
    else:
        with pytest.raises(AssertionError, match="a name from the program"):
            check_source(source)


def test_what_no_reader_should_do_is_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A reader that answers as none should, in a worker of its own: each way of it is noticed and told."""
    (tmp_path / "odd_reader.py").write_text(ODD)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    monkeypatch.setenv("BOSSA_FUZZ_READER", "odd_reader:Odd")
    tally = run(["odd"], 0, len(WAYS), seconds=2)["odd"]
    found = {finding.case: finding.what for finding in tally.findings}
    assert tally.cases == len(WAYS)
    assert sorted(found) == list(range(2, len(WAYS)))
    for case, what in WAYS.items():
        assert what is None or what in found[case], (what, found[case])


WAYS: dict[int, str | None] = {
    **{
        0: None,
        1: None,
        2: "ValueError",
        3: "the message has the letter '\\n'",
        4: "ended by SIGSEGV",
        5: "exit code 3",
    },
    **{6: "an answer that is wrong", 7: "writes", 8: "behind", 9: "MemoryError", 10: "subprocess", 11: "no end within"},
}
ODD = """
import os, random, subprocess, time
from bossa.errors import BossaError
from fuzz.reader import Wrong

class Raw(BossaError):
    def __str__(self):
        return Exception.__str__(self)

class Odd:
    def seeds(self):
        return [b"0"]

    def mutate(self, chance, bases):
        number = next(n for n in range(99) if random.Random(f"odd {n}").getstate() == chance.getstate())
        return str(number).encode()

    def passes(self, data):
        return True

    def read(self, data, folder):
        way = int(data)
        if way == 1: raise BossaError("refused")
        if way == 2: raise ValueError("a traceback")
        if way == 3: raise Raw("two\\nlines")
        if way == 4: os.kill(os.getpid(), 11)
        if way == 5: os._exit(3)
        if way == 6: raise Wrong("an answer that is wrong")
        if way == 7: open(folder / ".." / ".." / "elsewhere", "w").close()
        if way == 8: (folder / ".." / "left").touch()
        if way == 9: bytearray(2 << 30)
        if way == 10: subprocess.run(["true"])
        if way == 11: time.sleep(60)
"""
