"""The options of a command from a file: read, overruled, refused."""

from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from pathencoder.cli.config_file import config_argument


@click.command()
@config_argument()
@click.option("--head", "kind", type=click.Choice(["linear", "knn"]), default="linear")
@click.option("--data", required=True, type=click.Path(path_type=Path))
@click.option("--encoder", "name")
@click.option("--max-error", type=click.FloatRange(0, 1))
@click.option("--option", "-o", "options", multiple=True)
@click.option("--skip-bad", is_flag=True)
@click.option("--classes")
def command(**given):
    for name, value in given.items():
        click.echo(f"{name}: {value}")


@pytest.fixture
def call(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()

    def calling(text, *more):
        (tmp_path / "runs/head.toml").write_text(text)
        return CliRunner().invoke(command, ["runs/head.toml", *more])

    return calling


def test_options_are_read_and_paths_are_relative_to_the_file(call, tmp_path):
    found = call(
        'head = "knn"\ndata = "../tiles"\nencoder = "./encoder"\nmax_error = 0.1\nskip-bad = true\n'
        'classes = ["a", "b"]\n[options]\nk = 3\nname = "x"\n'
    )
    assert found.exit_code == 0, found.output
    assert found.output.splitlines() == [
        "kind: knn",
        f"data: {tmp_path / 'tiles'}",
        f"name: {tmp_path / 'runs/encoder'}",
        "max_error: 0.1",
        "options: ('k=3', 'name=\"x\"')",
        "skip_bad: True",
        "classes: a,b",
    ]


def test_the_command_line_counts_before_the_file(call):
    found = call('data = "tiles"\nhead = "knn"\n', "--head", "linear", "--data", "here")
    assert found.output.splitlines()[:2] == ["kind: linear", "data: here"]
    assert call("data = '~/tiles'\n").output.splitlines()[1] == f"data: {Path.home() / 'tiles'}"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('date = "x"', "'date' is no option of command. Did you mean 'data'?"),
        ("data = ", "cannot be read as TOML"),
        ('data = "x"\nskip-bad = "yes"', "skip-bad: true or false"),
        ('data = "x"\noptions = 3', "options: a table"),
        ('data = "x"\nmax-error = 3', "3.0 is not in the range 0<=x<=1"),
        ('data = "x"\nhead = true', "head: a text or a number"),
        ('head = "knn"', "Missing option '--data'"),
        ('data = "x"\nhelp = true', "'help' is no option"),
    ],
)
def test_files_that_do_not_fit(call, text, words):
    found = call(text)
    assert found.exit_code == 2
    assert words in found.output


def test_labelled_data_in_the_place_of_a_file(tmp_path):
    (tmp_path / "tiles.csv").write_text("path,label\n")
    for given in (tmp_path, tmp_path / "tiles.csv"):
        found = CliRunner().invoke(command, [str(given)])
        assert "labelled data are --data" in found.output
