//! Iteration over several arrays in step, each with its own strides: common code of broadcasting, transposing and slicing.

/// A common index space, with one stride for each of `N` arrays along each axis. Axes are merged where all arrays allow
/// it, so that the innermost run is as long as possible.
pub(crate) struct Strided<const N: usize> {
    dims: Vec<usize>,
    strides: Vec<[isize; N]>,
    start: [isize; N],
}

impl<const N: usize> Strided<N> {
    /// The index space `shape`; `strides[k]` are array `k`'s along each axis, `start[k]` its offset at the origin.
    pub(crate) fn new(shape: &[usize], strides: [&[isize]; N], start: [isize; N]) -> Self {
        let mut dims: Vec<usize> = Vec::new();
        let mut merged: Vec<[isize; N]> = Vec::new();
        for (axis, &dim) in shape.iter().enumerate() {
            if dim == 1 {
                continue;
            }
            let here: [isize; N] = std::array::from_fn(|k| strides[k][axis]);
            match (dims.last_mut(), merged.last_mut()) {
                (Some(d), Some(s)) if (0..N).all(|k| s[k] == here[k] * dim as isize) => {
                    *d *= dim;
                    *s = here;
                }
                _ => {
                    dims.push(dim);
                    merged.push(here);
                }
            }
        }
        if dims.is_empty() {
            dims.push(1);
            merged.push([0; N]);
        }
        Strided { dims, strides: merged, start }
    }

    /// Reading arrays of these shapes as if broadcast to `shape`.
    pub(crate) fn broadcast(shape: &[usize], arrays: [&[usize]; N]) -> Self {
        let strides: [Vec<isize>; N] = arrays.map(|a| crate::shape::broadcast_strides(a, shape).into_iter().map(|s| s as isize).collect());
        Self::new(shape, std::array::from_fn(|k| strides[k].as_slice()), [0; N])
    }

    /// Strides along the innermost (merged) axis.
    pub(crate) fn inner(&self) -> [isize; N] {
        self.strides[self.dims.len() - 1]
    }

    /// The merged axes, outermost first: size and strides of each.
    pub(crate) fn axes(&self) -> impl ExactSizeIterator<Item = (usize, [isize; N])> + '_ {
        self.dims.iter().copied().zip(self.strides.iter().copied())
    }

    /// Offsets at the origin.
    #[cfg(feature = "gpu")]
    pub(crate) fn start(&self) -> [isize; N] {
        self.start
    }

    /// Visits positions `from..from + len` of the flattened index space in runs along the innermost axis:
    /// `f(position - from, run, offsets)`.
    pub(crate) fn runs(&self, from: usize, len: usize, mut f: impl FnMut(usize, usize, [usize; N])) {
        let last = self.dims.len() - 1;
        let mut index = vec![0usize; self.dims.len()];
        let mut rest = from;
        for axis in (0..=last).rev() {
            index[axis] = rest % self.dims[axis].max(1);
            rest /= self.dims[axis].max(1);
        }
        let mut offsets = self.start;
        for (i, s) in index.iter().zip(&self.strides) {
            offsets.iter_mut().zip(s).for_each(|(o, s)| *o += *i as isize * s);
        }
        let mut done = 0;
        while done < len {
            let run = (self.dims[last] - index[last]).min(len - done);
            f(done, run, offsets.map(|o| o as usize));
            done += run;
            index[last] += run;
            offsets.iter_mut().zip(&self.strides[last]).for_each(|(o, s)| *o += run as isize * s);
            let mut axis = last;
            while index[axis] == self.dims[axis] && axis > 0 {
                let (outer, inner) = (self.strides[axis - 1], self.strides[axis]);
                for (o, (up, down)) in offsets.iter_mut().zip(outer.iter().zip(inner)) {
                    *o += up - self.dims[axis] as isize * down;
                }
                index[axis] = 0;
                axis -= 1;
                index[axis] += 1;
            }
        }
    }
}
