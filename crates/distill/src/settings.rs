//! Which losses an objective adds up, and their weights.
use crate::{Hinton, Losses};
use data::Wanted;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value, json};
use std::borrow::Cow;
use technique::{Choice, Fault};
use train::Task;

/// The teacher's temperature where a recipe gives none.
const TEMPERATURE: f64 = 4.0;
/// The teacher's share of the loss where a recipe gives none.
const ALPHA: f64 = 0.7;

/// A loss with its weight: `{ kind = "feature", weight = 0.1, ... }`, or a name alone for the weight 1.
#[derive(Clone, Debug, PartialEq)]
pub struct WeightedLoss {
    /// Factor on the loss; 0 or more.
    pub weight: f64,
    /// The loss and its settings.
    pub loss: Choice<Losses>,
}

impl WeightedLoss {
    /// A loss with a weight.
    ///
    /// # Errors
    /// A [`Fault`] for a weight that is negative or not finite.
    pub fn new(weight: f64, loss: Choice<Losses>) -> Result<Self, Fault> {
        positive("weight", weight)?;
        Ok(WeightedLoss { weight, loss })
    }
}

fn positive(key: &str, weight: f64) -> Result<(), Fault> {
    if weight.is_finite() && weight >= 0.0 {
        return Ok(());
    }
    Err(Fault::new(key, format!("{key} = {weight}: a number of 0 or more is needed")))
}

impl Serialize for WeightedLoss {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = Map::from_iter([("kind".to_string(), Value::from(self.loss.kind())), ("weight".to_string(), self.weight.into())]);
        map.extend(self.loss.settings().clone());
        map.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for WeightedLoss {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut value = Value::deserialize(deserializer)?;
        let weight = match value.as_object_mut().and_then(|map| map.remove("weight")) {
            None => 1.0,
            Some(weight) => weight.as_f64().ok_or_else(|| D::Error::custom(format!("weight = {weight}: a number is needed")))?,
        };
        if let Value::Object(map) = &value
            && !map.contains_key("kind")
        {
            return Err(D::Error::missing_field("kind"));
        }
        let loss = serde_json::from_value(value).map_err(|e| D::Error::custom(e.to_string()))?;
        WeightedLoss::new(weight, loss).map_err(|fault| D::Error::custom(fault.to_string()))
    }
}

impl JsonSchema for WeightedLoss {
    fn schema_name() -> Cow<'static, str> {
        "loss".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut schema = Choice::<Losses>::json_schema(generator).to_value();
        for choice in schema["oneOf"].as_array_mut().into_iter().flatten().filter(|c| c.get("properties").is_some()) {
            choice["properties"]["weight"] =
                json!({ "type": "number", "minimum": 0, "default": 1.0, "description": "What the loss is multiplied with." });
        }
        Schema::try_from(schema).unwrap_or_default()
    }
}

/// The objective of a distillation: `task_weight * task + sum of weight * loss`.
#[derive(Clone, Debug, PartialEq)]
pub struct DistillationSettings {
    /// Weight of the task's own loss, on the labels.
    pub task_weight: f64,
    /// Losses between student and teacher.
    pub losses: Vec<WeightedLoss>,
}

impl Default for DistillationSettings {
    /// Hinton's loss with temperature 4 and weight 0.7, the labels with 0.3.
    fn default() -> Self {
        DistillationSettings::hinton(TEMPERATURE as f32, ALPHA as f32)
    }
}

impl DistillationSettings {
    /// `(1 - alpha) * task + alpha * T^2 * KL(teacher || student)`: Hinton's loss alone. `alpha` is the teacher's share, 0..1. Settings
    /// out of range are refused where the objective is made.
    pub fn hinton(temperature: f32, alpha: f32) -> Self {
        let alpha = f64::from(alpha);
        DistillationSettings {
            task_weight: 1.0 - alpha,
            losses: vec![WeightedLoss { weight: alpha, loss: Hinton { temperature, outputs: vec![] }.choice() }],
        }
    }

    /// From the keys of a stage: `losses` and `task_weight` (absent: 1), or the short form for the task's usual loss alone, `alpha`
    /// (absent: 0.7) and, for Hinton's loss, `temperature` (absent: 4).
    ///
    /// # Errors
    /// A [`Fault`] at the key that is out of range, or where both forms are mixed.
    pub fn from_keys(
        task: &dyn Task,
        losses: Option<&[WeightedLoss]>,
        task_weight: Option<f64>,
        temperature: Option<f64>,
        alpha: Option<f64>,
    ) -> Result<Self, Fault> {
        let Some(losses) = losses else {
            let softened = temperature.is_some();
            let (temperature, alpha) = (temperature.unwrap_or(TEMPERATURE), alpha.unwrap_or(ALPHA));
            if let Some(weight) = task_weight {
                let what = "task_weight goes with losses: without them the labels have the weight 1 - alpha";
                let hint = format!(
                    "leave it out, or write losses = [{{ kind = \"hinton\", weight = {}, temperature = {temperature} }}]",
                    1.0 - weight
                );
                return Err(Fault::new("task_weight", what).hint(hint));
            }
            technique::within("alpha", alpha, 0.0, 1.0, "it is the teacher's share of the loss")?;
            let usual = Choice::<Losses>::named(task.distillation_loss())?;
            if !usual.compares_classes() {
                if softened {
                    let what = format!("temperature softens probabilities of classes; this task's teacher is compared by {}", usual.kind());
                    return Err(Fault::new("temperature", what).hint("leave it out"));
                }
                return Ok(DistillationSettings { task_weight: 1.0 - alpha, losses: vec![WeightedLoss { weight: alpha, loss: usual }] });
            }
            if !(temperature > 0.0 && temperature.is_finite()) {
                return Err(Fault::new("temperature", format!("temperature = {temperature}: a number above 0 is needed")));
            }
            return Ok(DistillationSettings::hinton(temperature as f32, alpha as f32));
        };
        if let Some(key) = [("temperature", temperature), ("alpha", alpha)].into_iter().find_map(|(key, v)| v.map(|_| key)) {
            let (t, a) = (temperature.unwrap_or(TEMPERATURE), alpha.unwrap_or(ALPHA));
            let hint = format!(
                "leave it out; temperature and alpha alone stand for task_weight = {} and losses = [{{ kind = \"hinton\", weight = {a}, \
                 temperature = {t} }}]",
                rounded(1.0 - a)
            );
            return Err(Fault::new(key, format!("{key} is a short form of Hinton's loss, and losses already lists every loss")).hint(hint));
        }
        let task_weight = task_weight.unwrap_or(1.0);
        positive("task_weight", task_weight)?;
        if losses.is_empty() {
            let hint = "name one: losses = [{ kind = \"hinton\", weight = 0.7 }]";
            return Err(Fault::new("losses", "losses is an empty list: the student would learn nothing from the teacher").hint(hint));
        }
        if let (Some(wrong), false) = (losses.iter().find(|l| l.loss.compares_classes()), task.wanted() == Wanted::Class) {
            let what = format!("{} compares probabilities of classes, and this task has none", wrong.loss.kind());
            let hint = format!("losses = [{{ kind = \"{}\", weight = {} }}]", task.distillation_loss(), wrong.weight);
            return Err(Fault::new("losses", what).hint(hint));
        }
        Ok(DistillationSettings { task_weight, losses: losses.to_vec() })
    }

    /// True if the teacher has an effect: a loss between student and teacher has a weight above 0.
    pub fn has_weight(&self) -> bool {
        self.losses.iter().any(|l| l.weight > 0.0)
    }

    /// Approximate objective of an untrained student, in units of the logarithm of the number of classes.
    pub fn scale(&self) -> f64 {
        self.task_weight + self.losses.iter().map(|l| l.weight * l.loss.scale()).sum::<f64>()
    }
}

/// A number in short decimal form: 0.3, not 0.30000000000000004.
fn rounded(v: f64) -> f64 {
    (v * 1e9).round() / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;
    use train::{Classification, Regression};

    #[test]
    fn a_regression_is_taught_by_outputs_and_by_nothing_that_compares_classes() {
        let task = Regression::default();
        let short = DistillationSettings::from_keys(&task, None, None, None, Some(0.25)).unwrap();
        assert_eq!((short.task_weight, short.losses[0].weight, short.losses[0].loss.kind()), (0.75, 0.25, "outputs"));
        assert_eq!(DistillationSettings::from_keys(&task, None, None, Some(4.0), None).unwrap_err().path, ["temperature"]);
        let list = [read("\"hinton\"").unwrap()];
        let fault = DistillationSettings::from_keys(&task, Some(&list), None, None, None).unwrap_err();
        assert_eq!(fault.hint.as_deref(), Some("losses = [{ kind = \"outputs\", weight = 1 }]"));
    }

    fn read(json: &str) -> Result<WeightedLoss, String> {
        serde_json::from_str(json).map_err(|e| e.to_string())
    }

    #[test]
    fn a_loss_is_read_by_name_or_with_its_settings_and_written_back() {
        let plain = read("\"hinton\"").unwrap();
        assert_eq!((plain.weight, plain.loss.kind()), (1.0, "hinton"));
        let full = read(r#"{ "kind": "feature", "weight": 0.1, "pairs": [["a", "b"]] }"#).unwrap();
        assert_eq!((full.weight, full.loss.kind(), full.loss.settings().len()), (0.1, "feature", 1));
        for loss in [plain, full] {
            assert_eq!(read(&serde_json::to_string(&loss).unwrap()).unwrap(), loss);
        }
        for (json, part) in [
            ("\"hintn\"", "did you mean 'hinton'?"),
            (r#"{ "kind": "hinton", "weight": -1 }"#, "weight = -1"),
            (r#"{ "kind": "hinton", "weight": "much" }"#, "a number is needed"),
            (r#"{ "kind": "hinton", "temperature": 0 }"#, "temperature = 0"),
            (r#"{ "kind": "hinton", "pairs": [] }"#, "unknown field `pairs`"),
            (r#"{ "weight": 1 }"#, "missing field `kind`"),
        ] {
            let e = read(json).unwrap_err();
            assert!(e.contains(part), "{json}: {e}");
        }
    }

    #[test]
    fn the_schema_offers_the_weight_with_every_loss() {
        let schema = SchemaGenerator::default().into_root_schema_for::<WeightedLoss>().to_value();
        let tables: Vec<&Value> = schema["oneOf"].as_array().unwrap().iter().filter(|c| c.get("properties").is_some()).collect();
        assert_eq!(tables.len(), <Losses as technique::Family>::members().len());
        assert!(tables.iter().all(|t| t["properties"]["weight"]["type"] == "number"));
    }

    #[test]
    fn the_short_form_is_hintons_loss_and_does_not_mix_with_a_list() {
        let task = Classification::default();
        let of = |losses: Option<&[WeightedLoss]>, weight, t, a| DistillationSettings::from_keys(&task, losses, weight, t, a);
        assert_eq!(of(None, None, None, None).unwrap(), DistillationSettings::default());
        assert_eq!(of(None, None, Some(2.0), Some(0.5)).unwrap(), DistillationSettings::hinton(2.0, 0.5));
        let list = [read("\"feature\"").unwrap()];
        assert_eq!(of(Some(&list), None, None, None).unwrap().task_weight, 1.0);
        let told = |r: Result<DistillationSettings, Fault>| r.unwrap_err();
        assert_eq!(told(of(None, None, Some(0.0), None)).path, ["temperature"]);
        assert_eq!(told(of(None, None, None, Some(1.5))).path, ["alpha"]);
        assert_eq!(told(of(None, Some(0.5), None, None)).path, ["task_weight"]);
        assert_eq!(told(of(Some(&[]), None, None, None)).path, ["losses"]);
        assert_eq!(told(of(Some(&list), Some(-1.0), None, None)).path, ["task_weight"]);
        let mixed = told(of(Some(&list), None, Some(2.0), None));
        assert_eq!(mixed.path, ["temperature"]);
        assert!(mixed.hint.unwrap().contains("task_weight = 0.3 and losses = [{ kind = \"hinton\", weight = 0.7, temperature = 2 }]"));
    }
}
