//! Settings of channel removal in a recipe.
use crate::{Criteria, Needs};
use technique::{Choice, Fault, within};

/// What is removed: shares of the network as it comes, 0 to below 1. All that are given are reached.
#[derive(Clone, Debug, PartialEq, Default, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Remove {
    /// Share of the multiply-accumulates.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub macs: Option<f64>,
    /// Share of the parameters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parameters: Option<f64>,
    /// Share of the channels that may be removed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channels: Option<f64>,
    /// Share of the time of one run, measured in the target's runtime on the files that candidates are deployed as: a stage of a recipe
    /// searches how many channels must go for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency: Option<f64>,
    /// First, every channel and every branch of a sum that masks or zeros have emptied, by which no output changes: channels that are a
    /// constant go into the biases behind them.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub dead: bool,
}

impl Remove {
    /// True if a share is given that can be counted.
    pub fn has_share(&self) -> bool {
        self.macs.is_some() || self.parameters.is_some() || self.channels.is_some()
    }
}

/// Between which channels the least important are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ChannelScope {
    /// All of the network: importance, divided by the share of the wanted removal that the channel is.
    #[default]
    Global,
    /// The same share of each group.
    Layer,
}

/// Settings of channel removal.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ChannelSettings {
    /// How much is removed: `{ macs = 0.5 }`, `{ parameters = 0.3 }`, `{ channels = 0.25 }`, `{ latency = 0.3 }`, or several of them.
    #[serde(default)]
    pub remove: Remove,
    /// The criterion of importance. A channel's is the sum of squares over all its weights.
    #[serde(default)]
    pub criterion: Choice<Criteria>,
    /// `global`: the channels of the network with the least importance for what their removal saves; `layer`: the same share of each group.
    #[serde(default)]
    pub scope: ChannelScope,
    /// Least share of each axis' channels that is kept, 0..1.
    #[serde(default = "least")]
    pub min_per_layer: f64,
    /// The channels that a group keeps are a multiple of this, where it has that many: 8 or 16 for processors, 16 or 32 for accelerators.
    #[serde(default = "one")]
    pub round_to: usize,
    /// Patterns of weight names whose channels all stay; `*` stands for any characters.
    #[serde(default)]
    pub skip: Vec<String>,
}

fn least() -> f64 {
    0.1
}

fn one() -> usize {
    1
}

impl ChannelSettings {
    /// With the default of every other setting.
    pub fn new(remove: Remove) -> Self {
        ChannelSettings {
            remove,
            criterion: Choice::default(),
            scope: ChannelScope::default(),
            min_per_layer: least(),
            round_to: 1,
            skip: vec![],
        }
    }

    /// Checks that something is removed, and ranges.
    ///
    /// # Errors
    /// A [`Fault`] at the key that is wrong.
    pub fn check(&self) -> Result<(), Fault> {
        if !self.remove.has_share() && !self.remove.dead && self.remove.latency.is_none() {
            return Err(Fault::new("remove", "remove is empty: it says how much goes").hint("write remove = { macs = 0.5 }"));
        }
        self.check_ranges()
    }

    /// Checks ranges; nothing need be removed.
    ///
    /// # Errors
    /// A [`Fault`] at the key that is wrong.
    pub fn check_ranges(&self) -> Result<(), Fault> {
        let Remove { macs, parameters, channels, latency, .. } = self.remove;
        let shares = [("macs", macs), ("parameters", parameters), ("channels", channels), ("latency", latency)];
        for (key, share) in shares {
            let Some(share) = share else { continue };
            within(key, share, 0.0, 1.0, "it is the share that is removed, so half is 0.5").map_err(|f| f.under("remove"))?;
            if share == 1.0 {
                return Err(Fault::new(key, "removes everything: it must be below 1").under("remove"));
            }
        }
        if self.criterion.needs() == Needs::Movement {
            let what = format!("{} is known only while a network trains, and channels are removed at once", self.criterion.kind());
            return Err(Fault::new("criterion", what).hint("take another criterion"));
        }
        within("min_per_layer", self.min_per_layer, 0.0, 1.0, "it is a share of each layer's channels")?;
        if self.round_to == 0 {
            return Err(Fault::new("round_to", "round_to = 0: the number of channels is a multiple of it, so it is at least 1"));
        }
        Ok(())
    }
}
