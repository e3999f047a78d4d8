"""How the API answers: JSON, Arrow for those who ask for it, and errors that name the field."""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import pyarrow as pa
from pydantic import BaseModel, ValidationError
from pydantic_core import to_json, to_jsonable_python
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from jobs.dispatcher import StaleAttemptError
from jobs.importing_offline import ImportRefusedError
from jobs.records import RecordError
from jobs.spool import FrameError
from jobs.states import NotAllowedError, UnknownError
from jobs.store import BatchRefusedError, StoreFailedError

ARROW = "application/vnd.apache.arrow.stream"
"""Media type of a table as an Arrow stream."""
LARGEST_BODY = 80 * 2**20
"""Bytes of the largest request."""

Model = TypeVar("Model", bound=BaseModel)
Verb = Callable[[Request, bytes], Any]
"""What a route does with a request and its body; it may block, and returns a response or what is sent as JSON."""

STATUS: Mapping[type[Exception], int] = {
    UnknownError: 404,
    NotAllowedError: 409,
    StaleAttemptError: 409,
    FileExistsError: 409,
    ImportRefusedError: 422,
    BatchRefusedError: 422,
    RecordError: 422,
    FrameError: 422,
    StoreFailedError: 507,
    OSError: 422,
}
"""Errors that are answers, and their HTTP status; their message is for the person or worker who asked."""
FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
"""Errors of a file system that has no room left; what else a file refuses is the fault of the path asked for."""


def problems(error: ValidationError) -> list[dict[str, Any]]:
    """Wrong fields of a spec for people: field (with dots), value, and what is wrong and accepted."""
    return [
        {
            "field": ".".join(map(str, detail["loc"])),
            "value": to_jsonable_python(detail["input"], fallback=str),
            "message": detail["msg"].removeprefix("Value error, "),
        }
        for detail in error.errors(include_url=False, include_context=False)
    ]


def endpoint(verb: Verb) -> Callable[[Request], Any]:
    """A route's function: reads the body, does the verb on a thread of its own, and answers, errors too."""

    async def answer(request: Request) -> Response:
        try:
            body = await _read(request)
            if body is None:
                return as_json({"error": f"the request is larger than {LARGEST_BODY} bytes"}, 413)
            result = await run_in_threadpool(verb, request, body)
        except ValidationError as error:
            return as_json({"errors": problems(error)}, 422)
        except tuple(STATUS) as error:
            return _refusal(error)
        return result if isinstance(result, Response) else as_json(result)

    return answer


def as_json(content: object, status: int = 200) -> Response:
    """A JSON answer: times in ISO 8601, numbers that are not finite as null."""
    return Response(
        to_json(content, inf_nan_mode="null", fallback=str), status, media_type="application/json"
    )


def as_table(request: Request, table: pa.Table) -> Response:
    """A table as an Arrow stream where the request accepts that, else as a JSON list of rows."""
    if ARROW not in request.headers.get("accept", ""):
        return as_json(table.to_pylist())
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return Response(sink.getvalue().to_pybytes(), media_type=ARROW)


def parse(model: type[Model], body: bytes) -> Model:
    """A request's JSON body.

    Raises:
        ValidationError: Naming each wrong field.
    """
    return model.model_validate_json(body or b"{}")


def parse_query(model: type[Model], request: Request) -> Model:
    """A request's query string; a field that is a list may be given several times.

    Raises:
        ValidationError: Naming each wrong field.
    """
    given: dict[str, Any] = {}
    for name, value in request.query_params.multi_items():
        field = model.model_fields.get(name)
        many = field is not None and "list" in str(field.annotation)
        given[name] = [*given.get(name, []), value] if many else value
    return model.model_validate(given)


def _refusal(error: Exception) -> Response:
    """The answer to what cannot be done; a worker that is not wanted any more is told to stop."""
    status = next(status for kind, status in STATUS.items() if isinstance(error, kind))
    if isinstance(error, OSError) and error.errno in FULL:
        status = 507
    content = {"error": _line(error)}
    if isinstance(error, StaleAttemptError):
        content["command"] = "stop"
    return as_json(content, status)


def _line(error: Exception) -> str:
    """One line on what went wrong; what the system says of a file names that file."""
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return str(error)


async def _read(request: Request) -> bytes | None:
    """The body; none when it is too large."""
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > LARGEST_BODY:
            return None
        parts.append(part)
    return b"".join(parts)
