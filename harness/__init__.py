"""What tests and benchmarks share: the real service as a process, and input for it.

server      runs the service and sends requests to it
commands    runs the service's commands (``python -m service …``)
postgres    runs a Postgres server on a temporary folder
processes   free ports, environment variables and resident memory of such processes
images      makes small images and extracts the CIFAR-10 sample
models      makes model artifacts with random weights, without torch
trained     makes model artifacts of the trainer's networks, with random weights
"""

from pathlib import Path

ROOT = Path(__file__).parent.parent
