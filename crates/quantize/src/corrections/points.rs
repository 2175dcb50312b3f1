//! The numbers that a layer's encoded weights can be, output by output.
use encodings::Decode;
use encodings::affine::{Grid, Precision};
use graph::Encoding;
use ops::Products;
use tensor::{DType, Tensor};

/// The representable numbers of each output's weights.
pub(super) enum Points {
    /// Multiples of a scale.
    Integers {
        /// A scale for each output.
        scale: Vec<f32>,
        /// How precise scales are; absent: all outputs have one scale, which stays.
        precision: Option<Precision>,
        /// A zero point for each output.
        zero_point: Vec<f32>,
        /// Least and greatest integer.
        ends: (f32, f32),
    },
    /// Multiples of scales that change along a row of an output's weights.
    Blocks {
        /// A scale for each weight, in rows of one output.
        scale: Vec<f32>,
        /// A zero point for each weight.
        zero_point: Vec<f32>,
        /// Weights of an output.
        row: usize,
        /// Least and greatest integer.
        ends: (f32, f32),
    },
    /// For each output its levels in ascending order, without repetition, and at least one.
    Levels(Vec<Vec<f32>>),
}

impl Points {
    /// `None` where outputs do not have numbers of their own: scales or tables along another axis.
    ///
    /// # Errors
    /// If the encoding is not well formed.
    pub(super) fn of(encoding: &Encoding, weight: &Tensor, products: Products, outputs: usize) -> encodings::Result<Option<Points>> {
        let along = if products == Products::Columns { 1 } else { 0 };
        match encodings::decode(encoding)? {
            Decode::Affine { axis, blocks, .. } => {
                let grid = Grid::of(encoding)?;
                let ends = (grid.settings().qmin() as f32, grid.settings().qmax() as f32);
                if blocks.is_some() {
                    let [scale, zero_point] = grid.spread(weight)?;
                    // In the order in which inputs are listed: as stored.
                    let list = |t: &Tensor| -> encodings::Result<Vec<f32>> {
                        let rows = if products == Products::Columns { t.transpose(&[1, 0])? } else { t.clone() };
                        Ok(rows.to_f32_vec()?)
                    };
                    let (scale, zero_point, row) = (list(&scale)?, list(&zero_point)?, weight.len() / outputs.max(1));
                    return Ok(Some(Points::Blocks { scale, zero_point, row, ends }));
                }
                let spread = |t: &Tensor| -> encodings::Result<Vec<f32>> {
                    let v = t.to_f32_vec()?;
                    Ok(if v.len() == 1 { vec![v[0]; outputs] } else { v })
                };
                let (scale, zero_point) = (spread(grid.scale())?, spread(&grid.zero_point()?.cast(DType::F32)?)?);
                let fits = axis.is_none_or(|a| a == along) && scale.len() == outputs && zero_point.len() == outputs;
                let own = axis.filter(|_| grid.scale().len() == outputs).map(|_| Precision::of(&scale));
                Ok(fits.then_some(Points::Integers { scale, precision: own, zero_point, ends }))
            }
            Decode::Table { table, bits, axis, group, scale } => {
                let table = table.to_f32_vec()?;
                let scale = scale.map(|s| s.to_f32_vec()).transpose()?;
                let fits = axis.is_none_or(|a| a == along) && scale.as_ref().is_none_or(|s| s.len() == outputs);
                let levels = (0..outputs).map(|output| {
                    let of_group = table.chunks(1 << bits).nth(if axis.is_some() { output / group } else { 0 })?;
                    let factor = scale.as_ref().map_or(1.0, |s| s[output]);
                    let mut levels: Vec<f32> = of_group.iter().map(|t| t * factor).collect();
                    levels.sort_by(f32::total_cmp);
                    levels.dedup();
                    Some(levels)
                });
                Ok(if fits { levels.collect::<Option<_>>().map(Points::Levels) } else { None })
            }
        }
    }

    /// The representable number nearest to `w`, the weight at `at` of an output's; with another scale in the place of the output's own.
    pub(super) fn nearest(&self, output: usize, at: usize, w: f64, other: Option<f32>) -> f64 {
        let integer = |scale: f32, zero_point: f32, ends: &(f32, f32)| {
            let q = ((w as f32 / scale).round_ties_even() + zero_point).clamp(ends.0, ends.1);
            f64::from((q - zero_point) * scale)
        };
        match self {
            Points::Integers { scale, zero_point, ends, .. } => integer(other.unwrap_or(scale[output]), zero_point[output], ends),
            Points::Blocks { scale, zero_point, row, ends } => integer(scale[output * row + at], zero_point[output * row + at], ends),
            Points::Levels(levels) => {
                let levels = &levels[output];
                let above = levels.partition_point(|l| f64::from(*l) < w).min(levels.len() - 1);
                let (lower, upper) = (f64::from(levels[above.saturating_sub(1)]), f64::from(levels[above]));
                if (w - lower).abs() <= (w - upper).abs() { lower } else { upper }
            }
        }
    }

    /// Numbers for `w` that are no farther from zero than the nearest: that, the next one toward zero, and zero where there is one.
    /// Each with its place, as [`Points::place`] has it.
    pub(super) fn toward_zero(&self, output: usize, at: usize, w: f64) -> [(f64, i32); 3] {
        let nearest = self.nearest(output, at, w, None) as f32;
        let place = self.place(output, at, nearest);
        match self {
            Points::Levels(levels) => {
                let levels = &levels[output];
                let nearest = place as usize;
                let next = if levels[nearest] > 0.0 { nearest.saturating_sub(1) } else { (nearest + 1).min(levels.len() - 1) };
                let next = if levels[next].abs() < levels[nearest].abs() { next } else { nearest };
                let zero = levels.iter().position(|l| *l == 0.0).unwrap_or(next);
                [nearest, next, zero].map(|i| (f64::from(levels[i]), i as i32))
            }
            Points::Integers { .. } | Points::Blocks { .. } => {
                let scale = self.scale(output, at);
                [place, place - place.signum(), 0].map(|place| (f64::from(place as f32 * scale), place))
            }
        }
    }

    /// Where a representable number of the weight at `at` of an output's lies: its distance from zero in steps, with its sign, or its place
    /// among the levels.
    pub(super) fn place(&self, output: usize, at: usize, number: f32) -> i32 {
        match self {
            Points::Levels(levels) => levels[output].partition_point(|l| *l < number).min(levels[output].len() - 1) as i32,
            Points::Integers { .. } | Points::Blocks { .. } => (number / self.scale(output, at)).round() as i32,
        }
    }

    /// The scale of the weight at `at` of an output's; 1 where there are levels.
    pub(super) fn scale(&self, output: usize, at: usize) -> f32 {
        match self {
            Points::Integers { scale, .. } => scale[output],
            Points::Blocks { scale, row, .. } => scale[output * row + at],
            Points::Levels(_) => 1.0,
        }
    }

    /// The distance between two numbers, the mean one where distances differ.
    pub(super) fn step(&self, output: usize) -> f64 {
        match self {
            Points::Integers { scale, .. } => f64::from(scale[output]),
            Points::Blocks { scale, row, .. } => {
                scale[output * row..(output + 1) * row].iter().map(|s| f64::from(*s)).sum::<f64>() / (*row).max(1) as f64
            }
            Points::Levels(levels) => {
                let levels = &levels[output];
                f64::from(levels[levels.len() - 1] - levels[0]) / (levels.len() - 1).max(1) as f64
            }
        }
    }
}

/// How far the scales that are tried lie from an output's own, and how many there are.
const AROUND: (f32, f32) = (0.6, 1.2);
const TRIED: usize = 12;

impl Points {
    /// Scales to try in the place of an output's own.
    pub(super) fn scales(&self, output: usize) -> Vec<f32> {
        let Points::Integers { scale, precision: Some(precision), .. } = self else { return vec![] };
        let own = scale[output];
        let all = precision.between(AROUND.0 * own, AROUND.1 * own, own);
        let step = all.len().div_ceil(TRIED).max(1);
        all.into_iter().step_by(step).filter(|s| *s != own).collect()
    }

    pub(super) fn set_scale(&mut self, output: usize, new: f32) {
        if let Points::Integers { scale, .. } = self {
            scale[output] = new;
        }
    }

    /// The scales of all outputs, where each has its own.
    pub(super) fn chosen(&self) -> Option<Tensor> {
        match self {
            Points::Integers { scale, precision: Some(_), .. } => Some(Tensor::vector(scale.clone())),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use encodings::{Along, Encodings, Slot};
    use technique::Choice;

    #[test]
    fn the_nearest_number_is_what_storing_gives() {
        let weight = Tensor::new((0..60).map(|i| ((i * 37 % 61) as f32 - 30.0) / 17.0).collect::<Vec<_>>(), [4, 15]).unwrap();
        for (kind, settings) in [
            ("affine", serde_json::json!({ "bits": 3 })),
            ("affine", serde_json::json!({ "bits": 4, "granularity": "tensor" })),
            ("affine", serde_json::json!({ "bits": 3, "granularity": { "group": 4 } })),
            ("codebook", serde_json::json!({ "bits": 3 })),
            ("codebook", serde_json::json!({ "bits": 2, "channel_scale": false })),
            ("codebook", serde_json::json!({ "bits": 2, "granularity": { "group": 2 } })),
            ("power_of_two", serde_json::json!({ "bits": 3 })),
            ("additive_power_of_two", serde_json::json!({ "bits": 4 })),
        ] {
            let encoding = Choice::<Encodings>::with(kind, &settings).unwrap();
            let encoding =
                encoding.fit(&weight, Slot { axis: Some(0), along: Some(Along { axis: 1, flat: false }), ..Slot::default() }).unwrap();
            let points = Points::of(&encoding, &weight, Products::Rows, 4).unwrap().unwrap();
            let stored = encodings::open(&encoding).unwrap().simulate(&weight, &encoding.parameters).unwrap().to_f32_vec().unwrap();
            let error = |w: f32, p: f64| (f64::from(w) - p).abs();
            for (i, (w, stored)) in weight.to_f32_vec().unwrap().into_iter().zip(stored).enumerate() {
                let nearest = points.nearest(i / 15, i % 15, f64::from(w), None);
                // Powers of two are chosen by exponent, not by distance: never nearer than the nearest.
                let (found, kept) = (error(w, nearest), error(w, f64::from(stored)));
                assert!(found <= kept + 1e-6, "{kind} {settings}: {w} to {nearest}, stored as {stored}");
                assert!(kind == "power_of_two" || (found - kept).abs() < 1e-6, "{kind} {settings}: {w} to {nearest}, stored as {stored}");
            }
            // Scales of rows are none of columns.
            let whole = encodings::decode(&encoding).unwrap();
            let whole = matches!(whole, Decode::Affine { axis: None, .. } | Decode::Table { axis: None, .. });
            assert_eq!(Points::of(&encoding, &weight, Products::Columns, 4).unwrap().is_some(), whole, "{kind} {settings}");
        }
    }

    #[test]
    fn candidates_lie_no_farther_from_zero_than_the_nearest() {
        let points = Points::Integers { scale: vec![0.5], precision: None, zero_point: vec![0.0], ends: (-4.0, 3.0) };
        assert_eq!(points.toward_zero(0, 0, 1.1), [(1.0, 2), (0.5, 1), (0.0, 0)]);
        assert_eq!(points.toward_zero(0, 0, -9.0), [(-2.0, -4), (-1.5, -3), (0.0, 0)]);
        assert_eq!(points.toward_zero(0, 0, 0.1), [(0.0, 0), (0.0, 0), (0.0, 0)]);
        assert_eq!(points.step(0), 0.5);
        // 3 is the integer that means zero.
        let points = Points::Integers { scale: vec![2.0], precision: None, zero_point: vec![3.0], ends: (0.0, 15.0) };
        assert_eq!(points.toward_zero(0, 0, 7.4), [(8.0, 4), (6.0, 3), (0.0, 0)]);
        let points = Points::Levels(vec![vec![-1.0, -0.25, 0.5, 2.0]]);
        assert_eq!(points.toward_zero(0, 0, 1.9), [(2.0, 3), (0.5, 2), (0.5, 2)]);
        assert_eq!(points.toward_zero(0, 0, -0.8), [(-1.0, 0), (-0.25, 1), (-0.25, 1)]);
        assert_eq!(points.toward_zero(0, 0, -0.2), [(-0.25, 1), (-0.25, 1), (-0.25, 1)]);
        assert_eq!(points.step(0), 1.0);
        let points = Points::Levels(vec![vec![-1.0, 0.0, 3.0]]);
        assert_eq!(points.toward_zero(0, 0, 3.0), [(3.0, 2), (0.0, 1), (0.0, 1)]);
    }
}
