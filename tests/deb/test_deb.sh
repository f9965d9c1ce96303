#!/usr/bin/env bash
# test_deb.sh - the Debian package that `make deb` made: lintian, its contents, and a machine that it is installed
# on. The machine is this one, seen through an overlay that is thrown away: dpkg runs there in a chroot, and then
# systemd boots there in a container.
if [ -z "${IN_NAMESPACE:-}" ]; then
    exec env IN_NAMESPACE=1 "$(dirname "$0")/../mount/apart" bash "$0" "$@"
fi
here=$(cd "$(dirname "$0")" && pwd)
PACKAGE=$(ls "${BUILD:-$here/../../build}"/deb/hotlogfs_*.deb)
# The harness asks for a program; it is that of the package here.
unpacked=$(mktemp -d "${TMPDIR:-/tmp}/hotlogfs-unpacked.XXXXXXXX")
dpkg-deb -x "$PACKAGE" "$unpacked"
HOTLOGFS=$unpacked/usr/bin/hotlogfs
# shellcheck source=tests/mount/lib.sh
. "$here/../mount/lib.sh"
t_defer rm -rf "$unpacked"

lintian_clean()
{
    t_run env TMPDIR="$T_DIR" lintian --allow-root --display-info --tag-display-limit 0 "${PACKAGE%.deb}.changes"
    t_eq "$T_STATUS:$T_OUT" 0: "lintian"
}
t_test "lintian finds nothing" lintian_clean

one_version()
{
    local version
    version=$(sed -n 's/^#define HL_VERSION "\(.*\)".*/\1/p' "$T_ROOT/store/store.h")
    t_eq "$(dpkg-deb -f "$PACKAGE" Version)" "$version" "version of the package"
    t_eq "$("$HOTLOGFS" --version)" "hotlogfs $version" "--version"
}
t_test "it has the version of the program" one_version

contents()
{
    local file page
    cd "$unpacked"
    for file in usr/share/bash-completion/completions/{hotlogfs,mount.hotlogfs} \
        usr/lib/systemd/{system,user}/hotlogfs@.service etc/hotlogfs \
        usr/share/hotlogfs/import-{opslog,append-log,transcript} \
        usr/share/doc/hotlogfs/{copyright,changelog.gz,CHANGELOG.md.gz,README.md.gz,examples/example.conf}; do
        [ -e "$file" ] || [ -e "${file%.gz}" ] || t_fail "$file is not in the package"
    done
    for page in "$T_ROOT"/man/*.[1-8]; do
        page=${page##*/}
        # A page of a program that is not built is not installed.
        [ "$page" != fsck.hotlogfs.8 ] || [ -e usr/sbin/fsck.hotlogfs ] || continue
        [ -e "usr/share/man/man${page##*.}/$page.gz" ] || t_fail "$page is not in the package"
    done
    t_eq "$(readlink usr/sbin/mount.hotlogfs)" ../bin/hotlogfs "mount.hotlogfs"
    grep -q '^ExecStart=/usr/bin/hotlogfs ' usr/lib/systemd/system/hotlogfs@.service
}
t_test "it has what it should have" contents

runs()
{
    t_mount -b
    mkdir "$MNT/sessions/s"
    echo hi >"$MNT/sessions/s/append"
    t_match "$(cat "$MNT/sessions/s/1")" '"hi"'
    t_unmount
}
t_test "its program mounts a store" runs

# ---- a machine ----------------------------------------------------------------------------------

# This machine's file system below, and what is written to it in memory.
MACHINE=$T_DIR/machine
mkdir "$T_DIR/upper" "$MACHINE"
mount -t tmpfs none "$T_DIR/upper"
t_defer umount -l "$T_DIR/upper"
mkdir "$T_DIR/upper/changed" "$T_DIR/upper/work"
mount -t overlay overlay -o "lowerdir=/,upperdir=$T_DIR/upper/changed,workdir=$T_DIR/upper/work" "$MACHINE"
t_defer umount -R -l "$MACHINE"
cp "$PACKAGE" "$MACHINE/package.deb"

# In the machine without systemd, its /dev and /proc being ours.
inside() { chroot "$MACHINE" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin "$@"; }
in_machine()
{
    mount --rbind /dev "$MACHINE/dev"
    mount -t proc proc "$MACHINE/proc"
    "$@"
    umount "$MACHINE/proc"
    umount -R -l "$MACHINE/dev"
}

installs()
{
    in_machine inside dpkg --force-unsafe-io -i /package.deb
    t_eq "$(inside dpkg-query -W -f '${db:Status-Status}' hotlogfs)" installed "status"
}
t_test "dpkg installs it" installs

mounts_by_fstab()
{
    echo '/var/lib/store /mnt hotlogfs nofail,noexec 0 0' >>"$MACHINE/etc/fstab"
    mkdir -p "$MACHINE/mnt"
    inside mount /mnt
    [ "$(inside findmnt -n -o FSTYPE /mnt)" = fuse.hotlogfs ] || t_fail "not mounted"
    mkdir "$MACHINE/mnt/sessions/s"
    echo hi >"$MACHINE/mnt/sessions/s/append"
    t_match "$(cat "$MACHINE/mnt/sessions/s/1")" '"hi"'
    t_wait t_umount_inside
    inside man -w hotlogfs mount.hotlogfs hotlogfs-ctl
}
t_umount_inside() { inside umount /mnt; }
t_test "mount and fstab find it" in_machine mounts_by_fstab

# What the script below does runs as a unit of the machine's systemd; each line it prints is looked at.
under_systemd()
{
    local units=$MACHINE/etc/systemd/system
    mkdir -p "$MACHINE/etc/hotlogfs"
    printf 'DIR=/var/lib/hotlogfs/main\nMOUNTPOINT="/run/a log/main"\nOPTIONS=allow_other\n' >"$MACHINE/etc/hotlogfs/main.conf"
    cat >"$MACHINE/probe.sh" <<'END'
set -x
m="/run/a log/main"
until_true() { for _ in {1..1800}; do "$@" && return; sleep 0.1; done; echo "in vain: $*"; exit 1; }
systemctl start hotlogfs@main || { journalctl --no-pager -u hotlogfs@main; exit 1; }
set -e
pid=$(systemctl show -p MainPID --value hotlogfs@main)
[ "$(readlink "/proc/$pid/ns/mnt")" = "$(readlink /proc/1/ns/mnt)" ]
mkdir "$m/sessions/s"
# Watchers are told, by a hardened daemon too.
inotifywait -q -t 180 -e create --format 'told of %f' "$m/sessions/s" 2>/watching & watcher=$!
until_true grep -qs inotify "/proc/$watcher/fdinfo/3"
echo one >"$m/sessions/s/append"
wait "$watcher"
# Another user is let in by permission bits, and a session may be given away.
setpriv --reuid=65534 --regid=65534 --clear-groups cat "$m/sessions/s/1"
chmod 700 "$m/sessions/s"
! setpriv --reuid=65534 --regid=65534 --clear-groups cat "$m/sessions/s/1"
chown 65534 "$m/sessions/s"
setpriv --reuid=65534 --regid=65534 --clear-groups cat "$m/sessions/s/1"
# Of a session that is another's and closed watchers are told by two capabilities: one to make names in it, one to set
# the time of its log.
chmod 500 "$m/sessions/s"
inotifywait -q -m -e create,modify --format '%e %f' "$m/sessions/s" >/told 2>/watching & watcher=$!
until_true grep -qs inotify "/proc/$watcher/fdinfo/3"
echo 'of another' >"$m/sessions/s/append"
until_true grep -qx 'CREATE 2' /told
until_true grep -qx 'MODIFY log' /told
kill "$watcher"
chmod 700 "$m/sessions/s"
echo checkpoint >"$m/.ctl"
echo verify >"$m/.ctl"
# A crash: the dead mount goes, and it comes back.
kill -9 "$pid"
restarted() { [ "$(systemctl show -p NRestarts --value hotlogfs@main)" = 1 ] && systemctl -q is-active hotlogfs@main; }
until_true restarted
echo two >"$m/sessions/s/append"
[ "$(wc -l <"$m/sessions/s/log")" = 3 ]
systemctl stop hotlogfs@main
[ "$(systemctl show -p Result --value hotlogfs@main)" = success ]
! mountpoint -q "$m"
# Without its configuration it is refused, not guessed.
! systemctl start hotlogfs@other
# fstab, by systemd.
systemctl start mnt.mount
[ "$(findmnt -n -o FSTYPE /mnt)" = fuse.hotlogfs ]
grep -q '"hi"' /mnt/sessions/s/1
systemctl stop mnt.mount
! mountpoint -q /mnt
# A user's own, under a manager of his own: nobody logs in here, which would start one.
useradd --create-home tester
uid=$(id -u tester)
home=/home/tester
mknod -m 666 /fuse c 10 229
mount --bind /fuse /dev/fuse
as_tester() { setpriv --reuid="$uid" --regid="$uid" --clear-groups env "HOME=$home" "XDG_RUNTIME_DIR=/run/user/$uid" "$@"; }
install -d -o "$uid" -g "$uid" -m 700 "/run/user/$uid"
as_tester mkdir -p "$home/.config/hotlogfs"
printf 'DIR=%s/log\nMOUNTPOINT="%s/a mount"\n' "$home" "$home" | as_tester tee "$home/.config/hotlogfs/own.conf"
systemd-run -q --unit=manager -p User=tester -p Type=notify -p Delegate=yes \
    -p "Environment=HOME=$home XDG_RUNTIME_DIR=/run/user/$uid" /lib/systemd/systemd --user
as_tester systemctl --user start hotlogfs@own || { journalctl --no-pager; exit 1; }
as_tester mkdir "$home/a mount/sessions/s"
as_tester sh -c 'echo mine >"$HOME/a mount/sessions/s/append"'
[ "$(stat -c %U "/proc/$(as_tester systemctl --user show -p MainPID --value hotlogfs@own)")" = tester ]
kill -9 "$(as_tester systemctl --user show -p MainPID --value hotlogfs@own)"
own_restarted()
{
    [ "$(as_tester systemctl --user show -p NRestarts --value hotlogfs@own)" = 1 ] &&
        as_tester systemctl --user -q is-active hotlogfs@own
}
until_true own_restarted
as_tester cat "$home/a mount/sessions/s/1" | grep -q '"mine"'
as_tester systemctl --user stop hotlogfs@own
! mountpoint -q "$home/a mount"
echo "all is well"
END
    cat >"$units/probe.service" <<'END'
[Unit]
After=basic.target
[Service]
Type=oneshot
StandardOutput=file:/probe.out
StandardError=file:/probe.out
ExecStart=/bin/bash /probe.sh
ExecStopPost=/bin/systemctl poweroff --force --force
TimeoutStartSec=800
END
    printf '[Unit]\nRequires=basic.target\nWants=probe.service\nAllowIsolate=yes\n' >"$units/probe.target"
    timeout -k 10 900 systemd-nspawn -q --register=no --keep-unit --private-network --capability=all \
        --bind=/dev/fuse --console=pipe -M "hotlogfs-$$" -D "$MACHINE" --boot -- --unit=probe.target </dev/null || true
    cat "$MACHINE/probe.out"
    t_eq "$(tail -n 1 "$MACHINE/probe.out")" "all is well" "the last line"
    grep -qx 'told of 1' "$MACHINE/probe.out" || t_fail "the watcher was told nothing"
}
t_test "systemd starts it, starts it again after a crash, and stops it, for the system and for a user" under_systemd

goes()
{
    in_machine inside dpkg --purge hotlogfs
    t_eq "$(inside dpkg-query -W -f '${db:Status-Status}' hotlogfs 2>/dev/null || true)" "" "status"
    local left
    left=$(cd "$T_DIR/upper/changed" && find . -type f -name '*hotlogfs*' -o -type l -name '*hotlogfs*' | grep -vE '^./(var/lib/hotlogfs|var/log|run)|multi-user' || true)
    t_eq "$left" "" "what is left"
    # Whose logs are they? Not the package's.
    [ -e "$T_DIR/upper/changed/var/lib/hotlogfs/main/log" ] || t_fail "the log is gone"
}
t_test "dpkg removes it, and leaves the logs" goes
