//! Weights that decode from a table, of 4, 7 or 8 bits: indices and the standard operators that read them.
//!
//! 4 bits are stored as uint4, 8 as uint8: `Cast -> Gather(table)`. Seven are a row of bits, each byte filled from its lowest bit:
//! `BitShift -> Mod 2` gives the bits of each byte, `Reshape -> Cast -> MatMul(1, 2, 4, ...) -> Cast` the indices. (Other widths share a
//! strip of bytes: `strip.rs`.) Several tables stand one behind the other, and an Add moves the indices of each channel to its own. All
//! of it reads constants alone, so a runtime that folds constants computes it once, when it loads the file.
use super::decode_nodes::{DecodeNodes, along};
use super::rewrite::Rewriter;
use crate::{DeployError, Result};
use encodings::{Decode, Stored, pack};
use graph::{AttributeValue, Graph, Node, ValueId};
use tensor::{DType, Tensor};

/// ONNX's numbers of the element types that Cast makes.
const FLOAT: i64 = 1;
const INT32: i64 = 6;

/// The nodes that compute `id` from stored indices. Their constants are added to the graph.
///
/// # Errors
/// [`DeployError::Lower`] for data that decode otherwise; whatever making a constant reports.
pub(super) fn decode(to: &mut Rewriter, graph: &mut Graph, id: ValueId, stored: &Stored) -> Result<Vec<Node>> {
    let Decode::Table { table, bits, axis, group, scale } = &stored.decode else {
        return Err(DeployError::Lower { value: to.name(id), what: "does not decode from a table".into() });
    };
    let base = to.short();
    let mut work = DecodeNodes::new(to, graph, base);
    let mut indices = match bits {
        4 | 8 => {
            let data = if *bits == 4 { stored.data.cast(DType::U4)? } else { stored.data.clone() };
            let packed = work.constant("indices", data);
            work.cast(packed, INT32)
        }
        _ => work.bits(&stored.data, *bits)?,
    };
    let shape = stored.data.shape();
    if let Some(axis) = axis.filter(|axis| shape[*axis] > *group) {
        let starts = (0..shape[axis]).map(|c| ((c / group) << bits) as i32).collect();
        let starts = work.constant("table_starts", Tensor::new(starts, along(shape, axis))?);
        indices = work.step("Add", &[indices, starts]);
    }
    let flat = work.constant("codebook", table.reshape([table.len()])?); // tidy: allow, the name of the constant
    match (scale, axis) {
        (Some(scale), Some(axis)) => {
            let looked_up = work.step("Gather", &[flat, indices]);
            let scale = work.constant("channel_scale", scale.reshape(along(shape, *axis))?);
            work.last("Mul", &[looked_up, scale], id);
        }
        _ => work.last("Gather", &[flat, indices], id),
    }
    Ok(work.nodes)
}

impl DecodeNodes<'_, '_> {
    /// Indices of any width from a row of bits.
    fn bits(&mut self, data: &Tensor, bits: u32) -> Result<ValueId> {
        let packed = pack(data.as_slice::<u8>()?, bits);
        let total = data.len() * bits as usize;
        let bytes = packed.len();
        let packed = self.constant("indices", Tensor::new(packed, [bytes, 1])?);
        let shifts = self.constant("shifts", Tensor::vector((0..8u8).collect::<Vec<u8>>()));
        let mut at = self.step("BitShift", &[packed, shifts]);
        self.with("direction", AttributeValue::String(b"RIGHT".to_vec()));
        let two = self.constant("two", Tensor::scalar(2u8));
        at = self.step("Mod", &[at, two]);
        if bytes * 8 > total {
            let flat = self.constant("flat", Tensor::vector(vec![-1i64]));
            at = self.step("Reshape", &[at, flat]);
            let [from, to] = [("from", 0), ("to", total as i64)].map(|(name, n)| self.constant(name, Tensor::vector(vec![n])));
            at = self.step("Slice", &[at, from, to]);
        }
        let shape: Vec<i64> = data.shape().iter().map(|d| *d as i64).chain([i64::from(bits)]).collect();
        let shape = self.constant("shape", Tensor::vector(shape));
        at = self.step("Reshape", &[at, shape]);
        at = self.cast(at, FLOAT);
        let powers = self.constant("powers", Tensor::vector((0..bits).map(|i| (1u32 << i) as f32).collect::<Vec<f32>>()));
        at = self.step("MatMul", &[at, powers]);
        Ok(self.cast(at, INT32))
    }
}
