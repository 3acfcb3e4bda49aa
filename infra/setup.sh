#!/bin/sh
# Makes .venv when it is missing or stale, and says nothing when there is nothing to do: sh infra/setup.sh [kit|dev|browser|docs]
set -eu
cd "$(dirname "$0")/.."
part=${1:-kit}
case $part in kit | dev | browser | docs) ;; *)
    printf 'set-up: it has no part called %s\n\nhint: sh infra/setup.sh [kit|dev|browser|docs]\n' "$part" >&2
    exit 1
    ;;
esac

# A venv does not survive a move of its folder, so the folder is part of what it was made for.
key=$(pwd && cksum pyproject.toml requirements*.lock infra/setup.py)
ready=.venv/.ready-$part
if [ -x .venv/bin/python ] && [ -f "$ready" ] && [ "$(cat "$ready")" = "$key" ]; then
    exit 0
fi

# Must be understood by any Python, 2.7 included.
probe='
import sys
version = "%d.%d.%d" % sys.version_info[:3]
if sys.version_info < (3, 11):
    sys.exit("%s, too old" % version)
try:
    import ensurepip, ssl, venv, zlib
except ImportError as error:
    sys.exit("%s, but it has %s" % (version, str(error).replace("No module", "no module")))
'
if [ -n "${PYTHON:-}" ]; then
    set -- "$PYTHON"
else
    # First the Python that .venv was made with: whoever chose one does not name it each time.
    made_with=$(sed -n 's/^executable = //p' .venv/pyvenv.cfg 2>/dev/null || true)
    set -- ${made_with:+"$made_with"} python3.14 python3.13 python3.12 python3.11 python3 python
fi
seen=
for candidate in "$@"; do
    if ! command -v "$candidate" >/dev/null 2>&1; then
        [ -z "${PYTHON:-}" ] || seen=" $candidate: not found"
        continue
    fi
    if problem=$("$candidate" -c "$probe" 2>&1); then
        exec "$candidate" -I infra/setup.py "$part" "$key"
    fi
    seen="$seen
  $candidate: $(printf '%s\n' "$problem" | sed -n 1p)"
done

{
    printf 'set-up: no Python found that can run this kit; it needs 3.11 or newer\nseen:%s\n\n' "${seen:- no python3 on PATH}"
    case $seen in
    *ensurepip*)
        version=$(printf '%s\n' "$seen" | sed -n 's/.*: \(3\.[0-9]*\)\..*ensurepip.*/\1/p' | sed -n 1p)
        printf 'hint: Debian and Ubuntu keep ensurepip in a package of its own; install it and run again:\n'
        printf '    sudo apt-get install python%s-venv      (for the system'\''s own python3: python3-venv)\n' "$version"
        ;;
    *)
        printf 'hint: install Python 3.11 or newer and run again, or name the one to use: make lab PYTHON=/path/to/python3\n'
        ;;
    esac
} >&2
exit 1
