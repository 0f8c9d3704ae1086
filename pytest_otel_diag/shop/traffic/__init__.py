"""Traffic of the shop: virtual users over HTTP, browser users, and requests driven on demand."""
