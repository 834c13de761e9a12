# Builds the package's virtual environment in $DESTDIR$VENV, a new directory; `make install` runs this.
#
# Whatever is installed already stays as it is, and goes on delivering. If a step fails, the new directory goes.
set -eu

venv=$DESTDIR$VENV
source=$(mktemp -d)
done=
trap 'rm -rf "$source"; test -n "$done" || rm -rf "$venv"' EXIT
trap 'exit 1' HUP INT TERM

# pip builds inside the directory that it is given: a copy, so that the checkout may be read-only and stays clean.
cp setup.cfg pyproject.toml LICENSE README.md "$source"
for file in $(find sieve_filter -name "*.py") sieve_filter/py.typed; do install -D -m 644 "$file" "$source/$file"; done

"$PYTHON" -m venv "$venv"
case $SEQUOIA in
    yes) package="${source}[sequoia]" ;;
    *) package=$source ;;
esac
"$venv/bin/python" -m pip install --quiet --no-compile --no-warn-script-location "$package"

# Only the interpreter and the packages are used; the rest would carry the path of the staging directory.
find "$venv/bin" -type f -delete
"$venv/bin/python" -m pip uninstall --quiet --yes pip setuptools
sed -i '/^command = /d' "$venv/pyvenv.cfg"

# Compiled now, because the mail user cannot write here, and must not compile anew for every message.
"$venv/bin/python" -m compileall -q -s "$DESTDIR" -p / "$venv/lib"

# A trial: every module can be loaded, and a message of somebody without a key comes through as it is.
trial=$(cd "$source" && printf 'Subject: trial\r\n\r\ntext\r\n' | env -i PATH="$PATH" USER=trial HOME="$source" \
    "$venv/bin/python" -I -c '
import importlib, pkgutil, sys
import sieve_filter
from sieve_filter.programs import extprograms
for module in pkgutil.walk_packages(sieve_filter.__path__, "sieve_filter."):
    if module.name != "sieve_filter.__main__":
        importlib.import_module(module.name)
sys.exit(extprograms.filter_main("/nonexistent"))')
test "$trial" = "$(printf 'Subject: trial\r\n\r\ntext\r\n')"
done=yes
