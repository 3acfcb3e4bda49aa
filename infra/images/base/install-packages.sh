#!/bin/sh
# install-packages.sh [SUITE/]PACKAGE...: by apt, out of SUITE where one is named. It removes apt's sources: a container has no use for them.
set -eu

packages=
for wanted in "$@"; do
    case $wanted in
    */*)
        sed -i "s/ [a-z]* main/ ${wanted%/*} main/" /etc/apt/sources.list
        packages="$packages ${wanted#*/}"
        ;;
    *) packages="$packages $wanted" ;;
    esac
done

options=${APT_OPTIONS:-}
# shellcheck disable=SC2086 # they are words
apt-get -q $options update
# shellcheck disable=SC2086
DEBIAN_FRONTEND=noninteractive apt-get -q -y $options install --no-install-recommends $packages
rm -rf /etc/apt/sources.list /etc/apt/sources.list.d /var/lib/apt/lists/* /var/cache/apt/* /var/log/* /usr/share/doc/* /usr/share/man/*
