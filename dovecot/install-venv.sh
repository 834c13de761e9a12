# Builds the virtual environment $DESTDIR$LIB/venv with the package in it; `make install` runs this.
set -eu

venv=$DESTDIR$LIB/venv
source=$(mktemp -d)
trap 'rm -rf "$source"' EXIT

# pip builds inside the directory that it is given: a copy, so that the checkout may be read-only and stays clean.
cp setup.cfg pyproject.toml LICENSE README.md "$source"
mkdir "$source/sieve_filter"
cp sieve_filter/*.py sieve_filter/py.typed "$source/sieve_filter"

rm -rf "$venv"
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
