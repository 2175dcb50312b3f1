//! Values that other values share a name with, nodes of several outputs, old operator sets, and padding.
use crate::net::Net;
use crate::whole::{Case, all};

#[test]
fn names_of_values_inside_and_outside() {
    // Both branches name their values as the other does, and as what comes after them.
    let branches = Net::new(
        "in x [N, 3, 6, 6]
         w ~ [4, 3, 1, 1]
         va ~ [4, 4, 1, 1]
         vb ~ [4, 4, 3, 3]
         zero = [] 0.0
         c = Conv(x, w)
         k = Relu(c)
         s = ReduceSum(c) keepdims=0
         yes = Greater(s, zero)
         i = If(yes) then_branch=@then else_branch=@else
         t = Conv(i, va)
         y = Relu(t)
         out y [N, 4, 6, 6]",
    )
    .subgraph("then", "r = Conv(k, va)\nt = Relu(r)\nout t [N, 4, 6, 6]")
    .subgraph("else", "r = Conv(k, vb) pads=1,1,1,1\nt = Relu(r)\nout t [N, 4, 6, 6]");
    let swapped = branches.reworded("then_branch=@then else_branch=@else", "then_branch=@else else_branch=@then");
    // An input of the body has the name of an outer weight.
    let body = Net::new(
        "in x [N, 4]
         w ~ [4, 4]
         v ~ [4, 3]
         trip = [] 2
         h, end = Loop(trip, yes, x, w) body=@body
         y = MatMul(h, v)
         out y [N, 3]",
    )
    .constant("yes", tensor::Tensor::scalar(true))
    .subgraph("body", "in i:i64 []\nin on:bool []\nin h0 [N, 4]\nin w [4, 4]\ngo = Identity(on)\nm = MatMul(h0, w)\nh1 = Relu(m)\nw1 = Identity(w)\nout go:bool []\nout h1 [N, 4]\nout w1 [4, 4]");
    let once = body.reworded("trip = [] 2", "trip = [] 1");
    all(&[
        Case::new("branches with the same names", 3, 20.0, branches).not("the other branch", swapped),
        Case::new("a body with an outer name", 1, 20.0, body).not("the body once", once),
    ]);
}

#[test]
fn several_outputs() {
    let split = Net::new(
        "in x [N, 2, 4, 4]
         w ~ [4, 2, 1, 1]
         wa ~ [2, 2, 1, 1]
         wk ~ [3, 4, 1, 1]
         parts = 2, 2
         c = Conv(x, w)
         a, b = Split(c, parts) axis=1
         d = Conv(a, wa)
         k = Concat(d, b) axis=1
         y = Conv(k, wk)
         out y [N, 3, 4, 4]",
    );
    let other = split.reworded("a, b = Split", "b, a = Split");
    let dropout = Net::new(
        "in x [N, 3, 6, 6]
         w ~ [4, 3, 3, 3]
         w2 ~ [4, 4, 3, 3]
         c = Conv(x, w) pads=1,1,1,1
         r = Relu(c)
         d, kept = Dropout(r)
         y = Conv(d, w2)
         out y [N, 4, 4, 4]",
    );
    let old = dropout.reworded("Dropout(r)", "Dropout(r) ratio=0.5").opset(7);
    let pooled = Net::new(
        "in x [N, 3, 6, 6]
         w ~ [4, 3, 3, 3]
         w2 ~ [4, 4, 1, 1]
         c = Conv(x, w) pads=1,1,1,1
         p, at = MaxPool(c) kernel_shape=2,2 strides=2,2
         y = Conv(p, w2)
         out y [N, 4, 3, 3]",
    );
    let averaged = pooled.reworded("p, at = MaxPool", "p = AveragePool");
    // The indices are read: MaxUnpool puts the pooled elements back.
    let unpooled = Net::new(
        "in x [N, 3, 6, 6]
         w ~ [4, 3, 3, 3]
         w2 ~ [4, 4, 1, 1]
         w3 ~ [2, 4, 3, 3]
         c = Conv(x, w) pads=1,1,1,1
         k = Relu(c)
         p, at = MaxPool(k) kernel_shape=2,2 strides=2,2
         d = Conv(p, w2)
         u = MaxUnpool(d, at) kernel_shape=2,2 strides=2,2
         y = Conv(u, w3) pads=1,1,1,1
         out y [N, 2, 6, 6]",
    );
    let first = unpooled.reworded("MaxUnpool(d, at)", "MaxUnpool(d, zeros)").reworded("d = Conv", "zeros = Sub(at, at)\nd = Conv");
    all(&[
        Case::new("Split", 3, 25.0, split).not("the parts swapped", other),
        Case::new("Dropout with a mask that nothing reads", 2, 25.0, dropout),
        Case::new("the same of operator set 7", 2, 25.0, old),
        Case::new("MaxPool with indices that nothing reads", 2, 25.0, pooled).not("averages", averaged),
        // Equal codes of different floats may move a maximum to its neighbour.
        Case::new("MaxPool and MaxUnpool", 3, 15.0, unpooled).not("all to the first place", first),
    ]);
}

#[test]
fn old_operator_sets() {
    let softmax = Net::new(
        "in x [N, 3, 6, 6]
         w ~ [4, 3, 3, 3]
         w2 ~ [4, 4, 3, 3]
         c = Conv(x, w) pads=1,1,1,1
         s = Softmax(c) axis=1
         y = Conv(s, w2)
         out y [N, 4, 4, 4]",
    )
    .opset(11);
    // As the operator reads from set 13 on: over that axis alone.
    let newer = softmax.clone().opset(13);
    let mut declared = Net::new(
        "in x [N, 3, 6, 6]
         w ~ [4, 3, 3, 3]
         w2 ~ [4, 4, 3, 3]
         c = Conv(x, w) pads=1,1,1,1
         r = Clip(c) min=0.0 max=1.5
         p = Pad(r) pads=0,0,1,1,0,0,1,1
         y = Conv(p, w2)
         out y [N, 4, 6, 6]",
    )
    .opset(8);
    declared.declared = true;
    let unclipped = declared.reworded("max=1.5", "max=9.5");
    all(&[
        Case::new("Softmax over all behind an axis", 2, 20.0, softmax).not("over that axis", newer),
        Case::new("initializers that are inputs", 2, 25.0, declared).not("another bound", unclipped),
    ]);
}

#[test]
fn padding() {
    let padded = |constant: &str, arguments: &str| {
        Net::new(&format!(
            "in x [N, 3, 4, 4]
             w ~ [4, 3, 1, 1]
             w3 ~ [4, 4, 3, 3]
             p = 0, 0, 1, 1, 0, 0, 1, 1
             v = [] {constant}
             c = Conv(x, w)
             k = Sigmoid(c)
             q = Pad({arguments}
             y = Conv(q, w3)
             out y [N, 4, 4, 4]"
        ))
    };
    let constant = |constant| padded(constant, "k, p, v)");
    let by_mode = |mode: &str| padded("0.0", &format!("k, p) mode=\"{mode}\""));
    // The constant after rounding to the grid of a sigmoid.
    let case = |name, given, clipped| Case::new(name, 2, 25.0, constant(given)).not("the constant clipped", constant(clipped));
    let mut cases = vec![
        Case::new("zero", 2, 25.0, constant("0.0")).not("another constant", constant("0.1")),
        case("a constant of the range", "0.3", "0.0"),
        case("a constant beyond the range", "5.0", "1.0"),
        case("a constant below the range", "-3.0", "0.0"),
    ];
    for (mode, wrong) in [("reflect", "edge"), ("edge", "reflect")] {
        cases.push(Case::new(mode, 2, 25.0, by_mode(mode)).not("another mode", by_mode(wrong)));
    }
    let least = Net::new(
        "in x [N, 3, 4, 4]
         w ~ [4, 3, 1, 1]
         w3 ~ [4, 4, 1, 1]
         b = -1.5, -1.0, -2.0, -1.5
         p = 0, 0, 1, 1, 0, 0, 1, 1
         c = Conv(x, w, b)
         q = Pad(c, p, v)
         m = MaxPool(q) kernel_shape=3,3 strides=1,1
         y = Conv(m, w3)
         out y [N, 4, 4, 4]",
    );
    let zero = least.clone().constant("v", tensor::Tensor::scalar(0f32));
    let least = least.constant("v", tensor::Tensor::scalar(f32::NEG_INFINITY));
    cases.push(Case::new("minus infinity before a maximum", 2, 25.0, least).not("zero", zero));
    all(&cases);
}
