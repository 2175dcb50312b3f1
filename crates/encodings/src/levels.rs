//! Common code of encodings that choose each element from a table of levels computed from a few parameters: binary, ternary,
//! powers of two. They store, decode and read like a codebook; assignment, gradient and trained parameters are their own.
use crate::codebook::form::Form;
use crate::{Codec, Decode, EncodingError, Granularity, Parameters, Result, Stored};
use graph::{Encoding, Setting};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use technique::Fault;
use tensor::{Activation, DType, Element, Tensor, record};

/// The levels of a value.
#[derive(Clone, Debug)]
pub(crate) struct Levels {
    /// Bits of an index.
    pub(crate) bits: u32,
    /// The axis of the channels; `None`: one table and no scale for each channel.
    pub(crate) axis: Option<usize>,
    /// One table of `2^bits` levels for all channels, or one for each.
    pub(crate) table: Vec<f64>,
    /// A factor for each channel.
    pub(crate) scale: Option<Vec<f64>>,
}

/// A value's elements, and which channel each belongs to.
pub(crate) struct Elements<'e> {
    /// All elements in their order.
    pub(crate) x: &'e [f64],
    /// Consecutive elements of one channel.
    run: usize,
    /// Channels.
    pub(crate) channels: usize,
}

/// Gradients of an encoding: by the value (`None`: straight through) and by each learned parameter, in the order of
/// [`Leveled::trainable`].
#[derive(Default)]
pub(crate) struct Backward {
    pub(crate) value: Option<Vec<f64>>,
    pub(crate) parameters: Vec<Vec<f64>>,
}

/// An encoding on a table of levels.
pub(crate) trait Leveled: fmt::Debug + Clone + Send + Sync + 'static {
    /// Name of the encoding, such as `ternary`.
    const KIND: &'static str;

    /// The axis of the channels that have parameters of their own.
    fn axis(&self) -> Option<usize>;

    /// The levels that the parameters stand for.
    fn levels(&self, parameters: &Parameters) -> Result<Levels>;

    /// The index of each element; NaN gets any index.
    fn assign(&self, elements: &Elements, parameters: &Parameters) -> Result<Vec<u8>>;

    /// Gradients from the gradient of the output, `dy`. `learned` says whether gradients of parameters are wanted.
    fn backward(&self, elements: &Elements, indices: &[u8], dy: &[f64], parameters: &Parameters, learned: bool) -> Result<Backward>;

    /// As [`Codec::describe`].
    fn describe(&self) -> String;

    /// As [`Codec::trainable`].
    fn trainable(&self) -> &'static [&'static str] {
        &[]
    }

    /// As [`Codec::keeps_zero`].
    fn keeps_zero(&self) -> bool {
        true
    }

    /// The parameters of a masked weight. `keep` are the previous parameters, of which the trained ones stay.
    fn fitted(&self, weight: &Tensor, mask: Option<&Tensor>, keep: Option<&Parameters>) -> Result<Parameters>;

    /// True if parameters are derived from the weight, or from the training's progress, before each step.
    fn follows(&self) -> bool;

    /// The settings that [`crate::WeightEncoding::open`] reads.
    fn settings(&self) -> BTreeMap<String, Setting>;

    /// The encoding of a weight.
    fn encoding(&self, parameters: Parameters) -> Encoding {
        Encoding { kind: Self::KIND.to_string(), settings: self.settings(), parameters }
    }
}

/// The [`Codec`] of such an encoding.
#[derive(Clone, Debug)]
pub(crate) struct LevelCodec<L>(pub(crate) L);

impl Levels {
    /// The codebook that decodes to the same values.
    fn form(&self) -> Form {
        let group = if self.table.len() > 1 << self.bits { 1 } else { usize::MAX };
        Form { bits: self.bits, axis: self.axis, group }
    }

    fn parameters(&self) -> Result<Parameters> {
        let narrow = |list: &[f64]| list.iter().map(|v| *v as f32 + 0.0).collect::<Vec<f32>>();
        let table = Tensor::new(narrow(&self.table), [self.table.len() >> self.bits, 1 << self.bits])?;
        let scale = self.scale.as_ref().map(|s| ("channel_scale".to_string(), Tensor::vector(narrow(s))));
        Ok([("codebook".to_string(), table)].into_iter().chain(scale).collect())
    }
}

impl<'e> Elements<'e> {
    pub(crate) fn new(x: &'e [f64], shape: &[usize], axis: Option<usize>) -> Result<Elements<'e>> {
        let (run, channels) = Form { bits: 1, axis, group: usize::MAX }.layout(shape)?;
        Ok(Elements { x, run, channels })
    }

    /// The channel of each element.
    pub(crate) fn channel(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.x.len()).map(|i| i / self.run % self.channels)
    }

    /// The elements that `mask` keeps, by channel.
    pub(crate) fn live(&self, mask: Option<&Tensor>) -> Result<Vec<Vec<f64>>> {
        let mask = mask.map(|m| m.as_slice::<bool>()).transpose()?;
        let mut out = vec![vec![]; self.channels];
        for ((i, x), c) in self.x.iter().enumerate().zip(self.channel()) {
            if mask.is_none_or(|m| m.get(i).copied().unwrap_or(true)) {
                out[c].push(*x);
            }
        }
        Ok(out)
    }
}

/// The elements of a weight in f64; refused if one is not finite.
pub(crate) fn finite(kind: &'static str, weight: &Tensor) -> Result<Vec<f64>> {
    let x = weight.to_f64_vec()?;
    match x.iter().find(|v| !v.is_finite()) {
        Some(bad) => Err(EncodingError::Value { kind, what: format!("a weight of {bad} has no level") }),
        None => Ok(x),
    }
}

/// A number for each channel: of rank 1, or of rank 0 where there is one for all.
pub(crate) fn each(list: Vec<f64>, axis: Option<usize>) -> Tensor {
    let list: Vec<f32> = list.into_iter().map(|v| v as f32).collect();
    match (axis, list.as_slice()) {
        (None, [one]) => Tensor::scalar(*one),
        _ => Tensor::vector(list),
    }
}

/// A parameter with a finite number for each channel.
pub(crate) fn parameter(kind: &'static str, parameters: &Parameters, name: &'static str) -> Result<Vec<f64>> {
    let refused = |what: String| EncodingError::Parameter { kind, parameter: name, what };
    let list = parameters.get(name).ok_or_else(|| refused("is missing".into()))?.to_f64_vec()?;
    match list.iter().find(|v| !v.is_finite()) {
        Some(bad) => Err(refused(format!("holds {bad}; it must be finite"))),
        None if list.is_empty() => Err(refused("is empty".into())),
        None => Ok(list),
    }
}

/// [`parameter`] with `channels` numbers.
pub(crate) fn for_each(kind: &'static str, parameters: &Parameters, name: &'static str, channels: usize) -> Result<Vec<f64>> {
    let list = parameter(kind, parameters, name)?;
    match list.len() == channels {
        true => Ok(list),
        false => {
            let what = format!("has {} numbers for {channels} channels", list.len());
            Err(EncodingError::Parameter { kind, parameter: name, what })
        }
    }
}

/// An integer setting of an annotation.
pub(crate) fn integer(kind: &'static str, settings: &BTreeMap<String, Setting>, name: &'static str) -> Result<Option<usize>> {
    match settings.get(name) {
        None => Ok(None),
        Some(Setting::Int(v)) if *v >= 0 => Ok(Some(*v as usize)),
        Some(other) => Err(EncodingError::Setting { kind, setting: name, what: format!("is {other:?}; a number is needed") }),
    }
}

/// A setting of an annotation that is true or false; absent: false.
pub(crate) fn flag(kind: &'static str, settings: &BTreeMap<String, Setting>, name: &'static str) -> Result<bool> {
    match settings.get(name) {
        None => Ok(false),
        Some(Setting::Bool(flag)) => Ok(*flag),
        Some(other) => Err(EncodingError::Setting { kind, setting: name, what: format!("is {other:?}; true or false is needed") }),
    }
}

/// Refuses groups of channels, which these encodings do not have.
///
/// # Errors
/// A [`Fault`] at `granularity`.
pub(crate) fn no_groups(kind: &str, granularity: Granularity) -> Result<(), Fault> {
    match granularity {
        Granularity::Group(_) => {
            let fault = Fault::new("granularity", format!("encoding '{kind}' has no groups of channels"));
            Err(fault.hint("write granularity = \"channel\" or \"tensor\""))
        }
        _ => Ok(()),
    }
}

impl<L: Leveled> LevelCodec<L> {
    pub(crate) fn shared(self) -> Arc<dyn Codec> {
        Arc::new(self)
    }

    /// Indices of a value, checked against the parameters.
    fn indices(&self, x: &[f64], shape: &[usize], parameters: &Parameters) -> Result<Vec<u8>> {
        self.0.assign(&Elements::new(x, shape, self.0.axis())?, parameters)
    }

    fn looked_up<T: Element + Copy + std::ops::Mul<Output = T>>(
        &self,
        indices: &[u8],
        shape: &[usize],
        levels: &Levels,
        of: impl Fn(f64) -> T,
    ) -> Result<Tensor> {
        let form = levels.form();
        let layout = form.layout(shape)?;
        let wide = |list: &[f64]| list.iter().map(|v| of(*v)).collect::<Vec<T>>();
        let (table, scale) = (wide(&levels.table), levels.scale.as_deref().map(wide));
        let wanted = (layout.1.div_ceil(form.group)) << levels.bits;
        if table.len() != wanted || scale.as_ref().is_some_and(|s| s.len() != layout.1) {
            let what = format!("do not fit a value of shape {shape:?}: {} levels, {} are needed", table.len(), wanted);
            return Err(EncodingError::Parameter { kind: L::KIND, parameter: "scale", what });
        }
        Ok(Tensor::new(form.looked_up(indices, layout, &table, scale.as_deref()), shape)?)
    }
}

impl<L: Leveled> Codec for LevelCodec<L> {
    fn simulate(&self, value: &Tensor, parameters: &Parameters) -> Result<Tensor> {
        let levels = self.0.levels(parameters)?;
        let x = value.to_f64_vec()?;
        let shape = value.shape().to_vec();
        let indices = self.indices(&x, &shape, parameters)?;
        let output = match value.dtype() {
            DType::F64 => not_a_number_stays(self.looked_up(&indices, &shape, &levels, |v| v)?, &x, f64::NAN)?,
            dtype => not_a_number_stays(self.looked_up(&indices, &shape, &levels, |v| v as f32 + 0.0)?, &x, f32::NAN)?.cast(dtype)?,
        };
        let learned: Vec<&Tensor> = self.0.trainable().iter().filter_map(|name| parameters.get(*name)).collect();
        let tracked = learned.iter().any(|p| p.is_tracked());
        let inputs: Vec<&Tensor> = std::iter::once(value).chain(learned.iter().copied()).collect();
        let like: Vec<(DType, Vec<usize>)> = inputs.iter().map(|t| (t.dtype(), t.shape().to_vec())).collect();
        let (this, untracked) = (self.clone(), parameters.iter().map(|(k, v)| (k.clone(), v.detach())).collect::<Parameters>());
        Ok(record(L::KIND, &inputs, output, move |dy| {
            let failed = |e: EncodingError| match e {
                EncodingError::Tensor(e) => e,
                other => tensor::TensorError::value(L::KIND, other.to_string()),
            };
            let elements = Elements::new(&x, &shape, this.0.axis()).map_err(failed)?;
            let found = this.0.backward(&elements, &indices, &dy.to_f64_vec()?, &untracked, tracked).map_err(failed)?;
            let shaped = |list: Vec<f64>, (dtype, shape): &(DType, Vec<usize>)| Tensor::new(list, shape.as_slice())?.cast(*dtype);
            let by_value = match found.value {
                Some(list) => shaped(list, &like[0])?,
                None => dy,
            };
            let mut out = vec![Some(by_value)];
            out.resize(like.len(), None);
            for (i, list) in found.parameters.into_iter().enumerate().filter(|_| tracked) {
                out[i + 1] = Some(shaped(list, &like[i + 1])?);
            }
            Ok(out)
        }))
    }

    fn simulate_activated(&self, value: &Tensor, activation: Activation, parameters: &Parameters) -> Result<Tensor> {
        self.simulate(&activation.apply(value)?, parameters)
    }

    fn store(&self, value: &Tensor, parameters: &Parameters) -> Result<Stored> {
        let x = value.to_f64_vec()?;
        if let Some(at) = x.iter().position(|v| v.is_nan()) {
            return Err(EncodingError::Value { kind: L::KIND, what: format!("element {at} is not a number") });
        }
        let data = Tensor::new(self.indices(&x, value.shape(), parameters)?, value.shape())?;
        Ok(Stored { data, decode: self.decode(parameters)? })
    }

    fn decode(&self, parameters: &Parameters) -> Result<Decode> {
        let levels = self.0.levels(parameters)?;
        levels.form().decode(&levels.parameters()?)
    }

    fn read(&self, data: &Tensor, parameters: &Parameters) -> Result<Tensor> {
        let levels = self.0.levels(parameters)?;
        levels.form().read(data, &levels.parameters()?)
    }

    fn describe(&self, _: &Parameters) -> String {
        self.0.describe()
    }

    fn trainable(&self, _: &Parameters) -> &'static [&'static str] {
        self.0.trainable()
    }

    /// A trained scale stays positive: a step reduces it to half of its value at most.
    fn project(&self, _: &str, before: &Tensor, after: Tensor) -> Result<Tensor> {
        crate::positive_scale(before, &after)
    }

    fn keeps_zero(&self, _: &Parameters) -> bool {
        self.0.keeps_zero()
    }

    fn refit(&self, weight: &Tensor, mask: Option<&Tensor>, _: &Parameters) -> Result<Encoding> {
        Ok(self.0.encoding(self.0.fitted(weight, mask, None)?))
    }

    fn follows(&self) -> bool {
        self.0.follows()
    }

    fn follow(&self, weight: &Tensor, mask: Option<&Tensor>, progress: f64, parameters: &Parameters) -> Result<Option<Parameters>> {
        if !self.0.follows() {
            return Ok(None);
        }
        let mut fitted = self.0.fitted(weight, mask, Some(parameters))?;
        if let Some(at) = fitted.get_mut(PROGRESS) {
            *at = Tensor::scalar(progress as f32);
        }
        Ok(Some(fitted))
    }
}

/// The parameter that holds the training's progress, 0 to 1, where the gradient depends on it.
pub(crate) const PROGRESS: &str = "progress";

/// NaN has no level.
fn not_a_number_stays<T: Element + Copy>(mut out: Tensor, x: &[f64], nan: T) -> Result<Tensor> {
    if x.iter().any(|v| v.is_nan()) {
        let list = out.as_mut_slice::<T>()?;
        list.iter_mut().zip(x).filter(|(_, x)| x.is_nan()).for_each(|(o, _)| *o = nan);
    }
    Ok(out)
}
