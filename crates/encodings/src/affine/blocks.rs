//! Blocks: so many consecutive elements of a weight share a scale, as DequantizeLinear with `block_size` has it.
use super::{AffineSettings, KIND};
use crate::slot::Along;
use crate::{EncodingError, Result};
use graph::Encoding;
use tensor::{PadMode, Tensor, shape};

/// The elements of a weight that share a scale: `size` in a row along an axis.
///
/// The weight counts as `[outer, length, inner]` with `length` along the axis (with [`Along::flat`] along it and all behind it, `inner` then
/// 1). It has `ceil(length / size)` blocks for each pair of outer and inner index, the last one shorter where `size` does not divide `length`.
/// Scales have the weight's shape with the number of blocks in place of `length`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blocks {
    /// Along what.
    pub along: Along,
    /// Elements of a block, at least 1.
    pub size: usize,
}

/// A weight's shape as blocks see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockLayout {
    /// Product of the axes in front.
    pub outer: usize,
    /// Elements along the blocks.
    pub length: usize,
    /// Product of the axes behind.
    pub inner: usize,
    /// Elements of a block.
    pub size: usize,
}

impl BlockLayout {
    /// Blocks along the length.
    pub fn count(&self) -> usize {
        self.length.div_ceil(self.size)
    }

    /// The scale of the element at `index` of the weight's elements in their order.
    pub fn scale_of(&self, index: usize) -> usize {
        let (at, inner) = (index / self.inner, index % self.inner);
        let (outer, along) = (at / self.length, at % self.length);
        (outer * self.count() + along / self.size) * self.inner + inner
    }
}

impl Blocks {
    /// How a weight of this shape is divided.
    ///
    /// # Errors
    /// A tensor error if the axis does not exist.
    pub fn layout(&self, of: &[usize]) -> Result<BlockLayout> {
        let axis = shape::axis("blocks", self.along.axis as i64, of.len())?;
        let end = if self.along.flat { of.len() } else { axis + 1 };
        let product = |dims: &[usize]| dims.iter().product::<usize>();
        let (outer, length, inner) = (product(&of[..axis]), product(&of[axis..end]), product(&of[end..]));
        // No more than what is there, so that a block is not padded in vain.
        Ok(BlockLayout { outer, length: length.max(1), inner: inner.max(1), size: self.size.clamp(1, length.max(1)) })
    }

    /// The shape in which the integers are stored, so that the blocks lie along one axis: the weight's, unless it is flattened.
    ///
    /// # Errors
    /// As [`Blocks::layout`].
    pub fn stored_shape(&self, of: &[usize]) -> Result<Vec<usize>> {
        let layout = self.layout(of)?;
        let mut stored = of.to_vec();
        if self.along.flat {
            stored.truncate(self.along.axis);
            stored.push(layout.length);
        }
        Ok(stored)
    }

    /// The shape of the scales of a weight of this shape.
    ///
    /// # Errors
    /// As [`Blocks::layout`].
    pub fn scale_shape(&self, of: &[usize]) -> Result<Vec<usize>> {
        let mut scales = self.stored_shape(of)?;
        scales[self.along.axis] = self.layout(of)?.count();
        Ok(scales)
    }

    /// Refuses scales that are not one for each block of a value of this shape.
    pub(super) fn check(&self, scale: &Tensor, of: &[usize]) -> Result<()> {
        let wanted = self.scale_shape(of)?;
        if scale.len() == wanted.iter().product::<usize>() {
            return Ok(());
        }
        let what = format!("has shape {:?}; groups of {} of a value of shape {of:?} need {wanted:?}", scale.shape(), self.size);
        Err(EncodingError::Parameter { kind: KIND, parameter: "scale", what })
    }

    /// One block a row, in the order of the scales, the last ones filled with zeros: `[blocks, size]`. Differentiable.
    ///
    /// # Errors
    /// As [`Blocks::layout`].
    pub(super) fn rows(&self, value: &Tensor) -> Result<Tensor> {
        let l = self.layout(value.shape())?;
        let (count, short) = (l.count(), l.count() * l.size - l.length);
        let mut x = value.reshape([l.outer, l.length, l.inner])?;
        if short > 0 {
            x = x.pad(&[(0, 0), (0, short as i64), (0, 0)], PadMode::Constant, None)?;
        }
        let x = x.reshape([l.outer, count, l.size, l.inner])?;
        let x = if l.inner > 1 { x.transpose(&[0, 1, 3, 2])? } else { x };
        Ok(x.reshape([l.outer * count * l.inner, l.size])?)
    }

    /// The value whose blocks are these rows. Differentiable.
    ///
    /// # Errors
    /// As [`Blocks::layout`].
    pub(super) fn whole(&self, rows: &Tensor, of: &[usize]) -> Result<Tensor> {
        let l = self.layout(of)?;
        let x = match l.inner {
            1 => rows.reshape([l.outer, l.count() * l.size, 1])?,
            inner => rows.reshape([l.outer, l.count(), inner, l.size])?.transpose(&[0, 1, 3, 2])?.reshape([
                l.outer,
                l.count() * l.size,
                inner,
            ])?,
        };
        let x = if l.count() * l.size > l.length { x.narrow(1, 0, l.length)? } else { x };
        Ok(x.reshape(of)?)
    }

    /// One number for each block as one for each element, of the value's shape.
    ///
    /// # Errors
    /// As [`Blocks::layout`].
    pub(super) fn spread(&self, scale: &Tensor, of: &[usize]) -> Result<Tensor> {
        self.check(scale, of)?;
        let l = self.layout(of)?;
        let rows = scale.reshape([scale.len(), 1])?.expand(&[scale.len(), l.size])?;
        self.whole(&rows, of)
    }

    /// The elements of each block, in the order of the scales, without filling.
    ///
    /// # Errors
    /// As [`Blocks::layout`].
    pub(super) fn pieces(&self, x: &[f32], of: &[usize]) -> Result<Vec<Vec<f32>>> {
        let l = self.layout(of)?;
        let mut out = vec![Vec::with_capacity(l.size); l.outer * l.count() * l.inner];
        x.iter().enumerate().for_each(|(i, v)| out[l.scale_of(i)].push(*v));
        Ok(out)
    }
}

/// See [`crate::scaled`]. A grid that is the same on both sides of zero stays so for a factor below zero.
pub(crate) fn scaled(encoding: &Encoding, axis: usize, factor: &[f64]) -> Result<Option<Encoding>> {
    let settings = AffineSettings::of(encoding)?;
    let (Some(Blocks { along, .. }), Some(scale)) = (settings.blocks, encoding.parameters.get("scale")) else { return Ok(None) };
    let inside = axis == along.axis || (along.flat && axis > along.axis);
    let even = settings.symmetric && settings.qmin() == -settings.qmax();
    if inside || !even || scale.shape().get(axis) != Some(&factor.len()) {
        return Ok(None);
    }
    let run = scale.shape()[axis + 1..].iter().product::<usize>().max(1);
    let one = |(i, s): (usize, f64)| ((s * factor[i / run % factor.len()].abs()) as f32).max(f32::MIN_POSITIVE);
    let scales: Vec<f32> = scale.to_f64_vec()?.into_iter().enumerate().map(one).collect();
    let mut out = encoding.clone();
    out.parameters.insert("scale".into(), Tensor::new(scales, scale.shape())?);
    Ok(Some(out))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn blocks(axis: usize, flat: bool, size: usize) -> Blocks {
        Blocks { along: Along { axis, flat }, size }
    }

    #[test]
    fn elements_in_a_row_along_the_axis_share_a_scale() {
        // A product's weight [5, 2], blocks of 2 along the inputs: rows 0 and 1, rows 2 and 3, row 4; a column each.
        let b = blocks(0, false, 2);
        assert_eq!((b.scale_shape(&[5, 2]).unwrap(), b.stored_shape(&[5, 2]).unwrap()), (vec![3, 2], vec![5, 2]));
        let x = Tensor::new((0..10).map(|v| v as f32).collect::<Vec<_>>(), [5, 2]).unwrap();
        let rows: [f32; 12] = [0., 2., 1., 3., 4., 6., 5., 7., 8., 0., 9., 0.];
        assert_eq!(b.rows(&x).unwrap(), Tensor::new(rows.to_vec(), [6, 2]).unwrap());
        let scale = Tensor::new((0..6).map(|v| v as f32).collect::<Vec<_>>(), [3, 2]).unwrap();
        let spread: [f32; 10] = [0., 1., 0., 1., 2., 3., 2., 3., 4., 5.];
        assert_eq!(b.spread(&scale, &[5, 2]).unwrap().to_f32_vec().unwrap(), spread);
        // A kernel [2, 2, 3] flattened: blocks of 4 of the 6 elements of an output.
        let b = blocks(1, true, 4);
        assert_eq!((b.scale_shape(&[2, 2, 3]).unwrap(), b.stored_shape(&[2, 2, 3]).unwrap()), (vec![2, 2], vec![2, 6]));
        let pieces = b.pieces(&(0..12).map(|v| v as f32).collect::<Vec<_>>(), &[2, 2, 3]).unwrap();
        assert_eq!(pieces, [vec![0., 1., 2., 3.], vec![4., 5.], vec![6., 7., 8., 9.], vec![10., 11.]]);
        // Larger blocks than what there is end with it.
        assert_eq!(blocks(1, true, 100).layout(&[2, 2, 3]).unwrap().size, 6);
        assert!(blocks(3, false, 2).layout(&[2, 2]).is_err());
    }

    proptest! {
        #[test]
        fn rows_make_the_value_again(dims in prop::collection::vec(1usize..6, 1..5), at in 0usize..4, flat: bool, size in 1usize..9) {
            let b = blocks(at % dims.len(), flat, size);
            let count: usize = dims.iter().product();
            let x = Tensor::new((1..=count).map(|v| v as f32).collect::<Vec<_>>(), dims.as_slice()).unwrap();
            let rows = b.rows(&x).unwrap();
            prop_assert_eq!(rows.shape()[0], b.scale_shape(&dims).unwrap().iter().product::<usize>());
            prop_assert_eq!(&b.whole(&rows, &dims).unwrap(), &x);
            // Each element lies in the row that its scale has.
            let (l, list) = (b.layout(&dims).unwrap(), rows.to_f32_vec().unwrap());
            for i in 0..count {
                let row = l.scale_of(i);
                prop_assert!(list[row * l.size..(row + 1) * l.size].contains(&((i + 1) as f32)));
            }
        }
    }
}
