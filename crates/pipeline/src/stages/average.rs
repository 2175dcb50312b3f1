//! `average`: trains on, and ends with the mean of the weights of the last epochs.
use super::kind::{StageEntry, StageKind, stage};
use super::training::{given, measured, train_with};
use super::{StageBody, StageCx, StageError, StageOutput};
use crate::recipe::{Recipe, Training};
use graph::Model;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use technique::{Fault, Manual};
use train::WeightAverage;

/// `average`: trains the current graph with all that is attached, and ends with the mean of the weights of the last epochs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AverageStage {
    /// Epochs at the end whose weights are averaged; absent: all of the stage's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last: Option<u64>,
    /// Training batches on which the running statistics of batch normalizations are measured again.
    pub batches: u64,
}

impl Default for AverageStage {
    fn default() -> Self {
        AverageStage { last: None, batches: 100 }
    }
}

pub(super) const ENTRY: StageEntry = stage!(
    AverageStage,
    epochs: Some(5),
    Manual {
        name: "average",
        summary: "Trains on, and ends with the mean of the weights of the last epochs (stochastic weight averaging).",
        details: "\
Each trained parameter becomes the mean of its values at the ends of the last epochs. The running statistics of batch normalizations are
then measured again for the averaged weights, as the mean over training batches of each batch's mean and variance. Masks, quantizers and a
network's other values stay: what a mask holds at zero stays exactly zero. The average takes the place of the best epoch, whatever keep says.

Give it a rate that stays well above zero, schedule = { kind = \"constant\" }: with the usual cosine the last epochs hardly differ.",
        source: "Izmailov et al. 2018, arXiv:1803.05407, algorithm 1 and section 3.2",
        example: "epochs = 5\nlast = 4\noptimizer = { kind = \"sgd\", lr = 0.01 }\nschedule = { kind = \"constant\" }\n",
    }
);

/// If the last epoch's learning rate is below this share of its peak, averaging hardly helps.
const SMALL: f64 = 0.1;

fn falls(training: &Training) -> bool {
    training.schedule.factor(99, 100) < SMALL
}

impl StageKind for AverageStage {
    fn check(&self, recipe: &Recipe, index: usize) -> Result<(), Fault> {
        let epochs = recipe.stages[index].training().map_or(0, |t| t.epochs);
        if epochs == 0 {
            return Err(Fault::new("epochs", "epochs = 0: there are no weights of epochs to average"));
        }
        if self.batches == 0 {
            return Err(Fault::new("batches", "batches = 0: statistics need at least one batch"));
        }
        match self.last {
            Some(last) if !(1..=epochs).contains(&last) => {
                Err(Fault::new("last", format!("last = {last} is not within 1..{epochs}: it is a number of the stage's epochs")))
            }
            _ => Ok(()),
        }
    }
}

impl StageBody for AverageStage {
    fn run(&self, cx: &mut StageCx, input: Option<Model>) -> Result<StageOutput, StageError> {
        let sources = cx.sources()?;
        let mut model = given(input)?;
        let training = cx.training().cloned().unwrap_or_default();
        if falls(&training) {
            let text = "the learning rate falls to almost nothing over the averaged epochs, so they hardly differ: set \
                        schedule = { kind = \"constant\" }";
            cx.note(false, text);
        }
        let from = training.epochs.saturating_sub(self.last.unwrap_or(training.epochs));
        let mut average = WeightAverage::new(from, self.batches);
        let epochs = train_with(cx, &mut model, None, true, &sources, &mut [&mut average])?;
        measured(cx, model, epochs, &sources)
    }
}
