//! The training curves as a CSV table for other programs.
use crate::record::RunRecord;
use std::fmt::Write as _;

/// A line for each epoch, comma-separated, under a heading. Metrics that were not measured are empty. Shares are 0..1. Columns
/// are named after the task's main metric.
pub fn curves(record: &RunRecord) -> String {
    let key = record.task.main().key;
    let mut out = format!("stage,epoch,loss,train_{key},validation_{key},lr,images_per_s\n");
    let given = |v: Option<f64>| v.map_or(String::new(), |v| v.to_string());
    for stage in &record.stages {
        // A stage's name is letters, digits, '-' and '_'.
        for e in &stage.epochs {
            let (train, validation, speed) = (given(e.train_accuracy), given(e.validation_figure()), given(e.images_per_s));
            let _ = writeln!(out, "{},{},{},{train},{validation},{},{speed}", stage.name, e.epoch, e.loss, e.lr);
        }
    }
    out
}
