//! The fitted codebook: assignment to the nearest centroid, decoding, gradients.
use super::KIND;
use crate::{Codec, Decode, EncodingError, Parameters, Result, Slot, Stored};
use graph::{Encoding, Setting};
use std::collections::BTreeMap;
use std::ops::Mul;
use tensor::{Activation, DType, Element, Tensor, record};

/// Fixed settings of a codebook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Form {
    /// Bits of an index.
    pub(crate) bits: u32,
    /// The axis of the output channels; `None` where there is one table and no scale.
    pub(crate) axis: Option<usize>,
    /// Channels that share a table.
    pub(crate) group: usize,
}

/// The parameters of a codebook on a value of one shape, checked.
struct Tables {
    /// f32 `[groups * 2^bits]`.
    centroids: Vec<f32>,
    scale: Option<Vec<f32>>,
    /// Consecutive elements of one channel.
    run: usize,
    channels: usize,
}

impl Form {
    /// Reads and checks the settings of an encoding.
    pub(crate) fn of(settings: &BTreeMap<String, Setting>) -> Result<Form> {
        let int = |name: &'static str| match settings.get(name) {
            None => Ok(None),
            Some(Setting::Int(v)) if *v >= 0 => Ok(Some(*v as usize)),
            Some(other) => Err(EncodingError::Setting { kind: KIND, setting: name, what: format!("is {other:?}; a number is needed") }),
        };
        let form = Form { bits: int("bits")?.unwrap_or(4) as u32, axis: int("axis")?, group: int("group")?.unwrap_or(usize::MAX) };
        if !(1..=8).contains(&form.bits) {
            return Err(EncodingError::Setting { kind: KIND, setting: "bits", what: format!("is {}; 1 to 8 are possible", form.bits) });
        }
        if form.group == 0 {
            return Err(EncodingError::Setting { kind: KIND, setting: "group", what: "is 0; at least one channel has a table".into() });
        }
        Ok(form)
    }

    pub(crate) fn encoding(&self, table: Tensor, scale: Option<Tensor>) -> Encoding {
        let mut settings = BTreeMap::from([("bits".to_string(), Setting::Int(i64::from(self.bits)))]);
        if let Some(axis) = self.axis {
            settings.insert("axis".into(), Setting::Int(axis as i64));
            if self.group != usize::MAX {
                settings.insert("group".into(), Setting::Int(self.group as i64));
            }
        }
        let mut parameters = BTreeMap::from([("codebook".to_string(), table)]);
        parameters.extend(scale.map(|s| ("channel_scale".to_string(), s)));
        Encoding { kind: KIND.to_string(), settings, parameters }
    }

    /// Centroids of a table.
    pub(crate) fn entries(&self) -> usize {
        1 << self.bits
    }

    /// Consecutive elements of one channel, and how many channels there are.
    pub(crate) fn layout(&self, shape: &[usize]) -> Result<(usize, usize)> {
        let Some(axis) = self.axis else { return Ok((shape.iter().product::<usize>().max(1), 1)) };
        let axis = tensor::shape::axis("codebook", axis as i64, shape.len())?;
        Ok((shape[axis + 1..].iter().product::<usize>().max(1), shape[axis].max(1)))
    }

    fn tables(&self, shape: &[usize], parameters: &Parameters) -> Result<Tables> {
        let (run, channels) = self.layout(shape)?;
        let refused = |parameter, what| EncodingError::Parameter { kind: KIND, parameter, what };
        let table = parameters.get("codebook").ok_or_else(|| refused("codebook", "is missing".into()))?;
        let wanted = channels.div_ceil(self.group) * self.entries();
        if table.len() != wanted {
            let what = format!("has shape {:?}; a value of shape {shape:?} needs {wanted} centroids", table.shape());
            return Err(refused("codebook", what));
        }
        let centroids = table.to_f32_vec()?;
        if let Some(bad) = centroids.iter().find(|c| !c.is_finite()) {
            return Err(refused("codebook", format!("holds {bad}; it must be finite")));
        }
        let scale = parameters.get("channel_scale").map(|s| s.to_f32_vec()).transpose()?;
        if let Some(scale) = &scale {
            if scale.len() != channels {
                return Err(refused("channel_scale", format!("has {} elements for {channels} channels", scale.len())));
            }
            if let Some(bad) = scale.iter().find(|s| !(s.is_finite() && **s != 0.0)) {
                return Err(refused("channel_scale", format!("holds {bad}; it must be finite and not zero")));
            }
        }
        Ok(Tables { centroids, scale, run, channels })
    }

    /// The index of the nearest centroid for each element, within its channel's table.
    pub(crate) fn indices(&self, value: &Tensor, parameters: &Parameters) -> Result<Vec<u8>> {
        let tables = self.tables(value.shape(), parameters)?;
        Ok(self.assign(value.detach().cast(DType::F32)?.as_slice::<f32>()?, &tables))
    }

    fn assign(&self, x: &[f32], tables: &Tables) -> Vec<u8> {
        let steps: Vec<SortedCentroids> = tables.centroids.chunks(self.entries()).map(SortedCentroids::of).collect();
        let mut out = vec![0u8; x.len()];
        for (i, (from, to)) in x.chunks(tables.run).zip(out.chunks_mut(tables.run)).enumerate() {
            let channel = i % tables.channels;
            let scale = tables.scale.as_ref().map_or(1.0, |s| s[channel]);
            steps[channel / self.group].nearest(from, scale, to);
        }
        out
    }

    /// Most distinct levels of a table; `None` for a table that cannot be read.
    fn most_levels(&self, table: &Tensor) -> Option<usize> {
        let different = |levels: &[f32]| {
            let mut sorted = levels.to_vec();
            sorted.sort_by(f32::total_cmp);
            sorted.dedup();
            sorted.len()
        };
        table.to_f32_vec().ok()?.chunks(self.entries()).map(different).max()
    }

    /// The real numbers that indices stand for.
    pub(crate) fn looked_up<T: Copy + Mul<Output = T>>(
        &self,
        indices: &[u8],
        layout: (usize, usize),
        table: &[T],
        scale: Option<&[T]>,
    ) -> Vec<T> {
        let mut out = Vec::with_capacity(indices.len());
        for (i, run) in indices.chunks(layout.0).enumerate() {
            let channel = i % layout.1;
            let own = &table[channel / self.group * self.entries()..];
            match scale {
                None => out.extend(run.iter().map(|i| own[usize::from(*i)])),
                Some(scale) => out.extend(run.iter().map(|i| own[usize::from(*i)] * scale[channel])),
            }
        }
        out
    }
}

/// A table's centroids in ascending order, with the midpoints between them.
struct SortedCentroids {
    order: Vec<u8>,
    middles: Vec<f32>,
}

impl SortedCentroids {
    fn of(table: &[f32]) -> SortedCentroids {
        let mut order: Vec<u8> = (0..table.len()).map(|i| i as u8).collect();
        order.sort_by(|a, b| table[usize::from(*a)].total_cmp(&table[usize::from(*b)]).then(a.cmp(b)));
        let sorted: Vec<f32> = order.iter().map(|i| table[usize::from(*i)]).collect();
        // A midpoint that rounds to the upper centroid would assign that centroid to the lower one.
        let middle = |c: &[f32]| {
            let m = ((f64::from(c[0]) + f64::from(c[1])) / 2.0) as f32;
            if m >= c[1] { c[0] } else { m }
        };
        SortedCentroids { middles: sorted.windows(2).map(middle).collect(), order }
    }

    /// Nearest centroids of numbers that are first divided by `scale`; the lower one at a midpoint.
    fn nearest(&self, x: &[f32], scale: f32, out: &mut [u8]) {
        const PIECE: usize = 256;
        let mut divided = [0f32; PIECE];
        for (x, out) in x.chunks(PIECE).zip(out.chunks_mut(PIECE)) {
            divided.iter_mut().zip(x).for_each(|(d, x)| *d = x / scale);
            // The number of midpoints below, counted without a branch.
            for middle in &self.middles {
                out.iter_mut().zip(&divided).for_each(|(o, d)| *o += u8::from(d > middle));
            }
            out.iter_mut().for_each(|o| *o = self.order[usize::from(*o)]);
        }
    }
}

impl Codec for Form {
    fn simulate(&self, value: &Tensor, parameters: &Parameters) -> Result<Tensor> {
        let tables = self.tables(value.shape(), parameters)?;
        let codebook = &parameters["codebook"];
        let x = value.detach().cast(DType::F32)?;
        let x = x.as_slice::<f32>()?;
        let indices = self.assign(x, &tables);
        let layout = (tables.run, tables.channels);
        let scale = tables.scale.as_deref();
        let output = match value.dtype() {
            DType::F64 => {
                let wide: Option<Vec<f64>> = scale.map(|s| s.iter().map(|s| f64::from(*s)).collect());
                let data = self.looked_up(&indices, layout, &codebook.to_f64_vec()?, wide.as_deref());
                not_a_number_stays(Tensor::new(data, value.shape())?, x, f64::NAN)?
            }
            dtype => {
                let data = self.looked_up(&indices, layout, &tables.centroids, scale);
                not_a_number_stays(Tensor::new(data, value.shape())?, x, f32::NAN)?.cast(dtype)?
            }
        };
        let form = *self;
        let (dtype, shape, tracked) = (codebook.dtype(), codebook.shape().to_vec(), codebook.is_tracked());
        Ok(record("codebook", &[value, codebook], output, move |dy| {
            // Han et al. 2016, equation 3: a centroid's gradient is the sum of those of its weights.
            let mut sums = vec![0f64; if tracked { tables.centroids.len() } else { 0 }];
            if tracked {
                let dy = dy.to_f64_vec()?;
                for (i, (dy, indices)) in dy.chunks(tables.run).zip(indices.chunks(tables.run)).enumerate() {
                    let channel = i % tables.channels;
                    let own = &mut sums[channel / form.group * form.entries()..];
                    let scale = tables.scale.as_ref().map_or(1.0, |s| f64::from(s[channel]));
                    dy.iter().zip(indices).for_each(|(dy, i)| own[usize::from(*i)] += dy * scale);
                }
            }
            let by_table = tracked.then(|| Tensor::new(sums, shape.as_slice())?.cast(dtype)).transpose()?;
            Ok(vec![Some(dy), by_table])
        }))
    }

    fn simulate_activated(&self, value: &Tensor, activation: Activation, parameters: &Parameters) -> Result<Tensor> {
        self.simulate(&activation.apply(value)?, parameters)
    }

    fn store(&self, value: &Tensor, parameters: &Parameters) -> Result<Stored> {
        if let Some(at) = value.to_f32_vec()?.iter().position(|v| v.is_nan()) {
            return Err(EncodingError::Value { kind: KIND, what: format!("element {at} is not a number") });
        }
        let data = Tensor::new(self.indices(value, parameters)?, value.shape())?;
        Ok(Stored { data, decode: self.decode(parameters)? })
    }

    fn decode(&self, parameters: &Parameters) -> Result<Decode> {
        let missing = || EncodingError::Parameter { kind: KIND, parameter: "codebook", what: "is missing".into() };
        let table = parameters.get("codebook").ok_or_else(missing)?.detach().cast(DType::F32)?;
        let scale = parameters.get("channel_scale").map(|s| s.detach().cast(DType::F32)).transpose()?;
        Ok(Decode::Table { table, bits: self.bits, axis: self.axis, group: self.group, scale })
    }

    fn read(&self, data: &Tensor, parameters: &Parameters) -> Result<Tensor> {
        let tables = self.tables(data.shape(), parameters)?;
        let indices = data.to_i64_vec()?;
        if let Some(bad) = indices.iter().find(|i| !(0..self.entries() as i64).contains(i)) {
            return Err(EncodingError::Value { kind: KIND, what: format!("index {bad} is outside a table of {}", self.entries()) });
        }
        let indices: Vec<u8> = indices.into_iter().map(|i| i as u8).collect();
        let layout = (tables.run, tables.channels);
        Ok(Tensor::new(self.looked_up(&indices, layout, &tables.centroids, tables.scale.as_deref()), data.shape())?)
    }

    fn describe(&self, parameters: &Parameters) -> String {
        let per = match (self.axis, self.group) {
            (None, _) | (_, usize::MAX) => "tensor".to_string(),
            (_, 1) => "channel".to_string(),
            (_, n) => format!("{n} channels"),
        };
        let scaled = if parameters.contains_key("channel_scale") { ", scale per channel" } else { "" };
        let form = match parameters.get("codebook").and_then(|t| self.most_levels(t)) {
            Some(2) => "two levels".to_string(),
            Some(3) => "three levels".to_string(),
            _ => format!("{}-bit codebook", self.bits),
        };
        format!("{form} per {per}{scaled}")
    }

    fn trainable(&self, _: &Parameters) -> &'static [&'static str] {
        &["codebook"]
    }

    /// A centroid at zero stays there: masked elements are stored as zeros.
    fn project(&self, _: &str, before: &Tensor, after: Tensor) -> Result<Tensor> {
        let zeros = before.to_f32_vec()?;
        if zeros.iter().all(|c| *c != 0.0) {
            return Ok(after);
        }
        let live = Tensor::new(zeros.iter().map(|c| *c != 0.0).collect::<Vec<bool>>(), before.shape())?;
        Ok(Tensor::where_(&live, &after, &Tensor::scalar(0f32).cast(after.dtype())?)?)
    }

    fn keeps_zero(&self, parameters: &Parameters) -> bool {
        let table = parameters.get("codebook").and_then(|t| t.to_f32_vec().ok()).unwrap_or_default();
        table.chunks(self.entries()).all(|t| t.contains(&0.0))
    }

    fn refit(&self, weight: &Tensor, mask: Option<&Tensor>, parameters: &Parameters) -> Result<Encoding> {
        super::refit(self, weight, Slot { axis: self.axis, mask, ..Slot::default() }, parameters)
    }
}

/// NaN has no centroid.
fn not_a_number_stays<T: Element + Copy>(mut out: Tensor, x: &[f32], nan: T) -> Result<Tensor> {
    if x.iter().any(|v| v.is_nan()) {
        let list = out.as_mut_slice::<T>()?;
        list.iter_mut().zip(x).filter(|(_, x)| x.is_nan()).for_each(|(o, _)| *o = nan);
    }
    Ok(out)
}
