# Builds the package's virtual environment in $DESTDIR$VENV, a new directory; `make install` runs this.
#
# Whatever is installed already stays as it is, and goes on delivering. If a step fails, the new directory goes.
set -eu

venv=$DESTDIR$VENV
done=
trap 'test -n "$done" || rm -rf "$venv"' EXIT
trap 'exit 1' HUP INT TERM

"$PYTHON" -m venv --without-pip ${VENV_OPTIONS:-} "$venv"
packages=$("$venv/bin/python" -I -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
if [ -n "$DEPENDENCIES" ]; then
    cp -R --no-preserve=all "$DEPENDENCIES/." "$packages"
    test "$SEQUOIA" != no || rm -rf "$packages"/pysequoia*
elif [ "$SEQUOIA" = no ]; then
    "$PYTHON" -I dovecot/dependencies.py "$packages" armor web
else
    "$PYTHON" -I dovecot/dependencies.py "$packages" armor web sequoia
fi
rm -rf "$packages/bin"

# Copied, and not built: all of it is Python, and a build would first have to install what builds it.
for file in $(find sieve_filter -name "*.py") sieve_filter/py.typed sieve_filter/web/templates/* sieve_filter/web/languages/*; do
    install -D -m 644 "$file" "$packages/$file"
done

# Only the interpreter and the packages are used; the rest would carry the path of the staging directory.
find "$venv/bin" -type f -delete
sed -i '/^command = /d' "$venv/pyvenv.cfg"

# Compiled now, because the mail user cannot write here, and must not compile anew for every message. Nothing loads what
# rich takes along to colour source text and Markdown.
"$venv/bin/python" -m compileall -q -x '/(pygments|markdown_it)/' -s "$DESTDIR" -p / "$venv/lib"

# A trial: every module can be loaded, and the libraries that encrypt, if they are there; and a message of somebody
# without a key comes through as it is.
trial=$(printf 'Subject: trial\r\n\r\ntext\r\n' | env -i PATH="$PATH" USER=trial HOME="$venv" \
    "$venv/bin/python" -I -c '
import importlib.util, pkgutil, sys
import sieve_filter
from sieve_filter.openpgp import armor_writer
from sieve_filter.programs import extprograms
from sieve_filter.sequoia import engine
without = {"sieve_filter.__main__"} | (set() if importlib.util.find_spec("flask") else {"sieve_filter.web.app"})
for module in pkgutil.walk_packages(sieve_filter.__path__, "sieve_filter."):
    if module.name not in without:
        importlib.import_module(module.name)
armor_writer.load()
if engine.installed():
    importlib.import_module("pysequoia")
sys.exit(extprograms.filter_main("/nonexistent"))')
test "$trial" = "$(printf 'Subject: trial\r\n\r\ntext\r\n')"
done=yes
