//! Checkpoints: everything a stage needs to go on after the process was killed, and to end in the same bytes.
use crate::TrainError;
use crate::trainer::{Best, EpochRecord};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use tensor::Tensor;

/// State between two epochs.
#[derive(Clone, Debug, Default)]
pub struct Checkpoint {
    /// Epochs done.
    pub epochs_done: u64,
    /// Steps done.
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
}

#[derive(Serialize, Deserialize)]
struct Position {
    version: u32,
    epochs_done: u64,
    steps_done: u64,
    best: Option<Best>,
    history: Vec<EpochRecord>,
}

const VERSION: u32 = 1;

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
        };
        let position = serde_json::to_string(&position).map_err(|e| wrong(&e))?;
        let none = BTreeMap::new();
        let best = self.best.as_ref().map_or(&none, |b| &b.1);
        let groups = [("value", &self.values), ("objective", &self.objective), ("optimizer", &self.optimizer), ("best", best)];
        let mut bytes: Vec<(String, Vec<usize>, Vec<u8>)> = vec![];
        for (group, tensors) in groups {
            for (name, t) in tensors {
                let data = t.as_slice::<f32>().map_err(|e| wrong(&e))?.iter().flat_map(|v| v.to_le_bytes()).collect();
                bytes.push((format!("{group}:{name}"), t.shape().to_vec(), data));
            }
        }
        let views = bytes
            .iter()
            .map(|(name, shape, data)| Ok((name.as_str(), TensorView::new(Dtype::F32, shape.clone(), data).map_err(|e| wrong(&e))?)))
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
            let data = view.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect::<Vec<f32>>();
            let t = Tensor::new(data, view.shape()).map_err(|e| wrong(&e))?;
            groups.entry(group).or_default().insert(name.to_string(), t);
        }
        let mut take = |group: &str| groups.remove(group).unwrap_or_default();
        let (values, objective, optimizer, best) = (take("value"), take("objective"), take("optimizer"), take("best"));
        Ok(Checkpoint {
            epochs_done: position.epochs_done,
            steps_done: position.steps_done,
            values,
            objective,
            optimizer,
            best: position.best.map(|b| (b, best)),
            history: position.history,
        })
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
        let c = Checkpoint {
            epochs_done: 2,
            steps_done: 17,
            values: BTreeMap::from([("a:b".to_string(), t(1.0))]),
            objective: BTreeMap::from([("adapter".to_string(), t(4.0))]),
            optimizer: BTreeMap::from([("a#0".to_string(), t(2.0))]),
            best: Some((Best { epoch: 1, metric: 0.5 }, BTreeMap::from([("a".to_string(), t(3.0))]))),
            history: vec![EpochRecord { epoch: 0, loss: 1.0 / 3.0, ..EpochRecord::default() }],
        };
        c.save(&path).unwrap();
        let back = Checkpoint::load(&path).unwrap();
        assert_eq!(back.objective, c.objective);
        assert_eq!((back.epochs_done, back.steps_done, &back.values, &back.optimizer), (2, 17, &c.values, &c.optimizer));
        assert_eq!(back.best.as_ref().unwrap().1, c.best.as_ref().unwrap().1);
        assert_eq!(back.history, c.history);
        let bytes = std::fs::read(&path).unwrap();
        for cut in [0, 4, 8, 40, bytes.len() - 1] {
            std::fs::write(&path, &bytes[..cut]).unwrap();
            assert!(matches!(Checkpoint::load(&path), Err(TrainError::Checkpoint { .. })), "cut at {cut}");
        }
    }
}
