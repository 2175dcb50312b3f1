//! The family of encodings: every way to store a weight.
use crate::affine::{self, Affine, AffineSettings};
use crate::codebook::{self, Codebook};
use crate::{Codec, EncodingError, Granularity, Result, Slot};
use graph::{Encoding, Setting};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, OnceLock};
use technique::{Entry, Family, Manual, member};
use tensor::Tensor;

/// A way to store weights, with its settings. Adding one is adding a file and a line in [`Encodings::members`].
///
/// One whose data decode as another's do needs nothing but its fit. Ternary weights (Li & Liu 2016, arXiv:1605.04711, equations 5 and 6), whole
/// but for their manual page; a [`Codec`] of one's own is what `codebook/form.rs` has:
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
    /// Bits a weight.
    fn bits(&self) -> u32;

    /// What shares one set of parameters.
    fn granularity(&self) -> Granularity;

    /// The integer grid of a weight with these output channels, if layers can compute with the stored integers; `None` where
    /// they compute in float with what is decoded.
    fn grid(&self, _axis: Option<usize>) -> Option<AffineSettings> {
        None
    }

    /// Parameters of least error for a live weight (masked elements are zero in it).
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
                    summary: "Uniform n-bit integers with a scale and a zero point, per tensor or per channel (QuantizeLinear / DequantizeLinear).",
                    details: "real = (integer - zero_point) * scale. Weights are signed and symmetric; layers compute on the integers.\n\
                              The scale of least error is taken. Use it wherever the runtime has integer kernels.",
                    source: "Jacob et al. 2018, arXiv:1712.05877, equation 1",
                    example: "weights = { bits = 8, granularity = \"channel\" }",
                }
            ),
            member!(
                Codebook as dyn WeightEncoding,
                Manual {
                    name: codebook::KIND,
                    summary: "Indices into a table of 2^bits centroids found by k-means; layers compute in float with what is decoded.",
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
        assert_eq!(read(r#"{"bits": 4, "per_channel": false}"#).unwrap().granularity(), Granularity::Tensor);
        assert_eq!(read(r#"{"kind": "codebook", "granularity": {"group": 8}}"#).unwrap().granularity(), Granularity::Group(8));
        for wrong in [
            r#"{"bits": 9}"#,
            r#"{"bits": 2, "reduce_range": true}"#,
            r#"{"granularity": {"group": 8}}"#,
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
