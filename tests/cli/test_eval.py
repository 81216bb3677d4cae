"""``bossa eval``: its figures and files, what it refuses, and its numbers beside those of transformers."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from support.toys import LETTERS

RIGHT = 1 - math.log(math.e + len(LETTERS) - 1)


@pytest.fixture
def letters(tmp_path: Path) -> Path:
    path = tmp_path / "letters.jsonl"
    write(path, [{"id": "one", "prompt": "abc", "completion": "d"}, {"prompt": "xy", "completion": " z "}])
    return path


def write(path: Path, records: list[Any]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_figures_are_a_table_on_standard_output(bossa, loading, letters):
    result = bossa("eval", "--pef", "x.pef", "--data", letters, "--choices", "d,z")
    assert result.code == 0, result.err
    rows = [line.split() for line in result.out.splitlines()]
    assert rows[0] == ["exact", "match", "50.0%", "±", "35.4", "1", "of", "2"]
    assert rows[1] == ["accuracy", "100.0%", "±", "0.0", "2", "of", "2"]
    assert rows[-3:] == [
        ["reference", "as", "d", "as", "z", "precision", "recall", "F1"],
        ["d", "1", "0", "1.000", "1.000", "1.000"],
        ["z", "0", "1", "1.000", "1.000", "1.000"],
    ]
    assert "2 records, " in result.err


def test_the_loader_gets_what_run_gives_it(bossa, loading, letters, tmp_path):
    given = ["--model_name_or_path", "m", "--checkpoint_name", "c.pt", "--threads", "1", "--memory", "1MB"]
    given += ["--max_seq_length", "20", "-b", "2", "--cache_dir", str(tmp_path), "--rebuild"]
    given += ["--adapter", "tuned"]
    assert bossa("eval", "-p", "x.pef", "--data", letters, *given).code == 0
    asked = {name: value for name, value in loading.options.items() if name != "progress"}
    assert asked == {
        **{"weights": "m", "checkpoint": "c.pt", "threads": 1, "cpus": None, "memory": 1_000_000},
        **{"max_seq_length": 20, "batch_size": 2, "cache_dir": tmp_path, "rebuild": True, "adapter": "tuned"},
        "generation_config": "none",
    }


def test_there_is_a_record_for_each_prompt_with_errors_in_their_places(bossa, loading, tmp_path):
    data = write(
        tmp_path / "data.jsonl",
        [
            {"id": "one", "prompt": "abc", "completion": "d", "more": 1},
            {"prompt": "abc"},
            {"prompt": "abc", "completion": "x"},
            {"id": 4, "prompt": "a" * 40, "completion": "d"},
            {"prompt": "xy", "completion": "d"},
        ],
    )
    output = tmp_path / "out.jsonl"
    result = bossa("eval", "-p", "x.pef", "--data", data, "--choices", "d,z", "--output", output)
    assert result.code == 3
    assert f'bossa: {data}, line 2: the record has no "completion" to compare with' in result.err
    first, second, third, fourth, fifth = lines(output)
    assert first == {
        **{"id": "one", "prompt": "abc", "reference": "d", "answer": "d", "correct": True},
        **{"log_likelihood": pytest.approx(RIGHT), "tokens": 1, "generated": "de", "exact_match": False},
        "probabilities": pytest.approx({"d": math.e / (math.e + 1), "z": 1 / (math.e + 1)}),
        "log_probabilities": pytest.approx({"d": RIGHT, "z": RIGHT - 1}),
    }
    assert second["error"] == {"file": str(data), "line": 2, "reason": 'the record has no "completion" to compare with'}
    assert third["error"]["reason"] == "the \"completion\" is 'x', which is none of the choices: d, z"
    assert "the prompt has 40 tokens, and at most 31 fit" in fourth["error"]["reason"]
    assert fourth["id"] == 4
    assert (fifth["id"], fifth["answer"], fifth["correct"]) == (4, "z", False)


def test_json_is_the_same_bytes_each_time(bossa, loading, letters, tmp_path):
    files = [tmp_path / "one.json", tmp_path / "two.json"]
    for path, batch in zip(files, "14", strict=True):
        more = ["--choices", "d,z", "--calibrate", "-b", batch, "--json", path]
        assert bossa("eval", "-p", "x.pef", "--data", letters, *more).code == 0
    assert files[0].read_bytes() == files[1].read_bytes()
    found = json.loads(files[0].read_text())
    assert list(found) == [
        *("program", "data", "records", "errors", "perplexity", "exact_match", "choices", "plain", "priors"),
        *("calibrated", "error_records"),
    ]
    assert found["records"] == 2
    assert found["choices"] == ["d", "z"]


def test_the_report_is_a_page(bossa, loading, letters, tmp_path):
    report = tmp_path / "report.html"
    assert bossa("eval", "-p", "x.pef", "--data", letters, "--choices", "d,z", "--report", report).code == 0
    assert report.read_text().startswith("<!DOCTYPE html>")
    assert "Confusion matrix" in report.read_text()


def test_fields_may_have_other_names_and_generation_may_be_left_out(bossa, loading, tmp_path):
    data = write(tmp_path / "data.jsonl", [{"text": "abc", "label": "d"}] * 3)
    names = ["--prompt_field", "text", "--completion_field", "label", "--examples", "2"]
    result = bossa("eval", "-p", "x.pef", "--data", data, *names, "--no-exact-match")
    assert result.code == 0, result.err
    assert result.out.split()[:3] == ["perplexity", f"{math.exp(-RIGHT):,.4g}", "of"]
    assert "exact match" not in result.out
    assert "2 records, " in result.err


def test_a_conversation_and_chat_are_asked_in_the_models_template(bossa, loading, tmp_path):
    turns = [{"role": "user", "content": "abc"}, {"role": "assistant", "content": "a"}]
    data = write(tmp_path / "data.jsonl", [{"messages": turns}, {"prompt": "abc", "completion": "a"}])
    output = tmp_path / "out.jsonl"
    assert bossa("eval", "-p", "x.pef", "--data", data, "--chat", "--output", output).code == 0
    first, second = lines(output)
    assert first["log_likelihood"] == second["log_likelihood"]  # both after "ask abc say "
    assert (first["prompt"], second["prompt"]) == (turns[:1], "abc")


def test_records_on_standard_output_have_it_for_themselves(bossa, loading, letters):
    result = bossa("eval", "-p", "x.pef", "--data", letters, "--output", "-")
    assert [json.loads(line)["id"] for line in result.out.splitlines()] == ["one", 1]
    assert "perplexity" in result.err


@pytest.mark.parametrize(
    ("records", "options", "says"),
    [
        ([], [], "has no records: there is nothing to evaluate"),
        (
            [{"prompt": "abc"}],
            [],
            "no record could be evaluated; the first of 1 is {data}, line 1: the record has no",
        ),
        ([{"prompt": "abc", "completion": "d"}], ["--calibrate"], "--calibrate is about --choices: give some"),
        ([{"prompt": "abc", "completion": "d"}], ["--choices", "d,,z"], "choice 2 of 'd,,z' is no text, or empty"),
        ([{"prompt": "abc", "completion": "d"}], ["--choices", "d, d"], "--choices differ in white space alone"),
        (
            [{"prompt": "abc", "completion": "d"}],
            ["--report", "{folder}/no/r.html"],
            "cannot write {folder}/no/r.html: ",
        ),
        ([{"prompt": "abc", "completion": "d"}], ["--json", "{data}"], "would be overwritten: give another --json"),
        (
            [{"prompt": "abc", "completion": "d"}],
            ["--json", "{folder}/a", "--report", "{folder}/a"],
            "--report and --json are both {folder}/a: give each its own file",
        ),
    ],
)
def test_wrong_input_is_one_line_and_leaves_no_file(bossa, loading, tmp_path, records, options, says):
    data = write(tmp_path / "data.jsonl", records)
    places = {"data": data, "folder": tmp_path}
    before = data.read_bytes()
    output = tmp_path / "out.jsonl"
    result = bossa("eval", "-p", "x.pef", "--data", data, "--output", output, *(o.format(**places) for o in options))
    assert result.code == 2
    assert result.out == ""
    assert result.err.count("\n") == 1
    assert says.format(**places) in result.err
    assert [path.name for path in tmp_path.iterdir()] == ["data.jsonl"]
    assert data.read_bytes() == before


def test_only_some_errors_are_lines_and_the_rest_are_counted(bossa, loading, tmp_path):
    data = write(tmp_path / "data.jsonl", [{"prompt": "abc", "completion": "d"}, *[{"prompt": "abc"}] * 12])
    result = bossa("eval", "-p", "x.pef", "--data", data)
    assert result.code == 3
    assert result.err.count("to compare with") == 10
    assert "bossa: 2 more records were errors: --output lists them all" in result.err


def test_ctrl_c_leaves_no_figures_of_a_part(bossa, loading, letters, tmp_path):
    def interrupt(step: int) -> None:
        if step == 2:
            raise KeyboardInterrupt

    loading.use(batch_size=1, before_step=interrupt)
    files = ["--output", tmp_path / "a.jsonl", "--report", tmp_path / "a.html", "--json", tmp_path / "a.json"]
    result = bossa("eval", "-p", "x.pef", "--data", letters, *files)
    assert (result.code, result.out) == (130, "")
    assert result.err.splitlines()[-1] == "bossa: interrupted"
    assert [path.name for path in tmp_path.iterdir()] == ["letters.jsonl"]


@pytest.mark.end_to_end
def test_scores_are_those_of_transformers(bossa, tiny_model, tiny_pef, weight_cache, monkeypatch, tmp_path):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    monkeypatch.setenv("BOSSA_CACHE", str(weight_cache))
    pairs = [("The film was ", "good"), ("A", "bad"), ("né à l'été: ", "good"), ("so so so so so so so so so, ", "bad")]
    data = write(tmp_path / "data.jsonl", [{"prompt": prompt, "completion": answer} for prompt, answer in pairs])
    given = ["--choices", "good,bad,badly", "--calibrate", "--output", tmp_path / "out.jsonl"]
    result = bossa(
        *("eval", "-p", tiny_pef, "--model_name_or_path", tiny_model, "--data", data, "--threads", "1"),
        *(*given, "--json", tmp_path / "figures.json"),
    )
    assert result.code == 0, result.err
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    reference = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32, attn_implementation="eager")

    def score(prompt: str, completion: str, *end: int) -> float:
        ids = tokenizer(prompt)["input_ids"]
        behind = [*tokenizer(completion, add_special_tokens=False)["input_ids"], *end]
        with torch.no_grad():
            logs = reference(torch.tensor([ids + behind])).logits[0].double().log_softmax(-1)
        return sum(float(logs[len(ids) - 1 + i, token]) for i, token in enumerate(behind))

    likely = 0.0
    for found, (prompt, answer) in zip(lines(tmp_path / "out.jsonl"), pairs, strict=True):
        # The end tells "bad" from "badly".
        expected = {"good": score(prompt, "good"), "bad": score(prompt, "bad", 256), "badly": score(prompt, "badly")}
        # Single precision in both, and sums of up to five tokens.
        assert found["log_probabilities"] == pytest.approx(expected, abs=1e-4)
        assert found["log_likelihood"] == pytest.approx(score(prompt, answer), abs=1e-4)
        likely += score(prompt, answer)
    figures = json.loads((tmp_path / "figures.json").read_text())
    tokens = sum(len(answer) for _, answer in pairs)
    assert figures["perplexity"]["tokens"] == tokens
    assert figures["perplexity"]["value"] == pytest.approx(math.exp(-likely / tokens), rel=1e-4)
    prompts = ["--data_dir", data, "--choices", "good,bad,badly", "--output", tmp_path / "answers.jsonl"]
    result = bossa("run", "-p", tiny_pef, "--model_name_or_path", tiny_model, "--threads", "1", *prompts)
    assert result.code == 0, result.err
    best = [
        max(found["log_probabilities"].items(), key=lambda pair: pair[1])[0] for found in lines(tmp_path / "out.jsonl")
    ]
    assert [found["completion"] for found in lines(tmp_path / "answers.jsonl")] == best
