//! Changes of a quantize stage that a diagnosis suggests.
use crate::StageError;
use crate::recipe::{CalibrationSettings, QuantizeStage};
use crate::stages::write_rules;
use encodings::Encodings;
use quantize::{Corrections, Observers, Rule};
use serde::Serialize;
use technique::Choice;
use toml::{Table, Value};

/// One change of a stage's settings.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// One more correction, in place of those with these names.
    Correction(Choice<Corrections>, &'static [&'static str]),
    /// Another observer.
    Observer(Choice<Observers>),
    /// So many calibration samples.
    Images(usize),
    /// Weights stored in another way.
    Weights(Choice<Encodings>),
    /// One more rule, which decides where others apply too.
    Rule(Box<Rule>),
    /// One more layer in float.
    Skip(String),
    /// Scales with which no sum saturates.
    ProcessorSafe,
    /// Training with the quantizers.
    Epochs(u64),
}

impl Change {
    /// The key below the stage, and its value with the change.
    ///
    /// # Errors
    /// For a value that TOML cannot express.
    fn value(&self, stage: &QuantizeStage) -> Result<(&'static str, Value), StageError> {
        fn toml(value: &impl Serialize) -> Result<Value, StageError> {
            Ok(Value::try_from(value)?)
        }
        Ok(match self {
            Change::Correction(new, instead) => {
                let kept = stage.corrections.iter().filter(|c| !instead.contains(&c.kind()));
                ("corrections", toml(&kept.chain([new]).cloned().collect::<Vec<_>>())?)
            }
            Change::Observer(observer) => (
                "calibration",
                calibration(CalibrationSettings { observer: observer.clone(), percentile: None, ..stage.calibration.clone() })?,
            ),
            Change::Images(images) => ("calibration", calibration(CalibrationSettings { images: *images, ..stage.calibration.clone() })?),
            Change::Weights(weights) => ("weights", toml(weights)?),
            Change::Rule(rule) => ("rules", toml(&stage.rules.iter().chain([rule.as_ref()]).cloned().collect::<Vec<_>>())?),
            Change::Skip(node) => ("skip", toml(&stage.skip.iter().chain([node]).cloned().collect::<Vec<_>>())?),
            Change::ProcessorSafe => ("processor_safe", Value::Boolean(true)),
            Change::Epochs(epochs) => ("epochs", toml(epochs)?),
        })
    }

    /// The change as `--set` takes it, for the stage of this name as it is now.
    ///
    /// # Errors
    /// For a value that TOML cannot express.
    pub fn setting(&self, name: &str, stage: &QuantizeStage) -> Result<String, StageError> {
        let (key, value) = self.value(stage)?;
        Ok(format!("stages.{name}.{key}={value}"))
    }

    /// The line, or the lines, to write into the stage.
    ///
    /// # Errors
    /// For a value that TOML cannot express.
    pub fn line(&self, stage: &QuantizeStage) -> Result<String, StageError> {
        if let Change::Rule(rule) = self {
            return Ok(write_rules(&[], &[rule.as_ref().clone()])?.trim().to_string());
        }
        let (key, value) = self.value(stage)?;
        Ok(format!("{key} = {value}"))
    }

    /// True for a correction that learns, which takes minutes where others take seconds.
    pub fn learns(&self) -> bool {
        matches!(self, Change::Correction(new, _) if new.learns_from() > 0)
    }

    /// True if a calibration and a simulation show what comes of it: not for training, nor for what only some processors compute.
    pub fn can_be_tried(&self) -> bool {
        !matches!(self, Change::Epochs(_) | Change::ProcessorSafe)
    }
}

/// Settings of a calibration without those that are defaults.
fn calibration(settings: CalibrationSettings) -> Result<Value, StageError> {
    let (mut own, default) = (Table::try_from(&settings)?, Table::try_from(CalibrationSettings::default())?);
    own.retain(|key, value| default.get(key) != Some(value));
    Ok(Value::Table(own))
}
