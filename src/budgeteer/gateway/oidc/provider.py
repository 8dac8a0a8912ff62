"""The OpenID provider: what it publishes about itself, where it is sent to, and who it says has signed in."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Awaitable, Mapping
from typing import Any, TypeVar

import httpx2
from authlib.integrations.base_client.errors import OAuthError
from authlib.integrations.httpx_client import AsyncOAuth2Client
from authlib.oauth2.client import OAuth2Client

from budgeteer.gateway.access import value_of
from budgeteer.gateway.admins import Oidc
from budgeteer.gateway.keyring import run
from budgeteer.gateway.oidc import tokens
from budgeteer.gateway.refusal import Refused

T = TypeVar("T")
_FRESH = 3600.0
"""Seconds for which what the provider publishes is remembered."""
_AGAIN = 3.0
"""Seconds after a failure in which the provider is not asked again, since strangers can have it asked."""
_SECONDS = 8.0
"""The most seconds that a sign-in waits for the provider; connections of strangers are not held for much longer."""
_NEEDED = ("authorization_endpoint", "token_endpoint", "jwks_uri")


class Provider:
    """The provider of one gateway.

    Args:
        oidc: the settings.
        wanted: claims that decide who is an admin; those that the ID token lacks are asked for.
    """

    def __init__(self, oidc: Oidc, wanted: frozenset[str]) -> None:
        self._oidc, self._wanted = oidc, wanted
        self._known: tuple[float, Mapping[str, Any]] | None = None
        self._keys: Mapping[str, Any] | None = None
        self._failed: tuple[float, Refused] | None = None
        self._tls: ssl.SSLContext | None = None
        self._lock = asyncio.Lock()

    async def _http(self) -> dict[str, Any]:
        """Settings of a client. Certificates are read once, in a thread: that takes tens of milliseconds."""
        if self._tls is None:
            self._tls = await run(httpx2.create_ssl_context)
        return {"verify": self._tls, "timeout": _SECONDS}

    async def metadata(self) -> Mapping[str, Any]:
        """What the provider publishes about itself.

        Raises:
            Refused: 502, it does not answer, or not what it has to.
        """
        async with self._lock:
            now = time.monotonic()
            if self._known is not None and self._known[0] > now:
                return self._known[1]
            if self._failed is not None and self._failed[0] > now:
                raise self._failed[1]
            try:
                metadata = await self._in_time(self._discover())
            except Refused as error:
                self._failed = now + _AGAIN, error
                raise
            self._known, self._keys = (now + _FRESH, metadata), None
            return metadata

    async def _discover(self) -> Mapping[str, Any]:
        issuer = self._oidc.issuer
        metadata = await self._get(f"{issuer.rstrip('/')}/.well-known/openid-configuration")
        if metadata.get("issuer") != issuer:
            named = str(metadata.get("issuer"))[:200]
            raise _failed(f"[oidc] issuer is {issuer!r}, but the service there names itself {named!r}: write it so")
        for name in _NEEDED:
            address = metadata.get(name)
            if not isinstance(address, str) or not address.startswith(("https://", "http://")):
                raise _failed(f"The sign-in service {issuer} does not say its {name}")
            if issuer.startswith("https://") and not address.startswith("https://"):
                raise _failed(f"The sign-in service {issuer} has a {name} without TLS: {address[:200]}")
        return metadata

    async def _get(self, address: str, **headers: str) -> dict[str, Any]:
        async with httpx2.AsyncClient(**await self._http()) as client:
            answer = await client.get(address, headers={"accept": "application/json", **headers})
        if answer.status_code != 200:
            raise _failed(f"{address} answers {answer.status_code}")
        body = answer.json()
        if not isinstance(body, dict):
            raise _failed(f"{address} answers something else than a JSON object")
        return body

    async def _in_time(self, asking: Awaitable[T]) -> T:
        """The result of asking the provider, with all its failures as one kind of error."""
        issuer = self._oidc.issuer
        try:
            async with asyncio.timeout(_SECONDS):
                return await asking
        except OAuthError as error:
            about = f"{error.error}{': ' + str(error.description)[:200] if error.description else ''}"
            hint = (
                "; check client_id and client_secret_env"
                if error.error in ("invalid_client", "unauthorized_client")
                else ""
            )
            raise _failed(f"The sign-in service {issuer} refuses what this gateway asks ({about}){hint}") from None
        except TimeoutError:
            raise _failed(f"The sign-in service {issuer} does not answer within {_SECONDS:g} s") from None
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            why = str(error)[:200] or type(error).__name__
            raise _failed(f"The sign-in service {issuer} does not answer ({why})") from None
        except ValueError as error:
            raise _failed(
                f"The sign-in service {issuer} answers something else than JSON ({str(error)[:200]})"
            ) from None

    async def address(self, state: str, nonce: str, verifier: str) -> str:
        """Where a browser is sent to sign in.

        Args:
            state, nonce, verifier: of this sign-in; of the verifier only its hash is sent (PKCE).
        """
        metadata = await self.metadata()
        client = OAuth2Client(
            None, self._oidc.client_id, scope=" ".join(self._oidc.scopes), code_challenge_method="S256"
        )
        url, _ = client.create_authorization_url(
            metadata["authorization_endpoint"],
            state=state,
            code_verifier=verifier,
            nonce=nonce,
            redirect_uri=self._oidc.callback,
        )
        return str(url)

    async def claims(self, query: Mapping[str, str], nonce: str, verifier: str) -> dict[str, Any]:
        """What the provider says of who has signed in.

        Args:
            query: with which it sent the browser back; its state is checked already.
            nonce, verifier: of this sign-in.

        Raises:
            Refused: 403, the provider or the person has declined; 502, the provider does not answer, or what it says
                cannot be trusted.
        """
        metadata = await self.metadata()
        issuer = self._oidc.issuer
        says_issuer = metadata.get("authorization_response_iss_parameter_supported") is True
        if query.get("iss", None if says_issuer else issuer) != issuer:
            raise _failed("Another sign-in service than the configured one sent you here")
        if "error" in query:
            about = ": ".join(query[name][:200] for name in ("error", "error_description") if name in query)
            raise Refused(403, "sign_in_declined", f"The sign-in service {issuer} let nobody in ({about}).")
        return await self._in_time(self._exchange(metadata, query.get("code", ""), nonce, verifier))

    async def _exchange(self, metadata: Mapping[str, Any], code: str, nonce: str, verifier: str) -> dict[str, Any]:
        ways = metadata.get("token_endpoint_auth_methods_supported") or ["client_secret_basic"]
        way = "client_secret_basic" if "client_secret_basic" in ways else "client_secret_post"
        secret = self._oidc.secret or None
        way = way if secret else "none"
        async with AsyncOAuth2Client(
            self._oidc.client_id, secret, token_endpoint_auth_method=way, **await self._http()
        ) as client:
            got = await client.fetch_token(
                metadata["token_endpoint"],
                grant_type="authorization_code",
                code=code,
                code_verifier=verifier,
                redirect_uri=self._oidc.callback,
            )
        access = str(got.get("access_token") or "")
        if not isinstance(got.get("id_token"), str):
            raise _failed("The sign-in service gave no ID token")
        claims = await self._read(metadata, got["id_token"], nonce, access)
        place = metadata.get("userinfo_endpoint")
        if isinstance(place, str) and access and any(value_of(claims, name) is None for name in self._wanted):
            claims = tokens.merged(claims, await self._get(place, authorization=f"Bearer {access}"))
        return claims

    async def _read(self, metadata: Mapping[str, Any], token: str, nonce: str, access: str) -> dict[str, Any]:
        """The claims of an ID token; the keys are read again if it is signed with one that is not known yet."""
        expected = {"issuer": self._oidc.issuer, "client_id": self._oidc.client_id, "nonce": nonce}
        for keys in (self._keys, None):
            if keys is None:
                keys = self._keys = await self._get(metadata["jwks_uri"])
            try:
                return tokens.read(token, keys, **expected, access_token=access)
            except tokens.UnknownKey:
                pass
        raise _failed("The ID token of the sign-in service is signed with a key that it does not publish")

    async def left(self) -> str:
        """Where a browser ends its session with the provider; "" if the provider has no such place."""
        place = (await self.metadata()).get("end_session_endpoint")
        if not isinstance(place, str) or not place.startswith(("https://", "http://")):
            return ""
        query = {"client_id": self._oidc.client_id, "post_logout_redirect_uri": f"{self._oidc.url}/login"}
        return str(httpx2.URL(place).copy_merge_params(query))


def _failed(why: str) -> Refused:
    return Refused(502, "sign_in_failed", f"{why}.")
