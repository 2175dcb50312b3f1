//! Layers with unusual weights or normalizations: normalizations that do not fold, weights behind a node, weights of three axes.
use crate::net::Net;
use crate::whole::{Case, Form, all, normal, runtime, whole};
use graph::AttributeValue;
use tensor::Tensor;

const STATISTICS: &str = "
    g = 1.4, 0.6, 1.9, 0.8
    be = 0.5, -0.7, 1.1, 0.2
    me = 0.3, -0.9, 0.4, 1.2
    va = 0.4, 2.1, 0.7, 1.6";
const NORM: &str = "n = BatchNormalization(c, g, be, me, va)";

/// A network with a normalization of `c`, and the same without it.
fn normalized(name: &'static str, weights: usize, text: &str) -> Case {
    let net = Net::new(&format!("{STATISTICS}\n{text}"));
    let lost = net.reworded(NORM, "n = Identity(c)");
    Case::new(name, weights, 25.0, net).not("without the normalization", lost)
}

fn dense(name: &'static str, weights: usize, before: &str) -> Case {
    let text = format!(
        "in x [N, 12]
         w ~ [12, 4]
         b = 0.1, -0.3, 0.5, 0.9
         w2 ~ [4, 3]
         {before}
         {NORM}
         r = Relu(n)
         y = Gemm(r, w2)
         out y [N, 3]"
    );
    normalized(name, weights, &text)
}

fn convolved(name: &'static str, weights: usize, text: &str) -> Case {
    let text = format!(
        "in x [N, 3, 6, 6]
         w ~ [4, 3, 3, 3]
         w2 ~ [4, 4, 1, 1]
         {text}"
    );
    normalized(name, weights, &text)
}

#[test]
fn normalizations() {
    let preactivation = format!(
        "c = Conv(x, w) pads=1,1,1,1
         {NORM}
         r = Relu(n)
         d = Conv(r, w2)
         y = Add(d, c)
         out y [N, 4, 6, 6]"
    );
    let output = format!(
        "c = Conv(x, w) pads=1,1,1,1
         {NORM}
         r = Relu(n)
         y = Conv(r, w2)
         out y [N, 4, 6, 6]
         out c [N, 4, 6, 6]"
    );
    let transposed = format!(
        "in x [N, 3, 6, 6]
         w2 ~ [4, 4, 1, 1]
         wt ~ [3, 4, 2, 2]
         c = ConvTranspose(x, wt) kernel_shape=2,2 strides=2,2
         {NORM}
         y = Conv(n, w2)
         out y [N, 4, 12, 12]"
    );
    let joined = format!(
        "wa ~ [2, 3, 1, 1]
         wb ~ [2, 3, 1, 1]
         a = Conv(x, wa)
         b = Conv(x, wb)
         c = Concat(a, b) axis=1
         {NORM}
         r = Relu(n)
         y = Conv(r, w2)
         out y [N, 4, 6, 6]"
    );
    let gelu = format!(
        "sq2 = [] 1.4142135
         one = [] 1.0
         half = [] 0.5
         k = Conv(x, w) pads=1,1,1,1
         d = Div(k, sq2)
         e = Erf(d)
         e1 = Add(e, one)
         m = Mul(k, e1)
         c = Mul(m, half)
         {NORM}
         y = Conv(n, w2)
         out y [N, 4, 6, 6]"
    );
    let shared = format!(
        "half = [] 0.5
         k = Conv(x, w) pads=1,1,1,1
         c = Mul(k, half)
         {NORM}
         l = Conv(n, w2)
         y = Mul(l, half)
         out y [N, 4, 6, 6]"
    );
    let input = Net::new(&format!(
        "{STATISTICS}
         in c [N, 4]
         w2 ~ [4, 3]
         {NORM}
         y = Gemm(n, w2)
         out y [N, 3]"
    ));
    let lost = input.reworded(NORM, "n = Identity(c)");
    all(&[
        dense("a product, normalized", 2, "c = MatMul(x, w)"),
        dense("a product and a bias, normalized", 2, "m = MatMul(x, w)\nc = Add(m, b)"),
        dense("Gemm, normalized", 2, "c = Gemm(x, w, b)"),
        dense("Gemm, Relu and a factor, normalized", 2, "m = Gemm(x, w, b)\nr0 = Relu(m)\nc = Mul(r0, b)"),
        Case::new("an input, normalized", 1, 25.0, input).not("without the normalization", lost),
        convolved("before the activation", 2, &preactivation),
        convolved("a convolution that is an output", 2, &output),
        normalized("a transposed convolution, normalized", 2, &transposed),
        convolved("two convolutions joined, normalized", 3, &joined),
        convolved("GELU written out, normalized", 2, &gelu),
        convolved("a factor that two share, normalized", 2, &shared),
    ]);
}

/// A network of two products, the first one's weight made by a node.
fn behind(name: &'static str, made: &str, net: impl Fn(Net) -> Net) -> Case {
    let text = format!(
        "in x [N, 16]
         w2 ~ [16, 4]
         {made}
         a = MatMul(x, w)
         b = Relu(a)
         y = MatMul(b, w2)
         out y [N, 4]"
    );
    Case::new(name, 2, 25.0, net(Net::new(&text)))
}

#[test]
fn weights_behind_a_node() {
    let f16 = tensor::random::normal(3, &[16, 16], 0.0, 0.25).unwrap().cast(tensor::DType::F16).unwrap();
    let codes = Tensor::new((0..256).map(|i| ((i * 89) % 251 - 125) as i8).collect(), [16, 16]).unwrap();
    let dequantized = "ws = [] 0.004\nw = DequantizeLinear(wq, ws)";
    let cast = "ws = [] 0.004\nwf = Cast(wq) to=1\nw = Mul(wf, ws)";
    let convolution = Net::new(
        "in x [N, 3, 6, 6]
         w0 ~ [3, 3, 3, 4]
         w2 ~ [4, 4, 1, 1]
         w = Transpose(w0) perm=3,2,0,1
         c = Conv(x, w)
         r = Relu(c)
         y = Conv(r, w2)
         out y [N, 4, 4, 4]",
    );
    let tied = Net::new(
        "in x:i64 [N, 5]
         table ~ [2, 8]
         w ~ [8, 8]
         t = Transpose(table) perm=1,0
         e = Gather(table, x)
         m = MatMul(e, w)
         r = Relu(m)
         y = MatMul(r, t)
         out y [N, 5, 2]",
    );
    let as_is = |net: Net| net;
    all(&[
        behind("Identity", "w0 ~ [16, 16]\nw = Identity(w0)", as_is),
        behind("Transpose", "w0 ~ [16, 16]\nw = Transpose(w0) perm=1,0", as_is),
        behind("Reshape", "w0 ~ [256]\nto = 16, 16\nw = Reshape(w0, to)", |net| net.reworded("w0 ~ [256]", "w0 ~ [256, 1]")),
        behind("Cast", "w = Cast(w0) to=1", |net| net.clone().constant("w0", f16.clone())),
        behind("DequantizeLinear", dequantized, |net| net.constant("wq", codes.clone())),
        behind("integers, Cast and Mul", cast, |net| net.constant("wq", codes.clone())),
        behind("Concat", "wa ~ [16, 7]\nwb ~ [16, 9]\nw = Concat(wa, wb) axis=1", as_is),
        Case::new("a convolution's, transposed", 2, 25.0, convolution),
        // One weight with two readers, stored once.
        Case::new("a table that is a layer's weight too", 2, 25.0, tied).forms(&[Form::Open, Form::One]),
    ]);
}

/// Columns of very different size need a scale each; along the axis that a product sums over, small ones would get few codes.
#[test]
fn a_weight_of_three_axes_has_its_channels_last() {
    if runtime().is_none() {
        return;
    }
    let net = Net::new(
        "in x [N, 5, 8]
         w ~ [1, 8, 6]
         v ~ [6, 3]
         m = MatMul(x, w)
         r = Relu(m)
         y = MatMul(r, v)
         out y [N, 5, 3]",
    );
    let case = || Case::new("three axes", 2, 30.0, net.clone());
    all(&[case()]);
    for form in [Form::Open, Form::One, Form::Tied] {
        let done = whole(&net, form, normal, &[]).unwrap();
        let file = onnx::load(&done.folder.path().join("out/deploy.deployed.onnx")).unwrap();
        let codes = |id: graph::ValueId| file.values.tensor(id).filter(|t| t.shape() == [1, 8, 6]).is_some();
        let reader = file.graph.nodes.iter().find(|n| n.op_type == "DequantizeLinear" && n.input(0).is_some_and(codes)).unwrap();
        let axis = match reader.attributes.get("axis") {
            Some(AttributeValue::Int(axis)) => axis.rem_euclid(3),
            other => panic!("{other:?}"),
        };
        let scales = file.values.tensor(reader.input(1).unwrap()).unwrap().len();
        assert_eq!((axis, scales), (2, 6), "{form:?}");
    }
}
