//! GatherBlockQuantized: rows of an embedding of few bits, in blocks.
use super::DOMAIN;
use super::block_weights::{count, unpacked};
use crate::shapes::typed;
use crate::simple::{Simple, one};
use crate::{Effect, EvalCx, Inputs, OpError, Operator};
use tensor::{DType, Tensor, shape};

pub(crate) static OPERATORS: &[&dyn Operator] =
    &[&Simple::new("GatherBlockQuantized", "Rows by index of a table of few bits, with a scale for each block.", &[1], eval, |cx| {
        Ok(vec![typed(cx.dtype(2), None)])
    })
    .domain(DOMAIN)
    .effect(|_| Effect::AlreadyQuantized("its table is stored in few bits already"))];

fn eval(cx: &EvalCx, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
    let node = cx.node;
    let (data, indices, scales) = (inputs.get(0)?, inputs.get(1)?, inputs.get(2)?);
    let bits = node.int_or("bits", 4)?;
    let size = count(node, "block_size", Some(128))?;
    let from = shape::axis("gather_axis", node.int_or("gather_axis", 0)?, data.rank())?;
    let along = shape::axis("quantize_axis", node.int_or("quantize_axis", 1)?, data.rank())?;
    if from == along {
        return Err(node.attribute_error("quantize_axis", "must not be gather_axis").into());
    }
    let bytes = data.dtype() == DType::U8;
    // Bytes hold several integers along the last axis.
    let whole = |t: &Tensor| -> Result<Tensor, OpError> {
        if !bytes {
            return Ok(t.cast(DType::F32)?);
        }
        let mut dims = t.shape().to_vec();
        if let Some(last) = dims.last_mut() {
            *last *= 8 / bits.clamp(1, 8) as usize;
        }
        Ok(Tensor::new(unpacked(node, t.as_slice::<u8>()?, bits)?, dims)?)
    };
    if bytes && from + 1 == data.rank() {
        return Err(OpError::unsupported(node, "gathering along the axis whose integers share bytes"));
    }
    let rows = whole(&data.gather(indices, from)?)?;
    let along = if along > from { along + indices.rank() - 1 } else { along };
    let block = Tensor::vector((0..rows.shape()[along]).map(|i| (i / size) as i64).collect());
    let spread = |t: Tensor| -> Result<Tensor, OpError> { Ok(t.gather(&block, along)?) };
    let centred = match inputs.opt(3) {
        Some(zeros) => rows.sub(&spread(whole(&zeros.gather(indices, from)?)?)?)?,
        None if bytes => rows.add_scalar(-f64::from(1u32 << (bits - 1).clamp(0, 7)))?,
        None => rows,
    };
    let scale = spread(scales.gather(indices, from)?.cast(DType::F32)?)?;
    one(centred.mul(&scale)?.cast(scales.dtype())?)
}

#[cfg(test)]
mod tests {
    use crate::testing::{Case, ints};
    use tensor::Tensor;

    #[test]
    fn rows_are_read_in_blocks() {
        let data = Tensor::new(vec![0x21u8, 0x43, 0x65, 0x87], [2, 2]).unwrap();
        let scales = Tensor::new(vec![1f32, 2.0, 3.0, 4.0], [2, 2]).unwrap();
        let case = || Case::of("com.microsoft", "GatherBlockQuantized", 1).int("block_size", 2).int("bits", 4);
        let y = case().run(&[data.clone(), ints(&[1, 0]), scales.clone()]);
        assert_eq!(y.shape(), [2, 4]);
        assert_eq!(y.to_f32_vec().unwrap(), [-9., -6., -4., 0., -7., -6., -10., -8.]);
        let zeros = Tensor::new(vec![0x10u8, 0x32], [2, 1]).unwrap();
        let y = case().run(&[data, ints(&[0]), scales, zeros]);
        assert_eq!(y.to_f32_vec().unwrap(), [1., 2., 4., 6.]);
    }
}
