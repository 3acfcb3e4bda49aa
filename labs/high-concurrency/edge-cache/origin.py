"""The origin: the shop behind the edge. It makes pages, bundles, images and personal answers, slowly, and says in headers what may be kept."""

import gzip
import re
from hashlib import sha256

from starlette.responses import Response

from runner.peer import Peer

BUNDLES = ("app.css", "app.js", "vendor.js", "theme.css", "search.js", "cart.js")
KINDS = {"css": "text/css", "js": "text/javascript", "html": "text/html", "webp": "image/webp", "json": "application/json"}
ACCEPTS_GZIP = re.compile(r"\bgzip\b(?!\s*;\s*q=0(\.0*)?\s*(,|$))")  # `gzip;q=0` says no
ASSET_S, PAGE_S, OWN_S = 0.25, 0.04, 0.02

peer = Peer(release=1, down=False)


def text_of(*what):
    """A few kilobytes that nobody can guess, and that gzip makes a good deal smaller."""
    words = [sha256(f"{peer.seed} {what} {n}".encode()).hexdigest()[:8] for n in range(30)]
    return "".join(f"\n.shop-{word} {{ margin: 0 auto; padding: 0 {len(word)}px }}" for word in words * 3)


def bundle(name, release):
    """A bundle's address: with a new release it has another fingerprint."""
    stem, kind = name.split(".")
    return f"/assets/{stem}.{sha256(f'{peer.seed} {name} {release}'.encode()).hexdigest()[:8]}.{kind}"


def answer(request, call, body, kind, caching, status=200, **headers):
    """An answer in the form that its asker accepts, or 304 when the asker has it already."""
    plain = body.encode()
    call["digest"], call["release"] = sha256(plain).hexdigest()[:16], peer.state["release"]
    is_zipped = kind != "webp" and bool(ACCEPTS_GZIP.search(request.headers.get("accept-encoding", "")))
    headers |= {"cache-control": caching, "content-type": KINDS[kind], "etag": f'"{call["digest"]}{"-gz" * is_zipped}"'}
    if kind != "webp":
        headers["vary"] = "Accept-Encoding"
    if is_zipped:
        headers["content-encoding"] = "gzip"
    if status == 200 and request.headers.get("if-none-match", "").removeprefix("W/") == headers["etag"]:
        return Response(b"", 304, headers)
    return Response(gzip.compress(plain) if is_zipped else plain, status, headers)


def refuse(request, call, status, why):
    return answer(request, call, why, "html", "no-store", status)


def host_of(request):
    """Where the asker has found the shop, as far as the headers tell."""
    return request.headers.get("x-forwarded-host") or request.headers["host"]


@peer.route("GET", "/assets/{file}")
async def get_bundle(request, call):
    path = f"/assets/{request.path_params['file']}"
    call["kind"], call["key"] = "bundle", [host_of(request), path]
    await peer.sleep(ASSET_S)
    if peer.state["down"]:
        return refuse(request, call, 503, "down")
    if path not in [bundle(name, peer.state["release"]) for name in BUNDLES]:
        return refuse(request, call, 404, "no such file in this release")
    return answer(request, call, f"/* {path} */{text_of(path)}", path.rpartition(".")[2], "public, max-age=31536000, immutable")


@peer.route("GET", "/img/{name}")
async def get_image(request, call):
    size = {key: request.query_params.get(key) or default for key, default in {"w": "640", "q": "80"}.items()}
    call["kind"], call["key"] = "image", [host_of(request), request.path_params["name"], size["w"], size["q"]]
    await peer.sleep(ASSET_S)
    if peer.state["down"]:
        return refuse(request, call, 503, "down")
    return answer(request, call, f"{request.path_params['name']} {size}{text_of(call['key'][1:])}", "webp", "public, max-age=3600")


async def get_page(request, call):
    """Its links lead to where the headers say that the shop is."""
    host = host_of(request)
    scheme = request.headers.get("x-forwarded-proto") or "https"
    call["kind"], call["key"] = "page", [host, "/" + request.path_params.get("product", "")]
    await peer.sleep(PAGE_S)
    if peer.state["down"]:
        return refuse(request, call, 503, "down")
    links = "".join(f'<script src="{scheme}://{host}{bundle(name, peer.state["release"])}"></script>' for name in BUNDLES)
    return answer(request, call, f"<!doctype html><title>{call['key']}</title>{links}{text_of(call['key'])}", "html", "public, max-age=1")


peer.route("GET", "/")(get_page)
peer.route("GET", "/p/{product}")(get_page)


async def get_account(request, call):
    """The account of whoever has the session, whatever follows in the path. Each answer has a number of its own."""
    await peer.sleep(OWN_S)
    session = request.cookies.get("session")
    if peer.state["down"] or not session:
        return refuse(request, call, 503 if peer.state["down"] else 401, "who are you?")
    return answer(request, call, f"account {call['n']} of {session}{text_of(session)}", "html", "private, no-store")


peer.route("GET", "/account")(get_account)
peer.route("GET", "/account/{rest:path}")(get_account)


@peer.route("GET", "/api/orders")
async def get_orders(request, call):
    await peer.sleep(OWN_S)
    bearer = request.headers.get("authorization", "").removeprefix("Bearer ")
    if peer.state["down"] or not bearer:
        return refuse(request, call, 503 if peer.state["down"] else 401, "who are you?")
    return answer(request, call, f"orders of {bearer}{text_of(bearer)}", "json", "max-age=60")


@peer.route("GET", "/welcome")
async def get_welcome(request, call):
    """Who is new gets a number."""
    await peer.sleep(OWN_S)
    if peer.state["down"]:
        return refuse(request, call, 503, "down")
    visitor = sha256(f"{peer.seed} visitor {call['n']}".encode()).hexdigest()[:12]
    cookie = {"set-cookie": f"visitor={visitor}; Path=/"}
    return answer(request, call, f"visitor {visitor}{text_of(visitor)}", "html", "public, max-age=60", **cookie)


peer.run()
