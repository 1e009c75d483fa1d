"""The dashboard as files: a page's frame, style sheets and plain ES modules. Nothing here is built or fetched elsewhere."""
