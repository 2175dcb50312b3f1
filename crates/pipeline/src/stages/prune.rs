//! `prune`: masks, chosen at once and then held while the other weights train, or step by step during training.
use super::kind::{StageEntry, StageKind};
use super::search::read_shares;
use super::teaching::{Taught, Teaching, read_taught, taught_schema, write_taught};
use super::training::{given, measured, train, train_with};
use super::{StageBody, StageCx, StageError, StageOutput};
use crate::actions::{CompressOn, Compressed, Compression, Rows, Tick, known_scope, measure_scope, prune_notes, prune_weights};
use crate::recipe::Recipe;
use graph::Model;
use prune::{GradualPruning, PruneSettings};
use serde::Deserialize;
use std::any::Any;
use std::path::PathBuf;
use std::sync::Arc;
use technique::{Choice, Fault, Manual};
use toml::Spanned;
use toml::de::{DeTable, Deserializer};

/// `prune`: sets masks, and trains the other weights if `epochs` is above 0.
#[derive(Clone, Debug, PartialEq)]
pub struct PruneStage {
    /// The library's settings.
    pub settings: PruneSettings,
    /// The teacher of its training, if it has one.
    pub taught: Taught,
    /// The losses between the model and the teacher.
    pub teaching: Teaching,
    /// The recipe uses `method`, the old name of `criterion`.
    pub(crate) renamed: bool,
}

/// What a stage needs whose pattern and scope do not decide the sparsity.
#[derive(Deserialize)]
struct Asked {
    #[serde(rename = "sparsity")]
    _sparsity: f64,
}

/// The old name of `criterion`, which is still accepted.
const OLD: &str = "method";

pub(super) const ENTRY: StageEntry = StageEntry {
    manual: Manual {
        name: "prune",
        summary: "Attaches masks that set weights to zero, and may train with them.",
        details: "\
Four choices are independent of each other: criterion is how the importance of weights is computed, granularity which of them become
zero together, scope over which weights the sparsity is reached, sparsity_schedule whether before the stage trains or step by step
while it does. See explain criterion, explain granularity, explain scope and explain sparsity_schedule.

With a teacher, the training learns from it too, as that of a finetune stage does.",
        source: "",
        example: "sparsity = 0.5\nskip = [\"/linear*\"]\n",
    },
    epochs: Some(0),
    schema: taught_schema::<PruneSettings>,
    read: |table| {
        let (span, keys) = (table.span(), table.get_ref());
        let (renamed, sparse) = (keys.contains_key(OLD), keys.contains_key("sparsity"));
        let (settings, taught, teaching) = read_taught::<PruneSettings>(table)?;
        if !sparse && settings.wants_sparsity() {
            // With the place of the stage's table.
            Asked::deserialize(Deserializer::from(Spanned::new(span, DeTable::new())))?;
        }
        Ok(Arc::new(PruneStage { settings, taught, teaching, renamed }))
    },
    write: |stage| {
        let any: &dyn Any = stage;
        let Some(stage) = any.downcast_ref::<PruneStage>() else { return Ok(serde_json::Value::Null) };
        write_taught(&stage.settings, &stage.taught, &stage.teaching)
    },
};

impl StageKind for PruneStage {
    fn compression(&self) -> Option<&dyn Compression> {
        Some(self)
    }

    fn teacher(&self) -> Option<&str> {
        self.taught.teacher.as_deref()
    }

    fn calibrates(&self) -> bool {
        self.settings.needs_data()
    }

    fn files(&self) -> Vec<&str> {
        self.settings.scope.measure().and_then(|m| m.table).into_iter().collect()
    }

    fn with_files(&self, place: &dyn Fn(&str) -> PathBuf) -> Result<Option<Arc<dyn StageKind>>, StageError> {
        let Some(file) = self.settings.scope.measure().and_then(|m| m.table) else { return Ok(None) };
        let scope = known_scope(&self.settings.scope, &read_shares(&place(file))?)?;
        Ok(Some(Arc::new(PruneStage { settings: PruneSettings { scope, ..self.settings.clone() }, ..self.clone() })))
    }

    fn samples(&self, _: &Rows) -> f64 {
        // Each layer runs at each sparsity; how many there are is not known here.
        const LAYERS: usize = 20;
        self.settings.scope.measure().map_or(0.0, |m| m.samples.saturating_mul(LAYERS * m.sparsities.len()) as f64)
    }

    fn check(&self, recipe: &Recipe, index: usize) -> Result<(), Fault> {
        self.settings.check()?;
        self.teaching.check_teacher(self.teacher())?;
        self.teaching.distillation(recipe.task.member().as_ref())?;
        let samples = recipe.data.as_ref().is_some_and(|d| d.train.is_some() || d.validation_set.is_some());
        if self.settings.scope.measure().is_some_and(|m| m.table.is_none()) && !samples {
            let what = format!("{} measures each layer on samples, and the recipe names none", self.settings.scope.kind());
            return Err(Fault::new("scope", what).hint("add [data] with train = \"FOLDER\", or name a table that was measured before"));
        }
        let schedule = &self.settings.sparsity_schedule;
        if schedule.is_gradual() && !recipe.stages[index].trains() {
            let what = format!("the schedule {} prunes while the stage trains, and epochs = 0", schedule.kind());
            return Err(Fault::new("sparsity_schedule", what).hint("set epochs, or leave sparsity_schedule out to prune at once"));
        }
        Ok(())
    }

    fn details(&self, _: &Recipe, _: usize) -> Vec<String> {
        let settings = &self.settings;
        let mut chosen = vec![settings.criterion.to_string(), settings.sparsity_schedule.to_string()];
        if settings.granularity != Choice::default() {
            chosen.push(format!("granularity {}", settings.granularity));
        }
        if settings.scope != Choice::default() {
            chosen.push(format!("scope {}", settings.scope));
        }
        if settings.update != Choice::default() {
            chosen.push(format!("update {}", settings.update));
        }
        vec![format!("by {}", chosen.join(", "))]
    }

    fn remedies(&self) -> Option<(&'static str, &'static str)> {
        Some(("a lower sparsity, more epochs", "a lower sparsity, or epochs = 1 or more to train the remaining weights"))
    }
}

impl Compression for PruneStage {
    fn told(&self) -> String {
        self.settings.told()
    }

    /// Prunes at once, whatever the schedule.
    fn apply(&self, model: &mut Model, on: &CompressOn, tick: Tick) -> Result<Compressed, StageError> {
        let (settings, shares, note) = match measure_scope(model, &self.settings, on, tick)? {
            Some((settings, shares, note)) => (settings, Some(shares), Some((false, note))),
            None => (self.settings.clone(), None, None),
        };
        let mut notes: Vec<(bool, String)> = note.into_iter().chain(prune_notes(&prune_weights(model, &settings, on)?)).collect();
        let schedule = &self.settings.sparsity_schedule;
        if schedule.is_gradual() {
            notes.push((false, format!("pruned at once: a {} schedule needs the training of a prune stage", schedule.kind())));
        }
        Ok(Compressed { notes, shares, ..Compressed::default() })
    }
}

impl StageBody for PruneStage {
    fn run(&self, cx: &mut StageCx, input: Option<Model>) -> Result<StageOutput, StageError> {
        let sources = cx.sources()?;
        let mut model = given(input)?;
        if self.renamed {
            let text = format!("the key {OLD} has another name now: write criterion = \"{}\"", self.settings.criterion.kind());
            cx.note(false, text);
        }
        let teacher = self.teacher().map(|t| cx.teacher(t)).transpose()?;
        let losses = self.teaching.distillation(sources.task().member().as_ref()).map_err(|fault| fault.to_string())?;
        let teacher = teacher.as_ref().map(|teacher| (teacher, &losses));
        let mut shares = None;
        let epochs = if self.settings.sparsity_schedule.is_gradual() {
            let mut settings = self.settings.clone();
            if let Some((measured, found, note)) =
                cx.compressing(&sources, "measure", |on, tick| measure_scope(&model, &self.settings, on, tick))?
            {
                cx.note(false, note);
                (settings, shares) = (measured, Some(found));
            }
            let mut pruning = GradualPruning::new(&settings)?;
            let epochs = train_with(cx, &mut model, teacher, true, &sources, &mut [&mut pruning])?;
            let notes = pruning.report().map(prune_notes).unwrap_or_default();
            notes.into_iter().for_each(|(warning, text)| cx.note(warning, text));
            epochs
        } else {
            shares = cx.compress(self, &mut model, &sources)?.shares;
            train(cx, &mut model, teacher, true, &sources)?
        };
        let mut output = measured(cx, model, epochs, &sources)?;
        output.keep_shares(cx.name, shares)?;
        Ok(output)
    }
}
