//! Weights whose sums no processor saturates.
//!
//! x86 without VNNI adds two neighbouring products of unsigned and signed bytes in 16 bits, which saturate: `255 * 127 + 255 * 127` is
//! twice what they hold. A pair of weights is safe if its positive products, and its negative ones, stay within 16 bits with the largest
//! data that calibration saw in their two channels. The scale of a channel of weights grows, if it must, to the first at which all of
//! its pairs are safe. Weights of 7 bits (`reduce_range`) are safe with any data; here most channels keep all of their 8, and data
//! beyond what calibration saw saturate by as much as they are beyond. (A2Q, Colbert et al. 2023, bounds whole sums by training.)
use crate::error::named;
use crate::observer::Statistics;
use crate::{QuantPlan, Result};
use encodings::affine::{Grid, KIND, Precision, quantize_to_int};
use graph::{Encoding, Model, ValueId};
use ops::{Products, saturates};
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use tensor::{DType, Tensor};

/// How much a scale grows from one trial to the next.
const STEP: f32 = 1.01;

/// Trials after which a scale has doubled.
const TRIALS: usize = 70;

/// Data that no 8-bit integer exceeds.
const LARGEST: i32 = 255;

/// A weight's order of products, and the largest data of each channel; empty where they are not known.
struct Layer {
    products: Products,
    largest: Vec<i32>,
}

/// Raises the scales of the plan's 8-bit weights until no pair saturates with what was seen; the precisions are those of each one's
/// scales. Returns the number of channels whose scale was raised.
pub(crate) fn widen(
    model: &mut Model,
    plan: &QuantPlan,
    seen: &BTreeMap<u32, Statistics>,
    (precisions, other): (&BTreeMap<ValueId, Precision>, Precision),
) -> Result<usize> {
    let on_integers: BTreeSet<ValueId> = plan.sums.iter().filter_map(|part| Some(part.weight?.0)).collect();
    let mut layers = BTreeMap::<ValueId, Layer>::new();
    model.graph.visit(&mut |node| {
        for id in node.inputs.iter().flatten().filter(|id| on_integers.contains(id)) {
            let shape = model.values.tensor(*id).map(|t| t.shape()).unwrap_or_default();
            let Some(products) = Products::of(node, shape).filter(|p| p.in_pairs(shape)) else { continue };
            let largest = node.input(0).and_then(|data| largest(model, seen, data, products)).unwrap_or_default();
            match layers.entry(*id) {
                Entry::Vacant(new) => drop(new.insert(Layer { products, largest })),
                // Another reader: its data count too.
                Entry::Occupied(mut known) => {
                    let known = &mut known.get_mut().largest;
                    let same = known.len() == largest.len();
                    *known = if same { known.iter().zip(&largest).map(|(a, b)| *a.max(b)).collect() } else { vec![] };
                }
            }
        }
    });
    let mut raised = 0;
    for (id, layer) in layers {
        let (Some(encoding), Some(weight)) = (model.annotations.encoding(id), model.values.tensor(id)) else { continue };
        let precision = precisions.get(&id).copied().unwrap_or(other);
        if let Some((safe, count)) = safe(encoding, weight, &layer, precision).map_err(named(&model.values[id].name))? {
            raised += count;
            model.annotations.entry(id).encoding = Some(safe);
        }
    }
    Ok(raised)
}

/// The largest integer of each channel of a value in calibration, as unsigned data; `None` where that was not seen. The border of a
/// convolution is filled with the zero point.
fn largest(model: &Model, seen: &BTreeMap<u32, Statistics>, data: ValueId, products: Products) -> Option<Vec<i32>> {
    let statistics = seen.get(&data.0)?;
    let grid = Grid::of(model.annotations.encoding(data)?).ok()?;
    let scale = grid.scale().item::<f32>().ok()?;
    let zero_point = grid.zero_point().ok()?.to_i64_vec().ok()?.first().copied()? as f32;
    let (qmin, qmax) = (grid.settings().qmin() as f32, grid.settings().qmax() as f32);
    let integer = |top: &f32| ((top / scale).round_ties_even() + zero_point).clamp(zero_point, qmax) - qmin;
    Some(statistics.largest(products.data()).iter().map(|top| integer(top) as i32).collect())
}

/// The encoding with scales at which no pair saturates, and the number of channels that needed it; `None` if none does.
fn safe(encoding: &Encoding, weight: &Tensor, layer: &Layer, precision: Precision) -> encodings::Result<Option<(Encoding, usize)>> {
    if encoding.kind != KIND {
        return Ok(None);
    }
    let settings = *Grid::of(encoding)?.settings();
    let along = settings.axis == Some(layer.products.axis());
    if settings.dtype() != DType::I8 || settings.blocks.is_some() || (settings.axis.is_some() && !along) {
        return Ok(None);
    }
    let mut out = encoding.clone();
    let mut raised = BTreeSet::new();
    for _ in 0..TRIALS {
        let wrong = layer.unsafe_outputs(&quantize_to_int(weight, &out)?)?;
        if wrong.is_empty() {
            break;
        }
        let wrong = if along { wrong } else { vec![0] };
        let Some(scale) = out.parameters.get_mut("scale") else { break };
        let mut scales = scale.to_f32_vec()?;
        for channel in &wrong {
            scales[*channel] = precision.up(scales[*channel] * STEP);
        }
        *scale = Tensor::new(scales, scale.shape().to_vec())?;
        raised.extend(wrong);
    }
    Ok((!raised.is_empty()).then_some((out, raised.len())))
}

impl Layer {
    /// The outputs with a pair that saturates.
    fn unsafe_outputs(&self, integers: &Tensor) -> encodings::Result<Vec<usize>> {
        let rows = self.products.rows(integers)?;
        let row = rows.shape()[1].max(1);
        let channel = self.products.channel(integers.shape(), self.largest.len());
        let meets = |output: usize, product: usize| self.largest.get(channel(output, product)).copied().unwrap_or(LARGEST);
        let all = rows.to_i64_vec()?;
        let saturates = |(output, row): (usize, &[i64])| {
            (0..row.len()).step_by(2).any(|k| {
                let one = |k: usize| row.get(k).map_or((0, 0), |w| (*w as i32, meets(output, k)));
                saturates(one(k), one(k + 1))
            })
        };
        Ok(all.chunks(row).enumerate().filter(|r| saturates(*r)).map(|(output, _)| output).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use encodings::affine::{AffineSettings, fit_weight};
    use proptest::prelude::*;

    fn layer(products: Products) -> Layer {
        Layer { products, largest: vec![] }
    }

    proptest! {
        #[test]
        fn no_pair_can_saturate_and_no_scale_more_than_doubles(w in prop::collection::vec(-1f32..1.0, 4 * 3 * 2 * 2), by_channel: bool) {
            let weight = Tensor::new(w, [4, 3, 2, 2]).unwrap();
            let settings = AffineSettings::weight(8, by_channel.then_some(0));
            let before = fit_weight(&weight, &settings, Precision::WEIGHT, 0.0).unwrap();
            let after = safe(&before, &weight, &layer(Products::Kernel), Precision::WEIGHT).unwrap().map_or(before.clone(), |(e, _)| e);
            let wrong = layer(Products::Kernel).unsafe_outputs(&quantize_to_int(&weight, &after).unwrap()).unwrap();
            prop_assert!(wrong.is_empty(), "{wrong:?}");
            let scales = |e: &Encoding| e.parameters["scale"].to_f32_vec().unwrap();
            for (before, after) in scales(&before).iter().zip(scales(&after)) {
                prop_assert!(*before <= after && after <= before * 3.0, "{} {}", before, after);
            }
        }
    }

    #[test]
    fn weights_far_apart_keep_their_scale() {
        let weight = Tensor::new(vec![1f32, 0.0, -1.0, 0.01], [1, 4]).unwrap();
        let e = fit_weight(&weight, &AffineSettings::weight(8, Some(0)), Precision::FULL, 0.0).unwrap();
        assert!(safe(&e, &weight, &layer(Products::Rows), Precision::FULL).unwrap().is_none());
        // As columns, the first two products of the one output are 1 and 0 too.
        let weight = weight.reshape([4, 1]).unwrap();
        let e = fit_weight(&weight, &AffineSettings::weight(8, Some(1)), Precision::FULL, 0.0).unwrap();
        assert!(safe(&e, &weight, &layer(Products::Columns), Precision::FULL).unwrap().is_none());
        let near = Tensor::new(vec![1f32, 1.0, 0.0, 0.0], [4, 1]).unwrap();
        let e = fit_weight(&near, &AffineSettings::weight(8, Some(1)), Precision::FULL, 0.0).unwrap();
        assert_eq!(safe(&e, &near, &layer(Products::Columns), Precision::FULL).unwrap().unwrap().1, 1);
    }

    #[test]
    fn what_the_data_never_reach_needs_no_room() {
        let weight = Tensor::new(vec![1f32; 4], [1, 4]).unwrap();
        let e = fit_weight(&weight, &AffineSettings::weight(8, Some(0)), Precision::FULL, 0.0).unwrap();
        let raised =
            |largest: Vec<i32>| safe(&e, &weight, &Layer { products: Products::Rows, largest }, Precision::FULL).unwrap().is_some();
        assert!(raised(vec![]) && raised(vec![255; 4]) && raised(vec![10, 10, 255, 10]));
        assert!(!raised(vec![129; 4]) && !raised(vec![255, 3, 3, 255]));
        // The second output of two groups reads the second half of the channels.
        let channel = Products::Kernel.channel(&[2, 3, 1, 2], 6);
        assert_eq!([channel(0, 0), channel(0, 5), channel(1, 0), channel(1, 4)], [0, 2, 3, 4]);
    }
}
