#!/usr/bin/env python3
"""Writes the small ONNX graphs in tests/fixtures, with seeded inputs and the outputs ONNX Runtime gives.

For developers only; needs `pip install onnx==1.23.2 onnxruntime==1.32.0`. Run from anywhere:

    python3 scripts/make_fixtures.py

Each fixture is NAME.onnx and NAME.npz with arrays `in__INPUT` and `out__OUTPUT`. Graph optimizations are off, so that
the outputs are the literal meaning of the graph. Where ONNX Runtime refuses the graph, the outputs are those of ONNX's
reference implementation (`onnx.reference`), which opset_changes.txt marks with a star.
"""
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto as T
from onnx import helper as h
from onnx import numpy_helper as nh
from onnx.reference import ReferenceEvaluator

OUT = Path(__file__).resolve().parent.parent / "tests" / "fixtures"
FIXTURES = []
REFERENCE = []
CODES = {np.dtype(k): v for k, v in {
    "float32": T.FLOAT, "float64": T.DOUBLE, "float16": T.FLOAT16, "int64": T.INT64, "int32": T.INT32,
    "int8": T.INT8, "uint8": T.UINT8, "int16": T.INT16, "uint16": T.UINT16, "bool": T.BOOL}.items()}
IR = {16: 8, 17: 8, 18: 8, 19: 9, 20: 9, 21: 10, 22: 10, 23: 11, 24: 12, 25: 13, 26: 13, 27: 13, 28: 14}


def fixture(f):
    FIXTURES.append(f)
    return f


class Graph:
    """Collects nodes, constants, and inputs with their values."""

    def __init__(self, opset, seed=0):
        self.opset, self.rng = opset, np.random.default_rng(seed)
        self.nodes, self.constants, self.inputs, self.feeds, self.outputs = [], [], [], {}, []
        self.functions, self.sparse, self.domains = [], [], []

    def normal(self, *shape, dtype=np.float32, scale=1.0):
        return (self.rng.standard_normal(shape) * scale).astype(dtype)

    def input(self, name, value, shape=None):
        self.inputs.append(h.make_tensor_value_info(name, CODES[value.dtype], shape or value.shape))
        self.feeds[name] = value
        return name

    def const(self, name, value):
        self.constants.append(nh.from_array(np.asarray(value), name))
        return name

    def weight(self, name, *shape, scale=0.5, dtype=np.float32):
        return self.const(name, self.normal(*shape, scale=scale, dtype=dtype))

    def node(self, op, inputs, outputs=None, **attributes):
        outputs = outputs or [f"{op.lower()}_{len(self.nodes)}"]
        self.nodes.append(h.make_node(op, inputs, outputs, **attributes))
        return outputs[0] if len(outputs) == 1 else outputs

    def output(self, name, code=T.FLOAT, shape=None):
        self.outputs.append(h.make_tensor_value_info(name, code, shape))

    def model(self, name):
        graph = h.make_graph(self.nodes, name, self.inputs, self.outputs, self.constants, sparse_initializer=self.sparse)
        opsets = [h.make_opsetid("", self.opset)] + [h.make_opsetid(d, 1) for d in self.domains]
        return h.make_model(graph, opset_imports=opsets, functions=self.functions, ir_version=IR[self.opset],
                            producer_name="make_fixtures")


def single(name, opset, op, feeds, consts=(), outputs=("y",), codes=(T.FLOAT,), **attributes):
    """A graph of one node; `consts` are trailing constant inputs as (name, value), None for an omitted one."""
    def build():
        g = Graph(opset)
        inputs = [g.input(n, v) for n, v in feeds]
        for entry in consts:
            inputs.append("" if entry is None else entry[1] if isinstance(entry[1], str) else
                          (g.constants.append(entry[1]) or entry[1].name) if isinstance(entry[1], onnx.TensorProto) else g.const(*entry))
        g.node(op, inputs, list(outputs), **attributes)
        for o, c in zip(outputs, codes):
            if o:
                g.output(o, c)
        return g
    build.__name__ = name
    FIXTURES.append(build)


R = np.random.default_rng(7)


def n(*shape, dtype=np.float32):
    return R.standard_normal(shape).astype(dtype)


def i64(*v):
    return np.array(v, dtype=np.int64)


# Networks -----------------------------------------------------------------------------------------------------------

@fixture
def attention_block():
    """A pre-norm transformer block of two heads from primitive operators, batch of any size."""
    g = Graph(17)
    x = g.input("x", g.normal(2, 5, 8), ["batch", 5, 8])
    norm = g.node("LayerNormalization", [x, g.weight("gamma", 8), g.weight("beta", 8)])
    heads = {}
    for part in "qkv":
        y = g.node("MatMul", [norm, g.weight(f"w{part}", 8, 8)])
        y = g.node("Add", [y, g.weight(f"b{part}", 8)])
        y = g.node("Reshape", [y, g.const(f"shape_{part}", i64(0, 0, 2, 4))])
        heads[part] = g.node("Transpose", [y], perm=[0, 2, 3, 1] if part == "k" else [0, 2, 1, 3])
    scores = g.node("Div", [g.node("MatMul", [heads["q"], heads["k"]]), g.const("root", np.float32(2))])
    y = g.node("MatMul", [g.node("Softmax", [scores], axis=-1), heads["v"]])
    y = g.node("Reshape", [g.node("Transpose", [y], perm=[0, 2, 1, 3]), g.const("merged", i64(0, 0, 8))])
    y = g.node("Add", [g.node("MatMul", [y, g.weight("wo", 8, 8)]), x], ["y"])
    g.output(y)
    return g


@fixture
def layer_normalization():
    g = Graph(17)
    x = g.input("x", g.normal(2, 3, 4))
    g.node("LayerNormalization", [x, g.weight("scale", 3, 4), g.weight("bias", 3, 4)], ["y", "mean", "inverse"], axis=1, epsilon=1e-3)
    for o in ("y", "mean", "inverse"):
        g.output(o)
    return g


@fixture
def tied_embedding():
    """One table that embeds tokens and reads the logits out."""
    g = Graph(17)
    ids = g.input("ids", np.array([[1, 4, 2], [0, 9, 3]], dtype=np.int64))
    table = g.weight("table", 10, 6)
    e = g.node("Tanh", [g.node("Gather", [table, ids])])
    g.node("MatMul", [e, g.node("Transpose", [table], perm=[1, 0])], ["logits"])
    g.output("logits")
    return g


@fixture
def loop():
    """x <- x * 0.5 + outer, six times, with every state collected."""
    g = Graph(17)
    x = g.input("x", g.normal(3))
    trips, outer = g.const("trips", i64(6).reshape(())), g.weight("outer", 3)
    g.const("yes", np.array(True))
    body = h.make_graph(
        [h.make_node("Mul", ["s", "half"], ["a"]), h.make_node("Add", ["a", "outer"], ["s2"]),
         h.make_node("Less", ["i", "five"], ["go2"]), h.make_node("Identity", ["s2"], ["row"])],
        "body",
        [h.make_tensor_value_info("i", T.INT64, []), h.make_tensor_value_info("go", T.BOOL, []), h.make_tensor_value_info("s", T.FLOAT, [3])],
        [h.make_tensor_value_info("go2", T.BOOL, []), h.make_tensor_value_info("s2", T.FLOAT, [3]), h.make_tensor_value_info("row", T.FLOAT, [3])],
        [nh.from_array(np.float32(0.5), "half"), nh.from_array(np.int64(4), "five")])
    g.node("Loop", [trips, "yes", x], ["last", "all"], body=body)
    g.output("last"), g.output("all")
    return g


@fixture
def loop_without_iterations():
    g = Graph(17)
    x, trips = g.input("x", g.normal(3)), g.input("trips", np.array(0, dtype=np.int64))
    g.const("yes", np.array(True))
    body = h.make_graph(
        [h.make_node("Neg", ["s"], ["s2"]), h.make_node("Identity", ["go"], ["go2"]), h.make_node("Identity", ["s2"], ["row"])], "body",
        [h.make_tensor_value_info("i", T.INT64, []), h.make_tensor_value_info("go", T.BOOL, []), h.make_tensor_value_info("s", T.FLOAT, [3])],
        [h.make_tensor_value_info("go2", T.BOOL, []), h.make_tensor_value_info("s2", T.FLOAT, [3]), h.make_tensor_value_info("row", T.FLOAT, [3])])
    g.node("Loop", [trips, "yes", x], ["last", "all"], body=body)
    g.output("last"), g.output("all")
    return g


@fixture
def scan():
    """A recurrent cell over axis 1, read backwards, stacked along axis 1."""
    g = Graph(17)
    s, x, w = g.input("s", g.normal(2, 3)), g.input("x", g.normal(2, 5, 3)), g.weight("w", 3, 3)
    body = h.make_graph(
        [h.make_node("MatMul", ["h", "w"], ["a"]), h.make_node("Add", ["a", "x_t"], ["b"]), h.make_node("Tanh", ["b"], ["h2"]),
         h.make_node("Identity", ["h2"], ["row"])], "body",
        [h.make_tensor_value_info("h", T.FLOAT, [2, 3]), h.make_tensor_value_info("x_t", T.FLOAT, [2, 3])],
        [h.make_tensor_value_info("h2", T.FLOAT, [2, 3]), h.make_tensor_value_info("row", T.FLOAT, [2, 3])])
    g.node("Scan", [s, x], ["last", "all"], body=body, num_scan_inputs=1, scan_input_axes=[1], scan_input_directions=[1], scan_output_axes=[1])
    g.output("last"), g.output("all")
    return g


def recurrent(op, gates, direction, lengths=True, peephole=False, **attributes):
    def build():
        g = Graph(22 if op == "RNN" else 17)
        d, hidden = (2 if direction == "bidirectional" else 1), 4
        x = g.input("x", g.normal(5, 3, 2))
        inputs = [x, g.weight("w", d, gates * hidden, 2), g.weight("r", d, gates * hidden, hidden), g.weight("b", d, 2 * gates * hidden),
                  g.const("lengths", np.array([5, 3, 1], dtype=np.int32)) if lengths else "", g.weight("h0", d, 3, hidden)]
        outputs = ["y", "h"]
        if op == "LSTM":
            inputs += [g.weight("c0", d, 3, hidden)] + ([g.weight("p", d, 3 * hidden)] if peephole else [])
            outputs.append("c")
        g.node(op, inputs, outputs, hidden_size=hidden, direction=direction, **attributes)
        for o in outputs:
            g.output(o)
        return g
    build.__name__ = "_".join([op.lower(), direction] + sorted(attributes)) + ("_peephole" if peephole else "")
    FIXTURES.append(build)


recurrent("GRU", 3, "forward")
recurrent("GRU", 3, "bidirectional", linear_before_reset=1)
recurrent("LSTM", 4, "bidirectional")
recurrent("LSTM", 4, "reverse", peephole=True, clip=0.8)
recurrent("RNN", 1, "bidirectional", activations=["Relu", "Tanh"])


@fixture
def conv_transpose():
    g = Graph(17)
    x = g.input("x", g.normal(1, 4, 5, 4))
    g.node("ConvTranspose", [x, g.weight("w", 4, 3, 3, 2), g.weight("b", 6)], ["y"], group=2, strides=[2, 3], pads=[1, 0, 0, 1],
           output_padding=[1, 0], dilations=[1, 2])
    g.output("y")
    return g


def resize(name, opset, x, scales=None, sizes=None, roi=None, **attributes):
    single("resize_" + name, opset, "Resize", [("x", x)],
           [None if roi is None else ("roi", np.array(roi, dtype=np.float32)), None if scales is None else ("scales", np.array(scales, dtype=np.float32))]
           + ([("sizes", i64(*sizes))] if sizes else []), **attributes)


IMAGE = n(1, 2, 5, 4)
resize("nearest_floor", 17, IMAGE, [1, 1, 1.7, 2.0], mode="nearest", nearest_mode="floor", coordinate_transformation_mode="asymmetric")
resize("nearest_half_pixel", 17, IMAGE, sizes=[1, 2, 8, 7], mode="nearest")
resize("linear_half_pixel", 17, IMAGE, [1, 1, 0.6, 1.5], mode="linear")
resize("linear_align_corners", 17, IMAGE, sizes=[1, 2, 9, 3], mode="linear", coordinate_transformation_mode="align_corners")
resize("linear_pytorch", 17, IMAGE, sizes=[1, 2, 1, 9], mode="linear", coordinate_transformation_mode="pytorch_half_pixel")
resize("cubic", 17, IMAGE, [1, 1, 2.0, 1.5], mode="cubic")
resize("cubic_exclude_outside", 17, IMAGE, [1, 1, 0.8, 0.8], mode="cubic", exclude_outside=1, cubic_coeff_a=-0.5)
resize("crop", 17, IMAGE, sizes=[1, 2, 4, 3], roi=[0, 0, 0.1, 0.2, 1, 1, 0.8, 1.2], mode="linear",
       coordinate_transformation_mode="tf_crop_and_resize", extrapolation_value=7.0)
resize("antialias_linear_18", 18, IMAGE, [0.5, 0.7], mode="linear", antialias=1, axes=[2, 3])
resize("antialias_cubic_18", 18, IMAGE, [1, 1, 0.6, 0.6], mode="cubic", antialias=1)
resize("not_larger_18", 18, IMAGE, sizes=[8, 9], axes=[2, 3], mode="linear", keep_aspect_ratio_policy="not_larger")
resize("half_pixel_symmetric_19", 19, IMAGE, [1, 1, 1.3, 1.7], mode="linear", coordinate_transformation_mode="half_pixel_symmetric")


@fixture
def split_and_instance_normalization():
    g = Graph(17)
    x = g.input("x", g.normal(2, 6, 4, 3))
    g.node("Split", [x, g.const("sizes", i64(2, 4))], ["a", "b"], axis=1)
    g.node("InstanceNormalization", ["b", g.weight("scale", 4), g.weight("bias", 4)], ["y"])
    g.output("a"), g.output("y")
    return g


@fixture
def float16_network():
    g = Graph(17)
    x = g.input("x", g.normal(2, 3, 8, 8, dtype=np.float16))
    y = g.node("Conv", [x, g.weight("w", 4, 3, 3, 3, dtype=np.float16), g.weight("b", 4, dtype=np.float16)], pads=[1, 1, 1, 1])
    y = g.node("Flatten", [g.node("GlobalAveragePool", [g.node("Relu", [y])])])
    g.node("Gemm", [y, g.weight("v", 4, 5, dtype=np.float16), g.weight("c", 5, dtype=np.float16)], ["y"])
    g.output("y", T.FLOAT16)
    return g


@fixture
def qdq_convolution():
    """Static QDQ: per-channel int8 weights, int32 bias, uint8 activations."""
    g = Graph(17)
    x = g.input("x", g.normal(2, 3, 8, 8))
    g.const("xs", np.float32(0.03)), g.const("xz", np.uint8(120))
    g.const("ys", np.float32(0.11)), g.const("yz", np.uint8(3))
    ws = np.array([0.01, 0.02, 0.004, 0.013], dtype=np.float32)
    g.const("w", g.rng.integers(-127, 128, (4, 3, 3, 3)).astype(np.int8)), g.const("ws", ws), g.const("wz", np.zeros(4, np.int8))
    g.const("b", g.rng.integers(-900, 900, 4).astype(np.int32)), g.const("bs", ws * np.float32(0.03)), g.const("bz", np.zeros(4, np.int32))
    xq = g.node("DequantizeLinear", [g.node("QuantizeLinear", [x, "xs", "xz"]), "xs", "xz"])
    w = g.node("DequantizeLinear", ["w", "ws", "wz"], axis=0)
    b = g.node("DequantizeLinear", ["b", "bs", "bz"], axis=0)
    y = g.node("Relu", [g.node("Conv", [xq, w, b], strides=[2, 2], pads=[1, 1, 1, 1])])
    y = g.node("DequantizeLinear", [g.node("QuantizeLinear", [y, "ys", "yz"]), "ys", "yz"])
    g.node("GlobalAveragePool", [y], ["y"])
    g.output("y")
    return g


def if_branch(value):
    def build():
        g = Graph(17)
        c, x = g.input("c", np.array(value)), g.input("x", g.normal(2, 3))
        g.weight("w", 3, 3)
        branch = lambda name, nodes: h.make_graph(nodes, name, [], [h.make_tensor_value_info(name + "_y", T.FLOAT, [2, 3])])
        g.node("If", [c], ["y"], then_branch=branch("t", [h.make_node("MatMul", ["x", "w"], ["t_y"])]),
               else_branch=branch("e", [h.make_node("Neg", ["x"], ["n"]), h.make_node("Exp", ["n"], ["e_y"])]))
        g.output("y")
        return g
    build.__name__ = f"if_{str(value).lower()}"
    FIXTURES.append(build)


if_branch(True), if_branch(False)


@fixture
def dynamic_batch():
    g = Graph(17)
    x = g.input("x", g.normal(3, 2, 4, 4), ["N", 2, 4, 4])
    y = g.node("MaxPool", [g.node("Conv", [x, g.weight("w", 3, 2, 3, 3)], auto_pad="SAME_UPPER")], kernel_shape=[2, 2], strides=[2, 2])
    first = g.node("Slice", [g.node("Shape", [y]), g.const("from", i64(0)), g.const("to", i64(1))])
    shape = g.node("Concat", [first, g.const("rest", i64(-1))], axis=0)
    g.node("Reshape", [y, shape], ["y"])
    g.output("y", shape=["N", 12])
    return g


@fixture
def external_data():
    g = Graph(17)
    x = g.input("x", g.normal(2, 4))
    g.node("MatMul", [x, g.weight("w", 4, 3)], ["y"])
    g.output("y")
    g.external = True
    return g


@fixture
def local_function():
    """A function of the model with an attribute, called twice."""
    g = Graph(17)
    g.domains = ["local"]
    body = [h.make_node("LeakyRelu", ["a"], ["t"]), h.make_node("Mul", ["t", "b"], ["r"])]
    reference = onnx.AttributeProto(name="alpha", ref_attr_name="slope", type=onnx.AttributeProto.FLOAT)
    body[0].attribute.append(reference)
    g.functions = [h.make_function("local", "Scaled", ["a", "b"], ["r"], body, [h.make_opsetid("", 17)], ["slope"])]
    x = g.input("x", g.normal(2, 3))
    w = g.weight("w", 3)
    t = g.node("Scaled", [x, w], domain="local", slope=0.25)
    g.node("Scaled", [t, w], ["y"], domain="local", slope=0.5)
    g.output("y")
    return g


@fixture
def sparse_initializer():
    g = Graph(17)
    x = g.input("x", g.normal(2, 4))
    g.sparse = [h.make_sparse_tensor(nh.from_array(np.array([1.5, -2, 0.5], dtype=np.float32), "w"), nh.from_array(i64(1, 5, 10), "wi"), [4, 3])]
    g.node("MatMul", [x, "w"], ["y"])
    g.output("y")
    return g


@fixture
def constant_nodes():
    g = Graph(17)
    x = g.input("x", g.normal(2, 4))
    w = g.node("Constant", [], value=nh.from_array(g.normal(4, 3), "w"))
    b = g.node("Constant", [], value_floats=[0.5, -1.0, 2.0])
    a = g.node("Constant", [], value_float=0.25)
    g.node("Mul", [g.node("Gemm", [x, w, b]), a], ["y"])
    g.output("y")
    return g


@fixture
def batch_norm_network():
    g = Graph(17)
    x = g.input("x", g.normal(2, 3, 6, 6))
    y = g.node("Conv", [x, g.weight("w", 4, 3, 3, 3)], dilations=[2, 2])
    y = g.node("BatchNormalization", [y, g.weight("s", 4), g.weight("b", 4), g.weight("m", 4), g.const("v", np.abs(g.normal(4)) + 0.1)])
    y = g.node("Clip", [y, g.const("lo", np.float32(0)), g.const("hi", np.float32(6))])
    y = g.node("LRN", [y], size=3)
    g.node("AveragePool", [y], ["y"], kernel_shape=[2, 2], pads=[1, 1, 0, 0], ceil_mode=1)
    g.output("y")
    return g


@fixture
def opset_28():
    g = Graph(28)
    x = g.input("x", g.normal(2, 3, 5, 5))
    y = g.node("Relu", [g.node("Conv", [x, g.weight("w", 4, 3, 3, 3)])])
    g.node("Flatten", [g.node("GlobalAveragePool", [y])], ["y"])
    g.output("y")
    return g


# Changes of meaning after operator set 17 ----------------------------------------------------------------------------

single("split_num_outputs_18", 18, "Split", [("x", n(7, 2))], outputs=("a", "b", "c"), codes=(T.FLOAT,) * 3, axis=0, num_outputs=3)
single("pad_axes_18", 18, "Pad", [("x", n(2, 3, 4))], [("pads", i64(1, 2)), ("value", np.float32(9)), ("axes", i64(1))])
single("pad_wrap_19", 19, "Pad", [("x", n(2, 3, 4))], [("pads", i64(0, 1, 2, 0, 1, 1))], mode="wrap")
for reduction in ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "SumSquare"):
    positive = np.abs(n(2, 3, 4)) + 0.1
    single(f"reduce_{reduction.lower()}_axes_18", 18, f"Reduce{reduction}", [("x", positive)], [("axes", i64(-1, 0))], keepdims=0)
single("reduce_noop_18", 18, "ReduceMean", [("x", n(2, 3))], noop_with_empty_axes=1)
single("reduce_max_bool_20", 20, "ReduceMax", [("x", np.array([[True, False], [False, False]]))], [("axes", i64(1))], codes=(T.BOOL,))
single("reshape_allowzero_14", 18, "Reshape", [("x", np.zeros((0, 3), np.float32))], [("shape", i64(3, 0))], allowzero=1)
single("scatter_elements_max_18", 18, "ScatterElements", [("x", n(4, 3))], [("i", np.array([[0, 1, 2], [0, 3, 2]])), ("u", n(2, 3))], reduction="max")
single("scatter_nd_min_18", 18, "ScatterND", [("x", n(4, 3))], [("i", np.array([[0], [2], [0]])), ("u", n(3, 3))], reduction="min")
single("bitwise_and_18", 18, "BitwiseAnd", [("x", np.arange(6, dtype=np.int32)), ("z", np.arange(6, dtype=np.int32)[::-1].copy())], codes=(T.INT32,))
single("mish_18", 18, "Mish", [("x", n(2, 5))])
single("lp_pool_18", 18, "LpPool", [("x", n(1, 2, 5, 5))], kernel_shape=[2, 2], dilations=[2, 2], ceil_mode=1, p=3)
single("col2im_18", 18, "Col2Im", [("x", n(1, 8, 12))], [("image", i64(5, 4)), ("block", i64(2, 2))], pads=[0, 0, 0, 0])
single("col2im_strided_18", 18, "Col2Im", [("x", n(2, 12, 6))], [("image", i64(5, 5)), ("block", i64(2, 3))], strides=[2, 2], pads=[1, 0, 0, 1])
single("group_norm_21", 21, "GroupNormalization", [("x", n(2, 6, 3, 2))], [("s", n(6)), ("b", n(6))], num_groups=3)
single("average_pool_dilations_19", 19, "AveragePool", [("x", n(1, 2, 7, 6))], kernel_shape=[2, 3], dilations=[2, 1], strides=[1, 2], pads=[1, 1, 1, 1], count_include_pad=1)
single("equal_19", 19, "Equal", [("x", np.array([1, 2, 3])), ("z", np.array([1, 0, 3]))], codes=(T.BOOL,))
single("gelu_20", 20, "Gelu", [("x", n(3, 4))])
single("gelu_tanh_20", 20, "Gelu", [("x", n(3, 4))], approximate="tanh")
single("affine_grid_20", 20, "AffineGrid", [("theta", n(2, 2, 3))], [("size", i64(2, 1, 3, 4))])
single("affine_grid_corners_20", 20, "AffineGrid", [("theta", n(1, 3, 4))], [("size", i64(1, 1, 2, 3, 2))], align_corners=1)
for mode in ("linear", "nearest", "cubic"):
    for padding in ("zeros", "border", "reflection"):
        for corners in (0, 1):
            single(f"grid_sample_{mode}_{padding}_{corners}_20", 20, "GridSample", [("x", n(1, 2, 4, 5)), ("grid", (n(1, 3, 4, 2) * 0.8))],
                   mode=mode, padding_mode=padding, align_corners=corners)
single("grid_sample_volume_20", 20, "GridSample", [("x", n(1, 2, 3, 4, 3)), ("grid", (n(1, 2, 2, 3, 3) * 0.8))], mode="linear")
single("dft_20", 20, "DFT", [("x", n(2, 6, 3, 1))], [None, ("axis", i64(1).reshape(()))], onesided=1)
single("dft_inverse_20", 20, "DFT", [("x", n(2, 5, 2))], inverse=1)
single("is_inf_20", 20, "IsInf", [("x", np.array([1, np.inf, -np.inf], dtype=np.float32))], detect_negative=0, codes=(T.BOOL,))
single("constant_of_shape_20", 20, "ConstantOfShape", [("shape", i64(2, 2))], value=nh.from_array(np.array([3], np.int8), "v"), codes=(T.INT8,))


def cast_fixture(name, opset, to, **attributes):
    def build():
        g = Graph(opset)
        x = g.input("x", np.array([0.1, -0.3, 448, 500, 1e5, -1e6, 0.001, 3.3], dtype=np.float32))
        g.node("Cast", [g.node("Cast", [x], to=to, **attributes), ], ["y"], to=T.FLOAT)
        g.output("y")
        return g
    build.__name__ = name
    FIXTURES.append(build)


cast_fixture("cast_f8e4m3fn_saturate_19", 19, T.FLOAT8E4M3FN, saturate=1)
cast_fixture("cast_f8e4m3fn_19", 19, T.FLOAT8E4M3FN, saturate=0)
cast_fixture("cast_f8e5m2_saturate_19", 19, T.FLOAT8E5M2, saturate=1)
cast_fixture("cast_f8e5m2fnuz_19", 19, T.FLOAT8E5M2FNUZ, saturate=0)
cast_fixture("cast_int4_21", 21, T.INT4)
cast_fixture("cast_bfloat16_19", 19, T.BFLOAT16)


def quantizer(name, opset, scale, zero=None, zero_type=None, x=None, **attributes):
    """Quantizes and dequantizes with the same settings."""
    def build():
        g = Graph(opset)
        data = g.input("x", g.normal(4, 6, scale=2) if x is None else x)
        g.const("s", np.asarray(scale, dtype=np.float32))
        extra = []
        if zero_type is not None:
            values = np.zeros_like(np.asarray(scale), dtype=np.float32) if zero is None else np.asarray(zero)
            g.constants.append(h.make_tensor("z", zero_type, values.shape, values.flatten().tolist()))
            extra = ["z"]
        q = {k: v for k, v in attributes.items()}
        d = {k: v for k, v in attributes.items() if k in ("axis", "block_size")}
        g.node("DequantizeLinear", [g.node("QuantizeLinear", [data, "s"] + extra, **q), "s"] + extra, ["y"], **d)
        g.output("y")
        return g
    build.__name__ = name
    FIXTURES.append(build)


quantizer("quantize_float8_19", 19, 0.01, zero_type=T.FLOAT8E4M3FN)
quantizer("quantize_int16_21", 21, 0.0003, zero=-7, zero_type=T.INT16)
quantizer("quantize_uint16_21", 21, 0.0003, zero=40000, zero_type=T.UINT16)
quantizer("quantize_int4_21", 21, [0.3, 0.2, 0.5, 0.7], zero=[0, 1, -2, 3], zero_type=T.INT4, axis=0)
quantizer("quantize_blocked_21", 21, np.abs(n(4, 3)) + 0.05, zero=np.arange(12).reshape(4, 3) + 100, zero_type=T.UINT8, axis=1, block_size=2)
quantizer("quantize_output_dtype_21", 21, 0.02, output_dtype=T.INT8)
quantizer("quantize_precision_23", 23, 0.02, zero=3, zero_type=T.INT8, precision=T.FLOAT)
quantizer("quantize_int2_25", 25, 0.9, zero=0, zero_type=T.INT2)


def packed(name, opset, code, values, scale, **attributes):
    """A packed initializer of a narrow type, dequantized and used as a weight."""
    def build():
        g = Graph(opset)
        x = g.input("x", g.normal(2, 4))
        g.constants.append(h.make_tensor("w", code, [4, 6], np.asarray(values).flatten().tolist()))
        g.const("s", np.asarray(scale, dtype=np.float32))
        w = g.node("DequantizeLinear", ["w", "s"], **attributes)
        g.node("MatMul", [x, w], ["y"])
        g.output("y")
        return g
    build.__name__ = name
    FIXTURES.append(build)


packed("dequantize_int4_21", 21, T.INT4, np.arange(24) % 16 - 8, [0.1, 0.2, 0.3, 0.4], axis=0)
packed("dequantize_uint4_blocked_21", 21, T.UINT4, np.arange(24) % 16, np.abs(n(2, 6)), axis=0, block_size=2)
packed("dequantize_int2_25", 25, T.INT2, np.arange(24) % 4 - 2, [0.1, 0.2, 0.3, 0.4, 0.5, 0.6], axis=1)
packed("dequantize_uint2_25", 25, T.UINT2, np.arange(24) % 4, 0.25)

single("rms_norm_23", 23, "RMSNormalization", [("x", n(2, 3, 4))], [("s", n(3, 4))], axis=1)
for interleaved in (0, 1):
    single(f"rotary_{interleaved}_23", 23, "RotaryEmbedding", [("x", n(2, 3, 4, 8))],
           [("c", n(10, 3)), ("s", n(10, 3)), ("p", np.array([[0, 1, 2, 3], [5, 6, 7, 9]]))], interleaved=interleaved, rotary_embedding_dim=6)
single("rotary_packed_23", 23, "RotaryEmbedding", [("x", n(2, 4, 12))], [("c", n(2, 4, 3)), ("s", n(2, 4, 3))], num_heads=2)
Q, K, V = n(2, 4, 3, 8), n(2, 2, 5, 8), n(2, 2, 5, 8)
single("attention_grouped_23", 23, "Attention", [("q", Q), ("k", K), ("v", V)])
single("attention_packed_23", 23, "Attention", [("q", n(2, 3, 8)), ("k", n(2, 4, 8)), ("v", n(2, 4, 8))], q_num_heads=2, kv_num_heads=2, scale=0.3)
single("attention_causal_softcap_23", 23, "Attention", [("q", n(1, 2, 4, 8)), ("k", n(1, 2, 4, 8)), ("v", n(1, 2, 4, 8))], is_causal=1, softcap=2.0)
single("attention_mask_23", 23, "Attention", [("q", Q), ("k", K), ("v", V)], [("m", R.random((3, 5)) > 0.3)])
single("attention_cache_23", 23, "Attention", [("q", Q), ("k", K), ("v", V)],
       [("m", n(3, 9)), ("pk", n(2, 2, 4, 8)), ("pv", n(2, 2, 4, 8))], outputs=("y", "k2", "v2"), codes=(T.FLOAT,) * 3)
single("swish_24", 24, "Swish", [("x", n(3, 4))], alpha=1.5)
single("top_k_24", 24, "TopK", [("x", n(3, 6))], [("k", i64(2))], outputs=("v", "i"), codes=(T.FLOAT, T.INT64), axis=1, largest=0)
single("tensor_scatter_24", 24, "TensorScatter", [("past", n(2, 2, 5, 3)), ("update", n(2, 2, 2, 3))], [("at", i64(1, 3))])
single("max_unpool_22", 22, "MaxUnpool", [("x", n(1, 1, 2, 2))], [("i", np.array([[[[5, 7], [13, 15]]]]))], kernel_shape=[2, 2], strides=[2, 2])
single("roi_align_16", 16, "RoiAlign", [("x", n(2, 2, 6, 6)), ("rois", np.array([[0, 0, 4, 3], [1, 1, 5, 5.5]], dtype=np.float32))],
       [("b", i64(0, 1))], output_height=2, output_width=3, sampling_ratio=2, spatial_scale=0.9)
single("max_pool_22", 22, "MaxPool", [("x", n(1, 2, 6, 5))], outputs=("y", "i"), codes=(T.FLOAT, T.INT64), kernel_shape=[3, 2], strides=[2, 1], dilations=[1, 2], pads=[1, 0, 1, 1])
single("non_max_suppression_17", 17, "NonMaxSuppression", [("boxes", np.array([[[0, 0, 1, 1], [0, 0.1, 1, 1.1], [0, 2, 1, 3]]], dtype=np.float32)),
       ("scores", np.array([[[0.9, 0.75, 0.6]]], dtype=np.float32))], [("n", i64(3)), ("iou", np.array([0.5], np.float32)), ("low", np.array([0.1], np.float32))], codes=(T.INT64,))
single("qlinear_conv_17", 17, "QLinearConv", [("x", R.integers(0, 256, (1, 2, 5, 5)).astype(np.uint8))],
       [("xs", np.float32(0.02)), ("xz", np.uint8(120)), ("w", R.integers(-128, 128, (3, 2, 3, 3)).astype(np.int8)), ("ws", np.array([.01, .02, .03], np.float32)),
        ("wz", np.zeros(3, np.int8)), ("ys", np.float32(0.1)), ("yz", np.uint8(128)), ("b", np.array([100, -200, 5], np.int32))], codes=(T.UINT8,), pads=[1, 1, 1, 1])
single("qlinear_matmul_17", 17, "QLinearMatMul", [("a", R.integers(0, 256, (2, 4)).astype(np.uint8))],
       [("as", np.float32(0.02)), ("az", np.uint8(113)), ("b", R.integers(0, 256, (4, 3)).astype(np.uint8)), ("bs", np.float32(0.03)), ("bz", np.uint8(114)),
        ("ys", np.float32(0.05)), ("yz", np.uint8(118))], codes=(T.UINT8,))
single("conv_integer_17", 17, "ConvInteger", [("x", R.integers(0, 256, (1, 1, 4, 4)).astype(np.uint8))],
       [("w", R.integers(0, 256, (2, 1, 2, 2)).astype(np.uint8)), ("xz", np.uint8(7)), ("wz", np.uint8(99))], codes=(T.INT32,))
single("dynamic_quantize_17", 17, "DynamicQuantizeLinear", [("x", n(3, 4))], outputs=("y", "s", "z"), codes=(T.UINT8, T.FLOAT, T.UINT8))
single("stft_17", 17, "STFT", [("x", n(1, 20, 1))], [("step", i64(4).reshape(())), ("w", np.hanning(8).astype(np.float32))])
single("mel_17", 17, "MelWeightMatrix", [("bins", i64(6).reshape(()))], [("n", i64(64).reshape(())), ("rate", i64(8000).reshape(())), ("lo", np.float32(100)), ("hi", np.float32(3800))])


# Every further change of meaning, and the older meaning where it differs (see tests/fixtures/opset_changes.txt) -------

OVERHANG = n(1, 1, 4, 4)  # its last window would start in the padding
X234, IMAGE6 = n(2, 3, 4), n(2, 6, 3, 2)
for opset in (17, 22):
    single(f"average_pool_overhang_{opset}", opset, "AveragePool", [("x", OVERHANG)], kernel_shape=[2, 2], strides=[3, 3], pads=[1, 1, 1, 1], ceil_mode=1)
    single(f"max_pool_overhang_{opset}", opset, "MaxPool", [("x", OVERHANG)], kernel_shape=[2, 2], strides=[3, 3], pads=[1, 1, 1, 1], ceil_mode=1)
single("average_pool_ceil_19", 19, "AveragePool", [("x", n(1, 2, 5, 5))], kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1, count_include_pad=1)
single("split_equal_17", 17, "Split", [("x", n(6, 2))], outputs=("a", "b", "c"), codes=(T.FLOAT,) * 3, axis=0)
for reduction in ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "SumSquare"):
    single(f"reduce_{reduction.lower()}_attribute_17", 17, f"Reduce{reduction}", [("x", np.abs(X234) + 0.1)], axes=[0, -1])
single("reduce_min_bool_20", 20, "ReduceMin", [("x", np.array([[True, False], [True, True]]))], [("axes", i64(1))], codes=(T.BOOL,))
single("dft_17", 17, "DFT", [("x", n(2, 6, 3, 1))], axis=1, onesided=1)
single("grid_sample_bilinear_16", 16, "GridSample", [("x", n(1, 2, 4, 5)), ("grid", n(1, 3, 4, 2) * 0.8)], mode="bilinear")
single("grid_sample_bicubic_16", 16, "GridSample", [("x", n(1, 2, 4, 5)), ("grid", n(1, 3, 4, 2) * 0.8)], mode="bicubic", padding_mode="border")
single("group_norm_18", 18, "GroupNormalization", [("x", IMAGE6)], [("s", n(3)), ("b", n(3))], num_groups=3)
single("group_norm_half_21", 21, "GroupNormalization", [("x", IMAGE6.astype(np.float16))], [("s", n(6, dtype=np.float16)), ("b", n(6, dtype=np.float16))],
       codes=(T.FLOAT16,), num_groups=2)
resize("not_smaller_18", 18, IMAGE, sizes=[8, 9], axes=[2, 3], mode="nearest", keep_aspect_ratio_policy="not_smaller")
resize("crop_axes_18", 18, IMAGE, sizes=[4, 3], roi=[0.1, 0.2, 0.8, 1.2], axes=[2, 3], mode="linear", coordinate_transformation_mode="tf_crop_and_resize",
       extrapolation_value=7.0)
single("center_crop_pad_18", 18, "CenterCropPad", [("x", n(5, 4, 3))], [("shape", i64(2, 7))], axes=[0, 1])
for op in ("Or", "Xor"):
    single(f"bitwise_{op.lower()}_18", 18, f"Bitwise{op}", [("x", np.arange(6, dtype=np.uint8)), ("z", np.arange(6, dtype=np.uint8)[::-1].copy())], codes=(T.UINT8,))
single("bitwise_not_18", 18, "BitwiseNot", [("x", np.arange(-3, 3, dtype=np.int16))], codes=(T.INT16,))
single("scatter_elements_min_18", 18, "ScatterElements", [("x", n(4, 3))], [("i", np.array([[0, 1, 2], [0, 3, 2]])), ("u", n(2, 3))], reduction="min")
single("scatter_nd_max_18", 18, "ScatterND", [("x", n(4, 3))], [("i", np.array([[0], [2], [0]])), ("u", n(3, 3))], reduction="max")
single("deform_conv_19", 19, "DeformConv", [("x", n(1, 4, 5, 6)), ("w", n(2, 2, 2, 3)), ("offset", n(1, 24, 3, 5)), ("b", n(2)), ("m", np.abs(n(1, 12, 3, 5)))],
       group=2, offset_group=2, strides=[2, 1], pads=[1, 0, 0, 1], dilations=[1, 1])
single("quantize_half_19", 19, "QuantizeLinear", [("x", n(3, 4, dtype=np.float16))], [("s", np.float16(0.03)), ("z", np.uint8(110))], codes=(T.UINT8,))
single("dequantize_half_19", 19, "DequantizeLinear", [("x", np.arange(12, dtype=np.uint8))], [("s", np.float16(0.03)), ("z", np.uint8(7))], codes=(T.FLOAT16,))


@fixture
def equal_strings_19():
    g = Graph(19)
    x = g.input("x", i64(0, 2, 1))
    words = g.node("Constant", [], value_strings=["cat", "dog", "cats"])
    g.node("Equal", [g.node("Gather", [words, x]), words], ["y"])
    g.output("y", T.BOOL)
    return g


def conversions(name, opset, op, x, attributes, back=T.FLOAT, before=()):
    """Converts, then to a type that NumPy has; `before` are nodes as (operator, attributes)."""
    def build():
        g = Graph(opset)
        value = g.input("x", x)
        for other, settings in before:
            value = g.node(other, [value], **settings)
        inputs = [value]
        if op == "CastLike":
            g.constants.append(h.make_tensor("like", attributes["to"], [1], [0]))
            inputs.append("like")
        value = g.node(op, inputs, **{k: v for k, v in attributes.items() if op != "CastLike" or k != "to"})
        g.node("Cast", [value], ["y"], to=back)
        g.output("y", back)
        return g
    build.__name__ = name
    FIXTURES.append(build)


NUMBERS = np.array([0.1, -0.3, 448, 500, 1e5, -1e6, 0.001, 3.3, 2.5, -5.0], dtype=np.float32)
conversions("cast_like_f8e4m3fn_19", 19, "CastLike", NUMBERS, dict(to=T.FLOAT8E4M3FN, saturate=0))
conversions("cast_like_f8e5m2_19", 19, "CastLike", NUMBERS, dict(to=T.FLOAT8E5M2))
conversions("cast_float4_23", 23, "Cast", NUMBERS, dict(to=T.FLOAT4E2M1))
for mode in ("up", "down", "nearest"):
    conversions(f"cast_f8e8m0_{mode}_24", 24, "Cast", np.abs(NUMBERS), dict(to=T.FLOAT8E8M0, round_mode=mode))
conversions("cast_like_f8e8m0_24", 24, "CastLike", np.abs(NUMBERS), dict(to=T.FLOAT8E8M0))
conversions("cast_int2_25", 25, "Cast", np.array([-2, -1, 0, 1], dtype=np.int32), dict(to=T.INT2))
conversions("cast_uint2_25", 25, "Cast", np.array([3, 2, 1, 0], dtype=np.int32), dict(to=T.UINT2))
conversions("bit_cast_26", 26, "BitCast", n(5), dict(to=T.INT32), back=T.INT64)
conversions("bit_cast_bool_26", 26, "BitCast", np.array([True, False, True]), dict(to=T.UINT8), back=T.INT64)


@fixture
def range_half_27():
    """2048 + 1 is not a float16: only the wider accumulation gets past it."""
    g = Graph(27)
    start = g.input("start", np.float16(2044).reshape(()))
    g.node("Range", [start, g.const("limit", np.float16(2060)), g.const("delta", np.float16(1))], ["y"])
    g.output("y", T.FLOAT16)
    return g


quantizer("quantize_float4_23", 23, 0.5, zero_type=T.FLOAT4E2M1)
single("quantize_half_by_float_23", 23, "QuantizeLinear", [("x", n(3, 4, dtype=np.float16))], [("s", np.float32(0.03)), ("z", np.int8(5))], codes=(T.INT8,))
single("dequantize_output_dtype_23", 23, "DequantizeLinear", [("x", np.arange(12, dtype=np.uint8))], [("s", np.float32(0.03)), ("z", np.uint8(7))],
       codes=(T.FLOAT16,), output_dtype=T.FLOAT16)
for mode in range(4):
    single(f"attention_scores_{mode}_23", 23, "Attention", [("q", Q), ("k", K), ("v", V)], [("m", n(3, 5))], outputs=("y", "", "", "scores"),
           codes=(T.FLOAT,) * 4, softcap=1.5, qk_matmul_output_mode=mode)
single("attention_softmax_precision_23", 23, "Attention", [(k, v.astype(np.float16)) for k, v in (("q", Q), ("k", K), ("v", V))], codes=(T.FLOAT16,),
       softmax_precision=T.FLOAT)
single("attention_causal_cache_23", 23, "Attention", [("q", Q), ("k", n(2, 2, 3, 8)), ("v", n(2, 2, 3, 8))], [None, ("pk", n(2, 2, 4, 8)), ("pv", n(2, 2, 4, 8))],
       outputs=("y", "k2", "v2"), codes=(T.FLOAT,) * 3, is_causal=1)
single("attention_lengths_24", 24, "Attention", [("q", Q), ("k", K), ("v", V)], [None, None, None, ("lengths", i64(5, 2))])
single("attention_causal_lengths_24", 24, "Attention", [("q", Q), ("k", K), ("v", V)], [None, None, None, ("lengths", i64(4, 2))], is_causal=1)
single("attention_short_mask_24", 24, "Attention", [("q", Q), ("k", K), ("v", V)], [("m", n(3, 4)), None, None, ("lengths", i64(4, 2))])
single("attention_masked_row_24", 24, "Attention", [("q", Q), ("k", K), ("v", V)], [("m", np.array([[True] * 5, [False] * 5, [True, False] * 2 + [True]]))])
single("attention_window_25", 25, "Attention", [("q", Q), ("k", K), ("v", V)], left_window_size=1, right_window_size=0)
single("attention_window_causal_25", 25, "Attention", [("q", Q), ("k", n(2, 2, 3, 8)), ("v", n(2, 2, 3, 8))],
       [None, ("pk", n(2, 2, 4, 8)), ("pv", n(2, 2, 4, 8))], outputs=("y", "k2", "v2"), codes=(T.FLOAT,) * 3, is_causal=1, left_window_size=2)
single("tensor_scatter_circular_24", 24, "TensorScatter", [("past", n(2, 2, 5, 3)), ("update", n(2, 2, 2, 3))], [("at", i64(4, 3))], mode="circular")
single("cum_prod_26", 26, "CumProd", [("x", n(2, 4))], [("axis", i64(1).reshape(()))], exclusive=1, reverse=1)
for rule in ("linear", "gated", "delta", "gated_delta"):
    single(f"linear_attention_{rule}_27", 27, "LinearAttention", [("q", n(2, 3, 8)), ("k", n(2, 3, 4) * 0.5), ("v", n(2, 3, 6)), ("past", n(2, 2, 2, 3))],
           [("decay", -np.abs(n(2, 3, 4 if rule == "gated" else 2))) if "gated" in rule else None] + ([("beta", np.abs(n(2, 3, 2)))] if "delta" in rule else []),
           outputs=("y", "state"), codes=(T.FLOAT,) * 2, q_num_heads=4, kv_num_heads=2, update_rule=rule)
single("causal_conv_27", 27, "CausalConvWithState", [("x", n(2, 3, 5)), ("w", n(3, 1, 4)), ("b", n(3)), ("past", n(2, 3, 3))], outputs=("y", "state"),
       codes=(T.FLOAT,) * 2, activation="silu")
single("causal_conv_fresh_27", 27, "CausalConvWithState", [("x", n(2, 3, 2)), ("w", n(3, 1, 4))], outputs=("y", "state"), codes=(T.FLOAT,) * 2)
single("bit_shift_signed_28", 28, "BitShift", [("x", np.array([-9, 9, -1, 100, -128], np.int8)), ("s", np.array([1, 1, 9, 2, 7], np.int8))], codes=(T.INT8,), direction="RIGHT")
single("bit_shift_left_signed_28", 28, "BitShift", [("x", np.array([-9, 9, -1, 100, 3], np.int32)), ("s", np.array([1, 1, 40, -2, 31], np.int32))], codes=(T.INT32,), direction="LEFT")
single("mod_float_28", 28, "Mod", [("x", np.array([-4.3, 7.2, 5.0, 4.3, -7.2, 8.0, 0.0, 3.0], np.float32)), ("z", np.array([2.1, -3.4, 8.0, -2.1, 3.4, 5.0, -2.0, np.inf], np.float32))], fmod=0)
single("space_to_depth_crd_28", 28, "SpaceToDepth", [("x", n(1, 2, 4, 6))], blocksize=2, mode="CRD")
single("space_to_depth_17", 17, "SpaceToDepth", [("x", n(1, 2, 4, 6))], blocksize=2)
single("celu_double_28", 28, "Celu", [("x", n(3, 4, dtype=np.float64))], codes=(T.DOUBLE,), alpha=0.7)
single("swiglu_28", 28, "SwiGLU", [("a", n(3, 4)), ("b", n(3, 4))], alpha=1.3)


def write(build):
    """Writes one fixture; returns why not, if it could not be run."""
    name, g = build.__name__, build()
    model, path = g.model(name), OUT / f"{name}.onnx"
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    if getattr(g, "external", False):
        onnx.save(model, path, save_as_external_data=True, location=f"{name}.bin", size_threshold=0)
    else:
        onnx.save(model, path)
    try:
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        names = [o.name for o in session.get_outputs()]
        results = session.run(names, g.feeds)
    except Exception:  # whatever the runtime reports: it knows this operator or version not (yet)
        names, results = [o.name for o in model.graph.output], None
        try:
            results = ReferenceEvaluator(model).run(names, g.feeds)
        except Exception as error:
            path.unlink()
            return str(error).splitlines()[0]
        REFERENCE.append(name)
    arrays = {f"in__{k}": v for k, v in g.feeds.items()} | {f"out__{k}": v for k, v in zip(names, results)}
    np.savez(OUT / f"{name}.npz", **arrays)
    assert path.stat().st_size <= 50_000, name
    return None


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    for old in [*OUT.glob("*.onnx"), *OUT.glob("*.npz"), *OUT.glob("*.bin")]:
        old.unlink()
    refused = {}
    for build in FIXTURES:
        reason = write(build)
        if reason:
            refused[build.__name__] = reason
    print(f"{len(FIXTURES) - len(refused)} fixtures written with onnx {onnx.__version__}, onnxruntime {ort.__version__}")
    print(f"{len(REFERENCE)} of them by the reference implementation: {' '.join(sorted(REFERENCE))}")
    for name, reason in refused.items():
        print(f"  {name}: {reason}", file=sys.stderr)


if __name__ == "__main__":
    main()
