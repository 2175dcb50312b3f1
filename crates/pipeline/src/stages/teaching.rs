//! The keys of the stages that learn from a teacher.
use super::kind::take_keys;
use distill::{DistillationSettings, WeightedLoss};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use technique::Fault;
use toml::Spanned;
use toml::de::{DeTable, Deserializer, Error};
use train::Task;

/// The losses between student and teacher.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Teaching {
    /// The losses between student and teacher, each with its weight, as `[{ kind = "hinton", weight = 0.7 }, { kind = "feature",
    /// weight = 0.1 }]`. Absent: the task's default loss with the weight `alpha`: for classes Hinton's, softened by
    /// `temperature`; for numbers the mean squared error to the teacher's outputs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub losses: Option<Vec<WeightedLoss>>,
    /// Weight of the task's own loss beside `losses`; absent: 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task_weight: Option<f64>,
    /// Temperature of both distributions, for classes and without `losses`; absent: 4.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    /// Weight of the teacher, 0..1, without `losses`; the task's own loss has the rest; absent: 0.7.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alpha: Option<f64>,
}

impl Teaching {
    /// The losses between a model and its teacher.
    ///
    /// # Errors
    /// A [`Fault`] at the key that is out of range, or mixed with another form.
    pub fn distillation(&self, task: &dyn Task) -> Result<DistillationSettings, Fault> {
        DistillationSettings::from_keys(task, self.losses.as_deref(), self.task_weight, self.temperature, self.alpha)
    }

    /// Refuses keys that compare with a teacher where there is none.
    ///
    /// # Errors
    /// A [`Fault`] at the key.
    pub fn check_teacher(&self, teacher: Option<&str>) -> Result<(), Fault> {
        let named = self.losses.as_ref().map(|_| "losses").or(self.task_weight.map(|_| "task_weight"));
        if let (None, Some(key)) = (teacher, named) {
            let hint = "name one, as teacher = \"train\" or a file; or leave the key out";
            return Err(Fault::new(key, format!("{key} compares with a teacher, and the stage has none")).hint(hint));
        }
        Ok(())
    }
}

/// The teacher of a stage that may do without one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Taught {
    /// The teacher: an earlier stage's name, or an ONNX file; absent: training on the labels only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub teacher: Option<String>,
}

/// Reads a stage's own keys and these.
pub(super) fn read<T: DeserializeOwned>(table: Spanned<DeTable>) -> Result<(T, Teaching), Error> {
    let span = table.span();
    let mut own = table.into_inner();
    let teaching = take_keys::<Teaching>(&mut own);
    let teaching = Teaching::deserialize(Deserializer::from(Spanned::new(span.clone(), teaching)))?;
    Ok((T::deserialize(Deserializer::from(Spanned::new(span, own)))?, teaching))
}

/// Reads a stage's own keys, and those of a stage that may have a teacher.
pub(super) fn read_taught<T: DeserializeOwned>(table: Spanned<DeTable>) -> Result<(T, Taught, Teaching), Error> {
    let span = table.span();
    let mut own = table.into_inner();
    let taught = take_keys::<Taught>(&mut own);
    let taught = Taught::deserialize(Deserializer::from(Spanned::new(span.clone(), taught)))?;
    let (own, teaching) = read(Spanned::new(span, own))?;
    Ok((own, taught, teaching))
}

/// The schema that goes with [`read_taught`].
pub(super) fn taught_schema<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    with_keys(with_keys(T::json_schema(generator), &Taught::json_schema(generator)), &Teaching::json_schema(generator))
}

/// The text that [`read_taught`] reads.
pub(super) fn write_taught<T: Serialize>(own: &T, taught: &Taught, teaching: &Teaching) -> serde_json::Result<Value> {
    write(Some((&write(Some((own, taught)))?, teaching)))
}

/// The schema of a stage's own keys and these.
pub(super) fn schema<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    with_keys(T::json_schema(generator), &Teaching::json_schema(generator))
}

/// A schema with the keys of another one beside its own.
pub(super) fn with_keys(mut own: Schema, more: &Schema) -> Schema {
    let more = more.get("properties").and_then(Value::as_object);
    if let (Some(Value::Object(keys)), Some(more)) = (own.get_mut("properties"), more) {
        keys.extend(more.clone());
    }
    own
}

/// Serializes a stage's own keys together with others.
pub(super) fn write<T: Serialize, U: Serialize>(stage: Option<(&T, &U)>) -> serde_json::Result<Value> {
    let Some((own, teaching)) = stage else { return Ok(Value::Null) };
    let mut all = serde_json::to_value(own)?;
    if let (Some(keys), Value::Object(more)) = (all.as_object_mut(), serde_json::to_value(teaching)?) {
        keys.extend(more);
    }
    Ok(all)
}

/// The entry of a kind of stage with a field `teaching` beside its own keys: `taught_stage!(DistillStage, Manual { ... })`.
macro_rules! taught_stage {
    ($ty:ty, $manual:expr) => {
        $crate::stages::StageEntry {
            manual: $manual,
            epochs: Some(1),
            schema: |generator| $crate::stages::teaching::schema::<$ty>(generator),
            read: |table| {
                let (mut stage, teaching) = $crate::stages::teaching::read::<$ty>(table)?;
                stage.teaching = teaching;
                Ok(std::sync::Arc::new(stage))
            },
            write: |settings| {
                let any: &dyn std::any::Any = settings;
                $crate::stages::teaching::write(any.downcast_ref::<$ty>().map(|stage| (stage, &stage.teaching)))
            },
        }
    };
}
pub(super) use taught_stage;
