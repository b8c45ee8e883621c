"""What a command cannot write costs nothing else: no run, no other file, no verdict."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ADAPTERS = """
from functional_paged import reference

class Right:
    name = "right"
    def unsupported(self, case):
        open("ran", "a").close()
        return None
    def store(self, cache, states, index_spec):
        return reference.store_single(cache, states, index_spec)

class Wrong(Right):
    name = "wrong"
    def store(self, cache, states, index_spec):
        raise RuntimeError("\\u8bbe\\u5907\\u9519\\u8bef \\udc80")

class Namesake(Right):
    name = "right"
"""
CHECK = ("check", "--cases", "c14_neg*bf16*_h[37]*", "--jobs", "1", "--backend")
SPEC = {"form": "slots", "slots": [9, -1], "num_blocks": 6, "block_size": 2, "num_tokens": 2}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "mine.py").write_text(ADAPTERS)
    (tmp_path / "spec.json").write_text(json.dumps(SPEC))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*words: str, stdout: int | None = subprocess.PIPE, **environment: str):
    return subprocess.run(
        [sys.executable, "-m", "functional_paged._cli", *words],
        stdout=stdout,
        stderr=subprocess.PIPE,
        env={**os.environ, **environment},
        timeout=300,
        check=False,
    )


def check(backend: str, *words: str, **options):
    return run(*CHECK, f"mine:{backend}", *words, **options)


def refused(words: list[str]) -> str:
    """Why a check is refused, in one line, before anything ran or was written."""
    before = sorted(Path.cwd().iterdir())
    ended = check("Right", *words)
    assert ended.returncode == 2, ended
    assert ended.stdout == b""
    assert sorted(p for p in Path.cwd().iterdir() if p.name != "__pycache__") == before
    (line,) = ended.stderr.decode().splitlines()
    return line


def test_what_cannot_be_written_is_refused_before_the_run(folder: Path) -> None:
    (folder / "a_folder").mkdir()
    for option in ("--json", "--html", "--write-ledger"):
        assert refused([option, "a_folder"]) == f"{option} a_folder: cannot be written"
        assert refused([option, "no/f"]) == f"{option} no/f: cannot be written"
    assert run("explain", "spec.json", "--svg", "a_folder").returncode == 2


def test_one_file_for_two_outputs_is_refused_by_any_path(folder: Path) -> None:
    (folder / "old").write_text("old")
    (folder / "link").symlink_to("old")
    (folder / "dangling").symlink_to("new")
    for one, other in [
        ("new", "new"),
        ("new", "./new"),
        ("new", str(folder / "new")),
        ("new", "dangling"),
        ("old", "link"),
    ]:
        said = f"{Path(other)} must be another file than --json {one}"
        assert refused(["--json", one, "--html", other]) == f"--html {said}"
        assert refused(["--json", one, "--write-ledger", other]) == f"--write-ledger {said}"
    assert (folder / "old").read_text() == "old"


def test_an_input_is_no_output(folder: Path) -> None:
    ledger = folder / "known.toml"
    ledger.write_text('backend = "right"\n')
    words = ["--ledger", "known.toml", "--write-ledger", "./known.toml"]
    assert refused(words).endswith("must be another file than known.toml, which is read")
    assert ledger.read_text() == 'backend = "right"\n'
    ended = run("explain", "spec.json", "--svg", "./spec.json")
    assert (ended.returncode, ended.stdout) == (2, b"")
    assert json.loads((folder / "spec.json").read_text()) == SPEC


def test_a_backend_that_cannot_load_leaves_the_files_of_the_last_run(folder: Path) -> None:
    (folder / "old").write_text("old")
    ended = check("Nothing", "--json", "old", "--html", "new")
    assert ended.returncode == 2
    assert (folder / "old").read_text() == "old"
    assert not (folder / "new").exists()


@pytest.mark.parametrize(("backend", "status"), [("Right", 2), ("Wrong", 1)])
def test_a_file_that_fails_at_the_end_costs_no_other(backend: str, status: int) -> None:
    ended = check(backend, "--json", "/dev/full", "--html", "page", "--write-ledger", "draft")
    assert ended.returncode == status
    assert ended.stderr.decode().splitlines() == ["--json /dev/full: No space left on device"]
    assert f"2 {'pass' if backend == 'Right' else 'fail'}" in ended.stdout.decode()
    assert "</html>" in Path("page").read_text()
    assert Path("draft").read_text().startswith('backend = "')


def test_longer_files_of_the_last_run_are_replaced(folder: Path) -> None:
    (folder / "old").write_text("x" * 10**6)
    assert check("Right", "--json", "old").returncode == 0
    assert json.loads((folder / "old").read_text())["backends"][0]["name"] == "right"


@pytest.mark.parametrize("to_a_file", [False, True])
def test_a_file_that_is_standard_output_has_it_alone(to_a_file: bool) -> None:
    with open("out", "wb") as out:
        ended = check(
            "Right", "--json", "/dev/stdout", stdout=out.fileno() if to_a_file else subprocess.PIPE
        )
    assert ended.returncode == 0
    printed = Path("out").read_bytes() if to_a_file else ended.stdout
    assert json.loads(printed)["backends"][0]["counts"] == {"pass": 2}
    assert b"2 pass" in ended.stderr
    assert check("Right", "--json", "/dev/null", "--html", "/dev/null").returncode == 0


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_any_encoding_of_standard_output(encoding: str) -> None:
    words = ("--json", "\u7ed3\u679c.json", "--html", "page", "--write-ledger", "draft")
    ended = check("Wrong", *words, PYTHONIOENCODING=encoding)
    assert ended.returncode == 1
    printed = ended.stdout.decode(encoding)
    reason = "\u8bbe\u5907" if encoding == "utf-8" else r"\u8bbe\u5907"
    assert f": RuntimeError: {reason}" in printed
    results = json.loads(Path("\u7ed3\u679c.json").read_text())["backends"][0]["results"]
    assert "\u8bbe\u5907" in results[0]["reason"]
    assert "</html>" in Path("page").read_text("utf-8")
    again = check("Wrong", "--ledger", "draft", PYTHONIOENCODING=encoding)
    assert again.returncode == 0


@pytest.mark.parametrize("columns", ["0", "00", "1", "80"])
def test_any_width(columns: str) -> None:
    explained = run("explain", "spec.json", COLUMNS=columns)
    assert explained.returncode == 0
    checked = check("Right", COLUMNS=columns)
    helped = run("check", "--help", COLUMNS=columns)
    if columns != "1":
        assert b"C14 negative slot: slot -1" in explained.stdout
        assert b"2 pass" in checked.stdout
        assert b"Exit status" in helped.stdout
    assert checked.returncode == 0


PIPED = {
    "list": ("check", "--list"),
    "check": (*CHECK, "mine:Right"),
    "explain": ("explain", "spec.json"),
}


@pytest.mark.parametrize("command", PIPED)
def test_a_reader_that_goes_away_ends_it_quietly(command: str) -> None:
    for unbuffered in ("", "1"):
        reader, writer = os.pipe()
        os.close(reader)
        ended = run(*PIPED[command], stdout=writer, PYTHONUNBUFFERED=unbuffered)
        os.close(writer)
        assert (ended.returncode, ended.stderr) == (2, b"")


@pytest.mark.parametrize("command", PIPED)
def test_standard_output_that_is_full_is_said_in_a_line(command: str) -> None:
    with open("/dev/full", "wb") as full:
        ended = run(*PIPED[command], stdout=full.fileno())
    assert ended.returncode == 2
    assert ended.stderr == b"standard output: No space left on device\n"


def test_the_verdict_survives_standard_output(folder: Path) -> None:
    with open("/dev/full", "wb") as full:
        ended = check("Wrong", "--json", "results", stdout=full.fileno())
    assert ended.returncode == 1
    assert json.loads((folder / "results").read_text())["backends"][0]["counts"] == {"fail": 2}


def test_one_backend_or_ledger_twice_is_refused_before_the_run(folder: Path) -> None:
    twice = "each backend must have a name of its own, got 'right' twice"
    assert refused(["--backend", "mine:Right"]) == twice
    assert refused(["--backend", "mine:Namesake"]) == twice
    for name in ("one.toml", "two.toml"):
        (folder / name).write_text('backend = "right"\n')
    words = ["--ledger", "one.toml", "--ledger", "two.toml"]
    assert refused(words) == "two.toml: backend 'right' must have one ledger, got two"


def test_a_new_ledger_keeps_what_the_old_one_has(folder: Path) -> None:
    old = """\
# about this kernel
backend = "wrong"
[[known]]
id = "c14_negative_slots/slots/bf16/*_s33_*"  # all of them
status = "xfail"
reason = "no driver"
link = "https://example.org/7"
"""
    (folder / "old.toml").write_text(old)
    assert check("Wrong", "--ledger", "old.toml", "--write-ledger", "new.toml").returncode == 1
    new = (folder / "new.toml").read_text()
    for kept in ("c14_negative_slots/slots/bf16/*_s33_*", "no driver", "https://example.org/7"):
        assert f'"{kept}"' in new
    assert new.count("[[known]]") == 2
    ended = check("Wrong", "--ledger", "new.toml", "--write-ledger", "third.toml")
    assert ended.returncode == 0
    assert (folder / "third.toml").read_text() == new
