"""The service: FastAPI over gpq. Data flows one way:

bytes -> uploads -> encoder -> originals, store -> feed -> index -> search
"""
