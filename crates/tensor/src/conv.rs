//! Convolution and transposed convolution of one, two or three spatial axes, with groups, strides, dilations and padding.
use crate::device::on_device;
use crate::kernels::conv::merge::Merge;
use crate::kernels::conv::winograd::Tiles;
use crate::kernels::conv::{Geometry, depthwise, direct, im2col, weights, winograd};
use crate::kernels::simd::Isa;
use crate::number::with_float;
use crate::{DType, Result, Tensor, TensorError, memory, record, recycle};

/// How a convolution moves over its input; one entry a spatial axis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConvOptions {
    /// Steps.
    pub strides: Vec<usize>,
    /// Padding with zeros before and after, in elements.
    pub pads: Vec<(usize, usize)>,
    /// Distance between the elements that one filter reads.
    pub dilations: Vec<usize>,
    /// Groups of channels that are independent of each other.
    pub groups: usize,
}

impl ConvOptions {
    /// Stride 1, no padding, no dilation, one group.
    pub fn plain(axes: usize) -> Self {
        ConvOptions { strides: vec![1; axes], pads: vec![(0, 0); axes], dilations: vec![1; axes], groups: 1 }
    }
}

/// The kernel for a geometry in f32.
enum Path {
    Direct,
    Merged(Box<Merge>),
    Depthwise,
    Patches,
}

/// Chooses the kernel for a geometry, and checks the memory limit for its work space, which can be much larger than the tensors.
fn path(g: &Geometry) -> Result<Path> {
    let tasks = g.n.saturating_mul(g.groups).min(rayon::current_num_threads());
    match (g.is_planar() && !g.is_sparse(), g.is_depthwise()) {
        (true, true) => Ok(Path::Depthwise),
        (true, false) => {
            memory::work_space::<f32>("conv", g.group_in() * g.padded(), tasks)?;
            Ok(Merge::of(g).map_or(Path::Direct, |m| Path::Merged(Box::new(m))))
        }
        _ => patches::<f32>(g).map(|()| Path::Patches),
    }
}

/// Checks the memory limit for the patches of a geometry.
fn patches<T>(g: &Geometry) -> Result<()> {
    let tasks = g.n.saturating_mul(g.groups).min(rayon::current_num_threads());
    memory::work_space::<T>("conv", (g.group_in() * g.taps()).saturating_mul(g.pixels_out()), tasks)
}

fn output_shape(g: &Geometry, rank: usize) -> Vec<usize> {
    [g.n, g.o].into_iter().chain(g.output[5 - rank..].iter().copied()).collect()
}

/// Which of the three convolutions a pass computes.
#[derive(Clone, Copy, PartialEq)]
enum Of {
    Values,
    Gradients,
}

/// Significant bits of a number on the grid of 8 bits and a scale of 4.
const GRID_BITS: u32 = 12;

/// True if sums with these weights must be as exact as possible. Values on grids of few bits have exact sums, which other
/// runtimes reproduce bit for bit, while Winograd's sums are rounded. Gradients need no such exactness.
fn exact(of: Of, w: &[f32]) -> bool {
    of == Of::Values && w.iter().all(|v| v.to_bits().trailing_zeros() >= f32::MANTISSA_DIGITS - GRID_BITS)
}

/// The convolution itself.
fn forward(of: Of, g: &Geometry, x: &Tensor, w: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let shape = output_shape(g, x.rank());
    let len = crate::shape::count(&shape)?;
    on_device!(crate::gpu::conv_forward(g, x, w, bias, &shape));
    if x.dtype() != DType::F32 {
        return with_float!("conv", x.dtype(), T => {
            let mut y = vec![T::default(); memory::room::<T>("conv", &shape)?];
            let bias = bias.map(|b| b.as_slice::<T>()).transpose()?;
            if len > 0 { patches::<T>(g)?; im2col::forward(g, x.as_slice::<T>()?, w.as_slice::<T>()?, bias, &mut y); }
            Tensor::new(y, shape)
        });
    }
    let (x, w, bias) = (x.as_slice::<f32>()?, w.as_slice::<f32>()?, bias.map(|b| b.as_slice::<f32>()).transpose()?);
    let mut y = recycle::take(memory::room::<f32>("conv", &shape)?);
    match path(g)? {
        _ if len == 0 => {}
        Path::Direct => match Tiles::of_input(g).filter(|tiles| tiles.pays(g.group_out()) && !exact(of, w)) {
            Some(tiles) => winograd::forward(Isa::best(), tiles, g, x, w, bias, &mut y),
            None => direct::forward(Isa::best(), g, x, w, bias, &mut y),
        },
        Path::Merged(m) => {
            let (x, mut out) = (m.merged(x, g.c), recycle::take(len));
            direct::forward(Isa::best(), &m.geometry, &x, w, bias, &mut out);
            recycle::give(x);
            m.split(out, g.o, &mut y);
        }
        Path::Depthwise => depthwise::forward(Isa::best(), g, x, w, bias, &mut y),
        Path::Patches => im2col::forward(g, x, w, bias, &mut y),
    }
    Tensor::new(y, shape)
}

/// Gradient by the input.
fn backward_data(of: Of, g: &Geometry, dy: &Tensor, w: &Tensor, shape: &[usize]) -> Result<Tensor> {
    let len = crate::shape::count(shape)?;
    on_device!(crate::gpu::conv_backward_data(g, dy, w, shape));
    if dy.dtype() != DType::F32 {
        return with_float!("conv", dy.dtype(), T => {
            let mut dx = vec![T::default(); memory::room::<T>("conv", shape)?];
            if len > 0 && !dy.is_empty() { patches::<T>(g)?; im2col::backward_data(g, dy.as_slice::<T>()?, w.as_slice::<T>()?, &mut dx); }
            Tensor::new(dx, shape)
        });
    }
    let (dy, w) = (dy.as_slice::<f32>()?, w.as_slice::<f32>()?);
    let mut dx = recycle::take(memory::room::<f32>("conv", shape)?);
    match path(g)? {
        _ if len == 0 || dy.is_empty() => dx.fill(0.0),
        Path::Direct => match Tiles::of_gradient(g).filter(|tiles| tiles.pays(g.group_in()) && !exact(of, w)) {
            Some(tiles) => winograd::backward_data(Isa::best(), tiles, g, dy, w, &mut dx),
            None => direct::backward_data(Isa::best(), g, dy, w, &mut dx),
        },
        Path::Merged(m) => {
            let (dy, mut out) = (m.merged(dy, g.o), recycle::take(len));
            direct::backward_data(Isa::best(), &m.geometry, &dy, w, &mut out);
            recycle::give(dy);
            m.split(out, g.c, &mut dx);
        }
        Path::Depthwise => depthwise::backward_data(Isa::best(), g, dy, w, &mut dx),
        Path::Patches => im2col::backward_data(g, dy, w, &mut dx),
    }
    Tensor::new(dx, shape)
}

/// Gradient by the weight.
fn backward_weights(g: &Geometry, x: &Tensor, dy: &Tensor, shape: &[usize]) -> Result<Tensor> {
    let len = crate::shape::count(shape)?;
    on_device!(crate::gpu::conv_backward_weights(g, x, dy, shape));
    with_float!("conv", x.dtype(), T => {
        let mut dw = vec![T::default(); len];
        if !dy.is_empty() && !x.is_empty() && x.dtype() != DType::F32 {
            patches::<T>(g)?;
            im2col::backward_weights(g, x.as_slice::<T>()?, dy.as_slice::<T>()?, &mut dw);
        }
        Tensor::new(dw, shape)
    })
    .and_then(|mut dw| {
        if x.dtype() == DType::F32 && !dy.is_empty() && !x.is_empty() {
            let (x, dy, dw) = (x.as_slice::<f32>()?, dy.as_slice::<f32>()?, dw.as_mut_slice::<f32>()?);
            match path(g)? {
                Path::Direct => match Tiles::of_input(g).filter(|tiles| tiles.pays_by_weights(g.group_out())) {
                    Some(tiles) => winograd::backward_weights(Isa::best(), tiles, g, x, dy, dw),
                    None => weights::backward_weights(Isa::best(), g, x, dy, dw),
                },
                Path::Merged(m) => {
                    let (x, dy) = (m.merged(x, g.c), m.merged(dy, g.o));
                    weights::backward_weights(Isa::best(), &m.geometry, &x, &dy, dw);
                    recycle::give(x);
                    recycle::give(dy);
                }
                Path::Depthwise => depthwise::backward_weights(Isa::best(), g, x, dy, dw),
                Path::Patches => im2col::backward_weights(g, x, dy, dw),
            }
        }
        Ok(dw)
    })
}

/// Gradient by the bias: the sum over images and pixels of each channel.
fn backward_bias(dy: &Tensor) -> Result<Tensor> {
    let axes: Vec<usize> = (0..dy.rank()).filter(|a| *a != 1).collect();
    dy.sum(&axes, false)
}

fn check_bias(bias: Option<&Tensor>, outputs: usize) -> Result<()> {
    match bias {
        Some(b) if b.shape() != [outputs] => Err(TensorError::shape("conv", format!("bias {:?} for {outputs} output channels", b.shape()))),
        _ => Ok(()),
    }
}

impl Tensor {
    /// Convolution (cross-correlation, as ONNX's `Conv`).
    ///
    /// # Shapes
    /// - `self`: `[n, c, spatial..]` with one to three spatial axes
    /// - `w`: `[o, c / groups, kernel..]`; `bias`: `[o]`
    /// - result: `[n, o, output..]`
    ///
    /// # Errors
    /// [`TensorError::Shape`] where they do not fit, [`TensorError::DType`] for types that are not floats,
    /// [`TensorError::Unsupported`] for more than three spatial axes.
    pub fn conv(&self, w: &Tensor, bias: Option<&Tensor>, options: &ConvOptions) -> Result<Tensor> {
        if self.is_half() {
            let bias = bias.map(|b| b.cast(DType::F32)).transpose()?;
            return self.cast(DType::F32)?.conv(&w.cast(DType::F32)?, bias.as_ref(), options)?.cast(self.dtype());
        }
        let g = Geometry::new(self.shape(), w.shape(), options)?;
        check_bias(bias, g.o)?;
        let y = forward(Of::Values, &g, self, w, bias)?;
        let inputs: Vec<&Tensor> = [self, w].into_iter().chain(bias).collect();
        let (x, w, has_bias) = (self.detach(), w.detach(), bias.is_some_and(Tensor::is_tracked));
        let (need_x, need_w) = (self.is_tracked(), inputs[1].is_tracked());
        Ok(record("conv", &inputs, y, move |dy| {
            let dw = need_w.then(|| backward_weights(&g, &x, &dy, w.shape())).transpose()?;
            let dx = need_x.then(|| backward_data(Of::Gradients, &g, &dy, &w, x.shape())).transpose()?;
            let db = has_bias.then(|| backward_bias(&dy)).transpose()?;
            Ok(vec![dx, dw, db])
        }))
    }

    /// Transposed convolution: the gradient of [`Tensor::conv`] by its input, as an operation of its own.
    ///
    /// # Shapes
    /// - `self`: `[n, c, spatial..]`; `w`: `[c, o / groups, kernel..]`; `bias`: `[o]`
    /// - `output_padding`: elements added behind each output axis, one entry a spatial axis
    /// - result: `[n, o, (spatial - 1) * stride + (kernel - 1) * dilation + 1 - pads + output_padding ..]`
    ///
    /// # Errors
    /// As [`Tensor::conv`]; also for an output that would have no element.
    pub fn conv_transpose(&self, w: &Tensor, bias: Option<&Tensor>, options: &ConvOptions, output_padding: &[usize]) -> Result<Tensor> {
        if self.is_half() {
            let bias = bias.map(|b| b.cast(DType::F32)).transpose()?;
            return self.cast(DType::F32)?.conv_transpose(&w.cast(DType::F32)?, bias.as_ref(), options, output_padding)?.cast(self.dtype());
        }
        let axes = self.rank().saturating_sub(2);
        let (g, shape) = Geometry::transposed(self.shape(), w.shape(), options, output_padding)?;
        check_bias(bias, shape[1])?;
        let mut y = backward_data(Of::Values, &g, self, w, &shape)?;
        if let Some(b) = bias {
            let column: Vec<usize> = [1, shape[1]].into_iter().chain(std::iter::repeat_n(1, axes)).collect();
            y = y.add(&b.detach().reshape(column)?)?;
        }
        let inputs: Vec<&Tensor> = [self, w].into_iter().chain(bias).collect();
        let (x, w, has_bias) = (self.detach(), w.detach(), bias.is_some_and(Tensor::is_tracked));
        let (need_x, need_w) = (self.is_tracked(), inputs[1].is_tracked());
        Ok(record("conv_transpose", &inputs, y, move |dy| {
            let dx = need_x.then(|| forward(Of::Gradients, &g, &dy, &w, None)).transpose()?;
            let dw = need_w.then(|| backward_weights(&g, &dy, &x, w.shape())).transpose()?;
            let db = has_bias.then(|| backward_bias(&dy)).transpose()?;
            Ok(vec![dx, dw, db])
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gradcheck::check;
    use crate::random::{uniform, uniform_f64};
    use proptest::prelude::*;

    #[test]
    fn gradients_of_every_spatial_rank() {
        let cases: Vec<(Vec<usize>, Vec<usize>, ConvOptions)> = vec![
            (vec![2, 2, 7], vec![3, 2, 3], ConvOptions { strides: vec![2], pads: vec![(1, 0)], ..ConvOptions::plain(1) }),
            (
                vec![2, 4, 5, 6],
                vec![4, 2, 3, 2],
                ConvOptions { groups: 2, dilations: vec![2, 1], pads: vec![(2, 1), (0, 1)], ..ConvOptions::plain(2) },
            ),
            (vec![1, 2, 3, 4, 3], vec![2, 2, 2, 2, 2], ConvOptions { pads: vec![(1, 0); 3], ..ConvOptions::plain(3) }),
        ];
        for (x, w, options) in cases {
            let inputs = [uniform_f64(1, &x, -1.0, 1.0), uniform_f64(2, &w, -1.0, 1.0), uniform_f64(3, &[w[0]], -1.0, 1.0)];
            check(&inputs, |t| t[0].conv(&t[1], Some(&t[2]), &options)).unwrap();
        }
    }

    #[test]
    fn gradients_of_the_transposed_convolution() {
        let options = ConvOptions { strides: vec![2, 3], pads: vec![(1, 0), (0, 1)], ..ConvOptions::plain(2) };
        let inputs = [uniform_f64(1, &[2, 3, 3, 2], -1.0, 1.0), uniform_f64(2, &[3, 2, 3, 3], -1.0, 1.0), uniform_f64(3, &[2], -1.0, 1.0)];
        check(&inputs, |t| t[0].conv_transpose(&t[1], Some(&t[2]), &options, &[1, 0])).unwrap();
    }

    fn close(a: &Tensor, b: &Tensor) -> std::result::Result<(), TestCaseError> {
        prop_assert_eq!(a.shape(), b.shape());
        let (a, b) = (a.to_f64_vec().unwrap(), b.to_f64_vec().unwrap());
        let largest = b.iter().fold(1f64, |m, v| m.max(v.abs()));
        for (i, (a, b)) in a.iter().zip(&b).enumerate() {
            prop_assert!((a - b).abs() <= 2e-5 * largest, "element {}: {} against {}", i, a, b);
        }
        Ok(())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        /// The f32 kernels against the f64 path through patches, on odd shapes: value and all gradients.
        #[test]
        fn fast_paths_agree_with_patches(
            n in 1usize..4, groups in 1usize..4, cg in 1usize..5, og in 1usize..7, h in 1usize..14, w in 1usize..20,
            kh in 1usize..5, kw in 1usize..6, sh in 1usize..4, sw in 1usize..4, dh in 1usize..3, dw in 1usize..3,
            pads in (0usize..3, 0usize..3, 0usize..3, 0usize..3), seed in any::<u64>(),
        ) {
            let options = ConvOptions { strides: vec![sh, sw], pads: vec![(pads.0, pads.1), (pads.2, pads.3)], dilations: vec![dh, dw], groups };
            let (xs, ws) = ([n, cg * groups, h, w], [og * groups, cg, kh, kw]);
            prop_assume!(Geometry::new(&xs, &ws, &options).is_ok());
            let x = uniform(seed, &xs, -1.0, 1.0).unwrap();
            let weight = uniform(seed ^ 1, &ws, -1.0, 1.0).unwrap();
            let bias = uniform(seed ^ 2, &[ws[0]], -1.0, 1.0).unwrap();
            let run = |dtype: DType| {
                let leaf = |t: &Tensor| t.cast(dtype).unwrap().tracked().unwrap();
                let (x, weight, bias) = (leaf(&x), leaf(&weight), leaf(&bias));
                let y = x.conv(&weight, Some(&bias), &options).unwrap();
                let dy = uniform(seed ^ 3, y.shape(), -1.0, 1.0).unwrap().cast(dtype).unwrap();
                let mut g = y.backward_from(dy).unwrap();
                let grads: Vec<Tensor> = [&x, &weight, &bias].iter().map(|t| g.take(t).unwrap()).collect();
                (y, grads)
            };
            let ((y, grads), (y64, grads64)) = (run(DType::F32), run(DType::F64));
            close(&y, &y64)?;
            for (a, b) in grads.iter().zip(&grads64) {
                close(a, b)?;
            }
        }
    }

    /// Small images with 1x1 kernels are merged: every count of images and pixels, against patches.
    #[test]
    fn merged_images_agree_with_patches() {
        for (n, side) in [(4, 3), (6, 1), (64, 3), (9, 4), (8, 7), (5, 2)] {
            let (x, weight) = (uniform(1, &[n, 5, side, side], -1.0, 1.0).unwrap(), uniform(2, &[7, 5, 1, 1], -1.0, 1.0).unwrap());
            let run = |dtype: DType| {
                let (x, weight) = (x.cast(dtype).unwrap().tracked().unwrap(), weight.cast(dtype).unwrap().tracked().unwrap());
                let y = x.conv(&weight, None, &ConvOptions::plain(2)).unwrap();
                let dy = uniform(3, y.shape(), -1.0, 1.0).unwrap().cast(dtype).unwrap();
                let mut g = y.backward_from(dy).unwrap();
                [y, g.take(&x).unwrap(), g.take(&weight).unwrap()]
            };
            for (a, b) in run(DType::F32).iter().zip(&run(DType::F64)) {
                close(a, b).unwrap();
            }
        }
    }

    /// Sizes for which Winograd's transforms pay, in all passes of both operations, against f64.
    #[test]
    fn large_kernels_of_three_rows_agree_with_patches() {
        let options = ConvOptions { pads: vec![(1, 1); 2], ..ConvOptions::plain(2) };
        let (x, w) = (uniform(1, &[9, 16, 16, 16], -1.0, 1.0).unwrap(), uniform(2, &[16, 16, 3, 3], -1.0, 1.0).unwrap());
        let (bias, dy) = (uniform(3, &[16], -1.0, 1.0).unwrap(), uniform(4, &[9, 16, 16, 16], -1.0, 1.0).unwrap());
        for transposed in [false, true] {
            let run = |dtype: DType| {
                let leaf = |t: &Tensor| t.cast(dtype).unwrap().tracked().unwrap();
                let (x, w, bias) = (leaf(&x), leaf(&w), leaf(&bias));
                let y = match transposed {
                    false => x.conv(&w, Some(&bias), &options).unwrap(),
                    true => x.conv_transpose(&w, Some(&bias), &options, &[0, 0]).unwrap(),
                };
                let mut g = y.backward_from(dy.cast(dtype).unwrap()).unwrap();
                [y, g.take(&x).unwrap(), g.take(&w).unwrap(), g.take(&bias).unwrap()]
            };
            for (a, b) in run(DType::F32).iter().zip(&run(DType::F64)) {
                close(a, b).unwrap();
            }
        }
    }

    /// Sums of numbers on grids of few bits fit f32: they must be exact, as in any other runtime.
    #[test]
    fn sums_of_quantized_numbers_are_exact() {
        let grid = |seed: u64, shape: &[usize], steps: f32, scale: f32| {
            let t = uniform(seed, shape, -steps, steps).unwrap();
            Tensor::new(t.as_slice::<f32>().unwrap().iter().map(|v| v.round() * scale).collect::<Vec<f32>>(), shape.to_vec()).unwrap()
        };
        let (x, w) = (grid(1, &[4, 16, 16, 16], 40.0, 7.0 / 512.0), grid(2, &[16, 16, 3, 3], 60.0, 13.0 / 8192.0));
        let options = ConvOptions { pads: vec![(1, 1); 2], ..ConvOptions::plain(2) };
        let wide = |t: &Tensor| t.cast(DType::F64).unwrap();
        for (name, y, y64) in [
            ("conv", x.conv(&w, None, &options).unwrap(), wide(&x).conv(&wide(&w), None, &options).unwrap()),
            (
                "conv_transpose",
                x.conv_transpose(&w, None, &options, &[0, 0]).unwrap(),
                wide(&x).conv_transpose(&wide(&w), None, &options, &[0, 0]).unwrap(),
            ),
        ] {
            assert!(y.to_f64_vec().unwrap() == y64.to_f64_vec().unwrap(), "{name}");
        }
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let x = Tensor::full(1f32, [1, 3, 4, 4]).unwrap();
        let w = |s: &[usize]| Tensor::full(1f32, s).unwrap();
        let plain = ConvOptions::plain(2);
        for (weight, part) in [(w(&[2, 2, 3, 3]), "channels"), (w(&[2, 3, 5, 5]), "does not fit"), (w(&[2, 3, 3]), "same rank")] {
            assert!(x.conv(&weight, None, &plain).unwrap_err().to_string().contains(part));
        }
        assert!(x.conv(&w(&[2, 3, 3, 3]), Some(&w(&[3])), &plain).is_err());
    }
}
