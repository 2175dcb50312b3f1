//! Whether what is to stay in float is there.
use crate::{QuantizeSettings, Result};
use graph::Model;
use technique::Fault;
use train::parameters::matches;

/// Checks that each `skip` pattern names a node. To be asked before BatchNormalization is folded: what goes into a layer then is there
/// no more, and must not be called unknown for it.
///
/// # Errors
/// [`crate::QuantizeError::Setting`] for a pattern that matches no node.
pub fn check_skip(model: &Model, settings: &QuantizeSettings) -> Result<()> {
    for pattern in &settings.skip {
        let mut found = false;
        model.graph.visit(&mut |n| found |= matches(pattern, &n.label(&model.values)));
        if !found {
            return Err(Fault::new("skip", format!("'{pattern}' matches no node")).into());
        }
    }
    Ok(())
}
