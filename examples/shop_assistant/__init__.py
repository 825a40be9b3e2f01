"""A shop with an assistant, in Django."""
