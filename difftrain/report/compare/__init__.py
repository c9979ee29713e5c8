"""Compare finished runs in a table like the papers': each row against its random control."""
