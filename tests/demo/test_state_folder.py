"""The folder where the demo keeps its secret key."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from coatcheck.demo.state_folder import StateFolder
from coatcheck.errors import ConfigurationError
from coatcheck.stores.url import store_from_url

from .conftest import command_environment


def test_demos_that_start_at_once_agree_on_one_key(tmp_path: Path) -> None:
    program = (
        "from pathlib import Path; from coatcheck.demo.state_folder import StateFolder; "
        "print(StateFolder(Path()).secret_key())"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program], cwd=tmp_path, env=command_environment(), stdout=subprocess.PIPE, text=True
        )
        for _ in range(8)
    ]
    keys = {process.communicate()[0].strip() for process in processes}
    assert len(keys) == 1
    assert keys == {(tmp_path / ".coatcheck" / "secret").read_text().strip()}


def test_key_stays_the_same_and_loose_permissions_are_tightened(tmp_path: Path) -> None:
    key = StateFolder(tmp_path).secret_key()
    folder = tmp_path / ".coatcheck"
    folder.chmod(0o755)
    (folder / "secret").chmod(0o644)
    assert StateFolder(tmp_path).secret_key() == key
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / "secret").stat().st_mode & 0o777 == 0o600


def test_link_to_another_folder_is_refused_and_the_folder_left_as_it_is(tmp_path: Path) -> None:
    other = tmp_path / "public"
    other.mkdir()
    other.chmod(0o755)
    here = tmp_path / "cloned"
    here.mkdir()
    (here / ".coatcheck").symlink_to(other)
    for use in (StateFolder.secret_key, StateFolder.sqlite_url):
        with pytest.raises(ConfigurationError, match="symbolic link"):
            use(StateFolder(here))
    assert other.stat().st_mode & 0o777 == 0o755
    assert list(other.iterdir()) == []


def test_link_to_another_file_is_no_key_and_the_file_left_as_it_is(tmp_path: Path) -> None:
    other = tmp_path / "page"
    other.write_text("known to everybody, and longer than a key has to be")
    other.chmod(0o644)
    folder = tmp_path / ".coatcheck"
    folder.mkdir()
    (folder / "secret").symlink_to(other)
    with pytest.raises(ConfigurationError, match="symbolic link"):
        StateFolder(tmp_path).secret_key()
    assert other.stat().st_mode & 0o777 == 0o644


def test_unfinished_file_of_a_process_that_died_is_in_nobodys_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / ".coatcheck"
    folder.mkdir()
    (folder / "secret.4711").write_text("half a k")
    monkeypatch.setattr("os.getpid", lambda: 4711)
    assert len(StateFolder(tmp_path).secret_key()) == 43


def test_folder_with_an_odd_name_has_a_url_that_leads_to_it(tmp_path: Path) -> None:
    odd = tmp_path / "50% off? #1"
    odd.mkdir()
    url = StateFolder(odd).sqlite_url()
    store_from_url(url, lambda: 0.0)
    assert url.startswith("sqlite:////")
    assert "?" not in url
    assert "#" not in url
