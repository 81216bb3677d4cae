"""A child that is forked after a model was loaded is told so at once, whatever its parent did meanwhile."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

import bossa
from bossa.errors import BossaError, RequestError
from bossa.language_model import LanguageModel
from bossa.pef import Pef

pytestmark = [
    pytest.mark.end_to_end,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork"),
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]

PATIENCE = 20.0
"""Seconds after which a child counts as hanging; the machine may be busy."""

REFUSAL = r"was forked from it without its threads: load the model in the child too, or start the child with"


def _in_child(work: Callable[[], object]) -> str:
    """What a forked child prints of a call's result or error; killed, and an error here, if it does not end."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                text = f"result {work()}"
        except BossaError as error:
            text = f"error {error}"
        except BaseException as error:
            text = f"trouble {error!r}"
        os.write(write, text.encode())
        os._exit(0)
    os.close(write)
    deadline = time.monotonic() + PATIENCE
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            pytest.fail("the child hangs")
        time.sleep(0.01)
    with os.fdopen(read, "rb") as pipe:
        return pipe.read().decode()


@pytest.fixture(scope="module")
def loaded(model: tuple[Pef, Path]):
    pef, folder = model
    with bossa.load(pef, checkpoint=folder, threads=2) as loaded:
        yield loaded


def _calls(loaded: LanguageModel) -> dict[str, Callable[[], object]]:
    return {
        "generate": lambda: loaded.generate([[1, 2]]),
        "logits": lambda: loaded.logits([1, 2]),
        "score": lambda: loaded.score([1], [2]),
        "step": lambda: loaded.engine.step(),
    }


def test_every_call_in_a_forked_child_is_refused_in_one_line(loaded: LanguageModel) -> None:
    expected = loaded.generate([[1, 2]])
    for name, call in _calls(loaded).items():
        text = _in_child(call)
        assert text.startswith(f"error the model was loaded in process {os.getpid()}, and process "), (name, text)
        assert REFUSAL in text
    assert loaded.generate([[1, 2]]) == expected


def test_a_child_that_is_forked_while_others_generate_does_not_hang(loaded: LanguageModel) -> None:
    """They hold the locks of the engine and of the program, which are closed in the child for ever."""
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            loaded.generate([[1, 2, 3]] * 3, max_new_tokens=30)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for name, call in list(_calls(loaded).items()) * 3:
            assert REFUSAL in _in_child(call), name
        with loaded.engine._changed:
            assert REFUSAL in _in_child(lambda: loaded.generate([[1]]))
            assert _in_child(loaded.close) == "result None"
        with loaded.engine.program._lock:  # type: ignore[attr-defined]
            assert REFUSAL in _in_child(lambda: loaded.logits([1]))
            assert _in_child(loaded.close) == "result None"
    finally:
        stop.set()
        for thread in threads:
            thread.join(timeout=PATIENCE)


def test_what_was_begun_before_the_fork_goes_on_in_the_parent_alone(loaded: LanguageModel) -> None:
    expected = [completion.token_ids for completion in loaded.generate([[1, 2], [3]])]
    running = loaded.run(loaded.requests([1, 2], 0, loaded.params()) + loaded.requests([3], 1, loaded.params()))
    first = next(running)
    assert REFUSAL in _in_child(lambda: next(running))
    assert _in_child(running.close) == "result None"  # type: ignore[attr-defined]  # a generator
    rest = sorted([first, *running], key=lambda completion: completion.index)
    assert [completion.token_ids for completion in rest] == expected


def test_a_child_may_close_or_drop_the_model_and_load_one_of_its_own(model: tuple[Pef, Path]) -> None:
    pef, folder = model
    held = [bossa.load(pef, checkpoint=folder, threads=2)]
    expected = held[0].generate([[1, 2]])[0].token_ids

    def load_anew() -> object:
        held[0].close()
        held[0].close()
        with bossa.load(pef, checkpoint=folder, threads=2) as own:
            return own.generate([[1, 2]])[0].token_ids

    try:
        assert _in_child(load_anew) == f"result {expected}"
        assert _in_child(held.clear) == "result None"  # no warning either: the parent has it still
        assert held[0].generate([[1, 2]])[0].token_ids == expected
    finally:
        held[0].close()


def _generate(prompt: list[int]) -> str:
    try:
        return str(_shared[0].generate([prompt])[0].token_ids)
    except RequestError as error:
        return str(error)


_shared: list[LanguageModel] = []


@pytest.mark.skipif(sys.platform != "linux", reason="pools fork by default on Linux alone")
def test_a_pool_of_forked_processes_gets_its_answers(loaded: LanguageModel) -> None:
    _shared[:] = [loaded]
    try:
        with multiprocessing.get_context("fork").Pool(2) as pool:
            answers = pool.map_async(_generate, [[1], [2], [3]]).get(timeout=PATIENCE)
    finally:
        _shared.clear()
    assert len(answers) == 3
    assert all(REFUSAL in answer for answer in answers)


def test_a_loaded_model_is_not_sent_to_another_process(loaded: LanguageModel) -> None:
    with pytest.raises(RequestError, match="cannot be copied, pickled or sent to another process: load it there"):
        pickle.dumps(loaded)
