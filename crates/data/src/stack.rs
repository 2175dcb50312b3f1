//! Rows of equal shape along a new axis; rows of different length one after the other.
use crate::batch::Ragged;
use crate::preprocess::{Preprocess, View};
use crate::{DataError, Image, Result};
use std::path::Path;
use std::sync::Arc;
use tensor::{Buffer, Element, Tensor, with_buffer};

/// Images normalised straight into the batch, so that no row is copied twice.
pub(crate) struct ImageStack {
    table: Vec<[f32; 256]>,
    dims: [usize; 3],
    values: Vec<f32>,
}

impl ImageStack {
    /// A stack for `total` images like this one.
    pub(crate) fn new(preprocess: &Preprocess, like: &Image, total: usize) -> Result<Self, String> {
        let dims = preprocess.dims(like);
        let room = tensor::memory::room::<f32>("images", &[total, like.pixels.len()]);
        let room = room.map_err(|e| format!("a batch of {total} images of this size: {e}"))?;
        Ok(ImageStack { table: preprocess.table(like.channels)?, dims, values: Vec::with_capacity(room) })
    }

    /// Shape of one image's input.
    pub(crate) fn dims(&self) -> [usize; 3] {
        self.dims
    }

    pub(crate) fn push(&mut self, preprocess: &Preprocess, image: &Image, view: View) -> Result<(), String> {
        let dims = preprocess.dims(image);
        if dims != self.dims {
            return Err(format!(
                "its input is {dims:?}, that of the rows before it {:?}: set preprocess.size or crop, and channels",
                self.dims
            ));
        }
        let start = self.values.len();
        self.values.resize(start + image.pixels.len(), 0.0);
        preprocess.write(image, &self.table, view, &mut self.values[start..]);
        Ok(())
    }

    pub(crate) fn finish(self) -> Result<Tensor> {
        let [a, b, c] = self.dims;
        let row = (a * b * c).max(1);
        let count = self.values.len() / row;
        Ok(Tensor::new(self.values, [count, a, b, c])?)
    }
}

/// Arrays of one shape and type along a new first axis.
///
/// # Errors
/// [`DataError::Row`] naming the first row that differs from the ones before it.
pub(crate) fn stack(path: &Path, rows: &[usize], arrays: &[Tensor]) -> Result<Tensor> {
    let Some(first) = arrays.first() else { return Ok(Tensor::vector(Vec::<f32>::new())) };
    for (row, array) in rows.iter().zip(arrays) {
        if array.shape() != first.shape() || array.dtype() != first.dtype() {
            let (is, was) = (describe(array), describe(first));
            return Err(DataError::row(path, *row, format!("its array is {is}, that of the rows before it {was}")));
        }
    }
    let shape = [&[arrays.len()], first.shape()].concat();
    Ok(Tensor::from_buffer(first.dtype(), concatenate(arrays)?, shape)?)
}

/// Arrays that differ along axis 0 only, one after the other.
///
/// # Errors
/// [`DataError::Row`] naming the first row that differs otherwise.
pub(crate) fn join(path: &Path, rows: &[usize], arrays: &[Tensor]) -> Result<Ragged> {
    let inner = arrays.first().and_then(|first| first.shape().get(1..)).unwrap_or_default();
    let mut offsets = vec![0];
    let mut total = 0;
    for (row, array) in rows.iter().zip(arrays) {
        if array.rank() == 0 || &array.shape()[1..] != inner || array.dtype() != arrays[0].dtype() {
            return Err(DataError::row(
                path,
                *row,
                format!("its target is {}, that of the rows before it {}", describe(array), describe(&arrays[0])),
            ));
        }
        total += array.shape()[0];
        offsets.push(total);
    }
    let Some(first) = arrays.first() else { return Ok(Ragged { values: Tensor::vector(Vec::<f32>::new()), offsets }) };
    let shape = [&[total], inner].concat();
    Ok(Ragged { values: Tensor::from_buffer(first.dtype(), concatenate(arrays)?, shape)?, offsets })
}

fn describe(array: &Tensor) -> String {
    format!("{} {:?}", array.dtype(), array.shape())
}

fn concatenate(arrays: &[Tensor]) -> Result<Buffer> {
    fn typed<T: Element>(_: &Arc<Vec<T>>, arrays: &[Tensor]) -> Result<Buffer> {
        let mut all = Vec::with_capacity(arrays.iter().map(Tensor::len).sum());
        for array in arrays {
            all.extend_from_slice(array.as_slice::<T>()?);
        }
        Ok(T::wrap(Arc::new(all)))
    }
    with_buffer!(arrays[0].buffer(), like => typed(like, arrays))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_larger_than_any_memory_is_refused() {
        let image = Image { height: 2, width: 2, channels: 3, pixels: vec![0; 12] };
        let error = ImageStack::new(&Preprocess::default(), &image, 1 << 42).map(|_| ()).unwrap_err();
        assert!(error.starts_with("a batch of 4398046511104 images"), "{error}");
        assert!(ImageStack::new(&Preprocess::default(), &image, 64).is_ok());
    }
}
