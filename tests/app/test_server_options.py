"""What the servers are started with: an option that comes back is slow, and nothing else would say so."""

from pathlib import Path

import pytest
from streamlit import config

from lsf.app.classroom.__main__ import options

GARBAGE = "runner.postScriptGC"
"""Collects all garbage after every run of a script: while torch was imported, the tour took two minutes longer."""


def test_no_server_collects_garbage_after_every_run_of_a_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parents[2])  # where README says to start the app
    try:
        found = config.get_config_options(force_reparse=True)
        assert found[GARBAGE].where_defined.endswith("config.toml")
        assert found[GARBAGE].value is False
    finally:
        monkeypatch.undo()
        config.get_config_options(force_reparse=True)
    assert options("127.0.0.1", 8520, ["localhost"])[GARBAGE] is False
