"""Writing predictions: the seed's bytes, order, and whole lines whatever happens."""

from __future__ import annotations

import errno
import gzip
import io
import json
import os
import signal
import stat
import subprocess
import sys
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bossa.dataset.fields import answer_fields, completion_fields, error_fields
from bossa.dataset.predictions import InOrder, JsonlWriter, TextWriter, write_text
from bossa.dataset.prompts import BadRecord, Record, read_records
from bossa.errors import DatasetError, RuntimeFailure
from bossa.host import signals


@given(st.lists(st.text(max_size=10), max_size=5))
def test_text_is_what_print_prints_with_a_line_of_dashes_between(predictions):
    expected, found = io.StringIO(), io.StringIO()
    print(*predictions, sep=f"\n{'-' * 20}\n", file=expected)
    write_text(predictions, found)
    assert found.getvalue() == expected.getvalue()


@given(st.permutations(range(8)))
def test_items_come_back_in_order_each_as_soon_as_those_before_it(arrivals):
    order = InOrder()
    given_back = []
    for i, index in enumerate(arrivals):
        given_back += order.put(index, index)
        first_missing = min(set(range(9)) - set(arrivals[: i + 1]))
        assert given_back == list(range(first_missing))
    assert order.rest() == []


def test_text_is_written_in_order_without_those_that_have_none():
    stream = io.StringIO()
    with TextWriter(stream) as writer:
        writer.put(2, "c")
        assert stream.getvalue() == ""
        writer.put(0, None)
        writer.put(1, "b")
        assert stream.getvalue().startswith("b\n")
    assert stream.getvalue() == "b\n" + "-" * 20 + "\nc\n"


def write_then(path, records, error):
    """Write records by their number, and then fail."""
    with JsonlWriter(str(path)) as writer:
        for n in records:
            writer.put(n, {"n": n})
        if error is not None:
            raise error


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_records_are_written_in_order_and_the_file_appears_when_it_is_whole(tmp_path):
    path = tmp_path / "out.jsonl"
    with JsonlWriter(str(path)) as writer:
        part = writer.part
        writer.put(1, {"n": 1})
        assert part.read_text() == ""
        writer.put(0, {"n": 0})
        assert lines(part) == [{"n": 0}, {"n": 1}]
        writer.put(3, {"n": 3})
        writer.put(2, {"n": 2})
        assert not path.exists()
    assert lines(path) == [{"n": n} for n in range(4)]
    assert os.listdir(tmp_path) == ["out.jsonl"]


def test_ctrl_c_keeps_what_is_finished(tmp_path):
    path = tmp_path / "out.jsonl"
    with pytest.raises(KeyboardInterrupt):
        write_then(path, [0, 4, 2], KeyboardInterrupt())
    assert lines(path) == [{"n": 0}, {"n": 2}, {"n": 4}]
    assert os.listdir(tmp_path) == ["out.jsonl"]


def test_ctrl_c_before_the_first_record_leaves_what_was_there(tmp_path):
    path = tmp_path / "out.jsonl"
    path.write_text("before\n")
    with pytest.raises(KeyboardInterrupt):
        write_then(path, [], KeyboardInterrupt())
    assert path.read_text() == "before\n"
    assert os.listdir(tmp_path) == ["out.jsonl"]


def test_any_other_error_keeps_the_part_and_names_it_and_what_was_there_before(tmp_path):
    path = tmp_path / "out.jsonl"
    path.write_text("before\n")
    with pytest.raises(RuntimeFailure) as caught:
        write_then(path, [0], RuntimeFailure("the step failed"))
    [part] = tmp_path.glob(".out.jsonl.*.part")
    assert str(caught.value) == f"the step failed; what was done before is in {part}"
    assert lines(part) == [{"n": 0}]
    assert path.read_text() == "before\n"


def test_an_error_before_the_first_record_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeFailure, match=r"^the step failed$"):
        write_then(tmp_path / "out.jsonl", [1], RuntimeFailure("the step failed"))
    assert os.listdir(tmp_path) == []


def test_a_full_disk_keeps_whole_lines_and_says_where(tmp_path, monkeypatch):
    path = tmp_path / "out.jsonl"
    real = os.write
    left = [20]

    def write(file, data):
        if not left[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        done = real(file, data[: left[0]])
        left[0] -= done
        return done

    monkeypatch.setattr(os, "write", write)
    with pytest.raises(DatasetError) as caught:
        write_then(path, range(10), None)
    monkeypatch.undo()
    [part] = tmp_path.glob(".out.jsonl.*.part")
    assert str(caught.value) == f"cannot write {path}: No space left on device; what was done before is in {part}"
    assert lines(part) == [{"n": 0}, {"n": 1}]
    assert not path.exists()


def test_a_full_device_is_an_error_of_one_line():
    with pytest.raises(DatasetError, match=r"^cannot write /dev/full: No space left on device$"):
        write_then("/dev/full", [0], None)


def test_a_text_stream_that_cannot_be_written_is_an_error_of_one_line():
    class Full(io.StringIO):
        def flush(self):
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(DatasetError, match=r"^cannot write the predictions: No space left on device$"):
        write_text(["a"], Full())


def test_a_device_is_written_and_not_replaced():
    with JsonlWriter("/dev/null") as writer:
        writer.put(0, {"n": 0})
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


def test_a_second_writer_of_the_same_file_is_refused_and_the_first_is_unharmed(tmp_path):
    path = tmp_path / "out.jsonl"
    (tmp_path / "link.jsonl").symlink_to(path)
    with JsonlWriter(str(path)) as writer:
        writer.put(0, {"n": 0})
        for name in ("out.jsonl", "link.jsonl", "./out.jsonl"):
            with pytest.raises(DatasetError, match=r"^another process is writing .*out|link"):
                JsonlWriter(os.path.join(tmp_path, name))
        writer.put(1, {"n": 1})
    assert lines(path) == [{"n": 0}, {"n": 1}]
    with JsonlWriter(str(path)) as writer:
        writer.put(0, {"n": 2})
    assert lines(path) == [{"n": 2}]


def test_a_run_that_was_killed_leaves_its_part_and_the_next_one_does_not_touch_it(tmp_path):
    path = tmp_path / "out.jsonl"
    code = (
        "import os, signal, sys; from bossa.dataset import JsonlWriter; writer = JsonlWriter(sys.argv[1]);"
        "writer.put(0, {'n': 0}); os.kill(os.getpid(), signal.SIGKILL)"
    )
    for _ in range(2):
        killed = subprocess.run([sys.executable, "-c", code, str(path)], check=False)
        assert killed.returncode == -signal.SIGKILL
    parts = list(tmp_path.glob(".out.jsonl.*.part"))
    assert len(parts) == 2
    write_then(path, [0, 1], None)
    assert lines(path) == [{"n": 0}, {"n": 1}]
    assert [lines(part) for part in parts] == [[{"n": 0}]] * 2


@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_nothing_that_lies_in_the_way_is_written_to(tmp_path, kind):
    path = tmp_path / "out.jsonl"
    in_the_way = tmp_path / ".out.jsonl.part"
    if kind == "link":
        (tmp_path / "precious").write_text("precious")
        in_the_way.symlink_to(tmp_path / "precious")
    elif kind == "pipe":
        os.mkfifo(in_the_way)
    else:
        in_the_way.mkdir()
    before = in_the_way.lstat().st_mode
    write_then(path, [0], None)
    assert lines(path) == [{"n": 0}]
    assert in_the_way.lstat().st_mode == before
    assert kind != "link" or (tmp_path / "precious").read_text() == "precious"


def test_a_name_that_ends_in_gz_gets_gzip_that_is_readable_at_every_line(tmp_path):
    path = tmp_path / "out.jsonl.gz"
    with JsonlWriter(str(path)) as writer:
        for n in range(3):
            writer.put(n, {"n": n, "text": "x" * 1000})
            unpacked = zlib.decompressobj(wbits=31).decompress(writer.part.read_bytes())
            assert [json.loads(line)["n"] for line in unpacked.splitlines()] == list(range(n + 1))
    with gzip.open(path) as file:
        assert [json.loads(line)["n"] for line in file] == [0, 1, 2]
    assert path.stat().st_size < 200


@pytest.mark.parametrize("ending", ["bz2", "xz", "zst", "zip"])
def test_other_kinds_of_packing_are_refused(tmp_path, ending):
    with pytest.raises(DatasetError, match=r"or as \.gz"):
        JsonlWriter(str(tmp_path / f"out.jsonl.{ending}"))
    assert os.listdir(tmp_path) == []


def test_a_signal_cuts_no_line_in_two(tmp_path, monkeypatch):
    path = tmp_path / "out.jsonl"
    real = os.write

    def write(file, data):
        signal.raise_signal(signal.SIGTERM)
        return real(file, data[:5])

    def run():
        with signals.interrupting(), JsonlWriter(str(path)) as writer:
            writer.put(1, {"n": 1})
            monkeypatch.setattr(os, "write", write)
            writer.put(0, {"n": 0})

    with pytest.raises(signals.Interrupted) as caught:
        run()
    monkeypatch.undo()
    assert caught.value.number == signal.SIGTERM
    assert lines(path) == [{"n": 0}, {"n": 1}]


def test_a_link_keeps_pointing_where_it_did(tmp_path):
    (tmp_path / "link.jsonl").symlink_to(tmp_path / "real.jsonl")
    with JsonlWriter(str(tmp_path / "link.jsonl")) as writer:
        writer.put(0, {"n": 0})
    assert (tmp_path / "link.jsonl").is_symlink()
    assert lines(tmp_path / "real.jsonl") == [{"n": 0}]


@pytest.mark.parametrize("name", ["missing/out.jsonl", "."])
def test_a_place_that_cannot_be_written_is_refused_before_any_work(tmp_path, name):
    with pytest.raises(DatasetError, match="cannot write"):
        JsonlWriter(str(tmp_path / name))


def test_standard_output_is_a_dash(capfdbinary):
    with JsonlWriter("-") as writer:
        writer.put(1, {"n": "é"})
        writer.put(0, {"n": 0})
    assert capfdbinary.readouterr().out == '{"n":0}\n{"n":"é"}\n'.encode()


def test_an_output_record_has_its_own_fields_first_and_keeps_a_label_under_another_name():
    record = Record(0, "a.jsonl", 3, {"id": 5, "prompt": "p", "completion": "label"}, "p")
    fields = completion_fields(record, answer_fields("text", [1, 2], "stop"))
    assert list(fields.items()) == [
        ("id", 5),
        ("prompt", "p"),
        ("input_completion", "label"),
        ("completion", "text"),
        ("token_ids", [1, 2]),
        ("finish_reason", "stop"),
    ]


def test_several_answers_and_their_log_probabilities_stand_in_one_record():
    record = Record(0, "a.jsonl", 3, {"prompt": "p", "completions": 4}, "p")
    logprobs = [{"token_id": 1, "logprob": -0.5, "top": [[1, -0.5]]}]
    fields = completion_fields(record, answer_fields("a", [1], "stop", logprobs), answer_fields("b", [2], "length"))
    assert fields == {
        "prompt": "p",
        "input_completions": 4,
        "completions": [
            {"completion": "a", "token_ids": [1], "finish_reason": "stop", "logprobs": logprobs},
            {"completion": "b", "token_ids": [2], "finish_reason": "length"},
        ],
    }


def test_an_error_record_says_file_line_and_reason():
    bad = BadRecord(1, "a.jsonl", 3, "it is wrong", {"id": 5})
    assert error_fields(bad) == {"id": 5, "error": {"file": "a.jsonl", "line": 3, "reason": "it is wrong"}}
    long = Record(1, "a.jsonl", 4, {"prompt": "p"}, "p")
    assert error_fields(long, "too long")["error"] == {"file": "a.jsonl", "line": 4, "reason": "too long"}


OWN = st.dictionaries(
    st.sampled_from(["id", "completion", "token_ids", "finish_reason", "error", "completions", "logprobs"])
    | st.sampled_from(["input_completion", "input_error", "input_input_completion"]),
    st.sampled_from(["label", 7, None, [1, 2], "stop", {"reason": "x"}]),
)
ANSWERS = st.tuples(st.text(max_size=3), st.lists(st.integers(0, 9), max_size=3), st.sampled_from(["stop", "length"]))


@given(own=OWN, answers=st.lists(ANSWERS, min_size=1, max_size=2), scores=st.booleans())
def test_the_output_of_a_run_run_again_is_that_output_and_no_field_is_lost(own, answers, scores):
    own = {"prompt": "p", **own}
    logprobs = [{"token_id": 1, "logprob": -0.5, "top": []}] if scores else None
    answers = [answer_fields(*answer, logprobs) for answer in answers]
    first = completion_fields(Record(0, "in.jsonl", 3, own, "p"), *answers)
    again = completion_fields(Record(0, "out.jsonl", 1, first, "p"), *answers)
    assert list(again.items()) == list(first.items())
    assert all(value in list(first.values()) for value in own.values())
    failed = error_fields(Record(0, "out.jsonl", 1, first, "p"), "too long")
    assert not (failed.keys() - own.keys()) & {"token_ids", "finish_reason", "completions", "logprobs"}
    assert error_fields(Record(0, "failed.jsonl", 9, failed, "p"), "too long") == failed
    mended = completion_fields(Record(0, "failed.jsonl", 9, failed, "p"), *answers)
    assert "error" not in own or own["error"] in list(mended.values())
    assert mended.get("error") != failed["error"]
    ours = {"token_ids", "finish_reason", "completion", "completions", "logprobs", "error"}
    given = set(answers[0]) if len(answers) == 1 else {"completions"}
    assert first.keys() & ours == mended.keys() & ours == given
    assert failed.keys() & ours == {"error"}


def test_a_mended_record_has_no_error_and_a_failed_one_no_completion():
    failed = error_fields(Record(0, "a.jsonl", 3, {"prompt": "p", "completion": "label"}, "p"), "too long")
    mended = completion_fields(Record(0, "b.jsonl", 1, failed, "p"), answer_fields("text", [1], "stop"))
    assert list(mended) == ["prompt", "input_completion", "completion", "token_ids", "finish_reason"]
    assert list(error_fields(Record(0, "c.jsonl", 1, mended, "p"), "it was not run")) == [
        *("prompt", "input_completion", "error")
    ]


def test_what_was_no_record_keeps_the_place_where_it_was_none():
    first = error_fields(BadRecord(0, "in.jsonl", 3, "not JSON"))
    again = error_fields(BadRecord(0, "out.jsonl", 1, 'the record has no "prompt"', first))
    assert again == first


def test_half_a_surrogate_pair_in_a_file_name_is_written_as_json_can(tmp_path):
    path = tmp_path / "out.jsonl"
    with JsonlWriter(str(path)) as writer:
        writer.put(0, error_fields(BadRecord(0, "a\udcff.jsonl", 1, "why")))
    assert lines(path)[0]["error"]["file"] == "a\udcff.jsonl"


NUMBERS = (
    f"{2**63}",
    f"{2**64}",
    f"-{2**63 + 1}",
    "9" * 400,
    "NaN",
    "Infinity",
    "-Infinity",
    "0.1",
    "1e-7",
    "null",
    '"NaN 12345678901234567890"',
)


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("name", ["in.jsonl", "in.json"])
def test_fields_come_out_as_they_went_in(tmp_path, number, name):
    text = '{"prompt":"é","id":[' + number + "]}"
    (tmp_path / name).write_text(text if name == "in.jsonl" else f"[{text}]")
    [record] = read_records(str(tmp_path / name))
    path = tmp_path / "out.jsonl"
    with JsonlWriter(str(path)) as writer:
        writer.put(0, completion_fields(record, answer_fields("x", [1], "length")))
        writer.put(1, error_fields(record, "why"))
    done, failed = path.read_text().splitlines()
    assert done == text[:-1] + ',"completion":"x","token_ids":[1],"finish_reason":"length"}'
    assert failed.startswith(text[:-1])


def test_the_deepest_record_that_is_read_can_be_written(tmp_path):
    for number in ("1", f"{2**70}"):
        texts = [f'{{"prompt":"a","deep":{"[" * deep}{number}{"]" * deep}}}' for deep in range(230, 270)]
        (tmp_path / "in.jsonl").write_text("\n".join(texts))
        records = list(read_records(str(tmp_path / "in.jsonl")))
        good = [record for record in records if isinstance(record, Record)]
        assert 0 < len(good) < len(records)
        with JsonlWriter(str(tmp_path / "out.jsonl")) as writer:
            for record in good:
                writer.put(record.index, record.fields)
        assert (tmp_path / "out.jsonl").read_text().splitlines() == texts[: len(good)]
