"""Rules, their alerts and the webhooks that carry them."""
