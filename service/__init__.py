"""The search service: FastAPI over gpq. docs/architecture.md is the map.

An upload passes http -> catalogue.ingest -> models -> originals -> database -> index.
A query passes http -> catalogue.searcher -> models -> index -> database.
"""
