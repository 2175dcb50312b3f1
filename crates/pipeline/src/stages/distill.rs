//! `distill`: a student learns from a teacher. A new student is first trained without compression and then gets the compression
//! of the earlier stages, pruned and calibrated anew, so that a joint stage after it has everything active.
use super::kind::{NetworkCx, StageEntry, StageKind};
use super::teaching::{Teaching, taught_stage};
use super::training::{given, measured, train};
use super::{StageBody, StageCx, StageError, StageOutput};
use crate::actions::{figures, student};
use crate::recipe::{Inherit, Recipe, Stage, Student, check_architecture};
use crate::trial::Trial;
use graph::Model;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use technique::{Fault, Manual, did_you_mean};

/// `distill`: a student learns from a teacher.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DistillStage {
    /// The teacher: an earlier stage's name, or an ONNX file.
    pub teacher: String,
    /// A new student: `{ arch, width }`, `{ file }`, or `{ width }` for the recipe's own architecture; absent: the current graph
    /// is the student.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub student: Option<Student>,
    /// What is learned from the teacher.
    #[serde(skip)]
    pub teaching: Teaching,
    /// Whether a new student gets the compression of the earlier stages: `true` prunes first and then quantizes, whatever their
    /// order in the recipe; a list of stages' names (`["quantize", "prune"]`) applies those in that order; `false` applies none.
    #[serde(default)]
    pub inherit: Inherit,
}

pub(super) const ENTRY: StageEntry = taught_stage!(
    DistillStage,
    Manual {
        name: "distill",
        summary: "Trains a student to reproduce the outputs of a teacher.",
        details: "losses lists what the student learns from the teacher; temperature and alpha are short for one hinton loss.",
        source: "",
        example: "teacher = \"train\"\nstudent = { arch = \"resnet8\", width = 0.75 }\nepochs = 30\n",
    }
);

/// Name of the teacher's metric among the further metrics of the stage, for a teacher that is no stage of the run.
pub(crate) fn teacher_figure(key: &str) -> String {
    format!("teacher_{key}")
}

impl DistillStage {
    /// The stages whose compression the student of this stage (the recipe's stage `index`) inherits, in the order of application.
    pub(crate) fn inherited<'r>(&self, recipe: &'r Recipe, index: usize) -> Vec<&'r Stage> {
        if self.student.is_none() {
            return vec![];
        }
        let before: Vec<&Stage> = recipe.stages[..index].iter().filter(|s| s.compression().is_some()).collect();
        match &self.inherit {
            Inherit::All(false) => vec![],
            Inherit::All(true) => {
                // Importance is computed from unquantized weights, so masks come first.
                let grids = |s: &&Stage| s.compression().is_some_and(|c| c.quantizers().is_some());
                let (grids, masks): (Vec<_>, Vec<_>) = before.into_iter().partition(grids);
                masks.into_iter().chain(grids).collect()
            }
            Inherit::Stages(names) => names.iter().filter_map(|name| before.iter().find(|s| s.name() == name).copied()).collect(),
        }
    }

    fn check_student(&self, recipe: &Recipe) -> Result<(), Fault> {
        let Some(student) = &self.student else { return Ok(()) };
        match (&student.arch, &student.file) {
            (Some(_), Some(_)) => Err(Fault::new("student", "the student has both a file and an arch: one is needed")),
            (Some(arch), None) => check_architecture("student", arch, student.width, None, None),
            (None, Some(_)) if student.width != 1.0 => Err(Fault::new("student", "width goes with arch: a file has its own")),
            (None, Some(_)) => Ok(()),
            (None, None) => match recipe.begins_with().and_then(|m| m.arch.as_ref()) {
                Some(arch) => check_architecture("student", arch, student.width, None, None),
                None => {
                    let hint = "name one: student = { arch = \"resnet8\", width = 0.5 }, or student = { file = \"student.onnx\" }";
                    let message = "the student needs an arch or a file: a model file cannot be built in another width";
                    Err(Fault::new("student", message).hint(hint))
                }
            },
        }
    }

    fn check_inherit(&self, recipe: &Recipe, index: usize) -> Result<(), Fault> {
        let Inherit::Stages(names) = &self.inherit else { return Ok(()) };
        let earlier: Vec<&str> = recipe.stages[..index].iter().filter(|s| s.compression().is_some()).map(Stage::name).collect();
        let Some(name) = names.iter().find(|name| !earlier.contains(&name.as_str())) else { return Ok(()) };
        let list = format!("earlier stages that prune or quantize: {}", earlier.join(", "));
        let hint = did_you_mean(name, earlier.iter().copied()).map_or(list, |k| format!("did you mean '{k}'?"));
        Err(Fault::new("inherit", format!("no earlier stage that can be inherited is named '{name}'")).hint(hint))
    }
}

impl StageKind for DistillStage {
    fn begins_anew(&self) -> Option<bool> {
        self.student.as_ref().map(|own| own.file.is_some())
    }

    fn own_file(&self) -> Option<&str> {
        self.student.as_ref()?.file.as_deref()
    }

    fn teacher(&self) -> Option<&str> {
        Some(&self.teacher)
    }

    fn check(&self, recipe: &Recipe, index: usize) -> Result<(), Fault> {
        self.teaching.distillation(recipe.task.member().as_ref())?;
        self.check_student(recipe)?;
        self.check_inherit(recipe, index)
    }

    fn details(&self, recipe: &Recipe, index: usize) -> Vec<String> {
        let told = |s: &&Stage| Some(format!("'{}' ({})", s.name(), s.compression()?.told()));
        let steps: Vec<String> = self.inherited(recipe, index).iter().filter_map(told).collect();
        if steps.is_empty() { vec![] } else { vec![format!("its student inherits, in this order: {}", steps.join(", "))] }
    }

    fn network(&self, on: &NetworkCx) -> Result<Option<Model>, StageError> {
        let (Some(of), Some(teacher)) = (&self.student, on.teacher) else { return Ok(None) };
        student(of, on.recipe.begins_with(), teacher, on.seed, on.place).map(Some)
    }

    fn trial(&self, trial: &mut Trial, index: usize) -> Result<(), StageError> {
        if self.student.is_none() {
            return Ok(());
        }
        let teacher = trial.teacher(&self.teacher)?;
        trial.replace(self, Some(&teacher))?;
        let recipe = trial.recipe();
        self.inherited(recipe, index).iter().filter_map(|s| s.compression()).try_for_each(|step| trial.compress(step))
    }
}

/// Both get the same inputs: if neither the recipe nor the student defines the preprocessing, the teacher's is used.
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

impl StageBody for DistillStage {
    fn run(&self, cx: &mut StageCx, input: Option<Model>) -> Result<StageOutput, StageError> {
        let sources = cx.sources()?;
        let teacher = cx.teacher(&self.teacher)?;
        // A result of an earlier stage was measured there.
        let outside = !cx.results.contains_key(&self.teacher);
        let known = if outside { figures(&teacher, &sources, None, &mut cx.tick("evaluate the teacher"))? } else { None };
        let own =
            self.network(&NetworkCx { recipe: &cx.loaded.recipe, seed: cx.seed(), teacher: Some(&teacher), place: &|p| cx.resolve(p) })?;
        let mut model = own.map_or_else(|| given(input), Ok)?;
        inherit_preprocessing(cx, &teacher, &mut model);
        let losses = self.teaching.distillation(sources.task().member().as_ref()).map_err(|fault| fault.to_string())?;
        let epochs = train(cx, &mut model, Some((&teacher, &losses)), true, &sources)?;
        let recipe = &cx.loaded.recipe;
        let steps = self.inherited(recipe, cx.index);
        let mut found = None;
        if !steps.is_empty() {
            let names: Vec<&str> = steps.iter().map(|s| s.name()).collect();
            let order = format!("the student inherits, in this order: {} (inherit says which)", names.join(", "));
            cx.note(false, order);
            for step in steps.iter().filter_map(|s| s.compression()) {
                found = cx.compress(step, &mut model, &sources)?.plan.or(found);
            }
        }
        let mut output = measured(cx, model, epochs, &sources)?;
        output.keep_plan(cx.name, found)?;
        let known = known.into_iter().flat_map(|figures| figures.values);
        output.metrics.other.extend(known.map(|(key, value)| (teacher_figure(key), value)));
        Ok(output)
    }
}
