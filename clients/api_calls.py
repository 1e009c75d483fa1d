"""Calls of the HTTP interface and its refusals; :mod:`clients.api` names them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from clients.errors import ApiError

ANSWER_S = 70.0
"""How long an answer may take to begin; the interface itself gives a command up after 60."""
CONNECT_S = 5.0


class Calls:
    """One server, by connections that are kept. Safe from several threads."""

    def __init__(self, url: str, token: str | None) -> None:
        self.url = url.rstrip("/")
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        timeout = httpx.Timeout(ANSWER_S, connect=CONNECT_S)
        try:
            # No proxy of the environment: it would be asked for the loopback of its own machine.
            self._client = httpx.Client(base_url=self.url, headers=headers, timeout=timeout, trust_env=False)
        except (httpx.InvalidURL, UnicodeEncodeError) as error:
            raise ApiError(None, "bad_option", f"{url!r} with that token can't be used: {error}") from None

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def json(self, method: str, path: str, *, body: Any = None, **params: Any) -> Any:
        """The JSON of an answer; parameters that are None are left out. Raises :class:`ApiError`."""
        response = self.whole(method, path, json=body, params=params)
        try:
            return response.json()
        except ValueError:
            raise ApiError(None, "error", f"{response.url} answered no JSON: is it rjepa that answers there?") from None

    def whole(self, method: str, path: str, *, params: dict[str, Any] | None = None, **more: Any) -> httpx.Response:
        """An answer with its body. Raises :class:`ApiError`."""
        with self._errors():
            response = self._client.request(method, path, params=_given(params), **more)
        if response.status_code >= 400:
            raise refusal(response)
        return response

    @contextmanager
    def opened(
        self,
        path: str,
        *,
        headers: dict[str, str] | None = None,
        read_s: float = ANSWER_S,
        params: dict[str, Any] | None = None,
    ) -> Iterator[httpx.Response]:
        """An answer to GET whose body is read in pieces; ``read_s`` is how long it may be silent.

        Raises :class:`ApiError`, also where the answer is cut while the block reads it.
        """
        timeout = httpx.Timeout(read_s, connect=CONNECT_S)
        with (
            self._errors(),
            self._client.stream("GET", path, params=_given(params), headers=headers, timeout=timeout) as response,
        ):
            if response.status_code >= 400:
                response.read()
                raise refusal(response)
            yield response

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except httpx.ConnectError:
            told = f"no server answers at {self.url}; start one with `rjepa serve`, or name its address"
            raise ApiError(None, "unreachable", told) from None
        except httpx.TimeoutException as error:
            told = f"{self.url} did not answer in time ({type(error).__name__})"
            raise ApiError(None, "unreachable", told) from None
        except httpx.UnsupportedProtocol:
            raise ApiError(None, "bad_option", f"{self.url!r} is no address like http://127.0.0.1:8000") from None
        except httpx.TransportError as error:
            told = f"the connection to {self.url} was cut ({str(error) or type(error).__name__})"
            raise ApiError(None, "unreachable", told) from None


def refusal(response: httpx.Response) -> ApiError:
    """The error an answer with a status of 400 and more tells of."""
    try:
        told = response.json()
        return ApiError(response.status_code, str(told["code"]), str(told["detail"]))
    except (ValueError, KeyError, TypeError):
        told = f"{response.url} answered {response.status_code} without a problem: is it rjepa that answers there?"
        return ApiError(response.status_code, "error", told)


def _given(params: dict[str, Any] | None) -> dict[str, Any]:
    return {name: value for name, value in (params or {}).items() if value is not None}
