#!/bin/sh
# Starts mysqld with the kit's options and those given. MYSQL_ROOT_PASSWORD becomes the password of root, from anywhere.
set -eu

password=${MYSQL_ROOT_PASSWORD:?is not set: it becomes the password of root}
case $password in
*[\\\']*)
    echo "MYSQL_ROOT_PASSWORD holds a quote or a backslash: choose another" >&2
    exit 2
    ;;
esac

# The first opening for writing copies a file out of the image: let a second core do it while the server is still busy with itself.
# Nobody waits for this child: the kernel reaps it.
if [ ! -e /srv/mysql/init.sql ]; then
    trap '' CHLD
    for file in ibdata1 '#ib_16384_0.dblwr' '#ib_16384_1.dblwr' undo_001 undo_002 mysql.ibd; do
        [ ! -e "/srv/mysql/data/$file" ] || : >>"/srv/mysql/data/$file"
    done &
fi

# The server reads it before it lets anyone in. Every password in it is the same one.
sql=$(cat /labs/init.sql)
umask 077
while [ "$sql" != "${sql#*'{password}'}" ]; do
    sql="${sql%%'{password}'*}$password${sql#*'{password}'}"
done
printf '%s\n' "$sql" >/srv/mysql/init.sql

# shellcheck disable=SC2046 # one option a word
exec mysqld --no-defaults --datadir=/srv/mysql/data --init-file=/srv/mysql/init.sql --socket=mysql.sock --pid-file=/srv/mysql/mysql.pid \
    --port=3306 $(cat /labs/options) "$@"
