//! `distill`: a student learns from a teacher. A fresh student is trained whole and then gets the compression that the
//! stages before it asked for, pruned and calibrated anew, so that a joint stage after it has everything active.
use super::lesson::{Taught, given, measured, train};
use super::{StageBody, StageCx, StageError, StageOutput};
use crate::actions::{Policy, PolicyStep, student};
use crate::recipe::{DistillStage, Stage};
use graph::Model;

/// The stage.
pub(super) struct Distill(pub(super) DistillStage);

/// What the stages before this one asked for.
fn policy(cx: &StageCx) -> Policy {
    let before = &cx.loaded.recipe.stages[..cx.index.min(cx.loaded.recipe.stages.len())];
    let step = |s: &Stage| match s {
        Stage::Prune(p) => Some(PolicyStep::Prune(p.clone())),
        Stage::Quantize(q) => Some(PolicyStep::Quantize(q.clone())),
        _ => None,
    };
    Policy { steps: before.iter().filter_map(step).collect() }
}

impl StageBody for Distill {
    fn run(&self, cx: &mut StageCx, input: Option<Model>) -> Result<StageOutput, StageError> {
        let sources = cx.sources()?;
        let teacher = cx.teacher(&self.0.teacher)?;
        let fresh = self.0.student.is_some();
        let mut model = match &self.0.student {
            Some(of) => student(of, &teacher, cx.seed())?,
            None => given(input)?,
        };
        let taught = Taught { teacher: &teacher, temperature: self.0.temperature, alpha: self.0.alpha };
        let epochs = train(cx, &mut model, &self.0.training(), Some(taught), true, &sources)?;
        if fresh && self.0.inherit {
            let (policy, seed) = (policy(cx), cx.loaded.recipe.seed);
            let notes = policy.apply(&mut model, &sources, seed, Some(cx.cache), &mut cx.tick("calibrate"))?;
            notes.into_iter().for_each(|note| cx.note(false, note));
        }
        measured(cx, model, epochs, &sources)
    }
}
