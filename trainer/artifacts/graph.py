"""Exports networks from torch as graphs whose weights stand in model.safetensors."""

import importlib.util
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from gpq.errors import GraphError
from gpq.model import graph
from gpq.model.artifact import MAX_BYTES
from gpq.model.weights import NETWORK_PREFIX, TYPES, WEIGHTS, Place, Weights
from trainer.errors import TrainerError

OPSET = 20
INPUT, OUTPUT = "images", "features"
LARGE_BYTES = 1024  # tensors of this size and more stand in model.safetensors
NEEDED = ("onnx", "onnxscript")


def missing() -> str:
    """Returns the reason why no graph can be exported here, or an empty string."""
    absent = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if not absent:
        return ""
    return f"{' and '.join(absent)} {'is' if len(absent) == 1 else 'are'} not installed"


def export(network: nn.Module, size: int) -> Any:
    """Returns the onnx_ir.Model of a network for images of ``size`` pixels a side.

    Batch norm stays as it is, so that weights keep their names and values. Raises TrainerError.
    """
    from onnxscript import optimizer

    network = network.eval().to("cpu", memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    images = torch.zeros(2, 3, size, size)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # of the exporter, about its own parts
            exported = torch.onnx.export(
                network,
                (images,),
                dynamo=True,
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                input_names=[INPUT],
                output_names=[OUTPUT],
                opset_version=OPSET,
                optimize=False,  # it would fold batch norm into convolutions
                verbose=False,
            )
    except torch.onnx.errors.OnnxExporterError as error:
        line = str(error).partition("\n")[0]
        raise TrainerError(f"the network cannot be exported as a graph: {line}") from error
    assert exported is not None  # no file was named
    model = exported.model
    optimizer.fold_constants(model)
    unsqueeze_numbers(model)
    optimizer.remove_unused_nodes(model)
    return model


def tensors_of(network: nn.Module) -> dict[str, NDArray[np.generic]]:
    """Returns the tensors of a network by their names in model.safetensors."""
    tensors = network.state_dict().items()
    return {NETWORK_PREFIX + name: tensor.detach().cpu().numpy() for name, tensor in tensors}


def require_servable(network: nn.Module, size: int, dimension: int) -> None:
    """Raises TrainerError if services could not run a network, whatever its weights are.

    ``size``: pixels a side of the images. ``dimension``: the number of features.
    """
    kinds = {np.dtype(dtype): kind for kind, dtype in TYPES.values()}
    places: dict[str, Place] = {}
    end = 0
    for name, tensor in tensors_of(network).items():
        places[name] = Place(end, tensor.nbytes, kinds[tensor.dtype], tensor.shape)
        end += tensor.nbytes
    if end > MAX_BYTES:
        raise TrainerError(f"the network has {end} bytes; a model may have at most {MAX_BYTES}")
    made = serialise(export(network, size), places)
    try:
        graph.check(made, Weights({}, places), size, dimension)
    except GraphError as error:
        raise TrainerError(f"no service could run the network: {error}") from error


def unsqueeze_numbers(model: Any) -> None:
    """Replaces Reshape by Unsqueeze where the exporter makes a list of one number, the batch size.

    ONNX's shape inference follows numbers through Unsqueeze only.
    """
    import onnx_ir

    for node in list(model.graph):
        source = node.inputs[0].producer() if node.inputs and node.inputs[0] is not None else None
        if node.op_type != "Reshape" or source is None or source.op_type != "Squeeze":
            continue
        wanted = onnx_ir.convenience.get_const_tensor(node.inputs[1])
        if wanted is None or wanted.numpy().tolist() != [-1]:
            continue
        node.op_type = "Unsqueeze"
        node.attributes.clear()
        node.replace_input_with(1, _axis_zero(model))


def _axis_zero(model: Any) -> Any:
    import onnx_ir

    name = "first_axis"
    if name not in model.graph.initializers:
        tensor = onnx_ir.tensor(np.array([0], dtype=np.int64), name=name)
        value = onnx_ir.Value(name=name, const_value=tensor)
        model.graph.register_initializer(value)
    return model.graph.initializers[name]


def serialise(model: Any, places: Mapping[str, Place]) -> bytes:
    """Returns the bytes of a graph whose weights are those of ``places``, by name.

    A weight W of the graph stands in model.safetensors under the name F.W. Small constants stay
    in the graph. Notes of the exporter about source files are left out.
    """
    import onnx_ir

    for name, value in model.graph.initializers.items():
        place = places.get(NETWORK_PREFIX + name)
        if place is not None:
            value.const_value = onnx_ir.ExternalTensor(
                WEIGHTS,
                place.offset,
                place.length,
                onnx_ir.DataType[place.kind],
                shape=onnx_ir.Shape(place.shape),
                name=name,
            )
    proto = onnx_ir.to_proto(model)
    main = proto.graph
    for holder in (proto, main, *main.node, *main.input, *main.output):
        del holder.metadata_props[:]
    for holder in (main, *main.node):
        holder.doc_string = ""
    del main.value_info[:]
    proto.producer_name = proto.producer_version = proto.doc_string = ""
    data: bytes = proto.SerializeToString(deterministic=True)
    return data
