//! Batches that are fixed, and inputs whose first axis is not the batch.
use crate::net::Net;
use crate::whole::{Case, Form, all, normal};
use tensor::{DType, Tensor};

const EITHER: &[Form] = &[Form::Open, Form::One];

#[test]
fn a_fixed_batch() {
    let reshaped = Net::new(
        "in x [N, 2, 4, 4]
         w ~ [4, 2, 1, 1]
         v ~ [64, 3]
         to = -1, 64
         c = Conv(x, w) kernel_shape=1,1
         r = Reshape(c, to)
         y = Gemm(r, v)
         out y [N, 3]",
    );
    // To sizes that are valid for a batch of one only.
    let fixed = reshaped.reworded("-1, 64", "1, 64");
    let length = Net::new(
        "in x [N, len, 4]
         w ~ [4, 8]
         v ~ [8, 3]
         m = MatMul(x, w)
         r = Relu(m)
         y = MatMul(r, v)
         out y [N, len, 3]",
    );
    let streaming = Net::new(
        "in x [N, 1, len]
         w ~ [8, 1, 3]
         v ~ [2, 8, 1]
         c = Conv(x, w) pads=1,1
         r = Relu(c)
         y = Conv(r, v)
         out y [N, 2, len]",
    );
    all(&[
        Case::new("Reshape to an open batch", 2, 30.0, reshaped),
        Case::new("Reshape to a batch of one", 2, 30.0, fixed).forms(&[Form::One, Form::Tied]),
        Case::new("an open length", 2, 30.0, length).forms(EITHER),
        Case::new("a stream of open length", 2, 30.0, streaming).forms(EITHER),
    ]);
}

/// A length between 1 and 3 for the scalars; else as usual.
fn counted(name: &str, dtype: DType, shape: &[usize], seed: u64) -> Tensor {
    match name {
        "k" => Tensor::full(1.0 + (seed % 3) as f32, shape).unwrap(),
        "rate" => Tensor::full(16000i64, shape).unwrap(),
        // Edges between the first three atoms.
        "edges" => {
            let ends = (0..shape.iter().product::<usize>()).map(|i| ((i as u64 * 7 + seed) % 3) as i64);
            Tensor::new(ends.collect(), shape).unwrap()
        }
        _ => normal(name, dtype, shape, seed),
    }
}

#[test]
fn a_first_axis_that_is_not_the_batch() {
    let added = Net::new(
        "in x [N, 4]
         in s [1, N, 3]
         w ~ [4, 3]
         zero = 0
         m = MatMul(x, w)
         s1 = Squeeze(s, zero)
         y = Add(m, s1)
         out y [N, 3]",
    );
    let recurrent = Net::new(
        "in x [5, N, 4]
         in h [1, N, 6]
         w ~ [1, 18, 4]
         r ~ [1, 18, 6]
         v ~ [6, 3]
         zero = 0
         , h1 = GRU(x, w, r, , , h) hidden_size=6
         q = Squeeze(h1, zero)
         y = MatMul(q, v)
         out y [N, 3]
         out h1 [1, N, 6]",
    );
    let scalar = Net::new(
        "in x [N, 4]
         in k []
         w ~ [4, 3]
         m = MatMul(x, w)
         y = Mul(m, k)
         out y [N, 3]",
    );
    let rate = Net::new(
        "in x [N, 4]
         in rate:i64 []
         w ~ [4, 3]
         sixteen = [] 16000
         e = Equal(rate, sixteen)
         f = Cast(e) to=1
         m = MatMul(x, w)
         y = Mul(m, f)
         out y [N, 3]",
    );
    // Messages along edges: two open counts, none of them a batch.
    let molecule = Net::new(
        r#"in atoms [num_atoms, 6]
         in edges:i64 [2, num_edges]
         w ~ [6, 8]
         v ~ [8, 3]
         from = [] 0
         to = [] 1
         one = [1] 1
         eight = 1, 8
         m = MatMul(atoms, w)
         r = Relu(m)
         source = Gather(edges, from) axis=0
         target = Gather(edges, to) axis=0
         sent = Gather(r, source) axis=0
         at = Unsqueeze(target, one)
         wide = Expand(at, eight)
         zero = Sub(r, r)
         sums = ScatterElements(zero, wide, sent) axis=0 reduction="add"
         h = Add(sums, r)
         y = MatMul(h, v)
         out y [num_atoms, 3]"#,
    );
    all(&[
        Case::new("a state with the batch on axis 1", 1, 30.0, added).forms(EITHER),
        Case::new("a recurrent state", 1, 25.0, recurrent).forms(EITHER),
        Case::new("a scalar factor", 1, 30.0, scalar).fed(counted).forms(EITHER),
        Case::new("a sample rate", 1, 30.0, rate).fed(counted).forms(EITHER),
        Case::new("atoms and edges", 2, 25.0, molecule).fed(counted).forms(&[Form::Open]),
    ]);
}
