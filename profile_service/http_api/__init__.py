"""The service's outside: HTTP routes, their guard, and the document that describes them."""
