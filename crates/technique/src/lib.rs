//! Common parts of all techniques: a family, a name, settings, a manual page.
//!
//! A **family** is a choice that a recipe offers (`criterion`, `observer`, `losses`, ...). A **member** is one technique: a type that
//! holds its own settings and implements the family's trait. One file a member, one line in the family's list; recipes, the schema,
//! `list` and `explain` read that list.
//!
//! A recipe names a member by a string (`criterion = "magnitude"`) or, with settings, by a table
//! (`criterion = { kind = "taylor", batches = 8 }`): a [`Choice`] is read from either.
//!
//! ```
//! use espalier_technique::{Choice, Entry, Family, Manual, Settings, member};
//!
//! trait Shape: Send + Sync {
//!     fn area(&self) -> f64;
//! }
//! #[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
//! #[serde(default, deny_unknown_fields)]
//! struct Square {
//!     /// Length of a side.
//!     side: f64,
//! }
//! impl Default for Square {
//!     fn default() -> Self {
//!         Square { side: 1.0 }
//!     }
//! }
//! impl Settings for Square {}
//! impl Shape for Square {
//!     fn area(&self) -> f64 {
//!         self.side * self.side
//!     }
//! }
//! struct Shapes;
//! impl Family for Shapes {
//!     type Member = dyn Shape;
//!     const NAME: &'static str = "shape";
//!     const SUMMARY: &'static str = "What is drawn.";
//!     const DEFAULT: Option<&'static str> = Some("square");
//!     fn members() -> &'static [Entry<dyn Shape>] {
//!         static LIST: &[Entry<dyn Shape>] = &[member!(Square as dyn Shape, Manual {
//!             name: "square",
//!             summary: "Four equal sides.",
//!             details: "",
//!             source: "Euclid, Elements, I.46",
//!             example: "shape = { kind = \"square\", side = 2 }",
//!         })];
//!         LIST
//!     }
//! }
//! let shape: Choice<Shapes> = serde_json::from_str(r#"{ "kind": "square", "side": 3.0 }"#).unwrap();
//! assert_eq!(shape.area(), 9.0);
//! assert_eq!(serde_json::from_str::<Choice<Shapes>>("\"square\"").unwrap().area(), 1.0);
//!
//! // In Rust the settings themselves are the choice.
//! assert_eq!(Square { side: 3.0 }.choice::<Shapes>().unwrap(), shape);
//! ```
mod choice;
mod fault;
mod manual;
mod member;

pub use choice::Choice;
pub use fault::{Fault, did_you_mean, within};
pub use manual::{FamilyManual, MemberManual, SettingManual, manual};
pub use member::{Entry, Family, Manual, Settings, find, read};

/// For [`member!`].
#[doc(hidden)]
pub mod private {
    pub use schemars;
    pub use serde_json;
}
