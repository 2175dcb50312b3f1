"""Writes the transformer of networks.py as an ONNX graph of plain operators (opset 20), as an exporter would."""
import argparse

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIZE, HEADS, BLOCKS = 256, 4, 4


class Graph:
    """Nodes and initializers under construction."""

    def __init__(self):
        self.nodes, self.initializers, self.random = [], [], np.random.default_rng(0)

    def constant(self, name, array):
        if all(i.name != name for i in self.initializers):
            self.initializers.append(numpy_helper.from_array(array, name))
        return name

    def node(self, op, name, inputs, **attributes):
        self.nodes.append(helper.make_node(op, inputs, [name], name, **attributes))
        return name

    def norm(self, x, name):
        scale = self.constant(f"{name}.weight", np.ones(SIZE, np.float32))
        bias = self.constant(f"{name}.bias", np.zeros(SIZE, np.float32))
        return self.node("LayerNormalization", name, [x, scale, bias], axis=-1)

    def linear(self, x, name, inputs, outputs):
        bound = inputs**-0.5
        weight = self.constant(f"{name}.weight", self.random.uniform(-bound, bound, (inputs, outputs)).astype(np.float32))
        bias = self.constant(f"{name}.bias", np.zeros(outputs, np.float32))
        return self.node("Add", name, [self.node("MatMul", f"{name}.product", [x, weight]), bias])

    def heads(self, x, name, perm):
        shape = self.constant("heads.shape", np.int64([0, 0, HEADS, SIZE // HEADS]))
        return self.node("Transpose", f"{name}.heads", [self.node("Reshape", f"{name}.split", [x, shape])], perm=perm)

    def block(self, x, name):
        normed = self.norm(x, f"{name}.norm1")
        query, key, value = (self.linear(normed, f"{name}.{part}", SIZE, SIZE) for part in ("query", "key", "value"))
        scale = self.constant("scale", np.float32((SIZE // HEADS) ** -0.5))
        query = self.node("Mul", f"{name}.scaled", [self.heads(query, f"{name}.query", [0, 2, 1, 3]), scale])
        scores = self.node("MatMul", f"{name}.scores", [query, self.heads(key, f"{name}.key", [0, 2, 3, 1])])
        weights = self.node("Softmax", f"{name}.attention", [scores], axis=-1)
        attended = self.node("MatMul", f"{name}.attended", [weights, self.heads(value, f"{name}.value", [0, 2, 1, 3])])
        joined = self.node("Transpose", f"{name}.joined", [attended], perm=[0, 2, 1, 3])
        joined = self.node("Reshape", f"{name}.merged", [joined, self.constant("merged.shape", np.int64([0, 0, SIZE]))])
        x = self.node("Add", f"{name}.add1", [x, self.linear(joined, f"{name}.out", SIZE, SIZE)])
        up = self.node("Gelu", f"{name}.gelu", [self.linear(self.norm(x, f"{name}.norm2"), f"{name}.up", SIZE, 4 * SIZE)])
        return self.node("Add", f"{name}.add2", [x, self.linear(up, f"{name}.down", 4 * SIZE, SIZE)])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("output")
    args = parser.parse_args()
    graph, x = Graph(), "input"
    for i in range(BLOCKS):
        x = graph.block(x, f"blocks.{i}")
    inputs, outputs = (helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", 128, SIZE]) for n in ("input", x))
    body = helper.make_graph(graph.nodes, "transformer", [inputs], [outputs], graph.initializers)
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    onnx.checker.check_model(model)
    onnx.save(model, args.output)


if __name__ == "__main__":
    main()
