"""Where a script finds its password, and what becomes of it."""

import os
from pathlib import Path

from sqlalchemy import make_url

from cronrunner.shell import environment
from cronrunner.shell.environment import credentials

URL = make_url("mysql+pymysql://cron:pl4nted@db.internal:3307/agency_acorn")


def test_files_are_ones_own_and_gone_when_the_script_has_ended() -> None:
    with credentials(URL) as said:
        paths = [Path(path) for path in said.values()]
        assert [path.stat().st_mode & 0o777 for path in paths] == [0o600, 0o600]
        assert paths[0].parent.stat().st_mode & 0o777 == 0o700
        assert Path(said["CRONRUNNER_PASSWORD_FILE"]).read_text() == "pl4nted"
    assert not paths[0].parent.exists()


def test_what_a_killed_runner_has_left_goes_with_the_next_script(
    tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(environment, "_MEMORY", str(tmp_path))
    strange = tmp_path / "cronrunner-notes"
    strange.mkdir()
    child = os.fork()
    if not child:
        # Killed in the middle: nothing of what stands behind `with` is done.
        with credentials(URL):
            os._exit(0)
    os.waitpid(child, 0)
    (left,) = set(tmp_path.iterdir()) - {strange}
    assert (left / "password").exists()

    with credentials(URL) as one, credentials(URL) as other:
        kept = {Path(said["CRONRUNNER_PASSWORD_FILE"]).parent for said in (one, other)}
        assert set(tmp_path.iterdir()) == kept | {strange}
