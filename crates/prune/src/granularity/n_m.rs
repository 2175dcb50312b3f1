//! N:M: among M neighbouring input channels at most N weights live.
use super::{Granularity, Units};
use crate::Candidate;
use technique::{Entry, Fault, Manual, Settings, member};

pub(super) const ENTRY: Entry<dyn Granularity> = member!(
    NofM as dyn Granularity,
    Manual {
        name: "n_m",
        summary: "Of m neighbouring input channels n keep their weight: 2:4, 4:8, 1:4.",
        details: "\
Within each output, and for a convolution at each place of its kernel, the input channels are cut into blocks of m, and the n most
important weights of a block live. That is the axis of the sum, as sparse matrix units take it (2:4 on NVIDIA GPUs, with the
channels innermost): of Conv [out, in, kernel] and of Gemm with transB = 1 [out, in] the second axis, of MatMul and of Gemm with transB = 0 [in, out]
the first, of ConvTranspose [in, out, kernel] the first, of recurrent layers [directions, gates, in] the last.

A last block of fewer than m channels counts as filled up with zeros: it keeps n of them. A layer whose outputs sum over fewer than m
channels (a first convolution on colours, a depthwise one) stays dense and is named.

The pattern decides the sparsity, 1 - n/m: `sparsity` need not be given, and must agree if it is. A gradual schedule makes the least
important of the pattern's zeros first.",
        source: "Mishra et al. 2021, arXiv:2104.08378; Zhou et al. 2021, arXiv:2102.04010",
        example: "granularity = { kind = \"n_m\", n = 2, m = 4 }",
    }
);

/// At most `n` of `m` neighbouring input channels keep their weight.
///
/// # Source
/// Mishra et al. 2021, arXiv:2104.08378.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct NofM {
    /// Weights of a block that live.
    pub n: usize,
    /// Length of a block.
    pub m: usize,
}

impl Default for NofM {
    fn default() -> Self {
        NofM { n: 2, m: 4 }
    }
}

impl Settings for NofM {
    fn check(&self) -> Result<(), Fault> {
        if self.n == 0 {
            return Err(Fault::new("n", "n = 0 leaves no weight: at least one of a block lives"));
        }
        if self.n >= self.m {
            return Err(Fault::new("n", format!("n = {} of m = {} prunes nothing: n must be below m", self.n, self.m)));
        }
        Ok(())
    }
}

impl Granularity for NofM {
    fn units(&self, candidate: &Candidate) -> Units {
        let Some(view) = &candidate.view else { return Units::Dense("its operator sums no products with it".into()) };
        if view.inputs < self.m {
            return Units::Dense(format!("an output sums over {} input channels, fewer than {}", view.inputs, self.m));
        }
        let blocks = view.inputs.div_ceil(self.m);
        let of = view.map(|output, input, place| (output * view.places + place) * blocks + input / self.m);
        Units::Blocks { of, keep: self.n }
    }

    fn sparsity(&self) -> Option<f64> {
        Some(1.0 - self.n as f64 / self.m as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_that_prune_nothing_or_everything_are_refused() {
        assert_eq!(NofM { n: 0, m: 4 }.check().unwrap_err().path, ["n"]);
        assert_eq!(NofM { n: 4, m: 4 }.check().unwrap_err().what, "n = 4 of m = 4 prunes nothing: n must be below m");
        assert_eq!(NofM { n: 4, m: 8 }.check(), Ok(()));
    }
}
