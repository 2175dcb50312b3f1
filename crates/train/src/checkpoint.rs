//! Checkpoints: everything that a stage needs to continue after the process was killed, and to end in the same bytes.
use crate::trainer::{Best, EpochRecord};
use crate::{ParticipantState, TrainError};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use tensor::{DType, Tensor};

/// The state between two epochs.
#[derive(Clone, Debug, Default)]
pub struct Checkpoint {
    /// Number of finished epochs.
    pub epochs_done: u64,
    /// Number of finished steps.
    pub steps_done: u64,
    /// Parameters and running statistics, by name.
    pub values: BTreeMap<String, Tensor>,
    /// Parameters of the objective, by name.
    pub objective: BTreeMap<String, Tensor>,
    /// Optimizer moments, by name.
    pub optimizer: BTreeMap<String, Tensor>,
    /// Parameters and statistics of the best epoch, by name.
    pub best: Option<(Best, BTreeMap<String, Tensor>)>,
    /// The curve so far.
    pub history: Vec<EpochRecord>,
    /// First epoch that may be kept as the best: see [`crate::Participant::settled`].
    pub settled_from: u64,
    /// States of the training's participants, by key.
    pub participants: BTreeMap<String, ParticipantState>,
}

#[derive(Serialize, Deserialize)]
struct Position {
    version: u32,
    epochs_done: u64,
    steps_done: u64,
    best: Option<Best>,
    history: Vec<EpochRecord>,
    #[serde(default)]
    settled_from: u64,
    #[serde(default)]
    participants: BTreeMap<String, serde_json::Value>,
}

const VERSION: u32 = 1;

/// Group of the participants' tensors.
const PARTICIPANT: &str = "participant";

impl Checkpoint {
    /// Writes one safetensors file whose metadata holds the position as JSON: temporary file, sync, rename, so a kill
    /// or a full disk leaves the last good one.
    ///
    /// # Errors
    /// [`TrainError::Checkpoint`] with the path.
    pub fn save(&self, path: &Path) -> Result<(), TrainError> {
        let wrong = |e: &dyn std::fmt::Display| TrainError::Checkpoint { path: path.display().to_string(), what: e.to_string() };
        let position = Position {
            version: VERSION,
            epochs_done: self.epochs_done,
            steps_done: self.steps_done,
            best: self.best.as_ref().map(|b| b.0.clone()),
            history: self.history.clone(),
            settled_from: self.settled_from,
            participants: self.participants.iter().map(|(key, state)| (key.clone(), state.values.clone())).collect(),
        };
        let position = serde_json::to_string(&position).map_err(|e| wrong(&e))?;
        let none = BTreeMap::new();
        let best = self.best.as_ref().map_or(&none, |b| &b.1);
        let groups = [("value", &self.values), ("objective", &self.objective), ("optimizer", &self.optimizer), ("best", best)];
        let mut named: Vec<(String, &Tensor)> = vec![];
        for (group, tensors) in groups {
            named.extend(tensors.iter().map(|(name, t)| (format!("{group}:{name}"), t)));
        }
        for (key, state) in &self.participants {
            named.extend(state.tensors.iter().map(|(name, t)| (format!("{PARTICIPANT}:{key}/{name}"), t)));
        }
        let bytes =
            named.into_iter().map(|(name, t)| Ok((name, packed(t).map_err(|e| wrong(&e))?))).collect::<Result<Vec<_>, TrainError>>()?;
        let views = bytes
            .iter()
            .map(|(name, (dtype, shape, data))| Ok((name.as_str(), TensorView::new(*dtype, shape.clone(), data).map_err(|e| wrong(&e))?)))
            .collect::<Result<Vec<_>, TrainError>>()?;
        let file = safetensors::serialize(views, Some(HashMap::from([("espalier".to_string(), position)]))).map_err(|e| wrong(&e))?;
        files::write(path, &file).map_err(|e| wrong(&e))
    }

    /// Reads a checkpoint back.
    ///
    /// # Errors
    /// [`TrainError::Checkpoint`] if the file is damaged or of another version.
    pub fn load(path: &Path) -> Result<Checkpoint, TrainError> {
        let wrong = |e: &dyn std::fmt::Display| TrainError::Checkpoint { path: path.display().to_string(), what: e.to_string() };
        let file = std::fs::read(path).map_err(|e| wrong(&e))?;
        let (_, metadata) = SafeTensors::read_metadata(&file).map_err(|e| wrong(&e))?;
        let position = metadata.metadata().as_ref().and_then(|m| m.get("espalier")).ok_or_else(|| wrong(&"has no position"))?;
        let position: Position = serde_json::from_str(position).map_err(|e| wrong(&e))?;
        if position.version != VERSION {
            return Err(wrong(&format!("is of version {}, this release reads {VERSION}", position.version)));
        }
        let mut groups: BTreeMap<&str, BTreeMap<String, Tensor>> = BTreeMap::new();
        let tensors = SafeTensors::deserialize(&file).map_err(|e| wrong(&e))?;
        let names = tensors.tensors();
        for (full, view) in &names {
            let (group, name) = full.split_once(':').ok_or_else(|| wrong(&format!("has a tensor '{full}' of no group")))?;
            let t = unpacked(view).map_err(|e| wrong(&e))?;
            groups.entry(group).or_default().insert(name.to_string(), t);
        }
        let mut take = |group: &str| groups.remove(group).unwrap_or_default();
        let (values, objective, optimizer, best) = (take("value"), take("objective"), take("optimizer"), take("best"));
        let values_of = position.participants.into_iter();
        let mut participants: BTreeMap<String, ParticipantState> =
            values_of.map(|(key, values)| (key, ParticipantState { values, ..ParticipantState::default() })).collect();
        for (full, t) in take(PARTICIPANT) {
            let owner = full.split_once('/').and_then(|(key, name)| Some((participants.get_mut(key)?, name)));
            let (state, name) = owner.ok_or_else(|| wrong(&format!("has a tensor '{full}' of no participant")))?;
            state.tensors.insert(name.to_string(), t);
        }
        Ok(Checkpoint {
            epochs_done: position.epochs_done,
            steps_done: position.steps_done,
            values,
            objective,
            optimizer,
            best: position.best.map(|b| (b, best)),
            history: position.history,
            settled_from: position.settled_from,
            participants,
        })
    }
}

/// Element type, shape and bytes of a tensor as safetensors stores them.
fn packed(t: &Tensor) -> Result<(Dtype, Vec<usize>, Vec<u8>), tensor::TensorError> {
    let (dtype, data) = match t.dtype() {
        DType::Bool => (Dtype::BOOL, t.as_slice::<bool>()?.iter().map(|v| u8::from(*v)).collect()),
        _ => (Dtype::F32, t.as_slice::<f32>()?.iter().flat_map(|v| v.to_le_bytes()).collect()),
    };
    Ok((dtype, t.shape().to_vec(), data))
}

fn unpacked(view: &TensorView) -> Result<Tensor, tensor::TensorError> {
    match view.dtype() {
        Dtype::BOOL => Tensor::new(view.data().iter().map(|b| *b != 0).collect::<Vec<bool>>(), view.shape()),
        _ => {
            let values = view.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
            Tensor::new(values.collect::<Vec<f32>>(), view.shape())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_comes_back_whole_and_a_damaged_one_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.safetensors");
        let t = |v: f32| Tensor::new(vec![v, f32::MIN_POSITIVE, -0.0], [3]).unwrap();
        let state = ParticipantState {
            tensors: BTreeMap::from([("mask/a:b".to_string(), Tensor::vector(vec![true, false])), ("mean".to_string(), t(4.0))]),
            values: serde_json::json!({ "third": 1.0 / 3.0 }),
        };
        let c = Checkpoint {
            epochs_done: 2,
            steps_done: 17,
            values: BTreeMap::from([("a:b".to_string(), t(1.0))]),
            objective: BTreeMap::from([("adapter".to_string(), t(4.0))]),
            optimizer: BTreeMap::from([("a#0".to_string(), t(2.0))]),
            best: Some((Best { epoch: 1, metric: 0.5 }, BTreeMap::from([("a".to_string(), t(3.0))]))),
            history: vec![EpochRecord { epoch: 0, loss: 1.0 / 3.0, ..EpochRecord::default() }],
            settled_from: 1,
            participants: BTreeMap::from([("0.own".to_string(), state)]),
        };
        c.save(&path).unwrap();
        let back = Checkpoint::load(&path).unwrap();
        assert_eq!(back.objective, c.objective);
        assert_eq!((back.epochs_done, back.steps_done, &back.values, &back.optimizer), (2, 17, &c.values, &c.optimizer));
        assert_eq!(back.best.as_ref().unwrap().1, c.best.as_ref().unwrap().1);
        assert_eq!((&back.history, back.settled_from, &back.participants), (&c.history, 1, &c.participants));
        let bytes = std::fs::read(&path).unwrap();
        for cut in [0, 4, 8, 40, bytes.len() - 1] {
            std::fs::write(&path, &bytes[..cut]).unwrap();
            assert!(matches!(Checkpoint::load(&path), Err(TrainError::Checkpoint { .. })), "cut at {cut}");
        }
    }
}
