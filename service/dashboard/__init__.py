"""The dashboard as files: a page, style sheets and plain ES modules. Nothing is built, nothing is from elsewhere."""
