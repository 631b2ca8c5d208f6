"""Users, and what they hold for a while: tokens, sessions, windows of the rate limiter."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from demo.scene import SECOND, Row, Scene, digest, person

#: The ids of users whom other tables refer to.
ADMIN: Final = 1
MEMBER: Final = 4
DISABLED: Final = 5
MUTED: Final = 9
#: Who wants digests, in zones where at midnight UTC it is before eight, eight, and eight as well.
DIGEST_READERS: Final = (11, 12, 13)
#: The last of these has had the digest of the day.
DIGEST_SENT: Final = 13
#: Ids from 1 to this one are there at every scale.
KNOWN_USERS: Final = 22

#: role, status, and what else is particular about each of them.
_CAST: Final[tuple[tuple[str, str, Row], ...]] = (
    ("admin", "active", {"name": "Zoë 李 🎁"}),
    ("admin", "active", {}),
    ("manager", "active", {}),
    ("member", "active", {}),
    ("member", "disabled", {}),
    ("member", "invited", {"last_login_at": None}),
    ("admin", "disabled", {}),
    ("member", "active", {"digest": True}),
    ("member", "active", {"notify_email": False}),
    ("member", "active", {"timezone": "Asia/Tokyo"}),
    ("member", "active", {"digest": True, "timezone": "Asia/Bangkok"}),
    ("member", "active", {"digest": True, "timezone": "Asia/Singapore"}),
    ("member", "active", {"digest": True, "timezone": "Asia/Singapore"}),
)


def users(scene: Scene) -> Iterator[Row]:
    """Yield every role and status, people who were long away, and ordinary members."""
    source = scene.random("users")
    away = scene.ago(days=90)
    cast = [
        *_CAST,
        ("member", "active", {"last_login_at": away}),
        ("member", "active", {"last_login_at": away + SECOND}),
        ("member", "active", {"last_login_at": None}),
        ("member", "active", {"last_login_at": None, "created_at": away}),
        ("member", "active", {"last_login_at": None, "created_at": away + SECOND}),
        *[("member", "active", {"created_at": edge}) for edge in scene.edges_of_last_month()],
        *[("member", "active", {})] * (7 * scene.scale),
    ]
    for number, (role, status, special) in enumerate(cast, start=1):
        yield {
            "email": f"user{number}@{scene.tenant.replace('_', '-')}.example",
            "name": person(source),
            "role": role,
            "status": status,
            "notify_email": True,
            "digest": False,
            "created_at": scene.ago(days=200 + source.randrange(400)),
            "last_login_at": scene.within(source, days=30),
            **special,
        }


def auth_tokens(scene: Scene) -> Iterator[Row]:
    """Yield tokens on both sides of their end, used and unused."""
    source = scene.random("auth_tokens")
    day = 86_400
    for expires_in, used_ago in (
        *((-1, None), (0, None), (1, None)),
        *((60, day), (60, day - 1), (60, day - 60), (-1, day)),
    ):
        yield {
            "user_id": MEMBER,
            "token_hash": digest(source),
            "purpose": "login",
            "created_at": scene.ago(days=2),
            "expires_at": scene.ago(seconds=-expires_in),
            "used_at": None if used_ago is None else scene.ago(seconds=used_ago),
        }


def user_sessions(scene: Scene) -> Iterator[Row]:
    """Yield sessions on both sides of their end."""
    source = scene.random("user_sessions")
    for seconds in (-1, 0, 1, *(source.randrange(-90_000, 90_000) for _ in range(5 * scene.scale))):
        yield {
            "user_id": source.randint(1, KNOWN_USERS),
            "session_key": digest(source),
            "created_at": scene.ago(days=3),
            "expires_at": scene.ago(seconds=-seconds),
        }


def rate_limits(scene: Scene) -> Iterator[Row]:
    """Yield windows that have ended, that end at the slot, and that last."""
    source = scene.random("rate_limits")
    ends = (-1, 0, 1, *(source.randrange(-7200, 7200) for _ in range(9 * scene.scale)))
    for number, seconds in enumerate(ends):
        expires_at = scene.ago(seconds=-seconds)
        yield {
            "bucket": f"login:10.0.{number // 250}.{number % 250}",
            "window_start": scene.ago(seconds=3600 - seconds),
            "hits": source.randint(1, 60),
            "expires_at": expires_at,
        }
