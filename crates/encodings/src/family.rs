//! The family of encodings: every way to store a weight.
use crate::additive_power_of_two::{self, AdditivePowerOfTwo};
use crate::affine::{self, Affine, AffineSettings};
use crate::binary::{self, Binary};
use crate::codebook::{self, Codebook};
use crate::power_of_two::{self, PowerOfTwo};
use crate::ternary::{self, Ternary};
use crate::{Codec, EncodingError, Granularity, Result, Slot};
use graph::{Encoding, Setting};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, OnceLock};
use technique::{Entry, Family, Manual, member};
use tensor::Tensor;

/// A way to store weights, with its settings. Adding one is adding a file and a line in [`Encodings::members`].
///
/// One whose data decode as another's do needs nothing but its fit. Ternary weights (Li & Liu 2016, arXiv:1605.04711, equations 5
/// and 6), whole but for their manual page; a [`Codec`] of one's own is what `codebook/form.rs` has:
/// ```
/// use espalier_encodings::affine::{self, AffineSettings};
/// use espalier_encodings::{Codec, Granularity, Result, Slot, WeightEncoding};
/// use graph::{Encoding, Setting};
/// use std::{collections::BTreeMap, sync::Arc};
/// use tensor::Tensor;
///
/// #[derive(Debug, Default, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
/// #[serde(default, deny_unknown_fields)]
/// struct Ternary {}
/// impl technique::Settings for Ternary {}
/// impl WeightEncoding for Ternary {
///     fn bits(&self) -> u32 {
///         2
///     }
///     fn granularity(&self) -> Granularity {
///         Granularity::Tensor
///     }
///     fn grid(&self, _axis: Option<usize>) -> Option<AffineSettings> {
///         Some(AffineSettings::weight(2, None))
///     }
///     fn fit(&self, weight: &Tensor, _slot: Slot) -> Result<Encoding> {
///         let w: Vec<f32> = weight.to_f32_vec()?.iter().map(|w| w.abs()).collect();
///         let threshold = 0.7 * w.iter().sum::<f32>() / w.len().max(1) as f32;
///         let large: Vec<f32> = w.into_iter().filter(|w| *w > threshold).collect();
///         let scale = large.iter().sum::<f32>() / large.len().max(1) as f32;
///         Ok(AffineSettings::weight(2, None).encoding(Tensor::scalar(scale.max(f32::MIN_POSITIVE)), Tensor::scalar(0f32)))
///     }
///     fn open(&self, settings: &BTreeMap<String, Setting>) -> Result<Arc<dyn Codec>> {
///         espalier_encodings::find(affine::KIND)?.open(settings)
///     }
/// }
/// let member = technique::member!(
///     Ternary as dyn WeightEncoding,
///     technique::Manual { name: "ternary", summary: "", details: "", source: "", example: "" }
/// );
/// let ternary = (member.build)(Default::default()).unwrap();
/// let weight = Tensor::vector(vec![-0.9f32, 0.1, 0.0, 1.1]);
/// let annotation = graph::Annotation { mask: None, encoding: Some(ternary.fit(&weight, Slot::default()).unwrap()) };
/// assert_eq!(espalier_encodings::simulate(&weight, &annotation).unwrap(), Tensor::vector(vec![-1f32, 0.0, 0.0, 1.0]));
/// ```
pub trait WeightEncoding: fmt::Debug + Send + Sync {
    /// Bits of a stored weight.
    fn bits(&self) -> u32;

    /// Which elements share one set of parameters.
    fn granularity(&self) -> Granularity;

    /// The integer grid of a weight with these output channels, if layers can compute on the stored integers; `None` if layers
    /// compute in float on the decoded weight.
    fn grid(&self, _axis: Option<usize>) -> Option<AffineSettings> {
        None
    }

    /// Parameters with the least error for a masked weight (masked elements are zero in it).
    ///
    /// # Errors
    /// [`EncodingError::Value`] for a weight that is not finite; a tensor error if the axis does not exist.
    fn fit(&self, weight: &Tensor, slot: Slot) -> Result<Encoding>;

    /// Reads the settings of an annotation of this kind, whatever the settings of `self`.
    ///
    /// # Errors
    /// [`EncodingError::Setting`] for one of the wrong type or out of range.
    fn open(&self, settings: &BTreeMap<String, Setting>) -> Result<Arc<dyn Codec>>;
}

/// The family of encodings.
pub struct Encodings;

impl Family for Encodings {
    type Member = dyn WeightEncoding;
    const NAME: &'static str = "encoding";
    const SUMMARY: &'static str = "How weights are stored.";
    const DEFAULT: Option<&'static str> = Some(affine::KIND);

    fn members() -> &'static [Entry<dyn WeightEncoding>] {
        static LIST: &[Entry<dyn WeightEncoding>] = &[
            member!(
                Affine as dyn WeightEncoding,
                Manual {
                    name: affine::KIND,
                    summary: "Uniform n-bit integers with a scale and a zero point, per tensor, channel or group (QuantizeLinear / DequantizeLinear).",
                    details: "real = (integer - zero_point) * scale. Weights are signed and symmetric; layers compute on the integers.\n\
                              The scale of least error is taken. Use it wherever the runtime has integer kernels.\n\
                              granularity = { group = N }: N elements in a row share a scale, along what the layer sums over: the inputs of\n\
                              MatMul, Gemm and recurrent layers, the inputs and the kernel of a convolution as one, an embedding's row. For a\n\
                              weight [out, in] there are out * ceil(in / N) scales, 32 bits each, or 16 where the weight is decoded once (Cast and\n\
                              Mul). The layer computes in float on what DequantizeLinear with block_size gives. Use it for weights of 4 bits and\n\
                              fewer in layers with many inputs, where activations stay float.\n\
                              9 to 16 bits: integers of 16 bits, which ONNX Runtime stores and reads and computes with in float.",
                    source: "Jacob et al. 2018, arXiv:1712.05877, equation 1; groups: Frantar et al. 2022, arXiv:2210.17323, section 4",
                    example: "weights = { bits = 8, granularity = \"channel\" }",
                }
            ),
            member!(
                Codebook as dyn WeightEncoding,
                Manual {
                    name: codebook::KIND,
                    summary: "Indices into a table of 2^bits centroids found by k-means; layers compute in float with the decoded weights.",
                    details: "w is stored as the index i of the centroid nearest to w / scale[channel] and reads back as\n\
                              table[i] * scale[channel]. The file holds the indices in `bits` bits each, the table and the scales;\n\
                              standard operators decode them when the model is loaded, so it runs as fast as in float and is\n\
                              32 / bits times smaller. Centroids are trained where scales are learned: a centroid's gradient is the\n\
                              sum of its weights' gradients. Use it for small files where the runtime computes in float; with\n\
                              `activations = false` nothing else changes.",
                    source: "Han et al. 2016, arXiv:1510.00149, section 3; optimum on a line: Wang and Song 2011, The R Journal 3(2)",
                    example: "weights = { kind = \"codebook\", bits = 4 }\nactivations = false",
                }
            ),
            member!(
                Ternary as dyn WeightEncoding,
                Manual {
                    name: ternary::KIND,
                    summary: "Three values, minus scale, zero and scale, in two bits a weight; layers compute in float with the decoded \
                    weights.",
                    details: "w[c, ...] reads back as s[c] where w > t[c], as -s[c] where w < -t[c], else as zero: t and s have a number for\n\
                              each output channel, or one for the tensor. By default t and s are those of least squared error (t = s / 2);\n\
                              threshold = { mean = 0.7 } takes t = 0.7 mean|w| and for s the mean magnitude above it. Both follow from\n\
                              the weight before each step, and the gradient passes straight through. scales = \"learned\" trains a scale\n\
                              for each sign (with learn_scales = true): its gradient is the sum of its weights' gradients.\n\
                              Needs training: a network falls to chance without. Keep the first and the last layer in 8 bits by rules and\n\
                              BatchNormalization as an operator (batch_norm = \"keep\"); it is folded into scales and bias when deployed.",
                    source: "Li, Zhang and Liu 2016, arXiv:1605.04711, equations 3 to 6; learned scales: Zhu et al. 2017, arXiv:1612.01064, equations 6 to 8",
                    example: "weights = { kind = \"ternary\", threshold = { mean = 0.7 } }\nactivations = false",
                }
            ),
            member!(
                Binary as dyn WeightEncoding,
                Manual {
                    name: binary::KIND,
                    summary: "Two values, minus scale and scale, in one bit a weight, or for what a layer reads; layers compute in float with them.",
                    details: "w[c, ...] reads back as s[c] where w >= m[c], else as -s[c]. s is the mean of |w - m| over the channel (or tensor).\n\
                              estimator = \"straight_through\": m = 0, and the gradient passes where |w| <= 1. estimator = \"ir_net\": m is the\n\
                              channel's mean, and the gradient is that of k tanh(t z) for the standardized weight z, with t growing from\n\
                              0.01 to 10 over the training and k = max(1 / t, 1). Scale and mean follow from the weight before each step.\n\
                              There is no zero: weights with a mask are refused (ternary has one). Needs training; keep the first and the\n\
                              last layer in 8 bits by rules, and BatchNormalization as an operator (batch_norm = \"keep\").\n\
                              Activations: reads = { kind = \"binary\" } in a rule is about what its layers read, of any shape [n, ...]. With one\n\
                              scale a for the tensor and v = x / a - o, x reads as a (sign(v) + o), where sign(0) = 1: as -a or a (o = 0), or,\n\
                              where no value of the calibration data is below zero (behind a ReLU), as 0 or 2 a (o = 1). a has the least squared\n\
                              error on the calibration data, and is trained with learn_scales = true. Gradients: dy/dx = g(v) and\n\
                              dy/da = sign(v) + o - g(v) x / a, summed over the elements, with g by estimator: \"straight_through\" (the default) 1\n\
                              where |v| <= 1, else 0; \"bi_real\" 2 - 2 |v| there; \"ir_net\" k t (1 - tanh(t v)^2), t and k as above. The file has\n\
                              Less and Where in front of the layer, which computes in float: no kernel of ONNX Runtime is on bits, so nothing gets\n\
                              faster. For research on networks of one bit; keep in 8 bits what residual blocks add.",
                    source: "Rastegari et al. 2016, arXiv:1603.05279, equation 6; ir_net: Qin et al. 2020, arXiv:1909.10788, equations 5 to 12; \
                             activations: Courbariaux et al. 2016, arXiv:1602.02830, equation 4; bi_real: Liu et al. 2018, arXiv:1808.00278, equation 7",
                    example: "weights = { kind = \"binary\", estimator = \"ir_net\" }\nrules = [{ op = \"Conv\", reads = { kind = \"binary\", estimator = \"bi_real\" } }]",
                }
            ),
            member!(
                PowerOfTwo as dyn WeightEncoding,
                Manual {
                    name: power_of_two::KIND,
                    summary: "Zero and powers of two of either sign, times a scale; layers compute in float with the decoded weights.",
                    details: "w[c, ...] reads back as s[c] times the nearest of 0 and +-2^-k, k = 0 .. 2^(bits - 1) - 2: +-1, 1/2, 1/4 for\n\
                              3 bits. s has a number for each output channel, or one for the tensor: that of least squared error, then\n\
                              trained where scales are learned. power_of_two_scale = true makes each weight a power of two, for hardware\n\
                              that shifts instead of multiplying. Levels are dense near zero and sparse at the ends: from 4 bits on\n\
                              additive_power_of_two loses less.",
                    source: "Zhou et al. 2017, arXiv:1702.03044, section 2.1; gradient of the scale: Li, Dong and Wang 2020, arXiv:1909.13144, equation 6",
                    example: "weights = { kind = \"power_of_two\", bits = 4 }\nactivations = false",
                }
            ),
            member!(
                AdditivePowerOfTwo as dyn WeightEncoding,
                Manual {
                    name: additive_power_of_two::KIND,
                    summary: "Sums of powers of two of either sign, times a scale (APoT); layers compute in float with the decoded \
                    weights.",
                    details: "w[c, ...] reads back as s[c] times the nearest of all sums of one term of each list, divided by the largest.\n\
                              4 bits: {0, 1/2, 1/4, 1/16} + {0, 1/8}; 5 bits: {0, 1/2, 1/8, 1/32} + {0, 1/4, 1/16, 1/64}; 3 bits: {0, 1/2,\n\
                              1/4, 1/8}. s has a number for each output channel, or one for the tensor: that of least squared error, then\n\
                              trained where scales are learned. normalize = true centres the weight and divides it by its standard\n\
                              deviation first. Use it for 3 to 5 bits with training where multiplications are made of shifts and adds;\n\
                              without training a codebook of the same width loses less.",
                    source: "Li, Dong and Wang 2020, arXiv:1909.13144, equations 5, 6 and 8",
                    example: "weights = { kind = \"additive_power_of_two\", bits = 4 }\nactivations = false",
                }
            ),
        ];
        LIST
    }
}

/// The encoding of this name, with its defaults.
///
/// # Errors
/// [`EncodingError::UnknownKind`], with the known names.
pub fn find(kind: &str) -> Result<&'static dyn WeightEncoding> {
    static BUILT: OnceLock<Vec<(&'static str, Arc<dyn WeightEncoding>)>> = OnceLock::new();
    let built = BUILT.get_or_init(|| {
        let build = |e: &Entry<dyn WeightEncoding>| Some((e.manual.name, (e.build)(Default::default()).ok()?));
        Encodings::members().iter().filter_map(build).collect()
    });
    let found = built.iter().find(|(name, _)| *name == kind).map(|(_, member)| member.as_ref());
    found.ok_or_else(|| EncodingError::UnknownKind { kind: kind.to_string(), known: built.iter().map(|(name, _)| *name).collect() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use technique::Choice;

    #[test]
    fn every_encoding_has_a_manual_page_and_an_example_that_parses() {
        assert_eq!(find(Encodings::DEFAULT.unwrap()).unwrap().bits(), 8);
        for entry in Encodings::members() {
            let m = &entry.manual;
            assert!(!m.summary.is_empty() && !m.details.is_empty() && !m.source.is_empty(), "{}", m.name);
            assert!(m.example.contains("weights = "), "{}", m.name);
            assert!(find(m.name).is_ok() && Choice::<Encodings>::named(m.name).is_ok());
        }
    }

    #[test]
    fn settings_are_checked_where_they_are_read() {
        let read = |text: &str| serde_json::from_str::<Choice<Encodings>>(text).map_err(|e| e.to_string());
        assert_eq!(read(r#"{"bits": 4, "granularity": {"group": 32}}"#).unwrap().granularity(), Granularity::Group(32));
        assert_eq!(read(r#"{"bits": 4, "per_channel": false}"#).unwrap().granularity(), Granularity::Tensor);
        assert_eq!(read(r#"{"kind": "codebook", "granularity": {"group": 8}}"#).unwrap().granularity(), Granularity::Group(8));
        for wrong in [
            r#"{"bits": 17}"#,
            r#"{"granularity": {"group": 0}}"#,
            r#"{"bits": 2, "reduce_range": true}"#,
            r#"{"granularity": "channel", "per_channel": false}"#,
            r#"{"kind": "codebook", "bits": 1}"#,
            r#"{"kind": "codebook", "granularity": {"group": 0}}"#,
            r#""codebok""#,
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
        assert!(read(r#""codebok""#).unwrap_err().contains("codebook"));
    }
}
