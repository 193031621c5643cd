usage() {
    cat <<END_OF_HELP
usage: $0 [options]
  --boot-only    end after the first command that the guest answers
  --shell        open a shell in the guest instead of running the commands
  --keep         leave the temporary directory with keys, initramfs and logs
  --console F    write the serial console to F instead of ./$name-console.log
  --unchecked    do not compare the SHA-256 of kernel, initramfs and layers
exit status: 0 all passed, 1 a command failed, 2 something needed is missing, 4 the guest did not come up
END_OF_HELP
}

die() { # STATUS TEXT
    printf '%s\n' "$0: $2" >&2
    exit "$1"
}

pause() {
    sleep 0.1 2>/dev/null || sleep 1
}

shown() { # a guest's output, without what would steer the terminal
    head -c 1000000 "$1" | LC_ALL=C tr -d '\000-\010\013-\037\177'
}

check_file() { # SHA256 PATH
    [ -r "$2" ] || die 2 "$2 is gone or not readable: the image cache was cleaned or is on another machine"
    [ -z "$checked" ] || printf '%s  %s\n' "$1" "$2" | sha256sum -c --status - ||
        die 2 "$2 is no longer what the cell booted (its SHA-256 differs)"
}

check_host() {
    for program in "$qemu" ssh ssh-keygen cpio timeout mktemp; do
        command -v "$program" >/dev/null || die 2 "$program is not installed on this host"
    done
    if [ "$accelerator" = kvm ] && [ ! -w /dev/kvm ]; then
        die 2 "/dev/kvm cannot be opened, and the cell ran under KVM"
    fi
}

check_devices() { # what is passed through must have been taken from its driver, and nobody else may hold it
    for address in $lent; do
        driver=$(readlink "/sys/bus/pci/devices/$address/driver") || driver=none
        [ "${driver##*/}" = vfio-pci ] ||
            die 2 "$address is bound to ${driver##*/}: look who uses it, bind it to vfio-pci, and start again"
    done
}

make_seed() {
    mkdir "$work/seed"
    ssh-keygen -q -t ed25519 -N '' -C kdmatrix-guest -f "$work/seed/ssh_host_ed25519_key"
    ssh-keygen -q -t ed25519 -N '' -C kdmatrix-repro -f "$work/client_key"
    printf 'guest %s\n' "$(cat "$work/seed/ssh_host_ed25519_key.pub")" >"$work/known_hosts"
    rm "$work/seed/ssh_host_ed25519_key.pub"
    cp "$work/client_key.pub" "$work/seed/authorized_keys"
    guest_files
    (cd "$work" && find seed | cpio --quiet -o -H newc >seed.cpio) || die 2 "cpio could not write the seed archive"
    cat "$initramfs" "$work/seed.cpio" >"$work/initramfs" || die 2 "$work has no room for the initramfs"
}

exec_in_guest() { # SECONDS [ssh options] root@127.0.0.1 [LINE]; call it in a subshell, which it becomes
    limit=$1
    shift
    # One connection for all commands, where the path of its socket is not too long for the kernel.
    [ ${#work} -gt 80 ] || set -- -o ControlMaster=auto -o ControlPersist=yes -o "ControlPath=$work/ssh" "$@"
    set -- ssh -F none -p "$port" -i "$work/client_key" -o BatchMode=yes -o IdentitiesOnly=yes -o IdentityAgent=none \
        -o UserKnownHostsFile="$work/known_hosts" -o GlobalKnownHostsFile=none -o StrictHostKeyChecking=yes \
        -o HostKeyAlias=guest -o HostKeyAlgorithms=ssh-ed25519 -o ConnectTimeout=10 -o ServerAliveInterval=15 \
        -o ServerAliveCountMax=8 -o LogLevel=ERROR "$@"
    [ "$limit" -eq 0 ] || set -- timeout -k 5 "$limit" "$@"
    exec "$@"
}

launch() { # QEMU's arguments
    if setpriv --pdeathsig KILL true 2>/dev/null; then
        set -- setpriv --pdeathsig KILL "$qemu" "$@" # so that QEMU ends even when this shell is killed
    else
        set -- "$qemu" "$@"
    fi
    "$@" </dev/null >"$work/qemu.log" 2>&1 &
    qemu_pid=$!
}

boot() {
    : >"$console" || die 2 "$console cannot be written: give --console FILE"
    console_option=$(printf '%s' "$console" | sed 's/,/,,/g')
    began=$(date +%s)
    tries=0
    while :; do
        # Below the range that the kernel hands out by itself.
        port=$((20000 + ($$ * 7 + tries * 131) % 12000))
        start_qemu
        wait_for_guest && return
        tries=$((tries + 1))
        [ $tries -lt 10 ] || die 2 "no free port on 127.0.0.1: $(tail -n 1 "$work/qemu.log")"
    done
}

wait_for_guest() {
    while :; do
        if grep -q 'kdmatrix-guest: starting sshd' "$console"; then
            (exec_in_guest 0 root@127.0.0.1 'uname -r') </dev/null >"$work/release" 2>"$work/ssh.log" && return 0
        fi
        if ! kill -0 "$qemu_pid" 2>/dev/null; then
            grep -q 'host forwarding' "$work/qemu.log" && return 1
            tail -n 20 "$work/qemu.log"
            shown "$console" | tail -n 20
            die 4 "the VM ended while it booted; its console is in $console"
        fi
        [ $(($(date +%s) - began)) -lt "$boot_seconds" ] ||
            die 4 "no answer over SSH within $boot_seconds s; the console is in $console"
        pause
    done
}

expect_release() {
    printf '$ uname -r\n'
    shown "$work/release"
    if [ "$(cat "$work/release")" = "$release" ]; then
        printf '[exit status 0]\n'
    else
        die 4 "the guest does not run $release"
    fi
}

guest() { # SECONDS LINE: run, print and return the exit status; 124 is that of a command that took too long
    printf '$ %s\n' "$2"
    since=$(date +%s)
    (exec_in_guest "$1" root@127.0.0.1 "$2") </dev/null >"$work/output" 2>&1 &
    child=$!
    wait "$child"
    result=$?
    child=
    shown "$work/output"
    printf '[exit status %s, %s s]\n' "$result" $(($(date +%s) - since))
    if [ "$result" -eq 255 ] && ! kill -0 "$qemu_pid" 2>/dev/null; then
        shown "$console" | tail -n 40
        die 1 "the VM ended under this command; its console is in $console"
    fi
    return "$result"
}

failed() { # TEXT
    failures=$((failures + 1))
    printf 'FAILED: %s\n' "$1"
}

load_module() { # required|optional SECONDS NAME "NAME PARAMETERS" LOADED-NAME [REFUSAL WITHOUT A DEVICE]
    [ -z "$refused" ] || return 0
    if ! guest "$2" "modinfo -F filename $3"; then
        [ "$1" = optional ] || failed "this kernel has no module $3"
        return
    fi
    grep -q '(builtin)' "$work/output" && return
    if guest "$2" "modprobe -- $4"; then
        if guest "$2" "test -d /sys/module/$5"; then loaded="$5 $loaded"; else failed "load $3"; fi
    elif [ -n "${6-}" ] && grep -E -q -e "$6" "$work/output"; then
        refused=yes
        printf 'refused as expected: there is no device, so nothing after this applies\n'
    else
        failed "load $3"
    fi
}

unload_modules() { # SECONDS
    for module in $loaded; do
        guest "$1" "rmmod $module" || failed "unload $module"
    done
}

step() { # SECONDS EXPRESSION LINE
    [ -z "$refused" ] || return 0
    if ! guest "$1" "$3"; then
        failed "$3"
    elif [ -n "$2" ] && ! grep -E -q -e "$2" "$work/output"; then
        failed "the output of $3 does not match $2"
    fi
}

own_test() { # SECONDS FOLDER LINE: a test of the user's own is a folder of this host and a command in a copy of it
    [ -z "$refused" ] || return 0
    [ -d "$2" ] || die 2 "$2 is not there: it holds a test of this cell"
    tar -C "$2" -ch . >"$work/folder.tar" || die 2 "$2 cannot be read"
    (exec_in_guest 300 root@127.0.0.1 'place=$(mktemp -d) && tar -x -C "$place" && printf %s "$place"') \
        <"$work/folder.tar" >"$work/place" || die 4 "$2 could not be brought to the guest"
    compute "$1" "cd $(cat "$work/place") && $3"
}

compute() { # SECONDS LINE
    [ -z "$refused" ] || return 0
    guest "$1" "$2"
    case $? in
    0 | 77) ;; # 77 is the runner's SKIP
    *) failed "$2" ;;
    esac
}

clean_up() {
    status=$?
    trap '' HUP INT TERM
    trap - EXIT
    if [ -n "$child" ]; then
        kill "$child" 2>/dev/null
    fi
    if [ -n "$qemu_pid" ]; then
        [ ! -S "$work/ssh" ] || (exec_in_guest 5 -O exit root@127.0.0.1) 2>/dev/null
        kill "$qemu_pid" 2>/dev/null
        waited=0
        while kill -0 "$qemu_pid" 2>/dev/null; do
            [ $waited -lt 50 ] || kill -KILL "$qemu_pid" 2>/dev/null
            waited=$((waited + 1))
            pause
        done
    fi
    if [ -n "$work" ]; then
        if [ -n "$keep" ]; then
            printf 'kept: %s\n' "$work"
        else
            rm -rf "$work"
        fi
    fi
    exit "$status"
}

mode=commands keep='' checked=yes console="$PWD/$name-console.log"
work='' qemu_pid='' child='' loaded='' refused='' failures=0
while [ $# -gt 0 ]; do
    case $1 in
    --boot-only) mode=boot ;;
    --shell) mode=shell ;;
    --keep) keep=yes ;;
    --unchecked) checked='' ;;
    --console)
        [ $# -gt 1 ] || die 2 "--console needs a file"
        shift
        console=$1
        ;;
    -h | --help)
        usage
        exit 0
        ;;
    *) die 2 "unknown option $1: see --help" ;;
    esac
    shift
done
umask 077
trap clean_up EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM
check_host
check_files
check_devices
work=$(mktemp -d "${TMPDIR:-/tmp}/kdmatrix-repro.XXXXXX") || die 2 "no temporary directory can be made"
make_seed
printf 'console: %s\n' "$console"
boot
expect_release
case $mode in
boot) exit 0 ;;
shell)
    (exec_in_guest 0 -t root@127.0.0.1)
    exit 0
    ;;
esac
commands
if [ "$failures" -gt 0 ]; then
    printf '%s failed\n' "$failures"
    exit 1
fi
printf 'all passed\n'
