"""Benchmarks. ``python -m bench.NAME --help`` shows the options of one.

The model and its training:
    network     images a second of a network on the CPU: our convolutions beside torch
    compare     retrieval quality of the codes beside floats, PQ, OPQ, ITQ and LSH
    unseen      the same for kinds of images that were not learnt, and changed copies of images
    train       images a second of a training step beside the network alone
    curves      mAP on held-out images by seconds of training, from training logs
    hits        precision at 10, and a plot of queries with their nearest images

The scan:
    scan        milliseconds per query of the native scan beside faiss; memory per code
    gpuscan     milliseconds per query of the CUDA scan beside the GPU's limits and other methods

The service:
    service     capacity and latency of POST /search beside a Pillow route, faiss and pgvector
    encoder     capacity of POST /search with models/photos beside decoding and encoding alone
    overload    replies and memory at twice the capacity
    post        latency of POST /search with 1, 16 and 64 clients, for codes on a GPU
    start       time from the start of the process until it is ready, memory and disk space
    imports     images a second of an import beside decoding and encoding alone
    reindex     latency of searches during a re-index and a change of the active model
    replicas    lag of three replicas behind their database

On a machine with a CUDA device:
    gpu         all tests, measurements and trainings that need one, as ``make gpu`` runs them

Images of the documentation:
    explain     draws the figures of docs/how-it-works.md
    page        takes the screenshot docs/page.jpg

What the benchmarks share:
    data        unpacks the data packs for ``gpu``
    database    fills a database with random codes and runs the service over it
    load        sends requests as fast as possible or in bursts, by autocannon
    machine     describes the machine
    output      prints and writes results
    peers       the applications that ``service`` compares the service to
    photographs makes JPEGs of several sizes from an example image
    plots       formats axes
    rates       measures images a second
    sender      sends requests at a fixed rate, by Locust
    several_labels  makes tables of images with several labels, for ``trainer compare``
"""
