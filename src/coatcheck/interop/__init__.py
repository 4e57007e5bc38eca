"""The sessions of other systems: codecs that read and write them, and adopters that take them over.

`gorilla` and `gob` are codecs. `django`, `express`, `flask`, `flask_session`, `gorilla_sessions` and `starlette` have
the adopters; what these share is in `old_system` (settings), `signed_cookie`, `signed_text` and `old_records`.
"""
