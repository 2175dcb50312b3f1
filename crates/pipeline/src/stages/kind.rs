//! Kinds of stages. One file a kind, and a line in [`super::kinds`].
use super::{StageBody, StageError};
use crate::actions::{Compression, Rows};
use crate::recipe::{ModelSource, Recipe};
use crate::trial::Trial;
use graph::Model;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use std::any::Any;
use std::fmt::Debug;
use std::path::PathBuf;
use std::sync::Arc;
use technique::{Fault, Manual};
use toml::Spanned;
use toml::de::DeTable;

/// The settings of a kind of stage, with its properties.
pub trait StageKind: StageBody + Any + Debug + Send + Sync {
    /// For a stage that replaces the network: whether the new network comes from a file.
    fn begins_anew(&self) -> Option<bool> {
        None
    }

    /// The model file that it uses instead of the graph before it.
    fn own_file(&self) -> Option<&str> {
        None
    }

    /// The model that it uses instead of the recipe's.
    fn own_model(&self) -> Option<&ModelSource> {
        None
    }

    /// The teacher it names: an earlier stage or a file.
    fn teacher(&self) -> Option<&str> {
        None
    }

    /// The files that it reads besides models: plans, tables.
    fn files(&self) -> Vec<&str> {
        vec![]
    }

    /// The settings with the content of these files in place of their names; `None` if there are none.
    ///
    /// # Errors
    /// If a file cannot be read.
    fn with_files(&self, _place: &dyn Fn(&str) -> PathBuf) -> Result<Option<Arc<dyn StageKind>>, StageError> {
        Ok(None)
    }

    /// The settings with defaults that follow from the rest of the recipe; `None` if there are none.
    fn with_defaults(&self, _recipe: &Recipe, _index: usize) -> Option<Arc<dyn StageKind>> {
        None
    }

    /// True if it reads training samples even without an epoch.
    fn calibrates(&self) -> bool {
        false
    }

    /// True if its metrics are those of the deployed file.
    fn deploys(&self) -> bool {
        false
    }

    /// The compression that it attaches to the graph, which a student may inherit.
    fn compression(&self) -> Option<&dyn Compression> {
        None
    }

    /// Checks what the types cannot express. Paths of faults begin at the stage's own keys.
    ///
    /// # Errors
    /// A [`Fault`] at the key.
    fn check(&self, _recipe: &Recipe, _index: usize) -> Result<(), Fault> {
        Ok(())
    }

    /// Behaviour that the recipe does not state explicitly, for `run --dry-run`.
    fn details(&self, _recipe: &Recipe, _index: usize) -> Vec<String> {
        vec![]
    }

    /// Samples that it runs besides training and scoring, to estimate its time.
    fn samples(&self, _rows: &Rows) -> f64 {
        0.0
    }

    /// Remedies if the stage lost accuracy: for a stage that trains, and for one that does not.
    fn remedies(&self) -> Option<(&'static str, &'static str)> {
        None
    }

    /// The network that replaces the one before it, if any. `teacher` is the teacher's model.
    ///
    /// # Errors
    /// If it cannot be read or built.
    fn network(&self, _on: &NetworkCx) -> Result<Option<Model>, StageError> {
        Ok(None)
    }

    /// Applies the stage's effect to the untrained graph, before anything is trained.
    ///
    /// # Errors
    /// Errors that would stop the run after all training.
    fn trial(&self, _trial: &mut Trial, _index: usize) -> Result<(), StageError> {
        Ok(())
    }
}

/// The context for building a stage's own network.
pub struct NetworkCx<'a> {
    /// The recipe that the stage belongs to.
    pub recipe: &'a Recipe,
    /// Seed of the random weights.
    pub seed: u64,
    /// The teacher's model, if the stage has one.
    pub teacher: Option<&'a Model>,
    /// Returns the path of a file that the recipe names.
    pub place: &'a dyn Fn(&str) -> PathBuf,
}

/// A kind of stage in the list. Made by the macro `stage!`.
pub struct StageEntry {
    /// Its manual page; the example contains its keys below `kind`.
    pub manual: Manual,
    /// Default number of epochs; `None` for a kind without a training loop.
    pub epochs: Option<u64>,
    pub(crate) schema: fn(&mut SchemaGenerator) -> Schema,
    pub(crate) read: fn(Spanned<DeTable>) -> Result<Arc<dyn StageKind>, toml::de::Error>,
    pub(crate) write: fn(&dyn StageKind) -> serde_json::Result<serde_json::Value>,
}

/// Keys of a settings type.
pub(crate) fn keys_of<T: JsonSchema>() -> Vec<String> {
    keys_in(&T::json_schema(&mut SchemaGenerator::default()))
}

/// Keys that a schema of a table lists.
pub(crate) fn keys_in(schema: &Schema) -> Vec<String> {
    let keys = schema.get("properties").and_then(|p| p.as_object());
    keys.into_iter().flatten().map(|(key, _)| key.clone()).collect()
}

/// Takes the keys of a settings type out of a stage's table, with their places: keys shared by several kinds are one struct.
pub(crate) fn take_keys<'t, T: JsonSchema>(table: &mut DeTable<'t>) -> DeTable<'t> {
    let mut taken = DeTable::new();
    keys_of::<T>().iter().for_each(|key| taken.extend(table.remove_entry(key.as_str())));
    taken
}

/// The entry of a kind of stage: `stage!(PruneStage, epochs: Some(0), Manual { ... })`.
macro_rules! stage {
    ($ty:ty, epochs: $epochs:expr, $manual:expr) => {
        $crate::stages::StageEntry {
            manual: $manual,
            epochs: $epochs,
            schema: |generator| <$ty as schemars::JsonSchema>::json_schema(generator),
            read: |table| {
                let read: $ty = serde::Deserialize::deserialize(toml::de::Deserializer::from(table))?;
                Ok(std::sync::Arc::new(read))
            },
            write: |settings| {
                let any: &dyn std::any::Any = settings;
                serde_json::to_value(any.downcast_ref::<$ty>())
            },
        }
    };
}
pub(crate) use stage;
