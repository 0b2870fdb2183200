"""Commands that measure; README.md here lists them."""
