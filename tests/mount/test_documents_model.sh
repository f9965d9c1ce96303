#!/usr/bin/env bash
# Random steps on documents, through files, `append` and .ctl, held against a model in memory, with remounts, kill -9,
# lost indexes, rebuilds and checkpoints between. STEPS says how many (10000), SEED which.
. "$(dirname "$0")/lib.sh"

STEPS=${STEPS:-10000}
SEED=${SEED:-$RANDOM$RANDOM}
ROUND=250
t_note "SEED=$SEED STEPS=$STEPS"
RANDOM=$SEED
MODEL=$T_DIR/model

model() { python3 "$T_HERE/documents_model.py" "$@"; }
command() { echo "$1" >"$MNT/.ctl"; }

lose_index()
{
    rm -rf "$DIR/index"
    [ "$1" = index ] || rm -rf "$DIR/checkpoints"
}

# What happens between two rounds; the model must not notice.
between()
{
    case $1 in
    0) t_unmount && t_mount ;;
    1) t_kill9 && t_mount ;;
    2) t_unmount && lose_index index && t_mount ;;
    3) t_kill9 && lose_index all && t_mount ;;
    4) command reindex ;;
    5) command checkpoint ;;
    6) command rotate ;;
    *) t_kill9 && lose_index index && t_mount ;;
    esac
}

round()
{
    model steps "$MNT" "$MODEL" "$1" "$2"
}

check() { model check "$MNT" "$MODEL" "$1"; }

t_mount -o segment_size=1M
for ((done = 0, number = 0; done < STEPS; done += ROUND, number++)); do
    t_test "steps $done and on" round "$((STEPS - done < ROUND ? STEPS - done : ROUND))" "$((SEED + number))"
    [ "$T_FAILED" = 0 ] || break # the model and the mount have parted
    what=$((RANDOM % 8))
    between "$what"
    t_test "as it was after event $what" check "$((SEED + number))"
    [ "$T_FAILED" = 0 ] || break
done
t_test "unmounts cleanly" t_unmount
