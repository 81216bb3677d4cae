"""bossa run: prompts in, predictions out, on a toy model that goes on with the alphabet."""

from __future__ import annotations

import gzip
import json
import math
import os
import signal
import subprocess

import numpy as np
import pytest

from bossa.errors import PefError, TokenizerError
from bossa.sampling.parameters import SamplingParams
from support.terminal import read_all

DASHES = "\n" + "-" * 20 + "\n"


@pytest.fixture
def reviews(tmp_path):
    path = tmp_path / "reviews.jsonl"
    records = [{"id": number, "prompt": prompt} for number, prompt in enumerate(["abc", "x", "hello a"])]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


@pytest.fixture
def mixed(tmp_path):
    """Good records among bad ones."""
    path = tmp_path / "mixed.jsonl"
    lines = ['{"prompt": "abc"}', "no json", '{"text": "no prompt"}', json.dumps({"prompt": "a" * 40})]
    path.write_text("\n".join([*lines, '{"prompt": "x", "id": 9}']) + "\n")
    return path


def test_predictions_are_whole_sequences_with_20_dashes_between(bossa, loading, reviews):
    result = bossa("run", "--pef", "x.pef", "--data_dir", reviews, "--max_tokens_to_generate", "4")
    assert result.code == 0
    assert result.out == DASHES.join(["abcdefg", "xyz<end>", "hello abcde"]) + "\n"


def test_the_seeds_arguments_go_to_the_loader(bossa, loading, reviews, tmp_path):
    result = bossa(
        *(
            "run",
            "--inference",
            "-p",
            "x.pef",
            "--model_name_or_path",
            "gpt2",
            "--checkpoint_name",
            "w.pt",
            "--adapter",
            "lora",
        ),
        *(
            "--cache_dir",
            tmp_path,
            "--max_seq_length",
            "24",
            "-b",
            "3",
            "--threads",
            "2",
            "--cpus",
            "0-1",
            "--memory",
            "1GB",
        ),
        *("--config_name", "gpt2", "--data_dir", reviews, "--examples_to_generate=all"),
    )
    assert result.code == 0
    assert str(loading.pef) == "x.pef"
    assert loading.options.pop("progress") is not None
    assert loading.options == {
        "weights": "gpt2",
        "checkpoint": "w.pt",
        "adapter": "lora",
        "threads": 2,
        "cpus": [0, 1],
        "memory": 10**9,
        "max_seq_length": 24,
        "batch_size": 3,
        "cache_dir": tmp_path,
        "rebuild": False,
        "generation_config": "model",
    }


def test_20_tokens_and_20_examples_are_the_defaults(bossa, loading, tmp_path):
    path = tmp_path / "many.jsonl"
    path.write_text('{"prompt": "a"}\n' * 25)
    result = bossa("run", "--pef", "x.pef", "--data_dir", path)
    assert result.out == DASHES.join(["abcdefghijklmnopqrstu"] * 20) + "\n"
    assert loading.options["checkpoint"] is None
    assert loading.options["max_seq_length"] is None


def test_what_is_left_out_by_default_is_counted_and_the_remedy_said(bossa, loading, tmp_path):
    path = tmp_path / "many.jsonl"
    path.write_text('{"prompt": "a"}\n' * 25)
    says = " left out, after the first 20: --examples_to_generate all runs all"
    for options, told in (
        ([], ["bossa: 5 more records were" + says]),
        (["--examples_to_generate", "20"], []),
        (["--examples_to_generate", "all"], []),
    ):
        lines = bossa("run", "--pef", "x.pef", "--data_dir", path, *options).err.splitlines()
        assert lines[1:] == told
    path.write_text('{"prompt": "a"}\n' * 20)
    assert len(bossa("run", "--pef", "x.pef", "--data_dir", path).err.splitlines()) == 1
    path.write_text('{"prompt": "a"}\n' * 21)
    assert "1 more record was left out" in bossa("run", "--pef", "x.pef", "--data_dir", path).err


def test_input_without_an_end_is_not_read_to_find_out_what_is_left_out(toy, start):
    endless = start(["yes", '{"prompt": "a"}'], stderr=None)
    process = start([*toy, "--max_tokens_to_generate", "1", "--data_dir", "-"], stdin=endless.stdout)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out.decode()) == (0, DASHES.join(["ab"] * 20) + "\n")
    assert err.decode().splitlines()[1].startswith("bossa: more records were left out")


@pytest.mark.parametrize("batch", ["1", "4"])
def test_a_record_of_a_pipe_is_answered_when_it_is_done(toy, start, batch):
    process = start([*toy, "-b", batch, "--data_dir", "-", "--output", "-"], stdin=subprocess.PIPE, bufsize=0)
    for number in range(7):
        process.stdin.write(b'{"prompt": "a", "id": %d}\n' % number)
        assert json.loads(process.stdout.readline())["id"] == number
    process.stdin.close()
    assert process.wait(60) == 0


def test_ctrl_c_ends_waiting_for_a_pipe(toy, start):
    process = start([*toy, "--data_dir", "-", "--output", "-"], stdin=subprocess.PIPE, bufsize=0)
    process.stdin.write(b'{"prompt": "a"}\n')
    assert process.stdout.readline()
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    assert process.stderr.read().decode().splitlines()[-1] == "bossa: interrupted"


def test_messages_are_asked_in_the_models_template_and_one_that_it_refuses_is_one_error(bossa, loading, tmp_path):
    path, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    records = [{"messages": [{"role": "user", "content": content}]} for content in ("abc", "bad", "xy")]
    path.write_text("\n".join(map(json.dumps, [*records, {"prompt": "abc"}])))

    def strict(messages):
        if messages[0]["content"] == "bad":
            raise TokenizerError("the chat template does not take these messages (bad): correct them")
        return f"ask {messages[0]['content']} say "

    for options in ([], ["--chat"]):
        loading.use()
        loading.model.tokenizer.chat = strict
        result = bossa("run", "--pef", "x.pef", "--data_dir", path, "--output", output, *options)
        assert result.code == 3
        first, bad, third, prompt = [json.loads(line) for line in output.read_text().splitlines()]
        assert first["completion"].startswith("a")  # what follows the template's last space
        assert first["messages"] == records[0]["messages"]
        assert bad["error"]["line"] == 2
        assert "does not take these messages" in bad["error"]["reason"]
        assert "completion" in third
        assert prompt["completion"].startswith("a" if options else "d")


def test_chat_without_a_template_is_refused_before_any_record(bossa, loading, reviews):
    for source in (["--data_dir", reviews], ["--prompt", "abc"]):
        loading.use()
        loading.model.tokenizer.chat_template = None
        result = bossa("run", "--pef", "x.pef", *source, "--chat")
        assert (result.code, result.out) == (2, "")
        assert "--chat needs a chat template" in result.err


def test_an_empty_prompt_is_refused_wherever_it_stands(bossa, loading, tmp_path):
    path = tmp_path / "in.jsonl"
    path.write_text('{"prompt": ""}\n')
    assert 'the "prompt" is empty' in bossa("run", "--pef", "x.pef", "--data_dir", path).err
    result = bossa("run", "--pef", "x.pef", "--prompt", "")
    assert (result.code, result.out, "the --prompt is empty" in result.err) == (2, "", True)


def test_the_output_of_a_run_run_again_is_the_same_file(bossa, loading, mixed, tmp_path):
    outputs = [tmp_path / f"{number}.jsonl" for number in range(3)]
    path = tmp_path / "labelled.jsonl"
    path.write_text(mixed.read_text() + json.dumps({"prompt": "abc", "completion": "label", "error": "mine"}) + "\n")
    for source, output in zip([path, *outputs], outputs, strict=False):
        assert bossa("run", "--pef", "x.pef", "--data_dir", source, "--output", output).code == 3
    first, second, third = (output.read_text() for output in outputs)
    assert first == second == third


def test_an_output_named_gz_is_gzip(bossa, loading, reviews, tmp_path):
    output = tmp_path / "out.jsonl.gz"
    assert bossa("run", "--pef", "x.pef", "--data_dir", reviews, "--output", output).code == 0
    assert [json.loads(line)["id"] for line in gzip.decompress(output.read_bytes()).splitlines()] == [0, 1, 2]
    again = bossa("run", "--pef", "x.pef", "--data_dir", output, "--max_tokens_to_generate", "1")
    assert again.out == DASHES.join(["abcd", "xy", "hello ab"]) + "\n"


def test_a_place_that_cannot_be_written_is_found_out_before_the_model_is_loaded(bossa, loading, reviews, tmp_path):
    result = bossa("run", "--pef", "x.pef", "--data_dir", reviews, "--output", tmp_path / "none" / "out.jsonl")
    assert result.code == 2
    assert "cannot write" in result.err
    assert loading.pef is None


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["-n", "1000000"], "1000000 is not in the range 1<=x<=1024"),
        (["--threads", "100000"], "100000 is not in the range 1<=x<=1024"),
        (["--cpus", "0-99999"], "names more than 1024 CPUs"),
        (["--memory", "9" * 5000], "is not a size"),
        (["--max_seq_length", "9" * 5000], "is not a number of tokens"),
        (["--examples_to_generate", "9" * 5000], "is neither a count nor 'all'"),
    ],
)
def test_numbers_that_nobody_means_are_refused_with_their_limit(bossa, loading, options, says):
    result = bossa("run", "--pef", "x.pef", "--prompt", "abc", *options)
    assert (result.code, result.out) == (2, "")
    assert says in result.err
    assert result.err.count("\n") == 1


def test_only_so_many_examples_are_run(bossa, loading, reviews):
    result = bossa(
        *("run", "--pef", "x.pef", "--data_dir", reviews),
        *("--examples_to_generate", "2", "--max-tokens-to-generate", "1"),
    )
    assert result.out == f"abcd{DASHES}xy\n"


def test_no_examples_are_an_empty_line_as_print_writes_it(bossa, loading, reviews):
    result = bossa("run", "--pef", "x.pef", "--data_dir", reviews, "--examples_to_generate", "0")
    assert (result.code, result.out) == (0, "\n")


def test_bad_records_are_told_with_file_and_line_and_the_rest_go_on(bossa, loading, mixed):
    result = bossa("run", "--pef", "x.pef", "--data_dir", mixed, "--max_tokens_to_generate", "1")
    assert result.code == 3
    assert result.out == f"abcd{DASHES}xy\n"
    errors = result.err.splitlines()[:3]
    assert [error.split(": ")[1] for error in errors] == [f"{mixed}, line {line}" for line in (2, 3, 4)]
    assert "3 records were errors" in result.err.splitlines()[-1]


def test_output_has_a_json_record_a_prompt_in_order(bossa, loading, mixed, tmp_path):
    output = tmp_path / "out.jsonl"
    result = bossa("run", "--pef", "x.pef", "--data_dir", mixed, "--output", output, "--max_tokens_to_generate", "4")
    assert (result.code, result.out) == (3, "")
    first, *bad, last = [json.loads(line) for line in output.read_text().splitlines()]
    assert first == {"prompt": "abc", "completion": "defg", "token_ids": [4, 5, 6, 7], "finish_reason": "length"}
    assert [(record["error"]["file"], record["error"]["line"]) for record in bad] == [
        (str(mixed), line) for line in (2, 3, 4)
    ]
    assert last == {
        **{"prompt": "x", "id": 9, "completion": "yz", "token_ids": [25, 26, 0]},
        "finish_reason": "stop",
    }


@pytest.mark.parametrize(("side", "kept"), [("left", "cccc"), ("right", "aaaa")])
def test_truncation_makes_room_for_a_long_prompt(bossa, loading, tmp_path, side, kept):
    path = tmp_path / "long.jsonl"
    path.write_text(json.dumps({"prompt": "a" * 30 + "c" * 30}))
    result = bossa(
        *("run", "--pef", "x.pef", "--data_dir", path, "--truncation", side, "--max_tokens_to_generate", "28")
    )
    assert result.code == 0
    assert result.out.startswith(kept)
    assert not result.out.startswith(kept + kept[0])


def test_standard_input_is_a_source(bossa, loading, tmp_path, monkeypatch):
    path = tmp_path / "in"
    path.write_text('{"prompt": "a"}\n')
    with path.open() as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        assert bossa("run", "--pef", "x.pef", "--data_dir", "-", "--max_tokens_to_generate", "2").out == "abc\n"


def test_a_prompt_is_answered_on_standard_output(bossa, loading):
    result = bossa("run", "--pef", "x.pef", "--prompt", "abc", "--max_tokens_to_generate", "3")
    assert (result.code, result.out) == (0, "def\n")
    assert result.err.startswith("1 prompt, 3 tokens in ")


def test_chat_asks_in_the_models_template(bossa, loading, tmp_path):
    output = tmp_path / "out.jsonl"
    path = tmp_path / "in.jsonl"
    path.write_text('{"prompt": "abc"}\n')
    seen = []
    encode = loading.model.tokenizer.encode
    loading.model.tokenizer.encode = lambda text, add_special_tokens=True: (
        seen.append((text, add_special_tokens)) or encode(text)
    )
    assert bossa("run", "--pef", "x.pef", "--data_dir", path, "--chat", "--output", output).code == 0
    assert seen == [("ask abc say ", False)]
    assert json.loads(output.read_text())["prompt"] == "abc"


@pytest.mark.parametrize("side", ["left", "right"])
def test_truncation_cuts_what_the_user_says_and_not_the_template(bossa, loading, tmp_path, side):
    said = "abcdefghijklmnopqrstuvwxyz" * 2
    path = tmp_path / "in.jsonl"
    path.write_text(json.dumps({"prompt": said}) + "\n")
    seen = []
    requests = loading.model.requests
    loading.model.requests = lambda ids, *rest, **named: seen.append(ids) or requests(ids, *rest, **named)
    arguments = ("--data_dir", path, "--chat", "--truncation", side, "--max_tokens_to_generate", "2")
    assert bossa("run", "--pef", "x.pef", *arguments).code == 0
    kept = said[-21:] if side == "left" else said[:21]
    assert list(map(loading.model.tokenizer.decode, seen)) == [f"ask {kept} say "]


def test_a_prompt_may_be_a_chat_too(bossa, loading):
    result = bossa("run", "--pef", "x.pef", "--prompt", "ab", "--chat", "--max_tokens_to_generate", "1")
    assert (result.code, result.out) == (0, "a\n")  # what follows the template's last space, not what follows b


def test_stop_texts_end_a_completion_before_them(bossa, loading):
    result = bossa("run", "--pef", "x.pef", "--prompt", "a", "--stop", "gh", "--stop", "ef")
    assert result.out == "bcd\n"


@pytest.mark.parametrize(
    ("options", "given"),
    [
        ([], {}),
        (["--temperature", "0.7", "--seed", "3"], {"temperature": 0.7, "seed": 3}),
        (["--top-k", "5"], {"top_k": 5, "temperature": 1.0}),
        (["--top_p=0.9", "--temperature", "0"], {"top_p": 0.9, "temperature": 0.0}),
        (["--min-p", "0.1"], {"min_p": 0.1, "temperature": 1.0}),
        (["--repetition-penalty", "1.2"], {"repetition_penalty": 1.2}),
        (["--typical-p", "0.5"], {"typical_p": 0.5, "temperature": 1.0}),
        (["--no-repeat-ngram-size", "3"], {"no_repeat_ngram_size": 3}),
        (["--min-new-tokens", "0", "--max_tokens_to_generate", "7"], {"min_new_tokens": 0, "max_new_tokens": 7}),
        (["-n", "2", "--speculate", "--stop", "q"], {"speculate": 8, "stop": ("q",), "temperature": 1.0}),
    ],
)
def test_sampling_is_greedy_unless_an_option_is_about_drawing(bossa, loading, reviews, monkeypatch, options, given):
    seen = []
    params = loading.model.params

    def kept(**sampling):
        seen.append(params(**sampling))
        return seen[-1]

    monkeypatch.setattr(loading.model, "params", kept)
    assert bossa("run", "--pef", "x.pef", "--data_dir", reviews, *options).code == 0
    assert seen == [SamplingParams(eos_token_ids=(0,), **given)]


def test_a_file_that_is_not_there_is_found_out_before_the_model_is_loaded(bossa, loading, tmp_path):
    result = bossa("run", "--pef", "x.pef", "--data_dir", tmp_path / "nothing.jsonl")
    assert (result.code, result.out) == (2, "")
    assert "nothing.jsonl" in result.err
    assert loading.pef is None


def test_a_program_that_cannot_be_loaded_prints_nothing_on_standard_output(bossa, loading, reviews, monkeypatch):
    def refuse(_pef, **_options):
        raise PefError("x.pef: no such file")

    monkeypatch.setattr(loading, "load", refuse)
    result = bossa("run", "--pef", "x.pef", "--data_dir", reviews)
    assert (result.code, result.out, result.err) == (2, "", "bossa: x.pef: no such file\n")


def interrupt(step: int) -> None:
    if step == 6:
        raise KeyboardInterrupt


def test_ctrl_c_keeps_what_is_finished(bossa, loading, reviews, tmp_path):
    output = tmp_path / "out.jsonl"
    loading.use(batch_size=1, before_step=interrupt)
    arguments = ["run", "--pef", "x.pef", "--data_dir", reviews, "--max_tokens_to_generate", "5"]
    result = bossa(*arguments, "--output", output)
    assert result.code == 130
    assert [json.loads(line)["completion"] for line in output.read_text().splitlines()] == ["defgh"]
    assert result.err.splitlines()[-1] == "bossa: interrupted"


def test_ctrl_c_ends_the_text_of_what_is_finished_with_a_newline(bossa, loading, reviews):
    loading.use(batch_size=1, before_step=interrupt)
    result = bossa("run", "--pef", "x.pef", "--data_dir", reviews, "--max_tokens_to_generate", "5")
    assert (result.code, result.out) == (130, "abcdefgh\n")


def test_the_model_is_closed_at_the_end(bossa, loading, reviews):
    bossa("run", "--pef", "x.pef", "--data_dir", reviews)
    assert loading.model.engine.program.closed


def test_a_pipe_gets_no_bar_and_one_line_of_summary(bossa, loading, reviews):
    result = bossa("run", "--pef", "x.pef", "--data_dir", reviews, "--max_tokens_to_generate", "4")
    assert "\x1b" not in result.err
    (summary,) = result.err.splitlines()
    assert summary.startswith("3 prompts, 11 tokens in ")
    assert "tokens/s" in summary


def test_a_terminal_gets_a_bar_and_predictions_unharmed(loading, reviews, monkeypatch, capfd):
    from bossa.cli import main

    leader, follower = os.openpty()
    with os.fdopen(follower, "w") as terminal:
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setattr("sys.stderr", terminal)
        assert main(["run", "--pef", "x.pef", "--data_dir", str(reviews), "--max_tokens_to_generate", "4"]) == 0
    shown = read_all(leader)
    assert "3/3" in shown
    assert "tokens/s" in shown
    assert capfd.readouterr().out == DASHES.join(["abcdefg", "xyz<end>", "hello abcde"]) + "\n"


def test_samples_stand_one_after_the_other(bossa, loading, reviews):
    arguments = ("run", "--pef", "x.pef", "--data_dir", reviews, "--max_tokens_to_generate", "2", "--temperature", "0")
    result = bossa(*arguments, "-n", "2")
    assert result.out == DASHES.join(["abcde", "abcde", "xyz", "xyz", "hello abc", "hello abc"]) + "\n"
    assert result.err.startswith("3 prompts, 12 tokens in")


def test_samples_of_a_prompt_are_one_record(bossa, loading, mixed, tmp_path):
    output = tmp_path / "out.jsonl"
    options = ("--max_tokens_to_generate", "2", "--temperature", "0", "--samples", "2", "--logprobs", "1")
    assert bossa("run", "--pef", "x.pef", "--data_dir", mixed, "--output", output, *options).code == 3
    records = [json.loads(line) for line in output.read_text().splitlines()]
    assert len(records) == 5
    assert list(records[0]) == ["prompt", "completions"]
    first, second = records[0]["completions"]
    assert first == second
    assert list(first) == ["completion", "token_ids", "finish_reason", "logprobs"]
    assert [token["token_id"] for token in first["logprobs"]] == first["token_ids"] == [4, 5]
    for token in first["logprobs"]:
        assert token["top"] == [[token["token_id"], token["logprob"]]]
        assert token["logprob"] == pytest.approx(1 - math.log(math.e + 27), abs=1e-12)  # one logit of 28 is 1


def test_several_samples_are_drawn_unless_told_otherwise(bossa, loading, reviews, tmp_path):
    output = tmp_path / "out.jsonl"
    bossa("run", "--pef", "x.pef", "--data_dir", reviews, "--output", output, "-n", "3")
    completions = json.loads(output.read_text().splitlines()[0])["completions"]
    assert len({completion["completion"] for completion in completions}) == 3


def test_samples_of_one_prompt_are_written_together(bossa, loading):
    arguments = ("run", "--pef", "x.pef", "--prompt", "abc", "--max_tokens_to_generate", "2", "--temperature", "0")
    assert bossa(*arguments, "-n", "2").out == f"de{DASHES}de\n"


def test_log_probabilities_without_records_are_refused(bossa, loading, reviews):
    result = bossa("run", "--pef", "x.pef", "--data_dir", reviews, "--logprobs", "2")
    assert result.code == 2
    assert "--logprobs goes with --output" in result.err


@pytest.mark.parametrize("how", [["--speculate"], ["--speculate", "3"], ["--speculate=0"]])
def test_guessing_changes_no_prediction(bossa, loading, reviews, how):
    result = bossa("run", "--pef", "x.pef", "--data_dir", reviews, "--max_tokens_to_generate", "4", *how)
    assert (result.code, result.out) == (0, DASHES.join(["abcdefg", "xyz<end>", "hello abcde"]) + "\n")


def test_a_prompt_whose_logits_are_no_numbers_is_one_error_and_the_rest_go_on(bossa, loading, tmp_path, monkeypatch):
    step = loading.model.engine.program.step

    def broken(tokens, positions, starts, block_tables, logit_rows):
        logits = step(tokens, positions, starts, block_tables, logit_rows)
        logits[tokens[logit_rows] == 26] = np.nan  # after a z
        return logits

    monkeypatch.setattr(loading.model.engine.program, "step", broken)
    prompts, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    prompts.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in ("abc", "xz", "de")))
    options = ["-n", "2", "--max_tokens_to_generate", "3", "--top-k", "1", "--output", output]
    result = bossa("run", "--pef", "x.pef", "--data_dir", prompts, *options)
    assert result.code == 3
    first, failed, last = map(json.loads, output.read_text().splitlines())
    assert [[one["completion"] for one in record["completions"]] for record in (first, last)] == [
        ["def"] * 2,
        ["fgh"] * 2,
    ]
    assert "completions" not in failed
    assert failed["error"]["line"] == 2


def test_settings_of_the_model_that_are_not_followed_are_one_line(bossa, loading):
    quiet = bossa("run", "-p", "x.pef", "--prompt", "a")
    loading.use()
    loading.model.generation_config = {"eos_token_id": 0, "num_beams": 3}
    result = bossa("run", "-p", "x.pef", "--prompt", "a")
    assert (result.code, result.out) == (0, quiet.out)
    first, *rest = result.err.splitlines()
    assert first.startswith("bossa: warning: x.pef: generation_config.json sets num_beams 3, which")
    assert len(rest) == len(quiet.err.splitlines())


@pytest.mark.parametrize("way", ["file", "link", "hard link", "folder", "standard input"])
def test_an_output_that_is_also_read_is_refused_before_the_model_is_loaded(
    bossa, loading, reviews, tmp_path, monkeypatch, way
):
    source, output, before = reviews, reviews, reviews.read_text()
    if way == "folder":
        source = tmp_path
    elif way != "file":
        output = tmp_path / "other.jsonl"
        if way == "link":
            output.symlink_to(reviews)
        else:
            os.link(reviews, output)
    with reviews.open() as stdin:
        if way == "standard input":
            monkeypatch.setattr("sys.stdin", stdin)
            source = "-"
        result = bossa("run", "--pef", "x.pef", "--data_dir", source, "--output", output)
    assert (result.code, result.out, result.err.count("\n")) == (2, "", 1)
    assert "give another --output" in result.err
    assert loading.pef is None
    assert reviews.read_text() == before


def test_an_output_beside_what_is_read_is_written(bossa, loading, reviews, tmp_path):
    assert bossa("run", "--pef", "x.pef", "--data_dir", tmp_path, "--output", tmp_path / "out.jsonl").code == 0
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 3


@pytest.mark.parametrize("end", ["/", "/.", "//", "/.."])
def test_an_output_named_as_a_folder_takes_the_place_of_no_file(bossa, loading, reviews, tmp_path, end):
    output = tmp_path / "out.txt"
    output.write_text("before")
    result = bossa("run", "--pef", "x.pef", "--data_dir", reviews, "--output", f"{output}{end}")
    assert (result.code, result.err.count("\n"), output.read_text()) == (2, 1, "before")
    assert "cannot write" in result.err
    assert loading.pef is None


def test_the_ending_of_a_packer_is_one_in_any_case(bossa, loading, reviews, tmp_path):
    output = tmp_path / "out.jsonl.GZ"
    assert bossa("run", "--pef", "x.pef", "--data_dir", reviews, "--output", output).code == 0
    assert len(gzip.decompress(output.read_bytes()).splitlines()) == 3
    again = bossa("run", "--pef", "x.pef", "--data_dir", output, "--max_tokens_to_generate", "1")
    assert again.out == DASHES.join(["abcd", "xy", "hello ab"]) + "\n"
    for ending in ("tgz", "TGZ", "tar.gz", "Tar.GZ", "XZ", "Z", "z"):
        output = tmp_path / f"out.jsonl.{ending}"
        result = bossa("run", "--pef", "x.pef", "--data_dir", reviews, "--output", output)
        assert (result.code, output.exists()) == (2, False)
        assert "as .gz: name it so" in result.err


def test_tools_of_a_record_are_given_to_the_template_or_refused_where_it_takes_none(bossa, loading, tmp_path):
    path, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    record = {"prompt": None, "messages": [{"role": "user", "content": "abc"}], "tools": [{"name": "f"}]}
    path.write_text(json.dumps(record) + "\n" + json.dumps({**record, "tools": []}) + "\n")
    seen = []

    def takes(messages, *, tools=None):
        seen.append(tools)
        return "ask "

    arguments = ("run", "--pef", "x.pef", "--data_dir", path, "--output", output)
    loading.model.tokenizer.chat = takes
    assert bossa(*arguments).code == 0
    assert seen == [[{"name": "f"}], None]
    loading.use()
    loading.model.tokenizer.chat = lambda messages: "ask "
    assert bossa(*arguments).code == 3
    first, second = [json.loads(line) for line in output.read_text().splitlines()]
    assert "takes no tools" in first["error"]["reason"]
    assert "completion" in second
