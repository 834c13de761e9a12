"""The rules of the house: who may import whom, who touches what, and what each entry point loads.

The table of layers, and which packages do no I/O, are in setup.cfg, where import-linter reads them.
"""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import sieve_filter

PACKAGE = Path(sieve_filter.__file__).parent
REPOSITORY = PACKAGE.parent
MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts): ast.parse(path.read_text())
    for path in PACKAGE.rglob("*.py")
}

# What an executed filter may load, besides the modules of Python itself that it needs: it is started for each message.
FILTER_PACKAGES = {"delivery", "detection", "gpg", "keys", "mail", "openpgp", "owners", "policy", "system"}
# What takes longer to load than a message takes to filter.
SLOW = {"argparse", "email", "gnupg", "json", "mailparser", "pathlib", "rich", "smtplib", "socket", "ssl", "subprocess"}


def test_each_package_imports_only_those_below_it() -> None:
    command = [str(Path(sys.executable).with_name("lint-imports")), "setup.cfg", "--no-cache"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_each_program_is_started_by_one_module() -> None:
    starters = {"subprocess", "sieve_filter.system.process"}
    assert {module for module, tree in MODULES.items() if starters & set(_imports(tree))} == {
        "gpg.runner",
        "openssl.runner",
        "dovecot.doveadm",
        "notify.sendmail",
    }


def test_only_programs_and_commands_read_arguments_environment_and_standard_input() -> None:
    reading = {"sys.argv", "os.environ", "sys.stdin", "os.getenv"}
    found = {
        module
        for module, tree in MODULES.items()
        if module.partition(".")[0] not in ("programs", "cli", "__main__") and reading & set(_attributes(tree))
    }
    # PATH for programs, the caller's whole environment for `decrypt`; TMPDIR; and what OpenSSL takes from nowhere else.
    assert found == {"gpg.runner", "openssl.runner", "system.spool", "sieve.managesieve"}


def test_one_module_becomes_another_user() -> None:
    becoming = {"os.setgroups", "os.setresgid", "os.setresuid", "os.setuid", "os.setgid", "os.seteuid", "os.initgroups"}
    assert {module for module, tree in MODULES.items() if becoming & set(_attributes(tree))} == {"system.privileges"}


def test_octets_from_others_are_never_unpickled() -> None:
    for module, tree in MODULES.items():
        assert not {"pickle", "marshal", "shelve", "multiprocessing.connection"} & set(_imports(tree)), module


def test_what_a_comment_refers_to_is_there() -> None:
    """`module.name` leads a reader on: after a move or a new name, it has to lead to the new place."""
    known = {
        f"{module.rpartition('.')[2]}.{name}"
        for module, tree in MODULES.items()
        for node in tree.body
        for name in _defined(node)
    }
    for module, tree in MODULES.items():
        parameters = {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
        text = (PACKAGE / f"{module.replace('.', '/')}.py").read_text()
        for name, inside in re.findall(r"`([a-z_]+)\.(\w+)`", text):
            theirs = name in parameters or name in sys.stdlib_module_names
            assert theirs or f"{name}.{inside}" in known, f"{module}: {name}.{inside}"


def _defined(node: ast.stmt) -> Iterator[str]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        yield node.name
    elif isinstance(node, ast.Assign | ast.AnnAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        yield from (target.id for target in targets if isinstance(target, ast.Name))


def test_no_module_of_tests_imports_another_s_tests() -> None:
    for path in (REPOSITORY / "tests").rglob("*.py"):
        imported = set(_imports(ast.parse(path.read_text())))
        assert not [name for name in imported if re.match(r"tests\.(.*\.)?test_", name)], path


def test_an_executed_filter_loads_what_it_needs_and_no_more() -> None:
    loaded = _loaded("programs.extprograms")
    ours = {name.split(".")[1] for name in loaded if name.startswith("sieve_filter.")}
    assert ours == FILTER_PACKAGES | {"deadline", "errors", "limits", "programs"}
    assert not loaded & SLOW
    # Plain mail, encrypted by gpg, has no need of them.
    assert not loaded & {f"sieve_filter.{name}" for name in ("delivery.sequoia", "mail.lenient", "smime.cms")}


@pytest.mark.parametrize("entry", ["programs.listeners", "programs.extprograms", "cli.main"])
def test_prometheus_library_is_loaded_where_its_text_is_written_alone(entry: str) -> None:
    assert "prometheus_client" not in _loaded(entry)


@pytest.mark.parametrize("entry", ["programs.extprograms", "programs.listeners"])
def test_who_delivers_to_owners_without_certificates_loads_nothing_of_smime(entry: str) -> None:
    assert not {name for name in _loaded(entry) if re.search(r"smime|x509|sieve_filter\.openssl", name)}


@pytest.mark.parametrize("entry", ["programs.listeners", "programs.imapsieve"])
def test_what_dovecot_starts_loads_no_command(entry: str) -> None:
    loaded = _loaded(entry)
    assert not {name for name in loaded if name.startswith(("sieve_filter.cli", "sieve_filter.discovery", "rich"))}


def test_a_worker_loads_nothing_of_key_commands() -> None:
    loaded = _loaded("programs.listeners")
    assert not {name for name in loaded if name.startswith(("sieve_filter.notify", "sieve_filter.enrolment", "gnupg"))}


def test_a_worker_has_all_that_a_message_may_need_before_the_first_one_comes() -> None:
    """An upgrade takes away the files that it was started from, and it serves until Dovecot is reloaded."""
    loaded = _loaded("programs.supervisor", "sieve_filter.programs.preload.load()")
    late = {
        name
        for module, tree in MODULES.items()
        if f"sieve_filter.{module}" in loaded
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef)
        for name in _imports(function)
    }
    ours = {name.removeprefix("sieve_filter.") for name in late if name.startswith("sieve_filter.")} & set(MODULES)
    assert len(ours) > 10
    assert {name for name in ours if f"sieve_filter.{name}" not in loaded} == set()
    assert {"pysequoia", "pybase64", "anycrc"} <= loaded
    assert "gnupg" not in loaded


def _loaded(module: str, then: str = "pass") -> set[str]:
    """The modules that a process has which imports that one; without those that the development environment adds."""
    site = [path for path in sys.path if path.endswith("site-packages")]
    paths = [str(REPOSITORY), *site]
    code = f"import sys; sys.path[:0] = {paths}; import sieve_filter.{module}; {then}; print(*sys.modules)"
    command = [sys.executable, "-I", "-S", "-c", code]
    return set(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split())


def _imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _attributes(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            yield f"{node.value.id}.{node.attr}"
