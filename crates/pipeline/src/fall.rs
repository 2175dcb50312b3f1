//! A stage that ends below where it began.
use crate::recipe::{Recipe, Stage};
use report::record::StageRecord;
use report::text;

/// A loss of so many points is told, if it is not within what the number of images leaves open.
const TOLD: f64 = 0.5;

/// The warning for stage `index` if it lost accuracy, with what helps. A stage that puts another network in the place of the
/// one before it has lost nothing.
pub(crate) fn fall(recipe: &Recipe, index: usize, before: &StageRecord, after: &StageRecord) -> Option<String> {
    let stage = recipe.stages.get(index)?;
    if stage.begins_anew().is_some() {
        return None;
    }
    let tested = before.accuracy_beside(after).zip(after.shown_accuracy());
    let (from, to) = tested.or(before.metrics.validation_accuracy.zip(after.metrics.validation_accuracy))?;
    let images = after.metrics.images.or(before.metrics.images).unwrap_or(0).max(1) as f64;
    let error = (from * (1.0 - from) / images).sqrt();
    let lost = (from - to) * 100.0;
    if lost <= TOLD.max(error * 100.0) {
        return None;
    }
    Some(format!(
        "the stage ends {lost:.2} points below where it began ({} before, {} after): {}",
        text::percent(from),
        text::percent(to),
        helps(recipe, index, stage)
    ))
}

/// What helps, by what the stage did.
fn helps(recipe: &Recipe, index: usize, stage: &Stage) -> String {
    if stage.trains() {
        let lr = recipe.optimizer(index).map_or(0.0, |(optimizer, _)| optimizer.lr());
        return match stage.remedies() {
            Some((trained, _)) => format!("{trained}, or another optimizer.lr (it is {lr})"),
            None => format!("lower optimizer.lr (it is {lr}), train for more epochs, or leave the stage out"),
        };
    }
    let later = recipe.stages.iter().skip(index + 1).any(Stage::trains);
    let later = if later { "; a stage after it trains and may win it back" } else { "" };
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
                .contains("a lower sparsity, or epochs = 1 or more to train what is left; a stage after it trains")
        );
        assert_eq!(told(0, 0.62, 0.616, 10_000), None, "small");
        assert_eq!(told(0, 0.90, 0.89, 100), None, "one image of 100");
        assert_eq!(told(2, 0.90, 0.50, 10_000), None, "another network");
        assert_eq!(told(0, 0.50, 0.90, 10_000), None);
    }
}
