"""Products, their descriptions, and an assistant that knows them."""
