//! Files that other tools quantized, and files of 16-bit floats.
use crate::net::Net;
use crate::whole::{Case, Form, all, normal, runtime, sqnr, whole};
use tensor::{DType, Tensor, random};

/// Codes between -125 and 125.
fn codes(shape: &[usize]) -> Tensor {
    Tensor::new((0..shape.iter().product()).map(|i: usize| (((i * 89) % 251) as i16 - 125) as i8).collect(), shape).unwrap()
}

#[test]
fn quantizers_that_clip() {
    // As ONNX Runtime's tool writes a Conv and its Relu: the zero point is the least code, so the quantizer clips. Its nodes' names
    // are those that one might give oneself; it refuses a file that has one twice.
    let qdq = Net::new(
        "in x [N, 3, 6, 6]
         s = [] 0.02
         sx = [] 0.03
         sr = [] 0.015
         sw = 0.004, 0.003, 0.005, 0.002
         sb = [1] 0.001
         w2 ~ [4, 3]
         xq = QuantizeLinear(x, sx, middle) node=x_QuantizeLinear
         xd = DequantizeLinear(xq, sx, middle) node=x_DequantizeLinear
         w = DequantizeLinear(wq, sw, zeros) axis=0 node=w_DequantizeLinear
         b = DequantizeLinear(bq, sb, zero)
         c = Conv(xd, w, b) pads=1,1,1,1
         rq = QuantizeLinear(c, sr, least) node=r_QuantizeLinear
         r = DequantizeLinear(rq, sr, least) node=r_DequantizeLinear
         g = GlobalAveragePool(r)
         f = Flatten(g)
         y = MatMul(f, w2)
         out y [N, 3]",
    )
    .constant("wq", codes(&[4, 3, 3, 3]))
    .constant("bq", Tensor::new(vec![-60i32, 130, 300, -220], [4]).unwrap())
    .constant("zero", Tensor::new(vec![0i32], [1]).unwrap())
    .constant("zeros", Tensor::new(vec![0i8; 4], [4]).unwrap())
    .constant("middle", Tensor::scalar(128u8))
    .constant("least", Tensor::scalar(0u8));
    let unclipped = qdq.reworded("r = DequantizeLinear(rq, sr, least)", "q = DequantizeLinear(rq, sr, least)\nr = Identity(c)");
    let signed = qdq.clone().constant("middle", Tensor::scalar(0i8)).constant("least", Tensor::scalar(-128i8));
    // One scale in a list of one, on data of more than one axis and of one.
    let tensor_wide = qdq.reworded("sw = 0.004, 0.003, 0.005, 0.002", "sw = [1] 0.004");
    let tensor_wide =
        tensor_wide.reworded("(wq, sw, zeros) axis=0", "(wq, sw, zeros)").constant("zeros", Tensor::new(vec![0i8], [1]).unwrap());
    all(&[
        Case::new("codes of 8 bits", 2, 25.0, qdq).not("without the clipping", unclipped),
        Case::new("signed codes", 2, 25.0, signed),
        Case::new("a scale for the whole tensor in a list", 2, 25.0, tensor_wide),
    ]);
}

/// Eight-bit codes of a weight that is stored with them, `[16, 8]`, a scale for each of 8 columns: as floats.
fn table(scales: &[f32]) -> Tensor {
    let codes = codes(&[16, 8]).to_f32_vec().unwrap();
    Tensor::new(codes.iter().enumerate().map(|(i, c)| c * scales[i % 8]).collect(), [16, 8]).unwrap()
}

#[test]
fn weights_that_came_as_integers() {
    let embedding = Net::new(
        "in x:i64 [N, 5]
         st = [] 0.01
         w ~ [8, 8]
         w2 ~ [8, 3]
         t = DequantizeLinear(tq, st)
         e = Gather(t, x)
         m = MatMul(e, w)
         r = Relu(m)
         y = MatMul(r, w2)
         out y [N, 5, 3]",
    )
    .constant("tq", codes(&[2, 8]));
    let swapped = embedding.reworded("e = Gather(t, x)", "one = [] 1\nx1 = Sub(one, x)\ne = Gather(t, x1)");
    // A product of integers with a scale that each run finds anew.
    let dynamic = Net::new(
        "in x [N, 16]
         s = [] 0.004
         w2 ~ [8, 3]
         xq, xs, xz = DynamicQuantizeLinear(x)
         i = MatMulInteger(xq, wq, xz)
         f = Cast(i) to=1
         k = Mul(xs, s)
         m = Mul(f, k)
         r = Relu(m)
         y = MatMul(r, w2)
         out y [N, 3]",
    )
    .constant("wq", codes(&[16, 8]));
    let scales = [0.004f32, 0.003, 0.005, 0.002, 0.004, 0.003, 0.005, 0.002];
    let float = Net::new(
        "in x [N, 16]
         w2 ~ [8, 3]
         m = MatMul(x, w)
         r = Relu(m)
         y = MatMul(r, w2)
         out y [N, 3]",
    )
    .constant("w", table(&scales));
    // Two codes of 4 bits a byte, a scale a block of 16: columns of 16 inputs.
    let packed = Net::new(
        "in x [N, 16]
         sb = 0.02, 0.03, 0.04, 0.03, 0.02, 0.03, 0.04, 0.03
         w2 ~ [8, 3]
         m = com.microsoft.MatMulNBits(x, wn, sb) K=16 N=8 bits=4 block_size=16
         r = Relu(m)
         y = MatMul(r, w2)
         out y [N, 3]",
    )
    .constant("wn", Tensor::new((0..64).map(|i| (i * 37 % 256) as u8).collect(), [8, 1, 8]).unwrap());
    let other = packed.clone().constant("wn", Tensor::new((0..64).map(|i| (i * 37 % 256) as u8).rev().collect(), [8, 1, 8]).unwrap());
    let recurrent = Net::new(
        "in x [5, N, 4]
         s = [1] 0.004
         w2 ~ [6, 3]
         zero = 0
         , h = com.microsoft.DynamicQuantizeLSTM(x, wq, rq, , , , , , s, z, s, z) hidden_size=6
         q = Squeeze(h, zero)
         y = MatMul(q, w2)
         out y [N, 3]",
    )
    .constant("wq", codes(&[1, 4, 24]))
    .constant("rq", codes(&[1, 6, 24]))
    .constant("z", Tensor::new(vec![0i8], [1]).unwrap());
    const EITHER: &[Form] = &[Form::Open, Form::One];
    all(&[
        // The table is stored in the type of its values: uint8.
        Case::new("an embedding", 2, 25.0, embedding).not("another row", swapped).forms(EITHER),
        Case::new("MatMulInteger", 2, 25.0, dynamic),
        Case::new("what it stands for", 2, 25.0, float),
        Case::new("MatMulNBits", 2, 25.0, packed).not("the codes reversed", other),
        Case::new("DynamicQuantizeLSTM", 3, 25.0, recurrent).forms(EITHER),
    ]);
}

/// A deployed file as the input of another run.
#[test]
fn our_own_file_again() {
    let Some(runtime) = runtime() else { return };
    let net = Net::new(
        "in x [N, 3, 6, 6]
         w ~ [4, 3, 3, 3]
         w2 ~ [4, 3]
         c = Conv(x, w) pads=1,1,1,1
         r = Relu(c)
         g = GlobalAveragePool(r)
         f = Flatten(g)
         y = MatMul(f, w2)
         out y [N, 3]",
    );
    for form in [Form::Open, Form::One, Form::Tied] {
        let first = whole(&net, form, normal, &[]).unwrap();
        let again = crate::whole::again(&first).unwrap();
        let run = |path: &str| crate::whole::outputs(&runtime, &first.folder.path().join(path), &first.runs, false).unwrap();
        let float = &run("model.onnx")["y"];
        let twice = crate::whole::outputs(&runtime, &again.folder.path().join("out/deploy.deployed.onnx"), &first.runs, false).unwrap();
        let (once, twice) = (sqnr(float, &run("out/deploy.deployed.onnx")["y"]), sqnr(float, &twice["y"]));
        println!("{form:?}: {once:.1} dB, again {twice:.1} dB");
        assert!(once > 25.0 && twice > once - 3.0, "{form:?}: {once} {twice}");
    }
}

#[test]
fn sixteen_bit_floats() {
    let weight = |seed, shape: &[usize]| random::normal(seed, shape, 0.0, 0.3).unwrap().cast(DType::F16).unwrap();
    let core = "c = Conv(x16, w, b) pads=1,1,1,1
         r = Relu(c)
         g = GlobalAveragePool(r)
         f = Flatten(g)
         y16 = Gemm(f, w2) transB=1";
    let of = |text: String| {
        let net = Net::new(&text).constant("w", weight(1, &[8, 3, 3, 3])).constant("b", weight(2, &[8]));
        net.constant("w2", weight(3, &[4, 8]))
    };
    let inside = of(format!(
        "in x [N, 3, 6, 6]
         x16 = Cast(x) to=10
         {core}
         y = Cast(y16) to=1
         out y [N, 4]"
    ));
    let edges = of(format!(
        "in x16:f16 [N, 3, 6, 6]
         {core}
         out y16:f16 [N, 4]"
    ));
    let lost = edges.reworded("r = Relu(c)", "r = Identity(c)");
    all(&[Case::new("inside", 2, 25.0, inside), Case::new("at the edges, too", 2, 25.0, edges).not("without the activation", lost)]);
}
