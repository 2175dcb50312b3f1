//! `calibration`: the samples and the observer for the ranges of activations.
use quantize::{Observers, observer::Auto};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Map;
use technique::{Choice, Fault};

/// How the ranges of activations are found. The samples run once: a later run in the same folder with another observer or width
/// reuses the stored statistics.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CalibrationSettings {
    /// The observer, by its name or as `{ kind = "percentile", percent = 99.9 }`.
    pub observer: Choice<Observers>,
    /// Where the samples come from.
    pub data: CalibrationData,
    /// Number of samples to calibrate on.
    #[serde(alias = "samples")]
    pub images: usize,
    /// Samples in a batch.
    pub batch: usize,
    /// The old spelling of `observer = { kind = "percentile", percent = ... }`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("deprecated" = true))]
    pub percentile: Option<f64>,
    /// Seed of the subset of training samples; absent: the recipe's seed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
}

/// Where calibration samples come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CalibrationData {
    /// `data.train` of the recipe.
    #[default]
    Train,
    /// Images made for it, shapes that hide one another ("dead leaves"): for a network with one image as its input of which no data
    /// are at hand. Corrections learn from them too. They take the size, the mean and the standard deviation of the preprocessing.
    Generated,
}

impl Default for CalibrationSettings {
    fn default() -> Self {
        CalibrationSettings {
            observer: Choice::default(),
            data: CalibrationData::Train,
            images: 512,
            batch: 64,
            percentile: None,
            seed: None,
        }
    }
}

/// The observer that the old key sets.
const PERCENTILE: &str = "percentile";

impl CalibrationSettings {
    /// Checks ranges.
    ///
    /// # Errors
    /// A [`Fault`] at the key.
    pub fn check(&self) -> Result<(), Fault> {
        if self.images == 0 || self.batch == 0 {
            return Err(Fault::new("", "calibration needs at least one sample, and a batch of at least one"));
        }
        self.resolved().map(|_| ()).map_err(|fault| Fault { path: vec![PERCENTILE.into()], ..fault })
    }

    /// The observer, with the old key `percentile` applied.
    pub fn observer(&self) -> Choice<Observers> {
        self.resolved().ok().flatten().unwrap_or_else(|| self.observer.clone())
    }

    /// The observer with the old key applied; `None` if the key is absent.
    fn resolved(&self) -> Result<Option<Choice<Observers>>, Fault> {
        let Some(percent) = self.percentile else { return Ok(None) };
        let named: Choice<Observers> = Choice::new(PERCENTILE, Map::from_iter([("percent".to_string(), percent.into())]))?;
        if self.observer.kind() == PERCENTILE {
            let both = !self.observer.settings().is_empty();
            return if both {
                Err(Fault::new("", "percentile and the observer's percent are the same setting: leave percentile out"))
            } else {
                Ok(Some(named))
            };
        }
        if self.observer.candidates().is_empty() || !self.observer.settings().is_empty() || named.settings()["percent"] == Self::DEFAULT {
            return Ok(None);
        }
        let among = self.observer.candidates().iter().map(|o| if o.kind() == PERCENTILE { named.clone() } else { o.clone() });
        Choice::with(self.observer.kind(), &Auto { among: among.collect(), ..Auto::default() }).map(Some)
    }

    /// The default percentage of the percentile observer.
    const DEFAULT: f64 = 99.99;

    /// A note if the recipe uses the old spelling, with the new one.
    pub fn old_spelling(&self) -> Option<String> {
        let percent = self.percentile?;
        let line = match self.resolved().ok().flatten() {
            Some(observer) if observer.kind() == PERCENTILE => format!("observer = {{ kind = \"percentile\", percent = {percent} }}"),
            Some(observer) => format!("observer = {}", inline(&observer)),
            None => {
                return Some(format!(
                    "calibration.percentile = {percent} has no effect with observer {}: leave it out",
                    self.observer.kind()
                ));
            }
        };
        Some(format!("calibration.percentile is the old spelling; write {line} instead"))
    }
}

/// A choice as a value in TOML.
fn inline(observer: &Choice<Observers>) -> String {
    toml::Value::try_from(observer).map(|v| v.to_string()).unwrap_or_else(|_| observer.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> CalibrationSettings {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn the_old_spelling_says_what_the_new_one_says() {
        let old = read("observer = \"percentile\"\npercentile = 99.9");
        let new = read("observer = { kind = \"percentile\", percent = 99.9 }");
        assert_eq!(old.observer(), new.observer());
        assert_eq!((old.check(), new.check()), (Ok(()), Ok(())));
        let note = old.old_spelling().unwrap();
        assert!(note.ends_with("write observer = { kind = \"percentile\", percent = 99.9 } instead"), "{note}");
        assert_eq!(new.old_spelling(), None);
        // The key also applies to the candidates of `auto`.
        let auto = read("percentile = 99.9");
        assert!(auto.observer().candidates().contains(&new.observer()));
        let note = auto.old_spelling().unwrap();
        let line = note.trim_start_matches("calibration.percentile is the old spelling; write ").trim_end_matches(" instead");
        assert_eq!(read(line).observer(), auto.observer(), "{line}");
        assert_eq!(read("percentile = 99.99").observer(), CalibrationSettings::default().observer());
        let other = read("observer = \"mse\"\npercentile = 99.9");
        assert_eq!(other.observer().kind(), "mse");
        assert!(other.old_spelling().unwrap().contains("has no effect with observer mse"));
    }

    #[test]
    fn what_cannot_be_is_refused_at_its_key() {
        for (text, path, what) in [
            ("percentile = 50", "percentile", "percent = 50"),
            ("observer = { kind = \"percentile\", percent = 99 }\npercentile = 99", "percentile", "percentile and the observer's percent"),
            ("images = 0", "", "calibration needs at least one sample"),
        ] {
            let fault = read(text).check().unwrap_err();
            assert_eq!(fault.path.join("."), path, "{text}");
            assert!(fault.what.starts_with(what), "{fault}");
        }
        assert!(toml::from_str::<CalibrationSettings>("observer = { kind = \"percentile\", percent = 50 }").is_err());
    }
}
