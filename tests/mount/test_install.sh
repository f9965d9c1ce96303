#!/usr/bin/env bash
# test_install.sh - `make install`, and mount(8) with what it installs: mount -t hotlogfs, fstab, umount.
#
# mount(8) looks for mount.hotlogfs in /sbin only. So all of this runs in a mount namespace of its own, where
# /sbin is a directory of links to the files that are there, and mount.hotlogfs.
if [ -z "${IN_NAMESPACE:-}" ]; then
    exec env IN_NAMESPACE=1 "$(dirname "$0")/apart" bash "$0" "$@"
fi
# shellcheck source=tests/mount/lib.sh
. "$(dirname "$0")/lib.sh"

STAGE="$T_DIR/a stage"
PROGRAM=$HOTLOGFS

# make_install [VARIABLE=VALUE…] TARGET: with the program as it was built, whatever it was built with.
make_install()
{
    mkdir -p "$T_DIR/build"
    cp "$PROGRAM" "$T_DIR/build/hotlogfs"
    env -u MAKEFLAGS -u MAKELEVEL make -s --no-print-directory -C "$T_ROOT" -o all BUILD="$T_DIR/build" "$@"
}

# ---- make install -------------------------------------------------------------------------------

files_below() { (cd "$1" && find . ! -type d | sort); }

installs_all()
{
    local file
    make_install DESTDIR="$STAGE" install
    files_below "$STAGE" >"$T_DIR/installed"
    for file in usr/local/bin/hotlogfs sbin/mount.hotlogfs \
        usr/local/share/bash-completion/completions/{hotlogfs,mount.hotlogfs} \
        usr/local/lib/systemd/{system,user}/hotlogfs@.service \
        usr/local/share/doc/hotlogfs/{README.md,CHANGELOG.md,watching.md,examples/example.conf} \
        usr/local/share/man/man1/hotlogfs.1 usr/local/share/man/man8/mount.hotlogfs.8 \
        usr/local/share/hotlogfs/import-{opslog,append-log,transcript} \
        usr/local/share/man/man5/hotlogfs-{ctl,format}.5; do
        grep -qxF "./$file" "$T_DIR/installed" || t_fail "$file is not installed"
    done
    t_eq "$(stat -c %a "$STAGE/usr/local/bin/hotlogfs")" 755 "mode of the program"
    t_eq "$(stat -c %a "$STAGE/usr/local/share/man/man1/hotlogfs.1")" 644 "mode of a page"
    t_eq "$(readlink "$STAGE/sbin/mount.hotlogfs")" /usr/local/bin/hotlogfs "what mount.hotlogfs is"
    t_match "$(cat "$STAGE/usr/local/lib/systemd/system/hotlogfs@.service")" \
        'ExecStart=/usr/local/bin/hotlogfs -f'
    ! grep -rl '@[A-Z]*@' "$STAGE/usr/local/lib" || t_fail "a place was not filled in"
    # They find what they share where they are installed, and leave nothing there.
    t_match "$("$STAGE/usr/local/share/hotlogfs/import-append-log" - <<<'{"op":"SET","id":"k","data":1}')" '"op": ?"set"'
    t_eq "$(files_below "$STAGE")" "$(cat "$T_DIR/installed")" "files after a script ran"
}
t_test "make install puts every file where it belongs, below DESTDIR" installs_all

one_version()
{
    local version
    version=$(sed -n 's/^#define HL_VERSION "\(.*\)".*/\1/p' "$T_ROOT/store/store.h")
    t_match "$version" '^[0-9]+\.[0-9]+\.[0-9]+$' "HL_VERSION"
    t_eq "$("$STAGE/usr/local/bin/hotlogfs" --version)" "hotlogfs $version" "--version"
}
t_test "--version is that of the header" one_version

uninstalls_all()
{
    touch "$STAGE/usr/local/bin/other"
    make_install DESTDIR="$STAGE" uninstall
    t_eq "$(files_below "$STAGE")" ./usr/local/bin/other "what is left"
    t_absent "$STAGE/usr/local/share/doc/hotlogfs"
    t_absent "$STAGE/usr/local/share/hotlogfs"
    make_install DESTDIR="$STAGE" uninstall
}
t_test "make uninstall removes what was installed, and nothing else" uninstalls_all

admin_programs()
{
    # A program that the build made is installed with its page; one that it did not make is not.
    mkdir -p "$T_DIR/build"
    printf '#!/bin/sh\n' >"$T_DIR/build/fsck.hotlogfs"
    make_install DESTDIR="$STAGE" install
    t_eq "$(stat -c %a "$STAGE/usr/local/sbin/fsck.hotlogfs")" 755 "mode"
    [ -e "$STAGE/usr/local/share/man/man8/fsck.hotlogfs.8" ] || t_fail "fsck.hotlogfs.8 is not installed"
    rm "$T_DIR/build/fsck.hotlogfs"
    make_install DESTDIR="$STAGE" uninstall
    t_absent "$STAGE/usr/local/sbin/fsck.hotlogfs"
    t_absent "$STAGE/usr/local/share/man/man8/fsck.hotlogfs.8"
    make_install DESTDIR="$STAGE" install
    t_absent "$STAGE/usr/local/sbin/fsck.hotlogfs"
    t_absent "$STAGE/usr/local/share/man/man8/fsck.hotlogfs.8"
}
t_test "programs for administrators come and go with their pages" admin_programs

# ---- mount(8) -----------------------------------------------------------------------------------

# Installs for this namespace: the program below $T_DIR, and mount.hotlogfs in /sbin.
sbin=$(realpath /sbin)
mkdir "$T_DIR/sbin" "$T_DIR/sbin.old"
mount --bind "$sbin" "$T_DIR/sbin.old"
t_defer umount -l "$T_DIR/sbin.old"
for file in "$T_DIR/sbin.old"/*; do
    ln -s "$file" "$T_DIR/sbin/"
done
make_install PREFIX="$T_DIR/usr" install HELPERDIR="$T_DIR/sbin"
mount --bind "$T_DIR/sbin" "$sbin"
t_defer umount -l "$sbin"
HOTLOGFS=/sbin/mount.hotlogfs

store_count=0
fresh()
{
    store_count=$((store_count + 1))
    t_use "${FUNCNAME[1]}-$store_count"
    t_defer t_abandon "$T_HOME" "$MNT"
}

not_mounted() { ! t_is_mounted || t_fail "$MNT is mounted"; }
flags() { findmnt -n -o OPTIONS "$MNT"; }

# Mounted once, answering; remembers its daemon.
mounted()
{
    t_is_live || t_fail "$MNT is not mounted"
    t_eq "$(findmnt -n "$MNT" | wc -l)" 1 "mounts on top of each other"
    touch "$T_HOME/background"
    t_daemon_of_mount >"$T_HOME/pid" || t_fail "no daemon to be found for $MNT"
    t_load
}

try_umount()
{
    local said
    said=$(umount "$MNT" 2>&1) && return 0
    [[ $said == *busy* ]] || t_fail "umount: $said"
    return 1
}

unmounted()
{
    t_wait try_umount
    t_wait_end
    not_mounted
}

# refused STATUS REGEX COMMAND…: it ends with that status and sentence.
refused()
{
    local status=$1 pattern=$2
    shift 2
    t_run "$@"
    t_eq "$T_STATUS" "$status" "exit status of $* ($T_OUT)"
    t_match "$T_OUT" "$pattern" "what $* says"
}

mounts()
{
    fresh
    t_run mount -t hotlogfs "$DIR" "$MNT"
    t_eq "$T_STATUS:$T_OUT" 0: "mount"
    mounted
    t_eq "$(findmnt -n -o SOURCE,FSTYPE "$MNT" | tr -s ' ')" "$DIR fuse.hotlogfs" "table of mounts"
    t_match "$(flags)" '^rw,nosuid,nodev'
    mkdir "$MNT/sessions/s"
    echo hi >"$MNT/sessions/s/append"
    t_match "$(cat "$MNT/sessions/s/1")" '"payload":"hi"'
    unmounted
    flock -n "$DIR/lock" true || t_fail "the store is still locked"
    mount -t hotlogfs "$DIR" "$MNT"
    mounted
    t_match "$(cat "$MNT/sessions/s/1")" '"payload":"hi"'
    unmounted
}
t_test "mount -t hotlogfs and umount" mounts

all_options()
{
    fresh
    mount -n -v -t hotlogfs -o auto,noauto,defaults,nofail,_netdev,user,users,owner,group,lazytime,relatime,iversion \
        -o nodiratime,silent,nosymfollow,noexec,noatime,x-systemd.automount,X-mount.mkdir,comment=c,rw \
        -o sync_interval=3s,announce_max=7 "$DIR" "$MNT" >"$T_HOME/said" 2>&1
    mounted
    t_match "$(cat "$T_HOME/said")" "mounted: $DIR on $MNT" "what -v says"
    t_match "$(flags)" '^rw,nosuid,nodev,noexec,noatime'
    unmounted
    # Without "user" mount(8) keeps these two to itself, as what would be so anyway.
    mount -t hotlogfs -o user,dev,suid,exec,atime "$DIR" "$MNT"
    mounted
    [[ ! $(flags) =~ nodev|nosuid|noexec|noatime ]] || t_fail "flags: $(flags)"
    unmounted
}
t_test "options of mount(8) are forwarded to the kernel, or dropped" all_options

read_only()
{
    fresh
    refused 32 "no store|does not exist|No such file|not a store" mount -t hotlogfs -o ro "$DIR" "$MNT"
    not_mounted
    mount -t hotlogfs "$DIR" "$MNT"
    mounted
    mkdir "$MNT/sessions/s"
    unmounted
    local option
    for option in -r -oro; do
        mount -t hotlogfs "$option" "$DIR" "$MNT"
        mounted
        t_errno EROFS write "$MNT/sessions/s/append" x
        t_errno EROFS mkdir "$MNT/sessions/t"
        unmounted
    done
}
t_test "-o ro and -r" read_only

refuses_by_name()
{
    fresh
    refused 1 'unknown option "wibble"' mount -t hotlogfs -o wibble "$DIR" "$MNT"
    refused 1 'sync_interval.*"soon"' mount -t hotlogfs -o sync_interval=soon "$DIR" "$MNT"
    refused 1 'sync_interval.*"soon"' mount -s -t hotlogfs -o sync_interval=soon "$DIR" "$MNT"
    refused 1 'unknown option "-z"' /sbin/mount.hotlogfs -z "$DIR" "$MNT"
    refused 1 '-N needs an argument' /sbin/mount.hotlogfs "$DIR" "$MNT" -N
    t_absent "$DIR"
    not_mounted
    t_run mount -s -v -t hotlogfs -o wibble,noexec "$DIR" "$MNT"
    t_eq "$T_STATUS" 0 "mount -s"
    t_match "$T_OUT" 'passed over: unknown option "wibble"'
    mounted
    t_match "$(flags)" noexec
    unmounted
    # The flags may come in one word, and after the options.
    /sbin/mount.hotlogfs "$DIR" "$MNT" -o wibble -sn -t hotlogfs
    mounted
    unmounted
}
t_test "unknown options are refused by name, or passed over with -s" refuses_by_name

fake()
{
    fresh
    t_run mount -f -v -t hotlogfs -o noexec "$DIR" "$MNT"
    t_eq "$T_STATUS" 0 "mount -f: $T_OUT"
    not_mounted
    t_absent "$DIR"
    refused 1 'unknown option "wibble"' mount -f -t hotlogfs -o wibble "$DIR" "$MNT"
    refused 32 'No such file' mount -f -t hotlogfs "$T_HOME/no/where" "$MNT"
}
t_test "mount -f checks, and mounts nothing" fake

remount()
{
    fresh
    mount -t hotlogfs "$DIR" "$MNT"
    mounted
    refused 32 'cannot be remounted: unmount it' mount -o remount,ro "$MNT" -t hotlogfs
    mkdir "$MNT/sessions/s"
    echo hi >"$MNT/sessions/s/append"
    refused 32 "in use by process $DAEMON_PID" mount -t hotlogfs "$DIR" "$MNT"
    t_alive "$DAEMON_PID"
    unmounted
}
t_test "remount, and mounting twice, are refused and change nothing" remount

takes_over()
{
    fresh
    mount -t hotlogfs "$DIR" "$MNT"
    mounted
    kill -9 "$DAEMON_PID"
    t_wait t_gone "$DAEMON_PID"
    mount -t hotlogfs "$DIR" "$MNT"
    mounted
    unmounted
}
t_test "a dead mount is taken over" takes_over

other_namespace()
{
    fresh
    unshare -m --propagation private sleep 1000 &
    local holder=$!
    t_defer kill "$holder"
    t_wait in_other_namespace "$holder"
    mount -N "$holder" -t hotlogfs "$DIR" "$MNT"
    not_mounted
    t_daemon_by_lock
    nsenter -t "$holder" -m findmnt -n -o SOURCE "$MNT" | grep -qxF "$DIR" || t_fail "not mounted there"
    nsenter -t "$holder" -m umount "$MNT"
    t_wait t_gone "$(cat "$T_HOME/pid")"
    # Whoever goes into a namespace leaves the working directory behind.
    refused 1 'must be full paths' mount -N "$holder" -t hotlogfs dir mnt
    refused 32 'mount namespace' /sbin/mount.hotlogfs "$DIR" "$MNT" -N "$T_HOME/nothing"
    kill "$holder"
}
in_other_namespace() { [ "$(readlink "/proc/$1/ns/mnt")" != "$(readlink /proc/self/ns/mnt)" ]; }
t_daemon_by_lock() { cut -d' ' -f1 "$DIR/lock" >"$T_HOME/pid"; }
t_test "mount -N mounts in another namespace" other_namespace

# As for file systems that have no helper: by way of mount.fuse3, which finds hotlogfs in the directories where a
# shell without PATH looks.
by_mount_fuse()
{
    fresh
    ln -s "$T_DIR/usr/bin/hotlogfs" /sbin/hotlogfs
    mount -t fuse.hotlogfs -o nofail,noexec "$DIR" "$MNT"
    HOTLOGFS=hotlogfs
    mounted
    t_match "$(flags)" noexec
    unmounted
}
t_test "mount -t fuse.hotlogfs" by_mount_fuse

# ---- fstab --------------------------------------------------------------------------------------

# fstab LINE…: writes $T_HOME/fstab
fstab() { printf '%s\n' "$@" >"$T_HOME/fstab"; }

mount_all()
{
    fresh
    mkdir "$T_HOME/a store" "$T_HOME/links"
    ln -s "$T_HOME/a store" "$T_HOME/links/store"
    ln -s "$MNT" "$T_HOME/links/mnt"
    DIR="$T_HOME/a store"
    fstab "${T_HOME}/a\\040store $MNT hotlogfs defaults,nofail,_netdev,noexec,x-systemd.automount,sync_interval=2s 0 0"
    mount -a -T "$T_HOME/fstab"
    mounted
    t_match "$(flags)" noexec
    # Root's environment reaches the daemon; nothing of fstab's words is lost on the way.
    t_match "$(tr '\0' ' ' <"/proc/$DAEMON_PID/cmdline")" 'sync_interval=2s'
    t_run mount -a -v -T "$T_HOME/fstab"
    t_eq "$T_STATUS" 0 "the second mount -a: $T_OUT"
    t_match "$T_OUT" 'already mounted'
    mounted
    unmounted
    # By links, and by the mountpoint alone.
    fstab "$T_HOME/links/store $T_HOME/links/mnt hotlogfs noauto 0 0"
    mount -a -T "$T_HOME/fstab"
    not_mounted
    mount -T "$T_HOME/fstab" "$MNT"
    MNT=$(realpath "$MNT") mounted_by_link
    fstab "$T_HOME/links/store $T_HOME/links/mnt hotlogfs defaults 0 0"
    mount -a -T "$T_HOME/fstab"
    MNT=$(realpath "$MNT") mounted_by_link
    unmounted
}
# mount gives the helper the paths of fstab made canonical.
mounted_by_link() { mounted; }
t_test "mount -a, twice, mounts once" mount_all

missing_place()
{
    fresh
    fstab "$T_HOME/not/plugged-in $MNT hotlogfs nofail 0 0"
    t_run mount -a -T "$T_HOME/fstab"
    t_eq "$T_STATUS:$T_OUT" 0: "nofail"
    not_mounted
    t_absent "$T_HOME/not"
    fstab "$T_HOME/not/plugged-in $MNT hotlogfs defaults 0 0"
    refused 32 'No such file' mount -a -T "$T_HOME/fstab"
    # It is about the place of the store, and hides nothing else.
    mkdir "$DIR"
    fstab "$DIR $MNT hotlogfs nofail,wibble 0 0"
    refused 1 wibble mount -T "$T_HOME/fstab" "$MNT"
    not_mounted
}
t_test "nofail: a place that is not there is no error" missing_place

verify_fstab()
{
    fresh
    mkdir "$DIR"
    fstab "$DIR $MNT hotlogfs nofail,allow_other 0 0"
    t_run findmnt --verify -F "$T_HOME/fstab"
    t_match "$T_OUT" '0 parse errors, 0 errors'
}
t_test "findmnt --verify finds no error in such a line" verify_fstab

# /dev/fuse may be closed to users here, and is not on most systems.
plain_user()
{
    fresh
    local as=(setpriv --reuid=65534 --regid=65534 --clear-groups)
    fstab "$DIR $MNT hotlogfs user,noauto 0 0"
    mount --bind "$T_HOME/fstab" /etc/fstab
    t_defer umount -l /etc/fstab
    mknod -m 666 "$T_DIR/fuse" c 10 229
    mount --bind "$T_DIR/fuse" /dev/fuse
    t_defer umount -l /dev/fuse
    export ASAN_OPTIONS=exitcode=99 TSAN_OPTIONS=exitcode=99
    chmod 755 "$T_DIR/usr" "$T_DIR/usr/bin" "$T_DIR/sbin"
    chown 65534:65534 "$T_HOME" "$MNT"
    "${as[@]}" mount "$MNT"
    touch "$T_HOME/background"
    t_daemon_of_mount >"$T_HOME/pid"
    t_eq "$(stat -c %u "/proc/$(cat "$T_HOME/pid")")" 65534 "whom the daemon runs as"
    t_match "$(flags)" 'nosuid,nodev,noexec.*user_id=65534'
    t_eq "$("${as[@]}" "$T_HERE/try.py" stat "$MNT/append")" OK "stat by the user"
    "${as[@]}" umount "$MNT"
    t_wait_end
    not_mounted
}
chmod 711 "$T_DIR"
t_test "a plain user mounts and unmounts what fstab marks with user" plain_user

# ---- hotlogfs --clear ---------------------------------------------------------------------------

clears()
{
    fresh
    HOTLOGFS=$T_DIR/usr/bin/hotlogfs
    "$HOTLOGFS" --clear "$DIR" "$MNT"
    "$HOTLOGFS" --clear "$DIR" "$T_HOME/nowhere"
    t_absent "$DIR"
    t_mount
    "$HOTLOGFS" --clear "$DIR" "$MNT"
    "$HOTLOGFS" --clear "$T_HOME/other" "$MNT"
    t_is_live || t_fail "a live mount was taken away"
    t_kill9
    t_is_mounted || t_fail "no dead mount to clear"
    refused 1 'dead mount of another store' "$HOTLOGFS" --clear "$T_HOME/other" "$MNT"
    t_is_mounted || t_fail "the dead mount of another store was taken away"
    "$HOTLOGFS" --clear "$DIR" "$MNT"
    not_mounted
    refused 1 'MOUNTPOINT is missing' "$HOTLOGFS" --clear "$DIR"
}
t_test "--clear takes away a dead mount of the store, and nothing else" clears
