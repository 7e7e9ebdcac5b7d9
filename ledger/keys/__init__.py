"""Private keys and what is signed with them: device keys, the site's certificate authority, the log's key, the chain
account."""
