"""What mypy must refuse: each line marked E is an error, and no other line is."""

import perfkit

perfkit.chat(3)  # E
perfkit.chat("hi", temperature="hot")  # E
perfkit.chat("hi").text.fly()  # E
perfkit.ChatRequest("hi")  # E
perfkit.nothing()  # E
perfkit.batch(["a"], on_error="shrug")  # E
perfkit.cache.get("key", ttl="long")  # E


@perfkit.profile
def twice(n: int) -> int:
    return 2 * n


twice("two")  # E
