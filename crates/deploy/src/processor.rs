//! A quantized file as different processors compute it: its operators on integers, with the sums that their instructions give.
use crate::Result;
use crate::format::islands;
use crate::runtime::{Reference, Session};
use graph::Model;
use ops::Sums;
use std::fmt;
use std::str::FromStr;

/// How a quantized file is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arithmetic {
    /// Every node as the file says, in float between quantizers.
    Literal,
    /// On integers, 8-bit products summed in 32 bits: x86 with VNNI or AMX.
    Vnni,
    /// On integers, neighbouring 8-bit products summed in 16 bits that saturate: x86 with AVX2 or AVX-512 alone.
    Avx2,
    /// On integers, 8-bit products summed in 32 bits: Arm.
    Neon,
}

impl Arithmetic {
    /// All, by name.
    pub const ALL: [(&'static str, Arithmetic); 4] =
        [("literal", Arithmetic::Literal), ("vnni", Arithmetic::Vnni), ("avx2", Arithmetic::Avx2), ("neon", Arithmetic::Neon)];

    /// A session of the reference interpreter that computes so. Where ONNX Runtime has an operator on integers for what lies between
    /// quantizers, that operator runs; the result is scaled and rounded exactly.
    ///
    /// # Errors
    /// [`crate::DeployError::Runtime`] for a model that cannot be run.
    pub fn session(self, mut model: Model) -> Result<Box<dyn Session>> {
        if self != Arithmetic::Literal {
            islands::merge(&mut model, &**target::Choice::default().member())?;
        }
        Reference::summing(model, if self == Arithmetic::Avx2 { Sums::Pairs } else { Sums::Exact })
    }
}

impl fmt::Display for Arithmetic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = Self::ALL.iter().find(|(_, a)| a == self);
        write!(f, "{}", named.map_or("", |(name, _)| name))
    }
}

impl FromStr for Arithmetic {
    /// A sentence with the names that there are.
    type Err = String;

    fn from_str(name: &str) -> std::result::Result<Self, String> {
        let found = Self::ALL.iter().find(|(known, _)| *known == name).map(|(_, a)| *a);
        let known: Vec<&str> = Self::ALL.iter().map(|(name, _)| *name).collect();
        found.ok_or_else(|| format!("no arithmetic is named '{name}'; there are {}", known.join(", ")))
    }
}
