"""Protection against cross-site request forgery (CSRF): that another site's page acts with a visitor's session.

Two things are looked at before a request may change anything. Where it comes from, by the headers Sec-Fetch-Site and
Origin, which no page can forge; and a token that only pages of this site can know, because it is in the session. The
middlewares are `coatcheck.csrf.asgi.CsrfMiddleware` and `coatcheck.csrf.wsgi.CsrfMiddleware`; where neither fits,
`CsrfPolicy` decides.
"""

from coatcheck.csrf.policy import HEADER, Attempt, Csrf, CsrfPolicy
from coatcheck.csrf.tokens import FIELD, csrf_field, csrf_token
from coatcheck.errors import CsrfRefused

__all__ = ["FIELD", "HEADER", "Attempt", "Csrf", "CsrfPolicy", "CsrfRefused", "csrf_field", "csrf_token"]
