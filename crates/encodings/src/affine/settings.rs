//! Fixed settings of an affine encoding: width, sign, symmetry, axis.
use super::KIND;
use super::blocks::Blocks;
use crate::slot::Along;
use crate::{EncodingError, Result};
use graph::{Encoding, Setting};
use std::collections::BTreeMap;
use tensor::{DType, Tensor};

/// The axis along which blocks of elements share a scale.
const BLOCK_AXIS: &str = "block_axis";

/// Elements of a block.
const BLOCK_SIZE: &str = "block_size";

/// All axes from `block_axis` on count as one.
const BLOCK_FLAT: &str = "block_flat";

/// Settings of the affine encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AffineSettings {
    /// Width of the stored integers: 2 to 16 for weights and activations, 32 for a bias.
    pub bits: u32,
    /// Signed integers.
    pub signed: bool,
    /// The range is centred on zero: zero point 0 (signed) or half the range (unsigned).
    pub symmetric: bool,
    /// Leaves out the most negative integer, so that the range is the same on both sides of zero.
    pub narrow_range: bool,
    /// Uses one bit less than the stored type has, so that runtimes which add products of 8-bit integers in 16 bits do
    /// not saturate.
    pub reduce_range: bool,
    /// The axis along which each index has a scale of its own; `None`: one scale.
    pub axis: Option<usize>,
    /// Blocks of elements that share a scale each, in place of an axis.
    pub blocks: Option<Blocks>,
}

impl AffineSettings {
    /// Activations: unsigned, asymmetric, one scale.
    pub fn activation(bits: u32) -> Self {
        AffineSettings { bits, signed: false, symmetric: false, narrow_range: false, reduce_range: false, axis: None, blocks: None }
    }

    /// Weights: signed, symmetric; a scale for each output channel if `axis` is given.
    pub fn weight(bits: u32, axis: Option<usize>) -> Self {
        AffineSettings { bits, signed: true, symmetric: true, narrow_range: true, reduce_range: false, axis, blocks: None }
    }

    /// A bias: int32 with the scale of the accumulator it is added to.
    pub fn bias(axis: Option<usize>) -> Self {
        AffineSettings { bits: 32, signed: true, symmetric: true, narrow_range: false, reduce_range: false, axis, blocks: None }
    }

    /// True for the form of a bias.
    pub fn is_bias(&self) -> bool {
        self.bits == 32
    }

    /// Smallest integer of the grid.
    pub fn qmin(&self) -> i64 {
        match self.signed {
            true => -(1i64 << (self.used_bits() - 1)) + i64::from(self.narrow_range),
            false => 0,
        }
    }

    /// Largest integer of the grid.
    pub fn qmax(&self) -> i64 {
        (1i64 << (self.used_bits() - u32::from(self.signed))) - 1
    }

    fn used_bits(&self) -> u32 {
        self.bits - u32::from(self.reduce_range)
    }

    /// Type of the stored integers.
    pub fn dtype(&self) -> DType {
        match (self.bits, self.signed) {
            (..=2, true) => DType::I2,
            (..=2, false) => DType::U2,
            (3..=4, true) => DType::I4,
            (3..=4, false) => DType::U4,
            (5..=8, true) => DType::I8,
            (5..=8, false) => DType::U8,
            (9..=16, true) => DType::I16,
            (9..=16, false) => DType::U16,
            (_, true) => DType::I32,
            (_, false) => DType::U32,
        }
    }

    /// Reads and checks the settings of an encoding. Absent ones are those of [`AffineSettings::activation`] in 8 bits.
    ///
    /// # Errors
    /// [`EncodingError::Setting`] for one of the wrong type or out of range; [`EncodingError::Value`] for an encoding of
    /// another kind.
    pub fn of(encoding: &Encoding) -> Result<Self> {
        if encoding.kind != KIND {
            let what = format!("a grid of integers is needed here, and the value is stored as '{}'", encoding.kind);
            return Err(EncodingError::Value { kind: KIND, what });
        }
        Self::read(&encoding.settings)
    }

    /// As [`AffineSettings::of`], for the settings alone.
    ///
    /// # Errors
    /// [`EncodingError::Setting`] for one of the wrong type or out of range.
    pub fn read(settings: &BTreeMap<String, Setting>) -> Result<Self> {
        let default = AffineSettings::activation(8);
        let int = |name: &'static str| match settings.get(name) {
            None => Ok(None),
            Some(Setting::Int(v)) => Ok(Some(*v)),
            Some(other) => Err(refused(name, format!("is {other:?}, an integer is needed"))),
        };
        let flag = |name: &'static str, default: bool| match settings.get(name) {
            None => Ok(default),
            Some(Setting::Bool(v)) => Ok(*v),
            Some(other) => Err(refused(name, format!("is {other:?}, true or false is needed"))),
        };
        let bits = int("bits")?.unwrap_or(8);
        let index = |name: &'static str| match int(name)? {
            None => Ok(None),
            Some(a) => usize::try_from(a).map(Some).map_err(|_| refused(name, format!("is {a}, which is negative"))),
        };
        let blocks = match (index(BLOCK_AXIS)?, index(BLOCK_SIZE)?) {
            (None, None) => None,
            (Some(axis), Some(size)) => Some(Blocks { along: Along { axis, flat: flag(BLOCK_FLAT, false)? }, size }),
            (None, Some(_)) => return Err(refused(BLOCK_AXIS, "is missing, and there is a block_size".into())),
            (Some(_), None) => return Err(refused(BLOCK_SIZE, "is missing, and there is a block_axis".into())),
        };
        let settings = AffineSettings {
            bits: u32::try_from(bits).unwrap_or(0),
            signed: flag("signed", default.signed)?,
            symmetric: flag("symmetric", default.symmetric)?,
            narrow_range: flag("narrow_range", default.narrow_range)?,
            reduce_range: flag("reduce_range", default.reduce_range)?,
            axis: index("axis")?,
            blocks,
        };
        settings.check()?;
        Ok(settings)
    }

    /// Checks that the settings make sense together.
    ///
    /// # Errors
    /// [`EncodingError::Setting`] by name.
    pub fn check(&self) -> Result<()> {
        if !matches!(self.bits, 2..=16 | 32) {
            return Err(refused("bits", format!("is {}; 2 to 16 are possible, and 32 for a bias", self.bits)));
        }
        if self.bits == 32 && !(self.signed && self.symmetric) {
            return Err(refused("bits", "is 32, which is for a bias: signed and symmetric".into()));
        }
        if self.blocks.is_some_and(|b| b.size == 0) {
            return Err(refused(BLOCK_SIZE, "is 0; at least one element has a scale".into()));
        }
        if self.blocks.is_some() && (self.axis.is_some() || self.bits == 32) {
            return Err(refused(BLOCK_AXIS, "is given for a value with a scale for each index of an axis, or for a bias".into()));
        }
        if self.reduce_range && !(3..=16).contains(&self.bits) {
            return Err(refused("reduce_range", format!("leaves too little of {} bits", self.bits)));
        }
        Ok(())
    }

    /// An encoding with these settings. `scale` and `zero_point` have rank 0, or one element for each index along `axis`, or the
    /// shape of [`Blocks::scale_shape`].
    pub fn encoding(&self, scale: Tensor, zero_point: Tensor) -> Encoding {
        let mut settings = BTreeMap::from([
            ("bits".to_string(), Setting::Int(i64::from(self.bits))),
            ("signed".to_string(), Setting::Bool(self.signed)),
            ("symmetric".to_string(), Setting::Bool(self.symmetric)),
            ("narrow_range".to_string(), Setting::Bool(self.narrow_range)),
            ("reduce_range".to_string(), Setting::Bool(self.reduce_range)),
        ]);
        if let Some(axis) = self.axis {
            settings.insert("axis".to_string(), Setting::Int(axis as i64));
        }
        if let Some(Blocks { along, size }) = self.blocks {
            let set = [
                (BLOCK_AXIS, Setting::Int(along.axis as i64)),
                (BLOCK_SIZE, Setting::Int(size as i64)),
                (BLOCK_FLAT, Setting::Bool(along.flat)),
            ];
            settings.extend(set.map(|(name, v)| (name.to_string(), v)));
        }
        let parameters = BTreeMap::from([("scale".to_string(), scale), ("zero_point".to_string(), zero_point)]);
        Encoding { kind: KIND.to_string(), settings, parameters }
    }
}

fn refused(setting: &'static str, what: String) -> EncodingError {
    EncodingError::Setting { kind: KIND, setting, what }
}
