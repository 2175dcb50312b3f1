//! The record of a run, and its views: a self-contained HTML page, a terminal table, Markdown.
//!
//! Every number in a view comes from the [`record::RunRecord`]; the views compute nothing about models.
mod chart;
mod html;
mod markdown;
pub mod record;
mod table;
mod terminal;
pub mod text;

pub use html::{PAGE_MARK, html};
pub use markdown::markdown;
pub use record::{RecordError, RunRecord};
pub use terminal::terminal;
