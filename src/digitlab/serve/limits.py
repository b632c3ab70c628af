"""Read the body of a request within limits of size and time."""

import asyncio

from fastapi import HTTPException, Request
from starlette.requests import ClientDisconnect

LARGEST = 20 * 2**20  # bytes of a body: a photograph of 50 megapixels, or 9,000 images of 28 x 28 as JSON
SLOWEST = 20  # seconds for a body to arrive
CUT = {"Connection": "close"}  # or the rest of the body would be read all the same


async def read_body(request: Request) -> bytes:
    """Return the body; HTTPException 413 where it is too large, 408 where it is too slow, 400 where it ends."""
    too_large = HTTPException(413, f"the body must have at most {LARGEST >> 20} MiB", CUT)
    if int(request.headers.get("content-length", 0)) > LARGEST:
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(SLOWEST):
            async for part in request.stream():
                body += part
                if len(body) > LARGEST:
                    raise too_large
    except ClientDisconnect:
        raise HTTPException(400, "the body did not arrive", CUT) from None
    except TimeoutError:
        raise HTTPException(408, f"the body must arrive within {SLOWEST} s", CUT) from None
    return bytes(body)
