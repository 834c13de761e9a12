"""The page: what a browser asks for, and what it is shown. Works without JavaScript, and has none."""

import re
import secrets
import time
from collections.abc import Callable
from datetime import UTC, datetime
from io import BytesIO
from typing import IO, Any

import flask
from flask import Flask, Request, Response, g, redirect, render_template, request
from werkzeug.exceptions import HTTPException

from sieve_filter.detection import secrets as secret_keys
from sieve_filter.errors import LoginError, ServiceError
from sieve_filter.web import languages, mailbox
from sieve_filter.web.letters import Answer
from sieve_filter.web.mailbox import Owner, Place
from sieve_filter.web.sessions import IDLE_SECONDS, Session, Sessions, Throttle

MOST_OCTETS = 1_000_000  # of what a browser sends, a key among it
_LOOPBACK = re.compile(r"(?:127\.[0-9.]+|localhost|\[::1\])(?::[0-9]+)?")
_FINGERPRINT = re.compile(r"[0-9A-F]{40}|[0-9A-F]{64}")
_CODE = re.compile(r"[0-9]{6}")
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; "
    "frame-ancestors 'none'; base-uri 'none'",
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cache-Control": "no-store",
}
Page = tuple[str, int] | Response | str


class Desk:
    """What all requests share: where mailboxes are, who has signed in, and who is told of what goes wrong."""

    def __init__(
        self, place: Place, warn: Callable[[str], object], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.place = place
        self.warn = warn
        self.clock = clock
        self.sessions = Sessions()
        self.throttle = Throttle()


class _Request(flask.Request):
    """One whose files stay in memory: what is brought for a key is perhaps a secret one."""

    def _get_file_stream(self, *_: object, **__: object) -> IO[bytes]:
        return BytesIO()


class _Page(Flask):
    request_class = _Request


def make(desk: Desk) -> Flask:
    """The application."""
    app = _Page("sieve_filter.web", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = MOST_OCTETS
    app.config["MAX_FORM_MEMORY_SIZE"] = MOST_OCTETS
    app.jinja_env.filters["day"] = _day
    app.jinja_env.filters["moment"] = _moment
    app.jinja_env.filters["grouped"] = lambda one: " ".join(re.findall("..?.?.?", str(one)))

    @app.before_request
    def begin() -> None:
        language = request.accept_languages.best_match(languages.known(), languages.ENGLISH) or languages.ENGLISH
        g.language, g.words = language, languages.words(language).gettext
        g.session = desk.sessions.find(request.cookies.get(_cookie(request), ""), _browser(request), desk.clock())

    @app.context_processor
    def context() -> dict[str, Any]:
        return {"_": g.words, "language": g.language, "session": g.session}

    @app.after_request
    def harden(response: Response) -> Response:
        response.headers.update(_HEADERS)
        return response

    @app.errorhandler(Exception)
    def failed(error: Exception) -> Page:
        if isinstance(error, HTTPException) and (error.code or 500) < 500:
            return render_template("problem.html", problem=_problem(error.code or 500)), error.code or 500
        if isinstance(error, LoginError):  # the password has changed meanwhile
            _forget(desk)
            return _sign_in_page(g.words("Sign in again: your password is not right any more."), 403)
        desk.warn(f"the owner's page failed: {error if isinstance(error, ServiceError) else type(error).__name__}")
        return render_template("problem.html", problem=_problem(502)), 502

    @app.get("/style.css")
    def style() -> Response:
        return Response(render_template("style.css"), mimetype="text/css")

    @app.get("/favicon.ico")
    def icon() -> Response:
        return Response(status=204)

    @app.get("/")
    def home() -> Page:
        if g.session is None:
            return _sign_in_page("", 200)
        status = mailbox.ask(g.session.owner, desk.place, "status")
        said, g.session.said = g.session.said, None
        return render_template("home.html", facts=status.facts, said=said, folder=desk.place.folder)

    @app.post("/sign-in")
    def sign_in() -> Page:
        _check_origin()
        sent, kept = request.form.get("token", ""), request.cookies.get(_cookie(request, "-form"), "")
        if not kept or not secrets.compare_digest(sent.encode(), kept.encode()):
            return _sign_in_page(g.words("This page was open for too long. Try once more."), 400)
        owner = Owner(request.form.get("user", "").strip(), request.form.get("password", ""))
        address, now = request.remote_addr or "", desk.clock()
        if desk.throttle.refuses(owner.user, address, now):
            return _sign_in_page(g.words("There were too many wrong passwords. Wait a quarter of an hour."), 429)
        try:
            mailbox.sign_in(owner, desk.place)
        except LoginError:
            desk.throttle.failed(owner.user, address, now)
            return _sign_in_page(g.words("Mail address or password is wrong."), 403)
        response = _home()
        name = desk.sessions.begin(owner, _browser(request), now)
        _set_cookie(response, _cookie(request), name, IDLE_SECONDS * 4)
        response.delete_cookie(_cookie(request, "-form"))
        return response

    @app.post("/sign-out")
    def sign_out() -> Page:
        _signed_in()
        _forget(desk)
        return _home()

    @app.post("/key")
    def key() -> Page:
        session = _signed_in()
        file = request.files.get("file")
        data = (file.read() if file else b"") or request.form.get("text", "").encode()
        if not data.strip():
            session.said = (g.words("Choose a file with your public key, or paste the key."), ())
        elif secret_keys.found(data):
            session.said = (
                g.words("This is your SECRET key. It was not kept. Choose the file with your PUBLIC key."),
                (),
            )
        else:
            _say(session, mailbox.ask(session.owner, desk.place, "try", data))
        return _home()

    @app.post("/code")
    def code() -> Page:
        session = _signed_in()
        digits = re.sub(r"\s", "", request.form.get("code", ""))
        if _CODE.fullmatch(digits):
            _say(session, mailbox.ask(session.owner, desk.place, f"confirm {digits}"))
        else:
            session.said = (g.words("The code has six digits. It is in the test message."), ())
        return _home()

    @app.post("/test")
    def test() -> Page:
        session = _signed_in()
        _say(session, mailbox.ask(session.owner, desk.place, "test"))
        return _home()

    @app.post("/keep")
    def keep() -> Page:
        session = _signed_in()
        _say(session, mailbox.ask(session.owner, desk.place, "keep"))
        return _home()

    @app.post("/choose")
    def choose() -> Page:
        session = _signed_in()
        value = request.form.get("value", "")
        if value not in ("baseline", "default"):
            flask.abort(400)
        _say(session, mailbox.ask(session.owner, desk.place, f"choose header_policy {value}"))
        return _home()

    @app.post("/off")
    def off() -> Page:
        return _weaken("off")

    @app.post("/remove")
    def remove() -> Page:
        fingerprint = request.form.get("fingerprint", "")
        if not _FINGERPRINT.fullmatch(fingerprint):
            flask.abort(400)
        return _weaken(f"remove {fingerprint}")

    def _weaken(command: str) -> Page:
        """What weakens takes the password once more: nobody does it who finds a browser open."""
        session = _signed_in()
        address, now = request.remote_addr or "", desk.clock()
        given = Owner(session.owner.user, request.form.get("password", ""))
        if desk.throttle.refuses(given.user, address, now):
            session.said = (g.words("There were too many wrong passwords. Wait a quarter of an hour."), ())
        elif not secrets.compare_digest(given.password.encode(), session.owner.password.encode()):
            desk.throttle.failed(given.user, address, now)
            session.said = (g.words("The password is wrong. Nothing was changed."), ())
        else:
            _say(session, mailbox.ask(session.owner, desk.place, command))
        return _home()

    return app


def _signed_in() -> Session:
    """The session that a form was sent in. Ends the request where there is none, or the form is not ours."""
    _check_origin()
    session: Session | None = g.session
    if session is None:
        flask.abort(403)
    if not secrets.compare_digest(request.form.get("token", "").encode(), session.token.encode()):
        flask.abort(403)
    return session


def _check_origin() -> None:
    origin = request.headers.get("Origin")
    if origin is not None and origin.partition("://")[2] != request.host:
        flask.abort(403)


def _say(session: Session, answer: Answer) -> None:
    """What the next page says first: the answer's Subject, translated as far as it is known, and reasons."""
    subject, date = answer.subject, re.search(r" on (\d{4}-\d\d-\d\d \d\d:\d\d UTC)$", answer.subject)
    if date:
        session.said = (
            g.words("It will be done on this date, or at once with the code in the message to you:"),
            (date[1],),
        )
        return
    session.said = (g.words(subject), answer.reasons)


def _sign_in_page(problem: str, status: int) -> Response:
    token = secrets.token_urlsafe()
    page = render_template("sign-in.html", problem=problem, token=token)
    response = Response(page, status)
    _set_cookie(response, _cookie(request, "-form"), token, 3600)
    return response


def _home() -> Response:
    response = redirect("/", 303)
    assert isinstance(response, Response)  # noqa: S101 - for the type checker: werkzeug's is Flask's here
    return response


def _forget(desk: Desk) -> None:
    desk.sessions.end(request.cookies.get(_cookie(request), ""))
    g.session = None


def _secure(asked: Request) -> bool:
    """Whether cookies go over HTTPS only: always, but for a browser on this machine."""
    return not _LOOPBACK.fullmatch(asked.host)


def _cookie(asked: Request, more: str = "") -> str:
    return f"{'__Host-' if _secure(asked) else ''}cryptomail{more}"


def _set_cookie(response: Response, name: str, value: str, seconds: int) -> None:
    response.set_cookie(
        name, value, max_age=seconds, path="/", secure=_secure(request), httponly=True, samesite="Strict"
    )


def _browser(asked: Request) -> str:
    return asked.headers.get("User-Agent", "")[:500]


def _problem(code: int) -> str:
    texts = {
        403: g.words("Sign in, and try once more."),
        404: g.words("There is no such page."),
        413: g.words("That is too large for a key."),
        502: g.words("The mail server does not answer as it should. Try again later, or ask your mail administrator."),
    }
    return str(texts.get(code, g.words("That cannot be done.")))


def _day(seconds: object) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d}" if isinstance(seconds, int) else ""


def _moment(seconds: object) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC" if isinstance(seconds, int) else ""
