#!/bin/sh
# `redis-server` with its options, or the options alone.
set -eu
case ${1:-} in '' | -*) set -- redis-server "$@" ;; esac
exec "$@"
