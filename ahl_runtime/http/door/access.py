"""Who has access: a client with the bearer token, or with the cookie that the operator's page gets for it.

Stricter than FastAPI's security classes, which read a header and compare nothing, and than starlette's sessions, which
put their content into the cookie: here every comparison takes constant time, and a new token ends all sessions.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from http.cookies import CookieError, SimpleCookie

COOKIE = "ahl_session"
SESSION = 30 * 24 * 3600  # seconds: an operator's panel stays signed in for a month


class Access:
    """Compares with the token in constant time. No session is stored: its cookie holds its end, and is signed."""

    def __init__(self, token: str | None) -> None:
        self.open = token is None
        self._digest = _digest(token if token is not None else secrets.token_hex())
        self._key = hashlib.sha256(b"session" + self._digest).digest()

    def allows(self, authorization: str | None, cookies: str | None) -> bool:
        """Does one of these header values, if any, give access?"""
        if self.open:
            return True
        if authorization is not None:
            scheme, _, given = authorization.partition(" ")
            return scheme.lower() == "bearer" and self.is_token(given.strip())
        return cookies is not None and self._is_session(cookies)

    def is_token(self, given: str) -> bool:
        """Is it the token?"""
        return hmac.compare_digest(_digest(given), self._digest)

    def session(self) -> str:
        """A cookie's value, good for SESSION seconds and until the token changes."""
        end = str(int(time.time()) + SESSION)
        return f"{end}.{self._sign(end)}"

    def _is_session(self, cookies: str) -> bool:
        try:
            found = SimpleCookie(cookies).get(COOKIE)
        except CookieError:
            return False
        end, _, signature = (found.value if found else "").partition(".")
        signed = hmac.compare_digest(_digest(signature), _digest(self._sign(end)))
        return signed and end.isdecimal() and int(end) > time.time()

    def _sign(self, end: str) -> str:
        return hmac.new(self._key, end.encode("utf-8", "surrogateescape"), hashlib.sha256).hexdigest()


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
