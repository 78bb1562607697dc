"""One photo from a web address, whole and decodable, or a reason why not. Tries again what may pass, never what will not."""

import threading
import time
import urllib.parse
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from clipseg.errors import ClipSegError, one_line
from clipseg.image_io import read_image

if TYPE_CHECKING:
    import requests

LARGEST_PHOTO_BYTES = 64 * 2**20  # Visual Genome's weigh 0.1 MB on average
_CHUNK_BYTES = 2**16
_MOST_THREADS = 256  # that may hold a connection each
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
        pause_seconds: grows before each attempt from the third on, as urllib3's `backoff_factor`.
    """

    attempts: int = 4
    silence_seconds: float = 20.0
    longest_seconds: float = 120.0
    pause_seconds: float = 1.0
    _session: "requests.Session" = field(init=False, repr=False, default_factory=lambda: _open_session())
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
        from urllib3 import Retry

        check_url(url)
        retry = Retry(self.attempts, backoff_factor=self.pause_seconds, backoff_jitter=self.pause_seconds)
        while True:
            try:
                return self._try(url, size)
            except FetchError as error:
                if not error.may_pass:
                    raise
                retry = retry.increment(error=error)
                if not retry.total or self._stopped.wait(retry.get_backoff_time()):
                    raise FetchError(f"{error} (attempt {len(retry.history)})", may_pass=True) from error

    def _try(self, url: str, size: tuple[int, int] | None) -> bytes:
        import requests
        import urllib3

        try:
            content, kind = self._read(url)
        except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
            passing = not isinstance(error, requests.TooManyRedirects)
            raise FetchError(f"{url}: {one_line(error)}", may_pass=passing) from error
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
        with self._session.get(url, timeout=self.silence_seconds, stream=True) as response:
            if not response.ok:
                may_pass = response.status_code in _MAY_PASS
                raise FetchError(f"{url}: status {response.status_code} {response.reason}", may_pass=may_pass)
            # `read1` returns what has arrived; `read` would wait for a full chunk, however slowly that drips in.
            while chunk := response.raw.read1(_CHUNK_BYTES):
                content += chunk
                if time.monotonic() > end:
                    raise FetchError(f"{url}: not whole after {self.longest_seconds:g} s", may_pass=True)
                if len(content) > LARGEST_PHOTO_BYTES:
                    raise FetchError(f"{url}: over {LARGEST_PHOTO_BYTES:,} bytes, which is no photo", may_pass=False)
            return bytes(content), response.headers.get("Content-Type", "nothing")


def _open_session() -> "requests.Session":
    try:
        import requests
    except ImportError as error:
        raise ClipSegError("photos are fetched by requests: pip install 'clipseg[download]'") from error
    session = requests.Session()
    session.headers.update({"User-Agent": "clipseg", "Accept-Encoding": "identity"})
    session.hooks["response"].append(_check_redirect)
    for scheme in ("http://", "https://"):
        session.mount(scheme, requests.adapters.HTTPAdapter(pool_maxsize=_MOST_THREADS))
    return session


def _check_redirect(response: "requests.Response", **_: Any) -> None:
    if response.is_redirect:
        check_url(urllib.parse.urljoin(response.url, response.headers["Location"]))
