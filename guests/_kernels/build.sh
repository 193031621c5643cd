#!/bin/sh
# Configures or compiles a kernel in the build root. /kernel/source is its source and /kernel/config the configurations
# to merge, in the order of their names; /kernel/build is the object folder, and /kernel/out takes what is delivered.
set -eu
release=${KDM_RELEASE:-}
# Where the folders are; a build root has them below /kernel.
K=${KDM_ROOT:-/kernel}
export PATH=/usr/lib/ccache:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin
# The same input gives the same kernel, whenever and wherever it is built.
export KBUILD_BUILD_USER=kdmatrix KBUILD_BUILD_HOST=kdmatrix KBUILD_BUILD_TIMESTAMP='Sat Jan  1 00:00:00 UTC 2000'
cd $K/source
kmake() { make O=$K/build ARCH=x86_64 LOCALVERSION="$KDM_LOCALVERSION" "$@"; }

configure() {
    set -- $K/config/*.config
    start=$(sed -n '1s/^# starts from: //p' "$1")
    if [ -n "$start" ]; then
        kmake -s "$start"
        set -- $K/build/.config "$@"
    fi
    scripts/kconfig/merge_config.sh -m -O $K/build "$@"
    kmake -s olddefconfig
    kmake -s rustavailable >$K/build/rustavailable 2>&1 || :
}

compile() {
    modules=
    grep -q '^CONFIG_MODULES=y' $K/build/.config && modules=modules
    kmake -j"$KDM_JOBS" bzImage $modules
    kmake -s kernelrelease >$K/build/release
    [ "$(cat $K/build/release)" = "$release" ] || return 0 # told by whoever asked for another one
    root=$K/out/kernel
    mkdir -p $root/boot "$root/usr/lib/modules/$release"
    ln -s usr/lib $root/lib
    cp $K/build/arch/x86/boot/bzImage "$root/boot/vmlinuz-$release"
    cp $K/build/.config "$root/boot/config-$release"
    [ -n "$modules" ] || return 0
    kmake -s modules_install INSTALL_MOD_PATH=$root INSTALL_MOD_STRIP=1 DEPMOD=true
    rm -f "$root/usr/lib/modules/$release/build" "$root/usr/lib/modules/$release/source"
    # The kernel's own choice of what external modules need; kernels before 6.4 keep it inside a packaging script.
    [ -e scripts/package/install-extmod-build ] || return 0
    headers=usr/src/linux-headers-$release
    mkdir -p "$K/out/headers/usr/lib/modules/$release"
    ln -s usr/lib $K/out/headers/lib
    kmake -s run-command KBUILD_RUN_COMMAND="\$(srctree)/scripts/package/install-extmod-build $K/out/headers/$headers"
    cp $K/build/.config "$K/out/headers/$headers/.config"
    ln -s "/$headers" "$K/out/headers/usr/lib/modules/$release/build"
}

"$1"
# What this shell's children took: user and system seconds, on the second line.
times >$K/build/times
