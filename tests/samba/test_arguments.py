"""What the session reads of the program's arguments."""

from __future__ import annotations

import os
from argparse import Namespace
from pathlib import Path

import pytest

from bossa.errors import SambaError
from bossa.samba import arguments


def test_the_path_of_a_pef_has_its_name_twice():
    arguments.keep(Namespace(pef_name="logreg", output_folder="pefs"))
    assert arguments.compile_path() == Path("pefs/logreg/logreg.pef")
    arguments.keep(Namespace(pef_name="logreg"))
    assert arguments.compile_path() == Path("out/logreg/logreg.pef")


def test_a_pef_without_a_name_is_named_after_the_time_and_the_process():
    arguments.keep(Namespace())
    path = arguments.compile_path()
    assert path.parent.parent == Path("out")
    assert path.stem == path.parent.name
    assert path.stem.endswith(f"-{os.getpid()}")


@pytest.mark.parametrize(
    "name", ["../x", "a/b", "/tmp/x", "..", ".", "a\nb", "a\x1b[31m", "a\0", "a\u202eb", "x" * 201]
)
def test_a_name_with_a_folder_in_it_is_refused(name: str):
    arguments.keep(Namespace(pef_name=name))
    with pytest.raises(SambaError, match="is not a file name: give the folder with --output-folder"):
        arguments.compile_path()


def test_what_is_kept_is_a_copy():
    args = Namespace(inference=True, pef="a.pef")
    arguments.keep(args)
    args.inference = False
    assert arguments.is_inference()
    assert arguments.pef_path() == Path("a.pef")
    arguments.keep(Namespace())
    assert not arguments.is_inference()
    assert arguments.pef_path() is None


def test_threads_of_the_compiler_come_from_the_environment(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("SN_NUM_THREADS", raising=False)
    assert arguments.compile_threads() is None
    monkeypatch.setenv("SN_NUM_THREADS", "3")
    assert arguments.compile_threads() == 3
    monkeypatch.setenv("SN_NUM_THREADS", "many")
    with pytest.raises(SambaError, match="SN_NUM_THREADS=many: not a number of threads"):
        arguments.compile_threads()
