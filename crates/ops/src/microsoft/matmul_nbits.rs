//! MatMulNBits: a product with a weight of few bits, in blocks.
use super::DOMAIN;
use super::block_weights::{count, unpacked, zero_points};
use crate::shapes::like_first;
use crate::simple::{Simple, one};
use crate::{Effect, EvalCx, Inputs, MacsCx, OpError, Operator, ShapeCx};
use graph::{Dim, ValueType};
use tensor::{DType, Tensor};

pub(crate) static OPERATORS: &[&dyn Operator] = &[&Simple::new(
    "MatMulNBits",
    "Matrix product with a weight of 2, 4 or 8 bits, a scale for each block of a column.",
    &[1],
    eval,
    infer,
)
.domain(DOMAIN)
.macs(macs)
.effect(|_| Effect::AlreadyQuantized("its weight is stored in few bits already, and it computes in float"))];

fn eval(cx: &EvalCx, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
    let a = inputs.get(0)?;
    let y = a.matmul(&weight(cx, &inputs)?.cast(a.dtype())?)?;
    one(match inputs.opt(5) {
        Some(bias) => y.add(bias)?,
        None => y,
    })
}

/// The weight `[K, N]` as floats.
fn weight(cx: &EvalCx, inputs: &Inputs) -> Result<Tensor, OpError> {
    let node = cx.node;
    let (k, n, size) = (count(node, "K", None)?, count(node, "N", None)?, count(node, "block_size", None)?);
    let bits = node.int_or("bits", 4)?;
    let blocks = k.div_ceil(size);
    let packed = inputs.get(1)?;
    if packed.dtype() != DType::U8 {
        return Err(OpError::unsupported(node, format!("a weight of type {}", packed.dtype())));
    }
    let integers = unpacked(node, packed.as_slice::<u8>()?, bits)?;
    let scales = inputs.get(2)?.to_f32_vec()?;
    let [all_blocks, all] = [&[n, blocks][..], &[n, blocks, size]].map(|of| of.iter().fold(1usize, |n, d| n.saturating_mul(*d)));
    if integers.len() < all || integers.len() % n != 0 || scales.len() != all_blocks {
        let what = format!("{} bytes and {} scales do not fit a weight of {k} by {n} in blocks of {size}", packed.len(), scales.len());
        return Err(node.error(what).into());
    }
    let zeros = zero_points(node, inputs.opt(3), bits, n, blocks)?;
    let groups = inputs.opt(4).filter(|g| !g.is_empty()).map(Tensor::to_i64_vec).transpose()?;
    let block_of = |row: usize| match &groups {
        None => Some(row / size),
        Some(list) => list.get(row).and_then(|g| usize::try_from(*g).ok()).filter(|g| *g < blocks),
    };
    let row_of_blocks: Option<Vec<usize>> = (0..k).map(block_of).collect();
    let Some(row_of_blocks) = row_of_blocks else { return Err(node.error("its group indices name a block that is not there").into()) };
    let width = integers.len() / n;
    let mut out = vec![0f32; tensor::memory::room::<f32>("matmul_nbits", &[k, n])?];
    for column in 0..n {
        let (integers, at) = (&integers[column * width..], column * blocks);
        for (row, block) in row_of_blocks.iter().enumerate() {
            out[row * n + column] = (integers[row] - zeros[at + block]) * scales[at + block];
        }
    }
    Ok(Tensor::new(out, [k, n])?)
}

fn infer(cx: &ShapeCx) -> Result<Vec<ValueType>, OpError> {
    let n = count(cx.node, "N", None)?;
    let dims = cx.shape(0).and_then(|s| s.split_last()).map(|(_, batch)| batch.iter().cloned().chain([Dim::Known(n)]).collect());
    like_first(cx, dims)
}

fn macs(cx: &MacsCx) -> u64 {
    let Some(Some(out)) = cx.outputs.first() else { return 0 };
    crate::conv::product(out).saturating_mul(count(cx.node, "K", None).unwrap_or(0) as u64)
}

#[cfg(test)]
mod tests {
    use crate::testing::{Case, floats, iota};
    use tensor::Tensor;

    fn case() -> Case {
        Case::of("com.microsoft", "MatMulNBits", 1).int("K", 3).int("N", 2).int("block_size", 2)
    }

    /// Two columns of three rows in two blocks each: low bits first; bits after the last row are ignored.
    #[test]
    fn low_bits_come_first_and_blocks_have_scales_and_zero_points() {
        let packed = Tensor::new(vec![0x21u8, 0xf3, 0x65, 0x07], [2, 2, 1]).unwrap();
        let (a, scales) = (iota(&[1, 3]), floats(&[1.0, 10.0, 0.5, 2.0]));
        // Columns (1 - 8, 2 - 8, 10 (3 - 8)) and (0.5 (5 - 8), 0.5 (6 - 8), 2 (7 - 8)).
        let y = case().int("bits", 4).run(&[a.clone(), packed.clone(), scales.clone()]);
        assert_eq!(y.to_f32_vec().unwrap(), [-6.0 - 100.0, -1.0 - 4.0]);
        let zeros = Tensor::vector(vec![0x10u8, 0x32]);
        let y = case().int("bits", 4).run(&[a, packed, scales, zeros]);
        assert_eq!(y.to_f32_vec().unwrap(), [2.0 + 2.0 * 20.0, 2.0 + 2.0 * 8.0]);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let packed = Tensor::new(vec![0u8; 2], [2, 1, 1]).unwrap();
        let error = case().run_all(&[iota(&[1, 3]), packed, floats(&[1.0, 1.0, 1.0, 1.0])]).unwrap_err().to_string();
        assert!(error.contains("do not fit a weight of 3 by 2"), "{error}");
    }
}
