"""Runs the networks of models: in OpenVINO, in ONNX Runtime or in torch.

``engines`` chooses one. May import ``gpq.model`` and the packages below it. Only the modules named
torch_… import torch, and only ``engines`` imports the modules of engines, when it needs one.
"""
