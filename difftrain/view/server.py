"""The explorer's web server: answers one browser on this machine, and nobody else.

A request needs the token from the printed address (a cookie keeps it), a Host that is this server,
and must not come from another site's page. No route takes a path: samples are looked up by id, and
static files by name in a fixed list. Everything is read-only.
"""

import ipaddress
import logging
import secrets
import socket
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.datastructures import Headers, QueryParams
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from difftrain.config.run_config import ConfigError, RunConfig
from difftrain.view.folders import ViewFolders, find_folders, newest_folder
from difftrain.view.index import PAGE_SIZE, Lasso, SampleFilter, SampleIndex
from difftrain.view.items import CHANGES, ItemComparison
from difftrain.view.maps import MapMaker
from difftrain.view.sample import SampleReader

logger = logging.getLogger(__name__)

STATIC = {
    "app.js": "text/javascript",
    "attention.js": "text/javascript",
    "dom.js": "text/javascript",
    "grid.js": "text/javascript",
    "items.js": "text/javascript",
    "sample.js": "text/javascript",
    "scatter.js": "text/javascript",
    "style.css": "text/css",
    "icon.svg": "image/svg+xml",
}
LOOPBACK = {"localhost", "127.0.0.1", "::1"}
MAX_LASSO_POINTS = 200
MAX_TEXT = 2000  # characters of a search text
SECURITY_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self'; connect-src 'self'; form-action 'none'; frame-ancestors 'none'; "
    "base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
FOLDER = Path(__file__).with_name("static")


class Guard:
    """ASGI middleware that refuses requests without the token, of another host or another site."""

    def __init__(self, app: Any, token: str, hosts: set[str], allow_addresses: bool) -> None:
        self.app, self.token, self.hosts = app, token, hosts
        self.allow_addresses = allow_addresses  # any IP address as Host: listens on all interfaces

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request = HttpRequest(scope)
        refusal = self.refusal(request)
        if refusal is not None:
            response: Response = PlainTextResponse(f"{refusal}\n", status_code=403)
        elif request.method not in ("GET", "HEAD"):
            response = PlainTextResponse("only GET\n", status_code=405)
        elif request.url.path == "/" and "token" in request.query_params:
            response = RedirectResponse("/", status_code=303)
            response.set_cookie(
                self.cookie_name(request), self.token, httponly=True, samesite="strict", path="/"
            )
        else:
            await self.app(scope, receive, self._with_headers(send))
            return
        response.headers.update(SECURITY_HEADERS | {"Cache-Control": "no-store"})
        await response(scope, receive, send)

    @staticmethod
    def cookie_name(request: HttpRequest) -> str:
        """Cookies of all ports of a host are sent together, so the port is in the name."""
        return f"difftrain_view_{request.url.port or 80}"

    def refusal(self, request: HttpRequest) -> str | None:
        """Why the request is refused, or None."""
        host = request.headers.get("host", "")
        if not self._is_known_host(_host_name(host)):
            return f"unknown host {host!r}: use the printed address, or set view.host"
        origin = request.headers.get("origin")
        if origin is not None and origin != f"{request.url.scheme}://{host}":
            return "requests from another site are refused"
        site = request.headers.get("sec-fetch-site", "none")
        is_navigation = request.headers.get("sec-fetch-mode") == "navigate"
        opens_page = (
            is_navigation
            and request.url.path == "/"
            and request.headers.get("sec-fetch-dest") == "document"
        )
        if site not in ("same-origin", "none") and not opens_page:
            return "requests from another site are refused"
        given = request.query_params.get("token") or request.cookies.get(self.cookie_name(request))
        if not given or not secrets.compare_digest(given.encode(), self.token.encode()):
            return "no valid token: open the address that difftrain view has printed"
        return None

    def _is_known_host(self, name: str) -> bool:
        if name in self.hosts:
            return True
        if not self.allow_addresses:
            return False
        try:
            ipaddress.ip_address(name)  # a page of another site has a host name instead
        except ValueError:
            return False
        return True

    @staticmethod
    def _with_headers(send: Any) -> Callable[[Any], Awaitable[None]]:
        async def send_with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                given = Headers(raw=message["headers"])
                message["headers"] += [
                    (name.lower().encode(), value.encode())
                    for name, value in SECURITY_HEADERS.items()
                    if name not in given
                ]
            await send(message)

        return send_with_headers


def _host_name(host: str) -> str:
    """The name in a Host header, without port and brackets, in lower case."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower()


def sample_filter(query: QueryParams) -> SampleFilter:
    """The filter in a query: q, is.COLUMN, min.COLUMN, max.COLUMN and lasso=X,Y,x1,y1,x2,y2,...

    Raises ValueError for a number that is none; the index raises KeyError for unknown columns.
    """
    values: dict[str, list[str]] = {}
    ranges: dict[str, tuple[float | None, float | None]] = {}
    for key, value in query.multi_items():
        kind, _, name = key.partition(".")
        if kind == "is":
            values.setdefault(name, []).append(value)
        elif kind in ("min", "max") and value:
            low, high = ranges.get(name, (None, None))
            ranges[name] = (_number(value), high) if kind == "min" else (low, _number(value))
    lasso = None
    if text := query.get("lasso"):
        x, y, *numbers = text.split(",")
        coordinates = [_number(number) for number in numbers]
        points = tuple(zip(coordinates[::2], coordinates[1::2], strict=True))
        if not 3 <= len(points) <= MAX_LASSO_POINTS:
            raise ValueError(f"a lasso needs 3 to {MAX_LASSO_POINTS} points, not {len(points)}")
        lasso = Lasso(x, y, points)
    return SampleFilter(query.get("q", "")[:MAX_TEXT], values, ranges, lasso)


def _number(text: str) -> float:
    number = float(text)
    if abs(number) == float("inf") or number != number:
        raise ValueError(f"{text} is not a finite number")
    return number


def _order(query: QueryParams) -> tuple[str, bool]:
    return query.get("sort", "sample_id"), query.get("order") == "desc"


def _integer(query: QueryParams, name: str) -> int:
    number = int(query.get(name, "0"))
    if not 0 <= number < 2**31:
        raise ValueError(f"{name}={number}: must not be negative")
    return number


class Explorer:
    """The routes of the explorer, over the first run's samples and all runs' benchmark items."""

    def __init__(self, runs: Sequence[ViewFolders], config: RunConfig) -> None:
        self.runs = runs
        self.index = SampleIndex(runs[0])
        self.reader = SampleReader(runs[0], self.index)
        self.maps = MapMaker(self.reader, config)
        self.comparison = ItemComparison(runs)

    def app(self, token: str, hosts: set[str], allow_addresses: bool = False) -> Any:
        """The ASGI application behind its guard."""
        routes = {
            "/": self.page,
            "/static/{name}": self.static,
            "/api/run": self.run,
            "/api/samples": self.samples,
            "/api/scatter": self.scatter,
            "/api/sample/{sample_id}": self.sample,
            "/api/map/{sample_id}": self.attention_map,
            "/api/items": self.items,
            "/thumbnail/{sample_id}": self.thumbnail,
            "/image/{sample_id}/{number:int}": self.image,
            "/item-image": self.item_image,
            "/export/ids.txt": self.ids,
        }
        errors = {KeyError: _not_found, ValueError: _bad_request}
        app = Starlette(
            routes=[Route(path, function) for path, function in routes.items()],
            exception_handlers=errors,  # pyright: ignore[reportArgumentType]
        )
        return Guard(app, token, hosts, allow_addresses)

    def page(self, _: HttpRequest) -> Response:
        """The page itself."""
        text = (FOLDER / "index.html").read_text(encoding="utf-8")
        return Response(text, media_type="text/html", headers={"Cache-Control": "no-store"})

    def static(self, request: HttpRequest) -> Response:
        """A script, the style or the icon."""
        name = request.path_params["name"]
        headers = {"Cache-Control": "no-cache"}
        return Response((FOLDER / name).read_bytes(), media_type=STATIC[name], headers=headers)

    def run(self, _: HttpRequest) -> Response:
        """What the page needs once: the run's name, its columns and its evaluations."""
        return _json({
            "title": self.runs[0].title,
            "runs": [run.title for run in self.runs],
            "total": self.index.total,
            "page_size": PAGE_SIZE,
            "measures": self.index.measures,
            "numeric": self.index.numeric,
            "evaluations": [*self.comparison.evaluations],
            "default_pair": self.comparison.default_pair,
            "changes": CHANGES,
        })  # fmt: skip

    def samples(self, request: HttpRequest) -> Response:
        """One page of the grid, and all counts under the filter."""
        query = request.query_params
        chosen, order = sample_filter(query), _order(query)
        return _json({
            "total": self.index.count(chosen),
            "rows": self.index.page(chosen, *order, _integer(query, "page")),
            "facets": self.index.facet_counts(chosen),
            "histograms": self.index.histograms(chosen),
        })  # fmt: skip

    def scatter(self, request: HttpRequest) -> Response:
        """The points of the scatter plot."""
        query = request.query_params
        names = query.get("x", ""), query.get("y", ""), query.get("color", "")
        return _json(self.index.scatter(sample_filter(query), *names))

    def sample(self, request: HttpRequest) -> Response:
        """Everything about one sample, and the samples before and after it in the grid."""
        sample_id, query = request.path_params["sample_id"], request.query_params
        content = self.reader.describe(sample_id)
        chosen, order = sample_filter(query), _order(query)
        return _json(content | {"neighbors": self.index.neighbors(sample_id, chosen, *order)})

    def attention_map(self, request: HttpRequest) -> Response:
        """The attention map of a response, or its status while it is computed."""
        sample_id, query = request.path_params["sample_id"], request.query_params
        if self.index.location(sample_id) is None:
            raise KeyError(sample_id)
        key = sample_id, _integer(query, "percent"), _integer(query, "draw")
        return _json(self.maps.request(key))

    def items(self, request: HttpRequest) -> Response:
        """A page of benchmark items with the responses of two checkpoints."""
        query = request.query_params
        pair = query.get("before", ""), query.get("after", "")
        filters = query.get("benchmark", ""), query.get("change", ""), query.get("q", "")[:MAX_TEXT]
        return _json(self.comparison.compare(*pair, *filters, _integer(query, "page")))

    def thumbnail(self, request: HttpRequest) -> Response:
        """A small JPEG of a sample's first image."""
        return _image(self.reader.thumbnail(request.path_params["sample_id"]), "image/jpeg")

    def image(self, request: HttpRequest) -> Response:
        """A sample's image as the model got it, masked or not."""
        query, parameters = request.query_params, request.path_params
        mask = _integer(query, "percent"), _integer(query, "draw")
        content = self.reader.image(parameters["sample_id"], parameters["number"], *mask)
        return _image(content, "image/png")

    def item_image(self, request: HttpRequest) -> Response:
        """The first image of a benchmark item."""
        query = request.query_params
        names = (query.get(name, "") for name in ("evaluation", "benchmark", "item"))
        return _image(self.comparison.image(*names), "image/png")

    def ids(self, request: HttpRequest) -> Response:
        """The ids of the filtered samples, one per line, for the setting select.ids."""
        query = request.query_params
        lines = "".join(f"{key}\n" for key in self.index.ids(sample_filter(query), *_order(query)))
        headers = {"Content-Disposition": 'attachment; filename="ids.txt"'}
        return PlainTextResponse(lines, headers=headers | {"Cache-Control": "no-store"})


def _json(content: Any, status_code: int = 200) -> Response:
    return JSONResponse(content, status_code, headers={"Cache-Control": "no-store"})


def _image(content: bytes, media_type: str) -> Response:
    return Response(
        content, media_type=media_type, headers={"Cache-Control": "private, max-age=3600"}
    )


def _not_found(_: HttpRequest, error: Exception) -> Response:
    return _json({"error": f"not found: {error}"}, 404)


def _bad_request(_: HttpRequest, error: Exception) -> Response:
    return _json({"error": str(error)}, 400)


class _Server(uvicorn.Server):
    """Prints a line as soon as it accepts connections and Ctrl-C ends it."""

    def __init__(self, config: uvicorn.Config, line: str) -> None:
        super().__init__(config)
        self._line = line

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        print(f"{self._line}   (Ctrl-C ends)", flush=True)


def serve(folders: Sequence[Path], config: RunConfig) -> Path:
    """Show runs or scores until Ctrl-C; prints the address. Returns the first folder.

    Without folders, shows the newest run below output_dir, else the newest scores. Raises
    MissingArtifact if a folder is neither, and ConfigError if the port is not free.
    """
    paths = list(folders) or [newest_folder(Path(config.output_dir))]
    runs = [find_folders(path) for path in paths]
    host, port = config.view.host, config.view.port
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    server_socket = socket.socket(family)
    server_socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        server_socket.bind((host, port))
    except OSError as error:
        server_socket.close()
        key = "view.host" if isinstance(error, socket.gaierror) else "view.port"
        value = host if isinstance(error, socket.gaierror) else port
        rule = f"cannot listen there ({error}); view.port=0 takes any free port"
        raise ConfigError([f"{key}={value}: {rule}"]) from error
    is_open = host in ("0.0.0.0", "::")
    explorer, token = Explorer(runs, config), secrets.token_urlsafe(16)
    app = explorer.app(token, LOOPBACK | {host.lower()}, allow_addresses=is_open)
    address = "127.0.0.1" if is_open else host
    address = f"[{address}]" if ":" in address else address
    port = server_socket.getsockname()[1]
    logger.info("showing %s: %d samples", runs[0].root, explorer.index.total)
    settings = uvicorn.Config(app, log_level="warning", access_log=False)
    server = _Server(settings, f"open: http://{address}:{port}/?token={token}")
    try:
        server.run([server_socket])
    except KeyboardInterrupt:  # uvicorn raises it again after it has shut down
        logger.info("ended by Ctrl-C")
    finally:
        explorer.maps.close()
        server_socket.close()
    return runs[0].root
