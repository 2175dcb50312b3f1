//! The page.
use crate::record::RunRecord;

/// The page.
pub fn html(record: &RunRecord) -> String {
    record.name.clone()
}
