"""Pages and their static files go out compressed; they come from the packages, so nothing was compressed beforehand.

Only there: the API's answers are as quick as they are because nothing more is done to them, and a gateway can compress
them. Django's middleware adds bytes of random length, so that secrets of a form cannot be guessed from sizes.
"""

from __future__ import annotations

from typing import Final

from django.http import HttpRequest, HttpResponseBase
from django.middleware.gzip import GZipMiddleware

_COMPRESSED: Final = ("/console/", "/static/")


class PageCompressionMiddleware(GZipMiddleware):
    """Django's, for the console."""

    def process_response(self, request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
        """Compress where it is worth it."""
        if not request.path.startswith(_COMPRESSED):
            return response
        return super().process_response(request, response)
