"""A process that adopts old sessions, many at once. Told by its arguments where they are, and by a line to begin.

python adopting_process.py STORE_URL OLD_URL ID...     prints the handle that each old session has become
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor

from coatcheck import SyncSessions
from coatcheck.interop.flask_session import FlaskSessions

KEY = "a secret key for tests, 32 bytes or more"


def main(store_url: str, old_url: str, session_ids: list[str]) -> None:
    adopter = FlaskSessions(store=old_url, user_id=lambda values: values.get("user"))
    sessions = SyncSessions(store_url, secret_keys=[KEY], adopt=[adopter])

    def visit(session_id: str) -> str:
        session = sessions.begin([f"session={session_id}".encode()])
        session.load()
        session.increment("n")
        sessions.conclude(session, 200)
        return session.handle

    print("ready", flush=True)  # noqa: T201
    sys.stdin.readline()
    with ThreadPoolExecutor(4) as threads:
        print(*threads.map(visit, session_ids), flush=True)  # noqa: T201
    sessions.close()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
