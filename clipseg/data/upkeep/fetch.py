"""One photo from a web address, whole and decodable, or a reason why not. Tries again what may pass, never what will not."""

import http.client
import random
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass, field
from typing import IO

from clipseg.errors import ClipSegError
from clipseg.image_io import read_image

LARGEST_PHOTO_BYTES = 64 * 2**20  # Visual Genome's weigh 0.1 MB on average
_CHUNK_BYTES = 2**16
_MAY_PASS = {408, 425, 429, *range(500, 600)}  # timeout, too early, too many requests, the server's own errors


class FetchError(ClipSegError):
    """A photo could not be had. `may_pass`: another attempt might succeed."""

    def __init__(self, message: str, *, may_pass: bool) -> None:
        super().__init__(message)
        self.may_pass = may_pass


def check_url(url: str) -> None:
    """Refuse an address that cannot or must not be fetched.

    Raises:
        FetchError: none, not http(s), or on visualgenome.org, which the data set has lost to others.
    """
    try:
        parts = urllib.parse.urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        host = ""
    if not host or parts.scheme not in ("http", "https") or not url.isascii() or any(c.isspace() for c in url):
        raise FetchError(f"{url[:200]!r} is no http(s) address", may_pass=False)
    if host == "visualgenome.org" or host.endswith(".visualgenome.org"):
        raise FetchError(
            f"{url}: visualgenome.org no longer belongs to the data set; take the photo from the archives at "
            "https://homes.cs.washington.edu/~ranjay/visualgenome",
            may_pass=False,
        )


@dataclass(frozen=True)
class PhotoFetcher:
    """Fetches photos; may be used by many threads at once.

    Attributes:
        attempts: how often a photo is tried.
        silence_seconds: an attempt ends when the server sends nothing for so long.
        longest_seconds: the photo itself may take so long, however steadily it drips.
        pause_seconds: before the second attempt; doubled before each later one, plus up to as much again at random.
    """

    attempts: int = 4
    silence_seconds: float = 20.0
    longest_seconds: float = 120.0
    pause_seconds: float = 1.0
    _opener: urllib.request.OpenerDirector = field(init=False, repr=False, default_factory=lambda: _opener())
    _stopped: threading.Event = field(init=False, repr=False, default_factory=threading.Event)

    def stop(self) -> None:
        """Let every fetch under way end with its present attempt, at the latest."""
        self._stopped.set()

    def fetch(self, url: str, *, size: tuple[int, int] | None) -> bytes:
        """The bytes of an image file that decodes.

        Args:
            url: http or https.
            size: the (width, height) in pixels it must have; None takes any.

        Raises:
            FetchError: it could not be had, or is no whole photo of this size.
        """
        check_url(url)
        for attempt in range(1, self.attempts + 1):
            try:
                return self._try(url, size)
            except FetchError as error:
                if not error.may_pass:
                    raise
                pause = self.pause_seconds * 2 ** (attempt - 1) * (1 + random.random())
                if attempt == self.attempts or self._stopped.wait(pause):
                    raise FetchError(f"{error} (attempt {attempt})", may_pass=True) from error
        raise AssertionError(f"attempts={self.attempts}")

    def _try(self, url: str, size: tuple[int, int] | None) -> bytes:
        try:
            content, kind = self._read(url)
        except urllib.error.HTTPError as error:
            error.close()
            raise FetchError(f"{url}: status {error.code} {error.reason}", may_pass=error.code in _MAY_PASS) from error
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", None) or error
            raise FetchError(f"{url}: {reason or type(error).__name__}", may_pass=True) from error
        try:
            height, width = read_image(content, name=url, exif=False).shape[1:]
        except ClipSegError as error:
            raise FetchError(f"{error} (the server calls it {kind})", may_pass=True) from error
        if size is not None and (width, height) != size:
            raise FetchError(f"{url}: {width}x{height} pixels, annotated as {size[0]}x{size[1]}", may_pass=False)
        return content

    def _read(self, url: str) -> tuple[bytes, str]:
        """The body and the type the server gives it."""
        end = time.monotonic() + self.longest_seconds
        content = bytearray()
        with self._opener.open(url, timeout=self.silence_seconds) as response:
            # `read1` returns what has arrived; `read` would wait for a full chunk, however slowly that drips in.
            while chunk := response.read1(_CHUNK_BYTES):
                content += chunk
                if time.monotonic() > end:
                    raise FetchError(f"{url}: not whole after {self.longest_seconds:g} s", may_pass=True)
                if len(content) > LARGEST_PHOTO_BYTES:
                    raise FetchError(f"{url}: over {LARGEST_PHOTO_BYTES:,} bytes, which is no photo", may_pass=False)
            announced = response.headers.get("Content-Length", "")
            kind = response.headers.get_content_type()
        if announced.isdigit() and int(announced) != len(content):
            raise FetchError(f"{url}: ended after {len(content):,} of {announced} bytes", may_pass=True)
        return bytes(content), kind


class _CheckedRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: http.client.HTTPMessage, newurl: str
    ) -> urllib.request.Request | None:
        check_url(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener() -> urllib.request.OpenerDirector:
    """As `urllib.request.build_opener`, without files and FTP."""
    opener = urllib.request.OpenerDirector()
    opener.addheaders = [("User-Agent", "clipseg")]
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        _CheckedRedirects(),
    ):
        opener.add_handler(handler)
    return opener
