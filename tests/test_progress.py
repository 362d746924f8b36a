"""Progress in log files: plain lines, few of them, the last one always."""

from pbt_workflow import progress


def test_log_files_get_plain_lines(capsys, monkeypatch):
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 1000)
    with progress.progress("replies", 30) as advance:
        for _ in range(3):
            advance(10)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("30/30 replies in ")
