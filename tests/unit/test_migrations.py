"""The migrations lead to one head, and the code knows it without asking alembic."""

from alembic.config import Config
from alembic.script import ScriptDirectory

from cronrunner.ledger.schema import HEAD


def scripts() -> ScriptDirectory:
    config = Config()
    config.set_main_option("script_location", "cronrunner:ledger/migrations")
    config.set_main_option("path_separator", "os")
    return ScriptDirectory.from_config(config)


def test_the_head_is_the_newest_migration() -> None:
    assert scripts().get_heads() == [HEAD]


def test_the_migrations_are_one_line_from_the_first_to_the_head() -> None:
    line = [each.revision for each in scripts().walk_revisions()]

    assert line == sorted(line, reverse=True)
    assert line[-1] == "0001"
