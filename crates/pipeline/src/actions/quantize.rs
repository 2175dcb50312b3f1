//! Attaching quantizers and masks as the recipe asks for them.
use crate::recipe::{Observer, PruneMethod, PruneScope, PruneStage, QuantizeStage};
use crate::stages::StageError;
use graph::Model;
use prune::{PruneSettings, Scope, SparsityReport};
use quantize::{ActivationSettings, ObserverSettings, QuantizeSettings, WeightSettings};

/// A stage's settings as the technique takes them.
pub(super) fn settings(stage: &QuantizeStage) -> QuantizeSettings {
    let kind = match stage.calibration.observer {
        Observer::MinMax => "min_max",
        Observer::MovingAverage => "moving_average",
        Observer::Percentile => "percentile",
        Observer::Entropy => "entropy",
        Observer::Mse => "mse",
    };
    QuantizeSettings {
        weights: WeightSettings {
            bits: u32::from(stage.weights.bits),
            per_channel: stage.weights.per_channel,
            reduce_range: stage.weights.reduce_range,
            ..WeightSettings::default()
        },
        activations: ActivationSettings { bits: u32::from(stage.activations.bits) },
        observer: ObserverSettings { kind: kind.into(), percentile: stage.calibration.percentile, ..ObserverSettings::default() },
        skip: stage.skip.clone(),
    }
}

/// Chooses which weights live.
///
/// # Errors
/// What the settings or the weights report.
pub fn prune_weights(model: &mut Model, stage: &PruneStage) -> Result<SparsityReport, StageError> {
    let settings = PruneSettings {
        method: match stage.method {
            PruneMethod::Magnitude => "magnitude".into(),
        },
        sparsity: stage.sparsity,
        scope: match stage.scope {
            PruneScope::Global => Scope::Global,
            PruneScope::Layer => Scope::Layer,
        },
        skip: stage.skip.clone(),
    };
    Ok(prune::prune(model, &settings)?)
}

/// Sets the biases' scales again after the scales they follow from were trained. Where BatchNormalization is kept, biases
/// are settled when it is folded.
///
/// # Errors
/// What the settings or the weights report.
pub fn settle_biases(model: &mut Model, stage: &QuantizeStage) -> Result<(), StageError> {
    if !ops::keeps_norms(model) {
        quantize::refresh_biases(model, &settings(stage))?;
    }
    Ok(())
}

/// Folds the normalizations that a quantize stage kept, before the graph is lowered. Returns how many.
///
/// # Errors
/// For one whose running statistics still moved in the last epoch.
pub fn settle_norms(model: &mut Model, stage: Option<&QuantizeStage>) -> Result<usize, StageError> {
    Ok(quantize::fold_kept(model, &stage.map(settings).unwrap_or_default())?)
}
