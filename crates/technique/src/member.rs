//! Families and their members.
use crate::fault::did_you_mean;
use crate::{Choice, Fault};
use schemars::{JsonSchema, Schema};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use std::any::TypeId;
use std::sync::Arc;

/// Settings of a technique: the type that implements it. Use `#[serde(default, deny_unknown_fields)]`.
pub trait Settings: DeserializeOwned + Serialize + JsonSchema + Default + 'static {
    /// Checks ranges.
    ///
    /// # Errors
    /// A [`Fault`] at the key that is wrong.
    fn check(&self) -> Result<(), Fault> {
        Ok(())
    }

    /// The technique with these settings as a choice of the family: the same as its name with the settings that differ from its
    /// defaults.
    ///
    /// # Errors
    /// A [`Fault`] for settings that [`Settings::check`] refuses, or a type that is no member of the family.
    fn choice<F: Family>(&self) -> Result<Choice<F>, Fault> {
        let entry = F::members().iter().find(|entry| (entry.type_id)() == TypeId::of::<Self>());
        let entry = entry.ok_or_else(|| Fault::new("", format!("{} is no {}", std::any::type_name::<Self>(), F::NAME)))?;
        let table = |settings: &Self| match serde_json::to_value(settings) {
            Ok(Value::Object(map)) => Ok(map),
            _ => Err(Fault::new("", format!("the settings of {} '{}' are no table", F::NAME, entry.manual.name))),
        };
        let (mut settings, defaults) = (table(self)?, table(&Self::default())?);
        settings.retain(|key, value| defaults.get(key) != Some(value));
        Choice::new(entry.manual.name, settings)
    }
}

/// The manual page of a technique.
#[derive(Clone, Copy, Debug)]
pub struct Manual {
    /// Its name in recipes.
    pub name: &'static str,
    /// One sentence: what the technique does.
    pub summary: &'static str,
    /// Formula, shapes, and when to use it; may be empty.
    pub details: &'static str,
    /// The paper and equation; empty where it is common knowledge.
    pub source: &'static str,
    /// Keys of a recipe that use it, as written below the heading of a stage that takes it.
    pub example: &'static str,
}

/// A member in its family's list. Made by [`crate::member!`].
pub struct Entry<T: ?Sized + 'static> {
    /// Its manual page.
    pub manual: Manual,
    /// The type of its settings.
    pub type_id: fn() -> TypeId,
    /// Schema of its settings.
    pub schema: fn() -> Schema,
    /// Reads and checks its settings.
    pub build: fn(Map<String, Value>) -> Result<Arc<T>, Fault>,
}

/// A choice that recipes offer.
pub trait Family: 'static {
    /// The trait that its members implement.
    type Member: ?Sized + Send + Sync + 'static;
    /// Its name: the recipe's key.
    const NAME: &'static str;
    /// One sentence: what the choice decides.
    const SUMMARY: &'static str;
    /// The default member.
    const DEFAULT: Option<&'static str>;
    /// All members: the one list.
    fn members() -> &'static [Entry<Self::Member>];
}

/// The entry for a type that implements a family's trait: `member!(Taylor as dyn Criterion, Manual { ... })`.
#[macro_export]
macro_rules! member {
    ($ty:ty as $member:ty, $manual:expr) => {
        $crate::Entry {
            manual: $manual,
            type_id: || ::std::any::TypeId::of::<$ty>(),
            schema: || $crate::private::schemars::schema_for!($ty),
            build: |settings| {
                let read: $ty = $crate::read(settings)?;
                Ok(::std::sync::Arc::new(read) as ::std::sync::Arc<$member>)
            },
        }
    };
}

/// Settings from a recipe's keys, checked.
///
/// # Errors
/// A [`Fault`] for an unknown key, a value of the wrong type, or an error of [`Settings::check`].
pub fn read<S: Settings>(settings: Map<String, Value>) -> Result<S, Fault> {
    let read: S = serde_json::from_value(Value::Object(settings)).map_err(|e| Fault::new("", e.to_string()))?;
    read.check()?;
    Ok(read)
}

/// The member of this name.
///
/// # Errors
/// A [`Fault`] with the known names.
pub fn find<F: Family>(name: &str) -> Result<&'static Entry<F::Member>, Fault> {
    F::members().iter().find(|entry| entry.manual.name == name).ok_or_else(|| {
        let known: Vec<&str> = F::members().iter().map(|entry| entry.manual.name).collect();
        let list = format!("known: {}", known.join(", "));
        let hint = did_you_mean(name, known.iter().copied()).map_or(list, |meant| format!("did you mean '{meant}'?"));
        Fault::new("", format!("there is no {} '{name}'", F::NAME)).hint(hint)
    })
}
