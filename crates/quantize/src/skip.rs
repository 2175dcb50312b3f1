//! Whether what is to stay in float is there.
use crate::{QuantizeError, QuantizeSettings, Result};
use graph::Model;
use train::parameters::matches;

/// Checks that each `skip` pattern names a node. To be asked before BatchNormalization is folded: what goes into a layer then is there
/// no more, and must not be called unknown for it.
///
/// # Errors
/// [`QuantizeError::Setting`] for a pattern that matches no node.
pub fn check_skip(model: &Model, settings: &QuantizeSettings) -> Result<()> {
    for pattern in &settings.skip {
        let mut found = false;
        model.graph.visit(&mut |n| found |= matches(pattern, &n.label(&model.values)));
        if !found {
            return Err(QuantizeError::Setting { setting: "skip", what: format!("'{pattern}' matches no node") });
        }
    }
    Ok(())
}
