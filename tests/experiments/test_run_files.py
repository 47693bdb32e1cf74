"""Damaged files of a run are reported and never used in part."""

import json

import pytest

from experiments.run_files import (
    RunFolderError,
    is_done,
    read_config,
    read_evaluations,
    read_final,
    read_run_json,
    steps_done,
    write_json,
)
from tests.helpers.tiny_grid import run_of, write_evaluations, write_finished_run, write_run_json

CSV = "step,win_rate,win_rate_se,length\r\n0,0.0,nan,10.0\r\n64,0.25,0.1,12.5\r\n"
WHAT_TO_DO = "; restore the file from a backup, or move {folder} away and repeat the run"


def test_whole_files_are_read(tmp_path):
    assert read_evaluations(tmp_path) == []
    assert read_run_json(tmp_path) == {}
    assert read_final(tmp_path) is None
    (tmp_path / "evaluations.csv").write_text(CSV.replace("0.1,", ","), newline="")
    assert read_evaluations(tmp_path)[1] == {"step": 64, "win_rate": 0.25, "length": 12.5}  # an empty cell is left out
    run = run_of(tmp_path)
    write_finished_run(run, {0: 0.0, 320: 0.5})
    assert is_done(run)
    assert steps_done(run) == 320
    assert read_final(run.folder) == {"step": 320, "win_rate": 0.5, "episodes": 512}
    assert read_run_json(run.folder)["attempts"] == 1
    assert read_config(run.folder)["env"] == "smax:3m"


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (CSV[:-2], "its last line is cut off"),
        (CSV[:-5], "its last line is cut off"),
        (CSV[:-9] + "\r\n", "line 3 has 3 values for 4 columns"),
        (CSV.replace("0.25", "0.2x"), "line 3 has '0.2x' in column 'win_rate'"),
        (CSV.replace("0.25", "1.25"), "line 3 has '1.25' in column 'win_rate'"),
        (CSV.replace("12.5", "nan"), "line 3 has 'nan' in column 'length'"),
        (CSV.replace("64", "64.5"), "line 3 has '64.5' in column 'step'"),
        (CSV.replace("64", "0"), "line 3 must have a larger step than the line before it"),
        (CSV.replace("64", ""), "line 3 must have a larger step than the line before it"),
        (CSV + "\r\n", "line 4 has 0 values for 4 columns"),
        (CSV.replace("step", "stop"), "its first line must name the columns, among them 'step'"),
        (CSV.replace("length", "win_rate"), "its first line must name the columns"),
        (CSV.replace("0.25", '0.2"5'), "line 3 has"),
        (CSV.replace("0.25", '"0.25'), "it is no CSV text"),
        ("", "its first line must name the columns"),
        ("\0" * 100, "its first line must name the columns"),
        (CSV.replace("0.25", "\0"), "in column 'win_rate'"),
        (CSV.replace("0.25", "9" * 10_000), "line 3 has '99999"),
        (CSV.encode().replace(b"0.25", b"\xff\xfe"), "it is no CSV text"),
    ],
)
def test_a_damaged_evaluations_file_is_one_sentence(tmp_path, text, what):
    path = tmp_path / "evaluations.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(RunFolderError) as caught:
        read_evaluations(tmp_path)
    sentence = str(caught.value)
    assert sentence.startswith(f"{path} is damaged: ")
    assert what in sentence
    assert sentence.endswith(WHAT_TO_DO.format(folder=tmp_path))
    assert "\n" not in sentence
    assert "\0" not in sentence
    assert len(sentence) < 500


def test_no_cut_through_an_evaluations_file_is_read(tmp_path):
    whole = CSV.encode()
    for size in range(len(whole)):
        (tmp_path / "evaluations.csv").write_bytes(whole[:size])
        if whole[:size].endswith(b"\n"):  # between two lines: `require_all_evaluations` and the next test
            continue
        with pytest.raises(RunFolderError):
            read_evaluations(tmp_path)


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"options": None}, "'options' must be an object of texts, got None"),
        ({"options": {"seed": 1}}, "'options' must be an object of texts"),
        ({"demonstrations": {}}, "'demonstrations' must be null or an object with a text 'sha256'"),
        ({"seconds": "12"}, "'seconds' must be a number of at least 0, got '12'"),
        ({"seconds": float("nan")}, "'seconds' must be a number of at least 0, got nan"),
        ({"attempts": 1.5}, "'attempts' must be a whole number of at least 0, got 1.5"),
        ({"commit": 7}, "'commit' must be a text, got 7"),
    ],
)
def test_a_run_json_with_wrong_content_is_one_sentence(tmp_path, changes, what):
    run = run_of(tmp_path)
    write_run_json(run, **changes)
    with pytest.raises(RunFolderError, match=rf"run\.json is damaged: .*{what}") as caught:
        read_run_json(run.folder)
    assert str(caught.value).endswith(WHAT_TO_DO.format(folder=run.folder))


@pytest.mark.parametrize("name", ["run.json", "config.json", "final.json"])
@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "it is no JSON"),
        (b'{"step": 3', "it is no JSON"),
        (b"\xff\xfe\0", "it is no JSON"),
        (b"[1, 2]", "it must hold a JSON object, got [1, 2]"),
        (b"[" * 100_000, "it is no JSON"),
    ],
)
def test_a_damaged_json_file_is_one_sentence(tmp_path, name, content, what):
    (tmp_path / name).write_bytes(content)
    reader = {"run.json": read_run_json, "config.json": read_config, "final.json": read_final}[name]
    with pytest.raises(RunFolderError) as caught:
        reader(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path / name} is damaged: {what}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ({}, "'step' is missing"),
        ({"step": 1, "win_rate": "all"}, "'win_rate' is 'all'"),
        ({"step": 1, "greedy_win_rate": 1.5}, "'greedy_win_rate' is 1.5"),
    ],
)
def test_a_final_evaluation_needs_its_step_and_numbers(tmp_path, content, what):
    (tmp_path / "final.json").write_text(json.dumps(content))
    with pytest.raises(RunFolderError, match=what):
        read_final(tmp_path)


def test_a_missing_config_says_what_is_expected(tmp_path):
    with pytest.raises(RunFolderError, match=r"config\.json is missing: expected the folder of a run"):
        read_config(tmp_path)


def test_json_is_written_whole_or_not_at_all(tmp_path):
    write_json(tmp_path / "a.json", {"a": 1})
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"a": object()})
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_steps_are_those_of_the_newest_evaluation(tmp_path):
    run = run_of(tmp_path)
    assert steps_done(run) == 0
    write_evaluations(run.folder, {0: 0.0, 64: 0.5})
    assert steps_done(run) == 64
