//! `distill`: a student learns from a teacher. A fresh student is trained whole and then gets the compression that the
//! stages before it asked for, pruned and calibrated anew, so that a joint stage after it has everything active.
use super::lesson::{Taught, given, measured, train};
use super::{StageBody, StageCx, StageError, StageOutput};
use crate::actions::{Policy, PolicyStep, figures, student};
use crate::recipe::{DistillStage, Inherit, Recipe, Stage};
use graph::Model;

/// The stage.
pub(super) struct Distill(pub(super) DistillStage);

/// Name of a figure of a teacher that is no stage of the run, among the further figures of the stage that it taught.
pub(crate) fn teacher_figure(key: &str) -> String {
    format!("teacher_{key}")
}

/// What a student of stage `index` inherits, in the order in which it is applied, with the stages' names.
pub(crate) fn inherited(recipe: &Recipe, index: usize) -> Vec<(&str, PolicyStep)> {
    let Some(Stage::Distill(DistillStage { student: Some(_), inherit, .. })) = recipe.stages.get(index) else { return vec![] };
    let step = |s: &Stage| match s {
        Stage::Prune(p) => Some(PolicyStep::Prune(p.clone())),
        Stage::Quantize(q) => Some(PolicyStep::Quantize(q.clone())),
        _ => None,
    };
    let before = recipe.stages[..index].iter().filter_map(|s| Some((s.name(), step(s)?)));
    match inherit {
        Inherit::All(false) => vec![],
        Inherit::All(true) => {
            // Importance is read from whole weights, so masks come first.
            let (masks, grids): (Vec<_>, Vec<_>) = before.partition(|(_, s)| matches!(s, PolicyStep::Prune(_)));
            masks.into_iter().chain(grids).collect()
        }
        Inherit::Stages(names) => {
            let before: Vec<_> = before.collect();
            names.iter().filter_map(|name| before.iter().find(|(n, _)| n == name).cloned()).collect()
        }
    }
}

/// Both see the same inputs, so where neither the recipe nor the student says how they are made, the teacher does.
fn inherit_preprocessing(cx: &mut StageCx, teacher: &Model, student: &mut Model) {
    let told = cx.loaded.recipe.data.as_ref().is_some_and(|d| d.preprocess.is_some());
    let (own, theirs) = (student.metadata_get(data::METADATA_KEY), teacher.metadata_get(data::METADATA_KEY));
    match (told, own, theirs.map(str::to_string)) {
        (false, None, Some(theirs)) => student.metadata_set(data::METADATA_KEY, theirs),
        (false, Some(own), Some(theirs)) if own != theirs => {
            let text = "student and teacher carry different preprocessing, and both get the student's: set [data.preprocess]";
            cx.note(true, text);
        }
        _ => {}
    }
}

impl StageBody for Distill {
    fn run(&self, cx: &mut StageCx, input: Option<Model>) -> Result<StageOutput, StageError> {
        let sources = cx.sources()?;
        let teacher = cx.teacher(&self.0.teacher)?;
        // What an earlier stage left has been measured there.
        let outside = !cx.results.contains_key(&self.0.teacher);
        let known = if outside { figures(&teacher, &sources, None, &mut cx.tick("evaluate the teacher"))? } else { None };
        let mut model = match &self.0.student {
            Some(of) => student(of, cx.loaded.recipe.begins_with(), &teacher, cx.seed(), |p| cx.resolve(p))?,
            None => given(input)?,
        };
        inherit_preprocessing(cx, &teacher, &mut model);
        let taught = Taught { teacher: &teacher, temperature: self.0.temperature, alpha: self.0.alpha };
        let epochs = train(cx, &mut model, &self.0.training(), Some(taught), true, &sources)?;
        let steps = inherited(&cx.loaded.recipe, cx.index);
        if !steps.is_empty() {
            let (names, steps): (Vec<&str>, Vec<PolicyStep>) = steps.into_iter().unzip();
            let order = format!("the student inherits, in this order: {} (inherit says which)", names.join(", "));
            cx.note(false, order);
            let seed = cx.loaded.recipe.seed;
            let notes = Policy { steps }.apply(&mut model, &sources, seed, Some(cx.cache), &mut cx.tick("calibrate"))?;
            notes.into_iter().for_each(|(warning, note)| cx.note(warning, note));
        }
        let mut output = measured(cx, model, epochs, &sources)?;
        let known = known.into_iter().flat_map(|figures| figures.values);
        output.metrics.other.extend(known.map(|(key, value)| (teacher_figure(key), value)));
        Ok(output)
    }
}
