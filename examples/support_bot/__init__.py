"""A support bot in Flask; `app` is the application."""
