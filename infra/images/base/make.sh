#!/bin/sh
# make.sh FOLDER SUITE MIRROR: a minimal Debian in an empty folder, and as a tar on standard output, by debootstrap as root; without MIRROR
# from debootstrap's own. Its caller gives it a mount namespace of its own: whatever debootstrap mounts is gone with it.
set -eu
root=$1

debootstrap --variant=minbase "$2" "$root" ${3:+"$3"} >&2

# No package may start its service, and nothing of the machine that made it goes along.
printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
chmod 755 "$root/usr/sbin/policy-rc.d"
rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/var/log/* "$root"/usr/share/doc/* "$root"/usr/share/man/* \
    "$root"/usr/share/locale/* "$root/etc/hostname" "$root/etc/resolv.conf"
# Packages may come by https, and a minimal Debian trusts nobody.
if grep -q https: "$root/etc/apt/sources.list"; then
    mkdir -p "$root/etc/ssl/certs"
    cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
fi

tar -C "$root" --numeric-owner --one-file-system -c .
