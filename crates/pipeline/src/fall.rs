//! Warnings about stages after which the main metric is worse than before.
use crate::actions::metric_record;
use crate::recipe::{Recipe, Stage};
use report::record::{MetricRecord, StageRecord};
use report::text;

/// Smallest drop, in percentage points, that is reported, if it is beyond the uncertainty from the number of samples.
const TOLD: f64 = 0.5;

/// Smallest relative change of another metric that is reported, if it is beyond its confidence interval.
const TOLD_PART: f64 = 0.05;

/// The warning for stage `index` if the task's main metric became worse, with a remedy. A stage that replaces the network has
/// lost nothing.
pub(crate) fn fall(recipe: &Recipe, index: usize, before: &StageRecord, after: &StageRecord) -> Option<String> {
    let metric = metric_record(recipe.task.member().as_ref());
    let stage = recipe.stages.get(index)?;
    if stage.begins_anew().is_some() {
        return None;
    }
    let tested = before.shown_beside(&metric, after).zip(after.shown(&metric));
    let (from, to) = tested.or(before.metrics.validation_figure().zip(after.metrics.validation_figure()))?;
    // Shares are reported in percentage points.
    let scale = if metric.percent { 100.0 } else { 1.0 };
    let lost = metric.loss(from, to) * scale;
    if lost <= left_open(&metric, from, before, after) {
        return None;
    }
    let began = match metric.percent {
        true => format!("ends {lost:.2} points below where it began"),
        false => format!("leaves {} worse than it was by {}", metric.label, text::number(lost)),
    };
    let (from, to) = (metric.write(from), metric.write(to));
    Some(format!("the stage {began} ({from} before, {to} after): {}", helps(recipe, index, stage)))
}

/// How much worse a metric may become without a warning.
fn left_open(metric: &MetricRecord, from: f64, before: &StageRecord, after: &StageRecord) -> f64 {
    if metric.percent {
        let samples = after.metrics.images.or(before.metrics.images).unwrap_or(0).max(1) as f64;
        return TOLD.max((from * (1.0 - from) / samples).sqrt() * 100.0);
    }
    let half = |[low, high]: &[f64; 2]| (high - low) / 2.0;
    let interval = before.metrics.intervals.get(&metric.key).map_or(0.0, half);
    (TOLD_PART * from.abs()).max(interval)
}

/// A remedy, by the kind of stage.
fn helps(recipe: &Recipe, index: usize, stage: &Stage) -> String {
    if stage.trains() {
        let lr = recipe.optimizer(index).map_or(0.0, |(optimizer, _)| optimizer.lr());
        return match stage.remedies() {
            Some((trained, _)) => format!("{trained}, or another optimizer.lr (it is {lr})"),
            None => format!("lower optimizer.lr (it is {lr}), train for more epochs, or leave the stage out"),
        };
    }
    let later = recipe.stages.iter().skip(index + 1).any(Stage::trains);
    let later = if later { "; a later stage trains and may recover it" } else { "" };
    let own = stage.remedies().map_or("its notes say why", |(_, untrained)| untrained);
    format!("{own}{later}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::parse;
    use report::record::Metrics;

    fn record(accuracy: f64, images: u64) -> StageRecord {
        StageRecord { metrics: Metrics { accuracy: Some(accuracy), images: Some(images), ..Metrics::default() }, ..StageRecord::default() }
    }

    #[test]
    fn a_loss_is_told_beyond_noise_with_what_helps_in_that_stage() {
        let text = "name = \"t\"\n[model]\nfile = \"m.onnx\"\n[data]\ntrain = \"x\"\n[[stages]]\nkind = \"train\"\n\
                    [[stages]]\nkind = \"prune\"\nsparsity = 0.9\n[[stages]]\nkind = \"distill\"\nteacher = \"train\"\n\
                    student = { arch = \"mlp\" }\n";
        let recipe = parse(text, &[]).unwrap();
        let told = |index, before: f64, after: f64, n| fall(&recipe, index, &record(before, n), &record(after, n));
        let text = told(0, 0.6235, 0.5110, 10_000).unwrap();
        assert!(
            text.starts_with(
                "the stage ends 11.25 points below where it began (62.35 % before, 51.10 % after): lower optimizer.lr (it is 0.0001)"
            ),
            "{text}"
        );
        assert!(
            told(1, 0.9, 0.8, 10_000)
                .unwrap()
                .contains("a lower sparsity, or epochs = 1 or more to train the remaining weights; a later stage trains")
        );
        assert_eq!(told(0, 0.62, 0.616, 10_000), None, "small");
        assert_eq!(told(0, 0.90, 0.89, 100), None, "one sample of 100");
        assert_eq!(told(2, 0.90, 0.50, 10_000), None, "another network");
        assert_eq!(told(0, 0.50, 0.90, 10_000), None);
    }

    #[test]
    fn an_error_that_rises_is_told_and_one_that_falls_is_not() {
        let text = "name = \"t\"\ntask = \"regression\"\n[model]\nfile = \"m.onnx\"\n[data]\ntrain = \"x\"\n[[stages]]\nkind = \"prune\"\nsparsity = 0.9\n";
        let recipe = parse(text, &[]).unwrap();
        let record = |mae: f64, half: f64| {
            let mut r = StageRecord::default();
            r.metrics.keep(&[("mae", mae)].into());
            r.metrics.intervals.insert("mae".into(), [mae - half, mae + half]);
            r
        };
        let told = |before: f64, after: f64, half: f64| fall(&recipe, 0, &record(before, half), &record(after, half));
        let text = told(0.2, 0.25, 0.01).unwrap();
        assert!(
            text.starts_with("the stage leaves MAE worse than it was by 0.05000 (0.2000 before, 0.2500 after): a lower sparsity"),
            "{text}"
        );
        assert_eq!([told(0.2, 0.25, 0.06), told(0.2, 0.208, 0.001), told(0.25, 0.2, 0.01)], [const { None }; 3]);
    }
}
