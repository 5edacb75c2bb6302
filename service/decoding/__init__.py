"""Decodes images in processes that can be killed.

Image files come from strangers, and decoders are large programs in C. A process that takes too
long, needs too much memory or crashes costs its image, and nothing else.

    decoder   hands images to the processes and waits for their pixels
    pool      the processes: starts them, replaces those that end, shares the pixel budget
    process   one process, as the service sees it
    child     the program that runs in each process
    task      what a process is asked to do, and what it replies
"""
