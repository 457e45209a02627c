"""The endpoint's addresses, and what each takes and answers. Nothing of a request is logged here."""

import asyncio
from importlib.metadata import version
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import Depends, FastAPI, HTTPException, Request, Response
from fastapi.responses import PlainTextResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.middleware.trustedhost import TrustedHostMiddleware

from visionprefer_serve import wire
from visionprefer_serve.access import LOCAL_HOSTS, allowed, is_loopback
from visionprefer_serve.metrics import exposition

if TYPE_CHECKING:
    from visionprefer_serve.app import Endpoint

_PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ/pLvAAAAAElFTkSuQmCC"
_EXAMPLE = {"items": [{"prompt": "a red square", "image": _PIXEL}]}
_SCORED = {
    "score": 0.74,
    "aspects": {"prompt_following": 1.02, "fidelity": 0.31},
    "uncertainty": 0.2,
    "model": "vpscore",
    "digest": "3f9c0a51",
    "status": 200,
    "error": None,
}
_REFUSALS: dict[int | str, dict[str, Any]] = {
    400: {"description": "The request was meant for another host."},
    401: {"description": "No bearer token, or a wrong one."},
    403: {"description": "The endpoint has no tokens, and the request is from another machine."},
    404: {"description": "No model has that name."},
    408: {"description": "The body took too long to arrive."},
    413: {"description": "The body is too large."},
    415: {"description": "Neither JSON nor an Arrow IPC stream."},
    422: {"description": "The body holds no request."},
    429: {"description": "Too many requests are waiting; Retry-After says when to ask again."},
    503: {"description": "A model is unwell."},
    504: {"description": "There were no scores in time."},
}
_BYTES = {"schema": {"type": "string", "format": "binary"}}


def build(endpoint: "Endpoint") -> FastAPI:
    """The ASGI app of an endpoint."""
    bearer = HTTPBearer(auto_error=False, description="One of the tokens that the endpoint was started with.")

    def authorised(request: Request, _: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]) -> None:
        if not allowed(request.headers.get("authorization"), endpoint.digests):
            told = "write the header Authorization: Bearer TOKEN, with a token of this endpoint"
            raise HTTPException(401, told, {"WWW-Authenticate": "Bearer"})

    app = FastAPI(
        title="VisionPrefer rewards",
        version=version("visionprefer"),
        license_info={"name": "Apache-2.0"},
        dependencies=[] if endpoint.digests else [Depends(_from_this_machine)],
    )
    if not endpoint.digests:  # a page from elsewhere must not reach a machine's own endpoint under another name
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=LOCAL_HOSTS)
    closed = [Depends(authorised)] if endpoint.digests else []

    @app.post(
        "/v1/score",
        dependencies=closed,
        response_model=wire.JsonAnswers,
        responses={200: _answers_documented(), **_documented(400, 401, 403, 404, 408, 413, 415, 422, 429, 503, 504)},
        openapi_extra={"requestBody": _body_documented()},
    )
    async def score(request: Request) -> Response:
        """Score images for their prompts. Answers come in the order of the items, in the format of the request."""
        kind = request.headers.get("content-type", "").partition(";")[0].strip().casefold()
        if kind not in (wire.JSON, wire.ARROW):
            raise HTTPException(415, f"Content-Type is {kind[:100]!r}: write {wire.JSON} or {wire.ARROW}")
        body = await _body(request, endpoint.settings.max_body_bytes, endpoint.settings.timeout_s)
        asked = await asyncio.to_thread(_read, kind, body, endpoint.settings.max_items)
        answers = await endpoint.score(asked.model, asked.items)
        if kind == wire.ARROW:
            return Response(wire.write_answers(answers), media_type=wire.ARROW)
        return Response(wire.JsonAnswers(items=answers).model_dump_json(), media_type=wire.JSON)

    @app.get("/v1/models", dependencies=closed, responses=_documented(400, 401, 403, 503))
    async def models() -> dict[str, list[dict[str, Any]]]:
        """The models that can be named, the first being the one that answers where none is."""
        return {"models": await endpoint.models()}

    @app.get("/healthz", responses=_documented(400, 403, 503))
    async def health() -> dict[str, str]:
        """Runs each model."""
        await endpoint.check()
        return {"status": "ok"}

    @app.get("/readyz", responses=_documented(400, 403, 503))
    async def ready() -> dict[str, str]:
        """Whether each model has a replica that answers."""
        await endpoint.models()
        return {"status": "ok"}

    @app.get("/metrics", dependencies=closed, response_class=PlainTextResponse, responses=_documented(400, 401, 403))
    async def metrics() -> Response:
        """Measures for Prometheus: of this endpoint and of Ray Serve, from all nodes, some seconds old."""
        return PlainTextResponse(await exposition(), media_type="text/plain; version=0.0.4")

    return app


def _from_this_machine(request: Request) -> None:
    if request.client and not is_loopback(request.client.host):
        raise HTTPException(403, "this endpoint has no tokens, so it answers its own machine alone")


def _documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: _REFUSALS[status] for status in statuses}


def _body_documented() -> dict[str, Any]:
    schema = wire.JsonRequest.model_json_schema()
    schema["properties"]["items"]["items"] = schema.pop("$defs")["JsonItem"]  # the document has no place for references
    return {"required": True, "content": {wire.JSON: {"schema": schema, "example": _EXAMPLE}, wire.ARROW: _BYTES}}


def _answers_documented() -> dict[str, Any]:
    return {
        "description": "An answer for each item.",
        "content": {wire.JSON: {"example": {"items": [_SCORED]}}, wire.ARROW: _BYTES},
    }


async def _body(request: Request, most: int, timeout_s: float) -> bytes:
    """The body, of which no more than `most` bytes are ever held."""
    body = bytearray()
    if int(request.headers.get("content-length") or 0) > most:
        raise _too_large(most)
    try:
        async with asyncio.timeout(timeout_s):
            async for chunk in request.stream():
                body += chunk
                if len(body) > most:
                    raise _too_large(most)
    except TimeoutError:
        raise HTTPException(408, f"the body did not arrive within {timeout_s:g} s") from None
    return bytes(body)


def _too_large(most: int) -> HTTPException:
    return HTTPException(413, f"the body is larger than {most} bytes: send several requests")


def _read(kind: str, body: bytes, most: int) -> wire.Request:
    try:
        asked = wire.read_arrow(body, most) if kind == wire.ARROW else wire.read_json(body)
    except wire.WireError as error:
        raise HTTPException(422, str(error)) from None
    if not 1 <= len(asked.items) <= most:
        raise HTTPException(422, f"{len(asked.items)} items: write 1 to {most}")
    return asked
