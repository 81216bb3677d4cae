"""The arguments of the framework and of the program, on one command line."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import pytest

from bossa.errors import SambaError
from bossa.samba import arguments
from bossa.samba.logging import samba_logger
from bossa.samba.utils.argparser import parse_app_args, parse_yaml_to_args


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """The logger as it is at the start, before and after."""
    samba_logger._written.clear()
    yield
    samba_logger.setLevel("WARNING")


def test_arguments_of_both_are_there_with_their_defaults():
    for command in (["compile"], ["run", "-p", "a.pef"], ["test"], ["measure-performance"]):
        args = parse_app_args(command)
        assert args.command == command[0]
        assert (args.inference, args.batch_size, args.data_parallel, args.reduce_on_rdu) == (False, 1, False, False)
        assert (args.world_size, args.debug, args.log_level) == (1, False, None)
        assert (args.mapping, args.arch, args.num_tiles, args.n_chips, args.n_iters) == (None,) * 5
        assert args.resources_scaling_factors is None


def test_all_arguments_are_read():
    args = parse_app_args(
        "compile --inference -b=4 --pef-name gpt2 --output-folder=pefs -o1 --data-parallel --reduce-on-rdu "
        "--world-size 2 --mapping spatial --arch sn30 --num-tiles 4 --n-chips 2 --n-iters 7 "
        "--resources-scaling-factors 0.8 0.8 0.9 --debug".split()
    )
    assert (args.inference, args.batch_size, args.pef_name, args.output_folder) == (True, 4, "gpt2", "pefs")
    assert (args.data_parallel, args.reduce_on_rdu, args.world_size, args.debug) == (True, True, 2, True)
    assert (args.mapping, args.arch, args.num_tiles, args.n_chips, args.n_iters) == ("spatial", "sn30", 4, 2, 7)
    assert args.resources_scaling_factors == [0.8, 0.8, 0.9]
    assert parse_app_args(["run", "--pef", "a.pef"]).pef == "a.pef"


def test_the_line_of_the_process_is_read_where_none_is_given(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("sys.argv", ["program.py", "run", "-p", "b.pef", "--batch-size", "3"])
    args = parse_app_args(dev_mode=True)
    assert (args.command, args.pef, args.batch_size) == ("run", "b.pef", 3)


@pytest.mark.parametrize("line", ["run", "", "frobnicate", "compile -b x", "compile --no-such-thing"])
def test_a_wrong_line_ends_the_program_as_argparse_does(line: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as exit_:
        parse_app_args(line.split())
    assert exit_.value.code == 2
    assert "error:" in capsys.readouterr().err


def test_the_programs_arguments_go_to_their_commands():
    def common(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--lr", type=float, default=0.1)

    def of_compile(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--only-compile", action="store_true")

    def of_test(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--only-test", action="store_true")

    def of_run(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--test", action="store_true")  # the name of a command, too

    functions = {
        "common_parser_fn": common,
        "compile_parser_fn": of_compile,
        "test_parser_fn": of_test,
        "run_parser_fn": of_run,
    }
    args = parse_app_args(["run", "-p", "a", "--test", "--lr", "1"], **functions)
    assert (args.command, args.test, args.lr) == ("run", True, 1.0)
    assert not hasattr(args, "only_compile")
    assert parse_app_args(["compile", "--only-compile"], **functions).only_compile
    assert parse_app_args(["test", "--only-test"], **functions).only_test
    assert parse_app_args(["measure-performance", "--test"], **functions).test


@pytest.mark.parametrize("names", [("-b", "--batch-size"), ("--batch-size",)])
def test_an_argument_of_the_program_replaces_the_frameworks_with_its_default(names: tuple[str, ...]):
    def common(parser: argparse.ArgumentParser) -> None:
        parser.add_argument(*names, type=int, default=32)

    assert parse_app_args(["compile"], common_parser_fn=common).batch_size == 32
    assert parse_app_args(["compile", "-b", "5"], common_parser_fn=common).batch_size == 5
    assert parse_app_args(["compile", "--batch-size=6"], common_parser_fn=common).batch_size == 6


def test_an_argument_of_another_name_may_take_a_short_one():
    def common(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("-p", "--prompt", default="none")

    args = parse_app_args(["run", "--pef", "a.pef", "-p", "Hello"], common_parser_fn=common)
    assert (args.pef, args.prompt) == ("a.pef", "Hello")


@pytest.mark.parametrize(
    ("option", "level"), [("-o0", "o0"), ("--o0", "o0"), ("--o1", "o1"), ("-o2", "o2"), ("--o3", "o3")]
)
def test_levels_are_kept_for_the_session(option: str, level: str):
    parse_app_args(["compile", option, "--inference"])
    assert arguments.optimization_level() == level
    assert arguments.is_inference()
    parse_app_args(["compile"])
    assert arguments.optimization_level() == "o3"
    assert not arguments.is_inference()


def test_what_means_nothing_here_says_so_once_at_level_info(capsys: pytest.CaptureFixture[str]):
    parse_app_args(["compile", "--num-tiles", "4"])
    assert capsys.readouterr().err == ""
    for _ in range(2):
        parse_app_args(["compile", "--num-tiles", "4", "--log-level", "info"])
    assert capsys.readouterr().err == "INFO: --num-tiles has no meaning on this machine and is ignored\n"


def test_yaml_goes_over_the_arguments_and_is_kept(tmp_path: Path):
    file = tmp_path / "config.yaml"
    file.write_text("batch-size: 8\nlr: 0.5\nnested:\n  a: [1, 2]\n")
    args = parse_app_args(["compile", "--pef-name", "x"])
    overlaid = parse_yaml_to_args(str(file), args)
    assert (overlaid.batch_size, overlaid.lr, overlaid.nested, overlaid.pef_name) == (8, 0.5, {"a": [1, 2]}, "x")
    assert args.batch_size == 1
    assert arguments.current().batch_size == 8
    file.write_text("")
    assert parse_yaml_to_args(file, args) == args


def test_a_file_that_is_no_mapping_is_refused_in_one_line(tmp_path: Path):
    args = parse_app_args(["compile"])
    with pytest.raises(SambaError, match=r"none\.yaml: No such file"):
        parse_yaml_to_args(tmp_path / "none.yaml", args)
    (tmp_path / "list.yaml").write_text("- 1\n")
    with pytest.raises(SambaError, match="a mapping of argument names to values is needed, not a list"):
        parse_yaml_to_args(tmp_path / "list.yaml", args)
    (tmp_path / "broken.yaml").write_text("a: [\n")
    with pytest.raises(SambaError, match="not YAML"):
        parse_yaml_to_args(tmp_path / "broken.yaml", args)


def test_developers_have_two_arguments_more():
    args = parse_app_args(["test", "--visualize"], dev_mode=True)
    assert (args.visualize, args.acc_report_json) == (True, None)
    assert not hasattr(parse_app_args(["test"]), "visualize")
