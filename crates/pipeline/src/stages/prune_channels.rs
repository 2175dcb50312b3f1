//! `prune_channels`: removes whole channels, so that the graph gets smaller, and may train what is left.
use super::kind::{StageEntry, StageKind, take_keys};
use super::teaching::{Taught, Teaching, read_taught, taught_schema, with_keys, write, write_taught};
use super::training::{given, measured, train};
use super::{StageBody, StageCx, StageError, StageOutput};
use crate::actions::{CompressOn, Compressed, Compression, CutGoal, Tick, Timing, exported, remove_channels, settle_norms};
use crate::recipe::{ByteSize, DeployStage, Recipe};
use crate::trial::Trial;
use graph::Model;
use prune::channels::{ChannelSettings, Remove};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::any::Any;
use std::sync::Arc;
use technique::{Choice, Fault, Manual};
use toml::Spanned;
use toml::de::Deserializer;

/// `prune_channels`: removes whole channels, and trains the smaller network if `epochs` is above 0.
#[derive(Clone, Debug, PartialEq)]
pub struct PruneChannelsStage {
    /// The library's settings.
    pub settings: ChannelSettings,
    /// The size of the deployed file.
    pub size: FileBudget,
    /// The teacher of its training, if it has one.
    pub taught: Taught,
    /// The losses between the smaller network and the teacher.
    pub teaching: Teaching,
}

/// The size of the deployed file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct FileBudget {
    /// Largest size of the file that the network would be deployed as (`"90 kB"`): as many channels go as it takes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub budget: Option<ByteSize>,
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
removes the channels that masks have emptied, by which no output changes: a channel that is a constant goes into the biases of the layers that
read it (but for padded convolutions, where that is not exact), and a branch of a sum that is the same for all data leaves, so that a residual
block without weights is its shortcut. The channels with
the least importance for what they save go. Importance is the sum of squares over all weights of the channel, by the criterion (magnitude:
compared with the mean of the channel's group; taylor: the estimated loss); what they save are their shares of the wanted MACs, parameters
and channels. With scope = \"layer\" each group loses the same share instead. espalier inspect --groups lists what goes together, and
which layers keep all channels and why.

budget = \"90 kB\" removes channels until the deployed file is at most that large, and remove = { latency = 0.3 } until one run takes 30 % less
time in the target's runtime on this machine. Both measure the file as it would be deployed at this point of the recipe: a quantize stage behind
it makes the file smaller still and changes the time. Candidates are cut, written and, for a time, run in turn with the uncut network;
bisection finds the least removal that is enough. The report lists all of them. Later training does not change size and time.

Set round_to = 16 for speed: kernels compute channels in blocks, and ONNX Runtime may be slower with fewer channels than with all where their
number is no multiple of 8.

Train behind it: epochs here, with the uncut network as teacher. Removing in several stages with some epochs between
loses less than all at once.",
        source: "Fang et al. 2023, arXiv:2301.12900 (groups); Li et al. 2017, arXiv:1608.08710 (norm of filters); Aflalo et al. 2020, arXiv:2005.11110 (importance for the cost)",
        example: "remove = { macs = 0.5 }\nround_to = 16\n",
    },
    epochs: Some(0),
    schema: |generator| with_keys(taught_schema::<ChannelSettings>(generator), &FileBudget::json_schema(generator)),
    read: |table| {
        let span = table.span();
        let mut own = table.into_inner();
        let size = take_keys::<FileBudget>(&mut own);
        let size = FileBudget::deserialize(Deserializer::from(Spanned::new(span.clone(), size)))?;
        let (settings, taught, teaching) = read_taught(Spanned::new(span, own))?;
        Ok(Arc::new(PruneChannelsStage { settings, size, taught, teaching }))
    },
    write: |stage| {
        let any: &dyn Any = stage;
        let Some(stage) = any.downcast_ref::<PruneChannelsStage>() else { return Ok(serde_json::Value::Null) };
        write(Some((&write_taught(&stage.settings, &stage.taught, &stage.teaching)?, &stage.size)))
    },
};

impl StageKind for PruneChannelsStage {
    fn teacher(&self) -> Option<&str> {
        self.taught.teacher.as_deref()
    }

    fn calibrates(&self) -> bool {
        self.settings.criterion.needs().reads_data()
    }

    fn check(&self, recipe: &Recipe, index: usize) -> Result<(), Fault> {
        match self.size.budget {
            None => self.settings.check()?,
            Some(ByteSize(0)) => return Err(Fault::new("budget", "budget = 0: a size such as \"90 kB\" is needed")),
            Some(_) => self.settings.check_ranges()?,
        }
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

    fn trial(&self, trial: &mut Trial, index: usize) -> Result<(), StageError> {
        if self.settings.remove.latency.is_some() {
            Timing::of(&trial.recipe().target_from(index), 1, 1)?;
        }
        trial.compress(self)
    }
}

impl Compression for PruneChannelsStage {
    fn told(&self) -> String {
        let Remove { macs, parameters, channels, latency, dead } = &self.settings.remove;
        let shares = [("MACs", macs), ("parameters", parameters), ("channels", channels)];
        let time = latency.map(|share| format!("{:.0} % less time", share * 100.0));
        let size = self.size.budget.map(|bytes| format!("a file of {bytes}"));
        let emptied = dead.then(|| "emptied channels".to_string());
        let share = |(what, share): (&str, &Option<f64>)| share.map(|s| format!("{:.0} % fewer {what}", s * 100.0));
        let told: Vec<String> = shares.into_iter().filter_map(share).chain(time).chain(size).chain(emptied).collect();
        told.join(", ")
    }

    /// By the weights alone: which channels go does not matter for whether the graph can be deployed.
    fn for_trial(&self, _: usize) -> Option<Box<dyn Compression>> {
        let remove = Remove { latency: None, ..self.settings.remove.clone() };
        let settings = ChannelSettings { criterion: Choice::default(), remove, ..self.settings.clone() };
        Some(Box::new(PruneChannelsStage { settings, ..self.clone() }))
    }

    /// By shares that can be counted; sizes and times are searched where the stage runs.
    fn apply(&self, model: &mut Model, on: &CompressOn, tick: Tick) -> Result<Compressed, StageError> {
        let (notes, _) = remove_channels(model, &self.settings, on, None, tick)?;
        Ok(Compressed { notes: notes.into_iter().map(|text| (false, text)).collect(), ..Compressed::default() })
    }
}

impl StageBody for PruneChannelsStage {
    fn run(&self, cx: &mut StageCx, input: Option<Model>) -> Result<StageOutput, StageError> {
        let sources = cx.sources()?;
        let mut model = given(input)?;
        let teacher = self.teacher().map(|t| cx.teacher(t)).transpose()?;
        let losses = self.teaching.distillation(sources.task().member().as_ref()).map_err(|fault| fault.to_string())?;
        let (quantize, target, deploy) = (cx.quantize_stage(), cx.target(), cx.deploy_stage().unwrap_or_default());
        let file = |model: &Model| -> Result<Vec<u8>, StageError> {
            let mut settled = model.clone();
            settle_norms(&mut settled, quantize.as_ref(), &target)?;
            Ok(exported(&settled, &sources, &deploy)?.bytes)
        };
        let goal = self.goal(&deploy, &target, cx.threads, &file)?;
        let told = cx.compressing(&sources, "cut", |on, tick| remove_channels(&mut model, &self.settings, on, goal.as_ref(), tick));
        let (notes, cuts) = told?;
        notes.into_iter().for_each(|text| cx.note(false, text));
        let epochs = train(cx, &mut model, teacher.as_ref().map(|teacher| (teacher, &losses)), true, &sources)?;
        Ok(StageOutput { cuts, ..measured(cx, model, epochs, &sources)? })
    }
}

impl PruneChannelsStage {
    /// What the deployed file has to meet, if it has to.
    fn goal<'a>(
        &self,
        deploy: &DeployStage,
        target: &target::Choice,
        threads: usize,
        file: &'a dyn Fn(&Model) -> Result<Vec<u8>, StageError>,
    ) -> Result<Option<CutGoal<'a>>, Fault> {
        let timing = |share| Timing::of(target, deploy.threads.unwrap_or(threads), deploy.latency_runs).map(|timing| (share, timing));
        let latency = self.settings.remove.latency.map(timing).transpose()?;
        let bytes = self.size.budget.map(|bytes| bytes.0);
        Ok((bytes.is_some() || latency.is_some()).then_some(CutGoal { bytes, latency, file }))
    }
}
