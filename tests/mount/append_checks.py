"""What the cases of test_append.sh look at: the stored lines, and what a refusal must leave."""
import errno
import json
import os

from hl import appender, fails, last_error, log_of


def stored(session):
    return log_of(session).decode().splitlines()


def told(session, code, line, *words):
    """last_error must have the errno, the line and a reason with these words."""
    said = json.loads(last_error(session))
    assert said["errno"] == errno.errorcode[code] and said["line"] == line, said
    for word in words:
        assert word in said["reason"], f"{said}, without {word!r}"
    assert said["reason"]


def refused(session, data, code, line, *words):
    """One write() of data must be refused with errno code, leave the log as it is and say why."""
    before = log_of(session)
    fd = appender(session)
    try:
        with fails(code):
            os.write(fd, data)
    finally:
        os.close(fd)
    assert log_of(session) == before, f"{data[:80]}: refused, yet the log changed"
    told(session, code, line, *words)
