"""Loading, generating and looking inside: everything that touches weights."""
