//! Errors of settings.
use std::fmt;

/// An invalid setting: its place, what is wrong, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Keys from the outermost table to the setting.
    pub path: Vec<String>,
    /// What is wrong, as a sentence without a full stop.
    pub what: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Fault {
    /// `path` holds keys with dots between them; empty for the technique as a whole.
    pub fn new(path: &str, what: impl Into<String>) -> Self {
        let path = path.split('.').filter(|key| !key.is_empty()).map(str::to_string).collect();
        Fault { path, what: what.into(), hint: None }
    }

    /// Adds a remedy.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The same fault with the key of an outer table before its path.
    pub fn under(mut self, outer: &str) -> Self {
        self.path.splice(0..0, outer.split('.').filter(|key| !key.is_empty()).map(str::to_string));
        self
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        match &self.hint {
            Some(hint) => write!(f, "; {hint}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Fault {}

/// Refuses a number outside `least..=most`, and NaN.
///
/// # Errors
/// A [`Fault`] at `path` that names the number, the range and `why`.
pub fn within(path: &str, value: f64, least: f64, most: f64, why: &str) -> Result<(), Fault> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    let key = path.rsplit('.').next().unwrap_or(path);
    Err(Fault::new(path, format!("{key} = {value} is not within {least}..{most}: {why}")))
}

/// The known name closest to the given one, if it is close enough to be a typing error; else the only one that begins with it.
pub fn did_you_mean<'a>(written: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let limit = (written.chars().count() / 3).max(2);
    let written = written.to_lowercase();
    let known: Vec<&str> = known.into_iter().collect();
    let scored = known.iter().map(|k| (strsim::damerau_levenshtein(&written, &k.to_lowercase()), *k));
    let near = scored.filter(|(d, _)| *d <= limit).min().map(|(_, k)| k);
    let mut longer = known.iter().filter(|k| written.len() > 2 && k.to_lowercase().starts_with(&written));
    near.or_else(|| longer.next().copied().filter(|_| longer.next().is_none()))
}

#[cfg(test)]
mod tests {
    use super::did_you_mean;

    #[test]
    fn typing_errors_and_beginnings_are_understood() {
        let known = ["lenet300-100", "lenet5", "resnet8", "resnet20"];
        for (written, meant) in
            [("lenet6", Some("lenet5")), ("lenet300", Some("lenet300-100")), ("restnet20", Some("resnet20")), ("mobile", None)]
        {
            assert_eq!(did_you_mean(written, known), meant, "{written}");
        }
    }
}
