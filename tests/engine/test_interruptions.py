"""Callbacks that raise, generators that are dropped, and a model that is closed meanwhile: nothing hangs or is lost."""

from __future__ import annotations

import signal
import threading
import time

import pytest

from bossa.errors import BossaError, RequestError, TokenizerError
from bossa.language_model import LanguageModel

PATIENCE = 20.0
"""Seconds after which a thread counts as hanging."""


class Odd(Exception):
    pass


@pytest.fixture
def model(each):
    return LanguageModel(
        each.Program(before_step=lambda step: time.sleep(0.0005)),
        each.Tokenizer(),
        batch_size=3,
        detokenizer=each.Detokenizer,
    )


def _is_well(each, model):
    scheduler = model.engine._scheduler
    assert scheduler.pool.free_count == model.engine.program.pages
    if scheduler.states is not None:
        assert scheduler.states.free_count == model.engine.program.state_slots
    assert not scheduler.unfinished
    assert model.generate([[1, 2]], max_new_tokens=3)[0].token_ids == each.greedy([1, 2], 3, 40, eos=())


@pytest.mark.parametrize("error", [Odd, KeyboardInterrupt, SystemExit, RequestError, StopIteration])
def test_what_a_callback_raises_ends_the_call_and_nothing_else(each, model, error):
    def complain(completion):
        raise error("so")

    with pytest.raises(error, match="so"):
        model.generate([[i] for i in range(9)], max_new_tokens=6, on_completion=complain)
    _is_well(each, model)


def test_a_callback_may_use_the_model(each, model):
    inner = []
    outer = model.generate(
        [[1], [2]], max_new_tokens=3, on_completion=lambda c: inner.append(model.generate([[5]], max_new_tokens=2))
    )
    assert len(outer) == len(inner) == 2
    _is_well(each, model)


def test_a_callback_may_close_the_model(each, model):
    with pytest.raises(RequestError, match="the model is closed"):
        model.generate([[i] for i in range(9)], max_new_tokens=6, on_completion=lambda _: model.close())
    assert model.engine.program.closed


@pytest.mark.parametrize("pieces", [0, 1, 4])
@pytest.mark.parametrize("error", [None, Odd, KeyboardInterrupt])
def test_a_stream_that_is_dropped_or_thrown_into_gives_its_pages_back(each, model, pieces, error):
    stream = model.stream("hello", max_new_tokens=30)
    for _ in range(pieces):
        next(stream)
    if error is None:
        stream.close()
    else:
        with pytest.raises(error):
            stream.throw(error)
    _is_well(each, model)


def test_prompts_that_raise_while_they_are_read_leave_nothing(each, model):
    def prompts():
        yield [1]
        raise Odd

    with pytest.raises(Odd):
        model.generate(prompts())
    with pytest.raises(Odd):
        list(model.run(request for prompt in prompts() for request in model.requests(prompt, 0, model.params())))
    _is_well(each, model)


def test_a_tokenizer_that_fails_on_one_text_fails_that_request_alone(each, model):
    class Sometimes(each.Detokenizer):
        def add(self, token_id):
            if self.tokenizer.decode(self.ids).startswith("b"):
                raise TokenizerError("this text cannot be followed")
            return super().add(token_id)

    model = LanguageModel(each.Program(), each.Tokenizer(), batch_size=3, detokenizer=Sometimes)
    results: dict[str, object] = {}

    def work(name, prompt):
        try:
            results[name] = [c.token_ids for c in model.generate([prompt] * 4, max_new_tokens=9, stop="zzz")]
        except BossaError as error:
            results[name] = str(error)

    threads = [threading.Thread(target=work, args=(name, [ord(name) - ord("a"), 2])) for name in ("c", "b", "d")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=PATIENCE)
    assert results == {
        "b": "this text cannot be followed",
        "c": [each.greedy([2, 2], 9, 40, eos=())] * 4,
        "d": [each.greedy([3, 2], 9, 40, eos=())] * 4,
    }
    _is_well(each, model)


def test_closing_while_others_generate_ends_them_in_one_line(model):
    ends: list[str] = []
    begun = threading.Barrier(5)

    def work(stream):
        begun.wait()
        try:
            while True:
                if stream:
                    list(model.stream("hello", max_new_tokens=20))
                else:
                    model.generate([[1], [2], [3], [4]], max_new_tokens=20)
        except BossaError as error:
            ends.append(str(error))

    threads = [threading.Thread(target=work, args=(i % 2 == 0,)) for i in range(4)]
    for thread in threads:
        thread.start()
    begun.wait()
    time.sleep(0.05)
    model.close()
    model.close()
    for thread in threads:
        thread.join(timeout=PATIENCE)
    assert ends == ["the model is closed: load it again"] * 4


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="the system has no timers that signal")
def test_a_signal_whose_handler_raises_ends_the_call(each, model):
    def complain(*_):
        raise Odd

    def generate_until_the_alarm():
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        while True:
            model.generate([[1], [2]], max_new_tokens=30)

    before = signal.signal(signal.SIGALRM, complain)
    try:
        for _ in range(5):
            with pytest.raises(Odd):
                generate_until_the_alarm()
            _is_well(each, model)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
