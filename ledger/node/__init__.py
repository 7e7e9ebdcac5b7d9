"""A log node as a site sees it: over HTTP, and not believed."""
