"""Cases of test_real_input.sh: every line of tests/data comes back. Arguments: MOUNT INPUT."""
import json
import os

import hl
from hl import case, check_line, log_of, read


def by_session(lines):
    sessions = {}
    for line in lines:
        sessions.setdefault(json.loads(line)["session_id"], []).append(line)
    return sessions


@case
def check_all(mount, path):
    """By record, by range, by session log and, in order of arrival, by root log."""
    lines = hl.lines_of(read(path))
    sessions = by_session(lines)
    assert set(os.listdir(f"{mount}/sessions")) == set(sessions)
    rng = hl.seeded()
    logs = {}
    for session, own in sessions.items():
        s = f"{mount}/sessions/{session}"
        log = logs[session] = log_of(s)
        hl.check_log(log, own, session)
        records = log.splitlines(keepends=True)
        for seq, record in enumerate(records, 1):
            assert read(f"{s}/{seq}") == record, (session, seq)
            assert os.stat(f"{s}/{seq}").st_mtime_ns == json.loads(record)["ts_ms"] * 1000000
        assert read(f"{s}/1-{len(own)}") == log and read(f"{s}/1-") == log
        for _ in range(60):
            a = rng.randrange(1, len(own) + 1)
            b = rng.randrange(a, len(own) + 1)
            assert read(f"{s}/{a}-{b}") == b"".join(records[a - 1:b]), (session, a, b)
            assert read(f"{s}/{b}-") == b"".join(records[b - 1:])
        assert not os.path.exists(f"{s}/{len(own) + 1}")
    if os.path.exists(f"{path}.separate"):  # each session on its own: the order between them is another
        assert sorted(read(f"{mount}/log").split(b"\n")) == sorted(b"".join(logs.values()).split(b"\n"))
        return
    count = dict.fromkeys(sessions, 0)
    stored = read(f"{mount}/log").splitlines(keepends=True)
    assert len(stored) == len(lines) and os.stat(f"{mount}/log").st_size == sum(map(len, stored))
    for line, record in zip(lines, stored):
        session = json.loads(line)["session_id"]
        count[session] += 1
        check_line(record, line, session, count[session])


if __name__ == "__main__":
    hl.main()
