"""Where completions end: the cut depends on the text, and not on the tokens that it came in."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from bossa.engine import SamplingParams
from bossa.engine.stopping import Stopper, find_stop, held_back

texts = st.text("ab.", max_size=24)
stops = st.lists(st.text("ab.", min_size=1, max_size=4), max_size=3)


class Pieces:
    """A tokenizer whose token i is the i-th piece of a text."""

    def __init__(self, pieces):
        self.pieces = pieces

    def encode(self, text, add_special_tokens=True):
        raise NotImplementedError

    def decode(self, ids):
        return "".join(self.pieces[i] for i in ids)

    def add(self, token_id):
        return self.pieces[token_id]

    def finish(self):
        return ""


def follow(pieces, stop, limit=None, eos=()):
    """The reason and the text at the end, and the certain text after each token."""
    tokenizer = Pieces(pieces)
    params = SamplingParams(stop=tuple(stop), eos_token_ids=eos)
    stopper = Stopper(params, [], limit or len(pieces), tokenizer, tokenizer)
    certain = []
    for token in range(len(pieces)):
        reason = stopper.add(token)
        certain.append(stopper.text)
        if reason is not None:
            return reason, stopper.text, certain
    return None, stopper.text, certain


def cut(text, stop):
    """The definition, letter by letter: the first prefix that ends with a stop string, without that string."""
    for end in range(1, len(text) + 1):
        endings = [wanted for wanted in stop if text[:end].endswith(wanted)]
        if endings:
            return text[: end - max(map(len, endings))]
    return None


@given(st.lists(st.text("ab.", max_size=4), min_size=1, max_size=10), stops)
def test_text_is_cut_before_the_first_stop_string_wherever_tokens_part(pieces, stop):
    expected = cut("".join(pieces), stop)
    reason, text, certain = follow(pieces, stop)
    if expected is None:
        assert (reason, text) == ("length", "".join(pieces))
    else:
        assert (reason, text) == ("stop", expected)
    for earlier, later in pairwise(certain):
        assert later.startswith(earlier)  # what was streamed is never taken back


@given(texts, stops)
def test_all_that_no_stop_string_can_claim_is_streamed(text, stop):
    held = held_back(text, stop)
    assert held == max(
        (n for wanted in stop for n in range(len(wanted)) if n <= len(text) and text.endswith(wanted[:n])), default=0
    )


@given(texts, stops)
def test_stop_strings_are_found_from_where_the_text_was_seen(text, stop):
    if cut(text, stop) is None:
        assert find_stop(text, stop) is None
    else:
        assert cut(text, stop) == text[: find_stop(text, stop)]


def test_the_end_token_stops_and_is_not_in_the_text():
    assert follow(["a", "b", "<end>", "c"], [], eos=(2,))[:2] == ("stop", "ab")


def test_an_end_token_is_text_where_it_is_ignored():
    tokenizer = Pieces(["a", "<end>", "b"])
    stopper = Stopper(SamplingParams(eos_token_ids=(1,), ignore_eos=True), [], 3, tokenizer, None)
    assert [stopper.add(i) for i in range(3)] == [None, None, "length"]
    assert stopper.text == "a<end>b"


def test_a_partial_stop_string_is_held_back_and_given_at_the_end():
    assert follow(["ab", "c", "ab"], ["abd"])[2] == ["", "abc", "abcab"]


def test_an_end_token_on_the_last_place_stops():
    assert follow(["a", "<end>"], [], limit=2, eos=(1,))[0] == "stop"


def test_a_stop_string_on_the_last_place_stops():
    assert follow(["a", "b"], ["b"], limit=2)[:2] == ("stop", "a")


def test_text_that_the_detokenizer_still_holds_is_given_at_the_end():
    class Half(Pieces):
        def add(self, token_id):
            return ""

        def finish(self):
            return "a\ufffd"

    tokenizer = Half(["a", "\ufffd"])
    stopper = Stopper(SamplingParams(), [], 2, tokenizer, tokenizer)
    assert [stopper.add(0), stopper.add(1)] == [None, "length"]
    assert stopper.text == "a\ufffd"


def test_text_is_what_the_tokens_add_to_the_prompt():
    class Words(Pieces):
        def decode(self, ids):
            return " ".join(self.pieces[i] for i in ids)  # a space between words, none before the first

    stopper = Stopper(SamplingParams(), [0], 2, Words(["one", "two", "three"]), None)
    assert [stopper.add(1), stopper.add(2)] == [None, "length"]
    assert stopper.text == " two three"


def test_without_a_tokenizer_there_is_no_text():
    stopper = Stopper(SamplingParams(), [], 1, None, None)
    assert stopper.add(5) == "length"
    assert stopper.text == ""


def test_a_stop_string_completed_by_what_was_held_stops():
    class Late(Pieces):
        def add(self, token_id):
            return ""

        def finish(self):
            return "ab"

    tokenizer = Late(["ab"])
    stopper = Stopper(SamplingParams(stop=("b",)), [], 1, tokenizer, tokenizer)
    assert stopper.add(0) == "stop"
    assert stopper.text == "a"
