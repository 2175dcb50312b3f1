//! Initial values of parameters. Every draw depends on the seed and the parameter's name, so a layer starts the same whatever
//! other layers the network has.
use tensor::{Result, Tensor, random};

/// The distribution of a weight's initial values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Init {
    /// Normal with variance `2 / fan_in`, for layers followed by a normalization or a ReLU (He et al. 2015, arXiv:1502.01852).
    HeNormal,
    /// Uniform within `±1 / sqrt(fan_in)`, as in PyTorch's Linear and Conv layers (and their biases).
    FanInUniform,
}

impl Init {
    /// A tensor of this distribution. `fan_in` is the number of products summed into one output.
    pub(crate) fn draw(self, seed: u64, name: &str, shape: &[usize], fan_in: usize) -> Result<Tensor> {
        let key = random::derive(seed, name_key(name));
        let fan_in = fan_in.max(1) as f32;
        match self {
            Init::HeNormal => random::normal(key, shape, 0.0, (2.0 / fan_in).sqrt()),
            Init::FanInUniform => {
                let bound = 1.0 / fan_in.sqrt();
                random::uniform(key, shape, -bound, bound)
            }
        }
    }
}

/// A name as a number (FNV-1a).
fn name_key(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn he_normal_has_its_variance_and_names_differ() {
        let a = Init::HeNormal.draw(1, "a", &[64, 64, 3, 3], 576).unwrap();
        let b = Init::HeNormal.draw(1, "b", &[64, 64, 3, 3], 576).unwrap();
        assert_ne!(a, b);
        assert_eq!(a, Init::HeNormal.draw(1, "a", &[64, 64, 3, 3], 576).unwrap());
        let v = a.as_slice::<f32>().unwrap();
        let variance = v.iter().map(|x| x * x).sum::<f32>() / v.len() as f32;
        assert!((variance * 576.0 / 2.0 - 1.0).abs() < 0.05, "{variance}");
    }

    #[test]
    fn fan_in_uniform_keeps_its_bound() {
        let w = Init::FanInUniform.draw(1, "w", &[10, 100], 100).unwrap();
        let largest = w.as_slice::<f32>().unwrap().iter().fold(0f32, |m, x| m.max(x.abs()));
        assert!(largest <= 0.1 && largest > 0.09);
    }
}
