//! Families as data, for `list`, `explain` and the documentation.
use crate::{Family, Manual};

/// A family and its members.
#[derive(Clone, Debug)]
pub struct FamilyManual {
    /// Its name: the recipe's key.
    pub name: &'static str,
    /// One sentence: what the choice decides.
    pub summary: &'static str,
    /// The default member.
    pub default: Option<&'static str>,
    /// All members.
    pub members: Vec<MemberManual>,
}

/// A member, with its settings.
#[derive(Clone, Debug)]
pub struct MemberManual {
    /// Its manual page.
    pub manual: Manual,
    /// Its settings, in alphabetical order or that of their declaration.
    pub settings: Vec<SettingManual>,
}

/// One setting.
#[derive(Clone, Debug)]
pub struct SettingManual {
    /// Key of the setting in a recipe.
    pub key: String,
    /// The setting's meaning.
    pub summary: String,
    /// Its default as JSON; `None` if the setting is required.
    pub default: Option<String>,
}

/// A family as data.
pub fn manual<F: Family>() -> FamilyManual {
    let members = F::members().iter().map(|entry| {
        let schema = (entry.schema)().to_value();
        let settings = schema["properties"].as_object().into_iter().flatten().map(|(key, value)| SettingManual {
            key: key.clone(),
            summary: value["description"].as_str().unwrap_or_default().replace('\n', " "),
            default: value.get("default").map(|d| d.to_string()),
        });
        MemberManual { manual: entry.manual, settings: settings.collect() }
    });
    FamilyManual { name: F::NAME, summary: F::SUMMARY, default: F::DEFAULT, members: members.collect() }
}

impl MemberManual {
    /// The page as text.
    pub fn text(&self, family: &str) -> String {
        let Manual { name, summary, details, source, example } = self.manual;
        let mut out = format!("{family} {name}: {summary}\n");
        if !details.is_empty() {
            out += &format!("\n{details}\n");
        }
        let width = self.settings.iter().map(|s| s.key.len()).max().unwrap_or(0);
        for (i, s) in self.settings.iter().enumerate() {
            let default = s.default.as_ref().map_or(" (must be given)".to_string(), |d| format!(" (default: {d})"));
            out += &format!("{}  {:width$}  {}{default}\n", if i == 0 { "\n" } else { "" }, s.key, s.summary);
        }
        if !source.is_empty() {
            out += &format!("\nSource: {source}\n");
        }
        out + &format!("\nIn a recipe:\n\n{}\n", example.trim_end())
    }
}
