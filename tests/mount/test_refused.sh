#!/usr/bin/env bash
# test_refused.sh - a line that came in several writes and was refused: however a program goes on, nothing of it is
# stored, and what is new is (design, section 2).
# shellcheck source=tests/mount/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
export PYTHONDONTWRITEBYTECODE=1

py() { python3 "$T_HERE/refused_cases.py" "$1" "$MNT"; }

t_mount
t_test "tried again, however often and from wherever" py tried_again
t_test "given up: the next line is served" py given_up_at_once
t_test "parts that are left at the last close" py parts_left_at_close
t_test "lines in small parts" py small_pieces
t_test "a writev of more segments than one request holds" py segments
t_test "a bad line among good ones" py good_lines_around
t_test "programs as they are" py programs
t_unmount
