"""The centre: ingest, storage, queries, symbols, alerts and the page."""
