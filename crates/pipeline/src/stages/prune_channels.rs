//! `prune_channels`: removes whole channels, so that the graph gets smaller, and may train what is left.
use super::kind::{StageEntry, StageKind};
use super::teaching::{Taught, Teaching, read_taught, taught_schema, write_taught};
use super::training::{given, measured, train};
use super::{StageBody, StageCx, StageError, StageOutput};
use crate::actions::{CompressOn, Compressed, Compression, Tick, remove_channels};
use crate::recipe::Recipe;
use crate::trial::Trial;
use graph::Model;
use prune::Needs;
use prune::channels::{ChannelSettings, Remove};
use std::any::Any;
use std::sync::Arc;
use technique::{Choice, Fault, Manual};

/// `prune_channels`: removes whole channels, and trains the smaller network if `epochs` is above 0.
#[derive(Clone, Debug, PartialEq)]
pub struct PruneChannelsStage {
    /// The library's settings.
    pub settings: ChannelSettings,
    /// The teacher of its training, if it has one.
    pub taught: Taught,
    /// The losses between the smaller network and the teacher.
    pub teaching: Teaching,
}

pub(super) const ENTRY: StageEntry = StageEntry {
    manual: Manual {
        name: "prune_channels",
        summary: "Removes whole channels from the graph, and may train the smaller network.",
        details: "\
A channel is removed with everything that belongs to it: the filter that computes it, its normalization, the planes of the filters that read
it, its place in sums, concatenations, reshapes, attention heads and recurrent states. The graph that is left is an ordinary smaller
network. Its outputs are compared with those of the graph whose removed channels are zero.

remove says how much goes: { macs = 0.5 }, { parameters = 0.3 }, { channels = 0.25 } or several, of which all are reached. { dead = true }
removes the channels that masks have emptied, by which no output changes. The channels with
the least importance for what they save go. Importance is the sum of squares over all weights of the channel, by the criterion (magnitude:
compared with the mean of the channel's group; taylor: the estimated loss); what they save are their shares of the wanted MACs, parameters
and channels. With scope = \"layer\" each group loses the same share instead. espalier inspect --groups lists what goes together, and
which layers keep all channels and why.

Set round_to = 16 for speed: kernels compute channels in blocks, and ONNX Runtime may be slower with fewer channels than with all where their
number is no multiple of 8.

Train behind it: epochs here, with the uncut network as teacher. Removing in several stages with some epochs between
loses less than all at once.",
        source: "Fang et al. 2023, arXiv:2301.12900 (groups); Li et al. 2017, arXiv:1608.08710 (norm of filters); Aflalo et al. 2020, arXiv:2005.11110 (importance for the cost)",
        example: "remove = { macs = 0.5 }\nround_to = 16\n",
    },
    epochs: Some(0),
    schema: taught_schema::<ChannelSettings>,
    read: |table| {
        let (settings, taught, teaching) = read_taught(table)?;
        Ok(Arc::new(PruneChannelsStage { settings, taught, teaching }))
    },
    write: |stage| {
        let any: &dyn Any = stage;
        let Some(stage) = any.downcast_ref::<PruneChannelsStage>() else { return Ok(serde_json::Value::Null) };
        write_taught(&stage.settings, &stage.taught, &stage.teaching)
    },
};

impl StageKind for PruneChannelsStage {
    fn teacher(&self) -> Option<&str> {
        self.taught.teacher.as_deref()
    }

    fn calibrates(&self) -> bool {
        self.settings.criterion.needs() != Needs::Weights
    }

    fn check(&self, recipe: &Recipe, index: usize) -> Result<(), Fault> {
        self.settings.check()?;
        self.teaching.check_teacher(self.teacher())?;
        self.teaching.distillation(recipe.task.member().as_ref())?;
        match self.teacher() {
            Some(_) if !recipe.stages[index].trains() => {
                Err(Fault::new("teacher", "the stage does not train, so it learns from no teacher")
                    .hint("set epochs, or leave teacher out"))
            }
            _ => Ok(()),
        }
    }

    fn details(&self, _: &Recipe, _: usize) -> Vec<String> {
        vec![format!("by {}", self.settings.criterion)]
    }

    fn remedies(&self) -> Option<(&'static str, &'static str)> {
        Some(("removing less, more epochs", "removing less, or epochs = 1 or more to train what is left"))
    }

    fn trial(&self, trial: &mut Trial, _: usize) -> Result<(), StageError> {
        trial.compress(self)
    }
}

impl Compression for PruneChannelsStage {
    fn told(&self) -> String {
        let Remove { macs, parameters, channels, dead } = &self.settings.remove;
        let shares = [("MACs", macs), ("parameters", parameters), ("channels", channels)];
        let emptied = dead.then(|| "emptied channels".to_string());
        let share = |(what, share): (&str, &Option<f64>)| share.map(|s| format!("{:.0} % fewer {what}", s * 100.0));
        let told: Vec<String> = shares.into_iter().filter_map(share).chain(emptied).collect();
        told.join(", ")
    }

    /// By the weights alone: which channels go does not matter for whether the graph can be deployed.
    fn for_trial(&self, _: usize) -> Option<Box<dyn Compression>> {
        let settings = ChannelSettings { criterion: Choice::default(), ..self.settings.clone() };
        Some(Box::new(PruneChannelsStage { settings, ..self.clone() }))
    }

    fn apply(&self, model: &mut Model, on: &CompressOn, _: Tick) -> Result<Compressed, StageError> {
        let notes = remove_channels(model, &self.settings, on)?.into_iter().map(|text| (false, text)).collect();
        Ok(Compressed { notes, ..Compressed::default() })
    }
}

impl StageBody for PruneChannelsStage {
    fn run(&self, cx: &mut StageCx, input: Option<Model>) -> Result<StageOutput, StageError> {
        let sources = cx.sources()?;
        let mut model = given(input)?;
        let teacher = self.teacher().map(|t| cx.teacher(t)).transpose()?;
        let losses = self.teaching.distillation(sources.task().member().as_ref()).map_err(|fault| fault.to_string())?;
        cx.compress(self, &mut model, &sources)?;
        let epochs = train(cx, &mut model, teacher.as_ref().map(|teacher| (teacher, &losses)), true, &sources)?;
        measured(cx, model, epochs, &sources)
    }
}
