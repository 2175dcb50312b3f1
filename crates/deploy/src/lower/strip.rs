//! Weights of few levels: their indices as digits in one strip of bytes for all weights of a graph that have as many.
//!
//! A word is as many bytes as hold a whole number of digits: one byte holds eight digits of two, five of three or four of four; three
//! bytes eight of eight. A few operators decode the whole strip, once: `Cast -> [Mul(1, 256, ...) -> ReduceSum] -> Div(1, b, b^2, ...)
//! -> Mod b -> Reshape`. A Split then gives each weight its digits, and a Reshape its shape. Where the levels are -1 and 1, or -1, 0
//! and 1, they are made from the digits of the whole strip (`Cast -> Sub 1`), else a Gather looks up each weight's levels. A Mul by the
//! scales of the channels ends it. So a weight adds two or three small nodes to the file.
use super::decode_nodes::{DecodeNodes, along};
use super::rewrite::Rewriter;
use crate::Result;
use crate::digits::{Kind, kind_of};
use encodings::{Decode, Stored};
use graph::{Graph, Node, ValueId};
use std::collections::BTreeMap;
use tensor::Tensor;

/// ONNX's numbers of the element types that Cast makes.
const FLOAT: i64 = 1;
const INT64: i64 = 7;

/// The nodes that decode strips, to be placed at the beginning of a graph, and the nodes of each weight.
#[derive(Default)]
pub(super) struct Strips {
    pub(super) first: Vec<Node>,
    pub(super) each: BTreeMap<ValueId, Vec<Node>>,
}

/// Takes the stored weights that go into strips; returns the others.
pub(super) fn decode(to: &mut Rewriter, graph: &mut Graph, stored: Vec<(ValueId, Stored)>) -> Result<(Strips, Vec<(ValueId, Stored)>)> {
    let mut out = Strips::default();
    let (mut kinds, mut others) = (BTreeMap::<Kind, Vec<(ValueId, Stored)>>::new(), vec![]);
    for (id, stored) in stored {
        match kind_of(&stored) {
            Some(kind) => kinds.entry(kind).or_default().push((id, stored)),
            None => others.push((id, stored)),
        }
    }
    for (kind, members) in kinds {
        strip(to, graph, kind, &members, &mut out)?;
    }
    Ok((out, others))
}

fn strip(to: &mut Rewriter, graph: &mut Graph, kind: Kind, members: &[(ValueId, Stored)], out: &mut Strips) -> Result<()> {
    let mut digits: Vec<u8> = vec![];
    for (_, stored) in members {
        digits.extend_from_slice(stored.data.as_slice::<u8>()?);
    }
    let bytes = kind.pack(&digits);
    let name = format!("weights_of_{}{}", kind.base, if kind.unit { "" } else { "_any" });
    let mut work = DecodeNodes::new(to, graph, name);
    let words = bytes.len() / kind.word();
    let total = words * kind.digits();
    let packed = work.constant("packed", Tensor::new(bytes, [words, kind.word()])?);
    let powers = work.constant("powers", Tensor::vector(kind.powers()));
    let base = work.constant("base", Tensor::scalar(i64::from(kind.base)));
    let flat = work.constant("flat", Tensor::vector(vec![-1i64]));
    let mut at = work.cast(packed, INT64);
    if kind.word() > 1 {
        let places = work.constant("places", Tensor::vector(kind.places()));
        at = work.step("Mul", &[at, places]);
        let axis = work.constant("axis", Tensor::vector(vec![1i64]));
        at = work.step("ReduceSum", &[at, axis]);
    }
    at = work.step("Div", &[at, powers]);
    at = work.step("Mod", &[at, base]);
    at = work.step("Reshape", &[at, flat]);
    if kind.unit {
        at = work.cast(at, FLOAT);
        if kind.base == 2 {
            let two = work.constant("two", Tensor::scalar(2f32));
            at = work.step("Mul", &[at, two]);
        }
        let one = work.constant("one", Tensor::scalar(1f32));
        at = work.step("Sub", &[at, one]);
    }
    let mut sizes: Vec<i64> = members.iter().map(|(_, s)| s.data.len() as i64).collect();
    sizes.extend((total > digits.len()).then(|| (total - digits.len()) as i64));
    let parts: Vec<ValueId> = sizes.iter().map(|_| work.to.inner(&work.base, "part")).collect();
    let sizes = work.constant("sizes", Tensor::vector(sizes));
    let mut split = work.to.node("Split", &work.base, &[at, sizes], parts[0]);
    split.outputs = parts.iter().map(|p| Some(*p)).collect();
    work.nodes.push(split);
    out.first.append(&mut work.nodes);
    for ((id, stored), part) in members.iter().zip(&parts) {
        out.each.insert(*id, member(work.to, work.graph, kind, (*id, stored), *part)?);
    }
    Ok(())
}

/// The nodes that make a weight from its digits.
fn member(to: &mut Rewriter, graph: &mut Graph, kind: Kind, (id, stored): (ValueId, &Stored), part: ValueId) -> Result<Vec<Node>> {
    let Decode::Table { table, bits, axis, group, scale } = &stored.decode else { return Ok(vec![]) };
    let base = to.short();
    let mut work = DecodeNodes::new(to, graph, base);
    let shape = stored.data.shape();
    let scale = scale.as_ref().zip(*axis);
    let wanted = work.constant("shape", Tensor::vector(shape.iter().map(|d| *d as i64).collect::<Vec<i64>>()));
    if kind.unit && scale.is_none() {
        work.last("Reshape", &[part, wanted], id);
        return Ok(work.nodes);
    }
    let mut at = work.step("Reshape", &[part, wanted]);
    if !kind.unit {
        let entries = kind.base as usize;
        if let Some(axis) = axis.filter(|axis| shape[*axis] > *group) {
            let starts = (0..shape[axis]).map(|c| ((c / group) * entries) as i64).collect();
            let starts = work.constant("table_starts", Tensor::new(starts, along(shape, axis))?);
            at = work.step("Add", &[at, starts]);
        }
        let levels: Vec<f32> = table.to_f32_vec()?.chunks(1 << bits).flat_map(|t| t[..entries].to_vec()).collect();
        let levels = work.constant("codebook", Tensor::vector(levels)); // tidy: allow, the name of the constant
        if scale.is_none() {
            work.last("Gather", &[levels, at], id);
            return Ok(work.nodes);
        }
        at = work.step("Gather", &[levels, at]);
    }
    if let Some((scale, axis)) = scale {
        let scale = work.constant("channel_scale", scale.reshape(along(shape, axis))?);
        work.last("Mul", &[at, scale], id);
    }
    Ok(work.nodes)
}
