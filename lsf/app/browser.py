"""Which browser a session belongs to."""

import hashlib
from itertools import cycle

import streamlit as st

_COOKIE = "_streamlit_xsrf"


def browser_name() -> str | None:
    """Return a name for this browser, the same for all its tabs and after a reload; None where it has no cookie."""
    cookie = st.context.cookies.get(_COOKIE)
    return name_of(cookie) if isinstance(cookie, str) else None


def name_of(cookie: str) -> str:
    """Return a name that tells nothing about a browser, from a cookie that Streamlit sets anyway.

    The cookie reads `2|mask|masked token|time`; the mask is new with every answer, the random token under it stays. The
    name is a hash of the token: who knows the name cannot make the cookie.
    """
    try:
        _, mask, masked, _ = cookie.strip('"').split("|")
        token = bytes(
            one ^ other for one, other in zip(bytes.fromhex(masked), cycle(bytes.fromhex(mask)), strict=False)
        )
    except ValueError:
        token = cookie.encode()
    return hashlib.sha256(token).hexdigest()
