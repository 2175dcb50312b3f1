//! `search`: how widths are searched within a budget, and files with a plan or a table of sensitivities.
use super::StageError;
use crate::PipelineError;
use encodings::Encodings;
use quantize::Rule;
use quantize::mixed::{Widths, with_bits};
use report::record::{PruneSensitivityRecord, SensitivityRecord};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::Path;
use technique::{Choice, Fault, within};
use train::Harm;

/// How widths are searched within a budget.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SearchSettings {
    /// The widths to choose from, in bits.
    pub widths: Vec<u32>,
    /// What activations get: `as_weights`: what a layer with a weight reads has its weight's width, the rest is stored as
    /// `activations` says; `as_planned`: all are stored as `activations` says.
    pub activations: Widths,
    /// Least bits of activations that have their weights' width. ONNX Runtime refuses layers that read 2 bits.
    pub least_activations: u32,
    /// What a choice goes by: `noise` (power of the change of the outputs) or `loss` (needs labels).
    pub by: Harm,
    /// Samples that sensitivities are measured on: validation samples, else training samples held back from calibration.
    pub samples: usize,
    /// A file with a table that `espalier sensitivity` wrote, to use instead of measuring.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sensitivity: Option<String>,
    /// The content of that file.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(skip)]
    pub(crate) table: Option<Box<SensitivityRecord>>,
}

impl Default for SearchSettings {
    fn default() -> Self {
        SearchSettings {
            widths: vec![2, 3, 4, 8],
            activations: Widths::default(),
            least_activations: 3,
            by: Harm::default(),
            samples: 256,
            sensitivity: None,
            table: None,
        }
    }
}

impl SearchSettings {
    /// Checks ranges.
    ///
    /// # Errors
    /// A [`Fault`] at the key.
    pub(crate) fn check(&self, weights: &Choice<Encodings>) -> Result<(), Fault> {
        if self.widths.is_empty() || self.widths.windows(2).any(|w| w[0] >= w[1]) {
            return Err(Fault::new("widths", format!("widths = {:?}: rising numbers of bits are needed", self.widths)));
        }
        if let Some(bits) = self.widths.iter().find(|bits| !(2..=16).contains(*bits)) {
            return Err(Fault::new("widths", format!("widths has {bits}, which is not within 2..16")));
        }
        within("least_activations", f64::from(self.least_activations), 2.0, 16.0, "bits of an activation")?;
        for bits in &self.widths {
            with_bits(weights, *bits).map_err(|fault| Fault::new("widths", fault.what))?;
        }
        if self.samples == 0 {
            return Err(Fault::new("samples", "samples = 0: at least one sample is needed to measure on"));
        }
        Ok(())
    }
}

/// The content of a file that the recipe names.
fn text(path: &Path) -> Result<String, StageError> {
    std::fs::read_to_string(path).map_err(|e| PipelineError::file(path, format!("cannot be read: {e}")).into())
}

/// The rules of a plan file: `[[stages.rules]]`, as they stand in a recipe.
///
/// # Errors
/// If it cannot be read or has no rules.
pub(super) fn read_rules(path: &Path) -> Result<Vec<Rule>, StageError> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct File {
        stages: Stages,
    }
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Stages {
        rules: Vec<Rule>,
    }
    let file: File = toml::from_str(&text(path)?).map_err(|e| {
        let what = format!("is no plan: {}; a plan has rules as a recipe has them, each under [[stages.rules]]", e.message());
        PipelineError::file(path, what)
    })?;
    Ok(file.stages.rules)
}

/// The table of a file.
///
/// # Errors
/// If it cannot be read or is no table.
pub(super) fn read_table(path: &Path) -> Result<SensitivityRecord, StageError> {
    SensitivityRecord::load(path).map_err(|what| PipelineError::file(path, what).into())
}

/// The table of sensitivities to pruning of a file.
///
/// # Errors
/// If it cannot be read or is no table.
pub(super) fn read_shares(path: &Path) -> Result<PruneSensitivityRecord, StageError> {
    PruneSensitivityRecord::load(path).map_err(|what| PipelineError::file(path, what).into())
}

/// Rules as a plan file, with comments at the top.
///
/// # Errors
/// For a value that TOML cannot express.
pub(crate) fn write_rules(comments: &[String], rules: &[Rule]) -> Result<String, StageError> {
    let mut out: String = comments.iter().map(|line| format!("# {}\n", report::text::line(line))).collect();
    for rule in rules {
        out += "\n[[stages.rules]]\n";
        if let toml::Value::Table(keys) = toml::Value::try_from(rule)? {
            let first = ["match", "op", "position"];
            let rest = keys.keys().map(String::as_str).filter(|key| !first.contains(key));
            for key in first.into_iter().chain(rest) {
                out += &keys.get(key).map_or(String::new(), |value| format!("{key} = {value}\n"));
            }
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_is_written_and_read_back() {
        let rules = r#"[{"match":"/a \"b\"","weights":{"bits":3,"granularity":"tensor"},"activations":{"bits":3}},
                        {"op":"Conv","weights":{"kind":"codebook","bits":2},"activations":false},{"position":"last","skip":true}]"#;
        let rules: Vec<Rule> = serde_json::from_str(rules).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("plan.toml");
        let text = write_rules(&["Found\nhere.".into()], &rules).unwrap();
        std::fs::write(&path, &text).unwrap();
        assert_eq!(read_rules(&path).unwrap(), rules, "{text}");
        std::fs::write(&path, "[[rules]]\nmatch = \"a\"\nskip = true\n").unwrap();
        let error = read_rules(&path).unwrap_err().to_string();
        assert!(error.contains("is no plan") && error.contains("[[stages.rules]]"), "{error}");
    }

    #[test]
    fn widths_that_cannot_be_are_refused() {
        let check = |widths: &[u32], kind: &'static str| {
            let settings = SearchSettings { widths: widths.to_vec(), ..SearchSettings::default() };
            settings.check(&Choice::known(kind)).map_err(|fault| fault.to_string())
        };
        let affine = Choice::<Encodings>::default().kind();
        assert_eq!(check(&[2, 3, 4, 8], affine), Ok(()));
        assert!(check(&[], affine).is_err() && check(&[4, 3], affine).unwrap_err().contains("rising"));
        assert!(check(&[1, 2], affine).unwrap_err().contains("not within 2..16"));
        assert!(SearchSettings { samples: 0, ..SearchSettings::default() }.check(&Choice::default()).is_err());
    }
}
