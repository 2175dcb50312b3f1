//! Pooling over one, two or three spatial axes.
use crate::kernels::pool::{Geometry, average_backward, average_forward, each_largest, max_backward, max_forward, range};
use crate::number::with_float;
use crate::parallel::CHUNK;
use crate::window::{Moves, Window};
use crate::{DType, Result, Tensor, TensorError, memory, record, recycle};
use rayon::prelude::*;

/// How a window moves over its input; one entry a spatial axis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolOptions {
    /// Size of the window.
    pub kernel: Vec<usize>,
    /// Steps.
    pub strides: Vec<usize>,
    /// Padding before and after.
    pub pads: Vec<(usize, usize)>,
    /// Distance between the elements a window sees.
    pub dilations: Vec<usize>,
    /// Round the output's size up instead of down.
    pub ceil_mode: bool,
    /// Padding counts in an average.
    pub count_include_pad: bool,
}

/// A checked window and the shape of the result.
#[derive(Clone)]
struct Windows {
    window: Window,
    shape: Vec<usize>,
}

impl Windows {
    fn new(op: &'static str, x: &[usize], o: &PoolOptions) -> Result<Windows> {
        let [n, c, spatial @ ..] = x else {
            return Err(TensorError::shape(op, format!("input {x:?} and window {:?} do not fit (one to three spatial axes)", o.kernel)));
        };
        let moves = Moves { strides: &o.strides, pads: &o.pads, dilations: &o.dilations, ceil_mode: o.ceil_mode };
        let window = Window::new(op, *c, spatial, &o.kernel, moves)?;
        let shape = [&[*n, *c], &window.output[3 - spatial.len()..]].concat();
        // Checked before memory is allocated for each output.
        memory::room::<f32>(op, &shape)?;
        memory::work_space::<[usize; 3]>(op, window.output.iter().sum(), 1)?;
        Ok(Windows { window, shape })
    }

    fn pixels_in(&self) -> usize {
        self.window.pixels_in()
    }

    fn pixels_out(&self) -> usize {
        self.window.pixels_out()
    }

    /// The windows in the kernel's form, for planes that are not empty. `seen` is the number of elements that an average divides
    /// by: all of a window or, if padding does not count, those inside.
    fn plane(&self, include_pad: bool) -> Option<Geometry> {
        let w = &self.window;
        if w.input[0] != 1 || w.kernel[0] != 1 || w.output[0] != 1 || w.before[0] + w.after[0] > 0 {
            return None;
        }
        // The kernel lays out every phase of a row; steps far wider than the input would fill it with padding.
        if self.pixels_in() == 0 || self.pixels_out() == 0 || w.is_sparse() || w.stride[2] > w.input[2] + w.before[2] + w.after[2] {
            return None;
        }
        let two = |v: [usize; 3]| [v[1], v[2]];
        let seen = |i: usize| {
            let size = if include_pad { w.before[i] + w.input[i] + w.after[i] } else { w.input[i] };
            let before = if include_pad { 0 } else { w.before[i] };
            (0..w.output[i]).map(|o| range(o * w.stride[i], w.dilation[i], before, size, w.kernel[i]).len()).collect()
        };
        Some(Geometry {
            input: two(w.input),
            output: two(w.output),
            kernel: two(w.kernel),
            stride: two(w.stride),
            dilation: two(w.dilation),
            before: two(w.before),
            seen: [seen(1), seen(2)],
        })
    }

    /// Calls `f(output pixel, its inputs in order, elements that an average with padding divides by)`.
    fn each(&self, mut f: impl FnMut(usize, &[usize], usize)) {
        let w = &self.window;
        // Along each axis, for each output: the first input, the number of inputs, and the number of positions that count.
        let axis = |i: usize, out: usize| {
            let start = out * w.stride[i];
            let real = range(start, w.dilation[i], w.before[i], w.input[i], w.kernel[i]);
            // Padding that ceil_mode adds beyond the declared one does not count.
            let counted = range(start, w.dilation[i], 0, w.before[i] + w.input[i] + w.after[i], w.kernel[i]).len();
            (if real.is_empty() { 0 } else { start + real.start * w.dilation[i] - w.before[i] }, real.len(), counted)
        };
        let per_axis: Vec<Vec<(usize, usize, usize)>> = (0..3).map(|i| (0..w.output[i]).map(|o| axis(i, o)).collect()).collect();
        let seen = |i: usize, (first, count, _): (usize, usize, usize)| (0..count).map(move |k| first + k * w.dilation[i]);
        let (mut inside, mut out) = (vec![], 0);
        for z in &per_axis[0] {
            for y in &per_axis[1] {
                for x in &per_axis[2] {
                    inside.clear();
                    for row in seen(0, *z).flat_map(|z| seen(1, *y).map(move |y| (z * w.input[1] + y) * w.input[2])) {
                        inside.extend(seen(2, *x).map(|x| row + x));
                    }
                    f(out, &inside, z.2 * y.2 * x.2);
                    out += 1;
                }
            }
        }
    }
}

impl Tensor {
    /// The largest element of each window and its position: its index in the flattened `[n, c, spatial..]` input.
    ///
    /// # Errors
    /// [`TensorError::Shape`] where the window does not fit; [`TensorError::DType`] for types without order.
    pub fn max_pool(&self, options: &PoolOptions) -> Result<(Tensor, Tensor)> {
        self.max_pool_with(options, true)
    }

    /// [`Tensor::max_pool`] without the positions.
    ///
    /// # Errors
    /// As [`Tensor::max_pool`].
    pub fn max_pool_values(&self, options: &PoolOptions) -> Result<Tensor> {
        Ok(self.max_pool_with(options, false)?.0)
    }

    /// The positions are empty if they are not `wanted` and would cost time.
    fn max_pool_with(&self, options: &PoolOptions, wanted: bool) -> Result<(Tensor, Tensor)> {
        let w = Windows::new("max_pool", self.shape(), options)?;
        match self.dtype() {
            DType::F16 | DType::BF16 | DType::I8 | DType::U8 => {
                let (y, i) = self.cast(DType::F32)?.max_pool_with(options, wanted)?;
                return Ok((y.cast(self.dtype())?, i));
            }
            _ => {}
        }
        // An empty window (padding only) and one too large for a byte are left to the plain loop.
        let empty = |g: &Geometry| g.seen.iter().any(|s| s.contains(&0));
        match w.plane(false).filter(|g| self.dtype() == DType::F32 && !empty(g) && g.kernel[0] * g.kernel[1] <= 255) {
            Some(g) => self.max_pool_planes(w, g, wanted),
            None => self.max_pool_plain(w),
        }
    }

    /// The f32 kernel.
    fn max_pool_planes(&self, w: Windows, g: Geometry, wanted: bool) -> Result<(Tensor, Tensor)> {
        let (pixels_in, pixels_out) = (g.pixels_in(), g.pixels_out());
        let x = self.as_slice::<f32>()?;
        let mut y = recycle::take(memory::room::<f32>("max_pool", &w.shape)?);
        let mut which = vec![0u8; memory::room::<u8>("max_pool", &w.shape)?];
        let planes = y.par_chunks_mut(pixels_out).zip(which.par_chunks_mut(pixels_out)).zip(x.par_chunks(pixels_in));
        planes.with_min_len(CHUNK.div_ceil(pixels_in)).for_each(|((y, which), x)| max_forward(&g, x, y, which));
        let mut at = vec![0i64; if wanted { memory::room::<i64>("max_pool", &w.shape)? } else { 0 }];
        at.par_chunks_mut(pixels_out).zip(which.par_chunks(pixels_out)).enumerate().for_each(|(plane, (at, which))| {
            each_largest(&g, which, |out, pixel| at[out] = (plane * pixels_in + pixel) as i64);
        });
        let indices = if wanted { Tensor::new(at, w.shape.clone())? } else { Tensor::vector(at) };
        let shape = self.shape().to_vec();
        let y = record("max_pool", &[self], Tensor::new(y, w.shape)?, move |dy| {
            let dy = dy.as_slice::<f32>()?;
            let mut dx = recycle::take(dy.len() / pixels_out * pixels_in);
            let planes = dx.par_chunks_mut(pixels_in).zip(which.par_chunks(pixels_out)).zip(dy.par_chunks(pixels_out));
            planes.with_min_len(CHUNK.div_ceil(pixels_in)).for_each(|((dx, which), dy)| max_backward(&g, which, dy, dx));
            Ok(vec![Some(Tensor::new(dx, shape)?)])
        });
        Ok((y, indices))
    }

    /// The plain loop: for every rank and type, and the kernel's reference.
    fn max_pool_plain(&self, w: Windows) -> Result<(Tensor, Tensor)> {
        let (pixels_in, pixels_out) = (w.pixels_in(), w.pixels_out());
        let len = memory::room::<[i64; 2]>("max_pool", &w.shape)?;
        let (y, at) = with_float!("max_pool", self.dtype(), T => {
            let x = self.as_slice::<T>()?;
            // Position of the largest element; -1 for a window of padding only.
            let (mut y, mut at) = (vec![T::default(); len], vec![-1i64; len]);
            y.par_chunks_mut(pixels_out.max(1)).zip(at.par_chunks_mut(pixels_out.max(1))).enumerate().for_each(|(plane, (y, at))| {
                let base = plane * pixels_in;
                let x = &x[base..base + pixels_in];
                w.each(|out, inside, _| {
                    let mut best = (T::NEG_INFINITY, inside.first().copied().unwrap_or(0));
                    for i in inside {
                        if x[*i] > best.0 || x[*i].is_nan() { best = (x[*i], *i); }
                    }
                    y[out] = best.0;
                    at[out] = if inside.is_empty() { -1 } else { (base + best.1) as i64 };
                });
            });
            Ok((Tensor::new(y, w.shape.clone())?, at))
        })?;
        // Reported as the first element of its plane, but without a gradient.
        let told = at.iter().enumerate().map(|(i, p)| if *p < 0 { (i / pixels_out.max(1) * pixels_in) as i64 } else { *p }).collect();
        let indices = Tensor::new(told, w.shape)?;
        let shape = self.shape().to_vec();
        let y = record("max_pool", &[self], y, move |dy| {
            let dx = with_float!("max_pool", dy.dtype(), T => {
                let mut dx = vec![T::default(); crate::shape::count(&shape)?];
                for (i, d) in at.iter().zip(dy.as_slice::<T>()?) {
                    if let Ok(i) = usize::try_from(*i) {
                        dx[i] += *d;
                    }
                }
                Tensor::new(dx, shape)
            })?;
            Ok(vec![Some(dx)])
        });
        Ok((y, indices))
    }

    /// The mean of each window.
    ///
    /// # Errors
    /// [`TensorError::Shape`] where the window does not fit; [`TensorError::DType`] for types that are not floats.
    pub fn average_pool(&self, options: &PoolOptions) -> Result<Tensor> {
        if self.is_half() {
            return self.cast(DType::F32)?.average_pool(options)?.cast(self.dtype());
        }
        let w = Windows::new("average_pool", self.shape(), options)?;
        match w.plane(options.count_include_pad).filter(|_| self.dtype() == DType::F32) {
            Some(g) => self.average_pool_planes(w, g),
            None => self.average_pool_plain(w, options.count_include_pad),
        }
    }

    /// The f32 kernel.
    fn average_pool_planes(&self, w: Windows, g: Geometry) -> Result<Tensor> {
        let (pixels_in, pixels_out) = (g.pixels_in(), g.pixels_out());
        let x = self.as_slice::<f32>()?;
        let mut y = recycle::take(memory::room::<f32>("average_pool", &w.shape)?);
        let planes = y.par_chunks_mut(pixels_out).zip(x.par_chunks(pixels_in)).with_min_len(CHUNK.div_ceil(pixels_in));
        planes.for_each(|(y, x)| average_forward(&g, x, y));
        let shape = self.shape().to_vec();
        Ok(record("average_pool", &[self], Tensor::new(y, w.shape)?, move |dy| {
            let dy = dy.as_slice::<f32>()?;
            let mut dx = recycle::take(dy.len() / pixels_out * pixels_in);
            let planes = dx.par_chunks_mut(pixels_in).zip(dy.par_chunks(pixels_out)).with_min_len(CHUNK.div_ceil(pixels_in));
            planes.for_each(|(dx, dy)| average_backward(&g, dy, dx));
            Ok(vec![Some(Tensor::new(dx, shape)?)])
        }))
    }

    /// The plain loop: for every rank and type, and the kernel's reference.
    fn average_pool_plain(&self, w: Windows, include: bool) -> Result<Tensor> {
        let (pixels_in, pixels_out) = (w.pixels_in(), w.pixels_out());
        let divisor = move |inside: &[usize], all: usize| if include { all } else { inside.len() }.max(1);
        let y = with_float!("average_pool", self.dtype(), T => {
            let x = self.as_slice::<T>()?;
            let mut y = vec![T::default(); memory::room::<T>("average_pool", &w.shape)?];
            y.par_chunks_mut(pixels_out.max(1)).enumerate().for_each(|(plane, y)| {
                let x = &x[plane * pixels_in..(plane + 1) * pixels_in];
                w.each(|out, inside, all| y[out] = inside.iter().map(|i| x[*i]).sum::<T>() / divisor(inside, all) as T);
            });
            Tensor::new(y, w.shape.clone())
        })?;
        let shape = self.shape().to_vec();
        Ok(record("average_pool", &[self], y, move |dy| {
            let dx = with_float!("average_pool", dy.dtype(), T => {
                let dy = dy.as_slice::<T>()?;
                let mut dx = vec![T::default(); crate::shape::count(&shape)?];
                dx.par_chunks_mut(pixels_in.max(1)).enumerate().for_each(|(plane, dx)| {
                    let dy = &dy[plane * pixels_out..(plane + 1) * pixels_out];
                    w.each(|out, inside, all| {
                        let share = dy[out] / divisor(inside, all) as T;
                        inside.iter().for_each(|i| dx[*i] += share);
                    });
                });
                Tensor::new(dx, shape)
            })?;
            Ok(vec![Some(dx)])
        }))
    }

    /// The `p`-norm of each window (`p` at least 1): the mean of powers is undone, so padding adds zeros.
    ///
    /// # Errors
    /// As [`Tensor::average_pool`].
    pub fn lp_pool(&self, options: &PoolOptions, p: i64) -> Result<Tensor> {
        let whole = PoolOptions { count_include_pad: true, ..options.clone() };
        let powers = self.abs()?.pow(&self.scalar_like(p as f64)?)?;
        // The mean times the window's size is the sum; ceil_mode windows that hang over are smaller.
        let ones = self.detach().ones_like()?;
        let counts = ones.average_pool(&whole)?.div(&ones.average_pool(&PoolOptions { count_include_pad: false, ..whole.clone() })?)?;
        let area: usize = options.kernel.iter().product();
        let sum = match options.ceil_mode {
            false => powers.average_pool(&whole)?.mul_scalar(area as f64)?,
            true => {
                let plain = powers.average_pool(&PoolOptions { count_include_pad: false, ..whole.clone() })?;
                plain.mul(&counts)?.mul_scalar(area as f64)?
            }
        };
        sum.pow(&self.scalar_like(1.0 / p as f64)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gradcheck::check;
    use crate::random::{uniform, uniform_f64};
    use proptest::prelude::*;

    fn options(axes: usize) -> PoolOptions {
        PoolOptions {
            kernel: vec![3; axes],
            strides: vec![2; axes],
            pads: vec![(1, 1); axes],
            dilations: vec![1; axes],
            ceil_mode: false,
            count_include_pad: false,
        }
    }

    #[test]
    fn gradients_of_every_rank() {
        for axes in 1..=3 {
            let shape: Vec<usize> = [2, 2].into_iter().chain(std::iter::repeat_n(5, axes)).collect();
            for (ceil_mode, count_include_pad) in [(false, false), (true, true)] {
                let o = PoolOptions { ceil_mode, count_include_pad, ..options(axes) };
                check(&[uniform_f64(1, &shape, -1.0, 1.0)], |t| Ok(t[0].max_pool(&o)?.0)).unwrap();
                check(&[uniform_f64(1, &shape, -1.0, 1.0)], |t| t[0].average_pool(&o)).unwrap();
            }
        }
    }

    #[test]
    fn averages_count_padding_only_when_asked() {
        let x = Tensor::full(1f32, [1, 1, 4]).unwrap();
        let o = PoolOptions {
            kernel: vec![3],
            strides: vec![3],
            pads: vec![(1, 1)],
            dilations: vec![1],
            ceil_mode: false,
            count_include_pad: true,
        };
        assert_eq!(x.average_pool(&o).unwrap().as_slice::<f32>().unwrap(), [2.0 / 3.0, 2.0 / 3.0]);
        assert_eq!(x.average_pool(&PoolOptions { count_include_pad: false, ..o }).unwrap().as_slice::<f32>().unwrap(), [1.0, 1.0]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]
        /// The kernels against the plain loops, to the bit: values, places and gradients, with ties, infinities and NaN.
        #[test]
        fn kernels_agree_with_plain_loops(
            planes in 1usize..4, input in proptest::array::uniform2(1usize..40), kernel in proptest::array::uniform2(1usize..5),
            strides in proptest::array::uniform2(1usize..5), dilations in proptest::array::uniform2(1usize..4),
            pads in proptest::array::uniform4(0usize..4), rank in 1usize..3, ceil_mode: bool, count_include_pad: bool, special in 0usize..3, seed: u64
        ) {
            let last = |v: &[usize]| v[2 - rank..].to_vec();
            let shape = [vec![1, planes], last(&input)].concat();
            let o = PoolOptions { kernel: last(&kernel), strides: last(&strides), dilations: last(&dilations), pads: vec![(pads[0], pads[1]), (pads[2], pads[3])][2 - rank..].to_vec(), ceil_mode, count_include_pad };
            let Ok(w) = Windows::new("pool", &shape, &o) else { return Ok(()) };
            let mut x = uniform(seed, &shape, -3.0, 3.0).unwrap();
            match special {
                0 => {}
                1 => x.as_mut_slice::<f32>().unwrap().iter_mut().for_each(|v| *v = v.round()),
                _ => x.as_mut_slice::<f32>().unwrap().iter_mut().enumerate().for_each(|(i, v)| match (i as u64 ^ seed) % 7 {
                    0 => *v = f32::NAN,
                    1 | 2 => *v = f32::NEG_INFINITY,
                    _ => {}
                }),
            }
            let dy = uniform(seed ^ 1, &w.shape, -1.0, 1.0).unwrap();
            let gradient = |leaf: &Tensor, y: Tensor| y.backward_from(dy.clone()).unwrap().take(leaf).unwrap();
            let leaf = x.tracked().unwrap();
            let ((y, at), (plain, plain_at)) = (leaf.max_pool(&o).unwrap(), leaf.max_pool_plain(w.clone()).unwrap());
            prop_assert_eq!(&y, &plain);
            prop_assert_eq!(at, plain_at);
            prop_assert_eq!(&leaf.max_pool_values(&o).unwrap(), &plain);
            prop_assert_eq!(gradient(&leaf, y), gradient(&leaf, plain));
            let (y, plain) = (leaf.average_pool(&o).unwrap(), leaf.average_pool_plain(w, count_include_pad).unwrap());
            for (a, b) in y.as_slice::<f32>().unwrap().iter().zip(plain.as_slice::<f32>().unwrap()) { prop_assert!(a == b || (a.is_nan() && b.is_nan()), "{} against {}", a, b); }
            let (dx, plain_dx) = (gradient(&leaf, y), gradient(&leaf, plain));
            prop_assert_eq!(dx.as_slice::<f32>().unwrap(), plain_dx.as_slice::<f32>().unwrap());
        }
    }
}
