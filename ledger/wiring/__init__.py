"""Objects are built here, and nowhere else: what a command needs, from a site's folder or a trust file."""
