"""Sign-in of admins by OpenID Connect (extra ``oidc``): the provider, what it says of a person, and the routes."""
