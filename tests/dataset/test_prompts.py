"""Reading prompts: every kind of file, and everything that can be wrong with one."""

from __future__ import annotations

import gzip
import io
import json
import os
import re
import threading
import time
import tracemalloc

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bossa.dataset import JsonlWriter, document, error_fields, prompts, values
from bossa.dataset.prompts import BadRecord, Record, read_records
from bossa.errors import DatasetError


def write(path, data):
    data = data.encode() if isinstance(data, str) else data
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return str(path)


def summary(path):
    """(line, prompt or reason) of every record."""
    return [(r.line, r.prompt if isinstance(r, Record) else r.reason) for r in read_records(path)]


LINES = '{"prompt": "one", "id": 7}\n\n{"prompt": "two"}'
LIST = '[\n {"prompt": "one", "id": 7},\n\n {"prompt":\n "two"}\n]'


@pytest.mark.parametrize(
    ("name", "data", "lines"),
    [
        ("a.jsonl", LINES, [1, 3]),
        ("a.jsonl.gz", LINES, [1, 3]),
        ("a.json", LIST, [2, 4]),
        ("a.json.gz", LIST, [2, 4]),
        ("bom.jsonl", b"\xef\xbb\xbf" + LINES.encode(), [1, 3]),
        ("bom.json", b"\xef\xbb\xbf" + LIST.encode(), [2, 4]),
        ("crlf.jsonl", LINES.replace("\n", "\r\n"), [1, 3]),
    ],
)
def test_every_kind_of_file_gives_its_records_with_their_lines(tmp_path, name, data, lines):
    path = write(tmp_path / name, data)
    assert list(read_records(path)) == [
        Record(0, path, lines[0], {"prompt": "one", "id": 7}, "one"),
        Record(1, path, lines[1], {"prompt": "two"}, "two"),
    ]


def test_a_json_file_may_hold_one_object(tmp_path):
    path = write(tmp_path / "a.json", '\n{"prompt": "one"}\n')
    assert summary(path) == [(2, "one")]


def test_a_directory_gives_its_files_by_name_and_numbers_go_on(tmp_path):
    second = write(tmp_path / "b.jsonl", '{"prompt": "two"}\n')
    first = write(tmp_path / "a.json.gz", '{"prompt": "one"}')
    write(tmp_path / ".a.jsonl", '{"prompt": "hidden"}')
    write(tmp_path / "README.md", "not prompts")
    (tmp_path / "c.jsonl").mkdir()
    records = list(read_records(str(tmp_path)))
    assert [(r.index, r.file, r.prompt) for r in records] == [(0, first, "one"), (1, second, "two")]


@pytest.mark.parametrize("data", [LINES, LIST, '{\n"prompt": "one"}', "[]", ""])
def test_standard_input_may_be_lines_or_a_document_packed_or_not(monkeypatch, data):
    expected = {LINES: ["one", "two"], LIST: ["one", "two"], '{\n"prompt": "one"}': ["one"]}.get(data, [])
    for packed in (data.encode(), gzip.compress(data.encode())):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(packed)))
        assert [r.prompt for r in read_records("-")] == expected


def test_lines_are_read_from_a_pipe_as_they_come(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    seen = threading.Event()

    def feed():
        with path.open("wb", buffering=0) as pipe:
            pipe.write(b'{"prompt": "one"}\n')
            assert seen.wait(10)
            pipe.write(b'{"prompt": "two"}\n')

    thread = threading.Thread(target=feed)
    thread.start()
    records = read_records(str(path))
    assert next(records).prompt == "one"
    seen.set()
    assert [r.prompt for r in records] == ["two"]
    thread.join()


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "not JSON: "),
        ("[1]", "not a JSON object but a list"),
        ("null", "not a JSON object but null"),
        ('"text"', "not a JSON object but a string"),
        ("3", "not a JSON object but a number"),
        ('{"text": "x"}', 'the record has no "prompt"'),
        ('{"prompt": 3}', 'the "prompt" is not a string but a number'),
        ('{"prompt": null}', 'the "prompt" is not a string but null'),
        ('{"prompt": ["x"]}', 'the "prompt" is not a string but a list'),
        ('{"prompt": ""}', 'the "prompt" is empty'),
        ('{"prompt": "\\ud800"}', "not JSON: "),
        ('{"prompt": NaN}', 'the "prompt" is not a string but a number'),
        ('{"prompt": NaN, "x": "\\ud800"}', "not JSON: "),
        ('{"prompt": "NaN",, "x": 1}', "not JSON: "),
        ('{"prompt": "x", "n": ' + "9" * 5000 + "}", "not JSON: "),
        (b'{"prompt": "\xff"}', "not UTF-8: byte 13 of the line is 0xff"),
        ('{"prompt": "x", "deep": ' + "[" * 300 + "]" * 300 + "}", "the record is nested too deeply"),
        ("[" * 5000, "not JSON: "),
    ],
)
def test_what_cannot_be_used_is_named_and_the_rest_goes_on(tmp_path, line, reason):
    line = line if isinstance(line, bytes) else line.encode()
    path = write(tmp_path / "a.jsonl", b'{"prompt": "before"}\n' + line + b'\n{"prompt": "after"}\n')
    before, bad, after = read_records(path)
    assert (before.prompt, after.prompt, after.index, after.line) == ("before", "after", 2, 3)
    assert isinstance(bad, BadRecord)
    assert (bad.index, bad.file, bad.line) == (1, path, 2)
    assert bad.reason.startswith(reason)
    assert str(bad).startswith(f"{path}, line 2: {reason}")
    document = write(tmp_path / "a.json", b'[{"prompt": "before"},\n' + line + b',\n{"prompt": "after"}]')
    if reason.startswith("not JSON") or reason.startswith("not UTF-8"):
        before, bad, after = read_records(document)
        assert (before.prompt, bad.line, after.prompt) == ("before", 2, "after")
        assert bad.reason.startswith(reason)
    else:
        assert [r.line for r in read_records(document)] == [1, 2, 3]
        assert summary(document)[1] == (2, bad.reason)


def test_a_bad_record_keeps_the_fields_that_it_has(tmp_path):
    [bad] = read_records(write(tmp_path / "a.jsonl", '{"id": 5, "prompt": ""}'))
    assert bad.fields == {"id": 5, "prompt": ""}


@pytest.mark.parametrize("packed", ["", ".gz"])
@pytest.mark.parametrize(
    ("name", "data", "expected"),
    [
        ("a.json", LINES, [(1, "one"), (3, "two")]),
        ("a.jsonl", LIST, [(2, "one"), (4, "two")]),
        ("a.jsonl", '[{"prompt": "one"}, {"prompt": "two"}]\n', [(1, "one"), (1, "two")]),
        ("a.jsonl", '\ufeff{\n "prompt": "one"\n}', [(1, "one")]),
        ("a.jsonl", '[1]\n{"prompt": "one"}\n', [(1, "not a JSON object but a list"), (2, "one")]),
    ],
)
def test_a_file_is_read_as_what_it_holds_whatever_its_name_says(tmp_path, name, data, expected, packed):
    assert summary(write(tmp_path / (name + packed), data)) == expected


def test_a_damaged_line_of_lines_under_the_other_name_stops_no_other(tmp_path):
    for bad in (0, 1, 2):
        lines = [f'{{"prompt": "{i}"}}' if i != bad else '{"prompt": oh}' for i in range(3)]
        found = summary(write(tmp_path / "a.json", "\n".join(lines)))
        assert [text for i, (_, text) in enumerate(found) if i != bad] == [str(i) for i in range(3) if i != bad]
        assert found[bad][0] == bad + 1
        assert found[bad][1].startswith("not JSON: ")


def test_a_prompt_of_white_space_is_a_prompt(tmp_path):
    assert summary(write(tmp_path / "a.jsonl", '{"prompt": " \\n"}')) == [(1, " \n")]


@pytest.mark.parametrize("name", prompts.SUFFIXES)
@pytest.mark.parametrize("data", ["", "\n", " \n\n", "\ufeff"])
def test_a_file_with_nothing_in_it_has_no_records_whatever_its_name(tmp_path, name, data):
    assert summary(write(tmp_path / ("a" + name), data)) == []


def test_a_damaged_gzip_file_gives_what_can_be_read_and_the_next_file_is_read(tmp_path):
    lines = "".join(json.dumps({"prompt": str(os.urandom(50))}) + "\n" for _ in range(2000))
    packed = gzip.compress(lines.encode())
    (tmp_path / "a.jsonl.gz").write_bytes(packed[: len(packed) // 2])
    write(tmp_path / "b.jsonl", '{"prompt": "next"}')
    *good, bad, following = read_records(str(tmp_path))
    assert len(good) > 10
    assert "gzip file is damaged" in bad.reason
    assert bad.line == len(good) + 1
    assert following.prompt == "next"


def test_a_line_beyond_the_bound_is_refused_and_skipped(tmp_path, monkeypatch):
    monkeypatch.setattr(values, "LONGEST_LINE", 40)
    long = '{"prompt": "' + "x" * 200 + '"}\n'
    path = write(tmp_path / "a.jsonl", long + '{"prompt": "after"}\n' + long.strip())
    assert summary(path) == [
        (1, "the line is longer than 40 bytes"),
        (2, "after"),
        (3, "the line is longer than 40 bytes"),
    ]


@pytest.mark.parametrize("name", ["missing.jsonl", "empty", "notes.txt", "missing"])
def test_where_there_is_nothing_to_read_it_is_said_at_once(tmp_path, name):
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(DatasetError, match=name):
        read_records(str(tmp_path / name))


def test_an_empty_path_is_not_the_folder_one_is_in(tmp_path, monkeypatch):
    write(tmp_path / "a.jsonl", LINES)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DatasetError, match="empty"):
        read_records("")


def test_lines_are_read_one_at_a_time(tmp_path):
    path = write(tmp_path / "a.jsonl", ('{"prompt": "' + "x" * 1000 + '"}\n') * 10_000)
    tracemalloc.start()
    try:
        assert sum(1 for _ in read_records(path)) == 10_000
        assert tracemalloc.get_traced_memory()[1] < 1_000_000  # of a file of 10 MB
    finally:
        tracemalloc.stop()


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=200), suffix=st.sampled_from(prompts.SUFFIXES), packed=st.booleans())
def test_any_bytes_give_records_good_or_bad_and_nothing_else(tmp_path, data, suffix, packed):
    path = tmp_path / f"x{suffix}"
    path.write_bytes(gzip.compress(data) if packed else data)
    records = list(read_records(str(path)))
    assert [r.index for r in records] == list(range(len(records)))
    assert all(isinstance(r, Record | BadRecord) and r.line >= 1 for r in records)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    data=st.binary(max_size=60).flatmap(lambda b: st.tuples(st.just(b), st.integers(0, 400), st.integers(0, 60))),
    suffix=st.sampled_from(prompts.SUFFIXES),
)
def test_any_damage_to_a_good_file_gives_records_and_nothing_else(tmp_path, data, suffix):
    noise, at, gone = data
    good = (LIST if ".json." in suffix + "." else LINES * 5).encode()
    good = gzip.compress(good) if suffix.endswith(".gz") else good
    path = tmp_path / f"y{suffix}"
    path.write_bytes(good[:at] + noise + good[at + gone :])
    for record in read_records(str(path)):
        assert isinstance(record, Record | BadRecord)


anything = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(elements=st.lists(anything, max_size=6), indent=st.sampled_from([None, 0, 1]))
def test_elements_of_a_list_are_found_on_their_lines(tmp_path, elements, indent):
    texts = [json.dumps(element, indent=indent) for element in elements]
    lines, text = [], "\n["
    for i, element in enumerate(texts):
        text += ("," if i else "") + "\n" * (i % 3)
        lines.append(text.count("\n") + 1)
        text += element
    records = list(read_records(write(tmp_path / "z.json", text + "]")))
    assert [r.line for r in records] == lines


PRETTY = '{\n  "prompt": "one",\n  "x": {\n    "y": [\n      1\n    ]\n  }\n}\n{"prompt": "two",\n "z": []}\n'


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.jsonl.gz"])
def test_documents_of_several_lines_follow_each_other(tmp_path, name):
    assert summary(write(tmp_path / name, PRETTY + '{"prompt": "three"}\n')) == [(1, "one"), (9, "two"), (11, "three")]


def test_documents_of_several_lines_are_read_from_a_pipe_as_they_come(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    seen = threading.Event()

    def feed():
        with path.open("wb", buffering=0) as pipe:
            pipe.write(b'{\n  "prompt":')
            pipe.write(b'\n "one"}\n')
            assert seen.wait(10)
            pipe.write(b'{"prompt": "two"}\n')

    thread = threading.Thread(target=feed)
    thread.start()
    records = read_records(str(path))
    assert next(records).prompt == "one"
    seen.set()
    assert [r.prompt for r in records] == ["two"]
    thread.join()


@pytest.mark.parametrize(
    "damage", ['{"prompt": "x",', '{"x": [1,', '{"x":', "{", '{"x": {"y": 1}', "[", '{"x": [{"prompt": 1}']
)
def test_a_line_that_was_cut_short_takes_no_other_with_it(tmp_path, damage):
    before, after = '{"prompt": "before"}\n', '\n{"prompt": "after"}\n{"prompt": "end"}\n'
    found = summary(write(tmp_path / "a.jsonl", before + damage + after))
    assert [found[0], *found[2:]] == [(1, "before"), (3, "after"), (4, "end")]
    assert found[1][0] == 2
    assert found[1][1].startswith("not JSON: ")


def test_a_damaged_document_of_several_lines_is_one_bad_record_that_names_the_line(tmp_path):
    damaged = PRETTY.replace('"one",', '"one"', 1)
    first, second, third = summary(write(tmp_path / "a.jsonl", damaged + '{\n "prompt": "three"\n}\n'))
    assert first[0] == 3
    assert first[1].startswith("not JSON: ")
    assert (second, third) == ((9, "two"), (11, "three"))
    assert [line for line, _ in summary(write(tmp_path / "b.jsonl", PRETTY + '{\n "prompt": "three",\n'))] == [1, 9, 12]


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    elements=st.lists(anything, max_size=5),
    indent=st.sampled_from([None, 0, 1]),
    suffix=st.sampled_from(prompts.SUFFIXES),
)
def test_objects_written_in_any_way_one_after_the_other_are_all_read(tmp_path, elements, indent, suffix):
    texts = [json.dumps({"prompt": "p", "value": element}, indent=indent) for element in elements]
    path = write(tmp_path / f"w{suffix}", "\n".join(texts))
    records = list(read_records(path))
    assert [r.fields for r in records] == [{"prompt": "p", "value": element} for element in elements]
    lines = [1 + sum(text.count("\n") + 1 for text in texts[:i]) for i in range(len(texts))]
    assert [r.line for r in records] == lines


def test_reading_takes_time_in_step_with_length_whatever_stays_open(tmp_path, monkeypatch):
    scanned = [0]
    add = document.Document.add

    def counted(self, line):
        scanned[0] += 1
        return add(self, line)

    monkeypatch.setattr(document.Document, "add", counted)
    for text in ("[1,", '{"x": [', '{"x":', "{", '{"x": {"y": 1},'):
        scanned[0] = 0
        records = list(read_records(write(tmp_path / "a.jsonl", '{"prompt": "p"}\n' + f"{text}\n" * 2000)))
        assert 1 < len(records) <= 2001
        assert scanned[0] <= 3 * 2000


@pytest.mark.parametrize("name", prompts.SUFFIXES)
@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_text_in_a_wider_encoding_is_named_with_the_remedy(tmp_path, name, encoding):
    [(line, reason)] = summary(write(tmp_path / ("a" + name), LINES.encode(encoding)))
    kind = encoding.upper()[:6]
    assert line == 1
    assert reason == f"the file is {kind} and must be UTF-8: convert it, as with iconv -f {kind} -t UTF-8"


MESSAGES = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hello"}]


def test_a_record_may_have_messages_instead_of_a_prompt(tmp_path):
    calls = [{"role": "assistant", "content": None, "tool_calls": [{"name": "f"}]}]
    parts = [{"role": "user", "content": [{"type": "text", "text": "hello"}]}]
    lines = [{"messages": MESSAGES, "id": 1}, {"messages": calls}, {"messages": parts}]
    records = list(read_records(write(tmp_path / "a.jsonl", "\n".join(map(json.dumps, lines)))))
    assert [r.messages for r in records] == [MESSAGES, calls, parts]
    assert records[0].fields == lines[0]
    [both] = read_records(write(tmp_path / "b.jsonl", json.dumps({"prompt": "p", "messages": MESSAGES})))
    assert (both.prompt, both.messages) == ("p", None)


def test_a_prompt_that_is_null_beside_messages_is_none(tmp_path):
    line = {"prompt": None, "messages": MESSAGES, "tools": [{"name": "f"}]}
    [record] = read_records(write(tmp_path / "a.jsonl", json.dumps(line)))
    assert (record.prompt, record.messages, record.tools) == ("", MESSAGES, [{"name": "f"}])


@pytest.mark.parametrize(
    ("tools", "kind"), [("f", "a string"), ({"name": "f"}, "an object"), ([1], "a list of others"), (0, "a number")]
)
def test_tools_that_are_none_are_named(tmp_path, tools, kind):
    [bad] = read_records(write(tmp_path / "a.jsonl", json.dumps({"messages": MESSAGES, "tools": tools})))
    assert bad.reason == f'the "tools" are not a list of objects but {kind}'


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ("hello", 'the "messages" are not a list but a string'),
        (None, 'the "messages" are not a list but null'),
        ([], 'the "messages" are empty'),
        (["hello"], "message 1 is not an object but a string"),
        ([MESSAGES[0], {"content": "x"}], 'message 2 has no "role"'),
        ([{"role": 7, "content": "x"}], 'the "role" of message 1 is not a text'),
        ([{"role": "user"}], 'message 1 has no "content"'),
        ([{"role": "user", "content": 7}], 'the "content" of message 1 is not a text but a number'),
        ([{"role": "user", "content": None}], 'the "content" of message 1 is not a text but null'),
    ],
)
def test_messages_that_are_none_are_named(tmp_path, messages, reason):
    [bad] = read_records(write(tmp_path / "a.jsonl", json.dumps({"messages": messages, "id": 1})))
    assert (bad.reason, bad.fields["id"]) == (reason, 1)


@pytest.mark.parametrize("start", [b"", b"[", b'{"prompt": "x'])
def test_input_without_an_end_is_refused_in_a_line(tmp_path, monkeypatch, start):
    for name, value in (("LONGEST_LINE", 1000), ("LARGEST_LIST", 5000), ("LARGEST_GAP", 5000)):
        monkeypatch.setattr(values, name, value)

    for fill in (b"\0", b" ", b"1", b"\n"):
        endless = Endless(start, fill)
        found = list(values.read_values(io.BufferedReader(endless), False))
        assert 1 <= len(found) <= 2
        assert all(re.search("bytes|not JSON|UTF-16", value.reason) for value in found)
        assert endless.given < 30_000


class Endless(io.RawIOBase):
    """Some bytes, and then one byte for ever."""

    def __init__(self, start, fill):
        self.start, self.fill, self.given = start, fill, 0

    def readable(self):
        return True

    def readinto(self, buffer):
        buffer[:] = (b"" if self.given else self.start).ljust(len(buffer), self.fill)
        self.given += len(buffer)
        return len(buffer)


def test_a_name_that_is_no_utf8_is_shown_as_what_it_is(tmp_path):
    path = os.path.join(tmp_path, "\udcc3\udca9.jsonl")  # as Python reads é in a locale without it
    with open(path, "w") as file:
        file.write("x\n")
    [bad] = read_records(path)
    assert bad.file == str(tmp_path / "é.jsonl")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
records_like = st.fixed_dictionaries(
    {}, optional={"prompt": json_values, "messages": json_values | st.lists(st.dictionaries(
        st.sampled_from(["role", "content", "tool_calls"]), json_values), max_size=2)}
)  # fmt: skip


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(records_like | json_values, max_size=4), st.binary(max_size=3), st.integers(0, 80), st.booleans())
def test_any_records_with_any_damage_are_usable_or_have_a_reason(tmp_path, items, noise, at, pretty):
    text = "\n".join(json.dumps(item, indent=1 if pretty else None) for item in items).encode()
    path = tmp_path / "v.jsonl"
    path.write_bytes(text[:at] + noise + text[at:])
    for index, record in enumerate(read_records(str(path))):
        assert (record.index, record.line >= 1) == (index, True)
        if isinstance(record, BadRecord):
            assert record.reason
            assert "\n" not in record.reason
        else:
            assert record.prompt or record.messages
        with JsonlWriter("/dev/null") as writer:
            writer.put(0, error_fields(record, "why"))


@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.json.gz"])
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('[{"prompt":"a"},\n{"prompt":"b"},\n{"prompt":"c"', [(1, "a"), (2, "b"), (3, None)]),
        ('[{"prompt":"a"},\n{"prompt":"b"},\n', [(1, "a"), (2, "b"), (2, None)]),
        ('[{"prompt":"a"},\n{"prompt":}, {"prompt":"c"}]', [(1, "a"), (2, None), (2, "c")]),
        ('[{"prompt":"a"},\n{"prompt":"b", {"prompt":"c"}]', [(1, "a"), (2, None), (2, "c")]),
        ('[{"prompt":"a"},\n{"prompt":"b\n{"prompt":"c"}]', [(1, "a"), (2, None), (3, "c")]),
        ('[\n {\n  "prompt":"a" 1\n },\n {\n  "prompt":"c"\n }\n]', [(3, None), (5, "c")]),
        ('[\n {"prompt":"a", "x": [\n {"prompt":"c"}\n]', [(4, None), (3, "c")]),
        ('[{"prompt":"a"} {"prompt":"c"}]', [(1, "a"), (1, "c"), (1, None)]),
    ],
)
def test_damage_to_a_list_takes_no_whole_object_with_it(tmp_path, name, text, expected):
    found = summary(write(tmp_path / name, text))
    assert [(line, None if said.startswith("not JSON") else said) for line, said in found] == expected


@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"prompt":"b"}{"prompt":"c"} {"prompt":\n"d"}', [(1, "b"), (1, "c"), (1, "d")]),
        ('{"prompt":"a"},{"prompt":"b"},\n{"prompt":"c"},\n', [(1, "a"), (1, "b"), (2, "c")]),
        ('{"prompt":\n"d"} {"prompt":"e"}{"prompt":\n"f"},{"prompt":"g"}', [(1, "d"), (2, "e"), (2, "f"), (3, "g")]),
        ('{"prompt":"a"} {"prompt":oh} {"prompt":"c"}', [(1, "a"), (1, None), (1, "c")]),
        ('{"prompt":"a"}{"prompt":"b\n{"prompt":"c"}', [(1, "a"), (1, None), (2, "c")]),
    ],
)
def test_objects_that_follow_each_other_on_a_line_are_all_read(tmp_path, name, text, expected):
    found = summary(write(tmp_path / name, text))
    assert [(line, None if said.startswith("not JSON") else said) for line, said in found] == expected


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(elements=st.lists(anything, min_size=1, max_size=5), indent=st.sampled_from([None, 1]), cut=st.integers(1, 30))
def test_a_list_that_is_cut_off_gives_all_that_is_whole(tmp_path, elements, indent, cut):
    fields = [{"prompt": "p", "value": element} for element in elements]
    texts = [json.dumps(each, indent=indent) for each in fields]
    text = "[" + ",\n".join(texts)
    kept = text[: max(1, len(text) - cut)]
    whole = sum(len(",\n".join(texts[: n + 1])) < len(kept) for n in range(len(texts)))
    *good, bad = read_records(write(tmp_path / "c.json", kept))
    assert [r.fields for r in good[:whole]] == fields[:whole]
    assert isinstance(bad, BadRecord) or isinstance(good[whole], BadRecord)


@pytest.mark.parametrize(
    "piece", ['{"x" 1}', '{"a":1', "{", '{"x": [\n', '"\\"', '\n{"x":[', "{bad}\n", ",{", "]", "}", '{"a":1,']
)
def test_damage_is_read_in_time_in_step_with_its_length(tmp_path, piece):
    for start in ("[", '{"prompt":"p"} '):
        path = write(tmp_path / "a.json", start + piece * 20_000)
        began = time.process_time()
        assert len(list(read_records(path))) <= 40_002
        assert time.process_time() - began < 5


@pytest.mark.parametrize("name", ["a.json.gz", "a.jsonl.gz"])
def test_a_text_that_goes_down_without_an_end_is_not_read_on(monkeypatch, name):
    monkeypatch.setattr(values, "LONGEST_LINE", 4 << 20)
    for piece in (b"[", b'{"a":', b'[{"x":'):
        stream = io.BytesIO(piece * ((16 << 20) // len(piece)))
        is_document = ".json." in name or piece[:1] != b"["
        found = list(values.read_values(stream, is_document))
        assert [value.reason for value in found] == ["nested more than 10000 deep: no more is read"]
        assert stream.tell() < 8 << 20


def test_a_long_list_of_records_is_deep_in_none(tmp_path):
    text = json.dumps([{"prompt": "[[" * 20, "x": [[1]]}] * 20_000)
    assert len(list(read_records(write(tmp_path / "a.json", text)))) == 20_000
