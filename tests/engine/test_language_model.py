"""The model as its users see it, on a program that is not one."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from bossa.errors import RequestError, TokenizerError
from bossa.language_model import LanguageModel


@pytest.fixture
def model(fake):
    return LanguageModel(
        fake.Program(),
        fake.Tokenizer(),
        config={"model_type": "fake"},
        generation_config={"eos_token_id": fake.EOS},
        eos_token_ids=[fake.EOS],
        batch_size=3,
        detokenizer=fake.Detokenizer,
    )


@pytest.fixture
def deaf(fake):
    return LanguageModel(fake.Program(), batch_size=2)


def test_generate_gives_completions_in_the_order_of_the_prompts(fake, model):
    prompts = ["hello", "a", "what is it", "b.", "zoo", [1, 2, 3]]
    done = []
    completions = model.generate(prompts, max_new_tokens=12, on_completion=lambda c: done.append(c.index))
    assert [c.index for c in completions] == list(range(6))
    assert sorted(done) == list(range(6))
    assert done != sorted(done)
    for prompt, completion in zip(prompts, completions, strict=True):
        ids = prompt if isinstance(prompt, list) else fake.Tokenizer().encode(prompt)
        assert completion.prompt_token_ids == ids
        assert completion.token_ids == fake.greedy(ids, 12, 40)
        without_end = [token for token in completion.token_ids if token != fake.EOS]
        assert fake.Tokenizer().decode(ids) + completion.text == fake.Tokenizer().decode(ids + without_end)
        assert model.whole_text(completion) == fake.Tokenizer().decode(ids + completion.token_ids)


def test_twenty_tokens_are_generated_unless_told_otherwise(fake, deaf):
    [completion] = deaf.generate([[1, 2]])
    assert len(completion.token_ids) == 20


def test_a_stream_joined_is_the_text_of_generate(model):
    for prompt in ("hello", "a", "é"):
        [completion] = model.generate([prompt], max_new_tokens=25)
        assert "".join(model.stream(prompt, max_new_tokens=25)) == completion.text


def test_a_stop_string_cuts_text_whole_text_and_stream(model):
    [whole] = model.generate(["hello"], max_new_tokens=25, ignore_eos=True)
    stop = whole.text[4:7]
    at = whole.text.index(stop)
    [completion] = model.generate(["hello"], max_new_tokens=25, ignore_eos=True, stop=stop)
    assert completion.finish_reason == "stop"
    assert completion.text == whole.text[:at]
    assert completion.token_ids == whole.token_ids[: len(completion.token_ids)]
    assert model.whole_text(completion) == "ahello" + whole.text[:at]
    assert "".join(model.stream("hello", max_new_tokens=25, ignore_eos=True, stop=[stop])) == whole.text[:at]


def test_a_prompt_that_is_too_long_is_refused_before_any_runs(model):
    with pytest.raises(RequestError, match="the prompt has 41 tokens, and at most 39 fit"):
        model.generate(["fine", "a" * 40])
    assert not model.engine.program.steps


def test_truncation_makes_room_for_the_new_tokens(fake, model):
    long = "".join("abcdefgh"[i % 8] for i in range(60))
    ids = fake.Tokenizer().encode(long)
    [left] = model.generate([long], max_new_tokens=5, truncation="left")
    [right] = model.generate([long], max_new_tokens=5, truncation="right")
    assert left.prompt_token_ids == ids[-35:]
    assert right.prompt_token_ids == ids[:35]


def test_a_conversation_is_a_prompt_and_its_frame_is_never_cut(fake, model):
    class Chatting(fake.Tokenizer):
        def chat(self, messages):
            return "".join(f"{message['role'][0]} {message['content']} " for message in messages) + "a "

        def encode(self, text, add_special_tokens=True):
            assert not add_special_tokens
            return super().encode(text)

    model.tokenizer = Chatting()
    said = "".join("bcdefgh"[i % 7] for i in range(60))
    encode = fake.Tokenizer().encode
    for side, kept in (("left", said[-29:]), ("right", said[:29])):
        [done] = model.generate([[{"role": "user", "content": said}]], max_new_tokens=5, truncation=side)
        assert done.prompt_token_ids == encode(f"u {kept} a ")
    assert model.encode([{"role": "user", "content": "hi"}]) == encode("u hi a ")
    with pytest.raises(RequestError, match="without the user's newest text"):
        model.generate([[{"role": "user", "content": said}]], max_new_tokens=38, truncation="right")


def test_one_text_or_one_list_of_ids_is_not_a_list_of_prompts(model):
    with pytest.raises(RequestError, match=r"write generate\(\[prompt\]\)"):
        model.generate("hello")
    with pytest.raises(RequestError, match=r"^prompts\[0\] must be text or a list of token ids, and is 1$"):
        model.generate([1, 2, 3])
    with pytest.raises(RequestError, match=r"^prompts\[1\] must be text or a list of token ids, and is 1.5$"):
        model.generate(["a", [1.5]])


def test_token_ids_may_be_an_array(fake, deaf):
    [completion] = deaf.generate([np.array([1, 2])], max_new_tokens=3)
    assert completion.token_ids == fake.greedy([1, 2], 3, 40, eos=())


def test_without_a_tokenizer_token_ids_go_in_and_out_and_text_is_refused(deaf):
    assert deaf.generate([[1, 2]])[0].text == ""
    with pytest.raises(TokenizerError, match="no tokenizer"):
        deaf.generate(["hello"])
    with pytest.raises(TokenizerError, match="no tokenizer"):
        deaf.stream([1, 2])


def test_a_score_of_texts_is_that_of_their_tokens_without_special_ones_between(fake, model):
    ids = fake.Tokenizer().encode("hello")
    assert model.score("hello", "you") == model.score(ids, fake.Tokenizer().encode("you")[1:])
    assert model.score("hello", "you") < 0


def test_logits_are_those_of_the_program(fake, model):
    assert np.array_equal(model.logits([4, 5]), [fake.logits_of([4]), fake.logits_of([4, 5])])


def test_draws_repeat_by_seed_and_differ_by_seed_and_place(model):
    def draws(prompts, seed):
        completions = model.generate(prompts, temperature=3.0, seed=seed, ignore_eos=True)
        return [completion.token_ids for completion in completions]

    first = draws(["abc", "abc"], 1)
    assert draws(["abc", "abc"], 1) == first
    assert draws(["abc"], 1) == first[:1]
    assert first[0] != first[1]
    assert draws(["abc"], 2) != first[:1]


def test_a_stream_takes_the_same_draws_as_generate(model):
    [completion] = model.generate(["abc"], temperature=2.0, seed=5)
    assert "".join(model.stream("abc", temperature=2.0, seed=5)) == completion.text


def test_threads_share_a_model(fake, model):
    results = {}

    def work(name):
        prompts = [[name + 1, i] for i in range(5)]
        results[name] = [c.token_ids for c in model.generate(prompts, max_new_tokens=9)]
        results[name, "text"] = "".join(model.stream("a" * (name + 1)))

    threads = [threading.Thread(target=work, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    for name in range(4):
        assert results[name] == [fake.greedy([name + 1, i], 9, 40) for i in range(5)]
        assert results[name, "text"] == "".join(model.stream("a" * (name + 1)))


def test_a_model_closes_with_its_block_and_then_refuses(fake):
    with LanguageModel(fake.Program(), batch_size=1) as model:
        assert model.generate([[1]], max_new_tokens=1)
    assert model.engine.program.closed
    with pytest.raises(RequestError, match="closed"):
        model.generate([[1]])
    model.close()


def test_what_it_was_made_from_can_be_read(model):
    assert model.config == {"model_type": "fake"}
    assert model.generation_config["eos_token_id"] == 3
    assert model.max_seq_length == 40
    assert model.batch_size == 3


def test_samples_are_grouped_in_the_order_of_the_prompts(model):
    how = {"max_new_tokens": 6, "temperature": 2.0, "seed": 3, "ignore_eos": True}
    completions = model.generate(["ab", "cd"], n=3, **how)
    assert [(c.index, c.sample) for c in completions] == [(i, s) for i in range(2) for s in range(3)]
    assert len({tuple(c.token_ids) for c in completions}) == 6
    assert [c.token_ids for c in completions[::3]] == [c.token_ids for c in model.generate(["ab", "cd"], **how)]
    seen = []
    model.generate(["ab", "cd"], n=3, on_completion=seen.append, **how)
    assert sorted(seen, key=lambda c: (c.index, c.sample)) == completions
    with pytest.raises(RequestError, match="n must be a whole number from 1, and is 0"):
        model.generate(["ab"], n=0)


def test_log_probabilities_and_guesses_leave_the_tokens_alone(fake, model):
    [plain] = model.generate(["hello"], max_new_tokens=12)
    [asked] = model.generate(["hello"], max_new_tokens=12, logprobs=2, speculate=4)
    assert asked.token_ids == plain.token_ids
    assert [found.token_id for found in asked.logprobs] == asked.token_ids
    assert sum(found.logprob for found in asked.logprobs) == pytest.approx(
        model.score(asked.prompt_token_ids, asked.token_ids),
        rel=1e-12,  # the same numbers, added in another order
    )
    assert "".join(model.stream("hello", max_new_tokens=12, speculate=4)) == plain.text
