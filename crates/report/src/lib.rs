//! The record of a run, and its views: a self-contained HTML page, a terminal table, Markdown.
//!
//! Every number in a view comes from the [`record::RunRecord`]; the views do not run models.
mod chart;
mod curves;
mod cuts;
mod diagnosis;
mod effects;
mod html;
mod markdown;
pub mod record;
mod sections;
mod sparsities;
mod table;
mod task;
mod terminal;
pub mod text;
mod widths;

pub use curves::curves;
pub use diagnosis::diagnosis_text;
pub use html::{PAGE_MARK, html, html_live};
pub use markdown::markdown;
pub use record::{RecordError, RunRecord};
pub use sparsities::{prune_sensitivity_page, prune_sensitivity_text};
pub use terminal::{terminal, terminal_after};
pub use widths::{sensitivity_page, sensitivity_text};
