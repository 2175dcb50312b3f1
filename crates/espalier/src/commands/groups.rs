//! `inspect --groups`: which channels of a model go together, and which layers keep all of theirs.
use crate::Result;
use prune::channels::{GroupText, describe, groups};
use report::text;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

/// A layer whose output channels all stay.
#[derive(Clone, Debug, Serialize)]
pub struct HeldLayer {
    /// The layer's node.
    pub layer: String,
    /// What forbids it.
    pub reason: String,
}

/// The channel groups of a model.
#[derive(Clone, Debug, Serialize)]
pub struct ChannelGroups {
    /// Path of the model's file.
    pub file: String,
    /// Each group, in the order of the graph's values.
    pub groups: Vec<GroupText>,
    /// Layers whose output channels all stay.
    pub held: Vec<HeldLayer>,
}

/// Finds the channel groups of a model. `shapes` gives sizes of open axes by input.
///
/// # Errors
/// If the file cannot be read, or its shapes contradict each other.
pub fn channel_groups(path: &Path, shapes: &BTreeMap<String, Vec<usize>>) -> Result<ChannelGroups> {
    let model = onnx::load(path)?;
    let found = groups(&model, shapes)?;
    let held = found.held.iter().map(|h| HeldLayer { layer: h.layer.clone(), reason: h.reason.clone() }).collect();
    Ok(ChannelGroups { file: path.display().to_string(), groups: describe(&model, &found), held })
}

impl fmt::Display for ChannelGroups {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let channels: usize = self.groups.iter().map(|g| g.channels).sum();
        writeln!(
            f,
            "{}: {channels} channels in {} groups; a channel is removed with everything in its group",
            self.file,
            self.groups.len()
        )?;
        for (i, group) in self.groups.iter().enumerate() {
            writeln!(f, "\n{:>3}. {} channels of {} parameters each", i + 1, group.channels, group.parameters)?;
            let lists = [("computed by", &group.computed_by), ("joined by", &group.joined_by), ("read by", &group.read_by)];
            for (what, list) in lists.into_iter().filter(|(_, list)| !list.is_empty()) {
                writeln!(f, "     {what:<12} {}", text::line(&list.join(", ")))?;
            }
        }
        if !self.held.is_empty() {
            writeln!(f, "\nLayers that keep all output channels:")?;
            for held in &self.held {
                writeln!(f, "     {}: {}", text::line(&held.layer), text::line(&held.reason))?;
            }
        }
        Ok(())
    }
}
