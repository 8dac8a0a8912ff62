"""Check what a provider says of who has signed in: the ID token, and the answer of its userinfo endpoint."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from authlib.oidc.core import CodeIDToken
from joserfc import jws, jwt
from joserfc.errors import BadSignatureError, ClaimError, JoseError
from joserfc.jwk import import_key

from budgeteer.gateway.refusal import Refused

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519")
"""Signatures that only the provider can make: with the secret of a shared one, whoever knows it signs in as anybody."""
_KINDS = ("RSA", "EC", "OKP")
SKEW = 60
"""Seconds by which the provider's clock may differ from ours."""


class UnknownKey(Exception):
    """An ID token is signed with a key that is not among those of the provider which are known."""


def read(
    token: str, keys: Mapping[str, Any], *, issuer: str, client_id: str, nonce: str, access_token: str = ""
) -> dict[str, Any]:
    """The claims of an ID token.

    Args:
        token: as the provider's token endpoint gave it.
        keys: the provider's key set (JWKS).
        issuer, client_id, nonce: who has to have made it, for whom, and for which sign-in.
        access_token: that came with it, whose hash it may have; "" = none.

    Raises:
        Refused: it is not signed by the provider, is for somebody else or for another sign-in, or is not valid now.
        UnknownKey: its key is not in the key set: get that again.
    """
    made = _verified(token, keys)
    _check_clock(made.claims)
    options = {"iss": {"essential": True, "value": issuer}, "aud": {"essential": True, "value": client_id}}
    params = {"nonce": nonce, "client_id": client_id, "access_token": access_token}
    try:
        claims = CodeIDToken(made.claims, made.header, options, params)
        claims.validate(leeway=SKEW)
    except ClaimError as error:
        seen = made.claims.get(error.claim) if error.claim in ("iss", "aud", "azp") else None
        told = "" if seen is None else f" ({str(seen)[:200]!r})"
        raise _wrong(f"its claim {error.claim!r} is not what it has to be{told}") from None
    except (JoseError, ValueError, TypeError, KeyError) as error:
        raise _wrong(_brief(error)) from None
    return dict(made.claims)


def _verified(token: str, keys: Mapping[str, Any]) -> jwt.Token:
    """An ID token whose signature is that of one of the keys; of the one that it names, if it names one."""
    try:
        name = jws.extract_compact(token.encode()).headers().get("kid")
        usable = [key for key in keys["keys"] if key.get("kty") in _KINDS and key.get("use", "sig") == "sig"]
        named = [key for key in usable if name is None or key.get("kid") == name]
        if not named:
            raise UnknownKey
        registry = jws.JWSRegistry(algorithms=list(ALGORITHMS), strict_check_header=False)
        for n, key in enumerate(named, 1):
            try:
                return jwt.decode(token, import_key(key), registry=registry)
            except BadSignatureError:
                if n == len(named):
                    raise
    except (JoseError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise _wrong(f"its signature is not valid ({_brief(error)})") from None
    raise AssertionError("a token is returned or an error raised")


def _check_clock(claims: Mapping[str, Any]) -> None:
    """Tell a clock that is wrong, here or at the provider, from a token that is."""
    now = time.time()
    issued, expires = claims.get("iat"), claims.get("exp")
    if not isinstance(issued, int | float) or not isinstance(expires, int | float):
        raise _wrong("it does not say when it was made, or until when it is valid (iat, exp)")
    if issued > now + SKEW:
        late = f"it was made {issued - now:,.0f} s in the future"
    elif expires < now - SKEW:
        late = f"it ended {now - expires:,.0f} s ago"
    else:
        return
    raise _wrong(
        f"{late} by this gateway's clock, which says {_clock(now)} (made {_clock(issued)}, valid until "
        f"{_clock(expires)}): set the clocks of both by NTP"
    )


def merged(claims: Mapping[str, Any], info: Mapping[str, Any]) -> dict[str, Any]:
    """The claims of an ID token, and those that only the userinfo endpoint has.

    Raises:
        Refused: the endpoint answers for somebody else.
    """
    if info.get("sub") != claims["sub"]:
        raise Refused(502, "sign_in_failed", "The userinfo endpoint of the sign-in service answers for somebody else.")
    same = claims.get("email") in (None, info.get("email"))  # else that other address may be verified, not this one
    return {**{name: value for name, value in info.items() if same or name != "email_verified"}, **claims}


def _wrong(why: str) -> Refused:
    return Refused(502, "sign_in_failed", f"The ID token of the sign-in service cannot be used: {why}.")


def _brief(error: Exception) -> str:
    return str(error)[:200] or type(error).__name__


def _clock(at: float) -> str:
    try:
        return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%S}"
    except (ValueError, OverflowError, OSError):
        return str(at)[:40]
