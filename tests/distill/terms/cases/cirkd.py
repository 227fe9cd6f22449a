"""cirkd and cirkd_memory."""

from kdsearch.testing.terms import TermCase

HEAD = {"head": 6}
QUEUES = {"queue": 40, "region_queue": 6, "pixels_per_class": 3}
CASES = [
    TermCase("cirkd", {}, HEAD, HEAD, zero_at_equality=True, channel_free=True),
    TermCase("cirkd", {"tap": "c4", "tau": 0.3, "pool": 2}, {"c4": 3}, {"c4": 5}, zero_at_equality=True),
    TermCase("cirkd", {"mask_ignored": False}, HEAD, {"head": 4}, masks_ignored=False, zero_at_equality=True),
    # Pixels are drawn for each image, and entries by their place in the queue.
    TermCase("cirkd_memory", QUEUES, HEAD, {"head": 4}, order_free=False),
    TermCase("cirkd_memory", {"w_pixel": 0.0, "region_queue": 3}, {"head": 3}, HEAD, order_free=False),
    TermCase("cirkd_memory", {"w_region": 0.0, "queue": 5}, {"head": 3}, HEAD, order_free=False),
]
