"""What a run notices reaches the user, whatever libraries are told to keep to themselves."""

import io

from absl import logging

from experiments import main
from experiments.comparison import run
from experiments.configs import readiness as configs
from experiments.core.errors import UserError
from experiments.core.notices import LOG, shown


def test_a_warning_is_shown_once_and_what_is_less_is_not():
    stream = io.StringIO()
    with shown(stream):
        for count in (1, 2, 2, 1):
            LOG.warning("%d questions are not asked", count)
        LOG.info("decoding")
    assert stream.getvalue() == "warning: 1 questions are not asked\nwarning: 2 questions are not asked\n"
    LOG.warning("nobody is shown this")
    assert "nobody" not in stream.getvalue()


def test_without_a_screen_warnings_go_where_others_do(caplog):
    with shown(io.StringIO()):
        LOG.warning("to the screen")
    LOG.warning("to the log")
    assert caplog.messages == ["to the log"]


def test_the_command_line_silences_libraries_and_not_the_project(monkeypatch, tmp_path, capsys):
    def warning(*_):
        logging.warning("of a library")
        LOG.warning("of %s", "the run")
        raise UserError("set this")

    before = logging.get_verbosity()
    monkeypatch.setattr(run, "run", warning)
    assert main.execute(configs.get_config("digits"), str(tmp_path), "command") == 2
    logging.set_verbosity(before)
    assert capsys.readouterr().err == "warning: of the run\nerror: set this\n"
