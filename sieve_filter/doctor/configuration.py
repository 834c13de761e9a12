"""What Dovecot's configuration lets happen: each function judges one side of it. Pure."""

import math
import re
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from sieve_filter.doctor import wiring
from sieve_filter.doctor.finding import Finding
from sieve_filter.doctor.listing import Block, Processes, Script, seconds, size
from sieve_filter.dovecot.lmtp import ANSWER_SECONDS
from sieve_filter.keys.status import CRITICAL, OK, WARNING, Wiring

_FILTER, _EXECUTE = "vnd.dovecot.filter", "vnd.dovecot.execute"
_PIPE = "vnd.dovecot.pipe"
_TEMPFAIL = "cryptomail-tempfail/"
_ON_DISK = ("", "/tmp", "/var/tmp")  # noqa: S108 - they are looked for, not used
_ENOUGH = 1 << 30  # octets of memory: what lmtp needs for the largest messages, and more than its default
_MAKE = "make install"
_RELOAD = "doveadm reload"


class Told(NamedTuple):
    """What Dovecot's processes are told, and what scripts say: None where there is no such file.

    `snippet` is the file to mend; `socket` that of the private LMTP service; `folder` that in which owners save their
    keys, empty where they cannot; `delimiter` and `saved` the settings recipient_delimiter and saved_folders.
    """

    lmtp: Processes
    lda: Processes
    imap: Processes
    text: Callable[[str], str | None]
    snippet: str
    socket: str
    folder: str
    delimiter: str
    saved: tuple[str, ...] = ()

    @property
    def calling(self) -> tuple[Script, ...]:
        """The scripts ahead of owners' own that call the filter."""
        return tuple(one for one in self.lmtp.before if wiring.calls(self.text(one.path)))

    @property
    def guards(self) -> tuple[Script, ...]:
        return tuple(one for one in self.lmtp.before if wiring.is_guard(one.path, self.text(one.path)))

    @property
    def seals(self) -> bool:
        """Whether a script hands messages to the program that seals."""
        return any(wiring.executes(self.text(one.path)) for one in self.calling)

    def edit(self) -> str:
        return f"editor {self.snippet} && {_RELOAD}"


def judge(told: Told) -> Iterator[Finding]:
    """All that is wrong."""
    wired = wiring.judge(told.lmtp, told.text)
    yield from _wired(wired, "LMTP")
    if wired.state == OK:
        yield from _wired(wiring.judge(told.lda, told.text), "dovecot-lda")
    for one in (
        _order,
        _extensions,
        _programs,
        _time,
        _workers,
        _memory,
        _sealing,
        _tempfail,
        _temporary,
        _enrolment,
        _saved,
    ):
        yield from one(told)
    yield from _delimiter(told)


def _wired(wired: Wiring, whose: str) -> Iterator[Finding]:
    if wired.state != OK:
        note = wired.note.removesuffix(": run make install")
        yield Finding(wired.state, f"{whose}: {note}", "keys alone encrypt nothing", f"{_MAKE} && {_RELOAD}")


def _order(told: Told) -> Iterator[Finding]:
    paths = [one.path for one in told.lmtp.before]
    calling, guards = [one.path for one in told.calling], [one.path for one in told.guards]
    if told.lmtp.skipped:
        what = f"Dovecot does not run {', '.join(told.lmtp.skipped)}: a number before it is missing"
        yield Finding(WARNING, what, "it stops at the first sieve_before… that is not there", told.edit())
    if not calling:
        return
    first = paths.index(calling[0])
    if guards and paths.index(guards[0]) < first:
        what = f"{guards[0]} runs before {calling[0]}"
        yield Finding(CRITICAL, what, "it refuses what that one has not seen: all mail waits", told.edit())
        return
    if first:
        what = f"{', '.join(paths[:first])} runs before {calling[0]}"
        yield Finding(CRITICAL, what, "it may file mail in clear", told.edit())
    if guards and paths.index(guards[0]) > first + 1:
        what = f"{', '.join(paths[first + 1 : paths.index(guards[0])])} runs before {guards[0]}"
        yield Finding(
            WARNING, what, "where the script that encrypts is missing, it may file mail in clear", told.edit()
        )
    others = [one.path for one in told.lmtp.before if wiring.filters_otherwise(told.text(one.path))]
    if len(calling) > 1 or others:
        twice = ", ".join([*calling, *(one for one in others if one not in calling)])
        what = f"several scripts change mail: {twice}"
        yield Finding(WARNING, what, "one changes what another encrypted, or mail comes twice", told.edit())


def _extensions(told: Told) -> Iterator[Finding]:
    lmtp = told.lmtp
    everywhere = lmtp.extensions | lmtp.global_extensions
    for one in told.calling:
        text = told.text(one.path)
        needed = _EXECUTE if wiring.executes(text) else _FILTER
        if needed not in everywhere:
            what = f"{needed}, which {one.path} requires, is in neither sieve_extensions nor sieve_global_extensions"
            yield Finding(CRITICAL, what, "the script fails, and mail is stored in clear", told.edit())
    if given := sorted({_EXECUTE, _PIPE} & lmtp.extensions):
        what = f"users' own scripts may use {' and '.join(given)}"
        why = "each user can run what is in sieve_execute_bin_dir and sieve_pipe_bin_dir"
        yield Finding(WARNING, what, why, told.edit())


def _programs(told: Told) -> Iterator[Finding]:
    for kind in _kinds(told):
        directory = told.lmtp.values.get(f"sieve_{kind}_bin_dir", "")
        socket = told.lmtp.values.get(f"sieve_{kind}_socket_dir", "")
        if not directory and not socket:
            what = f"neither sieve_{kind}_bin_dir nor sieve_{kind}_socket_dir is set"
            yield Finding(CRITICAL, what, "Dovecot finds no program: all mail waits", told.edit())
        if socket and told.lmtp.place(socket) == told.lmtp.place():
            what = f"sieve_{kind}_socket_dir is Dovecot's base_dir"
            yield Finding(CRITICAL, what, "users' scripts can talk to each socket of Dovecot", told.edit())


def _time(told: Told) -> Iterator[Finding]:
    for kind in _kinds(told):
        name = f"sieve_{kind}_exec_timeout"
        given = told.lmtp.values.get(name, "")
        if seconds(given) <= ANSWER_SECONDS:
            what = f"{name} is {given or '10s, its default'}: cryptomail takes up to {ANSWER_SECONDS} seconds"
            why = "lmtp panics when a program takes longer, and other recipients get the message twice"
            yield Finding(WARNING, what, why, told.edit())


def _workers(told: Told) -> Iterator[Finding]:
    """The worker, where Dovecot looks for one."""
    service = told.lmtp.service("cryptomail")
    listening = {told.lmtp.place(one.name): one for one in listeners(service)}
    for kind in _kinds(told):
        directory = told.lmtp.values.get(f"sieve_{kind}_socket_dir", "")
        if not directory:
            continue
        socket = told.lmtp.place(directory, "cryptomail")
        listener = listening.get(socket)
        if listener is None:
            what = f"no service of Dovecot's listens on {socket}"
            yield Finding(WARNING, what, "a program is started for each message: ten times the time", told.edit())
        elif kind == "execute":
            yield from _private(listener, socket, "may have mail sealed as anybody", told, _user(service))
    if service is not None and listening:
        if service.values.get("drop_priv_before_exec") != "yes":
            why = "without drop_priv_before_exec = yes the worker runs as root"
            yield Finding(CRITICAL, "the service cryptomail keeps root's rights", why, told.edit())
        deliveries, _ = _lmtp_processes(told)
        clients = size(service.values.get("client_limit", "")) or 1000
        if clients < deliveries:
            what = f"the service cryptomail has client_limit = {clients:.0f}, lmtp process_limit = {deliveries:.0f}"
            yield Finding(WARNING, what, "under load lmtp cannot connect, and panics", told.edit())
        for name in ("process_limit", "process_min_avail"):
            if service.values.get(name) != "1":
                what = f"the service cryptomail has {name} = {service.values.get(name, '0')}, not 1"
                yield Finding(
                    WARNING, what, "its supervisor starts the workers itself, and counts on being alone", told.edit()
                )


def _memory(told: Told) -> Iterator[Finding]:
    names = ["lmtp", *(["lmtp-sealed"] if told.seals else []), "cryptomail"]
    for service in filter(None, map(told.lmtp.service, names)):
        limit = told.lmtp.limit(service, "vsz_limit")
        if 0 < limit < _ENOUGH:
            what = f"the service {service.name} has vsz_limit = {limit / (1 << 20):.0f} M"
            yield Finding(WARNING, what, "large messages cannot be encrypted, and wait", told.edit())


def _sealing(told: Told) -> Iterator[Finding]:
    if not told.seals:
        return
    found = [
        (service, listener)
        for service in told.lmtp.root.all("service")
        for listener in listeners(service)
        if told.lmtp.place(listener.name) == told.lmtp.place(told.socket)
    ]
    if not found:
        what = f"no service of Dovecot's listens on {told.socket}"
        yield Finding(CRITICAL, what, "what was encrypted cannot be delivered: all mail waits", told.edit())
        return
    service, listener = found[0]
    worker = told.lmtp.service("cryptomail")
    yield from _private(listener, told.socket, "may deliver to everybody in clear", told, _user(worker))
    if service.all("inet_listener"):
        why = "whoever reaches it delivers in clear"
        yield Finding(CRITICAL, f"the service {service.name} listens on the network", why, told.edit())
    executable = service.values.get("executable", "")
    for one in (*told.calling, *told.guards):
        if _runs(one, executable, told.lmtp):
            what = f"{one.path} runs in the service {service.name}, too"
            yield Finding(CRITICAL, what, "the encrypted message is refused or goes round: all mail waits", told.edit())
    limit = size(told.lmtp.values.get("lmtp_user_concurrency_limit", ""))
    if 0 < limit < math.inf and "lmtp_user_concurrency_limit=" not in executable:
        what = f"lmtp_user_concurrency_limit = {limit:.0f} counts in the service {service.name}, too"
        yield Finding(WARNING, what, "deliveries wait for themselves, and mail waits", told.edit())
    outer, inner = _lmtp_processes(told)
    if inner < outer:
        what = f"the service {service.name} has fewer processes ({inner:.0f}) than lmtp ({outer:.0f})"
        yield Finding(WARNING, what, "under load, what was encrypted waits for a process", told.edit())


def _tempfail(told: Told) -> Iterator[Finding]:
    spaces = [one for one in told.lmtp.root.all("namespace") if one.values.get("prefix") == _TEMPFAIL]
    if not spaces or spaces[0].values.get("disabled") == "yes":
        what = f"there is no namespace with the prefix {_TEMPFAIL}"
        yield Finding(
            CRITICAL, what, "what cannot be encrypted is stored in clear, in a folder of that name", told.edit()
        )
        return
    values = spaces[0].values
    place = values.get("mail_path") or values.get("location", "").partition(":")[2]
    if not place.startswith("/dev/null/"):
        what = f"the namespace {_TEMPFAIL} can be opened: it is at {place or 'the default place'}"
        yield Finding(CRITICAL, what, "what cannot be encrypted is stored there in clear", told.edit())
    if values.get("separator") != "/":
        what = f"the namespace {_TEMPFAIL} has another separator than /"
        yield Finding(CRITICAL, what, "what cannot be encrypted is filed elsewhere, in clear", told.edit())
    if values.get("type") != "public":
        what = f"the namespace {_TEMPFAIL} is not of type public"
        yield Finding(WARNING, what, "Dovecot cannot count its size, and lets all quotas pass", told.edit())
    if values.get("list") != "no" or values.get("hidden") != "yes":
        what = f"the namespace {_TEMPFAIL} can be seen by mail clients"
        yield Finding(WARNING, what, "each listing of folders has an error in it", told.edit())


def _temporary(told: Told) -> Iterator[Finding]:
    place = told.lmtp.values.get("mail_temp_dir", "")
    if place in _ON_DISK:
        what = f"mail_temp_dir is {place}"
        why = "the clear text of large messages touches a disk, in a directory that all share"
        yield Finding(WARNING, what, why, told.edit())


def _enrolment(told: Told) -> Iterator[Finding]:
    name = "cryptomail-enroll"
    scripts = told.imap.saved_in(told.folder) if told.folder else ()
    if not told.folder:
        return
    why = f"keys that owners save in the folder {told.folder} are not set up, and secret ones stay"
    if not any(name in (told.text(one) or "") for one in scripts):
        missing = [one for one in scripts if told.text(one) is None]
        what = (
            f"there is no {missing[0]}" if missing else f"no script runs for what is saved in the folder {told.folder}"
        )
        yield Finding(WARNING, what, why, f"{_MAKE} && {_RELOAD}")
    for plugin, loaded, setting in (
        ("imap_sieve", told.imap.plugins, "mail_plugins"),
        ("sieve_imapsieve", told.imap.sieve_plugins, "sieve_plugins"),
        ("sieve_extprograms", _everywhere(told), "sieve_plugins"),
    ):
        if plugin not in loaded:
            yield Finding(WARNING, f"the plugin {plugin} is not in {setting} for IMAP", why, told.edit())
    if told.imap.values.get("imapsieve_expunge_discarded") != "yes":
        what = "imapsieve_expunge_discarded is not yes"
        yield Finding(WARNING, what, "a secret key that an owner saves stays beside the answer", told.edit())
    if not told.imap.values.get("sieve_filter_bin_dir"):
        yield Finding(WARNING, "sieve_filter_bin_dir is not set for IMAP", why, told.edit())
    elif told.imap.values["sieve_filter_bin_dir"] == told.lmtp.values.get("sieve_filter_bin_dir"):
        what = "IMAP and deliveries have the same sieve_filter_bin_dir"
        yield Finding(CRITICAL, what, f"{why}; or a stranger's message could set up a key", told.edit())


def _saved(told: Told) -> Iterator[Finding]:
    why = "what owners save there stays in clear"
    for folder in told.saved:
        if not any("cryptomail-saved" in (told.text(one) or "") for one in told.imap.saved_in(folder)):
            what = f"no script runs for what is saved in the folder {folder}, which saved_folders names"
            yield Finding(WARNING, what, why, f"{_MAKE} && {_RELOAD}")
    if told.saved and "imap_sieve" not in told.imap.plugins:
        yield Finding(WARNING, "the plugin imap_sieve is not in mail_plugins for IMAP", why, told.edit())
    if told.saved and not told.imap.values.get("sieve_execute_bin_dir", "").endswith("/saved-bin"):
        what = "sieve_execute_bin_dir is not that of cryptomail-saved for IMAP"
        yield Finding(WARNING, what, why, told.edit())


def _everywhere(told: Told) -> frozenset[str]:
    """The plugins of IMAP's Sieve: 2.4 lists those of `protocol imap` without those that all have."""
    return told.imap.sieve_plugins | (told.lmtp.sieve_plugins if told.imap.version == "2.4" else frozenset())


def _delimiter(told: Told) -> Iterator[Finding]:
    theirs = told.lmtp.values.get("recipient_delimiter", "")
    if told.delimiter not in theirs or bool(theirs) != bool(told.delimiter):
        what = f"recipient_delimiter is {theirs!r} for Dovecot, and {told.delimiter!r} for cryptomail"
        yield Finding(WARNING, what, "addresses with a detail in them are not known as the owner's", "editor CONFIG")


def _kinds(told: Told) -> Sequence[str]:
    """What scripts call programs by: `execute`, or `filter`, which is for users' scripts as well."""
    return ["filter", "execute"] if told.seals else ["filter"]


def listeners(service: Block | None) -> Sequence[Block]:
    """Its Unix sockets; none of a service that there is not."""
    return service.all("unix_listener") if service is not None else ()


def _user(service: Block | None) -> str:
    return service.values.get("user", "") if service is not None else ""


def _private(listener: Block, socket: str, why: str, told: Told, user: str) -> Iterator[Finding]:
    mode = listener.values.get("mode", "0600")
    if user not in ("", "root") and int(mode, 8) & 0o077:
        yield Finding(CRITICAL, f"others can connect to {socket} (mode {mode})", f"they {why}", told.edit())
    theirs = listener.values.get("user", "")
    if user and theirs != user and not int(mode, 8) & 0o007:
        what = f"{socket} belongs to {theirs or 'root'}, and the worker runs as {user}"
        yield Finding(CRITICAL, what, "it cannot be connected to: all mail waits", told.edit())


def _runs(script: Script, executable: str, lmtp: Processes) -> bool:
    """Whether that script runs in a service with this `executable`, whose options change settings."""
    if lmtp.version == "2.4":
        return f"sieve_script/{script.name}/type=none" not in executable
    changed = dict(re.findall(r"-o plugin/(sieve_before\d*)=(\S*)", executable))
    number = 1
    while path := changed.get(name := f"sieve_before{number if number > 1 else ''}", lmtp.values.get(name, "")):
        if path.removeprefix("file:").partition(";")[0] == script.path:
            return True
        number += 1
    return False


def _lmtp_processes(told: Told) -> tuple[float, float]:
    """How many processes lmtp may have, and the service that seals."""
    found = [told.lmtp.service(name) for name in ("lmtp", "lmtp-sealed")]
    outer, inner = (told.lmtp.limit(one, "process_limit") if one else math.inf for one in found)
    return outer, inner
